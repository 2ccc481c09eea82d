"""`prumerge bench` as a user meets it."""

import json

import pytest
from PIL import Image

from prumerge.bench import run as measuring
from prumerge.cli import output
from prumerge.roofline import calibrate as calibration
from prumerge.roofline import configs

QUICK = ("--hardware", "h100", "--rounds", "1", "--new-tokens", "2", "--keep", "36", "--batch", "1,2")


@pytest.fixture
def load(monkeypatch):
    """Sets the load of the machine; it is idle at first."""

    def is_now(value):
        for module in (calibration, measuring):
            monkeypatch.setattr(module, "load", lambda: value)

    is_now(0.0)
    return is_now


def said(err):
    """What the command says on stderr, without the bar of a checkpoint that loads."""
    return [line for line in err.splitlines() if line.strip() and "Loading weights" not in line]


def test_tables_sentences_a_picture_and_a_file(run, small, load, monkeypatch, tmp_path):
    monkeypatch.setattr(output, "width", lambda: 80)
    monkeypatch.chdir(tmp_path)
    code, out, err = run("bench", "--model", small, *QUICK, "-o", "bench.png", "--save", "bench.json")
    assert (code, said(err)) == (0, [])
    assert max(map(len, out.splitlines())) <= 80
    for case in ("prumerge:keep=36, batch 1: 37 of 576", "none, batch 2: 576 of 576 visual tokens"):
        assert case in out
    assert "x as fast as none (predicted" in " ".join(out.split())
    with Image.open("bench.png") as picture:
        assert picture.width > 1000
    told = json.loads((tmp_path / "bench.json").read_text())
    assert [(one["method"], one["batch"]) for one in told["cases"]] == [
        ("prumerge:keep=36", 1),
        ("none", 1),
        ("prumerge:keep=36", 2),
        ("none", 2),
    ]
    rows = told["cases"][0]["rows"]
    assert set(rows["prefill"]) == {"median", "q25", "q75", "predicted", "ratio", "why"}
    assert {"machine", "versions", "date", "load", "predicted_for"} <= set(told)
    assert {path.name for path in tmp_path.iterdir()} == {"bench.png", "bench.json"}


def test_json_is_all_that_is_printed(run, small, load):
    code, out, err = run("bench", "--model", small, *QUICK, "--reducer", "none", "--batch", "1", "--json")
    assert (code, said(err)) == (0, [])
    assert [one["method"] for one in json.loads(out)["cases"]] == ["none"]


def test_a_busy_machine_is_refused_before_a_model_is_loaded(run, load):
    load(64.0)
    code, out, err = run("bench", "--model", "/no/such/model", *QUICK)
    assert (code, out) == (2, "")
    assert "this machine is busy (load 64.0 on" in err
    assert err.endswith(", or measure all the same by --force\n")


def test_by_force_a_busy_machine_is_measured_and_the_figures_say_so(run, small, load):
    load(64.0)
    code, out, _ = run("bench", "--model", small, *QUICK, "--reducer", "none", "--batch", "1", "--force")
    assert code == 0
    assert "Load of the last minute: 64.0 before, 64.0 after." in out


def test_a_model_that_the_roofline_does_not_know_is_measured_all_the_same(run, small, load, monkeypatch):
    monkeypatch.setattr(configs, "FAMILIES", {})
    arguments = ["--model", small, "--reducer", "none", "--batch", "1", "--rounds", "1", "--new-tokens", "2"]
    code, out, err = run("bench", *arguments)
    assert code == 0
    assert "nothing is predicted: llava: how 'llava' joins tower and language model is not known" in err
    assert "prefill ms" in out


def test_a_stop_leaves_nothing_behind(run, small, load, monkeypatch, tmp_path):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "measure", stopped)
    files = ("-o", tmp_path / "bench.svg", "--save", tmp_path / "bench.json")
    code, out, err = run("bench", "--model", small, *QUICK, *files)
    assert (code, out, said(err)) == (130, "", [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--reducer", "prumrge"], "did you mean 'prumerge'?"),
        (["--keep", "600"], "prumerge:keep=600: keep is more than the 576 visual tokens of this image"),
        (["--keep", ""], "keep"),
        (["--batch", "0"], "'0' is no batch size; write whole numbers of at least 1, as in 1,4"),
        (["--batch", "two"], "'two' is no batch size"),
        (["--new-tokens", "1"], "--new-tokens"),
        (["--rounds", "0"], "--rounds"),
        (["--hardware", "h1000"], "there is no machine 'h1000' (did you mean 'h100'?)"),
        (["--picture", "none.jpg"], "none.jpg"),
        (["--question", "<image>"], "the question holds '<image>'"),
        (["-o", "bench.txt"], "must end in .png, .jpg or .svg"),
        (["--save", "bench.txt"], "must end in .json"),
        (["--save", "/no/such/folder/bench.json"], "the folder '/no/such/folder' does not exist"),
        (["--device", "abacus"], "there is no device 'abacus'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(run, small, load, unchecked, arguments, sentence):
    code, out, err = run("bench", "--model", small, *arguments)
    assert (code, out) == (2, "")
    (told,) = said(err)
    assert sentence in told
