"""A language model as judge: what it is asked, how its reply is read, and servers that fail."""

import pytest
from judges import serving

from prumerge.errors import PrumergeError
from prumerge.evaluate import judge as module
from prumerge.evaluate.judge import PROMPT, SYSTEM, Judge, Verdict, read


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    with serving() as one:
        yield one


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ('{"pred": "yes", "score": 4}', Verdict(True, 4)),
        ("{'pred': 'no', 'score': 0}", Verdict(False, 0)),
        ('```json\n{"pred": "Yes", "score": "5"}\n```', Verdict(True, 5)),
        ('{"score": 3.9, "pred": "no"}', Verdict(False, 3)),
        ('<think>{"pred": "no", "score": 1}?</think> {"pred": "yes", "score": 3}', Verdict(True, 3)),
        ('{"pred": "yes", "score": 4} by the rule {score}', Verdict(True, 4)),
        ("yes, 5", None),
        ('{"pred": "maybe", "score": 4}', None),
        ('{"pred": "yes"}', None),
        ('{"pred": "yes", "score": 6}', None),
        ('{"pred": "yes", "score": true}', None),
        ('{"pred": "yes", "score": "many"}', None),
        ("", None),
    ],
)
def test_a_reply_is_read_as_json_or_python_or_not_at_all(reply, verdict):
    assert read(reply) == verdict


def test_the_judge_is_asked_greedily_with_its_seed_and_its_key(server):
    judge = Judge.at(f"{server.url}/chat/completions", seed=7, key="secret")
    assert read(judge.ask("what is it?", ("ride", "riding", "ride"), "Ride")) == Verdict(False, 0)
    [asked] = server.requests
    assert (asked["model"], asked["seed"], asked["temperature"]) == ("judge-7b", 7, 0)
    told = PROMPT.format(question="what is it?", gold="ride or riding", prediction="Ride")
    assert [one["content"] for one in asked["messages"]] == [SYSTEM, told]
    assert server.keys == ["Bearer secret"]


def test_without_a_key_none_is_sent(server):
    Judge.at(server.url, "any").ask("what?", ("a",), "a")
    assert server.keys == [None]


def test_a_server_that_is_busy_for_a_moment_is_asked_again(server):
    server.status = lambda number: 503 if number < 3 else 200
    assert read(Judge.at(server.url).ask("what?", ("a",), "a")) == Verdict(True, 5)
    assert len(server.requests) == 3


def test_a_reply_without_text_is_no_verdict(server):
    server.reply = lambda *_: None
    assert Judge.at(server.url).ask("what?", ("a",), "a") == ""


@pytest.mark.parametrize(
    ("status", "tries", "sentence"),
    [
        (429, 6, "says 429 to the judge's questions .too many cooks.; see --judge, --judge-model"),
        (401, 1, "says 401 .*; set PRUMERGE_JUDGE_KEY to its key"),
        (404, 1, "says 404 .*; see --judge, --judge-model"),
        (302, 1, "says 302"),
    ],
)
def test_a_server_that_refuses_is_quoted(server, status, tries, sentence):
    server.status = lambda number: status
    with pytest.raises(PrumergeError, match=sentence):
        Judge.at(server.url, key="secret").ask("what?", ("a",), "a")
    assert len(server.requests) == tries


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"choices": []}', "which is no chat completion; give the base of a server"),
        (b"[]", "answers \\[\\], which is no chat completion"),
        (b"<html>", "does not answer as a judge"),
    ],
)
def test_what_is_no_judge_is_said(server, body, sentence):
    judge = Judge.at(server.url)
    server.body = body
    with pytest.raises(PrumergeError, match=sentence):
        judge.ask("what?", ("a",), "a")


def test_a_server_that_is_not_there_is_said_in_one_sentence(server):
    judge = Judge.at("http://127.0.0.1:9/v1", "any")
    with pytest.raises(PrumergeError, match=r"127.0.0.1:9/v1 does not answer as a judge .*refused"):
        judge.ask("what?", ("a",), "a")


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        (["a", "b"], "has 2 models: a, b; say which is the judge by --judge-model"),
        ([], "has no models; say which"),
    ],
)
def test_which_model_is_asked_where_there_are_several_or_none(server, models, sentence):
    server.models = models
    with pytest.raises(PrumergeError, match=sentence):
        Judge.at(server.url)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host/v1", "http://", "http://[1", "http://host:a", "http://host:99999"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(PrumergeError, match="is no address of a judge; give its base, such as http://"):
        Judge.at(url)
