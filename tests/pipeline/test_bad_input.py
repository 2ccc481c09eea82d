"""What every method says to what it cannot do: one sentence that tells what to do instead."""

import json
import re
from dataclasses import replace

import pytest
from builders import visual_tokens

import prumerge
from prumerge.errors import PrumergeError
from prumerge.tiny import samples

SAMPLE = str(samples()[0].path)
pytestmark = pytest.mark.usefixtures("unchecked")


def bare():
    """Tokens of a tower without a class token, one picture, no text, no attention from a prompt."""
    tokens = visual_tokens((1, 6, 6))
    return replace(tokens, relevance=None, class_key=None, class_feature=None, queries=tokens.keys.flip(0))


def refused(run, *arguments):
    """What the command line says to a mistake."""
    code, out, err = run("answer", SAMPLE, "is there a star?", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("prumerge: ")
    assert err.count("\n") == 1
    return err


WRONG = pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("nonsense=1", r"has no option 'nonsense'; it has: keep"),
        ("keep=0", r"keep must be at least 1|keeps every visual token; for a budget choose another"),
        ("keep=-1", r"keep must be at least 1|keeps every visual token; for a budget choose another"),
        ("keep=nan", r"keep must be a whole number or a number( or none)?, not nan"),
    ],
)


@WRONG
@pytest.mark.parametrize("name", prumerge.names())
def test_wrong_options_of_every_method(name, option, sentence):
    with pytest.raises(PrumergeError, match=sentence):
        prumerge.make(f"{name}:{option}")


@WRONG
@pytest.mark.parametrize("name", ["prumerge", "none", "fastv"])
def test_the_command_line_says_the_same(run, name, option, sentence):
    assert re.search(sentence, refused(run, "--reducer", f"{name}:{option}"))


@pytest.mark.parametrize(  # one of each kind
    "name", ["prumerge", "pool", "none", "evs", "tome", "fastv", "sparsevlm", "linformer"]
)
def test_more_than_there_is(run, name):
    said = refused(run, "--reducer", f"{name}:keep=10000")
    asked = r"ask for at most \d+, or for a share such as keep=0.25"
    assert re.search(f"{asked}|needs the frames of a video|for a budget choose another method", said)


@pytest.mark.parametrize("name", prumerge.names())
def test_a_method_that_lacks_something_names_one_that_works(name):
    try:
        found = prumerge.make(name)(bare())
    except ValueError as error:
        sentence = re.fullmatch(rf"{name} needs .*; without, use for example (\w+)", str(error))
        assert sentence
        found = prumerge.make(sentence[1])(bare())
    assert 0 < len(found) <= 36


@pytest.mark.parametrize(
    "name", ["cdpruner", "trim", "eadp", "evs", "vidcom2", "fastervlm", "hired", "fastv"]
)
def test_these_methods_lack_something(name):
    with pytest.raises(ValueError, match="without, use for example"):
        prumerge.make(name)(bare())


@pytest.mark.parametrize(
    ("chain", "sentence"),
    [
        ("fastv+prumerge", "write prumerge+fastv"),
        ("sparsevlm+tome+topk", "write tome+topk+sparsevlm"),
        ("topk:keep=9+pool:keep=4+tome", "write tome+topk:keep=9+pool:keep=4"),
        ("fastv+sparsevlm", "only one method of a chain can work in the language model"),
        ("topk:keep=10+pool:keep=40", "pool:keep=40: keep is more than the 10 visual tokens"),
        ("pool:keep=9+spatial:grid=5x8", "a grid of 5x8 is finer than the 1x9 visual tokens"),
        ("topk:keep=9+fastv:keep=10", "fastv:keep=10: keep is more than the 9 visual tokens"),
        ("topk:keep=9+fastv:layer=7", "fastv:layer=7: the language model has 4 layers"),
        ("pool+evs", "evs needs the frames of a video"),
        ("fastv@each", "leave out what follows @"),
    ],
)
def test_chains(run, chain, sentence):
    assert sentence in refused(run, "--reducer", chain)


@pytest.mark.parametrize(
    ("chain", "read"), [("tome:keep=50+fastv:keep=10", 30), ("tome:keep=50+topk:keep=9+fastv:keep=5", 7)]
)
def test_chains_of_every_place(run, chain, read):
    code, out, _ = run("answer", SAMPLE, "is there a star?", "--reducer", chain, "--json")
    assert (code, json.loads(out)["visual_tokens"]) == (0, read)
