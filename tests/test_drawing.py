"""The pictures: what they show, for any grid."""

import numpy as np
import pytest
import torch
from noise import noise
from PIL import Image

import prumerge
from prumerge.drawing import owners, plot_attention
from prumerge.errors import PrumergeError
from prumerge.tokens import Reduction


def panels(sheet, grid):
    cell = max(4, 480 // max(grid[1:]))
    width, height = grid[2] * cell, grid[1] * cell
    pixels = np.asarray(sheet)
    return [pixels[12 : 12 + height, 12 + n * (width + 12) :][:, :width] for n in range(3)], cell


def test_kept_patches_keep_their_colours_and_the_others_fade():
    grid, image = (1, 4, 4), Image.new("RGB", (100, 100), (200, 0, 0))
    (original, kept, _), cell = panels(prumerge.show(image, grid, Reduction(torch.tensor([0, 5]))), grid)
    assert (original == (200, 0, 0)).all()
    assert (kept[:cell, :cell] == (200, 0, 0)).all()
    assert (kept[cell : 2 * cell, cell : 2 * cell] == (200, 0, 0)).all()
    assert (kept[:cell, cell : 2 * cell] > 150).all()


def test_a_wide_picture_is_cropped_as_the_model_sees_it():
    image = Image.new("RGB", (300, 100), "blue")
    image.paste("lime", (100, 0, 200, 100))
    (original, *_), _ = panels(prumerge.show(image, (1, 4, 4), Reduction(torch.arange(16))), (1, 4, 4))
    assert (original[:, 20:-20] == (0, 255, 0)).all()


def test_each_patch_belongs_to_the_row_that_took_most_of_it():
    weights = torch.tensor([[1.0, 0.3, 0.0, 0.1], [0.0, 0.2, 0.0, 0.6]])
    assert owners((1, 2, 2), Reduction(torch.tensor([0, 3]), weights)).tolist() == [0, 0, -1, 1]


def test_a_patch_belongs_to_the_row_it_is_assigned_to():
    weights, own = torch.tensor([[1.0, 0.3, 0.0, 0.1], [0.0, 0.2, 0.0, 0.6]]), torch.tensor([0, 1, 1, 1])
    for given in (weights, None):
        assert owners((1, 2, 2), Reduction(torch.tensor([0, 3]), given, own)).tolist() == [0, 1, 1, 1]


def test_of_equal_rows_the_nearest_owns_a_patch():
    weights = torch.tensor([[1.0, 0.2, 0.2, 0.0], [0.0, 0.2, 0.2, 1.0]])
    assert owners((1, 1, 4), Reduction(torch.tensor([0, 3]), weights)).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("grid", [(1, 24, 24), (1, 3, 7), (1, 1, 1), (2, 4, 5)])
@pytest.mark.parametrize("spec", ["prumerge", "pool:keep=1", "none", "visionzip"])
def test_every_grid_and_method_can_be_drawn(grid, spec):
    count = grid[0] * grid[1] * grid[2]
    torch.manual_seed(0)
    features, queries, keys = torch.randn(3, count + 1, 8)
    tokens = prumerge.VisualTokens.from_class_sequence(features, queries, keys, heads=2, grid=grid)
    images = [noise((60, 50))] * grid[0]
    sheet = prumerge.show(images, grid, prumerge.make(spec)(tokens))
    assert sheet.mode == "RGB"


def test_a_video_needs_as_many_pictures_as_frames():
    with pytest.raises(ValueError, match="2 frames, but 1 pictures"):
        prumerge.show(Image.new("RGB", (9, 9)), (2, 1, 1), Reduction(torch.tensor([0])))


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA", "CMYK", "I;16", "F", "HSV", "LAB"])
def test_pictures_of_any_mode_are_drawn(mode):
    grid, white = (1, 4, 4), Image.new("RGB", (60, 60), "white")
    if mode in ("I;16", "F"):
        picture = Image.new(mode, (60, 60), 65535)
    elif mode == "LA":
        picture = Image.new("LA", (60, 60), (0, 0))  # transparency is white
    elif mode == "LAB":
        picture = Image.new("LAB", (60, 60), (255, 128, 128))
    else:
        picture = white.convert(mode)
    (original, *_), _ = panels(prumerge.show(picture, grid, Reduction(torch.arange(16))), grid)
    assert original.min() > 250


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("thing", [None, "photo.jpg", np.zeros((9, 9, 3)), [None], ["photo.jpg"]])
def test_what_is_no_picture_is_refused(thing):
    with pytest.raises(PrumergeError, match="a picture of Pillow's is needed, not"):
        prumerge.show(thing, (1, 1, 1), Reduction(torch.tensor([0])))


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_reduction_of_these_tokens_is_refused():
    picture = Image.new("RGB", (9, 9))
    with pytest.raises(PrumergeError, match=r"show\(\) draws a Reduction, not list; select\(\) returns them"):
        prumerge.show(picture, (1, 2, 2), [0, 1])  # type: ignore[arg-type]
    with pytest.raises(PrumergeError, match=r"it keeps number 7, and a grid of 1 x 2 x 2 has 4"):
        prumerge.show(picture, (1, 2, 2), Reduction(torch.tensor([0, 7])))


def test_the_attention_plot_counts_the_outliers(tmp_path):
    torch.manual_seed(0)
    features, queries, keys = torch.randn(3, 65, 8)
    tokens = prumerge.VisualTokens.from_class_sequence(features, queries, keys, heads=2, grid=(8, 8))
    figure = plot_attention(tokens)
    scores = tokens.attention(split_heads=False).numpy()
    q1, q3 = np.percentile(scores, [25, 75])
    assert f"{(scores > q3 + 1.5 * (q3 - q1)).sum()} of 64" in figure.get_suptitle()
    figure.savefig(tmp_path / "attention.png")
