"""Every family, on small random models of the real classes: pictures, videos, batches, beams, training.

What ran is compared with docs/families.json, from which the README's table is made;
WRITE_FAMILIES=1 python -m pytest tests/test_families.py writes it anew.
"""

import copy
import json
import os
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
import transformers as hf
from builders import IMAGE, PAD, text_config, vision_config
from families import FAMILIES, VIDEO, Picture, rows_of

import prumerge
from prumerge.models import family_of
from prumerge.supported import facts, families

TABLE = Path(__file__).parents[2] / "docs" / "families.json"
CASES = [(name, "image") for name in FAMILIES]
CASES += [
    (name, "video") for name, family in FAMILIES.items() if family.videos and "Onevision" not in name[:9]
]
SPEC = "prumerge_plus"
ran = {}


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    name, modality = request.param
    family = FAMILIES[name]
    return family, family.model(), modality, rows_of(family, modality)


def note(family, what):
    ran.setdefault(family.name, set()).add(what)


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def reduced(model, inputs, spec=SPEC, **options):
    with torch.no_grad():
        return prumerge.reduce(model, inputs, spec, **options)


def answer(model, inputs, **options):
    with torch.no_grad():
        ids = model.generate(**inputs, **{"max_new_tokens": 4, "do_sample": False, **options})
    return ids[:, inputs["input_ids"].shape[1] :]


def test_every_family_is_tested():
    assert {family.name for family in FAMILIES.values()} == set(families())


def test_none_changes_no_bit(case):
    family, model, modality, rows = case
    plain, ours = family.prompt(*rows), reduced(model, family.prompt(*rows), "none")
    assert torch.equal(logits(model, ours), logits(model, plain))
    assert torch.equal(answer(model, reduced(model, family.prompt(*rows), "none")), answer(model, plain))
    with prumerge.attach(model, "none"):
        attached = answer(model, family.prompt(*rows))
    assert torch.equal(attached, answer(model, family.prompt(*rows)))
    note(family, modality)
    shown = [sum(isinstance(x, Picture) for x in row) for row in rows]
    if modality == "image" and max(shown) > 1:
        note(family, "multi-image")


def test_each_row_of_a_ragged_batch_is_the_row_alone(case):
    family, model, _, rows = case
    batch = reduced(model, family.prompt(*rows))
    scores = logits(model, batch)
    for row, inputs in enumerate(rows):
        alone = reduced(model, family.prompt(inputs))
        real = batch["attention_mask"][row].bool()
        assert int(real.sum()) == alone["input_ids"].shape[1] < family.prompt(inputs)["input_ids"].shape[1]
        torch.testing.assert_close(scores[row, real], logits(model, alone)[0], atol=1e-4, rtol=1e-3)
    note(family, "batch")


def test_answers_and_beams_of_a_batch_are_those_of_each_row(case):
    family, model, _, rows = case
    for options in ({}, {"num_beams": 3}):
        batch = answer(model, reduced(model, family.prompt(*rows)), **options)
        for row, inputs in enumerate(rows):
            assert torch.equal(batch[row], answer(model, reduced(model, family.prompt(inputs)), **options)[0])
    note(family, "beams")


def test_an_attached_method_does_what_reduce_does(case):
    family, model, _, rows = case
    expected = answer(model, reduced(model, family.prompt(*rows)))
    with prumerge.attach(model, SPEC) as attachment:
        sequences = model.generate(**family.prompt(*rows), max_new_tokens=4, do_sample=False)
    ids = family.prompt(*rows)["input_ids"]
    assert torch.equal(sequences, torch.cat([ids, expected], dim=1))
    assert all(0 < after < before for before, after in attachment.tokens)


def test_training_reaches_tower_and_language_model(case):
    family, original, _, rows = case
    model, inputs = copy.deepcopy(original).train(), family.prompt(*rows)
    ids = inputs["input_ids"]
    visual = (ids == IMAGE) | (ids == VIDEO) | (ids == PAD)
    loss = model(**prumerge.reduce(model, {**inputs, "labels": ids.masked_fill(visual, -100)}, SPEC)).loss
    loss.backward()
    seen = [
        weight
        for name, weight in model.named_parameters()
        if ("vision" in name or "visual" in name or "tower" in name) and weight.grad is not None
    ]
    assert loss.isfinite()
    assert sum(weight.grad.abs().sum() for weight in seen) > 0
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0
    note(family, "training")


def test_a_class_token_is_there_where_the_table_says_so(case):
    family, model, _, rows = case
    for tokens, _ in prumerge.select(model, family.prompt(*rows), "none"):
        has_one = tokens.class_key is not None
        assert has_one == facts(family.name).attention.startswith("class token")
        if has_one:
            note(family, "class token")
        attention = tokens.attention()
        assert attention.shape == (len(tokens),)
        assert attention.isfinite().all()
        assert attention.std() > 0


def test_every_family_says_what_it_takes():
    for name in families():
        takes = {"pictures"} | ({"videos"} if "pixel_values_videos" in family_of(name).inputs else set())
        assert set(facts(name).takes.split(", ")) == takes


def test_the_table_is_what_ran(request):
    if sum(len(seen) for seen in ran.values()) < 100 or request.config.option.keyword:
        pytest.skip("only some of the tests of this file ran")
    found = json.dumps({name: sorted(seen) for name, seen in sorted(ran.items())}, indent=1) + "\n"
    if os.environ.get("WRITE_FAMILIES"):
        TABLE.write_text(found)
    assert TABLE.read_text() == found


# attention as the encoder computes it


@pytest.mark.parametrize("name", ["Llava", "LlavaNext", "PaliGemma", "VideoLlava"])
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
    own = attention.mean((1, 2)) if name == "PaliGemma" else attention[:, :, 0, 1:].mean(1)
    if name == "LlavaNext":
        assert ours[0].tiles == ((4, 4),) * 5
    found = torch.cat([tokens.attention() for tokens in ours])
    torch.testing.assert_close(found, own.flatten(), atol=1e-5, rtol=1e-4)


def test_keys_of_a_token_are_the_mean_of_those_of_its_patches():
    """By the model's own pixel shuffle, applied to the numbers of patches."""
    from prumerge.models._pictures import blocks

    model = FAMILIES["InternVL"].model().model
    number = torch.arange(64.0).view(1, 8, 8, 1)
    shuffled = model.pixel_shuffle(number, scale_factor=0.5).view(16, 4)
    torch.testing.assert_close(blocks(number.view(1, 64, 1), 8, 2).view(16), shuffled.mean(1))
    connector = FAMILIES["Idefics3"].model().model.connector
    shuffled = connector.pixel_shuffle(number.view(1, 64, 1), 2).view(16, 4)
    torch.testing.assert_close(blocks(number.view(1, 64, 1), 8, 2).view(16), shuffled.mean(1))


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


# tiles and newlines


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
    with torch.no_grad():
        packed = model.model.get_image_features(
            inputs["pixel_values"], inputs["image_sizes"], return_dict=True
        ).pooler_output[0]
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


@pytest.mark.parametrize("policy", ["keep", "drop", "remake"])
def test_newlines_are_kept_dropped_or_made_again(policy):
    family, inputs, tokens, _ = tile_tokens()
    model = family.model()
    chosen = torch.tensor([3, 20, 21, 24])
    kept = prumerge.Reduction(chosen)
    from prumerge.pipeline.splice import splice

    shorter = splice(model, inputs, [(tokens, kept)], separators=policy)
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


# with methods inside the tower and the language model, and positions


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("Llava", "LlavaPhi", "MoELlava")])
def test_merging_inside_a_tower_is_refused_where_it_is_not_supported(name):
    family = FAMILIES[name]
    with pytest.raises(ValueError, match="tome:r=1 merges inside the vision tower, which is not supported"):
        prumerge.reduce(family.model(), family.prompt(*rows_of(family)), "tome:r=1")


@pytest.mark.parametrize("name", ["LlavaPhi", "MoELlava"])
def test_merging_inside_a_tower_works_with_any_language_model(name):
    family = FAMILIES[name]
    chosen = prumerge.select(family.model(), family.prompt(*rows_of(family)), "tome:r=2")
    assert all(len(tokens) < tokens.patches == 16 for tokens, _ in chosen)


@pytest.mark.parametrize("name", FAMILIES)
def test_pruning_inside_the_language_model_works_or_is_refused(name):
    family = FAMILIES[name]
    model, inputs = family.model(), family.prompt(*rows_of(family))
    try:
        with prumerge.attach(model, "fastv:layer=1,keep=0.5") as attached:
            answer(model, inputs)
    except ValueError as error:
        assert "use a method before the language model" in str(error)
    else:
        seen = attached.inside.tokens_by_layer
        assert len(seen) == len(attached.tokens)
        assert all(first > last for first, *_, last in seen)


@pytest.mark.parametrize("positions", ["original", "median"])
@pytest.mark.parametrize("name", FAMILIES)
def test_positions_are_those_of_the_places_or_refused(name, positions):
    family = FAMILIES[name]
    model, inputs = family.model(), family.prompt(*rows_of(family))
    if family_of(model.config.model_type).positions is not None:
        with pytest.raises(ValueError, match="have positions in time and space"):
            reduced(model, inputs, positions=positions)
        with pytest.raises(ValueError, match="have positions in time and space"):
            prumerge.attach(model, SPEC, positions=positions)
        return
    whole = reduced(model, inputs, "none", positions=positions)
    assert torch.equal(whole["attention_mask"], inputs["attention_mask"])
    shorter = reduced(model, inputs, "topk:keep=3", positions=positions)
    own = (inputs["attention_mask"].cumsum(1) - 1).max(1).values
    assert torch.equal(shorter["position_ids"].max(1).values, own)  # the last word stands where it stood
    for row, mask in zip(shorter["position_ids"], shorter["attention_mask"].bool(), strict=True):
        assert (row[mask].diff() > 0).all()


# rotary positions in time and space


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
    from prumerge.pipeline.splice import splice

    shorter = splice(model, inputs, chosen)
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


@pytest.mark.parametrize("name", ["Qwen2VL", "Qwen3VL", "LlavaNext", "Gemma3"])
def test_a_second_turn_on_the_cache_is_that_of_a_fresh_prompt(name):
    family = FAMILIES[name]
    model, rows = family.model(), rows_of(family)[:1]
    turn, cache = family.prompt(*rows), hf.DynamicCache(config=model.config.get_text_config())
    with prumerge.attach(model, SPEC):
        for new in ([20, 21], [22]):
            fresh = model.generate(**turn, max_new_tokens=3, do_sample=False)
            again = model.generate(**turn, past_key_values=cache, max_new_tokens=3, do_sample=False)
            assert torch.equal(fresh, again)
            ids = torch.cat([again, torch.tensor([new])], dim=1)
            more = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            turn = {**turn, **more, **family.kinds(ids)}


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


def state(model):
    """All that modules remember but their weights, in words, by module and name."""
    kept = ("_parameters", "_buffers", "_modules")
    return {
        (where, name): repr(value)
        for where, module in model.named_modules()
        for name, value in vars(module).items()
        if name not in kept
    }


def test_reducing_changes_nothing_on_the_model(case):
    family, original, _, rows = case
    model = copy.deepcopy(original)
    before, weights = state(model), {name: weight.clone() for name, weight in model.state_dict().items()}
    reduced(model, family.prompt(*rows))
    assert state(model) == before
    assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())


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


# other language models in LLaVA checkpoints


def phi():
    return hf.PhiConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=120,
        pad_token_id=PAD,
        eos_token_id=None,
        initializer_range=0.3,
    )


def qwen2():
    return hf.Qwen2Config(**shape(), num_key_value_heads=2)


def mixture():
    return hf.MixtralConfig(**shape(), num_key_value_heads=2, num_local_experts=4)


def qwen_mixture():
    return hf.Qwen2MoeConfig(
        **shape(),
        num_key_value_heads=2,
        num_experts=4,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
    )


def shape():
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 120,
        "pad_token_id": PAD,
        "bos_token_id": 1,
        "eos_token_id": None,
        "initializer_range": 0.3,
    }


@pytest.mark.parametrize("text", [phi, qwen2, mixture, qwen_mixture], ids=lambda text: text.__name__)
def test_any_language_model_in_a_llava(text):
    """LLaVA-Phi, TinyLLaVA and MoE-LLaVA are LLaVA with Phi, Qwen2 or a mixture of experts."""
    torch.manual_seed(0)
    config = hf.LlavaConfig(vision_config=vision_config(), text_config=text(), image_token_index=IMAGE)
    model, family = hf.LlavaForConditionalGeneration(config).eval(), FAMILIES["Llava"]
    rows = rows_of(family)
    plain = logits(model, family.prompt(*rows))
    assert torch.equal(logits(model, reduced(model, family.prompt(*rows), "none")), plain)
    batch = answer(model, reduced(model, family.prompt(*rows)))
    for row, inputs in enumerate(rows):
        assert torch.equal(batch[row], answer(model, reduced(model, family.prompt(inputs)))[0])


# what cannot work is said plainly


def test_an_unsupported_family_hears_what_there_is_and_what_to_write():
    config = hf.AyaVisionConfig(
        vision_config=vision_config("siglip"), text_config=text_config(), image_token_id=IMAGE
    )
    with torch.device("meta"):
        model = hf.AyaVisionForConditionalGeneration(config)
    with pytest.raises(
        ValueError, match=r"'aya_vision' are not supported yet; supported: blip_2, .*vipllava"
    ):
        prumerge.reduce(model, {}, "none")
    with pytest.raises(ValueError, match=r"one file with two functions, encode\(\) and project\(\)"):
        prumerge.attach(model, "none")


def test_pictures_and_videos_together_are_refused():
    family = FAMILIES["LlavaOnevision"]
    rows = rows_of(family)
    inputs = family.prompt(*rows) | family.pixels([[replace(rows[0][1], modality="video")]])
    with pytest.raises(ValueError, match="pictures and videos in one batch are not supported"):
        prumerge.reduce(family.model(), inputs, "none")


@pytest.mark.parametrize("name", ["VideoLlava", "LlavaOnevision", "Qwen2VL"])
def test_a_video_without_frames_is_refused(name):
    family = FAMILIES[name]
    inputs = family.prompt(*rows_of(family, "video"))
    pixels = inputs["pixel_values_videos"]
    inputs["pixel_values_videos"] = pixels[:0] if name == "Qwen2VL" else pixels[:, :0]
    with pytest.raises(ValueError, match="the video has no frames; give it at least one"):
        prumerge.reduce(family.model(), inputs, "none")


def test_more_frames_than_the_model_takes_are_refused():
    family = FAMILIES["VideoLlava"]
    model, inputs = family.model(), family.prompt(*rows_of(family, "video"))
    inputs["pixel_values_videos"] = torch.zeros(2, 200, 3, 56, 56)
    with pytest.raises(ValueError, match="this model takes videos of 120 frames, not of 200"):
        prumerge.reduce(model, inputs, "none")


def test_a_video_for_a_family_that_takes_none_is_refused():
    family = FAMILIES["Llava"]
    inputs = {**family.prompt([5, 6]), "pixel_values_videos": torch.zeros(1, 2, 3, 56, 56)}
    inputs.pop("pixel_values", None)
    with pytest.raises(ValueError, match="'llava' take no videos; pass the frames as pictures"):
        prumerge.reduce(family.model(), inputs, "none")


def test_a_video_without_placeholder_is_refused():
    family = FAMILIES["VideoLlava"]
    inputs = family.prompt(*rows_of(family, "video"))
    inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == VIDEO, 5)
    with pytest.raises(ValueError, match="no video placeholder; write <video> where the video belongs"):
        prumerge.reduce(family.model(), inputs, "none")


def test_pictures_that_are_encoded_already_need_not_come_again():
    from prumerge.pipeline.splice import splice

    family = FAMILIES["LlavaNext"]
    model, inputs = family.model(), family.prompt(*rows_of(family))
    chosen = prumerge.select(model, inputs, "topk:keep=5")
    words = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    whole, without = (splice(model, given, chosen) for given in (inputs, words))
    assert torch.equal(whole["input_ids"], without["input_ids"])
    assert torch.equal(logits(model, whole), logits(model, without))


@pytest.mark.parametrize("spec", ["trim", "visionzip:keep=0.5", "divprune:keep=0.5", "dart:keep=0.5@each"])
@pytest.mark.parametrize("name", ["LlavaNext", "VideoLlava", "Qwen3VL", "InternVL", "Gemma3", "Blip2"])
def test_methods_that_read_words_class_tokens_or_embeddings(name, spec):
    family = FAMILIES[name]
    modality = "video" if family.videos else "image"
    model, rows = family.model(), rows_of(family, modality)[:1]
    inputs = family.prompt(*rows)
    for tokens, reduction in prumerge.select(model, inputs, spec):
        assert reduction.apply(tokens).isfinite().all()
    shorter = reduced(model, inputs, spec)
    assert shorter["input_ids"].shape[1] < inputs["input_ids"].shape[1]
    assert logits(model, shorter).isfinite().all()
