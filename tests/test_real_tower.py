"""What `benchmarks/real_tower.py` computes, on a small random encoder in place of the real one."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import Dinov2Config, Dinov2Model

import prumerge
from prumerge.models._pictures import pictures
from prumerge.models._vision import encode


@pytest.fixture(scope="module")
def measured():
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    try:
        yield importlib.import_module("real_tower")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    config: Any = Dinov2Config(
        hidden_size=32, num_hidden_layers=7, num_attention_heads=4, image_size=84, patch_size=14
    )
    return Dinov2Model(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def states(tower):
    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    return pixels, tower(pixels, output_hidden_states=True)


@pytest.mark.parametrize("layers", [1, 3, 6])
def test_all_tokens_are_read_as_the_encoder_reads_them(measured, tower, states, layers):
    _, output = states
    found = measured.read(tower, layers, output.hidden_states[7 - layers], torch.ones(1, 17))
    torch.testing.assert_close(found, output.last_hidden_state[:, 0])


@pytest.mark.parametrize("layers", [1, 3])
def test_tokens_are_scored_as_those_of_a_model_with_this_tower(measured, tower, states, layers):
    pixels, output = states
    found = measured.before(tower, output.hidden_states, (4, 4), layers)
    (expected,) = pictures(encode(tower, pixels, 7 - layers), 4, 4)
    for one, other in ((found, expected), (found.scored_by("writer"), expected.scored_by("writer"))):
        torch.testing.assert_close(one.keys, other.keys)
        torch.testing.assert_close(one.attention(), other.attention())
        torch.testing.assert_close(one.features, other.features)


def test_a_token_of_two_patches_is_read_as_both(measured, tower, states):
    _, output = states
    sequence = output.hidden_states[1][:, :4]
    twice = torch.cat([sequence, sequence[:, -1:]], dim=1)
    found = measured.read(tower, 6, sequence, torch.tensor([[1.0, 1, 1, 2]]))
    torch.testing.assert_close(found, measured.read(tower, 6, twice, torch.ones(1, 5)))


def test_every_patch_counts_for_the_token_that_is_most_like_it(measured, tower, states):
    tokens = measured.before(tower, states[1].hidden_states, (4, 4), 3)
    counts = measured.nearest(tokens, prumerge.make("spatial:keep=4")(tokens))
    assert counts.sum() == 16
    assert (counts >= 1).all()
    assert (measured.nearest(tokens, prumerge.make("none")(tokens)) == 1).all()


def test_every_method_hands_over_what_is_asked_and_is_read(measured, tower, states, monkeypatch):
    monkeypatch.setattr(measured, "COUNTS", (4, 8))
    tokens = measured.before(tower, states[1].hidden_states, (4, 4), 3)
    chosen = measured.specs(tokens, measured.methods())
    lengths = {key: len(prumerge.make(spec)(tokens)) for key, spec in chosen.items()}
    found = measured.readings(tower, tokens, 3, chosen)
    assert lengths == {key: key[1] for key in chosen}
    assert {(one.method, one.count) for one in found} == set(chosen)
    plain = {one for one in found if one.how == "plain"}
    assert plain == {one._replace(how="plain") for one in found}
    assert not {"cdpruner", "trim", "evs", "vidcom2", "none"} & set(measured.methods())


def test_a_summary_says_what_is_like_the_untouched(measured):
    reading = ("topk", 4, "plain")
    grid = (measured.RIVAL, 4, "plain")
    untouched = torch.eye(4)[[0, 0, 2, 2]] + 0.1 * torch.eye(4)
    found = [
        {"untouched": one, "readings": {(3, *reading): one, (3, *grid): untouched[3 - number]}}
        for number, one in enumerate(untouched)
    ]
    whole, other = measured.summary(found)
    assert whole["cosine"]["mean"] == pytest.approx(1)
    assert whole["same_neighbour"]["mean"] == 1
    assert other["same_neighbour"]["mean"] == 0
    assert whole["against_grid"]["low"] > 0
    assert other["against_grid"] is None


@pytest.mark.parametrize("size", [(500, 400), (90, 200), (336, 336)])
def test_pictures_are_cut_or_fitted_to_the_encoder(measured, size):
    picture = Image.new("RGBA", size, (200, 0, 0, 255))
    cut, fitted = measured.cut(picture), measured.fitted(picture)
    assert cut.size == fitted.size == (336, 336)
    assert cut.getpixel((1, 1)) == (200, 0, 0)
    corner = (200, 0, 0) if size[0] == size[1] else (255, 255, 255)
    assert fitted.getpixel((0, 0)) == corner
    assert measured.pixels(cut).shape == (1, 3, 336, 336)
