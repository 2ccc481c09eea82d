"""The model that lmms-eval asks, without lmms-eval: batches, the log, and going on from it."""

import json
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

import harness as stub
import pytest
import torch
from builders import llava, processor
from harness import question
from PIL import Image

import prumerge
from prumerge.errors import PrumergeError
from prumerge.generate.answer import answer
from prumerge.lmms_eval import models
from prumerge.lmms_eval.answering import Answerer
from prumerge.loading.clips import open_clip
from prumerge.loading.prompts import prepare

SETTINGS = {"max_new_tokens": 4, "temperature": 0}


def noise(seed):
    values = torch.randint(0, 256, (56, 56, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(values.to(torch.uint8).numpy())


PICTURES = [noise(seed) for seed in range(5)]
DOCUMENTS = [
    *(question(f"w{5 + place} w9", picture) for place, picture in enumerate(PICTURES)),
    question("w7", *PICTURES[:2]),
]


@pytest.fixture
def harness(monkeypatch):
    return stub.install(monkeypatch)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    llava().save_pretrained(folder)
    processor().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def cached():
    return cache(prumerge.load)


@pytest.fixture
def chat(harness, checkpoint, cached, monkeypatch):
    """Makes the model as lmms-eval does; the checkpoint is loaded once."""
    module = import_module("prumerge.lmms_eval.chat")
    monkeypatch.setattr(module, "load", cached)
    Chat = module.Chat
    return lambda **given: Chat(**{"model": checkpoint, "device": "cpu", "reducer": "topk:keep=5"} | given)


@pytest.fixture
def batches(monkeypatch):
    """The sizes of the batches that are answered."""
    sizes, answer = [], Answerer.answer

    def counted(answerer, batch, generation):
        sizes.append(len(batch))
        return answer(answerer, batch, generation)

    monkeypatch.setattr(Answerer, "answer", counted)
    return sizes


def texts(model, harness, documents=DOCUMENTS, settings=SETTINGS):
    return [one.text for one in model.generate_until(harness.requests(model, documents, settings))]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lmms_eval_finds_the_model_by_the_entry_point(harness):
    [manifest] = models()
    assert (manifest.model_id, manifest.simple_class_path) == ("prumerge", None)
    module, _, name = manifest.chat_class_path.rpartition(".")
    assert (module, name) == ("prumerge.lmms_eval.chat", "Chat")
    assert [one.load() for one in entry_points(group="lmms_eval.models")] in ([], [models])


@pytest.mark.parametrize("spec", ["none", "topk:keep=5", "prumerge", "fastv:layer=1,keep=5"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_answers_are_those_of_the_library(harness, chat, checkpoint, cached, spec, batch_size):
    found = texts(chat(reducer=spec, batch_size=batch_size), harness)
    model, own = cached(checkpoint)
    expected = []
    for messages in DOCUMENTS:
        *shown, words = messages[0]["content"]
        inputs = prepare(own, [part["url"] for part in shown], words["text"])
        with prumerge.attach(model, spec):
            ids = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        expected.append(own.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    assert found == expected
    assert len(set(found)) > 1


def test_the_log_says_how_many_visual_tokens_each_answer_took(harness, chat, tmp_path):
    model = chat(log=str(tmp_path / "log.jsonl"), batch_size=4)
    found = model.generate_until(harness.requests(model, DOCUMENTS, SETTINGS))
    told = sorted(rows(tmp_path / "log.jsonl"), key=lambda row: row["doc_id"])
    assert [(row["visual_tokens_in"], row["visual_tokens"]) for row in told] == [(16, 5)] * 5 + [(32, 10)]
    assert [row["input_tokens"] for row in told] == [one.token_counts.input_tokens for one in found]
    assert {(row["output_tokens"], row["cut"]) for row in told} == {(4, True)}
    [metrics] = harness.metrics
    assert metrics["additional_metrics"]["visual_tokens"] == pytest.approx(35 / 6)
    assert metrics["total_gen_tokens"] == 24


@pytest.mark.parametrize("kept", range(len(DOCUMENTS) + 1))
def test_a_run_that_was_killed_goes_on_and_asks_nothing_twice(harness, chat, batches, tmp_path, kept):
    path = tmp_path / "log.jsonl"
    whole = texts(chat(log=str(path)), harness)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:kept]) + b'{"key": "ab')
    batches.clear()
    assert texts(chat(log=str(path)), harness) == whole
    assert sum(batches) == len(DOCUMENTS) - kept
    assert path.read_bytes().splitlines(keepends=True) == lines or kept == len(lines)
    assert harness.metrics[-1]["additional_metrics"]["resumed"] == kept


@pytest.mark.parametrize(
    "change",
    [
        {"reducer": "topk:keep=6"},
        {"size_bias": True},
        {"positions": "original"},
        {"documents": [question("w11 w9", picture) for picture in [*PICTURES, noise(9)]]},
        {"documents": [question("w5 w9", noise(9 + number)) for number in range(6)]},
        {"settings": {**SETTINGS, "max_new_tokens": 3}},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_what_was_asked_otherwise_is_asked_anew(harness, chat, batches, tmp_path, change):
    path = str(tmp_path / "log.jsonl")
    texts(chat(log=path), harness)
    batches.clear()
    asking = {name: change.pop(name) for name in ("documents", "settings") if name in change}
    texts(chat(log=path, **change), harness, **asking)
    assert sum(batches) == len(DOCUMENTS)


def test_a_question_that_is_asked_several_times_gets_as_many_answers(harness, chat, batches, tmp_path):
    path = tmp_path / "log.jsonl"
    model = chat(log=str(path))
    requests = harness.requests(model, DOCUMENTS[:1], SETTINGS) * 3
    assert len(model.generate_until(requests)) == len(rows(path)) == 3
    batches.clear()
    model.generate_until(requests)
    assert not batches


def test_each_process_has_a_log_and_reads_those_of_the_others(harness, chat, batches, tmp_path):
    path = tmp_path / "log.jsonl"
    first, second = chat(log=str(path)), chat(log=str(path))
    second._rank = 1
    texts(second, harness)
    assert [file.name for file in tmp_path.iterdir()] == ["log-1.jsonl"]
    batches.clear()
    texts(first, harness)
    assert not batches


def test_batches_hold_questions_that_are_answered_alike(harness, chat, batches):
    model = chat(batch_size=3)
    requests = harness.requests(model, DOCUMENTS, SETTINGS)
    for place in (1, 3):
        args = requests[place].args
        requests[place].args = (*args[:2], {"max_new_tokens": 1}, *args[3:])
    found = model.generate_until(requests)
    assert sorted(batches) == [1, 2, 3]
    assert [len(one.text.split()) for one in found][1:4] == [1, 4, 1]


def test_settings_are_left_as_they_were_and_until_ends_an_answer(harness, chat):
    settings = {**SETTINGS, "until": [" "]}
    before = dict(settings)
    found = texts(chat(), harness, settings=settings)
    assert found == [one.split()[0] for one in texts(chat(), harness)]
    assert settings == before


def test_an_error_ends_the_run_and_the_model_outlives_it(harness, chat):
    model = chat()
    with pytest.raises(PrumergeError, match="reads as a picture"):
        texts(model, harness, [question("<image>")])
    model.clean()
    assert texts(model, harness)


def test_words_in_quotes_keep_their_commas_and_keep_is_the_budget(chat):
    assert (
        chat(reducer="'prumerge:keep=5,order=spatial'").settings["reducer"] == "prumerge:keep=5,order=spatial"
    )
    assert chat(reducer="topk", keep=7).settings["reducer"] == "topk:keep=7"
    assert chat(reducer="topk", keep="25%").settings["reducer"] == str(prumerge.make("topk:keep=25%"))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"model": ""}, "say which model to load: --model_args model=tiny"),
        ({"pretrained": "tiny"}, "say which model to load"),
        ({"reduce": "topk"}, "there is no model argument 'reduce' .did you mean 'reducer'"),
        ({"batch_size": "auto"}, "--batch_size is a whole number of questions, not auto"),
        ({"dtype": "float8"}, "there is no dtype 'float8'"),
        ({"device": "abacus"}, "there is no device 'abacus'"),
        ({"model": "/no/where"}, "there is no model to load at '/no/where'"),
        ({"reducer": "prune"}, "there is no method 'prune'"),
        ({"positions": "odd"}, "positions are auto, compact, original, median"),
    ],
)
def test_bad_arguments_are_one_sentence(unchecked, chat, given, sentence):
    with pytest.raises(PrumergeError, match=sentence):
        chat(**given)


@pytest.mark.parametrize("call", ["loglikelihood", "generate_until_multi_round"])
def test_what_it_does_not_do_is_said(chat, call):
    with pytest.raises(PrumergeError, match="take a task"):
        getattr(chat(), call)([])


@pytest.mark.parametrize(("spec", "together"), [("topk:keep=5", False), ("vidcom2:keep=10", True)])
def test_a_clip_is_one_video_to_methods_that_compare_frames(
    harness, chat, checkpoint, cached, tmp_path, spec, together
):
    for number, picture in enumerate(PICTURES):
        picture.save(tmp_path / f"{number}.png")
    content = [{"type": "video", "url": str(tmp_path)}, {"type": "text", "text": "w5 w9"}]
    [said] = texts(chat(reducer=spec, frames=4), harness, [[{"role": "user", "content": content}]])
    model, own = cached(checkpoint)
    frames = open_clip(tmp_path, 4)
    expected = answer(model, own, frames, "w5 w9", spec, clip=together, max_new_tokens=4)
    assert said == expected.answer


def test_a_question_without_a_picture_is_answered_alone_and_among_others(harness, chat, tmp_path):
    documents = [question("w5 w9"), DOCUMENTS[0], question("w6 w7 w8")]
    found = texts(chat(batch_size=3, log=str(tmp_path / "log.jsonl")), harness, documents)
    assert found == texts(chat(), harness, documents)
    assert [row["visual_tokens"] for row in rows(tmp_path / "log.jsonl")] == [0, 5, 0]
