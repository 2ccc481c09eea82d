"""Several processes answer together: each its own pictures, killed or not, in any number."""

import csv
import os
import shutil
import signal
import socket
import sys
import warnings

import pytest
import torch

from prumerge.cli import main
from prumerge.evaluate.log import Log, read
from prumerge.evaluate.processes import ALONE, Processes

ASKING = ["--task", "existence", "--reducer", "prumerge", "--keep", "36,auto", "--questions", "24"]
ANSWERS = 5 * 24  # none, prumerge and random at 36, prumerge by its own choice, random at its mean
BEFORE = 2  # batches that a process answers before it is killed


def evaluated(small, folder, count, *, killed=False):
    """Run the command in so many processes; how each ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's, of forks: what is imported here is there at once
        started = torch.multiprocessing.start_processes(
            _process, (small, folder, count, port, killed), count, join=False, start_method="fork"
        )
    for process in started.processes:
        process.join(100)
    return [process.exitcode for process in started.processes]


def _process(rank, small, folder, count, port, killed):
    torch.set_num_threads(1)
    if count > 1:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if killed:
        _kill_after_some_batches()
    sys.argv = ["prumerge", "evaluate", *ASKING, "--model", str(small), "-o", str(folder)]
    sys.stdout = open(folder.parent / f"{folder.name}-{rank}.txt", "w")  # noqa: SIM115
    try:
        main()
    except SystemExit as stop:
        os._exit(int(stop.code or 0))


def _kill_after_some_batches():
    append, batches = Log.append, []

    def counted(log, *records):
        append(log, *records)
        batches.append(records)
        if len(batches) == BEFORE:
            os.kill(os.getpid(), signal.SIGKILL)

    Log.append = counted  # type: ignore[method-assign]


def table(folder):
    return list(csv.DictReader((folder / "table.csv").read_text().splitlines()))


@pytest.fixture(scope="module")
def alone(small, tmp_path_factory):
    """A run of one process that nobody disturbed."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert evaluated(small, folder, 1) == [0]
    return folder


def test_every_picture_falls_to_one_process():
    shares = [Processes(rank, 3).share(range(10)) for rank in range(3)]
    assert sorted(one for share in shares for one in share) == list(range(10))
    assert ALONE.share(range(10)) == range(10)
    assert not ALONE.meet()


@pytest.fixture(scope="module")
def killed(small, tmp_path_factory):
    """What two processes leave that were killed in the middle."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    assert evaluated(small, folder, 2, killed=True) == [-signal.SIGKILL] * 2
    assert {path.name for path in folder.iterdir()} == {"answers-0.jsonl", "answers-1.jsonl"}
    assert 0 < len(read(folder)[1]) < ANSWERS
    return folder


@pytest.mark.parametrize("then", [1, 2])
def test_processes_that_were_killed_go_on_in_any_number_and_end_as_one_would(
    alone, killed, small, tmp_path, then
):
    folder = shutil.copytree(killed, tmp_path / "run")
    with (folder / "answers-1.jsonl").open("ab") as file:
        file.write(b'{"task": "exist')  # and a line that was not finished

    assert evaluated(small, folder, then) == [0] * then
    assert table(folder) == table(alone)
    lines = [line for path in folder.glob("answers*.jsonl") for line in path.read_bytes().split(b"\n")[:-1]]
    assert sum(b'"prediction"' in line for line in lines) == len(read(folder)[1]) == ANSWERS  # nothing twice
    said = [(tmp_path / f"run-{rank}.txt").read_text() for rank in range(then)]
    assert [bool(text) for text in said] == [True] + [False] * (then - 1)  # the first alone reports
