"""Pictures without right answers: which are asked about, with what, and what counts as right."""

import pytest

from benchmarks import picture
from prumerge.errors import PrumergeError
from prumerge.evaluate.tasks import task
from prumerge.evaluate.tasks._task import Source
from prumerge.evaluate.tasks.pictures import BUILT_IN, MOST, OWN

PICTURES = task("pictures")


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.JPG", "inside/c.webp"):
        picture(tmp_path / name, name)
    (tmp_path / "notes.md").write_text("no picture")
    return tmp_path


def asked(folder, count=None, **options):
    read = PICTURES.read(Source(folder, count, options))
    return [question for _, questions in read for question in questions]


def test_every_picture_of_a_folder_and_of_those_in_it_is_asked_about(folder):
    found = list(PICTURES.read(Source(folder)))
    assert [questions[0].picture for _, questions in found] == ["a.JPG", "b.png", "inside/c.webp"]
    assert all([one.text for one in questions] == [text for _, text in BUILT_IN] for _, questions in found)
    assert found[0][0]()[0].mode == "RGB"


def test_one_picture_is_a_folder_of_one(folder):
    assert {one.picture for one in asked(folder / "b.png")} == {"b.png"}


def test_questions_have_no_right_answer_and_say_what_kind_they_are(folder):
    assert {one.gold for one in asked(folder)} == {()}
    assert {one.split for one in asked(folder)} == {kind for kind, _ in BUILT_IN}


def test_a_file_of_questions_takes_the_place_of_those_built_in(folder, tmp_path):
    (folder / "questions.txt").write_text("How tall is it?\n\n How tall is it?\nIs it red?\n")
    assert [one.text for one in asked(folder)][:2] == ["How tall is it?", "Is it red?"]
    other = tmp_path / "other.txt"
    other.write_text("Why?\n")
    assert {(one.text, one.split) for one in asked(folder, questions=str(other))} == {("Why?", OWN)}


def test_of_many_pictures_some_are_taken_at_even_distances(tmp_path):
    for number in range(130):
        picture(tmp_path / f"{number:03}.png", number)
    names = [questions[0].picture for _, questions in PICTURES.read(Source(tmp_path))]
    assert (len(names), names[0], names[-1]) == (MOST, "000.png", "128.png")
    assert len({one.picture for one in asked(tmp_path, pictures="all")}) == 130
    assert [one.picture for one in asked(tmp_path, pictures="2")][:: len(BUILT_IN)] == ["000.png", "065.png"]
    assert len(asked(tmp_path, 10)) == 10


@pytest.mark.parametrize(
    ("options", "told"),
    [({"pictures": "0"}, "whole number or all"), ({"questions": "nowhere.txt"}, "no file of questions")],
)
def test_options_that_lead_nowhere_are_refused(folder, options, told):
    with pytest.raises(PrumergeError, match=told):
        asked(folder, **options)


def test_a_folder_without_pictures_and_a_file_without_questions_are_refused(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PrumergeError, match="holds no pictures"):
        asked(tmp_path / "empty")
    (folder / "questions.txt").write_text("\n")
    with pytest.raises(PrumergeError, match="write one on each line"):
        asked(folder)
