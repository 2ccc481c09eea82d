"""The file that points a task of lmms-eval at data on a disk."""

import pytest
import yaml

from prumerge.errors import MissingPackage, PrumergeError
from prumerge.lmms_eval import local_task as module
from prumerge.lmms_eval.local_task import local_task

STOCK = {
    "pope/pope.yaml": "dataset_path: lab/POPE\ndataset_kwargs:\n  token: True\n"
    'task: "pope"\ntest_split: test\ndoc_to_text: !function utils.text\n',
    "sqa/_template": "dataset_path: lab/SQA\ndataset_name: SQA-IMG\nvalidation_split: val\n",
    "sqa/sqa.yaml": "task: sqa_img\ninclude: _template\ntest_split: test\n",
    "vqa/_vqa.yaml": "group: vqa\ntask:\n- vqa_val\n- task: vqa_test\n",
    "odd/odd.yaml": "task: odd\ndataset_path: lab/odd\n",
}


@pytest.fixture
def stock(tmp_path):
    """A folder of tasks as lmms-eval has them."""
    for name, text in STOCK.items():
        (tmp_path / "tasks" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tasks" / name).write_text(text)
    return tmp_path / "tasks"


@pytest.fixture
def data(tmp_path):
    """A function that lays files in a folder."""

    def laid(*names):
        for name in names:
            (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / name).write_text("")
        return tmp_path / "data"

    return laid


def read(task):
    return yaml.safe_load(task.text())


@pytest.mark.parametrize(
    ("names", "kind", "files"),
    [
        (["data/test-0-of-2.parquet", "data/test-1-of-2.parquet"], "parquet", "data/test-*.parquet"),
        (["test-00000.parquet"], "parquet", "test-*.parquet"),
        (["test.jsonl", "train.jsonl"], "json", "test.jsonl"),
        (["data/test.json"], "json", "data/test.json"),
        (["test.csv"], "csv", "test.csv"),
    ],
)  # fmt: skip
def test_a_task_reads_the_files_of_its_split(stock, data, names, kind, files):
    folder = data(*names)
    told = read(local_task("pope", folder, stock))
    assert told == {
        "include": str(stock / "pope" / "pope.yaml"),
        "task": "disk_pope",
        "dataset_path": kind,
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(folder / files)}},
    }


def test_a_configuration_and_what_a_file_includes_count(stock, data):
    folder = data("SQA-IMG/test-0.parquet", "SQA-FULL/test-0.parquet", "SQA-IMG/val-0.parquet")
    assert read(local_task("sqa_img", folder, stock))["dataset_kwargs"]["data_files"] == {
        "test": str(folder / "SQA-IMG" / "test-*.parquet"),
        "val": str(folder / "SQA-IMG" / "val-*.parquet"),
    }


def test_one_file_is_enough(stock, data):
    file = data("mine.parquet") / "mine.parquet"
    assert read(local_task("pope", file, stock))["dataset_kwargs"] == {"data_files": {"test": str(file)}}


def test_a_folder_of_save_to_disk_is_read_as_it_is(stock, data):
    folder = data("dataset_dict.json")
    told = read(local_task("pope", folder, stock))
    assert (told["dataset_path"], told["dataset_kwargs"]) == (str(folder), {"load_from_disk": True})


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("pop", r"there is no task of lmms-eval 'pop' .did you mean 'pope'"),
        ("vqa", "vqa is a group of lmms-eval's tasks; name one of them: vqa_val, vqa_test"),
        ("odd", "odd of lmms-eval names no split that it asks about"),
        (
            "sqa_img",
            r"holds no files of the split SQA-IMG/test .*; it is published as lab/SQA of Hugging Face",
        ),
    ],
)
def test_what_is_no_task_or_no_data_is_said(stock, data, name, sentence):
    with pytest.raises(PrumergeError, match=sentence):
        local_task(name, data("train-0.parquet"), stock)


def test_a_place_that_is_not_there_is_said(stock, tmp_path):
    with pytest.raises(PrumergeError, match="for pope to read; give another --data"):
        local_task("pope", tmp_path / "nowhere", stock)


def test_the_command_writes_it_and_says_how_to_run_it(run, stock, data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_tasks_of_package", lambda: stock)
    folder = tmp_path / "own"
    code, out, _ = run("lmms-task", "pope", "--data", data("test.jsonl"), "-o", folder)
    assert code == 0
    assert f"--tasks disk_pope --include_path {folder}" in out
    assert read(local_task("pope", data(), stock)) == yaml.safe_load((folder / "disk_pope.yaml").read_text())


@pytest.mark.parametrize("command", [("lmms-task", "pope", "--data", "."), ("lmms-eval", "--model", "x")])
def test_without_lmms_eval_it_says_how_to_install_it(run, monkeypatch, command):
    import importlib.util

    found = importlib.util.find_spec
    hidden = lambda name, *more: None if name == "lmms_eval" else found(name, *more)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    monkeypatch.setattr(module, "find_spec", hidden)
    code, _, err = run(*command)
    assert (code, "install it with: pip install 'prumerge[lmms-eval]'" in err) == (2, True)
    assert issubclass(MissingPackage, PrumergeError)
