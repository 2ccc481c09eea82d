"""`prumerge lmms-eval`: lmms-eval's own command, that fails where a run failed."""

import sys

import harness
import pytest

from prumerge.errors import PrumergeError


@pytest.fixture
def evaluating(monkeypatch, run):
    """Runs the command where lmms-eval evaluates so, and gives what it was told too."""
    harness.install(monkeypatch)
    seen = []

    def command(evaluate, *arguments):
        def single(args):
            seen.append(args.given)
            return evaluate()

        theirs = vars(sys.modules["lmms_eval.__main__"])
        theirs["cli_evaluate_single"] = single
        before = list(sys.argv)
        found = run("lmms-eval", *arguments)
        assert theirs["cli_evaluate_single"] is single
        monkeypatch.setattr(sys, "argv", before)
        return *found, seen

    return command


def raising(error):
    def evaluate():
        raise error

    return evaluate


ASKING = ("--model", "prumerge", "--model_args", "model=tiny,keep=36", "--tasks", "disk_pope", "-n", "2")


def test_all_arguments_are_handed_on_as_they_are(evaluating):
    code, out, err, seen = evaluating(lambda: ({"results": {}}, None), *ASKING)
    assert (code, out, err) == (0, "", "")
    assert seen == [["lmms-eval", *ASKING]]


@pytest.mark.parametrize(
    ("evaluate", "code", "last"),
    [
        (raising(KeyError("odd")), 1, ""),
        (lambda: (None, None), 1, ""),
        (raising(SystemExit()), 1, ""),
        (raising(SystemExit(3)), 3, ""),
        (raising(PrumergeError("there is no model; name one")), 2, "prumerge: there is no model; name one\n"),
    ],
)
def test_a_run_without_results_fails(evaluating, evaluate, code, last):
    found, _, err, _ = evaluating(evaluate, *ASKING)
    assert (found, err) == (code, last)


def test_processes_beside_the_first_have_no_results_and_that_is_fine(evaluating, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert evaluating(lambda: (None, None), *ASKING)[0] == 0


def test_a_list_of_tasks_is_no_failure(evaluating):
    assert evaluating(raising(SystemExit()), "--tasks", "list")[0] == 0


def test_an_interruption_is_one(evaluating):
    assert evaluating(raising(KeyboardInterrupt()), *ASKING)[0] == 130
