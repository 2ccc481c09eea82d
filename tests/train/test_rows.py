"""Rows of training data in every form that users have, and what is said of bad ones."""

import io
import json
import pickle
import shutil
import sys

import pytest
from clips import animated, coloured, filmed
from PIL import Image

from prumerge.errors import MissingPackage, PrumergeError
from prumerge.train import media
from prumerge.train.rows import BUILT_IN_QUESTIONS, Rows

RED, LIME, BLUE = [frame.getpixel((0, 0)) for frame in coloured(3)]
IMAGE = {"type": "image"}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    for name, picture in zip(("red", "lime"), coloured(2), strict=True):
        picture.save(folder / f"{name}.png")
    animated(folder / "clip.gif")
    (folder / "clip").mkdir()
    for number, frame in enumerate(coloured()):
        frame.save(folder / "clip" / f"{number}.png")
    return folder


@pytest.fixture
def folder(tmp_path, drawn):
    """A red and a lime picture, and a clip of ten colours as GIF and as a folder of frames."""
    return shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)


def text(words):
    return {"type": "text", "text": words}


def user(*content):
    return {"role": "user", "content": list(content)}


def assistant(words):
    return {"role": "assistant", "content": [text(words)]}


def written(folder, rows, name="data.json"):
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows))
    return path


def asked(question, **more):
    return {"question": question, "answer": "yes", **more}


def said(*turns):
    return {"conversations": [{"from": role, "value": value} for role, value in turns]}


def messages(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def colours(row):
    return [picture.getpixel((0, 0)) for picture in row.open().pictures]


def stored(name):
    """A picture as data sets keep it: what its file holds."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), name).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


# one conversation, written in every form


WHAT, ANSWER, AGAIN, LAST = "what is there?", "a square", "which colour?", "red"
CONVERSATION = (user(IMAGE, text(WHAT)), assistant(ANSWER), user(text(AGAIN)), assistant(LAST))
TURNS = (("user", f"<image>\n{WHAT}"), ("assistant", f" {ANSWER} "), ("user", AGAIN), ("assistant", LAST))
PLAIN = (("user", WHAT), *TURNS[1:])
IN_PARTS = (("user", [IMAGE, text(WHAT)]), *((role, [text(words)]) for role, words in TURNS[1:]))
OWN = (("user", [{**IMAGE, "image": "red.png"}, text(WHAT)]), *TURNS[1:])
ARROW = (("user", [{**IMAGE, "text": None}, {**text(WHAT), "image": None}]), *TURNS[1:])


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


# files


def test_pictures_are_relative_to_the_file_or_to_a_folder(folder):
    (folder / "lists").mkdir()
    path = written(folder / "lists", [asked("what?", image="red.png")])
    with pytest.raises(PrumergeError, match=r"row 1: there is no picture at '.*lists/red.png'"):
        Rows.read(path)
    assert colours(Rows.read(path, folder)[0]) == [RED]


def test_a_list_may_stand_in_an_object(folder):
    path = written(folder, {"version": 2, "data": [asked("is ice cold?"), asked("is fire?")]})
    assert [row.words for row in Rows.read(path)] == [4, 3]


def sampled(folder, *strategies):
    written(folder, [asked(str(number)) for number in range(10)])
    entries = [{"json_path": "data.json", **strategy} for strategy in strategies]
    return Rows.read(written(folder, {"datasets": entries}, "list.yaml"))


def numbers(rows):
    return [int(row.messages[0]["content"][0]["text"]) for row in rows]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("all", range(10)),
        ("first:3", range(3)),
        ("first:25%", range(3)),  # a part of a row is a row, as in LLaVA-NeXT
        ("end:2", [8, 9]),
        ("end:20%", [8, 9]),
        ("first:1000", range(10)),
        ("random:100%", range(10)),
    ],
)
def test_a_list_of_files_says_which_rows_are_read(folder, strategy, expected):
    rows = sampled(folder, {"sampling_strategy": strategy}, {"sampling_strategy": "first:1"})
    assert numbers(rows) == [*expected, 0]
    assert rows[len(expected) - 1].where == f"data.json, row {expected[-1] + 1}"


def test_a_random_sample_is_the_same_in_every_run(folder):
    first, second = (numbers(sampled(folder, {"sampling_strategy": "random:4"})) for _ in range(2))
    assert first == second != [0, 1, 2, 3]
    assert len(set(first)) == 4


def test_files_are_relative_to_the_list_and_pictures_to_their_file(folder):
    written(folder, [asked("what?", image="red.png")], "data.jsonl")
    (folder / "lists").mkdir()
    path = folder / "lists" / "list.yml"
    path.write_text("datasets:\n  - json_path: ../data.jsonl\n")
    assert colours(Rows.read(path)[0]) == [RED]


def test_parquet_holds_pictures_and_rows_are_read_from_it(folder):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{**messages(*IN_PARTS), "images": [stored("red")]}, {**messages(*PLAIN), "images": None}]
    rows[1]["messages"] = messages(*((role, [text(words)]) for role, words in PLAIN))["messages"]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "data.parquet")
    first, second = Rows.read(folder / "data.parquet")
    assert first.messages == CONVERSATION
    assert colours(first) == [RED]
    assert second.messages[0] == user(text(WHAT))


def test_parquet_without_pyarrow_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (folder / "data.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingPackage, match="pip install pyarrow"):
        Rows.read(folder / "data.parquet")


def test_what_is_no_parquet_is_refused(folder):
    pytest.importorskip("pyarrow")
    (folder / "data.parquet").write_bytes(b"PAR1")
    with pytest.raises(PrumergeError, match=r"'.*data.parquet' is no parquet file"):
        Rows.read(folder / "data.parquet")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore")  # what datasets says of its own pickling
def test_a_dataset_of_hugging_face_is_read_without_decoding_its_pictures(monkeypatch):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        images=datasets.List(datasets.Image()),
        **{name: datasets.Value("string") for name in ("question", "answer")},
    )
    data = datasets.Dataset.from_list([asked("what?", images=[stored("red")])] * 2, features=features)
    monkeypatch.setattr(datasets.Image, "decode_example", None)
    rows = Rows.read(data)
    assert len(rows) == 2
    assert colours(rows[1]) == [RED]


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


def fingerprint(folder, rows, name="data.json"):
    return Rows.read(written(folder, rows, name)).fingerprint


def test_the_fingerprint_is_of_what_the_file_holds_and_not_of_its_name(folder):
    first = fingerprint(folder, [asked("what?", image="red.png")])
    assert len(first) == 16 and int(first, 16)
    assert fingerprint(folder, [asked("what?", image="red.png")], "other.json") == first
    assert fingerprint(folder, [asked("what?", image="lime.png")]) != first
    Image.new("RGB", (50, 50)).save(folder / "red.png")
    assert fingerprint(folder, [asked("what?", image="red.png")]) == first


def test_the_fingerprint_of_a_list_is_of_its_files_and_what_is_read_of_them(folder):
    strategies = ("all", "first:10", "first:5", "end:5")
    prints = [sampled(folder, {"sampling_strategy": one}).fingerprint for one in strategies]
    assert prints[0] == prints[1] == Rows.read(folder / "data.json").fingerprint
    assert len(set(prints)) == 3


def test_the_fingerprint_of_rows_in_memory_knows_texts_and_sizes():
    def of(question, picture):
        return Rows.read([asked(question, image=picture)]).fingerprint

    large, small = Image.new("RGB", (40, 30)), Image.new("RGB", (20, 20))
    prints = [of("what?", large), of("who?", large), of("what?", small), of("what?", stored("red"))]
    assert len(set(prints)) == 4
    assert of("what?", Image.new("RGB", (40, 30), "red")) == prints[0]


# bad rows


BAD_ROWS = {
    "2 pictures and 1 <image>": {
        **said(("human", "<image> a?"), ("gpt", "b")),
        "image": ["red.png", "lime.png"],
    },
    "1 picture and 0 <image>": {**said(("human", "a?"), ("gpt", "b")), "image": "red.png"},
    "0 pictures and 1 <image>": said(("human", "<image>a?"), ("gpt", "b")),
    "1 picture and 2 <image>": asked("<image> what does <image> mean?", image="red.png"),
    "0 clips and 1 <video>": asked("<video>a?"),
    "1 clip and 2 <image>": asked("<image> or <image>?", video="clip"),
    "1 clip and 0 <video>": asked("<image>?", image="red.png", video="clip"),
    "2 pictures and 0 <image>": {
        **messages(("user", [text("a?")]), ("assistant", "b")),
        "images": ["red.png"] * 2,
    },
    "there is no picture at '{folder}/none.png'": asked("a?", image="none.png"),
    "there is no clip at '{folder}/none.mp4'": asked("a?", video="none.mp4"),
    "'{folder}/empty.png' is empty": asked("a?", image="empty.png"),
    "'https://a.b/c.png' is an address": asked("a?", image="https://a.b/c.png"),
    "the bytes of a picture are empty": asked("a?", image={"bytes": b"", "path": "red.png"}),
    "a picture is a path, {{bytes, path}} or a picture of Pillow's, not int": asked("a?", image=3),
    "a clip has no frames": asked("a?", videos=[[]]),
    "turn 2 is the user's where the assistant's is due": said(("human", "a?"), ("human", "b?")),
    "turn 3 is the assistant's where the user's is due": said(("human", "a?"), ("gpt", "b"), ("gpt", "c")),
    "turn 1 is the assistant's where the user's is due": said(("gpt", "b"), ("human", "a?")),
    "turn 2 is the assistant's where the user's is due": messages(("system", "be"), ("assistant", "b")),
    "turn 3 is the system's where the user's is due": messages(
        ("user", "a?"), ("assistant", "b"), ("system", "c")
    ),
    "nobody asks anything": messages(("system", "be brief")),
    "it ends without an answer": said(("human", "a?"), ("gpt", "b"), ("human", "c?")),
    "turn 1, the user's, is empty": asked(" \n"),
    "turn 3, the user's, is empty": said(("human", "a?"), ("gpt", "b"), ("human", None)),
    "turn 2, the assistant's, is empty": {"question": "a?", "answer": " "},
    "turn 2 shows a picture, which the assistant cannot": {
        **said(("human", "a?"), ("gpt", "<image>")),
        "image": "red.png",
    },
    "it has caption, image where a row has conversations, messages, prompt and completion, or": {
        "caption": "a",
        "image": "red.png",
    },
    "it has no keys where": {},
    "a row is a mapping of names to values, not list": [],
    "there is no role 'bot', only system, user, assistant, human, gpt": said(("bot", "a?")),
    "conversations is a list of turns, not str": {"conversations": "a?"},
    "a turn of messages has a role and a text, and is not str": {"messages": ["a?"]},
    "5 is int where a text belongs": {"question": "a?", "answer": 5},
    "a part of a message is of type text, image or video, not 'audio'": messages(
        ("user", [{"type": "audio"}])
    ),
}


@pytest.mark.parametrize("sentence", BAD_ROWS)
@pytest.mark.usefixtures("unchecked")
def test_a_bad_row_is_named_and_what_is_wrong_with_it(folder, sentence):
    (folder / "empty.png").touch()
    with pytest.raises(PrumergeError) as refused:
        Rows.read([asked("fine?"), BAD_ROWS[sentence]], folder)
    assert str(refused.value).startswith(f"row 2: {sentence.format(folder=folder)}")


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_a_bad_row_is_named_by_its_file_and_id(folder, name):
    row = {"id": "000033", **said(("human", "a?"), ("gpt", "b")), "image": "red.png"}
    with pytest.raises(PrumergeError) as refused:
        Rows.read(written(folder, [asked("fine?"), row], name))
    assert str(refused.value) == f"{name}, row 2 (id 000033): 1 picture and 0 <image>"


def test_the_first_three_bad_rows_are_named_and_how_many_more_there_are(folder):
    rows = [asked("fine?")] * 185 + [{"id": number} for number in range(15)]
    with pytest.raises(PrumergeError) as refused:
        Rows.read(written(folder, rows))
    first, _, third, more = str(refused.value).split("; ")
    assert first.startswith("data.json, row 186 (id 0): it has id where")
    assert third.startswith("data.json, row 188 (id 2): ")
    assert more == "... and 12 more of 200 rows"


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ("text", "row 1: '.*broken.png' is no picture or animation"),
        ("bytes", "row 1: a picture in its bytes is no picture or animation"),
        ("small", "row 1: a picture in memory is 5 x 5 pixels"),
    ],
)
def test_a_picture_that_cannot_be_read_names_its_row(folder, broken, sentence):
    (folder / "broken.png").write_text("no picture")
    picture = {
        "text": "broken.png",
        "bytes": {"bytes": b"no picture"},
        "small": Image.new("RGB", (5, 5)),
    }[broken]
    (row,) = Rows.read([asked("what?", image=picture)], folder)
    with pytest.raises(PrumergeError, match=sentence):
        row.open()


def test_a_video_without_pyav_says_what_to_install(folder, monkeypatch):
    (folder / "clip.mp4").write_bytes(b"video")
    (row,) = Rows.read([asked("what?", video="clip.mp4")], folder)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPackage, match="row 1: video files need PyAV"):
        row.open()


BAD_FILES = {
    "data.json": {
        "": "'.*data.json' is empty",
        "[]": "'.*data.json' holds no rows; give at least one",
        '[{"a": 1},\n {]': "'.*data.json' is no JSON .*line 2 column 3",
        '{"a": 1}\n{"a": 2}': "is no JSON .*name it .jsonl if each line is a row",
        "{}": "holds no list of rows",
        '{"a": [], "b": []}': "holds no list of rows",
    },
    "data.jsonl": {
        '{"question": "a?", "answer": "b"}\n\n{"question"': "'.*data.jsonl': line 3 is no JSON",
        "\n\n": "holds no rows",
    },
    "data.csv": {"a,b": "is no training data that can be read; these are .json, .jsonl, .parquet, .yaml"},
    "data.yaml": {
        "a: [": "is no YAML .*line 1",
        "- a": "has no list of `datasets`",
        "datasets: []": "holds no rows",
        "datasets: [{path: a.json}]": "data.yaml, dataset 1 has path; give it a json_path",
        "datasets: [{json_path: fine.json, sampling: all}]": "dataset 1 has json_path, sampling; give it",
        "datasets: [{json_path: none.json}]": "there is no file for data.yaml, dataset 1 at '.*none.json'",
        "datasets: [{json_path: clip}]": "data.yaml, dataset 1: '.*clip' is a folder, not a file of rows",
        "datasets: [{json_path: fine.json, sampling_strategy: last:3}]": "no sampling_strategy 'last:3'",
        "datasets: [{json_path: fine.json, sampling_strategy: 'first:0.5'}]": "random:N, where N is a number",
    },
}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [(name, *case) for name, cases in BAD_FILES.items() for case in cases.items()],
)
def test_a_file_that_cannot_be_read_says_why(folder, name, content, sentence):
    written(folder, [asked("fine?")], "fine.json")
    (folder / name).write_text(content)
    with pytest.raises(PrumergeError, match=sentence):
        Rows.read(folder / name)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("nowhere.json", "there is no training data at 'nowhere.json'"),
        ([], "there are no rows; give at least one"),
        ({"messages": []}, "training data are a file, a folder of pictures or a list of rows, not dict"),
        (iter([]), "or a list of rows, not list_iterator"),
    ],
)
def test_what_holds_no_rows_is_refused(data, sentence):
    with pytest.raises(PrumergeError, match=sentence):
        Rows.read(data)


def test_a_folder_of_pictures_has_no_answers_to_learn(folder):
    with pytest.raises(PrumergeError, match="has no answers to learn; train on it without labels"):
        Rows.read(folder)


def test_pictures_are_looked_for_in_a_folder(folder):
    with pytest.raises(PrumergeError, match=r"red.png' is no folder"):
        Rows.read([asked("what?")], folder / "red.png")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("frames", [0, 2.5, True])
def test_a_clip_has_a_whole_number_of_frames(frames):
    with pytest.raises(PrumergeError, match=f"a clip has at least one frame, not {frames}"):
        Rows.read([asked("what?")], frames=frames)
