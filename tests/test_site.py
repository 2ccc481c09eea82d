"""What the site shows beside the documents: a page for each method, parts of the README, links."""

import importlib
import re
from pathlib import Path

import pytest

from prumerge.catalogue import built_in

ROOT = Path(__file__).parent.parent
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))


@pytest.fixture
def docs(monkeypatch):
    """The modules of docs/ by their names."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module


@pytest.mark.parametrize("name", built_in())
def test_a_method_has_a_page_with_its_options_and_where_it_comes_from(docs, name):
    page = docs("method_pages").page(name)
    assert page.startswith(f"# {name}\n")
    assert "| `keep` |" in page
    for section in ("Options", "Use", "Fidelity", "Source and licence"):
        assert f"\n## {section}\n" in page


def test_formulas_are_of_methods_that_there_are():
    assert set(re.findall(r"^## (\w+)", (ROOT / "docs" / "formulas.md").read_text(), re.M)) <= set(built_in())


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("prumerge", ["42Shawn/LLaVA-PruMerge (Apache-2.0): IQR, ratio 1/8, PruMerge+"]),
        ("scope", ["kinredon/SCOPE (no licence: outputs only), alpha 1"]),
        ("dart", []),
        ("pool", []),
    ],
)
def test_a_page_tells_which_official_code_was_compared_with(docs, name, source):
    assert docs("method_pages").recorded(name) == source


def test_accuracy_on_a_page_is_what_was_measured(docs):
    assert "| 36 | 94.6 | -0.7 [-2.1, +0.7] |" in docs("method_pages").page("scope")


def test_every_notebook_is_on_the_site(docs):
    pages = docs("notebook_pages")
    assert sorted(pages.ORDER) == sorted(path.stem for path in (ROOT / "docs" / "notebooks").glob("*.py"))
    assert pages.title("quick_start") == "Quick start"


def test_a_notebook_becomes_a_page_with_what_its_cells_print_and_draw(docs):
    png, warning = {"image/png": "QUJD", "text/plain": "<PIL>"}, {"name": "stderr", "text": "a bar"}
    outputs = [
        {"name": "stdout", "text": "printed\n"},
        {"data": png},
        {"data": {"text/plain": "42"}},
        warning,
    ]
    cells = [
        {"cell_type": "markdown", "source": "# Serve"},
        {"cell_type": "code", "source": "1 + 1", "outputs": outputs},
    ]
    text, pictures = docs("notebook_pages").page("serve", {"cells": cells})
    assert pictures == {"serve-1.png": b"ABC"}
    _, links, *rest = text.strip().split("\n\n")
    assert "(serve.ipynb)" in links
    assert rest == [
        "```python\n1 + 1\n```",
        "```text\nprinted\n```",
        "![What the cell above shows](serve-1.png)",
        "```text\n42\n```",
    ]


def test_a_notebook_that_was_not_executed_is_named(docs, monkeypatch, tmp_path):
    pages = docs("notebook_pages")
    monkeypatch.setattr(pages, "EXECUTED", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"serve\.ipynb is not there .* run `make notebooks`"):
        pages.read("serve")


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_takes_from_the_readme_is_there(docs, page):
    text = docs("site_pages").with_readme((ROOT / "docs" / page).read_text(), page)
    assert "<!-- README.md:" not in text


def test_a_section_that_the_readme_lacks_is_named(docs):
    with pytest.raises(ValueError, match=r"no section 'Cooking', which how\.md asks for"):
        docs("site_pages").with_readme("<!-- README.md: Cooking -->", "how.md")


@pytest.mark.parametrize(
    ("source", "here", "link", "there"),
    [
        ("README.md", "index.md", "docs/methods.md#trim", "methods.md#trim"),
        ("README.md", "index.md", "CONTRIBUTING.md", "contributing.md"),
        ("docs/x/y.md", "x/y.md", "../results.md", "../results.md"),
        ("docs/training.md", "training.md", "../examples/trainer.py", "{}examples/trainer.py"),
        ("docs/index.md", "index.md", "notebooks/serve.py", "notebooks/serve.md"),
        ("README.md", "evaluating.md", "#speed", "#speed"),
        ("README.md", "index.md", "https://arxiv.org", "https://arxiv.org"),
    ],
)
def test_links_lead_to_the_site_or_to_the_repository(docs, source, here, link, there):
    site = docs("site_pages")
    assert site.relinked(f"[x]({link})", source, here) == f"[x]({there.format(site.REPOSITORY)})"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<a href="other.html#there">', ""),
        ('<a href="none.html">', "index.html links to none.html, which is not there"),
        ('<a href="other.html#gone">', "index.html links to other.html#gone, an anchor that is not there"),
        ('<img src="https://cdn.example/a.png">', "index.html loads https://cdn.example/a.png"),
        ('<a href="https://example.com">', ""),
    ],
)
def test_the_link_checker_finds_what_is_wrong(docs, tmp_path, body, problem):
    (tmp_path / "index.html").write_text(body)
    (tmp_path / "other.html").write_text('<h2 id="there">')
    assert docs("check_links").problems(tmp_path) == ([problem] if problem else [])
