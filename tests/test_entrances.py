"""Every entrance takes the same steps: what `reduce` decides, `attach`, an answer, an evaluation and the
command line decide too, on every family, and what one refuses all refuse."""

import json
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from families import FAMILIES
from noise import noise
from processors import PROCESSORS

import prumerge
from prumerge.errors import PrumergeError
from prumerge.evaluate import answering
from prumerge.evaluate.answering import Asker
from prumerge.evaluate.log import Log
from prumerge.evaluate.plan import Job
from prumerge.evaluate.run import ask
from prumerge.evaluate.tasks._task import Question
from prumerge.generate.answer import answer, said
from prumerge.loading.prompts import prepare
from prumerge.pipeline.options import Options
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # PaliGemma's processor
QUESTION, WORDS = "w5 w7", 12
SPECS = ("none", "topk:keep=3", "prumerge:keep=4", "pool:keep=2")


def asked_of(name):
    """A method that leaves tokens as they are, and one that merges; of both kinds there are two, in turn."""
    turn = list(PROCESSORS).index(name) % 2
    return SPECS[turn], SPECS[2 + turn]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "noise.png"
    noise((80, 60)).save(path)
    return path


@cache
def loaded(name):
    return FAMILIES[name].model(), PROCESSORS[name]()


def inputs_of(name, picture):
    return prepare(loaded(name)[1], prumerge.open_image(picture), QUESTION)


def words_of(name, inputs, generated, shorter):
    model, processor = loaded(name)
    new = said(Prompt.read(model, inputs), shorter, generated)
    return processor.batch_decode(new, skip_special_tokens=True)[0].strip()


# the entrances: a model's name, a picture and a method in, an answer out


def by_reduce(name, picture, spec, **options):
    model, inputs = loaded(name)[0], inputs_of(name, picture)
    with torch.no_grad():
        shorter = prumerge.reduce(model, inputs, spec, **options)
        length = {"input_ids": shorter["input_ids"]}
        generated = model.generate(**shorter, max_new_tokens=WORDS, do_sample=False)
    return words_of(name, inputs, generated, length)


expected = cache(by_reduce)
"""What every entrance is compared with, computed once."""


def by_attach(name, picture, spec, **options):
    model, inputs = loaded(name)[0], inputs_of(name, picture)
    with prumerge.attach(model, spec, **options):
        generated = model.generate(**inputs, max_new_tokens=WORDS, do_sample=False)
    return words_of(name, inputs, generated, inputs)


def by_answer(name, picture, spec, **options):
    (model, processor), shown = loaded(name), prumerge.open_image(picture)
    return answer(model, processor, shown, QUESTION, spec, max_new_tokens=WORDS, **options).answer


def by_evaluation(name, picture, spec, monkeypatch=None, folder=None, **options):
    question = Question("attribute", "one", "0", QUESTION, ("w5",))
    showing = (lambda: [prumerge.open_image(picture)], [question])
    log = Log(folder / "answers.jsonl", {})
    model, processor = loaded(name)
    asker = Asker(model, processor, Options(**options), None)
    job = Job("it", str(spec))
    monkeypatch.setattr(answering, "Pipeline", _with(spec))
    ask(asker, [job], [showing], log, lambda done: None)
    return log.records[0].prediction


def _with(spec):
    """Pipelines of a method that may have no text."""
    return lambda _, options=None: Pipeline(spec, options)


ENTRANCES = (by_attach, by_answer, by_evaluation)


def through(entrance, name, picture, spec, monkeypatch, tmp_path, **options):
    more = {"monkeypatch": monkeypatch, "folder": tmp_path} if entrance is by_evaluation else {}
    return entrance(name, picture, spec, **more, **options)


# the same answers


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("name", PROCESSORS)
def test_every_entrance_answers_alike(name, entrance, picture, monkeypatch, tmp_path):
    for spec in asked_of(name):
        with monkeypatch.context() as patch:
            folder = tmp_path / spec.partition(":")[0]
            folder.mkdir()
            there = through(entrance, name, picture, spec, patch, folder)
        assert there == expected(name, picture, spec), spec


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_command_line_answers_alike(name, picture, run, monkeypatch):
    monkeypatch.setattr("prumerge.cli.model.open_model", lambda model, device: loaded(name))
    for spec in asked_of(name)[:1]:
        code, out, err = run(
            *("answer", picture, QUESTION, "--model", name, "--reducer", spec, "--json"),
            *("--max-new-tokens", WORDS),
        )
        assert code == 0, err
        assert json.loads(out)["answer"] == expected(name, picture, spec)


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize(
    "options",
    [
        {"positions": "original"},
        {"positions": "median"},
        {"relevance": lambda pictures: [torch.linspace(0, 1, len(one)) for one in pictures]},
    ],
    ids=lambda options: ",".join(options),
)
def test_every_entrance_takes_the_same_options(entrance, options, picture, monkeypatch, tmp_path):
    spec = "trim:keep=4" if "relevance" in options else "prumerge:keep=4"
    there = through(entrance, "Llava", picture, spec, monkeypatch, tmp_path, **options)
    assert there == by_reduce("Llava", picture, spec, **options)


def test_attach_answers_and_evaluations_weigh_by_size_alike(picture, monkeypatch, tmp_path):
    found = {
        through(one, "Llava", picture, "pool:keep=3", monkeypatch, tmp_path, size_bias=True)
        for one in ENTRANCES
    }
    assert len(found) == 1


# the same refusals


@dataclass(frozen=True, kw_only=True)
class Odd(prumerge.Reducer):
    """Whatever it was told to return."""

    returns: object

    def __call__(self, tokens):
        return self.returns


LAST = torch.tensor([15])
ODD = {
    "nothing": ((LAST[:0],), "made 0 tokens of 16; it must be 1 to 16"),
    "None": (None, "returned NoneType; a method returns a Reduction"),
    "a mask": ((torch.ones(16).bool(),), "it must be the places of the tokens that stay"),
    "a place too far": ((LAST + 1,), "an index from 16 to 16; places are 0 to 15"),
    "a place before": ((LAST - 16,), "an index from -1 to -1; places are 0 to 15"),
    "a token twice": ((LAST.repeat(2),), "names a token twice"),
    "weights of another shape": ((LAST, torch.ones(1, 4)), r"returned weights of \(1, 4\)"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("entrance", (by_reduce, *ENTRANCES))
@pytest.mark.parametrize("what", ODD)
def test_what_is_no_decision_is_refused_everywhere(what, entrance, picture, monkeypatch, tmp_path):
    given, sentence = ODD[what]
    returns = None if given is None else prumerge.Reduction(*given)
    with pytest.raises(PrumergeError, match=sentence):
        through(entrance, "Llava", picture, Odd(returns=returns), monkeypatch, tmp_path)


@dataclass(frozen=True, kw_only=True)
class Broken(prumerge.Reducer):
    """A method with a fault in its code."""

    def __call__(self, tokens):
        raise KeyError("a fault")


@pytest.mark.parametrize("entrance", (by_reduce, *ENTRANCES))
def test_a_fault_in_a_method_stays_one(entrance, picture, monkeypatch, tmp_path):
    with pytest.raises(KeyError, match="a fault"):
        through(entrance, "Llava", picture, Broken(), monkeypatch, tmp_path)


@pytest.mark.parametrize("entrance", (by_reduce, *ENTRANCES))
@pytest.mark.parametrize("spec", ["topk:keep=2", "prumerge", "spatial:keep=2"])
def test_pixels_that_are_no_numbers_are_noticed(entrance, spec, picture, monkeypatch, tmp_path):
    _, processor = loaded("Llava")
    made = type(processor.image_processor).__call__

    def broken(self, *args, **kwargs):
        found = made(self, *args, **kwargs)
        found["pixel_values"][0, 0, 3, 3] = float("nan")
        return found

    monkeypatch.setattr(type(processor.image_processor), "__call__", broken)
    with pytest.raises(PrumergeError, match=r"not finite .*look at its pixels"):
        through(entrance, "Llava", picture, spec, monkeypatch, tmp_path)
