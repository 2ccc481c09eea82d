"""The commands that the README shows run, on pictures that are there."""

import re
import shlex
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
SECTION = README.partition("## From the command line")[2].partition("## From Python")[0]
COMMANDS = [
    shlex.split(line, comments=True) for line in re.findall(r"^\$ prumerge (.+)$", SECTION, re.MULTILINE)
]
HERE = [command for command in COMMANDS if "--model" not in command and command != ["--help"]]


@pytest.fixture
def pictures(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run("samples", "pictures")[0] == 0


def test_the_readme_shows_commands():
    assert {command[0] for command in HERE} == {"samples", "answer", "show", "plot-attention"}


@pytest.mark.parametrize("command", HERE, ids=" ".join)
def test_a_command_of_the_readme_runs(run, pictures, command):
    code, out, err = run(*command)
    assert (code, err) == (0, "")
    assert out.strip()
