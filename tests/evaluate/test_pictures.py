"""`prumerge evaluate --task pictures`: what an engineer learns about a model that nobody else has."""

import json
import re
import shutil

import pytest
from builders import record
from typer.testing import CliRunner

from benchmarks import picture
from prumerge.cli import app
from prumerge.evaluate.faithful import cheapest, share_interval
from prumerge.evaluate.log import read
from prumerge.evaluate.records import by_method
from prumerge.evaluate.report import summarise

COUNT = 2


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """Pictures, arguments, a finished run, and what it printed."""
    home = tmp_path_factory.mktemp("pictures")
    for number in range(COUNT):
        picture(home / "album" / f"{number}.png", number)
    given = ["--task", "pictures", "--data", str(home / "album"), "--model", str(small)]
    given += ["--reducer", "prumerge,spatial", "--keep", "16,576"]
    result = CliRunner().invoke(app, ["evaluate", *given, "-o", str(home / "run")])
    assert result.exit_code == 0, result.output
    return given, home / "run", result.stdout


def test_what_keeps_all_tokens_keeps_all_answers_and_what_keeps_none_of_the_words_does_not(finished):
    _, folder, out = finished
    report = json.loads((folder / "report.json").read_text())
    lines = {line["method"]: line for line in report["methods"]}
    assert (lines["spatial@576"]["same"], lines["spatial@576"]["nats"]) == (100, 0)
    assert lines["random@16"]["nats"] > 0
    assert lines["spatial@16"]["tokens"] == 16
    assert re.search(r"Cheapest at 95 %: \S+ keeps|No method keeps 95 %", out)


def test_right_is_what_the_untouched_model_says(finished):
    _, folder, _ = finished
    _, records = read(folder / "answers.jsonl")
    untouched = {one.place: one.prediction for one in records if one.method == "none"}
    assert all(one.gold == (untouched[one.place],) for one in records)
    assert all(one.score == 1 for one in records if one.prediction == untouched[one.place])


def test_the_look_at_the_checkpoint_says_that_none_is_the_untouched_model(finished):
    _, folder, out = finished
    check = json.loads((folder / "self-check.json").read_text())["check"]
    assert (check["identical"], check["difference"], check["pictures"]) == (True, 0, COUNT)
    assert check["tokens"] == {"mean": 576, "low": 576, "high": 576}
    assert 0 <= check["outliers"]["low"] <= check["outliers"]["high"] <= 100
    assert 0 < check["holds_half"]["mean"] <= 50
    assert "none is bit-identical to the untouched model" in out


def test_the_report_to_hand_in_names_no_picture_and_holds_no_answer(finished):
    _, folder, _ = finished
    text = (folder / "report.json").read_text()
    report = json.loads(text)
    assert "0.png" not in text
    assert set(report) == {
        *("form", "date", "model", "weights", "dtype", "family", "language_model", "vision_tower"),
        *("machine", "versions", "check", "pictures", "questions", "methods"),
    }
    assert (report["pictures"], report["questions"]["yes or no"]) == (COUNT, 2 * COUNT)


def test_it_goes_on_with_the_untouched_models_answers_of_before(finished, run, tmp_path):
    given, folder, _ = finished
    lines = (folder / "answers.jsonl").read_text().splitlines(keepends=True)
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "answers.jsonl").write_text("".join(lines[:20]))
    code, _, _ = run("evaluate", *given, "-o", begun)
    assert code == 0
    before, now = (
        sorted((one.method, one.id, one.prediction, one.gold) for one in read(place / "answers.jsonl")[1])
        for place in (folder, begun)
    )
    assert now == before


def test_a_folder_of_another_run_keeps_its_look(finished, run, tmp_path):
    given, folder, _ = finished
    other = shutil.copytree(folder, tmp_path / "other")
    before = (other / "self-check.json").read_bytes()
    code, out, err = run("evaluate", *given, "--size-bias", "-o", other)
    assert (code, out) == (2, "")
    assert "was made with other settings" in err
    assert (other / "self-check.json").read_bytes() == before


def test_a_model_that_none_does_not_leave_alone_is_not_passed_over(finished, run, monkeypatch, tmp_path):
    from dataclasses import replace

    from prumerge.evaluate import selfcheck

    honest = selfcheck.self_check
    monkeypatch.setattr(
        selfcheck, "self_check", lambda *a: replace(honest(*a), identical=False, difference=0.5)
    )
    code, out, _ = run("evaluate", *finished[0], "-o", tmp_path / "run")
    assert code == 0
    assert "none is NOT the untouched model: logits differ by 0.5" in out


# what to use


def rows(**same):
    """A row for each method@budget, whose answers are the untouched model's where its text has a 1."""
    count = len(next(iter(same.values())))
    none = [record(f"attribute-{place:04}") for place in range(count)]
    others = [
        record(
            f"attribute-{place:04}",
            method=method,
            prediction="red" if one == "1" else "blue",
            tokens_kept=int(method.partition("_")[2]),
        )
        for method, text in same.items()
        for place, one in enumerate(text)
    ]
    return summarise(by_method([*none, *others]))


def test_the_cheapest_is_that_with_the_fewest_tokens_that_is_surely_as_good():
    found = cheapest(rows(a_36="1" * 190 + "0" * 10, b_144="1" * 200, c_64="1" * 200), 95)
    assert (found.row.method, found.sure) == ("c_64", True)


def test_where_no_interval_is_above_the_rate_the_mean_decides_and_that_is_said():
    found = cheapest(rows(a_36="1" * 19 + "0" * 2, b_64="1" * 20 + "0"), 95)
    assert (found.row.method, found.sure) == ("b_64", False)
    assert cheapest(rows(a_36="0" * 20), 95) is None


def test_all_alike_on_a_few_pictures_is_no_certainty():
    low, high = share_interval([1.0] * 40, [str(place % 4) for place in range(40)])
    assert (round(low, 1), high) == (39.8, 100)  # of four pictures: 0.025 ** (1 / 4)
    assert share_interval([0.0] * 3, ["a", "b", "c"])[0] == 0
