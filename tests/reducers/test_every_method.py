"""What holds for every method, and what each of the simple ones does."""

import math
from dataclasses import fields, replace

import pytest
import torch
from builders import visual_tokens
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import prumerge
from prumerge import ops

METHODS = prumerge.names()
BUDGETED = [name for name in METHODS if name not in ("none", "sparsevlm")]  # recycled tokens come on top
GRIDS = [(1, 24, 24), (1, 7, 9), (1, 9, 7), (2, 5, 6), (3, 1, 4)]
TINY = [(1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1)]
EXTRA = {"prumerge": 1, "prumerge_plus": 1, "trim": 1}
"""Tokens on top of `keep`, as in the official code, while anything is left over."""


def takes(name, grid):
    """Whether a method can be asked for this grid: those that compare frames need two."""
    return grid[0] > 1 or "frames" not in prumerge.make(name).needs


def some_tokens(name, **changes):
    """63 visual tokens that this method takes."""
    return visual_tokens((1, 7, 9) if takes(name, (1, 7, 9)) else (3, 3, 7), **changes)


ALL = [(name, grid) for name in METHODS for grid in GRIDS + TINY if takes(name, grid)]


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
        assert reduction.weights.shape in ((count, len(tokens)), (count, len(tokens) + tokens.grid[0]))
        assert reduction.weights.isfinite().all()
        assert (reduction.weights.abs().sum(1) > 0).all()


@pytest.mark.parametrize(("name", "grid"), ALL, ids=str)
def test_a_method_works_as_it_comes(name, grid):
    tokens = visual_tokens(grid)
    check(prumerge.make(name)(tokens), tokens)


@pytest.mark.parametrize(("name", "grid"), [(name, grid) for name, grid in ALL if name in BUDGETED], ids=str)
def test_a_budget_is_met_exactly(name, grid):
    tokens = visual_tokens(grid)
    available = len(tokens)
    least = available // grid[0] if name == "evs" else 1  # which always keeps the first frame
    for keep in {1, 3, available // 3, available - 1, available} & set(range(least, available + 1)):
        reduction = prumerge.make(f"{name}:keep={keep}")(tokens)
        assert len(reduction) == keep + (EXTRA.get(name, 0) if keep < available else 0)
        check(reduction, tokens)


@pytest.mark.parametrize("share", [0.01, 1 / 18, 0.25, 0.5, 0.99])
@pytest.mark.parametrize("name", BUDGETED)
def test_a_share_is_rounded_down_to_one_token_at_least(name, share):
    reduction = prumerge.make(f"{name}:keep={share}")(some_tokens(name))
    least = 21 if name == "evs" else 1  # which always keeps the first of three frames
    assert len(reduction) == max(least, math.floor(share * 63)) + EXTRA.get(name, 0)


def test_a_share_that_is_a_whole_number_of_tokens_loses_none_to_rounding():
    tokens = visual_tokens((1, 10, 10))
    assert [len(prumerge.make(f"topk:keep={n / 100}")(tokens)) for n in range(1, 100)] == list(range(1, 100))


@pytest.mark.parametrize("name", BUDGETED)
def test_more_than_there_is_cannot_be_kept(name):
    with pytest.raises(ValueError, match="more than the 63 visual tokens of this image; ask for at most 63"):
        prumerge.make(f"{name}:keep=64")(some_tokens(name))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_half_precision_features_stay_so(name, dtype):
    tokens = some_tokens(name, dtype=dtype)
    check(prumerge.make(name)(tokens), tokens)


@pytest.mark.parametrize("name", METHODS)
def test_the_same_picture_is_reduced_alike_every_time(name):
    reducer, tokens = prumerge.make(name), some_tokens(name)
    one, other = reducer(tokens), reducer(tokens)
    assert torch.equal(one.index, other.index)
    assert torch.equal(one.apply(tokens), other.apply(tokens))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_leaves_its_input_and_the_random_state_alone(name):
    tokens = some_tokens(name)
    before = {
        field.name: value.clone()
        for field in fields(tokens)
        if isinstance(value := getattr(tokens, field.name), torch.Tensor)
    }
    state = torch.get_rng_state()
    prumerge.make(name)(tokens)
    assert all(torch.equal(getattr(tokens, field), value) for field, value in before.items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("name", "grid"), ALL, ids=str)
def test_flat_attention_is_no_trouble(name, grid):
    tokens = visual_tokens(grid, peak=0)
    check(prumerge.make(name)(tokens), tokens)


@pytest.mark.parametrize("name", METHODS)
def test_an_empty_picture_is_no_trouble(name):
    tokens = some_tokens(name)
    tokens = replace(
        tokens,
        features=torch.zeros_like(tokens.features),
        keys=torch.zeros_like(tokens.keys),
        relevance=torch.zeros(63),
    )
    check(prumerge.make(name)(tokens), tokens)


@pytest.mark.parametrize("name", METHODS)
def test_a_tower_without_a_class_token_is_no_trouble_or_the_way_out_is_named(name):
    tokens, reducer = some_tokens(name), prumerge.make(name)
    tokens = replace(tokens, queries=tokens.keys.flip(0), class_key=None, class_feature=None)
    if "class token" not in reducer.needs:
        return check(reducer(tokens), tokens)
    with pytest.raises(ValueError, match=f"{name} needs a class token; without, use for example") as error:
        reducer(tokens)
    check(way_out(error)(tokens), tokens)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_reach_the_features(name):
    tokens = some_tokens(name)
    tokens.features.requires_grad_()
    prumerge.make(name)(tokens).apply(tokens).sum().backward()
    assert tokens.features.grad.abs().sum() > 0


@pytest.mark.parametrize("name", METHODS)
def test_adaptive_methods_and_only_they_choose_a_count_by_the_picture(name):
    grid = (1 if takes(name, (1, 12, 12)) else 2, 12, 12)
    counts = {len(prumerge.make(name)(visual_tokens(grid, seed=seed))) for seed in range(8)}
    assert (len(counts) > 1) == prumerge.make(name).adaptive


def way_out(error):
    """The method that a message names."""
    return prumerge.make(str(error.value).rpartition(" ")[2])


@pytest.mark.parametrize("name", [name for name in METHODS if prumerge.make(name).needs == "text"])
def test_a_method_that_reads_the_text_says_what_to_do_without(name):
    tokens = replace(visual_tokens((1, 7, 9)), relevance=None)
    with pytest.raises(ValueError, match=f"{name} needs text .* without, use for example") as error:
        prumerge.make(name)(tokens)
    check(way_out(error)(tokens), tokens)
    no_words = replace(tokens, text=lambda: torch.zeros(0, 16))
    with pytest.raises(ValueError, match=f"{name} needs text"):
        prumerge.make(name)(no_words)


@pytest.mark.parametrize("name", [name for name in METHODS if "frames" in prumerge.make(name).needs])
def test_a_method_that_compares_frames_says_what_to_do_with_a_picture(name):
    tokens = visual_tokens((1, 7, 9))
    with pytest.raises(ValueError, match=f"{name} needs the frames of a video .* use for example") as error:
        prumerge.make(name)(tokens)
    check(way_out(error)(tokens), tokens)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for value in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return made


@pytest.mark.parametrize("name", BUDGETED)
def test_no_method_compares_all_tokens_of_a_video_with_each_other(name):
    tokens = visual_tokens((32, 8, 16), channels=8)
    with Largest() as largest:
        reduction = prumerge.make(f"{name}:keep={128 if name == 'evs' else 96}")(tokens)
    check(reduction, tokens)
    assert largest.elements < len(tokens) ** 2 / 16


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


@pytest.mark.parametrize("split_heads", [True, False])
@pytest.mark.parametrize("class_token", [True, False])
def test_frames_with_class_tokens_of_their_own_attend_apart(class_token, split_heads):
    tokens = visual_tokens((3, 4, 5), class_tokens=3)
    if not class_token:
        tokens = replace(tokens, queries=tokens.keys.flip(0), class_key=None, class_feature=None)
    apart = [frame.attention(split_heads=split_heads) for frame in tokens.frames()]
    torch.testing.assert_close(tokens.attention(split_heads=split_heads), torch.cat(apart))


@pytest.mark.parametrize("class_tokens", [1, 3])
def test_frames_are_pictures_of_their_own(class_tokens):
    tokens = visual_tokens((3, 4, 5), class_tokens=class_tokens)
    frames = tokens.frames()
    assert [frame.grid for frame in frames] == [(1, 4, 5)] * 3
    for name in ("features", "keys", "relevance"):
        assert torch.equal(torch.cat([getattr(frame, name) for frame in frames]), getattr(tokens, name))
    assert frames[2].queries.shape == (1, 8)
    assert torch.equal(frames[2].class_key, tokens.class_key[2] if class_tokens > 1 else tokens.class_key)
    [picture] = visual_tokens((1, 4, 5)).frames()
    assert torch.equal(picture.features, visual_tokens((1, 4, 5)).features)


def test_frames_have_their_share_of_other_layers():
    tokens, other = visual_tokens((3, 4, 5), class_tokens=3), visual_tokens((3, 4, 5), seed=1, class_tokens=3)
    tokens = replace(tokens, elsewhere=lambda layer: (other.queries, other.keys, other.class_key))
    attention = torch.cat([frame.scored_by("writer").attention() for frame in tokens.frames()])
    torch.testing.assert_close(attention, other.attention())
    torch.testing.assert_close(attention, tokens.scored_by("first").attention())


def test_tokens_without_relevance_have_frames_without():
    assert [x.relevance for x in replace(visual_tokens((2, 4, 5)), relevance=None).frames()] == [None, None]


def test_a_leading_axis_holds_frames():
    features, states = torch.randn(2, 7, 4), torch.randn(2, 7, 6)
    tokens = prumerge.VisualTokens.from_class_sequence(features, states, -states, heads=2, grid=(2, 2, 3))
    assert torch.equal(tokens.features, features[:, 1:].reshape(12, 4))
    assert torch.equal(tokens.queries, states[:, 0])
    assert torch.equal(tokens.class_key, -states[:, 0])
    assert torch.equal(tokens.frames()[1].class_feature, features[1, 0])


def test_as_many_class_tokens_as_frames():
    states = torch.randn(2, 7, 6)
    with pytest.raises(ValueError, match="2 class tokens do not fit 4 frames"):
        prumerge.VisualTokens.from_class_sequence(states, states, states, heads=2, grid=(4, 1, 3))


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


# methods of other papers


def test_visionzip_keeps_the_class_token_as_the_last_column_and_first_row():
    tokens = visual_tokens((1, 7, 9))
    reduction = prumerge.make("visionzip:keep=12")(tokens)
    assert reduction.weights.shape == (12, 64)
    assert reduction.weights[0].nonzero().tolist() == [[63]]
    assert torch.equal(reduction.apply(tokens)[0], tokens.class_feature)
    without = prumerge.make("visionzip:keep=12,class_token=off")(tokens)
    assert without.weights.shape == (12, 63)


def test_visionzip_in_a_video_keeps_the_class_token_of_each_frame():
    tokens = visual_tokens((3, 4, 5), class_tokens=3)
    reduced = prumerge.make("visionzip:keep=30")(tokens).apply(tokens)
    assert torch.equal(reduced[::10], tokens.class_feature)


def test_visionzip_without_a_class_token_keeps_a_patch_more():
    tokens = visual_tokens((1, 7, 9))
    tokens = replace(tokens, queries=tokens.keys.flip(0), class_key=None, class_feature=None)
    assert prumerge.make("visionzip:keep=12,contextual=2")(tokens).weights.shape == (12, 63)
    with pytest.raises(
        ValueError, match=r"needs a class token; .* use for example visionzip:class_token=off$"
    ):
        prumerge.make("visionzip:class_token=on")(tokens)


@pytest.mark.parametrize(("keep", "left"), [(1, 0), (5, 4), (10, 9)])
def test_visionzip_cuts_contextual_tokens_that_do_not_fit(keep, left):
    tokens = visual_tokens((1, 7, 9))
    with pytest.warns(UserWarning, match=f"{keep} tokens hold no 10 contextual ones"):
        reduction = prumerge.make(f"visionzip:keep={keep},contextual=10")(tokens)
    assert len(reduction) == keep
    assert int((reduction.weights.count_nonzero(dim=1) > 1).sum()) == left
    check(reduction, tokens)


def test_visionzip_merges_all_that_is_left_over():
    weights = prumerge.make("visionzip:keep=12")(visual_tokens((1, 7, 9))).weights
    assert (weights.sum(0) > 0).all()


def test_evs_raises_a_count_below_the_first_frame_to_it():
    tokens = visual_tokens((3, 4, 5))
    with pytest.warns(UserWarning, match="evs:keep=7: the whole first frame stays, 20 tokens"):
        assert prumerge.make("evs:keep=7")(tokens).index.tolist() == list(range(20))
    assert prumerge.make("evs:keep=0.1")(tokens).index.tolist() == list(range(20))


def test_evs_keeps_what_changes():
    tokens = visual_tokens((3, 4, 5))
    still = tokens.features[:20].repeat(3, 1)
    still[47] = -still[47]
    assert prumerge.make("evs:keep=21")(replace(tokens, features=still)).index.tolist() == [*range(20), 47]


def test_vidcom2_gives_the_unusual_frame_more():
    tokens = visual_tokens((4, 4, 5))
    features = tokens.features[:20].repeat(4, 1)
    features[40:60] = tokens.features[40:60].flip(1)
    kept = prumerge.make("vidcom2:keep=32")(replace(tokens, features=features)).index // 20
    counts = kept.bincount(minlength=4).tolist()
    assert counts[2] > max(counts[0], counts[1], counts[3])


def test_hired_takes_the_layout_of_tiles():
    tokens = visual_tokens((5, 4, 4), class_tokens=5)
    corner = torch.zeros(16)
    corner[[2, 3, 6, 7]] = 5.0  # the class token of the whole looks at its upper right corner
    keys = tokens.keys.clone()
    keys[:16] = corner[:, None] * tokens.queries[0] / tokens.queries[0].norm()
    kept = prumerge.make("hired:keep=16,tiles=2x2,alpha=0.75")(replace(tokens, keys=keys)).index // 16
    assert kept.bincount(minlength=5).tolist() == [12, 0, 4, 0, 0]
    with pytest.raises(ValueError, match="6 tiles do not fit the 4 sub-images"):
        prumerge.make("hired:tiles=2x3")(tokens)


@pytest.mark.parametrize("name", ["divprune", "cdpruner", "dart"])
def test_some_methods_compare_what_the_language_model_would_read(name):
    tokens = visual_tokens((1, 7, 9))
    other = torch.randn(16, 24, generator=torch.Generator().manual_seed(1)).relu()
    projected = replace(tokens, embed=lambda features: features.relu() @ other)
    behind = replace(tokens, features=tokens.features.relu() @ other, class_feature=None)
    method = prumerge.make(f"{name}:keep=9")
    assert torch.equal(method(projected).index, method(behind).index)
    assert not torch.equal(method(projected).index, method(tokens).index)


@pytest.mark.parametrize("name", ["cdpruner", "trim"])
def test_relevance_comes_from_embeddings_of_the_words_where_none_is_given(name):
    tokens = visual_tokens((1, 7, 9))
    words = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    asked = replace(tokens, relevance=None, text=lambda: words)
    told = replace(tokens, relevance=ops.relevance(tokens.features, words, inverted=False))
    method = prumerge.make(f"{name}:keep=9")
    assert torch.equal(method(asked).index, method(told).index)
    assert not torch.equal(method(asked).index, method(tokens).index)


@pytest.mark.parametrize("spec, grid", [("hired", (5, 8, 8)), ("hiprune", (1, 24, 24))])
def test_one_that_reads_another_layer_says_so_where_there_is_none(spec, grid):
    with pytest.warns(UserWarning, match="one layer only: it stands for that of"):
        prumerge.make(spec)(visual_tokens(grid, class_tokens=grid[0]))
