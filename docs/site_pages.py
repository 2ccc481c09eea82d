"""What mkdocs adds to the documents of this folder when it builds the site (`make site`).

A page for each method and for each notebook; the changelog and the contributors' page; parts of the README
where a page asks for them by `<!-- README.md: HEADING -->`; and links to files that only the repository has.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
for folder in (ROOT, ROOT / "docs"):  # mkdocs runs from its own environment
    sys.path.insert(0, str(folder))

from method_pages import page as method_page  # noqa: E402
from method_pages import section  # noqa: E402
from notebook_pages import EXECUTED, ORDER, REPOSITORY, read, title  # noqa: E402
from notebook_pages import page as notebook_page  # noqa: E402

from prumerge.catalogue import built_in, entry  # noqa: E402

MOVED = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
NOTEBOOKS = {f"docs/notebooks/{name}.py": f"notebooks/{name}.md" for name in ORDER}


def on_config(config: Any) -> Any:
    """Each method's page stands below the page about all of them, and notebooks below each other."""
    for item in config["nav"]:
        if "Methods" in item:
            item["Methods"] = [item["Methods"], *({name: f"methods/{name}.md"} for name in built_in())]
        if "Notebooks" in item:
            item["Notebooks"] = [{title(name): f"notebooks/{name}.md"} for name in ORDER]
    return config


def on_files(files: Any, *, config: Any) -> Any:
    """Pages that no file of this folder holds."""
    from mkdocs.structure.files import File

    pages = {site: (ROOT / source).read_text() for source, site in MOVED.items() if site != "index.md"}
    pages |= {f"methods/{name}.md": method_page(name) for name in built_in()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for path, content in notebooks().items():
        files.append(File.generated(config, path, content=content))
    return files


def notebooks() -> dict[str, str | bytes]:
    """Pages, pictures and downloads of the executed notebooks, by their paths."""
    found: dict[str, str | bytes] = {}
    for name in ORDER:
        text, pictures = notebook_page(name, read(name))
        found |= {f"notebooks/{picture}": content for picture, content in pictures.items()}
        found[f"notebooks/{name}.md"] = text
        found[f"notebooks/{name}.ipynb"] = (EXECUTED / f"{name}.ipynb").read_bytes()
    return found


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """A page as the site shows it."""
    here = page.file.src_uri
    source = next(
        (source for source, site in MOVED.items() if site == here and site != "index.md"), f"docs/{here}"
    )
    if here == "methods.md":
        markdown = re.sub(
            r"<!-- options -->.*?<!-- end -->", lambda _: list_of_methods(), markdown, flags=re.S
        )
    return with_readme(relinked(markdown, source, here), here)


def list_of_methods() -> str:
    """A link to each method's page."""
    rows = [f"| [`{name}`](methods/{name}.md) | {entry(name).summary} |" for name in built_in()]
    return "\n".join(["## All methods", "", "| method | what it does |", "|---|---|", *rows])


def with_readme(markdown: str, here: str) -> str:
    """A page with the README's sections in the places that name them."""

    def inserted(found: re.Match[str]) -> str:
        text = opening() if found[1] == "opening" else section(ROOT / "README.md", found[1])
        if not text:
            raise ValueError(f"README.md has no section {found[1]!r}, which {here} asks for")
        return relinked(text, "README.md", here)

    return re.sub(r"<!-- README\.md: (.+?) -->", inserted, markdown)


def opening() -> str:
    """What the README says before its first section."""
    return (ROOT / "README.md").read_text().partition("\n\n")[2].partition("\n## ")[0]


def relinked(markdown: str, source: str, here: str) -> str:
    """Links of a file of the repository as they have to be on a page of the site.

    `source` is the file's path in the repository, `here` the page's below docs/.
    """

    def target(found: re.Match[str]) -> str:
        path, mark, anchor = found[1].partition("#")
        if not path:
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        moved = MOVED.get(path) or NOTEBOOKS.get(path)
        own = moved or (path.removeprefix("docs/") if path.startswith("docs/") else "")
        if own and not own.endswith((".py", ".json")):
            link = posixpath.relpath(own, posixpath.dirname(here) or ".")
        else:
            link = REPOSITORY + path
        return f"]({link}{mark}{anchor})"

    return re.sub(r"\]\((?!https?:|mailto:)([^)\s]+)\)", target, markdown)
