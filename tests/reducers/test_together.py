"""Pictures that are decided together are decided as each would be alone, by far fewer operators."""

from dataclasses import dataclass, fields, replace

import pytest
import torch
from builders import visual_tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import operators

import prumerge
from prumerge import ops
from prumerge.catalogue import entry
from prumerge.ops import batching
from prumerge.reducer import Adaptive, FrameByFrame, Reducer
from prumerge.tokens import Merged, Reduction, Separators

BEFORE = [name for name in prumerge.names() if entry(name).place == Reducer.place]
COMPARES_FRAMES = [name for name in BEFORE if "frames" in entry(name).needs]
OF_PICTURES = [name for name in BEFORE if name not in COMPARES_FRAMES]
ADAPTIVE = [name for name in BEFORE if entry(name).adaptive]
STEPWISE = {"scope": 6, "divprune": 6, "cdpruner": 6, "anchorprune": 6}
"""Methods that add one token after the other, and the operators that one more takes at most."""

OTHER = torch.randn(96, 96, generator=torch.Generator().manual_seed(9))


def embed(features):
    return features.float() @ OTHER


def kept(name, count):
    return name if name == "none" else f"{name}:keep={count}"


def grid(name):
    return (3, 4, 5) if name in COMPARES_FRAMES else (1, 7, 9)


def tokens_of(shape, seed=0, **changes):
    """Wide enough that no greedy selection comes to the end of their rank, where rounding decides."""
    return visual_tokens(shape, seed=seed, channels=96, **changes)


def alike(count, shape, **changes):
    return [tokens_of(shape, seed=seed, **changes) for seed in range(count)]


def as_one_batch(pictures):
    """The same pictures as an encoder leaves them: parts of one tensor."""
    names = [own.name for own in fields(pictures[0]) if own.metadata]
    whole = {
        name: torch.stack([getattr(one, name) for one in pictures])
        for name in names
        if getattr(pictures[0], name) is not None
    }
    return [
        replace(one, **{name: values[number] for name, values in whole.items()})
        for number, one in enumerate(pictures)
    ]


def in_tiles(tokens):
    return replace(tokens, grid=(1, 1, len(tokens)), tiles=((4, 5), (2, 10), (4, 5)))


def without_class_token(tokens):
    return replace(tokens, queries=tokens.keys.flip(0), class_key=None, class_feature=None)


def with_sizes(tokens):
    return replace(tokens, sizes=1 + torch.arange(len(tokens)) % 3.0)


def with_other_layers(tokens):
    other = {
        "first": (tokens.queries.flip(-1), tokens.keys.flip(0), tokens.class_key),
        "writer": (tokens.queries * 2, tokens.keys.flip(-1), tokens.class_key),
        0.375: (tokens.queries * 3, tokens.keys.flip(0, -1), tokens.class_key),
    }
    return replace(tokens, elsewhere=other.__getitem__)


def behind_a_projector(tokens):
    return replace(tokens, embed=embed)


def with_words(tokens):
    seed = round(float(tokens.features[0, 0]) * 1e6)
    words = torch.randn(1 + seed % 4, 96, generator=torch.Generator().manual_seed(seed))
    return replace(tokens, relevance=None, embed=embed, text=lambda: words)


def placed_with_separators(tokens):
    between = Separators(torch.tensor([len(tokens)]), torch.zeros(1, 96), torch.zeros(len(tokens)).long())
    return replace(tokens, placed=torch.arange(len(tokens)), separators=between)


def merged_on_the_way(tokens):
    source = torch.arange(2 * len(tokens)) % len(tokens)
    return replace(with_sizes(tokens), merged=Merged((2, *tokens.grid[1:]), source))


KINDS = [
    lambda tokens: tokens,
    without_class_token,
    with_sizes,
    with_other_layers,
    behind_a_projector,
    with_words,
    placed_with_separators,
    merged_on_the_way,
]


def agree(method, pictures):
    """Deciding together is deciding one by one: the same places, weights up to rounding."""
    together = method.decide(pictures)
    assert len(together) == len(pictures)
    for found, tokens in zip(together, pictures, strict=True):
        alone = method(tokens)
        assert found.index.tolist() == alone.index.tolist()
        assert (found.weights is None) == (alone.weights is None)
        if found.weights is not None:
            torch.testing.assert_close(found.weights, alone.weights, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(found.apply(tokens), alone.apply(tokens), atol=1e-5, rtol=1e-5)


# the same decisions


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", BEFORE)
def test_pictures_of_one_shape(name, kind):
    pictures = [kind(tokens) for tokens in alike(2, grid(name))]
    if "class token" in entry(name).needs and pictures[0].class_key is None:
        pytest.skip("needs a class token")
    agree(prumerge.make(name), pictures)
    agree(prumerge.make(kept(name, 20)), as_one_batch(pictures))


@pytest.mark.parametrize("spec", ["", "keep=9", "keep=0.3"])
@pytest.mark.parametrize("name", OF_PICTURES)
def test_pictures_of_several_shapes(name, spec):
    if name == "none" and spec:
        pytest.skip("takes no budget")
    shapes = [(1, 7, 9), (1, 6, 6), (1, 9, 7), (2, 5, 6), (1, 7, 9), (1, 1, 12), (2, 5, 6)]
    pictures = [tokens_of(shape, seed=seed) for seed, shape in enumerate(shapes)]
    agree(prumerge.make(f"{name}:{spec}" if spec else name), pictures)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OF_PICTURES)
def test_pictures_in_half_precision_and_full_ones(name, dtype):
    pictures = [*alike(2, (1, 7, 9), dtype=dtype), *alike(2, (1, 7, 9))]
    agree(prumerge.make(kept(name, 9)), pictures)


@pytest.mark.parametrize("count", [4, 31])
@pytest.mark.parametrize("own", [True, False], ids=["a class token each", "one class token"])
@pytest.mark.parametrize("name", BEFORE)
def test_videos(name, own, count):
    pictures = [tokens_of((3, 4, 5), seed=seed, class_tokens=3 if own else 1) for seed in range(2)]
    agree(prumerge.make(kept(name, max(count, 20 if name == "evs" else 0))), pictures)


@pytest.mark.parametrize("own", [True, False], ids=["a class token each", "one class token"])
@pytest.mark.parametrize("name", [name for name in BEFORE if not entry(name).video])
def test_videos_frame_by_frame(name, own):
    pictures = [tokens_of((3, 4, 5), seed=seed, class_tokens=3 if own else 1) for seed in range(2)]
    agree(prumerge.make(f"{kept(name, 5)}@each"), [*pictures, tokens_of((1, 6, 6))])
    agree(prumerge.make(f"{name}@merged=0.5"), pictures)


@pytest.mark.parametrize("name", [name for name in OF_PICTURES if name != "hired"])
def test_pictures_in_tiles(name):
    pictures = [in_tiles(tokens_of((3, 4, 5), seed=seed, class_tokens=3)) for seed in range(3)]
    agree(prumerge.make(kept(name, 20)), [*pictures, tokens_of((1, 7, 9))])


@pytest.mark.parametrize(
    "spec",
    ["prumerge+topk:keep=3", "visionzip:keep=20+scope:keep=6", "topk+prumerge_plus", "pool:keep=30+trim"],
)
def test_chains(spec):
    shapes = [(1, 7, 9), (1, 6, 6), (1, 7, 9), (2, 5, 6)]
    agree(prumerge.make(spec), [tokens_of(shape, seed=seed) for seed, shape in enumerate(shapes)])


@pytest.mark.parametrize(
    "options", ["min_keep=20", "max_keep=9", "min_keep=6,max_keep=6", "variant=paper", "k=auto"]
)
@pytest.mark.parametrize("name", ["prumerge", "prumerge_plus"])
def test_bounds_and_variants(name, options):
    agree(prumerge.make(f"{name}:{options}"), alike(6, (1, 9, 9)))


@pytest.mark.parametrize(
    "name", [one for one in BEFORE if isinstance(getattr(prumerge.make(one), "merge", None), float)]
)
def test_merging_into_what_was_chosen(name):
    agree(prumerge.make(f"{kept(name, 25)},merge=0.5"), alike(4, grid(name)))


@settings(max_examples=25)
@given(st.data())
def test_any_batch(data):
    name = data.draw(st.sampled_from(OF_PICTURES))
    shapes = st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(2, 6))
    batch = data.draw(st.lists(st.tuples(shapes, st.integers(0, 99)), min_size=1, max_size=6))
    pictures = [tokens_of(shape, seed=seed) for shape, seed in batch for _ in range(2)]
    count = data.draw(st.integers(1, min(len(one) for one in pictures)))
    agree(prumerge.make(kept(name, count)), pictures)


@pytest.mark.parametrize("name", BEFORE)
def test_no_pictures_are_no_decisions(name):
    assert prumerge.make(name).decide([]) == []


@pytest.mark.parametrize("name", BEFORE)
def test_however_many_are_decided_at_once(name, monkeypatch):
    pictures, method = alike(4, grid(name)), prumerge.make(kept(name, 30))
    for size in (1, 3):
        monkeypatch.setattr(batching, "_at_once", lambda pictures, size=size: size)
        agree(method, pictures)


@pytest.mark.parametrize("name", ["prumerge", "prumerge_plus", "prumerge:variant=paper", "resampler"])
def test_gradients_are_those_of_one_by_one(name):
    def gradients(decide):
        pictures = alike(3, (1, 7, 9))
        for tokens in pictures:
            tokens.features.requires_grad_()
            tokens.keys.requires_grad_()
        reductions = decide(pictures)
        total = sum((one.apply(tokens) ** 2).sum() for one, tokens in zip(reductions, pictures, strict=True))
        wanted = [tensor for tokens in pictures for tensor in (tokens.features, tokens.keys)]
        return torch.autograd.grad(total, wanted, allow_unused=True)

    method = prumerge.make(name)
    together, alone = gradients(method.decide), gradients(lambda pictures: [method(one) for one in pictures])
    for one, other in zip(together, alone, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["cdpruner", "trim", "eadp", "anchorprune"])
def test_a_picture_without_words_is_refused_in_a_batch_too(name):
    pictures = [with_words(tokens) for tokens in alike(3, (1, 7, 9))]
    pictures[1] = replace(pictures[1], text=lambda: torch.zeros(0, 96))
    with pytest.raises(ValueError, match=f"{name} needs text"):
        prumerge.make(name).decide(pictures)


# how much is asked of the device


@pytest.mark.parametrize("name", BEFORE)
def test_a_batch_takes_no_more_than_twice_the_operators_of_one_picture(name):
    pictures = as_one_batch(alike(8, (2, 12, 24) if name in COMPARES_FRAMES else (1, 24, 24)))
    method = prumerge.make(kept(name, 300 if name in COMPARES_FRAMES else 64))
    with torch.inference_mode():
        assert operators(method.decide, pictures) <= 2 * operators(method, pictures[0])


@pytest.mark.parametrize(("name", "most"), STEPWISE.items())
def test_a_step_of_a_greedy_selection_is_a_handful_of_operators(name, most):
    tokens = tokens_of((1, 24, 24))
    few, many = (operators(prumerge.make(f"{name}:keep={count}"), tokens) for count in (64, 80))
    assert many - few <= 16 * most


def test_a_round_of_vispruner_is_ten_operators_at_most():
    tokens = tokens_of((1, 24, 24))
    few, many = (operators(prumerge.make(f"vispruner:keep=64,step={step}"), tokens) for step in (8, 4))
    assert many - few <= 60 * 10


class Waits:
    """How often a length or a value was asked of the device."""

    count = 0

    def __init__(self, monkeypatch):
        for name in ("item", "tolist", "__bool__", "__int__", "__index__", "nonzero"):
            original = getattr(torch.Tensor, name)

            def noticed(tensor, *args, original=original, **kwargs):
                self.count += 1
                return original(tensor, *args, **kwargs)

            monkeypatch.setattr(torch.Tensor, name, noticed)


@pytest.mark.parametrize("name", BEFORE)
def test_one_wait_for_the_device_for_all_pictures_and_only_where_a_count_depends_on_them(name, monkeypatch):
    pictures = [*alike(4, grid(name)), *alike(3, (3, 5, 7))]
    method, fixed = prumerge.make(name), prumerge.make(kept(name, 50))
    waits = Waits(monkeypatch)
    fixed.decide(pictures)
    assert waits.count == 0
    method.decide(pictures)
    assert waits.count == (name in ADAPTIVE)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_scores_are_computed_once(name, monkeypatch):
    method, seen = prumerge.make(name), []
    assert isinstance(method, Adaptive)
    scores = type(method).scores

    def noted(self, tokens):
        seen.append(tokens)
        return scores(self, tokens)

    monkeypatch.setattr(type(method), "scores", noted)
    method.decide(alike(5, (1, 9, 9)))
    assert len(seen) == 1


# methods of others


@dataclass(frozen=True, kw_only=True)
class Loud(Reducer):
    """As many as are loud: a length that depends on data."""

    def __call__(self, tokens):
        return Reduction((tokens.features.norm(dim=-1) > 3).nonzero()[:, 0])


@dataclass(frozen=True, kw_only=True)
class Written(FrameByFrame):
    """Writes into a constant, and looks at a value."""

    keep: int | float = 5

    def choose(self, tokens, count):
        scores = torch.zeros(len(tokens))
        scores[:] = tokens.features[:, 0]
        if scores.max() > 0:
            scores.index_fill_(0, scores.argmax()[None], -1)
        return Reduction(ops.top(scores, count))


@dataclass(frozen=True, kw_only=True)
class AboveTheMean(Adaptive):
    """Scores above their mean."""

    def scores(self, tokens):
        return tokens.features.norm(dim=-1)

    def wanted(self, scores):
        return (scores > scores.mean()).sum()

    def choose(self, tokens, scores, count):
        return Reduction(ops.top(scores, count))


@dataclass(frozen=True, kw_only=True)
class Broken(FrameByFrame):
    """Has a fault."""

    keep: int | float = 5

    def choose(self, tokens, count):
        return Reduction(tokens.features.view(-1, 7)[:count].argmax(1))


@pytest.mark.parametrize(
    "method", [Loud(), Written(), AboveTheMean()], ids=lambda method: type(method).__name__
)
def test_whatever_a_method_does_with_one_picture_it_does_with_many(method):
    agree(method, alike(4, (1, 7, 9)))


def test_a_fault_in_a_method_shows_itself_as_it_is():
    with pytest.raises(RuntimeError, match="is invalid for input of size"):
        Broken().decide(alike(3, (1, 5, 5)))


# batches


def test_parts_of_one_tensor_are_laid_together_without_a_copy():
    whole = torch.randn(5, 7, 3)
    view = batching.stacked([one[2:] for one in whole])
    assert torch.equal(view, whole[:, 2:])
    assert view.data_ptr() == whole[:, 2:].data_ptr()
    assert torch.equal(batching.stacked(whole.unbind()[::2]), whole[::2])
    assert torch.equal(batching.stacked([whole[0]] * 3), whole[:1].expand(3, -1, -1))


@pytest.mark.parametrize("order", [[0, 2, 1], [2, 1, 0], [0, 1, 3]], ids=str)
def test_what_does_not_lie_evenly_is_copied(order):
    whole = torch.randn(5, 7, 3)
    assert torch.equal(batching.stacked([whole[number] for number in order]), whole[order])
    alone = [whole[number].clone() for number in order]
    assert torch.equal(batching.stacked(alone), whole[order])


def test_gradients_go_to_every_part():
    whole = torch.randn(3, 4, requires_grad=True)
    batching.stacked(whole.unbind()).sum().backward()
    assert torch.equal(whole.grad, torch.ones(3, 4))
