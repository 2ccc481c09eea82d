"""Questions of one's own: a line each, pictures beside the file, every bad line named."""

import json

import pytest
from builders import record
from PIL import Image

from prumerge.errors import PrumergeError
from prumerge.evaluate.tasks import task
from prumerge.evaluate.tasks._task import Source

ROW = {"image": "a.png", "question": "what colour?", "answer": "red"}


@pytest.fixture
def file(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (20, 30), "red").save(tmp_path / name)
    return tmp_path / "rows.jsonl"


def read(file, *rows, count=None, **options):
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return list(task("custom").read(Source(file, count, options)))


def test_questions_come_picture_by_picture(file):
    rows = [ROW, {**ROW, "image": "b.png", "id": "x", "split": "easy", "group": "g"}, {**ROW, "id": 5}, ""]
    (first, about_a), (_, about_b) = read(file, *rows)
    assert [one.id for one in about_a] == ["1", "5"]
    [other] = about_b
    assert (other.id, other.picture, other.split, other.group) == ("x", "b.png", "easy", "g")
    assert (other.text, other.gold) == ("what colour?", ("red",))
    assert [picture.size for picture in first()] == [(20, 30)]
    assert len(read(file, *rows, count=1)) == 1


def test_a_folder_with_one_file_is_as_good_as_the_file(file):
    read(file, ROW)
    assert len(list(task("custom").read(Source(file.parent)))) == 1
    (file.parent / "more.jsonl").write_text("")
    with pytest.raises(PrumergeError, match=r"holds 2 \.jsonl files; name the file"):
        list(task("custom").read(Source(file.parent)))


def test_words_of_the_user_stand_behind_each_question(file):
    [(_, [question])] = read(file, ROW, prompt="One word.")
    assert question.text == "what colour?\nOne word."


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("hello", "line 1 is no JSON object"),
        ("[1]", "line 1 is no JSON object"),
        ({"image": "a.png", "answer": "red"}, "line 1: question is missing"),
        ({"image": "a.png", "question": "what?"}, "line 1: write either answer, a text, or answers"),
        ({**ROW, "answers": ["red"]}, "line 1: write either answer"),
        ({**ROW, "answer": 3}, "line 1: answer is a text, not 3"),
        ({"image": "a.png", "question": "?", "answers": []}, "line 1: answers are a list of texts"),
        ({**ROW, "colour": "red"}, "line 1: 'colour' is not known"),
        ({**ROW, "image": "c.png"}, "line 1: there is no picture 'c.png'"),
    ],
)
def test_a_bad_line_is_named(file, row, sentence):
    with pytest.raises(PrumergeError, match=sentence):
        read(file, row)


@pytest.mark.parametrize(
    ("golds", "prediction", "expected"),
    [
        (["red"], "Red.", 1.0),
        (["red"], "dark red", 0.0),
        (["red"] * 2 + ["blue"] * 8, "red", 0.6),
        (["red"] * 4 + ["blue"] * 6, "red", 1.0),
    ],
)
def test_one_answer_is_matched_and_several_are_those_of_annotators(file, golds, prediction, expected):
    row = {"image": "a.png", "question": "what?", "answers": golds}
    [(_, [question])] = read(file, row)
    assert task("custom").score(question, prediction) == expected


def test_splits_and_groups_are_told_apart_where_there_are_any():
    rows = [
        record(task="custom", split=split, group=group, score=score)
        for split, group, score in [("a", "1", 1.0), ("a", "1", 0.0), ("b", "2", 1.0), ("", "", 1.0)]
    ]
    assert task("custom").summary(rows) == 75
    assert task("custom").details(rows) == {"a": 50, "b": 100, "groups wholly right": 50}
    assert task("custom").details(rows[3:]) == {}
