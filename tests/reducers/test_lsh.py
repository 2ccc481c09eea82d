"""Buckets of Reformer's hash as groups of tokens."""

import hashing
import numpy as np
import pytest
import torch
from builders import visual_tokens

import prumerge


def loop(tokens, count, rounds, buckets, seed):
    drawn = np.random.default_rng(seed)
    rotations = drawn.standard_normal((rounds, tokens.keys.shape[1], buckets // 2), dtype=np.float32)
    line = drawn.standard_normal(tokens.keys.shape[1], dtype=np.float32).astype(float)
    turned = rotations.astype(float).swapaxes(1, 2)
    return hashing.lsh(tokens.keys.double().tolist(), count, turned.tolist(), line.tolist())


@pytest.mark.parametrize("count", [1, 5, 20, 62])
@pytest.mark.parametrize(("rounds", "buckets"), [(1, 2), (1, 16), (2, 4), (3, 6)])
@pytest.mark.parametrize("grid", [(1, 7, 9), (3, 3, 7)], ids=str)
def test_the_same_groups_as_a_loop_in_double_precision(grid, rounds, buckets, count):
    tokens = visual_tokens(grid, seed=rounds)
    reduction = prumerge.make(f"lsh:keep={count},rounds={rounds},buckets={buckets},seed=7")(tokens)
    expected = loop(tokens, count, rounds, buckets, 7)
    assert reduction.index.tolist() == [place for place, _ in expected]
    for row, (place, members) in enumerate(expected):
        assert (reduction.assignment == row).nonzero()[:, 0].tolist() == members
        assert place in members
    means = torch.stack([tokens.features[members].mean(0) for _, members in expected])
    torch.testing.assert_close(reduction.apply(tokens), means)


def test_equal_keys_are_one_group_as_long_as_there_are_rows_for_it():
    tokens = visual_tokens((1, 8, 8))
    part = torch.arange(64) % 5
    tokens.keys.copy_(torch.randn(5, tokens.keys.shape[1], generator=torch.Generator().manual_seed(3))[part])
    reduction = prumerge.make("lsh:keep=5,buckets=64,rounds=3")(tokens)
    assert torch.equal(part[reduction.index][reduction.assignment], part)


def test_it_goes_before_another_method_on_a_long_clip():
    tokens = visual_tokens((16, 16, 16), channels=8)
    chain = prumerge.make("lsh:keep=256+medoids:keep=32")
    assert len(chain(tokens)) == 32


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("lsh:rounds=0", "rounds must be at least 1"),
        ("lsh:seed=-1", "rounds must be at least 1, and seed not negative"),
        ("lsh:buckets=5", "buckets is an even number"),
        ("lsh:buckets=0", "buckets is an even number"),
    ],
)
def test_an_option_out_of_its_range_is_refused(asked, sentence):
    with pytest.raises(ValueError, match=f"{asked}: {sentence}"):
        prumerge.make(asked)
