"""What a judge said of answers: once for equal ones, on disk at once, and never among their scores."""

import json
import threading
import time

import pytest
from builders import record
from judges import serving

from prumerge.errors import PrumergeError
from prumerge.evaluate import judge as module
from prumerge.evaluate.judge import AT_ONCE, Judge, Verdict
from prumerge.evaluate.records import by_method
from prumerge.evaluate.report import summarise
from prumerge.evaluate.verdicts import (
    Verdicts,
    ask_judge,
    at_once,
    check_judged,
    columns_of,
    file_of,
    files_in,
    judged,
)


def said(number, prediction, method="none", task="msvd_qa", **more):
    """An answer to the question of this number, to which `ride` is right."""
    return record(
        f"q-{number}", task=task, question=f"what {number}?", gold="ride", prediction=prediction,
        method=method, score=0.0, **more,
    )  # fmt: skip


RECORDS = [
    *[said(number, "ride") for number in range(6)],
    *[said(number, "ride" if number < 4 else "walk", "prumerge@36") for number in range(6)],
    said(0, "ride", task="gqa"),
]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    with serving() as one:
        yield one


def ask(server, folder, records=RECORDS, seed=0, track=lambda done, total: None):
    judge = Judge.at(server.url, seed=seed)
    verdicts = Verdicts(file_of(folder, judge.model), judge.settings)
    ask_judge(judge, records, verdicts, track)
    return verdicts


def test_equal_answers_are_judged_once_and_only_those_of_open_questions(server, tmp_path):
    verdicts = ask(server, tmp_path)
    assert len(server.requests) == len(verdicts.replies) == 8
    assert verdicts.of(RECORDS[0]) == Verdict(True, 5)
    assert verdicts.of(RECORDS[11]) == Verdict(False, 0)
    assert files_in(tmp_path) == [verdicts.path] == [tmp_path / "verdicts-judge-7b.jsonl"]
    assert Verdicts(verdicts.path).replies == verdicts.replies


def test_prompt_model_and_seed_are_stored_with_the_replies(server, tmp_path):
    verdicts = ask(server, tmp_path, seed=3)
    header, row, *_ = map(json.loads, verdicts.path.read_text().splitlines())
    assert (header["settings"]["judge"], header["settings"]["seed"]) == ("judge-7b", 3)
    assert "Predicted answer: {prediction}" in header["settings"]["prompt"]
    assert row["gold"] == ["ride"]
    with pytest.raises(PrumergeError, match=r"other settings .seed was 3, now 0.; move it away"):
        ask(server, tmp_path)


def test_judging_goes_on_after_a_cut_at_any_line_and_asks_nothing_twice(server, tmp_path):
    path = ask(server, tmp_path).path
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in range(len(lines)):
        path.write_bytes(b"".join(lines[:kept]) + lines[kept][:5])
        server.requests.clear()
        told = []
        ask(server, tmp_path, track=lambda done, total, told=told: told.append((done, total)))
        assert len(server.requests) == 8 - max(0, kept - 1)
        assert sorted(path.read_bytes().splitlines(keepends=True)) == sorted(lines)
        assert sum(done for done, _ in told) == 8
        assert {total for _, total in told} == {8}
    path.write_bytes(lines[0][:5])
    assert not files_in(tmp_path)


def test_a_server_that_fails_in_the_middle_is_one_sentence_with_what_is_safe(server, tmp_path):
    server.status = lambda number: 200 if number <= 3 else 400
    with pytest.raises(PrumergeError) as stopped:
        ask(server, tmp_path)
    kept = len(Verdicts(tmp_path / "verdicts-judge-7b.jsonl").replies)
    assert kept <= 3
    assert f"{kept} of 8 verdicts and all 13 answers are safe in {tmp_path}" in str(stopped.value)
    server.status = lambda number: 200
    assert len(ask(server, tmp_path).replies) == 8


def test_no_more_requests_wait_together_than_is_said(server, tmp_path):
    server.hold = lambda: time.sleep(0.02)
    ask(server, tmp_path, [said(number, "ride") for number in range(4 * AT_ONCE)])
    assert 1 < server.most <= AT_ONCE


def test_after_an_error_nobody_waits_for_what_is_under_way():
    never = threading.Event()

    def work(number):
        if number:
            never.wait()
        raise PrumergeError("no")

    with pytest.raises(PrumergeError):
        list(at_once(work, range(100), 4))
    never.set()


def test_a_judge_has_rows_and_columns_of_its_own(server, tmp_path):
    verdicts, groups = ask(server, tmp_path), by_method(RECORDS)
    before = summarise(groups)
    none, reduced = judged(groups, verdicts)
    assert (none.method, none.right, none.score, none.against_none) == ("none", 100, 5, None)
    assert (reduced.task, reduced.right, reduced.verdicts) == ("msvd_qa", pytest.approx(200 / 3), 6)
    assert reduced.score == pytest.approx(10 / 3)
    assert reduced.against_none.difference == pytest.approx(-100 / 3)
    assert reduced.against_none.p == 0.5
    assert summarise(groups) == before
    assert {row.scores["msvd_qa"] for row in before if row.method != "blind"} == {0}
    columns = columns_of({verdicts.judge: [none, reduced]})
    assert columns["msvd_qa: % yes, judged by judge-7b"] == {"none": 100, "prumerge@36": reduced.right}


def test_replies_that_are_no_verdict_are_counted_and_count_nowhere(server, tmp_path):
    server.reply = lambda question, gold, prediction: (
        "hm" if prediction == "walk" or "0" in question else '{"pred": "yes", "score": 4}'
    )
    verdicts = ask(server, tmp_path)
    none, reduced = judged(by_method(RECORDS), verdicts)
    assert (none.right, none.verdicts, none.unread) == (100, 5, 1)
    assert (reduced.right, reduced.score, reduced.verdicts, reduced.unread) == (100, 4, 3, 3)
    server.requests.clear()
    ask(server, tmp_path)
    assert not server.requests


def test_a_method_without_any_verdict_has_no_percentage(server, tmp_path):
    server.reply = lambda *_: "hm"
    none, _ = judged(by_method(RECORDS), ask(server, tmp_path))
    assert (none.right, none.score, none.unread, none.unasked) == (None, None, 6, 0)


def test_answers_that_were_not_judged_yet_are_counted(server, tmp_path):
    verdicts = ask(server, tmp_path, RECORDS[:4])
    none, reduced = judged(by_method(RECORDS), verdicts)
    assert (none.verdicts, none.unasked, reduced.unasked) == (4, 2, 2)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": 1}\n', "is no file of verdicts: line 1 holds no judge; move it away"),
        ('{"settings": {"judge": "x"}}\n{"reply": "yes"}\n', "holds a line that is no verdict"),
    ],
)
def test_what_is_no_file_of_verdicts_is_refused(tmp_path, text, sentence):
    path = tmp_path / "verdicts-x.jsonl"
    path.write_text(text)
    with pytest.raises(PrumergeError, match=sentence):
        Verdicts(path)


def test_tasks_that_are_never_judged_are_refused_with_those_that_are():
    with pytest.raises(PrumergeError, match=r"existence, gqa: no task whose answers are judged.*msvd_qa"):
        check_judged(["existence", "gqa"])
    check_judged(["existence", "custom"])
