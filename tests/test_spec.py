"""A method in one line of text, and what is said about a wrong one."""

import re
from dataclasses import FrozenInstanceError, dataclass
from typing import Literal

import pytest
from builders import visual_tokens

import prumerge
from prumerge.reducers.prumerge import PruMerge
from prumerge.reducers.topk import TopK

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.parametrize(
    "spec",
    [
        *prumerge.names(),
        "prumerge:keep=64",
        "prumerge:keep=0.25",
        "prumerge_plus:variant=paper,k=auto",
        "prumerge:min_keep=8,max_keep=80",
        "prumerge:iqr=2.5,k=0,heads=split,order=spatial,candidates=pruned,merge=average,extra_token=False",
        "topk:keep=3,order=score",
        "random:keep=9,seed=7",
        "spatial:grid=5x8",
        "visionzip:keep=65,contextual=10,class_token=False",
        "hired:keep=0.3,alpha=0.25,tiles=2x2",
    ],
)
def test_a_spec_is_what_its_reducer_prints(spec):
    reducer = prumerge.make(spec)
    assert prumerge.make(str(reducer)) == reducer
    assert set(str(reducer).partition(":")[2].split(",")) == set(spec.partition(":")[2].split(","))


@pytest.mark.parametrize("name", prumerge.names())
def test_a_name_alone_is_every_default(name):
    reducer = prumerge.make(name)
    assert str(reducer) == name
    assert reducer == type(reducer)()


def test_options_left_at_their_defaults_are_not_printed():
    assert str(prumerge.make("prumerge:k=32,iqr=1.5,keep=none")) == "prumerge"


def test_options_may_stand_in_any_order_with_blanks():
    assert prumerge.make("prumerge: k = 8 , keep = 5 ") == PruMerge(keep=5, k=8)


@pytest.mark.parametrize(
    ("word", "value"), [("on", True), ("True", True), ("yes", True), ("off", False), ("no", False)]
)
def test_switches_are_on_and_off(word, value):
    assert prumerge.make(f"prumerge:extra_token={word}") == PruMerge(extra_token=value)


def test_a_whole_number_will_do_where_a_number_is_asked_for():
    assert prumerge.make("topk:iqr=2") == TopK(iqr=2)


def test_a_reducer_is_handed_back_as_it_is():
    reducer = PruMerge(keep=7)
    assert prumerge.make(reducer) is reducer


def test_a_reducer_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        PruMerge().keep = 5  # type: ignore[misc]


def test_a_method_without_a_call_is_no_method():
    with pytest.raises(TypeError, match="abstract"):
        prumerge.Reducer()  # type: ignore[abstract]


# mistakes


@pytest.mark.parametrize(
    "name", ["magic", "", "Prumerge", "prumerge ", "__init__", "../ops", "prumerge.topk"]
)
def test_an_unknown_name_is_answered_with_all_names(name):
    with pytest.raises(ValueError, match="there is no method") as error:
        prumerge.make(name)
    assert all(known in str(error.value) for known in prumerge.names())


def test_an_unknown_option_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match="topk has no option 'kep'; it has: keep, merge, heads, order, iqr"):
        prumerge.make("topk:kep=5")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("prumerge:keep=0", "keep must be at least 1"),
        ("prumerge:keep=-1", "keep must be at least 1"),
        ("prumerge:keep=-0.5", "a share between 0 and 1"),
        ("prumerge:keep=0.0", "a share between 0 and 1"),
        ("prumerge:keep=1.0", "a share between 0 and 1"),
        ("prumerge:keep=1.5", "a share between 0 and 1"),
        ("prumerge:keep=1e3", "a share between 0 and 1"),
        ("prumerge:keep=nan", "keep must be a whole number or a number or none, not nan"),
        ("prumerge:keep=inf", "keep must be a whole number or a number or none, not inf"),
        ("prumerge:keep=abc", "keep must be a whole number or a number or none, not 'abc'"),
        ("prumerge:keep=", "keep must be a whole number or a number or none, not ''"),
        ("prumerge:keep=True", "keep must be a whole number or a number or none, not True"),
        ("random:keep=none", "keep must be a whole number or a number, not None"),
        ("random:seed=1.5", "seed must be a whole number, not 1.5"),
        ("topk:iqr=nan", "iqr must be a number, not nan"),
        ("topk:heads=both", "heads must be 'joint' or 'split', not 'both'"),
        ("prumerge:heads=2", "heads must be 'joint' or 'split' or none, not 2"),
        ("prumerge:k=some", "k must be a whole number or 'auto', not 'some'"),
        ("prumerge:k=2.5", "k must be a whole number or 'auto', not 2.5"),
        ("prumerge:k=-1", "k must be auto or at least 0"),
        ("prumerge:extra_token=3", "extra_token must be on or off or none, not 3"),
        ("prumerge:iqr=-1", "iqr must not be negative"),
        ("prumerge:min_keep=0", "min_keep must be at least 1"),
        ("prumerge:min_keep=5,max_keep=4", "max_keep not below it"),
        ("prumerge:keep=5,max_keep=9", "with keep leave them out"),
        ("spatial:grid=5", "grid must be a word or none, not 5"),
        ("spatial:grid=5x", "such as 5x8, not '5x'"),
        ("visionzip:contextual=-1", "contextual must not be negative"),
        ("visionzip:class_token=2", "class_token must be on or off or none, not 2"),
        ("divprune:keep=none", "keep must be a whole number or a number, not None"),
        ("cdpruner:theta=1", "theta must be at least 0 and below 1"),
        ("vispruner:important=1.5", "important is a share from 0 to 1"),
        ("vispruner:step=0", "step must be at least 1"),
        ("dart:pivots=0", "pivots must be at least 1"),
        ("hired:alpha=-0.1", "alpha is a share from 0 to 1"),
        ("hired:tiles=2by2", "such as 5x8, not '2by2'"),
        ("holov:crops=0", "crops must be at least 1"),
        ("vidcom2:temperature=0", "temperature must be above 0"),
        ("resampler:temperature=-1", "temperature must be above 0"),
        ("prumerge:keep", "write options as name=value, separated by commas; 'keep' is not"),
        ("prumerge:keep=5,", "write options as name=value"),
        ("prumerge:keep=5;k=3", "keep must be a whole number or a number or none, not '5;k=3'"),
        ("prumerge:keep=5,keep=6", "keep is given twice"),
        ("prumerge:=5", "has no option ''"),
    ],
)
def test_a_wrong_option_says_what_is_wanted(spec, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        prumerge.make(spec)


def test_a_message_names_the_method_and_its_options():
    with pytest.raises(ValueError, match="prumerge:keep=0,k=3: keep must be at least 1"):
        prumerge.make("prumerge:k=3,keep=0")


def test_in_python_a_wrong_type_is_a_type_error():
    with pytest.raises(TypeError, match="keep must be a whole number or a number or none, not '5'"):
        PruMerge(keep="5")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not True"):
        TopK(keep=True)


@pytest.mark.parametrize("spec", [5, None, ["prumerge"]])
def test_something_that_is_no_spec(spec):
    with pytest.raises(TypeError, match="a method is a name such as 'prumerge:keep=64' or a Reducer, not"):
        prumerge.make(spec)


# methods of others


@dataclass(frozen=True, kw_only=True)
class Mine(prumerge.Reducer):
    """A method with options of its own."""

    mode: Literal["fast", "slow"] = "fast"
    strength: float = 1.0

    def __call__(self, tokens):
        return prumerge.make("sequential:keep=1")(tokens)


def test_options_of_a_method_written_elsewhere_are_checked_too():
    with pytest.raises(TypeError, match="test_spec:mode=loud: mode must be 'fast' or 'slow', not 'loud'"):
        Mine(mode="loud")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="keep must be at least 1"):
        Mine(keep=0)
    assert len(prumerge.make(Mine(strength=2))(visual_tokens((1, 2, 2)))) == 1
