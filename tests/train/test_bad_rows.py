"""What is said of rows and of files that cannot be trained on."""

import sys

import pytest
from data import asked, messages, said, text, written
from PIL import Image

from prumerge.errors import MissingPackage, PrumergeError
from prumerge.train.rows import Rows

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
