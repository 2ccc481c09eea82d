"""The methods of other papers against independent loops in double precision, over odd grids and seeds."""

from dataclasses import replace
from itertools import product

import pytest
import reference_later as later
import reference_methods as reference
import torch
from builders import visual_tokens

import prumerge
from prumerge.reducers.sparsevlm import density_peaks

GRIDS = [(1, 7, 9), (1, 8, 8), (3, 4, 5)]
VIDEOS = [(2, 5, 6), (3, 4, 5), (4, 1, 7)]
SIZES = [((1, 7, 9), 1), ((1, 7, 9), 12), ((1, 8, 8), 7), ((3, 4, 5), 2), ((3, 4, 5), 7)]
"""One token and several, fewer than there are frames, and not as many in each. The features have 16 channels:
beyond their rank CDPruner has nothing to go by."""
CHOOSERS: dict[str, list[dict[str, float]]] = {
    "cosine": [{}],
    "prunesid": [{"class_token": False}],
    "eadp": [{}, {"beta": 2.0}],
    "anchorprune": [{}, {"least": 2, "patience": 1}, {"novelty": 0.9, "most": 0.8}, {"most": 0.0}],
    "divprune": [{}],
    "cdpruner": [{}, {"theta": 0.3}, {"theta": 0.8}],
    "scope": [{}, {"alpha": 0.0}, {"alpha": 2.0}],
    "vispruner": [{}, {"important": 0.0}, {"important": 0.8, "step": 3}, {"important": 1.0}],
    "fastervlm": [{}],
    "dart": [{}, {"pivots": 1}, {"pivots": 5}],
    "holov": [{"crops": 4}, {"crops": 3}, {"crops": 1}],
}
PLAIN = {name: {} for name in CHOOSERS} | {"prunesid": {"class_token": False}}
"""Options with which a method gives places of patches alone."""


def loop(name):
    return getattr(later, name, None) or getattr(reference, name)


def spec(name, count, options):
    return f"{name}:" + ",".join(f"{key}={value}" for key, value in {"keep": count, **options}.items())


@pytest.mark.parametrize(("grid", "count"), SIZES, ids=str)
@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name, each in CHOOSERS.items() for options in each], ids=str
)
def test_the_same_places(name, options, grid, count):
    tokens = visual_tokens(grid, seed=count, class_tokens=grid[0])
    expected = reference.frame_by_frame(loop(name), tokens, count, **options)
    assert prumerge.make(spec(name, count, options))(tokens).index.tolist() == expected


@pytest.mark.parametrize("count", [30, 59])
@pytest.mark.parametrize(
    "name", [name for name in CHOOSERS if name not in ("cdpruner", "scope", "divprune", "eadp")]
)
def test_most_tokens(name, count):
    tokens = visual_tokens((1, 7, 9), seed=count)
    expected = reference.frame_by_frame(loop(name), tokens, count, **PLAIN[name])
    assert prumerge.make(spec(name, count, PLAIN[name]))(tokens).index.tolist() == expected


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CHOOSERS)
def test_many_pictures(name, seed):
    tokens = visual_tokens((1, 6, 7), seed=100 + seed)
    expected = reference.frame_by_frame(loop(name), tokens, 9, **PLAIN[name])
    assert prumerge.make(spec(name, 9, PLAIN[name]))(tokens).index.tolist() == expected


@pytest.mark.parametrize(
    ("options", "count"),
    [
        *product([{}, {"contextual": 0}, {"class_token": False}], [1, 2, 3, 16, 40, 63]),
        *product([{"contextual": 1}], [2, 3, 16, 40, 63]),
    ],
    ids=str,
)
def test_visionzip_merges_the_same_rows(options, count):
    tokens = visual_tokens((1, 7, 9), seed=count)
    [frame] = reference.frames_of(tokens)
    expected = torch.tensor(reference.visionzip(frame, count, **options))
    reduced = prumerge.make(spec("visionzip", count, options))(tokens).apply(tokens)
    torch.testing.assert_close(reduced.double(), expected.double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [3, 20, 33])
@pytest.mark.parametrize("class_tokens", [1, 3])
def test_visionzip_of_a_video_is_that_of_its_frames(class_tokens, count):
    tokens = visual_tokens((3, 4, 5), class_tokens=class_tokens)
    rows = []
    for number, frame in enumerate(reference.frames_of(tokens)):
        rows += reference.visionzip(frame, count * (number + 1) // 3 - count * number // 3)
    reduced = prumerge.make(f"visionzip:keep={count}")(tokens).apply(tokens)
    torch.testing.assert_close(reduced.double(), torch.tensor(rows).double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("grid", [(1, 7, 9), *VIDEOS, (5, 3, 3)], ids=str)
def test_hired_divides_the_budget_among_tiles(grid, alpha):
    tokens = visual_tokens(grid, class_tokens=grid[0])
    for count in (1, len(tokens) // 3, len(tokens) - 2):
        index = prumerge.make(f"hired:keep={count},alpha={alpha}")(tokens).index
        assert index.tolist() == reference.hired(tokens, count, alpha)


BY_WORDS = [
    ("eadp", {}),
    ("eadp", {"alpha": 0.0, "words": 0.5}),
    ("eadp", {"words": 0.0, "inverted": False}),
    ("anchorprune", {}),
]


@pytest.mark.parametrize("words", [1, 3, 17])
@pytest.mark.parametrize(("name", "options"), BY_WORDS, ids=str)
def test_words_alone_point_at_the_same_places(name, options, words):
    text = torch.randn(words, 16, generator=torch.Generator().manual_seed(words))
    for grid in GRIDS:
        tokens = replace(visual_tokens(grid, class_tokens=grid[0]), relevance=None, text=lambda: text)
        expected = reference.frame_by_frame(loop(name), tokens, 12, **options)
        assert prumerge.make(spec(name, 12, options))(tokens).index.tolist() == expected


@pytest.mark.parametrize("count", [1, 2, 5, 16, 31, 62, 63])
def test_prunesid_keeps_the_class_token_as_one_of_them(count):
    tokens = visual_tokens((1, 7, 9), seed=count, channels=32)
    [frame] = reference.frames_of(tokens)
    reduction = prumerge.make(f"prunesid:keep={count}")(tokens)
    assert len(reduction) == count
    assert torch.equal(reduction.apply(tokens)[0], tokens.class_feature)
    expected = later.prunesid(frame, count, class_token=True) if count > 1 else []
    assert reduction.index[1:].tolist() == expected
    assert torch.equal(reduction.apply(tokens)[1:], tokens.features[expected])


@pytest.mark.parametrize("options", [{}, {"alpha": 0.6}, {"alpha": 1.0}, {"alpha": 0.0}], ids=str)
@pytest.mark.parametrize("grid", [(1, 7, 9), (1, 3, 4), (1, 9, 2), *VIDEOS], ids=str)
def test_hiprune_keeps_what_a_middle_layer_looks_at_and_what_is_around(grid, options):
    tokens = visual_tokens(grid, class_tokens=grid[0])
    middle = visual_tokens(grid, seed=5, class_tokens=grid[0])
    layers = {0.25: middle, "writer": tokens}
    told = replace(tokens, elsewhere=layers.__getitem__)
    for count in (1, len(tokens) // 4, len(tokens) // 2, len(tokens) - 1):
        expected = []
        for number, frame in enumerate(reference.frames_of(tokens)):
            frame.middle = reference.frames_of(middle)[number].attention
            share = count * (number + 1) // grid[0] - count * number // grid[0]
            places = later.hiprune(frame, share, **options) if share else []
            expected += [number * frame.size + place for place in places]
        index = prumerge.make(spec("hiprune", count, {"layer": 0.25, **options}))(told).index
        assert index.tolist() == expected


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("eadp:alpha=1.5", "alpha is a share from 0 to 1"),
        ("eadp:words=-0.1", "words is a share from 0 to 1"),
        ("eadp:beta=-1.0", "beta must not be negative"),
        ("anchorprune:most=2.0", "most is a share from 0 to 1"),
        ("anchorprune:patience=0", "patience and least must be at least 1"),
        ("anchorprune:least=0", "patience and least must be at least 1"),
        ("hiprune:alpha=1.1", "alpha is a share from 0 to 1"),
    ],
)
def test_an_option_out_of_its_range_is_refused(asked, sentence):
    with pytest.raises(ValueError, match=f"{asked}: {sentence}"):
        prumerge.make(asked)


@pytest.mark.parametrize("layer", ["0", "-3", "1.5", "0.0"])
def test_hiprune_refuses_a_layer_that_no_tower_has(layer):
    with pytest.raises(
        ValueError, match="layer is a whole number, counted from 1, or a share between 0 and 1"
    ):
        prumerge.make(f"hiprune:layer={layer}")


@pytest.mark.parametrize("options", [{}, {"sharpness": 5.0}, {"iqr": 0.5}, {"count": 7}], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_trim_keeps_the_relevant_and_the_mean_of_the_rest(seed, options):
    tokens = visual_tokens((1, 7, 9), seed=seed)
    given = ",".join(f"{'keep' if key == 'count' else key}={value}" for key, value in options.items())
    reduced = prumerge.make(f"trim:{given}" if given else "trim")(tokens).apply(tokens)
    expected = torch.tensor(reference.trim(tokens, **options))
    torch.testing.assert_close(reduced.double(), expected.double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["evs", "vidcom2"])
@pytest.mark.parametrize("grid", VIDEOS, ids=str)
def test_videos(name, grid):
    tokens = visual_tokens(grid)
    for count in (len(tokens) // grid[0], len(tokens) // 2 + 1, len(tokens) - 1):
        index = prumerge.make(f"{name}:keep={count}")(tokens).index
        assert index.tolist() == getattr(reference, name)(tokens, count)


def test_a_resampler_attends_from_the_means_of_cells():
    tokens = visual_tokens((1, 6, 6))
    features = torch.nn.functional.normalize(tokens.features.double(), dim=-1)
    rows = []
    for top, left in ((0, 0), (0, 3), (3, 0), (3, 3)):
        cell = [row * 6 + column for row in range(top, top + 3) for column in range(left, left + 3)]
        query = features[cell].mean(0) / features[cell].mean(0).norm()
        rows.append(torch.softmax(features @ query / 0.2, dim=0) @ tokens.features.double())
    reduced = prumerge.make("resampler:keep=4,temperature=0.2")(tokens).apply(tokens)
    torch.testing.assert_close(reduced.double(), torch.stack(rows), atol=1e-5, rtol=1e-5)


def test_of_two_tokens_that_are_equally_dense_one_is_a_centre():
    """The two nearest of all are, where there are two clusters: both would be as far from what is denser."""
    places = torch.tensor([[0.0], [1.0], [10.0], [11.5]])
    for order in ([0, 1, 2, 3], [1, 0, 3, 2], [3, 2, 1, 0]):
        centres, cluster = density_peaks(places[order], 2)
        assert centres[0] == min(order.index(0), order.index(1))  # the first of the two
        assert (cluster[order.index(0)] == cluster[order.index(1)]) and (
            cluster[order.index(2)] == cluster[order.index(3)]
        )
        assert len(cluster.unique()) == 2


@pytest.mark.parametrize("count", [6, 20, 31, 59])
def test_rounded_budgets_of_frames_meet_the_count_by_score(count):
    """Frames get their rounded share; what is then missing, or too much, is made up by score over all
    frames."""
    tokens = visual_tokens((3, 4, 5))
    divided, rounded = (
        prumerge.make(f"vidcom2:keep={count},budgets={budgets}")(tokens).index
        for budgets in ("divided", "rounded")
    )
    assert len(divided) == len(rounded) == count
    apart = (divided // 20).bincount(minlength=3) - (rounded // 20).bincount(minlength=3)
    assert apart.abs().max() <= 3
