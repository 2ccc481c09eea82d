"""Easy-VQA as its package has it, the pictures enlarged."""

import sys
from types import ModuleType
from typing import Any

import pytest
from noise import noise

from prumerge.errors import MissingPackage
from prumerge.evaluate.tasks import task
from prumerge.evaluate.tasks._task import Question, Source

QUESTIONS = ["what is the red shape?", "is there a circle?", "what colour?", "no triangle?"]


@pytest.fixture
def package(monkeypatch, tmp_path):
    """As the package is, with four questions about two pictures."""
    paths = {number: str(tmp_path / f"{number}.png") for number in (0, 1)}
    for path in paths.values():
        noise((64, 64)).save(path)
    made: Any = ModuleType("easy_vqa")
    made.get_test_questions = lambda: (QUESTIONS, ["circle", "no", "teal", "yes"], [0, 1, 0, 1])
    made.get_test_image_paths = lambda: paths
    monkeypatch.setitem(sys.modules, "easy_vqa", made)


def read(**given):
    return list(task("easy_vqa").read(Source(**given)))


def test_pictures_are_shown_enlarged_with_all_that_is_asked_about_them(package):
    (first, about), (_, other) = read()
    assert [(one.id, one.text, one.gold) for one in about] == [
        ("0000", "what is the red shape?", ("circle",)),
        ("0002", "what colour?", ("teal",)),
    ]
    assert [one.id for one in other] == ["0001", "0003"]
    assert [picture.size for picture in first()] == [(336, 336)]
    assert sum(len(questions) for _, questions in read(count=3)) == 3


def test_an_answer_is_right_in_any_case_and_with_an_article():
    question = Question("easy_vqa", "0", "0", "?", ("circle",))
    assert [task("easy_vqa").score(question, said) for said in ("A Circle.", "circles")] == [1, 0]


def test_without_the_package_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    with pytest.raises(MissingPackage, match="install it with: pip install easy-vqa"):
        read()


def test_the_package_has_9673_test_questions_about_1000_pictures():
    pytest.importorskip("easy_vqa")
    found = read()
    assert (len(found), sum(len(questions) for _, questions in found)) == (1000, 9673)
