"""`prumerge evaluate` and `prumerge rescore` as a user meets them: killed, full, and out of a file alone."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import forked
from typer.testing import CliRunner

from prumerge.cli import app
from prumerge.errors import PrumergeError
from prumerge.evaluate.log import Log, read

SMALL = ["--benchmark", "existence,perception", "--reducer", "prumerge", "--keep", "36", "--questions", "24"]
ANSWERS = 3 * 2 * 24  # none, prumerge and random
REPORTS = {"table.csv", "summary.json", "pareto.png"}


@pytest.fixture(scope="module")
def asking(small):
    """The arguments of a small run with an untrained model."""
    return [*SMALL, "--model", str(small)]


@pytest.fixture(scope="module")
def finished(asking, tmp_path_factory):
    """A folder with a finished run, and what it printed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    result = CliRunner().invoke(app, ["evaluate", *asking, "-o", str(folder)])
    assert result.exit_code == 0, result.output
    return folder, result.stdout.replace(str(folder), "FOLDER")


@pytest.fixture
def evaluated(finished, tmp_path):
    """A copy of it, and what it printed."""
    folder, out = finished
    return shutil.copytree(folder, tmp_path / "run"), out


def without_times(path: Path) -> list[dict]:
    _, records = read(path / "answers.jsonl")
    rows = [{name: value for name, value in vars(one).items() if name[-3:] != "_ms"} for one in records]
    return sorted(rows, key=lambda row: (row["method"], row["id"]))


def table(path: Path) -> list[dict]:
    return list(csv.DictReader((path / "table.csv").read_text().splitlines()))


def summary(path: Path) -> str:
    return re.sub(r'"\w+_ms": [\d.e-]+', "", (path / "summary.json").read_text())


def test_a_run_leaves_answers_and_reports(evaluated):
    folder, out = evaluated
    assert {path.name for path in folder.iterdir()} == {"answers.jsonl", *REPORTS}
    assert len(read(folder / "answers.jsonl")[1]) == ANSWERS
    rows = table(folder)
    assert [row["method"] for row in rows] == ["none", "prumerge@36", "random@36", "blind"]
    assert [float(row["tokens"]) for row in rows] == [576, 36, 36, 0]
    assert all(row["method"] in out for row in rows)
    assert "prumerge@36 - random@36:" in out
    methods = json.loads((folder / "summary.json").read_text())["methods"]
    assert methods[1]["prefill_ms"] > 0


def slowly(*command: str) -> None:
    """A command that can be hit in the middle."""
    append = Log.append

    def slow(log, *records):
        append(log, *records)
        time.sleep(0.2)

    Log.append = slow  # type: ignore[method-assign]
    app(command)


def test_kill_9_in_the_middle_loses_nothing_and_changes_nothing(evaluated, run, tmp_path, asking):
    folder, out = evaluated
    killed = tmp_path / "killed"
    process = forked(slowly, "evaluate", *asking, "-o", str(killed))
    answers = killed / "answers.jsonl"
    while process.is_alive() and not (answers.exists() and answers.read_bytes().count(b"\n") > 30):
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    survived = answers.read_bytes()
    assert 30 < survived.count(b"\n") < ANSWERS
    assert not {path.name for path in killed.iterdir()} & REPORTS

    answers.write_bytes(survived + b'{"task": "exist')  # and a line that was not finished
    code, resumed, err = run("evaluate", *asking, "-o", killed)
    assert (code, "an unfinished last answer was cut off" in err) == (0, True)
    assert answers.read_bytes().startswith(survived)
    assert answers.read_bytes().count(b"\n") == ANSWERS + 1  # nothing twice
    assert without_times(killed) == without_times(folder)
    assert resumed.replace(str(killed), "FOLDER") == out
    assert (killed / "table.csv").read_text() == (folder / "table.csv").read_text()
    assert summary(killed) == summary(folder)


def test_control_c_says_what_is_safe(evaluated, run, monkeypatch, asking):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("prumerge.evaluate.run.run", interrupted)
    code, out, err = run("evaluate", *asking, "-o", evaluated[0])
    assert (code, out) == (130, "")
    assert f"stopped; {ANSWERS} answers are safe in {evaluated[0] / 'answers.jsonl'}" in err


def test_rescore_makes_the_same_table_from_the_answers_alone(evaluated, tmp_path):
    folder, out = evaluated
    alone = tmp_path / "alone"
    alone.mkdir()
    text = (folder / "answers.jsonl").read_text()
    (alone / "answers.jsonl").write_text(text.replace('"score": 1.0', '"score": 0.0'))
    program = (
        "import sys\nfrom prumerge.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", program, "rescore", str(alone)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.replace(str(alone), "FOLDER") == out
    for name in REPORTS:
        assert (alone / name).read_bytes() == (folder / name).read_bytes()


def test_rescore_prints_json_and_reports_what_there_is_of_an_interrupted_run(evaluated, run):
    folder, _ = evaluated
    lines = (folder / "answers.jsonl").read_bytes().split(b"\n")
    (folder / "answers.jsonl").write_bytes(b"\n".join(lines[:50]) + b"\n" + lines[50][:20])
    code, out, _ = run("rescore", folder, "--json")
    methods = {row["method"]: row["questions"] for row in json.loads(out)["methods"]}
    assert code == 0
    assert sum(count for method, count in methods.items() if method != "blind") == 49
    assert "Not all were asked the same questions (none " in run("rescore", folder)[1]


def test_a_table_of_methods_that_were_asked_different_tasks(evaluated, run, asking):
    folder, _ = evaluated
    more = ["--benchmark", "existence,choice", "--reducer", "topk", "--keep", "36", "--questions", "24"]
    code, out, _ = run("evaluate", *asking, *more, "-o", folder)
    assert code == 0
    assert "prumerge@36 48, random@36 72, topk@36 48" in out
    line = next(line for line in out.splitlines() if line.startswith("topk@36"))
    row = next(row for row in table(folder) if row["method"] == "topk@36")
    assert row["perception"] == ""
    assert line.split()[2] == f"{float(row['accuracy']):.1f}"
    assert line.split()[-2:] == [f"{float(row[name]):.1f}" for name in ("choice", "existence")]


def test_other_settings_are_refused_and_nothing_is_changed(evaluated, run, asking):
    folder, _ = evaluated
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, out, err = run("evaluate", *asking, "--questions", "48", "-o", folder)
    assert (code, out) == (2, "")
    changes = "; ".join(f"questions of {name} was 24, now 48" for name in ("existence", "perception"))
    assert f"was made with other settings ({changes}); choose another --output" in err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_stops_the_run_with_one_sentence(run, tmp_path, asking):
    os.symlink("/dev/full", tmp_path / "answers.jsonl")
    code, out, err = run("evaluate", *asking, "-o", tmp_path)
    assert (code, out) == (2, "")
    assert f"prumerge: {tmp_path / 'answers.jsonl'} cannot be written (No space left on device)" in err
    assert "Traceback" not in err


def test_reports_are_written_whole_or_not_at_all(evaluated, run, monkeypatch):
    folder, _ = evaluated
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(path, text, **_):
        path.write_bytes(text[:10].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    code, _, err = run("rescore", folder)
    assert code == 2
    assert f"{folder / 'table.csv'} cannot be written (No space left on device); name another" in err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluate", "--reducer", "prune"], "there is no method 'prune' (did you mean 'hiprune'?); choose"),
        (["evaluate", "--chart", "gif"], "there is no kind of chart 'gif'; choose one of: png, pdf, svg"),
        (["evaluate", "-o", __file__], "is a file, not a folder; name another place"),
        (["evaluate", "-o", f"{__file__}/deeper"], "is a file, not a folder; name another place"),
        (["evaluate", "--quick", "--relevance-model", "x"], "no method that asks --relevance-model"),
        (["evaluate", "--quick", "--positions", "odd"], "positions are auto, compact, original, median"),
        (["rescore", __file__], "is no file of answers: line 1 holds no settings"),
        (
            ["evaluate", "--benchmark", "colours"],
            "there is no task 'colours'; choose one of: all, attribute",
        ),
        (["evaluate", "--task", "colours"], "there is no task 'colours'; choose one of: all, attribute"),
        (["evaluate", "--task", "custom"], "custom reads a .jsonl file with image, question and answer"),
        (["evaluate", "--task", "custom", "--data", "nowhere"], "there is no folder 'nowhere'; custom reads"),
        (["evaluate", "--data", "nowhere"], "nothing is read from a folder; leave --data out"),
        (["evaluate", "--hard", "--task", "gqa"], "hard alone; leave it out and take --task gqa,hard"),
        (["evaluate", "--task", "hard", "--unseen"], "hard: no option 'unseen'; leave --task-option out"),
        (["evaluate", "--task", "easy_vqa", "--unseen"], "easy_vqa has its own; leave --unseen out"),
        (["evaluate", "--task-option", "ocr"], "a task's option is NAME=VALUE, such as ocr=yes, not 'ocr'"),
        (["evaluate", "--task-option", "ocr=yes"], "no option 'ocr'; choose one of: unseen"),
        (["evaluate", "--device-map", "odd"], "there is no device map 'odd'; choose one of: auto, balanced"),
        (["evaluate", "--device-map", "auto", "--device", "cpu"], "leave --device cpu out"),
        (["evaluate", "--keep", "few"], "budgets are whole numbers of visual tokens, shares of them or auto"),
        (["evaluate", "--keep", "36,150%"], "such as 36,25%,auto, not '150%'"),
        (["evaluate", "--keep", "36,,auto"], "such as 36,25%,auto, not ''"),
        (["evaluate", "--quick", "--keep", "577"], "keep is more than the 576 visual tokens"),
        (["evaluate", "--questions", "100"], "96 or 120, not 100"),
        (["evaluate", "--quick", "--keep", "1"], "prumerge cannot hand over as few as 1 visual tokens"),
        (["evaluate", "--model", "no/where"], "there is no model to load at 'no/where'"),
        (["evaluate", "--device", "abacus"], "there is no device 'abacus'"),
        (["rescore", "nowhere"], "there are no answers at 'nowhere/answers.jsonl'"),
        (["rescore"], "Missing argument"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(
    run, unchecked, monkeypatch, tmp_path, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "text", "sentence"),
    [
        (1, "{}", "is no file of answers: line 1 holds no settings"),
        (1, "[1, 2]", "is no file of answers: line 1 holds no settings"),
        (1, "hello", "is no file of answers: line 1 holds no settings"),
        (3, "hello", "line 3: 'hello' is no answer; take the line out, or run evaluate anew"),
        (3, "[1, 2]", "line 3: '[1, 2]' is no answer; take the line out, or run evaluate anew"),
        (3, "{}", "line 3: 'task' is missing; take the line out, or run evaluate anew"),
        (
            4,
            {"task": "existance"},
            "line 4: there is no task 'existance' (did you mean 'existence'?)",
        ),
        (4, {"score": "much"}, "line 4: score cannot be 'much'; take the line out, or run evaluate anew"),
        (4, {"picture": True}, "line 4: picture cannot be True; take the line out, or run evaluate anew"),
        (4, {"colour": "red"}, "line 4: 'colour' is not known; take the line out, or run evaluate anew"),
    ],
)
@pytest.mark.parametrize("command", ["rescore", "evaluate"])
def test_a_log_that_was_spoilt_is_named_with_its_line_and_left_alone(
    evaluated, run, asking, command, line, text, sentence
):
    file = evaluated[0] / "answers.jsonl"
    lines = file.read_text().splitlines()
    lines[line - 1] = text if isinstance(text, str) else json.dumps({**json.loads(lines[line - 1]), **text})
    file.write_text(spoilt := "\n".join(lines) + "\n")
    arguments = [command, evaluated[0]] if command == "rescore" else [command, *asking, "-o", evaluated[0]]
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert str(file) in err
    assert sentence in err
    assert file.read_text() == spoilt


def test_rescore_takes_the_file_as_well_as_its_folder(evaluated, run):
    folder, out = evaluated
    by_file = run("rescore", folder / "answers.jsonl")
    assert by_file == run("rescore", folder)
    assert by_file[1].replace(str(folder), "FOLDER") == out


@pytest.mark.parametrize(("kind", "begins"), [("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_chart_is_written_as_vectors_as_well(evaluated, run, kind, begins):
    code, out, _ = run("rescore", evaluated[0], "--chart", kind)
    assert (code, f"pareto.{kind} are in" in out) == (0, True)
    assert (evaluated[0] / f"pareto.{kind}").read_bytes().startswith(begins)


@pytest.mark.parametrize("terminal", [80, 120])
def test_the_table_fits_the_terminal_and_its_numbers_stay_whole(evaluated, run, monkeypatch, terminal):
    from prumerge.cli import output

    folder, wide = evaluated
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(output, "width", lambda: terminal)
    code, out, _ = run("rescore", folder.name)
    assert code == 0
    assert max(map(len, out.splitlines())) <= terminal
    for line in wide.splitlines()[2:6]:
        for cell in re.split(r"\s{2,}", line.strip()):
            assert cell in out


def test_few_questions_say_that_they_are_few(evaluated):
    assert "24 questions in each task are few: a single answer moves its score by 4.2 points" in evaluated[1]


def test_the_extra_token_is_said_beside_keep(evaluated):
    assert "prumerge: @36 is keep=35 and 1 for the rest." in evaluated[1]


def test_prompts_are_shortened_as_the_options_say_and_the_log_remembers(run, asking, tmp_path):
    arguments = ["evaluate", *asking, "--reducer", "topk", "--benchmark", "choice", "-o", tmp_path]
    assert run(*arguments, "--positions", "original", "--size-bias", "--keep", "25%")[0] == 0
    settings, records = read(tmp_path / "answers.jsonl")
    assert (settings["positions"], settings["size_bias"]) == ("original", True)
    assert {record.method for record in records} == {"none", "topk@144", "random@144"}
    code, _, err = run(*arguments)
    assert code == 2
    assert "positions was original, now None" in err


def test_the_folder_is_tried_before_anything_is_loaded(run, monkeypatch, tmp_path):
    from prumerge.cli import model, output

    def refuses(*_, **__):
        raise PermissionError(13, "Permission denied", "/x/.prumerge-abc")

    monkeypatch.setattr(output.tempfile, "mkstemp", refuses)
    monkeypatch.setattr(model, "open_model", lambda *_: pytest.fail("a model was loaded"))
    code, _, err = run("evaluate", "--quick", "-o", tmp_path / "new")
    assert (code, err) == (
        2,
        f"prumerge: {tmp_path} cannot be written (Permission denied); name another place\n",
    )


def test_a_folder_without_a_single_answer_has_no_table(run, tmp_path):
    (tmp_path / "answers.jsonl").write_text('{"settings": {}}\n')
    code, _, err = run("rescore", tmp_path)
    assert (code, "there are no answers in" in err) == (2, True)


# tasks on the user's disk


@pytest.fixture
def rows(tmp_path):
    """A folder with questions about drawn scenes as a task of one's own."""
    from prumerge.tiny.benchmarks import pictures

    folder = tmp_path / "data" / "custom"
    folder.mkdir(parents=True)
    lines = []
    for drawn, items in pictures(6, ("attribute", "existence")):
        drawn.image.save(folder / f"{drawn.seed}.png")
        for item in items:
            row = {
                "id": item.id,
                "image": f"{drawn.seed}.png",
                "question": item.question,
                "answer": item.gold,
            }
            lines.append(json.dumps({**row, "split": item.benchmark}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder


def test_tasks_are_asked_together_and_reported_with_their_details(run, small, rows, tmp_path):
    tasks = ["--task", "custom,existence", "--data", rows.parent, "--reducer", "topk", "--keep", "36"]
    code, out, _ = run("evaluate", *tasks, "--questions", "24", "--model", small, "-o", tmp_path / "run")
    assert code == 0
    none, *_ = table(tmp_path / "run")
    assert {"existence", "custom", "custom: attribute", "custom: existence"} <= set(none)
    assert none["questions"] == "36"
    records = read(tmp_path / "run")[1]
    assert all(0 <= record.answer_tokens <= (12 if record.task == "existence" else 16) for record in records)
    for name, limit in (("custom", 16), ("existence", 12)):
        cut = sum(record.cut for record in records if record.task == name)
        assert cut == sum(record.answer_tokens == limit for record in records if record.task == name)
        assert (f"of {name} were cut at {limit} tokens." in out) == (cut > 1)


def test_labels_that_changed_do_not_continue_a_run(run, small, rows, tmp_path):
    asking = ["--task", "custom", "--data", rows, "--reducer", "none", "--keep", "36", "--model", small]
    asking += ["-o", tmp_path / "run"]
    assert run("evaluate", *asking)[0] == 0
    moved = rows.rename(tmp_path / "elsewhere")
    asking[3] = moved
    assert run("evaluate", *asking)[0] == 0
    labels = moved / "rows.jsonl"
    labels.write_text(labels.read_text().replace('"yes"', '"no"'))
    code, _, err = run("evaluate", *asking)
    assert (code, "(the questions of custom are others now); choose another --output" in err) == (2, True)


def test_a_model_may_be_spread_over_devices(run, small, rows, tmp_path):
    asking = ["--task", "custom", "--data", rows, "--reducer", "none", "--keep", "36", "--questions", "2"]
    asking += ["--model", small, "-o", tmp_path / "run"]
    assert run("evaluate", *asking, "--device-map", "auto")[0] == 0


def test_tasks_are_listed(run):
    from prumerge.evaluate.tasks import names

    code, out, _ = run("tasks")
    assert (code, all(name in out for name in names())) == (0, True)
    assert "--task-option unseen=yes" in out
    listed = {one["name"]: one for one in json.loads(run("tasks", "--json")[1])}
    assert tuple(listed) == names()
    assert listed["custom"]["data"].startswith("a .jsonl file")
    assert listed["existence"]["measure"] == "mean F1 of 3 splits"


def test_hard_scenes_without_their_model_say_where_it_is_and_what_else_to_ask(tmp_path, monkeypatch):
    monkeypatch.setattr("prumerge.tiny.__file__", str(tmp_path / "prumerge" / "tiny" / "__init__.py"))
    result = CliRunner().invoke(app, ["evaluate", "--hard", "-o", str(tmp_path / "run")])
    assert isinstance(result.exception, PrumergeError)
    assert "clone it, or ask the embedded one by --task hard --model tiny" in str(result.exception)


def test_hard_is_short_for_its_task(asking, tmp_path):
    small = asking[asking.index("--model") :]
    arguments = ["--hard", "--reducer", "prumerge", "--keep", "36", "--questions", "24", *small]
    result = CliRunner().invoke(app, ["evaluate", *arguments, "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert {one.task for one in read(tmp_path / "answers.jsonl")[1]} == {"hard"}
