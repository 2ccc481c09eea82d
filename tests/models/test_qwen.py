"""Qwen-VL: rotary positions in time and space that travel with the prompt, and features of earlier layers."""

import copy

import pytest
import torch
from asking import SPEC, answer, reduced
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
