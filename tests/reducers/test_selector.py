"""Methods that choose tokens, and what `merge` adds to each of them."""

import pytest
import reference_methods as reference
import torch
from builders import visual_tokens

import prumerge
from prumerge.catalogue import entry

SELECTORS = [
    name
    for name in prumerge.names()
    if "merge" in [option.name for option in entry(name).options] and not name.startswith("prumerge")
]
GRIDS = [(1, 7, 9), (3, 4, 5)]


def pairs():
    return [
        (name, grid)
        for name in SELECTORS
        for grid in GRIDS
        if grid[0] > 1 or "frames" not in entry(name).needs
    ]


def spec(name, merge, keep=25):
    return prumerge.make(f"{name}:keep={keep},merge={merge}")


def test_methods_that_choose_have_the_option_and_methods_that_merge_have_not():
    tokens = visual_tokens((3, 3, 7), class_tokens=3)
    before = [name for name in prumerge.names() if entry(name).place == prumerge.Reducer.place]
    choose = {name for name in before if prumerge.make(name)(tokens).weights is None}
    assert {*SELECTORS} == choose - {"none"} | {"medoids"}


@pytest.mark.parametrize(("name", "grid"), pairs(), ids=str)
def test_the_chosen_move_towards_those_they_stand_for_at_their_own_length(name, grid):
    tokens = visual_tokens(grid, class_tokens=grid[0])
    chosen, merged = spec(name, 0)(tokens), spec(name, 0.5)(tokens)
    assert merged.index.tolist() == chosen.index.tolist()
    reduced = merged.apply(tokens)
    torch.testing.assert_close(reduced.norm(dim=-1), chosen.apply(tokens).norm(dim=-1))
    if name != "medoids":  # which weighs them by attention
        expected = reference.damped(
            reference.frames_of(tokens), chosen.index.tolist(), 0.5, [1.0] * len(tokens)
        )
        torch.testing.assert_close(reduced.double(), torch.tensor(expected).double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("merge", [0.25, 1])
def test_a_share_is_how_far_they_move(merge):
    tokens = visual_tokens((1, 7, 9))
    reduction = spec("topk", merge, 9)(tokens)
    expected = reference.damped(reference.frames_of(tokens), reduction.index.tolist(), merge, [1.0] * 63)
    torch.testing.assert_close(
        reduction.apply(tokens).double(), torch.tensor(expected).double(), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", SELECTORS)
def test_where_nothing_is_dropped_nothing_is_merged(name):
    tokens = visual_tokens((3, 2, 3), class_tokens=3)
    assert torch.equal(spec(name, 1, 18)(tokens).apply(tokens), tokens.features)


@pytest.mark.parametrize("value", ["-0.1", "1.5"])
@pytest.mark.parametrize("name", ["topk", "spatial", "scope"])
def test_a_share_that_is_none_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}:merge={value}: merge is a share from 0 to 1"):
        prumerge.make(f"{name}:merge={value}")


def test_methods_that_merge_in_a_way_of_their_own_say_so():
    with pytest.raises(ValueError, match="pool has no option 'merge'"):
        prumerge.make("pool:merge=0.5")
    with pytest.raises(ValueError, match="merge must be 'sum' or 'average' or none"):
        prumerge.make("prumerge:merge=0.5")
