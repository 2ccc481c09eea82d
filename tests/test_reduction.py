"""Which token stands for which patch, and how many each stands for."""

from dataclasses import replace

import pytest
import reference_methods as reference
import torch
from builders import visual_tokens

import prumerge
from prumerge.catalogue import entry
from prumerge.reduction import Merged, Reduction, joined

BEFORE = [name for name in prumerge.names() if entry(name).place == prumerge.Reducer.place]
OF_THEIR_OWN = ("pool", "tome", "lsh")
WITH_CLASS_TOKEN = ("visionzip", "prunesid")
"""Methods that say themselves where each patch went."""


def decided(name, *, keep=25, grid=(1, 7, 9)):
    tokens = visual_tokens((3, 3, 7) if "frames" in entry(name).needs else grid, class_tokens=1)
    return tokens, prumerge.make(name if name == "none" else f"{name}:keep={keep}")(tokens)


# each patch has one


@pytest.mark.parametrize("name", [*BEFORE, "tome"])
def test_every_patch_counts_once(name):
    tokens, reduction = decided(name)
    found = tokens.assigned(reduction)
    assert found.assignment.shape == (63,)
    sizes = found.sizes()
    kept_class_token = int(name in WITH_CLASS_TOKEN)
    assert sizes.sum() == 63 + kept_class_token
    assert sizes.min() >= 1
    assert torch.equal(found.apply(tokens), reduction.apply(tokens))


@pytest.mark.parametrize("grid", [(1, 7, 9), (3, 4, 5)], ids=str)
@pytest.mark.parametrize(
    "name", [name for name in BEFORE if name not in ("none", *OF_THEIR_OWN, *WITH_CLASS_TOKEN)]
)
def test_a_patch_goes_to_the_kept_token_with_the_most_similar_key(name, grid):
    tokens, reduction = decided(name, grid=grid)
    places = reduction.index.tolist()
    expected = reference.standing_for(reference.frames_of(tokens), places)
    assert [places[row] for row in tokens.assigned(reduction).assignment.tolist()] == expected


@pytest.mark.parametrize("name", OF_THEIR_OWN)
@pytest.mark.parametrize("grid", [(1, 6, 6), (2, 5, 6)], ids=str)
def test_a_patch_that_went_into_a_mean_counts_there(name, grid):
    tokens = visual_tokens(grid, class_tokens=grid[0])
    reduction = prumerge.make(f"{name}:keep=9")(tokens)
    assert reduction.assignment.tolist() == reduction.weights.argmax(0).tolist()
    assert tokens.assigned(reduction) is reduction


def test_a_frame_without_a_token_goes_to_the_others():
    tokens = visual_tokens((3, 4, 5), class_tokens=3)
    own = tokens.assigned(Reduction(torch.tensor([2, 45]))).assignment
    assert own[:20].tolist() == [0] * 20
    assert own[40:].tolist() == [1] * 20
    directions = torch.nn.functional.normalize(tokens.keys, dim=-1)
    assert own[20:40].tolist() == (directions[[2, 45]] @ directions[20:40].T).argmax(0).tolist()


def test_a_class_token_stands_for_no_patch():
    tokens = visual_tokens((1, 7, 9))
    reduction = prumerge.make("visionzip:keep=9")(tokens)
    found = tokens.assigned(reduction)
    assert 0 not in found.assignment.tolist()
    patches = Reduction(reduction.index[1:])
    assert (found.assignment - 1).tolist() == tokens.assigned(patches).assignment.tolist()
    alone = prumerge.make("visionzip:keep=1")(tokens)
    assert tokens.assigned(alone).sizes().tolist() == [63]


# what counts


def test_what_patches_held_before_is_counted_with_them():
    reduction = Reduction(torch.tensor([0, 3]), None, torch.tensor([0, 0, 1, 1, 0]))
    assert reduction.sizes().tolist() == [3, 2]
    assert reduction.sizes(torch.tensor([1.0, 2, 3, 4, 5])).tolist() == [8, 7]
    assert reduction.rows(torch.tensor([1, 0])).assignment.tolist() == [1, 1, 0, 0, 1]
    assert reduction.rows(torch.tensor([1, 0])).sizes().tolist() == [2, 3]


def test_where_the_tower_merged_its_patches_are_counted():
    source = torch.arange(126) // 2
    tokens = replace(visual_tokens((1, 7, 9)), merged=Merged((1, 14, 9), source))
    reduction = tokens.assigned(prumerge.make("scope:keep=9")(tokens))
    whole = tokens.whole(reduction)
    assert whole.assignment.tolist() == reduction.assignment[source].tolist()
    assert whole.sizes().tolist() == (2 * reduction.sizes()).tolist()


# chains, frames


@pytest.mark.parametrize("first", ["pool:keep=20", "topk:keep=20"])
def test_one_after_the_other_a_patch_goes_where_the_token_went_that_stood_for_it(first):
    tokens, second = visual_tokens((1, 6, 6)), prumerge.make("pool:keep=4")
    one = tokens.assigned(prumerge.make(first)(tokens))
    then = second(tokens.reduced(one))
    both = then.after(one, 36)
    assert both.assignment.tolist() == then.assignment[one.assignment].tolist()
    assert both.sizes().sum() == 36


@pytest.mark.parametrize(
    "spec",
    [
        "pool:keep=20+pool:keep=4",
        "medoids:keep=20+pool:keep=4",
        "pool:keep=20+medoids:keep=4",
        "scope:keep=20+topk:keep=4",
        "prumerge+medoids:keep=4",
        "medoids:keep=9@each",
        "pool:keep=9@merged=0.5",
    ],
)
def test_sizes_behind_chains_are_those_of_all_patches(spec):
    tokens = visual_tokens((2, 5, 6), class_tokens=2)
    sizes = tokens.assigned(prumerge.make(spec)(tokens)).sizes()
    assert sizes.sum() == 60
    assert sizes.min() >= 1


def test_frames_say_together_what_each_says():
    one = Reduction(torch.tensor([1]), None, torch.tensor([0, 0, 0]))
    two = Reduction(torch.tensor([0, 2]), None, torch.tensor([0, 1, 1]))
    assert joined({0: one, 1: two}, [3, 3]).assignment.tolist() == [0, 0, 0, 1, 2, 2]
    assert joined({0: one, 2: two}, [3, 3, 3]).assignment is None  # nobody says it of the second
    assert joined({0: one, 1: Reduction(torch.tensor([2]))}, [3, 3]).assignment is None


@pytest.mark.parametrize("name", ["medoids", "scope"])
def test_nothing_is_computed_until_somebody_asks(name, monkeypatch):
    def refuse(*_):
        raise AssertionError("asked for similarities")

    monkeypatch.setattr("prumerge.ops.most_similar", refuse)
    tokens = visual_tokens((1, 7, 9))
    reduction = prumerge.make(f"{name}:keep=9,merge=0")(tokens)
    assert reduction.assignment is None
    with pytest.raises(AssertionError):
        tokens.assigned(reduction)
