"""Qwen-VL: rotary positions in time and space that travel with the prompt, and features of earlier layers."""

import copy
from dataclasses import dataclass

import pytest
import torch
from asking import SPEC, answer, logits, reduced
from builders import IMAGE
from families import FAMILIES, VIDEO, Picture, rows_of
from steps import spliced

import prumerge


@pytest.mark.parametrize("name", ["Qwen2VL", "Qwen25VL", "Qwen3VL"])
@pytest.mark.parametrize("modality", ["image", "video"])
def test_kept_tokens_keep_their_positions(name, modality):
    family = FAMILIES[name]
    model, rows = family.model(), rows_of(family, modality)
    inputs = family.prompt(*rows)
    kinds = {name: inputs[name] for name in inputs if name.endswith("grid_thw")}
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        attention_mask=inputs["attention_mask"],
        **kinds,
    )
    chosen = prumerge.select(model, inputs, "topk:keep=3")
    shorter = spliced(model, inputs, chosen)
    token = VIDEO if modality == "video" else IMAGE
    start, expected = 0, []
    places = (inputs["input_ids"] == token).nonzero()
    for tokens, reduction in chosen:
        at = places[start + reduction.index.sort().values]
        expected.append(positions[:, at[:, 0], at[:, 1]])
        start += len(tokens)
    ids, mask = shorter["input_ids"], shorter["attention_mask"].bool()
    assert torch.equal(shorter["position_ids"][1:, ids == token], torch.cat(expected, dim=1))
    words = (inputs["input_ids"] != token) & inputs["attention_mask"].bool()
    assert torch.equal(shorter["position_ids"][1:, (ids != token) & mask], positions[:, words])
    assert torch.equal(shorter["position_ids"][0][mask], (mask.long().cumsum(1) - 1)[mask])


def test_deepstack_is_cut_as_the_features_are():
    family = FAMILIES["Qwen3VL"]
    model, inputs = family.model(), family.prompt(*rows_of(family))
    with torch.no_grad():
        own = model.model.get_image_features(
            inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True
        )
        chosen = prumerge.select(model, inputs, "topk:keep=3")
        output = prumerge.reduce(model, inputs, "topk:keep=3")["mm_encoder_outputs"]["image"]
    for picture, (_, reduction) in enumerate(chosen):
        index = reduction.index.sort().values
        assert torch.equal(output.pooler_output[picture], own.pooler_output[picture][index])
        for level, theirs in zip(output.deepstack_features, own.deepstack_features, strict=True):
            assert torch.equal(level[picture], theirs[picture][index])


@dataclass(frozen=True, kw_only=True)
class Every(prumerge.Reducer):
    """All tokens, in an order of its own."""

    backwards: bool = True

    def __call__(self, tokens):
        index = torch.arange(len(tokens))
        return prumerge.Reduction(index.flip(0) if self.backwards else index)


@pytest.mark.parametrize("modality", ["image", "video"])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("name", ["Qwen2VL", "Qwen25VL", "Qwen3VL"])
def test_keeping_all_in_whatever_order_is_the_untouched_model(name, backwards, modality):
    family = FAMILIES[name]
    model, rows = family.model(), rows_of(family, modality)
    shorter = reduced(model, family.prompt(*rows), Every(backwards=backwards))
    assert torch.equal(logits(model, shorter), logits(model, family.prompt(*rows)))


@pytest.mark.parametrize("moved", ["all", "without deepstack", "without positions"])
@pytest.mark.parametrize("name", ["Qwen2VL", "Qwen25VL", "Qwen3VL"])
def test_tokens_that_change_places_with_all_that_is_theirs_are_read_alike(name, moved):
    """Tokens see those before them, so that their order says something by itself; not so where the first
    layer's attention is silent and words alone read the second's. Then a token is what it is and where it
    stands in the picture, and what Qwen3-VL adds to it behind the first layer."""
    family = FAMILIES[name]
    model, rows = copy.deepcopy(family.model()), rows_of(family)[:1]  # its configuration is changed
    text = model.model.language_model
    with torch.no_grad():
        text.layers[0].self_attn.o_proj.weight.zero_()
    text.layers, text.config.num_hidden_layers = text.layers[:2], 2
    shorter = reduced(model, family.prompt(*rows), "topk:keep=6")
    before = logits(model, shorter)[0, -1]
    encoded, [at] = shorter["mm_encoder_outputs"]["image"], (shorter["input_ids"] == IMAGE).nonzero()[:, 1:].T
    back = at.flip(0)
    encoded.pooler_output = [encoded.pooler_output[0].flip(0)]
    levels = getattr(encoded, "deepstack_features", None)
    if levels is not None and moved != "without deepstack":
        encoded.deepstack_features = [[level[0].flip(0)] for level in levels]
    if moved != "without positions":
        shorter["position_ids"][1:, :, at] = shorter["position_ids"][1:, :, back]
    after = logits(model, shorter)[0, -1]
    alike = moved == "all" or (moved == "without deepstack" and levels is None)
    assert torch.allclose(after, before, atol=1e-5) == alike


@pytest.mark.parametrize("name", ["Qwen25VL", "Qwen3VL"])
def test_a_step_by_hand_goes_on_from_the_kept_positions(name):
    family = FAMILIES[name]
    model, rows = family.model(), rows_of(family)[:1]
    shorter = reduced(model, family.prompt(*rows))
    expected = answer(model, shorter, max_new_tokens=3)[0].tolist()
    with torch.no_grad():
        output = model(**reduced(model, family.prompt(*rows)), use_cache=True)
        said, positions = [], shorter["position_ids"]
        while len(said) < 3:
            said.append(int(output.logits[0, -1].argmax()))
            positions = positions[..., -1:] + 1
            output = model(
                input_ids=torch.tensor([said[-1:]]),
                position_ids=positions,
                past_key_values=output.past_key_values,
            )
    assert said == expected


@pytest.mark.parametrize("name", ["Qwen25VL", "Qwen3VL"])
def test_a_step_by_hand_on_an_attached_model_needs_no_positions(name):
    family = FAMILIES[name]
    model, rows = family.model(), rows_of(family)[:1]
    expected = answer(model, reduced(model, family.prompt(*rows)), max_new_tokens=3)[0].tolist()
    with torch.no_grad(), prumerge.attach(model, SPEC):
        output, said = model(**family.prompt(*rows), use_cache=True), []
        while len(said) < 3:
            said.append(int(output.logits[0, -1].argmax()))
            output = model(input_ids=torch.tensor([said[-1:]]), past_key_values=output.past_key_values)
    assert said == expected


@pytest.mark.parametrize("modality", ["image", "video"])
@pytest.mark.parametrize("name", ["Qwen2VL", "Qwen25VL", "Qwen3VL"])
def test_an_untouched_conversation_goes_on_while_another_prompt_is_reduced(name, modality):
    family = FAMILIES[name]
    model, rows = family.model(), rows_of(family, modality)

    def step(between):
        with torch.no_grad():
            cache = model(**family.prompt(rows[0]), use_cache=True).past_key_values
            if between:
                prumerge.reduce(model, family.prompt(rows[1]), SPEC)
            return model(input_ids=torch.tensor([[7]]), past_key_values=cache).logits

    assert torch.equal(step(False), step(True))


def test_keys_of_windows_are_back_in_order():
    family = FAMILIES["Qwen25VL"]
    model, inputs = family.model(), family.prompt([5, 96, Picture(1, (140, 196)), 95])
    (tokens, _), *_ = prumerge.select(model, inputs, "none")
    visual = copy.deepcopy(model.model.visual)
    with torch.no_grad():
        for weight in (visual.merger.ln_q.weight,):
            weight.fill_(1)
    # What the last block makes of its input is added to that input: with its branches silent, keys of a token
    # come from the same numbers as the token itself, so both are in the same order.
    block, caught = visual.blocks[-1], {}
    block.register_forward_pre_hook(lambda _, arguments: caught.update(hidden=arguments[0]))
    with torch.no_grad():
        merged = visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
        keys = block.attn.qkv(block.norm1(caught["hidden"])).chunk(3, dim=-1)[1].unflatten(0, (-1, 4)).mean(1)
        windows = visual.merger(merged.last_hidden_state)
    place = (windows[:, None] == merged.pooler_output[None]).all(-1).int().argmax(0)
    assert place.tolist() != sorted(place.tolist())
    torch.testing.assert_close(tokens.keys, keys[place])
