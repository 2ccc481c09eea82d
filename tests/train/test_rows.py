"""Rows of training data in every form that users have."""

import pickle

import pytest
from clips import coloured, filmed
from data import (
    ANSWER,
    ARROW,
    CONVERSATION,
    IMAGE,
    IN_PARTS,
    LAST,
    LIME,
    OWN,
    PLAIN,
    RED,
    TURNS,
    WHAT,
    asked,
    assistant,
    colours,
    messages,
    numbers,
    said,
    stored,
    text,
    user,
    written,
)
from PIL import Image

from prumerge.train import media
from prumerge.train.rows import BUILT_IN_QUESTIONS, Rows


def human(turns):
    return said(*(({"user": "human", "assistant": "gpt"}[role], value) for role, value in turns))


def prompted(turns, completion):
    return {"prompt": messages(*turns[:3])["messages"], "completion": completion}


FORMS = {
    "LLaVA": {**human(TURNS), "image": "red.png"},
    "LLaVA, the picture behind the question": {
        **human((("user", f"{WHAT}\n<image>"), *TURNS[1:])),
        "image": "red.png",
    },
    "LLaVA-NeXT, a list": {**human(TURNS), "image": ["red.png"]},
    "conversations with roles": {"conversations": messages(*TURNS)["messages"], "image": "red.png"},
    "messages with marks": {**messages(*TURNS), "images": ["red.png"]},
    "messages without marks": {**messages(*PLAIN), "images": ["red.png"]},
    "messages in parts": {**messages(*IN_PARTS), "images": ["red.png"]},
    "messages in parts, padded with nulls": {**messages(*ARROW), "image": "red.png"},
    "messages that hold the picture": messages(*OWN),
    "prompt and completion": {**prompted(PLAIN, LAST), "image": "red.png"},
    "prompt and completion as messages": {
        **prompted(IN_PARTS, messages(IN_PARTS[3])["messages"]),
        "images": ["red.png"],
    },
}


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
@pytest.mark.parametrize("form", FORMS)
def test_a_conversation_reads_alike_in_every_form(folder, form, name):
    (row,) = Rows.read(written(folder, [FORMS[form]], name))
    assert row.messages == CONVERSATION
    assert row.open().messages == CONVERSATION
    assert colours(row) == [RED]
    assert row.words == 8
    assert not row.is_clip


QUESTIONS = {
    "question and answer": {"question": WHAT, "answer": ANSWER},
    "the answer most annotators gave": {"question": WHAT, "answers": ["round", ANSWER, f"{ANSWER} ", "box"]},
    "the first of equals": {"question": WHAT, "answers": [{"answer": ANSWER}, {"answer": "round"}]},
    "prompt and completion": {"prompt": f"{WHAT}<image>", "completion": ANSWER},
    "conversations": human(TURNS[:2]),
    "messages": messages(*PLAIN[:2]),
}
PICTURES = {
    "a path": lambda folder: "red.png",
    "an absolute path": lambda folder: folder / "red.png",
    "bytes": lambda folder: stored("red"),
    "bytes and a path": lambda folder: {**stored("red"), "path": "elsewhere.png"},
    "a path in place of bytes": lambda folder: {"bytes": None, "path": "red.png"},
    "in memory": lambda folder: Image.new("P", (40, 30), "red"),
}


@pytest.mark.parametrize("key", ["image", "images"])
@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("form", QUESTIONS)
def test_a_question_and_its_picture_read_alike_in_every_form(folder, form, picture, key):
    (row,) = Rows.read([{**QUESTIONS[form], key: PICTURES[picture](folder)}], folder)
    assert row.messages == CONVERSATION[:2]
    assert colours(row) == [RED]
    assert row.open().pictures[0].mode == "RGB"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<image>\n<image>\nthe same? ", [IMAGE, IMAGE, text("the same?")]),
        ("left: <image> right: <image>", [text("left: "), IMAGE, text(" right:"), IMAGE]),
        ("\nfirst\n<image>\nsecond\n<image>", [text("first"), IMAGE, text("second"), IMAGE]),
        ([text("a "), IMAGE, text(" b "), IMAGE], [text("a "), IMAGE, text(" b"), IMAGE]),
        ("the same?", [IMAGE, IMAGE, text("the same?")]),
    ],
)
def test_several_pictures_stay_where_their_marks_are(folder, content, expected):
    row = {**messages(("user", content), ("assistant", "no")), "images": ["red.png", "lime.png"]}
    (read,) = Rows.read([row], folder)
    assert read.messages[0]["content"] == expected
    assert colours(read) == [RED, LIME]


def test_the_system_speaks_first_and_pictures_come_in_a_later_turn(folder):
    turns = [
        ("system", "be brief"),
        ("human", "hello"),
        ("gpt", "hi"),
        ("human", "what?<image>"),
        ("gpt", "red"),
    ]
    (row,) = Rows.read([{**said(*turns), "image": "red.png"}], folder)
    assert row.messages[0] == {"role": "system", "content": [text("be brief")]}
    assert row.messages[3] == user(IMAGE, text("what?"))


@pytest.mark.parametrize("more", [{}, {"image": None}, {"images": []}, {"image": ""}])
def test_a_row_may_be_text_alone(more):
    (row,) = Rows.read([{**asked("is ice cold?"), **more}])
    assert row.messages == (user(text("is ice cold?")), assistant("yes"))
    assert (row.media, row.open().pictures) == ((), [])


def test_a_question_may_be_a_picture_alone(folder):
    (row,) = Rows.read([{**said(("human", "<image>"), ("gpt", "a square")), "image": "red.png"}], folder)
    assert row.messages == (user(IMAGE), assistant("a square"))


# clips


CLIPS = {
    "an animation": {"video": "clip.gif"},
    "a folder of frames": {"video": "clip"},
    "a folder among pictures": {"image": "clip"},
    "frames one by one": {"videos": [[f"clip/{number}.png" for number in range(10)]]},
    "in a part": messages(
        ("user", [{"type": "video", "video": "clip.gif"}, text("what?")]), ("assistant", "yes")
    ),
}


@pytest.mark.parametrize("clip", CLIPS)
def test_a_clip_becomes_pictures_at_its_mark(folder, clip):
    (row,) = Rows.read([{**asked("what?"), **CLIPS[clip]}], folder, frames=2)
    assert row.is_clip
    assert row.messages[0] == user(IMAGE, text("what?"))
    assert row.open().messages == (user(IMAGE, IMAGE, text("what?")), assistant("yes"))
    assert colours(row) == [RED, coloured()[-1].getpixel((0, 0))]


@pytest.mark.parametrize("mark", ["<image>", "<video>"])
def test_either_mark_stands_for_the_clip_of_a_row_without_pictures(folder, mark):
    row = {**said(("human", f"{mark}\nwhat?"), ("gpt", "yes")), "video": "clip.gif"}
    assert len(Rows.read([row], folder)[0].open().pictures) == 8


def test_pictures_and_clips_stand_at_their_own_marks(folder):
    row = asked("<video> or <image>?", image="lime.png", video="clip.gif")
    opened = Rows.read([row], folder, frames=3)[0].open()
    assert opened.messages[0] == user(IMAGE, IMAGE, IMAGE, text("or "), IMAGE, text("?"))
    assert opened.pictures[0].getpixel((0, 0)) == RED
    assert opened.pictures[3].getpixel((0, 0)) == LIME


def test_an_animation_among_pictures_is_its_first_frame(folder):
    (row,) = Rows.read([asked("what?", image="clip.gif")], folder)
    assert not row.is_clip
    assert colours(row) == [RED]


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize(
    ("name", "key"), [("clip.mp4", "image"), ("clip.mp4", "video"), ("clip.gif", "video")]
)
def test_videos_are_read_from_files_and_from_their_bytes(folder, name, key, in_memory):
    filmed(folder / "clip.mp4", coloured(5, (64, 48)))
    clip = {"bytes": (folder / name).read_bytes(), "path": None} if in_memory and key == "video" else name
    (row,) = Rows.read([asked("what?", **{key: clip})], folder, frames=3)
    assert row.is_clip
    assert len(row.open().pictures) == 3


# without labels


@pytest.mark.parametrize(
    ("row", "questions"),
    [
        ({"question": "what?"}, ["what?"]),
        ({"question": "what?", "answer": ""}, ["what?"]),
        ({"prompt": "what?", "completion": None}, ["what?"]),
        (said(("human", "<image>\nwhat?")), ["what?"]),
        (
            said(("human", "what?"), ("gpt", "red"), ("human", "<image> sure?"), ("gpt", "")),
            ["what?", "sure?"],
        ),
        ({}, BUILT_IN_QUESTIONS),
        (said(("human", "<image>"), ("gpt", "a square")), BUILT_IN_QUESTIONS),
    ],
)
def test_without_labels_a_row_is_its_questions_each_about_all_pictures(folder, row, questions):
    (read,) = Rows.read([{**row, "image": "red.png"}], folder, answers=False)
    assert [one.messages for one in read.questions] == [(user(IMAGE, text(one)),) for one in questions]
    assert {tuple(colours(one)) for one in read.questions} == {(RED,)}
    assert read.questions[-1].where == f"row 1, question {len(questions)}"


def test_questions_keep_what_the_system_says(folder):
    row = said(("system", "be brief"), ("human", "what?"), ("gpt", "red"))
    (read,) = Rows.read([row], answers=False)
    assert [message["role"] for message in read.questions[0].messages] == ["system", "user"]
    assert read.messages[-1] == assistant("red")


def test_a_folder_of_pictures_is_rows_without_text(folder):
    rows = Rows.read(folder, answers=False)
    assert [row.where for row in rows] == [
        f"{folder.name}, row {number} (id {name})"
        for number, name in enumerate(("clip.gif", "lime.png", "red.png"), 1)
    ]
    assert rows[1].messages == (user(IMAGE),)
    assert colours(rows[1]) == [LIME]
    assert len(rows[1].questions) == len(BUILT_IN_QUESTIONS)


# the sequence of rows


def test_nothing_is_opened_before_a_row_is(folder, monkeypatch):
    opened = []

    def counted(path):
        opened.append(path)
        return Image.new("RGB", (40, 30))

    monkeypatch.setattr(media, "open_image", counted)
    rows = Rows.read([asked("what?", image=name) for name in ("red.png", "lime.png")], folder)
    assert all(len(row.media) == row.words - 1 for row in rows)
    assert not opened
    rows[1].open()
    assert opened == [str(folder / "lime.png")]


def test_rows_are_a_sequence_that_can_be_cut_and_sent_to_another_process():
    rows = Rows.read([asked(str(number)) for number in range(5)])
    assert (len(rows), rows[-1].where) == (5, "row 5")
    assert numbers(rows[1:4][::2]) == [1, 3]
    assert rows[1:4].fingerprint == rows.fingerprint
    assert numbers(pickle.loads(pickle.dumps(rows))) == [0, 1, 2, 3, 4]
    with pytest.raises(IndexError):
        rows[5]
