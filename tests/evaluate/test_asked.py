"""What is asked: where each task reads, each picture once, and no two questions that cannot be told apart."""

import json
from pathlib import Path

import pytest
from PIL import Image

from prumerge.errors import PrumergeError
from prumerge.evaluate.asked import described, showings, sources
from prumerge.evaluate.tasks._task import Source


@pytest.fixture
def data(tmp_path):
    """A folder of tasks with a folder of one's own questions."""
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "custom").mkdir()
    write(tmp_path / "custom" / "rows.jsonl", {"image": "../a.png"}, {"image": "../a.png", "id": "b"})
    return tmp_path


def write(path, *rows):
    lines = [json.dumps({"question": "what?", "answer": "it", **row}) for row in rows]
    path.write_text("\n".join(lines))


def hashes(tasks):
    found = described(tasks, [one for _, questions in showings(tasks) for one in questions])
    return {name: (told["questions"], told["hash"]) for name, told in found.items()}


# where tasks read


def test_the_folder_of_a_task_has_its_name_and_a_single_task_needs_none(data):
    assert sources(["custom"], data=data)["custom"].data == data / "custom"
    assert sources(["custom"], data=data / "custom")["custom"].data == data / "custom"
    mixed = sources(["custom", "existence"], 24, data=data)
    assert (mixed["custom"].data, mixed["existence"]) == (data / "custom", Source(count=24))


def test_drawn_questions_come_in_groups_and_others_in_any_number(data):
    assert sources(["custom"], 5, data=data)["custom"].count == 5
    assert sources(["custom"], data=data)["custom"].count is None
    with pytest.raises(PrumergeError, match=r"groups of 24, .*: 24 or 48, not 5"):
        sources(["custom", "existence"], 5, data=data)


def test_options_go_to_the_tasks_that_take_them(data):
    found = sources(["custom", "easy_vqa", "choice"], data=data, options={"prompt": "Be short."})
    assert [one.options for one in found.values()] == [{"prompt": "Be short."}, {"prompt": "Be short."}, {}]
    assert sources(["choice"], unseen=True)["choice"].options == {"unseen": "yes"}


@pytest.mark.parametrize(
    ("names", "given", "sentence"),
    [
        (["custom"], {}, "custom reads a .jsonl file .*; say where that is by --data"),
        (["custom"], {"data": Path("nowhere")}, "there is no folder 'nowhere'; custom reads a .jsonl file"),
        (["easy_vqa"], {"data": Path()}, "easy_vqa: nothing is read from a folder; leave --data out"),
        (["easy_vqa"], {"unseen": True}, "easy_vqa has its own; leave --unseen out"),
        (["easy_vqa"], {"questions": 0}, "at least one question is asked, not 0"),
        (
            ["choice", "video"],
            {"options": {"ocr": "yes"}},
            "choice, video: no option 'ocr'; choose one of: uns",
        ),
    ],
)
def test_what_a_task_lacks_or_does_not_take_is_one_sentence(names, given, sentence):
    with pytest.raises(PrumergeError, match=sentence):
        sources(names, **given)


# what is asked


def test_pictures_are_named_and_not_opened(data):
    (data / "a.png").write_bytes(b"no picture")
    [(opens, questions)] = showings(sources(["custom"], data=data))
    assert [one.id for one in questions] == ["1", "b"]
    with pytest.raises(PrumergeError, match=r"a\.png"):
        opens()


def test_two_questions_with_one_id_are_refused(data):
    write(data / "custom" / "rows.jsonl", {"image": "../a.png", "id": 7}, {"image": "../a.png", "id": "7"})
    with pytest.raises(PrumergeError, match="custom has two questions with the id '7'; mend its file"):
        list(showings(sources(["custom"], data=data)))


def test_a_task_without_questions_is_refused(data):
    write(data / "custom" / "rows.jsonl")
    with pytest.raises(PrumergeError, match=r"custom finds no questions in .*custom"):
        list(showings(sources(["custom"], data=data)))


def test_the_hash_is_of_ids_texts_and_right_answers_and_not_of_where_they_are(data):
    tasks = sources(["custom", "choice"], 24, data=data)
    before = hashes(tasks)
    (data / "custom").rename(data / "elsewhere")
    moved = {**tasks, "custom": Source(data / "elsewhere", 24)}
    assert hashes(moved) == before
    write(
        data / "elsewhere" / "rows.jsonl",
        {"image": "../a.png", "answer": "that"},
        {"image": "../a.png", "id": "b"},
    )
    after = hashes(moved)
    assert after["choice"] == before["choice"]
    assert (after["custom"][0], before["custom"][0]) == (2, 2)
    assert after["custom"] != before["custom"]
