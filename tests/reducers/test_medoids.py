"""Medoids: which tokens stand for the rest, how many it takes, and what becomes of them."""

import tracemalloc
from dataclasses import replace

import pytest
import reference_methods as reference
import torch
from builders import visual_tokens
from operators import operators
from torch.nn.functional import normalize

import prumerge
from prumerge import ops
from prumerge.ops.facility import at_once, lazily
from prumerge.reducers.medoids import Medoids

GRIDS = [(1, 7, 9), (1, 8, 8), (1, 1, 5), (3, 4, 5)]


def without_class_token(tokens):
    return replace(tokens, queries=tokens.keys.flip(0), class_key=None, class_feature=None)


def same_rows(reduced, expected):
    torch.testing.assert_close(reduced.double(), torch.tensor(expected).double(), atol=1e-5, rtol=1e-5)


# which


@pytest.mark.parametrize("count", [1, 2, 5, 12])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_each_next_token_adds_most_to_what_is_covered(grid, count):
    tokens = visual_tokens(grid, seed=count, class_tokens=grid[0])
    count = min(count, len(tokens))
    expected = reference.medoids(reference.frames_of(tokens), count)
    assert prumerge.make(f"medoids:keep={count}")(tokens).index.tolist() == expected


@pytest.mark.parametrize("grid", [(1, 7, 9), (3, 4, 5)], ids=str)
def test_without_a_class_token_patches_count_as_the_others_attend_to_them(grid):
    tokens = visual_tokens(grid, class_tokens=grid[0])
    frames, tokens = reference.frames_of(tokens), without_class_token(tokens)
    for frame, alone in zip(frames, tokens.frames(), strict=True):
        frame.attention = alone.attention().double().tolist()
    assert prumerge.make("medoids:keep=9")(tokens).index.tolist() == reference.medoids(frames, 9)


def test_patches_count_as_the_layer_that_wrote_the_features_attends_to_them():
    tokens, other = visual_tokens((1, 7, 9)), visual_tokens((1, 7, 9), seed=1)
    [frame], [writer] = reference.frames_of(tokens), reference.frames_of(other)
    frame.attention = writer.attention
    tokens = replace(tokens, elsewhere=lambda layer: (other.queries, other.keys, other.class_key))
    assert prumerge.make("medoids:keep=9")(tokens).index.tolist() == reference.medoids([frame], 9)


# how many


@pytest.mark.parametrize("cover", [0.5, 0.8, 0.9, 0.97])
@pytest.mark.parametrize("grid", [(1, 7, 9), (3, 4, 5)], ids=str)
def test_without_keep_tokens_are_added_until_they_cover_enough(grid, cover):
    tokens = visual_tokens(grid, class_tokens=grid[0])
    expected = reference.medoids(reference.frames_of(tokens), cover=cover)
    found = prumerge.make(f"medoids:cover={cover}")(tokens).index.tolist()
    assert found == expected
    assert len(found) <= len(tokens) // 4


@pytest.mark.parametrize("most", [0.01, 0.1, 0.5])
def test_but_no_more_than_may_stay(most):
    tokens = visual_tokens((1, 7, 9))
    assert len(prumerge.make(f"medoids:cover=1,most={most}")(tokens)) == max(1, int(most * 63))


def test_a_frame_gets_as_much_of_the_budget_as_its_tokens_add_at_most_three_times_its_share():
    tokens = visual_tokens((4, 5, 6), class_tokens=4)
    keys = tokens.keys.clone()
    keys[30:] = keys[30] + 0.01 * keys[30:]  # three frames of nearly one colour
    index = prumerge.make("medoids:keep=20")(replace(tokens, keys=keys)).index
    shares = torch.bincount(index // 30, minlength=4).tolist()
    assert shares[0] == 15
    assert min(shares) >= 1


def test_tiles_of_different_sizes_are_compared_within_each():
    tokens = visual_tokens((1, 1, 38))
    three = [visual_tokens((1, 1, 38), seed=seed) for seed in range(3)]
    tokens = replace(
        tokens,
        tiles=((4, 5), (2, 3), (3, 4)),
        queries=torch.cat([one.queries for one in three]),
        class_key=torch.stack([one.class_key for one in three]),
        class_feature=None,
    )
    method = Medoids(most=1)
    apart = torch.cat([method.scores(tile) * tile.attention().sum() for tile in tokens.frames()])
    torch.testing.assert_close(method.scores(tokens), apart / tokens.attention().sum())


def test_a_clip_of_16_thousand_tokens_takes_no_matrix_of_all_pairs():
    tokens = visual_tokens((32, 16, 32), channels=8)
    tracemalloc.start()
    reduction = prumerge.make("medoids:keep=160,merge=0")(tokens)
    assert tracemalloc.get_traced_memory()[1] < 16 * 512**2 * 4
    tracemalloc.stop()
    assert len(reduction) == 160


# what becomes of them


@pytest.mark.parametrize("merge", [0, 0.25, 0.5, 1])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_token_moves_to_the_mean_of_those_it_stands_for_weighted_by_attention(grid, merge):
    tokens = visual_tokens(grid, class_tokens=grid[0])
    frames, reduction = reference.frames_of(tokens), prumerge.make(f"medoids:keep=4,merge={merge}")(tokens)
    attention = [value for frame in frames for value in frame.attention]
    expected = reference.damped(frames, reduction.index.tolist(), merge, attention)
    same_rows(reduction.apply(tokens), expected)
    assert (reduction.weights is None) == (merge == 0)


def test_each_patch_goes_into_one_token():
    tokens = visual_tokens((1, 7, 9))
    reduction = prumerge.make("medoids:keep=6")(tokens)
    assert ((reduction.weights != 0).sum(0) == 1).all()
    assert reduction.sizes().tolist() == tokens.assigned(reduction).sizes().tolist()
    assert reduction.sizes().sum() == 63


@pytest.mark.parametrize("option", ["cover=0", "cover=1.5", "most=0", "most=2", "merge=-0.1", "merge=1.1"])
def test_a_share_that_is_none_is_refused(option):
    with pytest.raises(ValueError, match=f"{option.partition('=')[0]} is a share"):
        prumerge.make(f"medoids:{option}")


# the two ways to compute it


def vectors_and_weights(frames=4, size=80):
    """Directions in clusters, as keys are, and how much each counts."""
    tokens = [visual_tokens((1, 1, size), seed=seed) for seed in range(frames)]
    directions = torch.stack([normalize(one.keys, dim=-1) for one in tokens])
    return directions, torch.stack([one.attention() for one in tokens])


def one_by_one(directions, weight, steps):
    pairs = zip(directions.numpy(), weight.numpy(), strict=True)
    return torch.stack([torch.from_numpy(lazily(*pair, steps)) for pair in pairs])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("steps", [1, 7, 40, 80])
def test_lazily_and_at_once_are_the_same_choice(steps, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    directions, weight = vectors_and_weights()
    together, alone = (way(directions, weight, steps) for way in (at_once, one_by_one))
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("way", [at_once, one_by_one])
def test_where_nothing_is_left_to_cover_nothing_is_added(way):
    same, weight = torch.full((1, 30, 4), 0.5), torch.full((1, 30), 1 / 30)
    added = way(same, weight, 20)
    assert float(added.max()) == pytest.approx(1)
    assert float(added.sum()) == pytest.approx(1)
    assert not way(0 * same, weight, 20).any()


def test_a_step_for_all_frames_is_five_operators():
    directions, weight = vectors_and_weights()
    few, many = (operators(at_once, directions, weight, steps) for steps in (4, 14))
    assert many - few <= 10 * (5 + 3)  # and three that take the parts of buffers
    assert operators(at_once, directions[:1], weight[:1], 4) == few


def test_what_is_added_never_grows_and_is_all_of_it_in_the_end():
    directions, weight = vectors_and_weights(frames=2)
    added = ops.facility_location(directions, weight, 80)
    torch.testing.assert_close(added.sum(1), weight.sum(1))
    for steps in (5, 20):
        some = ops.facility_location(directions, weight, steps)
        assert (some > 0).sum(1).tolist() == [steps] * 2
        assert torch.equal(some[some > 0], added[some > 0])
        for first, whole in zip(some, added, strict=True):
            assert whole[first == 0].max() <= first[first > 0].min()
