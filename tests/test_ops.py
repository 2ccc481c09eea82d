"""The shared tensor functions, as properties of every input."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prumerge import ops

CPU = torch.device("cpu")
SCORES = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=80).map(torch.tensor)
FACTORS = st.sampled_from([0.0, 0.5, 1.5, 3.0])
GRIDS = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))


@st.composite
def keys_and_places(draw):
    count = draw(st.integers(1, 30))
    seed = draw(st.integers(0, 1000))
    keys = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    places = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=count, unique=True))
    return keys, torch.tensor(places)


@st.composite
def grid_and_count(draw):
    grid = draw(GRIDS)
    return grid, draw(st.integers(1, math.prod(grid)))


# outliers


@given(SCORES, FACTORS)
def test_the_upper_fence_is_that_of_numpy(scores, factor):
    q1, q3 = np.percentile(scores.double().numpy(), [25, 75])
    assert ops.upper_fence(scores, factor).item() == pytest.approx(q3 + factor * (q3 - q1), abs=1e-6)


@given(SCORES, FACTORS)
def test_outliers_lie_strictly_above_the_fence(scores, factor):
    fence = ops.upper_fence(scores, factor)
    assert ops.outliers(scores, factor).tolist() == [score > fence.item() for score in scores.tolist()]


@given(SCORES, FACTORS)
def test_there_is_always_something_to_keep(scores, factor):
    count = ops.outlier_count(scores, factor)
    assert 1 <= count <= len(scores)
    assert count == (int(ops.outliers(scores, factor).sum()) or max(1, len(scores) // 18))


@pytest.mark.parametrize(("available", "kept"), [(1, 1), (17, 1), (36, 2), (576, 32)])
def test_equal_scores_keep_one_in_eighteen(available, kept):
    assert ops.outlier_count(torch.full((available,), 0.5)) == kept


@given(SCORES, st.data())
def test_the_top_is_best_first_and_equal_scores_in_spatial_order(scores, data):
    count = data.draw(st.integers(0, len(scores)))
    values = scores.tolist()
    expected = sorted(range(len(values)), key=lambda place: (-values[place], place))[:count]
    assert ops.top(scores, count).tolist() == expected


# neighbours


def cosine(left, right):
    return float(left.double() @ right.double() / left.double().norm() / right.double().norm())


@given(keys_and_places(), st.integers(0, 40))
def test_the_nearest_are_those_of_a_search_by_hand(keys_places, k):
    keys, places = keys_places
    found = ops.nearest(keys, places, k)
    assert found.shape == (len(places), min(k, len(keys) - 1))
    for place, neighbours in zip(places.tolist(), found.tolist(), strict=True):
        others = [other for other in range(len(keys)) if other != place]
        others.sort(key=lambda other: -cosine(keys[place], keys[other]))
        assert set(neighbours) == set(others[:k])


@given(keys_and_places(), st.integers(0, 40))
def test_the_nearest_pruned_ones_are_those_of_a_search_by_hand(keys_places, k):
    keys, places = keys_places
    found = ops.nearest(keys, places, k, pruned_only=True)
    assert found.shape == (len(places), min(k, len(keys) - len(places)))
    for place, neighbours in zip(places.tolist(), found.tolist(), strict=True):
        others = sorted(set(range(len(keys))) - set(places.tolist()))
        others.sort(key=lambda other: -cosine(keys[place], keys[other]))
        assert set(neighbours) == set(others[:k])


def test_lengths_of_keys_do_not_matter():
    keys = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    scaled = keys * torch.linspace(0.1, 10, 20)[:, None]
    places = torch.tensor([0, 7, 19])
    one, other = (ops.nearest(x, places, 5).sort(dim=1).values for x in (keys, scaled))
    assert torch.equal(one, other)


def test_keys_of_zero_and_of_half_precision_have_neighbours_too():
    keys = torch.zeros(5, 4, dtype=torch.float16)
    found = ops.nearest(keys, torch.tensor([2]), 4)
    assert sorted(found[0].tolist()) == [0, 1, 3, 4]


# merging


@given(keys_and_places(), st.integers(0, 10), st.booleans())
def test_absorbing_by_sum_is_the_token_and_its_weighted_neighbours(keys_places, k, extra):
    keys, places = keys_places
    scores = keys[:, 0].softmax(0)
    neighbours = ops.nearest(keys, places, k)
    rest = ops.complement(places, len(keys))
    weights = ops.absorb(places, neighbours, scores, average=False, rest=rest if extra else None)
    expected = torch.zeros(len(places) + extra, len(keys))
    for row, place in enumerate(places.tolist()):
        for neighbour in neighbours[row].tolist():
            expected[row, neighbour] = scores[neighbour]
        expected[row, place] = 1
    if extra:
        expected[-1] = torch.where(rest, scores, 0)
    assert torch.equal(weights, expected)


@given(keys_and_places(), st.integers(0, 10))
def test_absorbing_by_average_is_a_mean_weighted_by_scores(keys_places, k):
    keys, places = keys_places
    scores = keys[:, 0].softmax(0)
    neighbours = ops.nearest(keys, places, k)
    weights = ops.absorb(places, neighbours, scores, average=True)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(places)))
    for row, place in enumerate(places.tolist()):
        group = [place, *neighbours[row].tolist()]
        torch.testing.assert_close(weights[row, group], scores[group] / scores[group].sum())
        assert int((weights[row] > 0).sum()) == len(group)


def test_scores_that_are_all_zero_do_not_divide_by_zero():
    index, neighbours = torch.tensor([0]), torch.tensor([[1, 2]])
    assert ops.absorb(index, neighbours, torch.zeros(4), average=True).isfinite().all()


# places


@given(st.integers(0, 60), st.integers(0, 60))
def test_even_places_are_the_middles_of_equal_shares(count, more):
    among = count + more
    places = ops.evenly(count, among, CPU).tolist()
    assert places == [math.floor((i + 0.5) * among / count + 1e-9) for i in range(count)]
    assert len(set(places)) == count
    assert all(0 <= place < among for place in places)


@given(keys_and_places())
def test_the_complement_is_true_elsewhere(keys_places):
    keys, places = keys_places
    kept = set(places.tolist())
    assert ops.complement(places, len(keys)).tolist() == [place not in kept for place in range(len(keys))]


@given(st.lists(st.booleans(), max_size=40))
def test_places_are_those_that_are_true_in_order(where):
    expected = [place for place, true in enumerate(where) if true]
    assert ops.places(torch.tensor(where, dtype=torch.bool), len(expected)).tolist() == expected


@given(keys_and_places())
def test_one_hot_weights_are_plain_pruning(keys_places):
    keys, places = keys_places
    assert torch.equal(ops.one_hot(places, len(keys)) @ keys, keys[places])


@pytest.mark.parametrize(("text", "grid"), [("5x8", (5, 8)), ("1X12", (1, 12)), ("24x24", (24, 24))])
def test_a_grid_is_rows_by_columns(text, grid):
    assert ops.rows_by_columns(text) == grid


@pytest.mark.parametrize("text", ["5", "5x", "x8", "0x5", "5x0", "-1x5", "5x5x5", "axb", "1.5x2", ""])
def test_anything_else_is_no_grid(text):
    with pytest.raises(ValueError, match="rows x columns, such as 5x8"):
        ops.rows_by_columns(text)


# cells


def sides(cell, grid):
    """Rows and columns of each cell, checked to be a full rectangle."""
    columns = grid[2]
    found = []
    for one in range(int(cell.max()) + 1):
        places = (cell == one).nonzero().flatten()
        rows, across = (places // columns).unique(), (places % columns).unique()
        assert len(places) == len(rows) * len(across)
        assert int(rows.max() - rows.min()) + 1 == len(rows)
        assert int(across.max() - across.min()) + 1 == len(across)
        found.append((len(rows), len(across), int(rows.min())))
    return found


@given(grid_and_count())
def test_cells_divide_the_grid_into_just_so_many_rectangles(grid_count):
    grid, asked = grid_count
    cell, count = ops.cells(grid, asked, None, CPU)
    assert count == asked
    assert sorted(set(cell.tolist())) == list(range(count))
    assert len(sides(cell, grid)) == count


@given(grid_and_count())
def test_cells_are_nearly_equal(grid_count):
    """Heights differ by one at most, widths within a band of cells by one, and cells in a band by one."""
    grid, asked = grid_count
    cell, _ = ops.cells(grid, asked, None, CPU)
    bands = {}
    heights = set()
    for height, width, row in sides(cell, grid):
        heights.add(height)
        bands.setdefault(row, []).append(width)
    assert max(heights) - min(heights) <= 1
    assert all(max(widths) - min(widths) <= 1 for widths in bands.values())
    lengths = [len(widths) for widths in bands.values()]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("grid", "count", "height", "width"),
    [((1, 24, 24), 36, 4, 4), ((1, 24, 24), 144, 2, 2), ((1, 6, 12), 8, 3, 3), ((2, 4, 4), 8, 2, 2)],
)
def test_cells_are_squares_where_the_numbers_allow_it(grid, count, height, width):
    cell, _ = ops.cells(grid, count, None, CPU)
    assert {(rows, columns) for rows, columns, _ in sides(cell, grid)} == {(height, width)}


def test_a_shape_divides_each_frame_alike():
    cell, count = ops.cells((2, 4, 6), None, "2x3", CPU)
    first, second = cell.view(2, 4, 6)
    assert count == 12
    assert torch.equal(second, first + 6)
    assert first.tolist() == [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2


def test_a_shape_finer_than_the_picture_is_refused():
    with pytest.raises(ValueError, match="a grid of 5x4 is finer than the 4x6 visual tokens"):
        ops.cells((1, 4, 6), None, "5x4", CPU)


@given(grid_and_count())
def test_every_centre_lies_in_its_own_cell(grid_count):
    grid, asked = grid_count
    cell, count = ops.cells(grid, asked, None, CPU)
    centres = ops.centres(cell, count, grid[2])
    assert cell[centres].tolist() == list(range(count))


def test_the_centre_of_an_odd_cell_is_its_middle():
    cell, count = ops.cells((1, 5, 5), 1, None, CPU)
    assert ops.centres(cell, count, 5).tolist() == [12]


@given(grid_and_count())
def test_members_are_one_in_their_cell(grid_count):
    grid, asked = grid_count
    cell, count = ops.cells(grid, asked, None, CPU)
    assert torch.equal(ops.members(cell, count), (cell == torch.arange(count)[:, None]).float())


# similarity and budgets


def test_cosines_are_those_of_torch():
    vectors = torch.randn(9, 4, dtype=torch.float64)
    expected = torch.cosine_similarity(vectors[:, None], vectors[None], dim=-1).float()
    torch.testing.assert_close(ops.cosines(vectors), expected)


def test_relevance_is_the_mean_cosine_on_a_scale_from_0_to_1():
    image, text = torch.randn(9, 4), torch.randn(3, 4)
    mean = torch.cosine_similarity(image[:, None], text[None], dim=-1).mean(1)
    relevance = ops.relevance(image, text, inverted=False)
    torch.testing.assert_close(relevance, (mean - mean.min()) / (mean.max() - mean.min()), atol=1e-5, rtol=0)
    torch.testing.assert_close(ops.relevance(image, text, inverted=True), 1 - relevance, atol=1e-5, rtol=0)
    assert ops.relevance(image[:1].expand(5, 4), text, inverted=True).tolist() == [0] * 5


@given(keys_and_places(), st.data())
def test_each_point_is_the_farthest_from_those_before(example, data):
    points, places = example
    distance = torch.cdist(points, points)
    count = data.draw(st.integers(1, len(points)))
    chosen = ops.farthest_points(distance, places[:1], count)
    assert len(set(chosen.tolist())) == count
    for step in range(1, count):
        nearest = distance[chosen[:step]].min(0).values
        assert nearest[chosen[step]] == nearest.max()


def greedily(count, available, gain):
    """The places that gain most, one after the other."""
    chosen = []
    while len(chosen) < count:
        free = [place for place in range(available) if place not in chosen]
        chosen.append(max(free, key=lambda place: gain(chosen, place)))
    return sorted(chosen)


@given(keys_and_places(), st.data())
def test_each_token_adds_most_to_the_determinant(example, data):
    vectors, _ = example  # of rank 6
    kernel = ops.cosines(vectors)
    count = data.draw(st.integers(1, min(5, len(vectors))))

    def gain(chosen, place):
        rows = [*chosen, place]
        return float(torch.linalg.det(kernel.double()[rows][:, rows]))

    found = ops.largest_determinant(kernel.clone(), count).sort().values.tolist()
    assert found == greedily(count, len(vectors), gain)


@given(keys_and_places())
def test_beyond_the_rank_of_a_kernel_every_token_is_chosen_once(example):
    vectors, _ = example
    chosen = ops.largest_determinant(ops.cosines(vectors), len(vectors))
    assert sorted(chosen.tolist()) == list(range(len(vectors)))


@given(keys_and_places(), st.data())
def test_each_token_covers_most_of_what_is_left(example, data):
    vectors, _ = example
    similarity, weight = ops.cosines(vectors), vectors[:, 0].softmax(0)
    count = data.draw(st.integers(1, min(4, len(vectors))))
    exact = similarity.double().clamp_min(0)

    def gain(chosen, place):
        covered = exact[chosen].amax(0) if chosen else torch.zeros(len(vectors))
        return float((exact[place] - covered).clamp_min(0).sum() * weight[place])

    found = ops.best_coverage(similarity.clone(), weight, count).sort().values.tolist()
    assert found == greedily(count, len(vectors), gain)


def test_where_nothing_is_left_to_cover_the_first_come_next():
    similarity = torch.ones(6, 6)
    assert ops.best_coverage(similarity, torch.ones(6), 4).tolist() == [0, 1, 2, 3]


SHARES = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12).map(torch.tensor)


@given(SHARES, st.integers(0, 200))
def test_budgets_add_up_and_are_within_one_of_their_share(shares, count):
    budgets = ops.allot(count, shares)
    assert int(budgets.sum()) == count
    exact = (
        count * shares / shares.sum()
        if shares.sum() > 1e-30
        else torch.full_like(shares, count / len(shares))
    )
    assert ((budgets - exact).abs() <= 1 + 1e-3).all()


@given(SCORES, st.data())
def test_the_best_of_each_part_are_kept_and_a_count_is_met(scores, data):
    parts = data.draw(st.integers(1, 5))
    part = torch.tensor(
        data.draw(st.lists(st.integers(0, parts - 1), min_size=len(scores), max_size=len(scores)))
    )
    budgets = torch.tensor(data.draw(st.lists(st.integers(0, 10), min_size=parts, max_size=parts)))
    count = data.draw(st.integers(min(int(budgets.sum()), len(scores)), len(scores)))
    kept = ops.best_of_each(scores, part, budgets, count).tolist()
    assert len(set(kept)) == count
    assert kept == sorted(kept)
    for number in range(parts):
        inside = [i for i in range(len(scores)) if part[i] == number]
        best = sorted(inside, key=lambda i: -scores[i])[: budgets[number]]
        assert set(best) <= set(kept)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("settled", [True, False], ids=["until it is settled", "every round"])
def test_who_survives_suppresses_what_is_similar_and_not_better(settled, seed, monkeypatch):
    chance = torch.Generator().manual_seed(seed)
    similar = torch.rand(40, 40, generator=chance) < 0.1 + 0.2 * seed
    similar, scores = similar | similar.T, torch.randint(12, (40,), generator=chance).float()
    expected = []
    for place in sorted(range(40), key=lambda place: -scores[place]):
        if not any(similar[place, other] for other in expected):
            expected.append(place)
    if not settled:  # as where to look would be to wait for the device
        monkeypatch.setattr(torch, "equal", lambda *_: False)
    assert ops.survivors(similar, scores).nonzero()[:, 0].tolist() == sorted(expected)


def test_those_that_are_far_and_important_join_the_first():
    distance = torch.tensor([0.0, 1.0, 2.0, 5.0, 9.0])
    distance = (distance - distance[:, None]).abs()
    first = torch.tensor([True, False, False, False, False])
    weight = torch.tensor([1.0, 9.0, 1.0, 1.0, 0.5])
    chosen = [ops.important_and_far(distance, weight, first, count, 4).tolist() for count in range(1, 6)]
    assert chosen == [[0], [0, 1], [0, 1, 3], [0, 1, 3, 4], [0, 1, 2, 3, 4]]
