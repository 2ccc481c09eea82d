"""Large pictures in tiles, and what stands between the rows: LLaVA-NeXT, LLaVA-OneVision, Video-LLaVA."""

from itertools import product

import pytest
import torch
from asking import logits, reduced
from families import FAMILIES, VIDEO, LlavaNext, LlavaOnevision, Picture, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import spliced

import prumerge
from prumerge import catalogue

GRIDS = list(product((1, 2, 3), repeat=2))


class AnyGrid(LlavaNext):
    """Up to three rows and columns of tiles."""

    pinpoints = [[56 * rows, 56 * columns] for rows, columns in GRIDS]  # noqa: RUF012


class AnyGridOnevision(LlavaOnevision):
    pinpoints = AnyGrid.pinpoints


ANY_GRID = {"llava_next": AnyGrid(), "llava_onevision": AnyGridOnevision()}


def packed_by_the_model(model, inputs):
    with torch.no_grad():
        return model.model.get_image_features(
            inputs["pixel_values"], inputs["image_sizes"], return_dict=True
        ).pooler_output[0]


def tiles_of_the_encoder(model, inputs):
    """The projected patches of the whole picture and of every tile, each encoded by itself."""
    found, layer = [], -2 if model.config.model_type == "llava_next" else -1
    for tile in inputs["pixel_values"][0]:
        with torch.no_grad():
            states = model.model.vision_tower(tile[None], output_hidden_states=True).hidden_states[layer]
            found.append(model.model.multi_modal_projector(states)[0])
    return found


def tile_tokens(size=(60, 112), name="LlavaNext"):
    family = FAMILIES[name]
    inputs = family.prompt([5, Picture(1, size), 6])
    ((tokens, reduction),) = prumerge.select(family.model(), inputs, "none")
    return family, inputs, tokens, reduction


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *product(["LlavaNext", "LlavaOnevision"], [(60, 112), (112, 90), (112, 112)]),
        ("OnevisionShrunk", (112, 112)),  # others would be unpadded as well
    ],
)
def test_tiles_are_rectangles_and_tokens_stand_where_the_model_put_them(name, size):
    family, inputs, tokens, _ = tile_tokens(size, name)
    model = family.model()
    packed = packed_by_the_model(model, inputs)
    assert tokens.placeholders == len(packed)
    assert torch.equal(tokens.features, packed[tokens.placed])
    assert torch.equal(tokens.separators.features, packed[tokens.separators.at])
    assert sorted([*tokens.placed.tolist(), *tokens.separators.at.tolist()]) == list(range(len(packed)))
    for part in tokens.frames():
        rows, columns = part.grid[1:]
        assert rows * columns == len(part)
        at = tokens.placed[(tokens.features[:, None] == part.features[None]).all(-1).any(1)].view(
            rows, columns
        )
        assert (at.diff(dim=1) == 1).all()  # neighbours in the tile are neighbours in their row
        if rows > 1:
            assert len(at.diff(dim=0).unique()) == 1


@pytest.mark.parametrize(("rows", "columns"), GRIDS)
@pytest.mark.parametrize("kind", ANY_GRID)
def test_each_part_of_any_grid_is_a_tile_with_its_own_class_token(kind, rows, columns):
    family = ANY_GRID[kind]
    model, inputs = family.model(), family.prompt([5, Picture(1, (56 * rows, 56 * columns)), 6])
    ((tokens, _),) = prumerge.select(model, inputs, "none")
    encoded = tiles_of_the_encoder(model, inputs)
    assert len(encoded) == 1 + rows * columns == len(tokens.frames())
    for part, own in zip(tokens.frames(), encoded, strict=True):
        assert part.grid == (1, 4, 4)
        torch.testing.assert_close(part.features, own[-16:], atol=1e-4, rtol=1e-4)
        if part.class_feature is not None:
            torch.testing.assert_close(part.class_feature, own[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.cat([part.attention() for part in tokens.frames()]), tokens.attention())


@pytest.mark.parametrize("kind", ANY_GRID)
@settings(max_examples=25)  # there are 9 grids
@given(size=st.tuples(st.integers(1, 1200), st.integers(1, 1200)), seed=st.integers(0, 9))
def test_of_a_picture_of_any_size_no_bit_changes_and_parts_are_rectangles(kind, size, seed):
    """Thin strips, of which the rows of tiles are all padding, too."""
    family = ANY_GRID[kind]
    model, inputs = family.model(), family.prompt([5, Picture(seed, size), 6])
    packed = packed_by_the_model(model, inputs)
    ((tokens, _),) = prumerge.select(model, inputs, "none")
    whole = reduced(model, inputs, "none")["mm_encoder_outputs"]["image"].pooler_output[0]
    assert torch.equal(whole, packed)
    encoded = tiles_of_the_encoder(model, inputs) if kind == "llava_next" else []  # unshrunk, class tokens
    for part in tokens.frames():
        assert part.grid[1] * part.grid[2] == len(part)
        if encoded:
            far = [torch.cdist(part.features, tile[1:]).amin(1).max() for tile in encoded]
            own = encoded[int(torch.stack(far).argmin())]
            torch.testing.assert_close(part.class_feature, own[0], atol=1e-4, rtol=1e-4)
    attention = tokens.attention()
    assert attention.shape == (len(tokens),)
    assert attention.isfinite().all()


STRIPS = [(14, 300), (300, 14), (1, 1000), (1000, 1), (57, 111), (113, 55)]
METHODS = {  # that read attention, and what gives it
    entry.name: entry.needs
    for entry in catalogue.entries()
    if entry.place == "before the language model" and entry.needs in ("attention", "class token")
}


@pytest.mark.parametrize("size", STRIPS, ids=str)
@pytest.mark.parametrize("kind", ANY_GRID)
def test_every_method_that_reads_attention_takes_strips_whole_and_by_tile(kind, size):
    family = ANY_GRID[kind]
    model, inputs = family.model(), family.prompt([5, Picture(1, size), 6])
    for name, needs in METHODS.items():
        if needs == "attention" or kind == "llava_next":  # SigLIP has no class token
            for spec in (name, f"{name}@each"):
                assert logits(model, reduced(model, inputs, spec)).isfinite().all()


@pytest.mark.parametrize("policy", ["keep", "drop", "remake"])
def test_newlines_are_kept_dropped_or_made_again(policy):
    family, inputs, tokens, _ = tile_tokens()
    model = family.model()
    chosen = torch.tensor([3, 20, 21, 24])
    kept = prumerge.Reduction(chosen)
    shorter = spliced(model, inputs, [(tokens, kept)], separators=policy)
    features = shorter["mm_encoder_outputs"]["image"].pooler_output[0]
    rows = {
        "keep": len(tokens.separators.at),
        "drop": 0,
        "remake": len(set(tokens.separators.of[chosen].tolist()) - {-1}),
    }
    assert len(features) == len(chosen) + rows[policy]
    assert (features == model.model.image_newline).all(1).sum() == rows[policy]
    order = tokens.placed[chosen].sort().values
    words = features[~(features == model.model.image_newline).all(1)]
    expected = tokens.features[[tokens.placed.tolist().index(place) for place in order.tolist()]]
    assert torch.equal(words, expected)


def test_an_unknown_policy_is_refused(unchecked):
    family, inputs, _, _ = tile_tokens()
    with pytest.raises(ValueError, match="separators are keep, drop, remake, not 'burn'"):
        prumerge.reduce(family.model(), inputs, "none", separators="burn")


def test_without_class_tokens_video_llava_reads_what_the_paper_counts():
    family = FAMILIES["VideoLlava"]
    inputs = family.prompt(*rows_of(family, "video")[:1])
    for policy, each in (("keep", 17), ("drop", 16)):
        shorter = reduced(family.model(), inputs, "none", separators=policy)
        assert (shorter["input_ids"] == VIDEO).sum() == each * family.frames


def test_placeholders_in_the_wrong_row_are_named_whatever_sizes_pictures_have():
    family = FAMILIES["Qwen2VL"]
    model = family.model()
    inputs = dict(family.prompt([5, Picture(1, (56, 112)), 6], [5, Picture(2, (112, 112)), 6]))
    image = model.config.image_token_id
    counts = (inputs["input_ids"] == image).sum(1).tolist()
    assert counts[1] % counts[0] == 0  # so that no count tells by itself
    ids = [[5] + [image] * count + [6] * (2 * sum(counts) - count) for count in reversed(counts)]
    inputs["input_ids"] = torch.tensor(ids)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with pytest.raises(ValueError, match=f"row 0 of the batch has {counts[1]} placeholders"):
        prumerge.reduce(model, inputs, "topk:keep=2")
