"""The files that rows of training data are read from, and the fingerprint of what they hold."""

import sys

import pytest
from data import (
    CONVERSATION,
    IN_PARTS,
    PLAIN,
    RED,
    WHAT,
    asked,
    colours,
    messages,
    numbers,
    stored,
    text,
    user,
    written,
)
from PIL import Image

from prumerge.errors import MissingPackage, PrumergeError
from prumerge.train.rows import Rows


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
