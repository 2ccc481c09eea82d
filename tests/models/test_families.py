"""Every family, on small random models of the real classes."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers as hf
from asking import SPEC, answer, logits, reduced
from builders import IMAGE, text_config, vision_config
from capabilities import CAPABILITIES, can, modalities
from families import FAMILIES, VIDEO, rows_of
from steps import spliced

import prumerge
from prumerge.catalogue import families
from prumerge.catalogue import family as described
from prumerge.models import family_of

TABLE = json.loads((Path(__file__).parents[2] / "docs" / "families.json").read_text())
CASES = [(name, modality) for name, family in FAMILIES.items() for modality in modalities(family)]


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    name, modality = request.param
    family = FAMILIES[name]
    return family, family.model(), modality, rows_of(family, modality)


def test_every_family_is_tested():
    assert {family.name for family in FAMILIES.values()} == set(families())


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", families())
def test_a_family_can_what_the_table_says(name, capability):
    """`python docs/probe_families.py` writes the table anew."""
    assert can(name, capability) == TABLE[name][capability]


def test_an_attached_method_does_what_reduce_does(case):
    family, model, _, rows = case
    expected = answer(model, reduced(model, family.prompt(*rows)))
    with prumerge.attach(model, SPEC) as attachment:
        sequences = model.generate(**family.prompt(*rows), max_new_tokens=3, do_sample=False)
    ids = family.prompt(*rows)["input_ids"]
    assert torch.equal(sequences, torch.cat([ids, expected], dim=1))
    assert all(0 < after < before for before, after in attachment.tokens)


def test_a_class_token_is_there_where_the_table_says_so(case):
    family, model, _, rows = case
    for tokens, _ in prumerge.select(model, family.prompt(*rows), "none"):
        has_one = tokens.class_key is not None
        assert has_one == described(family.name).attention.startswith("class token")
        attention = tokens.attention()
        assert attention.shape == (len(tokens),)
        assert attention.isfinite().all()
        assert attention.std() > 0


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


def test_every_family_says_what_it_takes():
    for name in families():
        takes = {"pictures"} | ({"videos"} if "pixel_values_videos" in family_of(name).inputs else set())
        assert set(described(name).takes.split(", ")) == takes


# with methods inside the tower and the language model, and positions


MERGING = ("Llava", "LlavaDinov2", "LlavaRegisters", "LlavaPhi", "MoELlava")


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in MERGING])
def test_merging_inside_a_tower_is_refused_where_it_is_not_supported(name):
    family = FAMILIES[name]
    with pytest.raises(ValueError, match="tome:r=1 merges inside the vision tower, which is not supported"):
        prumerge.reduce(family.model(), family.prompt(*rows_of(family)), "tome:r=1")


@pytest.mark.parametrize("name", MERGING[1:])
def test_merging_inside_a_tower_works_with_any_tower_and_language_model(name):
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
    family = FAMILIES["LlavaNext"]
    model, inputs = family.model(), family.prompt(*rows_of(family))
    chosen = prumerge.select(model, inputs, "topk:keep=5")
    words = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    whole, without = (spliced(model, given, chosen) for given in (inputs, words))
    assert torch.equal(whole["input_ids"], without["input_ids"])
    assert torch.equal(logits(model, whole), logits(model, without))
