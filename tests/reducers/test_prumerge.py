"""PruMerge and PruMerge+ against an independent implementation, for every option."""

import pytest
import reference
import torch
from builders import visual_tokens

import prumerge

GRIDS = [(1, 24, 24), (1, 7, 9), (1, 16, 16), (2, 5, 6)]
ODD = (1, 7, 9)


def agree(tokens, plus=False, **options):
    """The reduction, after comparing it with the reference."""
    name = "prumerge_plus" if plus else "prumerge"
    spec = ",".join(f"{option}={value}" for option, value in options.items())
    reduction = prumerge.make(f"{name}:{spec}" if spec else name)(tokens)
    rows, index = reference.prumerge(tokens, plus=plus, **options)
    assert reduction.index.tolist() == index
    torch.testing.assert_close(
        reduction.apply(tokens).double(), torch.tensor(rows).double(), atol=1e-4, rtol=1e-4
    )
    return reduction


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("plus", [False, True], ids=["prumerge", "prumerge_plus"])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_variants_on_grids_of_any_shape(grid, plus, variant):
    agree(visual_tokens(grid), plus, variant=variant)


@pytest.mark.parametrize("plus", [False, True], ids=["prumerge", "prumerge_plus"])
@pytest.mark.parametrize(
    "option",
    [
        {"heads": "split"},
        {"order": "spatial"},
        {"candidates": "pruned"},
        {"merge": "average"},
        {"extra_token": False},
        {"iqr": 0.0},
        {"iqr": 0.5},
        {"iqr": 3.0},
        {"min_keep": 20},
        {"max_keep": 5},
        {"min_keep": 6, "max_keep": 6},
        {"k": 0},
        {"k": 1},
        {"k": 1000},
        {"k": "auto"},
        {"k": "auto", "candidates": "pruned"},
        {"k": 1000, "candidates": "pruned"},
        {"k": 0, "merge": "average"},
        {"merge": "average", "candidates": "others", "heads": "joint"},
        {"variant": "paper", "heads": "joint"},
        {"variant": "paper", "order": "score"},
        {"variant": "paper", "candidates": "others"},
        {"variant": "paper", "merge": "sum"},
        {"variant": "paper", "extra_token": True},
    ],
    ids=lambda option: ",".join(f"{name}={value}" for name, value in option.items()),
)
def test_each_option(option, plus):
    agree(visual_tokens(ODD, seed=1), plus, **option)


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("plus", [False, True], ids=["prumerge", "prumerge_plus"])
@pytest.mark.parametrize("keep", [1, 2, 3, 31, 61, 62, 63])
def test_budgets_up_to_all_tokens(keep, plus, variant):
    reduction = agree(visual_tokens(ODD, seed=2), plus, variant=variant, keep=keep)
    assert len(reduction) == keep + (variant == "code" and keep < 63)


@pytest.mark.parametrize("candidates", ["others", "pruned"])
def test_more_neighbours_asked_for_than_there_are(candidates):
    agree(visual_tokens(ODD, seed=3), keep=60, k=32, candidates=candidates)


@pytest.mark.parametrize("plus", [False, True], ids=["prumerge", "prumerge_plus"])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_flat_attention_keeps_the_papers_mean_share(grid, plus):
    tokens = visual_tokens(grid, peak=0)
    important = max(1, len(tokens) // 18)
    reduction = agree(tokens, plus)
    assert reduction.index[:important].tolist() == list(range(important))
    assert plus or len(reduction) == important + 1


def test_more_than_a_sixth_of_outliers_do_not_keep_everything():
    tokens = visual_tokens((1, 12, 12), seed=5)
    outliers = len(prumerge.make("topk:iqr=0")(tokens))
    assert outliers > len(tokens) / 6
    assert outliers < len(agree(tokens, plus=True, iqr=0)) < len(tokens)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("plus", [False, True], ids=["prumerge", "prumerge_plus"])
def test_a_handful_of_tokens(count, plus):
    agree(visual_tokens((1, 1, count), seed=count), plus)


@pytest.mark.parametrize("seed", range(8))
def test_many_pictures(seed):
    tokens = visual_tokens((1, 8, 8), seed=100 + seed)
    agree(tokens)
    agree(tokens, plus=True)
    agree(tokens, variant="paper", k="auto")


def test_the_count_follows_the_picture():
    assert len({len(prumerge.make("prumerge")(visual_tokens(seed=seed))) for seed in range(5)}) > 1


def test_the_extra_token_stands_where_the_strongest_pruned_token_was():
    tokens = visual_tokens(ODD)
    index = prumerge.make("prumerge:keep=5")(tokens).index
    ranked = tokens.attention(split_heads=False).argsort(descending=True)
    assert index[-1] == ranked[5]


def test_an_average_is_a_mean_with_weights_that_sum_to_one():
    weights = prumerge.make("prumerge:merge=average")(visual_tokens()).weights
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    assert (weights >= 0).all()
