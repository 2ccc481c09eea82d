"""DINOv2 as a tower: pictures of any size, register tokens, layers that are not run."""

import copy

import pytest
import torch
import transformers as hf
from asking import answer, logits, reduced
from builders import IMAGE, REGISTERS, text_config, vision_config
from families import FAMILIES, PINPOINTS, rows_of

import prumerge

TOWERS = pytest.mark.parametrize("name", ["LlavaDinov2", "LlavaRegisters"])


def wide(name):
    """A prompt with a picture of 4 x 6 patches."""
    family = FAMILIES[name]
    places = 24 + len(family.shown(None)) - 16
    ids = torch.tensor([[5, *[IMAGE] * places, 6, 7]])
    pixels = torch.randn(1, 3, 56, 84, generator=torch.Generator().manual_seed(4))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


@TOWERS
def test_a_picture_of_any_shape_gets_positions_between_those_of_the_table(name):
    model, inputs = FAMILIES[name].model(), wide(name)
    assert torch.equal(logits(model, reduced(model, inputs, "none")), logits(model, inputs))
    ((tokens, _),) = prumerge.select(model, inputs, "none")
    assert tokens.grid == (1, 4, 6)


@TOWERS
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_none_changes_no_bit_whatever_the_attention_and_precision(name, attention, dtype):
    family = FAMILIES[name]
    model = copy.deepcopy(family.model()).to(dtype)
    model.set_attn_implementation(attention)
    inputs = family.prompt(*rows_of(family))
    assert torch.equal(logits(model, reduced(model, inputs, "none")), logits(model, inputs))


@TOWERS
def test_the_last_layer_is_not_run(name):
    family = FAMILIES[name]
    model, ran = copy.deepcopy(family.model()), []
    for number, layer in enumerate(model.model.vision_tower.encoder.layer):
        layer.mlp.register_forward_hook(lambda *_, number=number: ran.append(number))
    reduced(model, family.prompt(*rows_of(family)), "topk:keep=3")
    assert ran == [0, 1]


@TOWERS
def test_gated_layers_without_biases_merge_too(name):
    family = FAMILIES[name]
    config = copy.deepcopy(family.config())
    config.vision_config.use_swiglu_ffn, config.vision_config.qkv_bias = True, False
    model = hf.LlavaForConditionalGeneration(config).eval()
    inputs = family.prompt(*rows_of(family))
    assert torch.equal(logits(model, reduced(model, inputs, "tome:r=0")), logits(model, inputs))
    assert all(len(tokens) == 12 for tokens, _ in prumerge.select(model, inputs, "tome:r=2"))


# register tokens


@pytest.mark.parametrize(
    "spec", ["topk:keep=3", "prumerge:keep=3", "tome:r=2+topk:keep=3", "visionzip:keep=3"]
)
@pytest.mark.parametrize(("separators", "stay"), [("keep", REGISTERS), ("drop", 0)])
def test_registers_are_read_beside_what_is_kept_or_dropped(spec, separators, stay):
    family = FAMILIES["LlavaRegisters"]
    model, rows = family.model(), rows_of(family)[:1]
    inputs = family.prompt(*rows)
    ((_, reduction),) = prumerge.select(model, inputs, spec)
    shorter = reduced(model, inputs, spec, separators=separators)
    assert int((shorter["input_ids"] == IMAGE).sum()) == len(reduction) + stay
    assert answer(model, shorter).shape[1] > 0


def test_registers_are_read_first_as_the_tower_wrote_them():
    family = FAMILIES["LlavaRegisters"]
    model, inputs = family.model(), family.prompt(*rows_of(family)[:1])
    with torch.no_grad():
        states = model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2]
        features = model.model.multi_modal_projector(states[0, 1 : 1 + REGISTERS])
    read = reduced(model, inputs, "topk:keep=3")["mm_encoder_outputs"]["image"].pooler_output[0]
    torch.testing.assert_close(read[:REGISTERS], features)


@pytest.mark.parametrize("spec", ["topk:keep=3", "tome:r=2+topk:keep=3"])
def test_positions_are_those_of_registers_and_patches(spec):
    family = FAMILIES["LlavaRegisters"]
    model, inputs = family.model(), family.prompt(*rows_of(family)[:1])
    ((tokens, reduction),) = prumerge.select(model, inputs, spec)
    shorter = reduced(model, inputs, spec, positions="original")
    first = int((inputs["input_ids"][0] == IMAGE).nonzero()[0, 0])
    patches = first + REGISTERS + tokens.whole(reduction).index
    found = shorter["position_ids"][0, shorter["input_ids"][0] == IMAGE].tolist()
    assert found == [*range(first, first + REGISTERS), *sorted(patches.tolist())]


def test_a_family_without_places_for_registers_says_so():
    family = FAMILIES["LlavaNext"]
    config = hf.LlavaNextConfig(
        vision_config=vision_config("registers"),
        text_config=text_config(),
        image_token_index=IMAGE,
        image_grid_pinpoints=PINPOINTS,
    )
    model = hf.LlavaNextForConditionalGeneration(config).eval()
    with pytest.raises(
        ValueError, match="register tokens is not supported for models of type 'llava_next' yet"
    ):
        reduced(model, family.prompt(*rows_of(family)), "none")


@pytest.mark.parametrize("name", ["LlavaNext", "VideoLlava", "VipLlava"])
def test_other_families_take_a_tower_without_registers(name):
    family = FAMILIES[name]
    config = copy.deepcopy(family.config())
    config.vision_config = vision_config("dinov2")
    model = family.kind(config).eval()
    inputs = family.prompt(*rows_of(family))
    assert torch.equal(logits(model, reduced(model, inputs, "none")), logits(model, inputs))
    assert all(tokens.class_key is not None for tokens, _ in prumerge.select(model, inputs, "none"))
