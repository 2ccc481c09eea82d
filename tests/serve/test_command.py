"""`prumerge serve` as an operator meets it."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
import yaml

from prumerge.serve import app
from prumerge.serve.run import listening_on

ROOT = Path(__file__).parents[2]


def test_a_missing_extra_is_one_sentence(run, monkeypatch):
    real = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "fastapi" else real(name))
    code, _, error = run("serve")
    assert (code, error.strip()) == (
        2,
        "prumerge: this needs fastapi; install it with: pip install 'prumerge[serve]'",
    )


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--reducer", "magic"], "there is no method 'magic'"),
        (["--allow-reducers", "magic"], "there is no method 'magic'"),
        (["--reducer", "pool,topk"], "one method at a time"),
        (["--api-key", " "], "the API key is empty"),
        (["--frames", "huggingface.co"], "--frames takes sites such as https://huggingface.co"),
        (["--port", "99999"], "Invalid value for '--port'"),
        (["--guard", "no.json"], "there is no guard at 'no.json'"),
        (["--guard", "no.json", "--size-bias"], "a guard holds how prompts are shortened"),
        (["--engine", "http://127.0.0.1:9"], "no engine answers at http://127.0.0.1:9"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(run, arguments, match):
    code, out, error = run("serve", "--port", "0", *arguments)
    assert (code, out, match in error) == (2, "", True)
    assert error.strip().splitlines()[-1].startswith("prumerge: ")


def test_a_port_that_is_taken_is_one_sentence(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, error = run("serve", "--port", taken.getsockname()[1])
    assert (code, "take another --port" in error) == (2, True)


def test_an_operator_says_whether_there_is_a_page(run, monkeypatch):
    fronts = []
    monkeypatch.setattr("prumerge.serve.run.run", lambda front, host, port: fronts.append(front))
    assert [run("serve", *more)[0] for more in ([], ["--no-page"])] == [0, 0]
    assert [front.page for front in fronts] == [True, False]


def test_no_answer_waits_for_an_acknowledgement():
    with listening_on("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_page_is_served_if_it_is_there(tmp_path, monkeypatch, tiny):
    from serving import serving

    (tmp_path / "index.html").write_text("a page")
    monkeypatch.setattr(app, "PAGE", tmp_path)
    with serving(*tiny) as server:
        assert httpx2.get(server.url + "/").text == "a page"
        assert httpx2.get(server.url + "/health").json() == {"status": "ok"}


def test_it_ends_when_it_is_told_to():
    command = [sys.executable, "-m", "prumerge", "serve", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline()
        url = re.search(r"tiny is served with prumerge at (http://127.0.0.1:\d+)", line)[1]
        assert httpx2.get(url + "/ready").status_code == 200
        os.kill(process.pid, signal.SIGINT)
        out, error = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert error.strip().endswith("all that was held is answered")


@pytest.mark.parametrize("service", ["front", "export"])
def test_the_commands_of_the_compose_file_are_prumerges(run, service):
    compose = yaml.safe_load((ROOT / "examples" / "compose.yaml").read_text())
    _, _, arguments = compose["services"][service]["command"].strip('"').partition("prumerge ")
    code, out, error = run(*arguments.strip('"').split(), "--help")
    assert (code, error, "Usage: prumerge" in out) == (0, "", True)
