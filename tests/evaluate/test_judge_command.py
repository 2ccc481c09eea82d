"""`prumerge evaluate --judge` and `prumerge rescore --judge` as a user meets them."""

import csv
import json

import pytest
from judges import serving
from noise import noise

from prumerge.evaluate.log import read


@pytest.fixture(scope="module")
def asking(small, tmp_path_factory):
    """The arguments of a run of three open questions with an untrained model."""
    folder = tmp_path_factory.mktemp("rows")
    noise((64, 64)).save(folder / "a.png")
    rows = [{"image": "a.png", "question": f"what {number}?", "answer": "red"} for number in range(3)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = ["--task", "custom", "--data", folder, "--reducer", "topk", "--keep", "36", "--model", small]
    return ["evaluate", *own, "--device", "cpu"]


@pytest.fixture
def server():
    with serving() as one:
        one.reply = lambda question, *_: "hm" if "0" in question else '{"pred": "yes", "score": 4}'
        yield one


def test_a_judge_is_reported_apart_by_its_name(run, asking, server, tmp_path):
    code, out, _ = run(*asking, "--judge", server.url, "-o", tmp_path)
    assert code == 0
    table, _, apart = out.partition("judged by judge-7b")
    assert "judge" not in table
    assert [line.split()[:4] for line in apart.splitlines() if "custom" in line] == [
        [method, "custom", "100.0", "4.00"] for method in ("none", "topk@36", "random@36")
    ]
    assert "3 of its replies say neither yes nor no with a score; they count as neither." in out
    [none, *_] = csv.DictReader((tmp_path / "table.csv").read_text().splitlines())
    assert (none["custom"], none["accuracy"]) == ("0.0", "0.0")
    assert none["custom: % yes, judged by judge-7b"] == "100.0"
    [told] = json.loads((tmp_path / "summary.json").read_text())["judges"]
    assert (told["judge"], told["seed"], told["judged"][0]["unread"]) == ("judge-7b", 0, 1)
    assert run("rescore", tmp_path)[1] == out


def test_a_judge_that_fails_loses_no_answer_and_is_asked_later_without_the_model(
    run, asking, server, tmp_path
):
    server.status = lambda number: 400
    code, out, err = run(*asking, "--judge", server.url, "-o", tmp_path)
    assert (code, out) == (2, "")
    assert f"0 of {len({r.prediction for r in read(tmp_path)[1]}) * 3} verdicts and all 9 answers" in err
    assert "Traceback" not in err
    server.status = lambda number: 200
    code, out, _ = run("rescore", tmp_path, "--judge", server.url, "--judge-seed", "1")
    assert (code, "judged by judge-7b" in out) == (0, True)
    code, _, err = run("rescore", tmp_path, "--judge", server.url)
    assert (code, "was made with other settings (seed was 1, now 0); move it away" in err) == (2, True)


def test_control_c_says_which_verdicts_are_safe(run, asking, server, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("prumerge.evaluate.verdicts.ask_judge", interrupted)
    code, out, err = run(*asking, "--judge", server.url, "-o", tmp_path)
    assert (code, out) == (130, "")
    assert "stopped; 0 verdicts are safe in" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--task", "existence", "--judge", "http://localhost:1/v1"], "existence: no task whose answers are"),
        (
            ["--task", "existence", "--judge-model", "x"],
            "--judge-model names a model of the server at --judge",
        ),
    ],
)
def test_a_judge_without_a_task_or_an_address_is_refused(run, monkeypatch, tmp_path, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("evaluate", *arguments)
    assert (code, out, sentence in err) == (2, "", True)
    assert list(tmp_path.iterdir()) == []
