"""The folder of a Hugging Face Space: what its front matter and its Dockerfile promise fits the package."""

import json
import re
from functools import wraps
from pathlib import Path

import pytest
import yaml

from prumerge.cli import app

SPACE = Path(__file__).parent.parent / "space"
DOCKERFILE = (SPACE / "Dockerfile").read_text().replace("\\\n", "")


@pytest.fixture(scope="module")
def front_matter():
    _, matter, page = (SPACE / "README.md").read_text().split("---\n", 2)
    assert page.strip().startswith("# prumerge")
    return yaml.safe_load(matter)


@pytest.fixture(scope="module")
def command():
    """What the container runs."""
    (line,) = re.findall(r"^CMD (.+)$", DOCKERFILE, re.MULTILINE)
    return json.loads(line)


def noting(callback, seen):
    """The same parameters for the command line; a call is noted."""

    @wraps(callback)
    def note(**given):
        seen.update(given)

    return note


def option(command, name):
    return command[command.index(name) + 1]


def test_the_front_matter_is_that_of_a_docker_space(front_matter):
    assert front_matter["sdk"] == "docker"
    assert {"title", "emoji", "colorFrom", "colorTo", "license"} <= set(front_matter)
    assert len(front_matter["short_description"]) <= 60


def test_the_port_is_one_everywhere(front_matter, command):
    port = str(front_matter["app_port"])
    assert option(command, "--port") == port
    assert re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE) == [port]
    assert option(command, "--host") == "0.0.0.0"


def test_the_command_is_one_of_the_command_line(command, monkeypatch):
    """It is parsed as it stands; only the server is not started."""
    seen = {}
    program, name, *arguments = command
    assert program == "prumerge"
    found = next(one for one in app.registered_commands if (one.name or one.callback.__name__) == name)
    monkeypatch.setattr(found, "callback", noting(found.callback, seen))
    assert app([name, *arguments], prog_name=program, standalone_mode=False) in (None, 0)
    assert (seen["model"], seen["host"], seen["port"]) == ("tiny", "0.0.0.0", 7860)


def test_it_is_installed_and_run_by_a_user_who_is_not_root(command):
    instructions = re.findall(r"^([A-Z]+) (.+)$", DOCKERFILE, re.MULTILINE)
    names = [name for name, _ in instructions]
    assert ("USER", "user") in instructions
    assert re.search(r"useradd .*--uid 1000 user", DOCKERFILE)
    installs = [place for place, (name, rest) in enumerate(instructions) if "prumerge[serve]" in rest]
    assert names.index("USER") < installs[0] < names.index("CMD")
