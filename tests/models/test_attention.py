"""Whose attention scores tokens: that which the encoder itself computes, of a token's own patches."""

import copy

import pytest
import torch
from builders import REGISTERS
from families import FAMILIES, Picture, rows_of

import prumerge
from prumerge.models._pictures import blocks


@pytest.mark.parametrize(
    "name", ["Llava", "LlavaDinov2", "LlavaRegisters", "LlavaNext", "PaliGemma", "VideoLlava"]
)
def test_attention_is_what_the_encoder_itself_computes(name):
    family = FAMILIES[name]
    model, rows = family.model(), rows_of(family, "video" if name == "VideoLlava" else "image")
    if name == "LlavaNext":
        rows = [[5, Picture(3, (112, 112))]]  # nothing is padding
    inputs, base = family.prompt(*rows), model.model
    tower = getattr(base, "vision_tower", None) or base.video_tower
    eager = copy.deepcopy(tower)
    eager.set_attn_implementation("eager")
    pixels = inputs.get("pixel_values_videos", inputs.get("pixel_values"))
    with torch.no_grad():
        attention = eager(pixels.reshape(-1, *pixels.shape[-3:]), output_attentions=True).attentions[-1]
        ours = [tokens for tokens, _ in prumerge.select(model, inputs, "none")]
    own = (
        attention.mean((1, 2))
        if name == "PaliGemma"
        else attention[:, :, 0, 1 + REGISTERS if name == "LlavaRegisters" else 1 :].mean(1)
    )
    if name == "LlavaNext":
        assert ours[0].tiles == ((4, 4),) * 5
    found = torch.cat([tokens.attention() for tokens in ours])
    torch.testing.assert_close(found, own.flatten(), atol=1e-5, rtol=1e-4)


def test_keys_of_a_token_are_the_mean_of_those_of_its_patches():
    """By the model's own pixel shuffle, applied to the numbers of patches."""
    model = FAMILIES["InternVL"].model().model
    number = torch.arange(64.0).view(1, 8, 8, 1)
    shuffled = model.pixel_shuffle(number, scale_factor=0.5).view(16, 4)
    torch.testing.assert_close(blocks(number.view(1, 64, 1), 8, 2).view(16), shuffled.mean(1))
    connector = FAMILIES["Idefics3"].model().model.connector
    shuffled = connector.pixel_shuffle(number.view(1, 64, 1), 2).view(16, 4)
    torch.testing.assert_close(blocks(number.view(1, 64, 1), 8, 2).view(16), shuffled.mean(1))
