"""What holds for every method, and what each of the simple ones does."""

import math
from dataclasses import fields, replace

import pytest
import torch
from builders import visual_tokens
from torch.nn import functional as F

import prumerge

METHODS = prumerge.names()
BUDGETED = [name for name in METHODS if name not in ("none", "sparsevlm")]  # recycled tokens come on top
GRIDS = [(1, 24, 24), (1, 7, 9), (1, 9, 7), (2, 5, 6), (3, 1, 4)]
TINY = [(1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1)]
EXTRA = {"prumerge": 1, "prumerge_plus": 1}
"""Tokens on top of `keep`, as in the official code, while anything is left over."""


def check(reduction, tokens):
    """What anything that splices or draws a reduction relies on."""
    count = len(reduction)
    assert 1 <= count <= len(tokens)
    assert reduction.index.shape == (count,)
    assert len(set(reduction.index.tolist())) == count
    assert 0 <= int(reduction.index.min()) <= int(reduction.index.max()) < len(tokens)
    features = reduction.apply(tokens)
    assert features.shape == (count, tokens.features.shape[1])
    assert features.dtype == tokens.features.dtype
    assert features.isfinite().all()
    if reduction.weights is None:
        assert torch.equal(features, tokens.features[reduction.index])
    else:
        assert reduction.weights.shape == (count, len(tokens))
        assert reduction.weights.isfinite().all()
        assert (reduction.weights.abs().sum(1) > 0).all()


@pytest.mark.parametrize("grid", GRIDS + TINY, ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_a_method_works_as_it_comes(name, grid):
    tokens = visual_tokens(grid)
    check(prumerge.make(name)(tokens), tokens)


@pytest.mark.parametrize("grid", GRIDS + TINY, ids=str)
@pytest.mark.parametrize("name", BUDGETED)
def test_a_budget_is_met_exactly(name, grid):
    tokens = visual_tokens(grid)
    available = len(tokens)
    for keep in {1, 2, 3, available // 3, available // 2, available - 1, available} & set(
        range(1, available + 1)
    ):
        reduction = prumerge.make(f"{name}:keep={keep}")(tokens)
        assert len(reduction) == keep + (EXTRA.get(name, 0) if keep < available else 0)
        check(reduction, tokens)


@pytest.mark.parametrize("share", [0.01, 1 / 18, 0.25, 0.5, 0.99])
@pytest.mark.parametrize("name", BUDGETED)
def test_a_share_is_rounded_down_to_one_token_at_least(name, share):
    tokens = visual_tokens((1, 7, 9))
    reduction = prumerge.make(f"{name}:keep={share}")(tokens)
    assert len(reduction) == max(1, math.floor(share * 63)) + EXTRA.get(name, 0)


def test_a_share_that_is_a_whole_number_of_tokens_loses_none_to_rounding():
    tokens = visual_tokens((1, 10, 10))
    assert [len(prumerge.make(f"topk:keep={n / 100}")(tokens)) for n in range(1, 100)] == list(range(1, 100))


@pytest.mark.parametrize("name", BUDGETED)
def test_more_than_there_is_cannot_be_kept(name):
    with pytest.raises(ValueError, match="more than the 63 visual tokens of this image; ask for at most 63"):
        prumerge.make(f"{name}:keep=64")(visual_tokens((1, 7, 9)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_half_precision_features_stay_so(name, dtype):
    tokens = visual_tokens((1, 7, 9), dtype=dtype)
    check(prumerge.make(name)(tokens), tokens)


@pytest.mark.parametrize("name", METHODS)
def test_the_same_picture_is_reduced_alike_every_time(name):
    reducer, tokens = prumerge.make(name), visual_tokens((1, 7, 9))
    one, other = reducer(tokens), reducer(tokens)
    assert torch.equal(one.index, other.index)
    assert torch.equal(one.apply(tokens), other.apply(tokens))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_leaves_its_input_and_the_random_state_alone(name):
    tokens = visual_tokens((1, 7, 9))
    before = {
        field.name: value.clone()
        for field in fields(tokens)
        if isinstance(value := getattr(tokens, field.name), torch.Tensor)
    }
    state = torch.get_rng_state()
    prumerge.make(name)(tokens)
    assert all(torch.equal(getattr(tokens, field), value) for field, value in before.items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("grid", GRIDS + TINY, ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_flat_attention_is_no_trouble(name, grid):
    tokens = visual_tokens(grid, peak=0)
    check(prumerge.make(name)(tokens), tokens)


@pytest.mark.parametrize("name", METHODS)
def test_an_empty_picture_is_no_trouble(name):
    tokens = visual_tokens((1, 7, 9))
    tokens = replace(
        tokens,
        features=torch.zeros_like(tokens.features),
        keys=torch.zeros_like(tokens.keys),
        relevance=torch.zeros(63),
    )
    check(prumerge.make(name)(tokens), tokens)


@pytest.mark.parametrize("name", METHODS)
def test_a_tower_without_a_class_token_is_no_trouble(name):
    tokens = visual_tokens((1, 7, 9))
    tokens = replace(tokens, queries=tokens.keys.flip(0), class_key=None, class_feature=None)
    check(prumerge.make(name)(tokens), tokens)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_reach_the_features(name):
    tokens = visual_tokens((1, 7, 9))
    tokens.features.requires_grad_()
    prumerge.make(name)(tokens).apply(tokens).sum().backward()
    assert tokens.features.grad.abs().sum() > 0


@pytest.mark.parametrize("name", METHODS)
def test_adaptive_methods_and_only_they_choose_a_count_by_the_picture(name):
    counts = {len(prumerge.make(name)(visual_tokens((1, 12, 12), seed=seed))) for seed in range(8)}
    assert (len(counts) > 1) == prumerge.make(name).adaptive


# attention


def test_attention_of_the_class_token_leaves_what_it_gives_itself_out():
    tokens = visual_tokens((1, 7, 9), heads=1)
    logits = torch.cat([tokens.class_key[None], tokens.keys]) @ tokens.queries[0] / math.sqrt(8)
    torch.testing.assert_close(tokens.attention(), logits.softmax(0)[1:])
    assert tokens.attention().sum() < 1


def test_attention_is_the_mean_over_heads_or_that_of_all_heads_as_one():
    tokens = visual_tokens((1, 7, 9), heads=2)
    halves = [
        replace(
            tokens,
            heads=1,
            queries=tokens.queries[:, part],
            keys=tokens.keys[:, part],
            class_key=tokens.class_key[part],
        ).attention()
        for part in (slice(0, 4), slice(4, 8))
    ]
    torch.testing.assert_close(tokens.attention(), (halves[0] + halves[1]) / 2)
    torch.testing.assert_close(tokens.attention(split_heads=False), replace(tokens, heads=1).attention())


def test_attention_is_computed_in_single_precision():
    assert visual_tokens((1, 7, 9), dtype=torch.float16).attention().dtype == torch.float32


def test_a_batch_axis_of_one_is_dropped():
    features, states = torch.randn(1, 7, 4), torch.randn(1, 7, 6)
    tokens = prumerge.VisualTokens.from_class_sequence(
        features, states, -states, heads=2, grid=(2, 3), relevance=torch.rand(1, 6)
    )
    assert (len(tokens), tokens.grid) == (6, (1, 2, 3))
    assert torch.equal(tokens.features, features[0, 1:])
    assert torch.equal(tokens.queries, states[0, :1])
    assert torch.equal(tokens.class_key, -states[0, 0])
    assert torch.equal(tokens.class_feature, features[0, 0])
    assert tokens.relevance.shape == (6,)


# each method


def test_none_keeps_everything_and_takes_no_budget():
    tokens = visual_tokens((1, 7, 9))
    reduction = prumerge.make("none")(tokens)
    assert torch.equal(reduction.apply(tokens), tokens.features)
    with pytest.raises(ValueError, match="none keeps every visual token"):
        prumerge.make("none:keep=5")


def test_sequential_keeps_the_first():
    assert prumerge.make("sequential:keep=5")(visual_tokens((1, 7, 9))).index.tolist() == [0, 1, 2, 3, 4]


def test_random_depends_on_the_seed_alone():
    one, other = (visual_tokens((1, 7, 9), seed=seed) for seed in (1, 2))
    first, second = (prumerge.make(f"random:keep=20,seed={seed}") for seed in (0, 1))
    assert torch.equal(first(one).index, first(other).index)
    assert not torch.equal(first(one).index, second(one).index)
    assert first(one).index.tolist() == sorted(first(one).index.tolist())


def test_random_reaches_every_place():
    tokens = visual_tokens((1, 3, 3))
    seen = {int(prumerge.make(f"random:keep=1,seed={seed}")(tokens).index) for seed in range(60)}
    assert seen == set(range(9))


@pytest.mark.parametrize(
    ("grid", "count"), [("5x8", 40), ("8x5", 40), ("6x6", 36), ("1x1", 1), ("24x24", 576)]
)
@pytest.mark.parametrize("name", ["spatial", "pool"])
def test_a_grid_is_as_many_tokens_in_raster_order(name, grid, count):
    tokens = visual_tokens()
    index = prumerge.make(f"{name}:grid={grid}")(tokens).index.tolist()
    assert len(index) == count
    assert index == sorted(index)


@pytest.mark.parametrize("name", ["spatial", "pool"])
def test_a_grid_holds_in_each_frame(name):
    index = prumerge.make(f"{name}:grid=2x3")(visual_tokens((2, 4, 6))).index
    assert index.tolist() == [0, 2, 4, 12, 14, 16, 24, 26, 28, 36, 38, 40]


@pytest.mark.parametrize("name", ["spatial", "pool"])
def test_a_grid_finer_than_the_picture_is_refused(name):
    with pytest.raises(ValueError, match="finer than the 7x9 visual tokens"):
        prumerge.make(f"{name}:grid=8x2")(visual_tokens((1, 7, 9)))


@pytest.mark.parametrize("name", ["spatial", "pool"])
def test_a_grid_that_is_none_is_refused_at_once(name):
    with pytest.raises(ValueError, match="such as 5x8, not '5by8'"):
        prumerge.make(f"{name}:grid=5by8")


def test_spatial_tokens_are_the_middles_of_their_cells():
    assert prumerge.make("spatial:keep=4")(visual_tokens((1, 6, 6))).index.tolist() == [7, 10, 25, 28]


def test_pooling_is_average_pooling():
    tokens = visual_tokens((1, 24, 24))
    picture = tokens.features.T.reshape(1, -1, 24, 24)
    expected = F.avg_pool2d(picture, 4).flatten(2)[0].T
    torch.testing.assert_close(prumerge.make("pool:keep=36")(tokens).apply(tokens), expected)


@pytest.mark.parametrize("heads", ["joint", "split"])
def test_topk_keeps_the_highest_attention(heads):
    tokens = visual_tokens((1, 7, 9))
    ranked = tokens.attention(split_heads=heads == "split").argsort(descending=True)[:6]
    best_first = prumerge.make(f"topk:keep=6,heads={heads},order=score")(tokens)
    in_space = prumerge.make(f"topk:keep=6,heads={heads}")(tokens)
    assert best_first.index.tolist() == ranked.tolist()
    assert in_space.index.tolist() == sorted(ranked.tolist())


def test_topk_without_a_budget_is_prumerge_without_merging():
    tokens = visual_tokens()
    merged = prumerge.make("prumerge:extra_token=off")(tokens)
    assert prumerge.make("topk:order=score")(tokens).index.tolist() == merged.index.tolist()


def test_prumerge_plus_holds_the_tokens_of_prumerge():
    tokens = visual_tokens()
    outliers = set(prumerge.make("prumerge:extra_token=off")(tokens).index.tolist())
    assert outliers < set(prumerge.make("prumerge_plus")(tokens).index.tolist())


def test_a_budget_of_prumerge_plus_is_half_important_and_half_even():
    tokens = visual_tokens((1, 12, 12))
    index = prumerge.make("prumerge_plus:keep=41,extra_token=off")(tokens).index
    assert index[:21].tolist() == prumerge.make("topk:keep=21,order=score")(tokens).index.tolist()
    gaps = index[21:].diff()
    assert (gaps > 0).all()
    assert int(gaps.max()) < 144 / 20 * 2.5
