"""With lmms-eval itself, which `make test-lmms` installs: its own command on a checkpoint on this disk."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lmms, pytest.mark.timeout(900)]
pytest.importorskip("lmms_eval")

SPECS = {"none": "none", "prumerge@36": "prumerge:keep=35"}
OFFLINE = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the embedded model as a checkpoint, POPE's layout with drawn scenes, and its task."""
    import pyarrow
    from pyarrow import parquet

    import prumerge
    from prumerge.tiny.benchmarks import pictures

    folder = tmp_path_factory.mktemp("lmms")
    model, processor = prumerge.load("tiny")
    model.save_pretrained(folder / "checkpoint")
    processor.save_pretrained(folder / "checkpoint")
    rows = []
    for drawn, items in pictures(24, ("existence",)):
        data = io.BytesIO()
        drawn.image.save(data, "PNG")
        for item in items:
            told = {"id": item.id, "question_id": item.id, "question": item.question, "answer": item.gold}
            shown = {"image_source": str(drawn.seed), "image": {"bytes": data.getvalue(), "path": ""}}
            rows.append({**told, **shown, "category": item.split})
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    kinds = {name: image if name == "image" else pyarrow.string() for name in rows[0]}
    features = {
        name: {"_type": "Image"} if name == "image" else {"dtype": "string", "_type": "Value"}
        for name in kinds
    }
    schema = pyarrow.schema(
        list(kinds.items()), {"huggingface": json.dumps({"info": {"features": features}})}
    )
    (folder / "POPE" / "data").mkdir(parents=True)
    parquet.write_table(
        pyarrow.Table.from_pylist(rows, schema), folder / "POPE" / "data" / "test-00000-of-00001.parquet"
    )
    assert prumerged(folder, "lmms-task", "pope", "--data", folder / "POPE", "-o", folder / "tasks")[0] == 0
    return folder


def command(*arguments):
    return [sys.executable, "-m", "prumerge", *map(str, arguments)]


def environment(folder):
    return {**os.environ, **OFFLINE, "HF_HOME": str(folder / "home")}


def prumerged(folder, *arguments):
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=folder, env=environment(folder), check=False
    )
    return done.returncode, done.stdout, done.stderr


def asking(place, model_args, *more):
    own = ["--model", "prumerge", "--model_args", model_args, "--tasks", "disk_pope", "--device", "cpu"]
    return ["lmms-eval", *own, "--include_path", place / "tasks", "--batch_size", 8, *more]


def rows(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.fixture(scope="module")
def evaluated(place):
    """What `prumerge evaluate` answers to the same questions in the same files, by method."""
    own = ["--model", place / "checkpoint", "--task", "pope", "--data", place / "POPE", "--device", "cpu"]
    reduced = ["--reducer", "prumerge", "--keep", "36", "-o", place / "evaluated"]
    code, _, err = prumerged(place, "evaluate", *own, *reduced)
    assert code == 0, err
    _, *answers = rows(place / "evaluated" / "answers.jsonl")
    found: dict = {}
    for row in answers:
        found.setdefault(row["method"], {})[row["id"]] = row
    return found


def name_of(document):
    return f"{document['category']}/{document['image_source']}/{document['question']}"


def documents(place):
    from pyarrow import parquet

    return parquet.read_table(place / "POPE" / "data").to_pylist()


@pytest.mark.parametrize("method", SPECS)
def test_its_answers_are_those_of_prumerge_evaluate(place, evaluated, method):
    log, spec = place / f"{method}.jsonl", SPECS[method]
    code, out, err = prumerged(
        place, *asking(place, f"model={place / 'checkpoint'},reducer={spec},log={log}"),
        "--output_path", place / "out", "--log_samples",
    )  # fmt: skip
    assert code == 0, out + err
    asked, expected = documents(place), evaluated[method]
    told = {name_of(asked[row["doc_id"]]): row for row in rows(log)}
    assert set(told) == set(expected)
    assert {name: row["text"] for name, row in told.items()} == {
        name: row["prediction"] for name, row in expected.items()
    }
    assert {row["visual_tokens"] for row in told.values()} == {576 if method == "none" else 36}
    assert "pope_f1_score" in out
    assert "avg_visual_tokens" in out


def test_a_run_that_was_killed_goes_on(place, evaluated):
    log = place / "killed.jsonl"
    arguments = asking(place, f"model={place / 'checkpoint'},reducer=prumerge:keep=35,log={log}")
    process = subprocess.Popen(
        command(*arguments),
        cwd=place,
        env=environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    survived = log.read_bytes()
    assert process.returncode == -signal.SIGKILL
    assert 0 < survived.count(b"\n") < 24
    code, out, err = prumerged(place, *arguments)
    assert code == 0, out + err
    assert log.read_bytes().startswith(survived[: survived.rfind(b"\n") + 1])
    asked = documents(place)
    assert {name_of(asked[row["doc_id"]]): row["text"] for row in rows(log)} == {
        name: row["prediction"] for name, row in evaluated["prumerge@36"].items()
    }


def test_two_processes_share_the_questions(place, evaluated):
    log = place / "two.jsonl"
    arguments = asking(place, f"model={place / 'checkpoint'},reducer=prumerge:keep=35,log={log}")
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launched, "-m", "prumerge", *map(str, arguments)],
        capture_output=True, text=True, cwd=place, env=environment(place), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = rows(log), rows(place / "two-1.jsonl")
    assert len(first) == len(second) == 12
    asked = documents(place)
    assert {name_of(asked[row["doc_id"]]): row["text"] for row in first + second} == {
        name: row["prediction"] for name, row in evaluated["prumerge@36"].items()
    }


@pytest.mark.parametrize(
    ("model_args", "task", "code", "sentence"),
    [
        ("model=/no/where", "disk_pope", 2, "prumerge: there is no model to load at '/no/where'"),
        ("model=tiny", "no_such_task", 1, "Tasks not found: no_such_task"),
    ],
)
def test_a_run_that_fails_exits_with_its_failure(place, model_args, task, code, sentence):
    arguments = [task if one == "disk_pope" else one for one in asking(place, model_args)]
    found, out, err = prumerged(place, *arguments)
    assert (found, sentence in out + err) == (code, True)
