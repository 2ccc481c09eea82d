"""Shortening a prompt: `none` changes nothing, and a batch means what its rows mean one by one."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from builders import (
    IMAGE,
    PAD,
    PICTURE,
    PLACES,
    answer,
    llava,
    pictures,
    prompt,
    row_of,
    text_config,
)
from steps import encoded
from torch.nn import functional as F
from transformers import (
    BatchFeature,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PixtralVisionConfig,
)

import prumerge
from prumerge.pipeline.encode import shown
from prumerge.pipeline.options import Options
from prumerge.pipeline.prompt import Prompt

ROWS = [[5, PICTURE, 6, 7], [5, PICTURE, 6, PICTURE, 9], [3, PICTURE], [4, 8, 2]]
MODELS: dict[str, Any] = {
    "clip": {},
    "clip, last layer": {"layer": -1},
    "clip, first layer": {"layer": 1},
    "clip, third last layer": {"layer": -3},
    "clip, two layers": {"layer": (-2, -1)},
    "clip, 49 patches": {"side": 98},
    "siglip": {"tower": "siglip"},
    "siglip, last layer": {"tower": "siglip", "layer": -1},
}


def logits_of(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def reduced(model, inputs, spec):
    with torch.no_grad():
        return prumerge.reduce(model, inputs, spec)


def features_of(shorter):
    return shorter["mm_encoder_outputs"]["image"].pooler_output


# `none` is the untouched model


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", MODELS)
def test_none_changes_no_bit_of_the_logits(kind, dtype, padding):
    model = llava(**MODELS[kind], dtype=dtype)
    inputs = prompt(*ROWS, side=MODELS[kind].get("side", 56), padding=padding)
    assert torch.equal(logits_of(model, reduced(model, inputs, "none")), logits_of(model, inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_none_changes_no_answer(kind, dtype):
    model, inputs = llava(kind, dtype=dtype), prompt(*ROWS)
    assert torch.equal(answer(model, reduced(model, inputs, "none")), answer(model, inputs))


def test_none_changes_nothing_without_an_attention_mask(model):
    inputs = prompt([5, PICTURE, 6, 7, 8], [3, 4, PICTURE, 2, 9])
    del inputs["attention_mask"]
    shorter = reduced(model, inputs, "none")
    assert torch.equal(logits_of(model, shorter), logits_of(model, inputs))
    assert torch.equal(answer(model, shorter), answer(model, inputs))


@pytest.mark.parametrize("kind", MODELS)
def test_features_are_those_of_the_model_itself(kind):
    model, inputs = llava(**MODELS[kind]), prompt(*ROWS, side=MODELS[kind].get("side", 56))
    with torch.no_grad():
        own = model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output
    for ours, theirs in zip(features_of(reduced(model, inputs, "none")), own, strict=True):
        assert torch.equal(ours, theirs)


def test_the_layer_can_be_chosen_in_the_call_as_in_transformers(model):
    inputs = {**prompt(*ROWS), "vision_feature_layer": -3}
    shorter = reduced(model, inputs, "none")
    assert "vision_feature_layer" not in shorter
    assert torch.equal(logits_of(model, shorter), logits_of(model, inputs))


# a batch is its rows


@pytest.mark.parametrize(
    "spec",
    ["prumerge", "prumerge_plus", "topk", "pool:keep=3", "visionzip:keep=5", "cdpruner:keep=5", "trim"],
)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_each_row_of_a_ragged_batch_is_the_row_alone(model, padding, spec):
    inputs = prompt(*ROWS, padding=padding)
    shorter = reduced(model, inputs, spec)
    batch = logits_of(model, shorter)
    for row, _ in enumerate(ROWS):
        alone = logits_of(model, reduced(model, row_of(inputs, row), spec))[0]
        real = shorter["attention_mask"][row].bool()
        torch.testing.assert_close(batch[row, real], alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("spec", ["prumerge", "prumerge_plus", "topk"])
def test_each_row_of_a_ragged_batch_answers_as_the_row_alone(model, spec):
    inputs = prompt(*ROWS)
    batch = answer(model, reduced(model, inputs, spec))
    for row, _ in enumerate(ROWS):
        assert torch.equal(batch[row], answer(model, reduced(model, row_of(inputs, row), spec))[0])


def test_pictures_of_one_row_may_keep_different_numbers_of_tokens(model):
    inputs = prompt(ROWS[1], seed=4)
    kept = [len(reduction) for _, reduction in prumerge.select(model, inputs, "prumerge_plus")]
    assert kept[0] != kept[1]
    shorter = reduced(model, inputs, "prumerge_plus")
    assert [len(features) for features in features_of(shorter)] == kept
    assert shorter["input_ids"].tolist() == [[5, *[IMAGE] * kept[0], 6, *[IMAGE] * kept[1], 9]]


@pytest.mark.parametrize("padding", ["left", "right"])
def test_rows_are_as_short_as_the_longest_allows_and_padded_as_before(model, padding):
    inputs = prompt(*ROWS, padding=padding)
    shorter = reduced(model, inputs, "topk:keep=2")
    two = [IMAGE, IMAGE]
    texts = [[5, *two, 6, 7], [5, *two, 6, *two, 9], [3, *two], [4, 8, 2]]
    margins = [[PAD] * (7 - len(text)) for text in texts]
    rows = [
        margin + text if padding == "left" else text + margin
        for text, margin in zip(texts, margins, strict=True)
    ]
    assert shorter["input_ids"].tolist() == rows
    assert torch.equal(shorter["attention_mask"], (shorter["input_ids"] != PAD).long())


def test_a_batch_that_had_no_padding_is_padded_on_the_left_for_generation(model):
    inputs = prompt([5, PICTURE, *range(20, 36), 7], [5, PICTURE, PICTURE, 7])
    assert inputs["attention_mask"].all()
    mask = reduced(model, inputs, "topk:keep=2")["attention_mask"]
    assert mask.sum(1).tolist() == [20, 6]
    assert mask[1].tolist() == [0] * 14 + [1] * 6


def test_every_tensor_as_long_as_the_prompt_is_cut_alike(model):
    inputs = prompt(*ROWS)
    inputs["token_type_ids"] = inputs["input_ids"] * 10
    inputs["weights"] = inputs["input_ids"] / 2
    inputs["other"] = torch.ones(*inputs["input_ids"].shape, 2)
    shorter = reduced(model, inputs, "topk:keep=2")
    assert torch.equal(shorter["token_type_ids"], shorter["input_ids"] * 10)
    assert torch.equal(shorter["weights"], shorter["input_ids"] / 2)
    assert shorter["other"] is inputs["other"]


@pytest.mark.parametrize("padding", ["left", "right"])
def test_position_ids_are_counted_anew_without_gaps(model, padding):
    inputs = prompt(*ROWS, padding=padding)
    plain = logits_of(model, reduced(model, inputs, "prumerge"))
    mask = inputs["attention_mask"]
    inputs["position_ids"] = (mask.cumsum(1) - 1).masked_fill(mask == 0, 1)
    shorter = reduced(model, inputs, "prumerge")
    for positions, real in zip(shorter["position_ids"], shorter["attention_mask"].bool(), strict=True):
        assert positions[real].tolist() == list(range(int(real.sum())))
    real = shorter["attention_mask"].bool()
    torch.testing.assert_close(logits_of(model, shorter)[real], plain[real], atol=2e-5, rtol=1e-4)


def test_no_tensor_of_the_caller_is_changed(model):
    inputs = prompt(*ROWS)
    before = copy.deepcopy(inputs)
    reduced(model, inputs, "prumerge")
    assert inputs.keys() == before.keys()
    assert all(torch.equal(inputs[name], before[name]) for name in inputs)


def test_a_processors_output_may_be_given_as_it_is(model):
    inputs = prompt(*ROWS)
    shorter = reduced(model, BatchFeature(inputs), "prumerge")
    assert torch.equal(shorter["input_ids"], reduced(model, inputs, "prumerge")["input_ids"])
    assert "pixel_values" not in shorter


def test_text_alone_comes_back_as_it_is(model):
    inputs = prompt([4, 5, 6], [7, 8])
    del inputs["pixel_values"]
    assert reduced(model, inputs, "prumerge") == inputs
    assert prumerge.select(model, inputs, "prumerge") == []


def test_no_pictures_in_so_many_words_comes_back_as_it_is(model):
    inputs = {**prompt([4, 5, 6]), "pixel_values": None}
    assert reduced(model, inputs, "prumerge") == inputs


def test_beams_of_a_ragged_batch_are_those_of_each_row(model):
    inputs = prompt(*ROWS)
    batch = answer(model, reduced(model, inputs, "prumerge_plus"), num_beams=3)
    for row, _ in enumerate(ROWS):
        alone = answer(model, reduced(model, row_of(inputs, row), "prumerge_plus"), num_beams=3)
        assert torch.equal(batch[row], alone[0])


def test_a_half_precision_model_gets_features_of_its_own_type():
    model = llava(dtype=torch.bfloat16)
    shorter = reduced(model, prompt(*ROWS), "prumerge")
    assert {features.dtype for features in features_of(shorter)} == {torch.bfloat16}
    assert logits_of(model, shorter).isfinite().all()


# training


def with_labels(inputs):
    """Words are labels, but for the first of each row, which nothing precedes."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    ignored = (ids == IMAGE) | (mask == 0) | (mask.cumsum(1) == 1)
    return {**inputs, "labels": ids.masked_fill(ignored, -100)}


def loss_by_hand(model, inputs, spec):
    """Of one row: features put between the embedded words, one picture after the other."""
    features = [reduction.apply(tokens) for tokens, reduction in prumerge.select(model, inputs, spec)]
    embed, waiting, embedded, labels = model.get_input_embeddings(), list(features), [], []
    ids = inputs["input_ids"][0].tolist()
    while ids:
        if ids[0] == IMAGE:
            embedded.append(model.model.multi_modal_projector(waiting.pop(0)))
            ids = ids[PLACES:]
            labels += [-100] * len(embedded[-1])
        else:
            embedded.append(embed(torch.tensor(ids[:1])))
            labels.append(ids.pop(0))
    hidden = model.model.language_model(inputs_embeds=torch.cat(embedded)[None]).last_hidden_state
    return F.cross_entropy(model.lm_head(hidden)[0, :-1], torch.tensor(labels[1:]))


@pytest.mark.parametrize("spec", ["none", "prumerge", "prumerge_plus", "spatial:keep=3"])
@pytest.mark.parametrize("row", ROWS[:3], ids=["one picture", "two pictures", "no word after the picture"])
def test_the_loss_is_that_of_words_around_fewer_features(model, row, spec):
    inputs = with_labels(prompt([11, 12, *row]))
    loss = model(**prumerge.reduce(model, inputs, spec)).loss
    torch.testing.assert_close(loss, loss_by_hand(model, inputs, spec), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_the_loss_of_a_batch_is_the_mean_over_the_words_of_its_rows(model, padding):
    inputs = with_labels(prompt(*ROWS, padding=padding))
    loss = model(**reduced(model, inputs, "prumerge")).loss
    total = words = 0
    for row, _ in enumerate(ROWS):
        alone = row_of(inputs, row)
        count = int((alone["labels"][:, 1:] != -100).sum())
        if count:
            total += model(**reduced(model, alone, "prumerge")).loss.item() * count
            words += count
    assert math.isclose(loss.item(), total / words, rel_tol=1e-5)


def test_gradients_reach_the_vision_tower_the_projector_and_the_language_model(model):
    inputs = with_labels(prompt(*ROWS))
    model(**prumerge.reduce(model, inputs, "prumerge")).loss.backward()
    inner = model.model
    layers = inner.vision_tower.encoder.layers
    for module in (layers[0], layers[1], inner.multi_modal_projector, inner.language_model, model.lm_head):
        assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in module.parameters())


def test_merging_trains_the_attention_it_is_weighted_by(model):
    inputs = with_labels(prompt(*ROWS))
    model(**prumerge.reduce(model, inputs, "prumerge")).loss.backward()
    scoring = model.model.vision_tower.encoder.layers[-1].self_attn
    assert scoring.q_proj.weight.grad.abs().sum() > 0
    assert scoring.v_proj.weight.grad is None


def test_gradient_checkpointing_gives_the_same_gradients(model):
    inputs = with_labels(prompt(*ROWS))
    other = copy.deepcopy(model).train()
    other.gradient_checkpointing_enable()
    for one in (model, other):
        one(**prumerge.reduce(one, inputs, "prumerge")).loss.backward()
    for (name, weight), again in zip(model.named_parameters(), other.parameters(), strict=True):
        if weight.grad is not None:
            torch.testing.assert_close(again.grad, weight.grad, msg=name)


def test_mixed_precision_decides_in_full_precision(model):
    inputs = with_labels(prompt(*ROWS))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        chosen = prumerge.select(model, inputs, "prumerge:keep=5,k=3")
        model(**prumerge.reduce(model, inputs, "prumerge:keep=5,k=3")).loss.backward()
    assert chosen[0][0].keys.dtype == torch.bfloat16
    for tokens, reduction in chosen:
        again = prumerge.make("prumerge:keep=5,k=3")(tokens)
        assert torch.equal(reduction.index, again.index)
        assert torch.equal(reduction.weights, again.weights)


@pytest.mark.parametrize("spec", ["divprune:keep=5", "cdpruner:keep=5", "visionzip:keep=5", "scope:keep=5"])
def test_methods_that_read_more_than_features_work_in_mixed_precision(model, spec):
    inputs = with_labels(prompt(*ROWS))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(**prumerge.reduce(model, inputs, spec)).loss.backward()
    assert model.model.multi_modal_projector.linear_1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("spec", ["divprune:keep=5", "cdpruner:keep=5", "visionzip:keep=5", "trim"])
def test_methods_that_read_more_than_features_work_in_half_precision(spec):
    model, inputs = llava(dtype=torch.bfloat16), prompt(*ROWS)
    assert logits_of(model, reduced(model, inputs, spec)).isfinite().all()


def test_nothing_is_recorded_for_gradients_under_no_grad(model):
    assert not any(
        features.requires_grad for features in features_of(reduced(model, prompt(*ROWS), "prumerge"))
    )


# the vision tower


def calls(modules):
    """How often each of these modules has run, kept up to date."""
    counts = [0] * len(modules)

    def count(place):
        def hook(*_):
            counts[place] += 1

        return hook

    for place, module in enumerate(modules):
        module.register_forward_hook(count(place))
    return counts


def test_the_last_vision_layer_is_read_but_not_run(model):
    last = model.model.vision_tower.encoder.layers[-1]
    layers = calls(model.model.vision_tower.encoder.layers)
    read = calls([last.layer_norm1, last.self_attn.q_proj, last.self_attn.k_proj])
    rest = calls([last.self_attn, last.self_attn.v_proj, last.self_attn.out_proj, last.mlp, last.layer_norm2])
    reduced(model, prompt(*ROWS), "prumerge")
    assert (layers, read, rest) == ([1, 1, 0], [1, 1, 1], [0] * 5)


def test_the_last_vision_layer_is_run_where_its_output_is_read():
    model = llava(layer=-1)
    layers = calls(model.model.vision_tower.encoder.layers)
    reduced(model, prompt(*ROWS), "prumerge")
    assert layers == [1, 1, 1]


def test_all_pictures_are_encoded_at_once(model):
    tower = calls([model.model.vision_tower.embeddings, model.model.multi_modal_projector])
    reduced(model, prompt(*ROWS), "prumerge")
    assert tower == [1, 1]


def test_class_attention_is_what_the_encoder_itself_computes(model):
    inputs = prompt(*ROWS)
    eager = copy.deepcopy(model.model.vision_tower)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        attention = eager(inputs["pixel_values"], output_attentions=True).attentions[-1]
        ours = [tokens.attention() for tokens, _ in prumerge.select(model, inputs, "none")]
    torch.testing.assert_close(torch.stack(ours), attention[:, :, 0, 1:].mean(1), atol=1e-6, rtol=1e-5)


def test_without_a_class_token_it_is_the_mean_over_all_patches():
    model, inputs = llava("siglip"), prompt(*ROWS)
    eager = copy.deepcopy(model.model.vision_tower)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        attention = eager(inputs["pixel_values"], output_attentions=True).attentions[-1]
        ours = [tokens.attention() for tokens, _ in prumerge.select(model, inputs, "none")]
    torch.testing.assert_close(torch.stack(ours), attention.mean((1, 2)), atol=1e-6, rtol=1e-5)


def test_scores_need_no_eager_attention(model):
    reduced(model, prompt(*ROWS), "prumerge")
    assert model.config._attn_implementation == "sdpa"
    assert model.model.vision_tower.config._attn_implementation == "sdpa"


def test_visual_tokens_know_their_grid_their_heads_and_the_class_token(model):
    (tokens, _), *_ = prumerge.select(model, prompt(*ROWS), "none")
    assert (tokens.grid, tokens.heads, len(tokens.queries)) == ((1, 4, 4), 4, 1)
    assert tokens.class_key.shape == tokens.class_feature.shape == (32,)


def test_a_tower_without_a_class_token_has_queries_of_every_patch():
    (tokens, _), *_ = prumerge.select(llava("siglip"), prompt(*ROWS), "none")
    assert len(tokens.queries) == PLACES
    assert tokens.class_key is None
    assert tokens.class_feature is None


# methods of others


@dataclass(frozen=True, kw_only=True)
class Halves(prumerge.Reducer):
    """The mean of the upper and of the lower half."""

    def __call__(self, tokens):
        count = len(tokens)
        weights = torch.zeros(2, count)
        weights[0, : count // 2] = weights[1, count // 2 :] = 2 / count
        return prumerge.Reduction(torch.tensor([0, count // 2]), weights)


@dataclass(frozen=True, kw_only=True)
class Fixed(prumerge.Reducer):
    """So many rows, whatever there is."""

    rows: int = 0

    def __call__(self, tokens):
        return prumerge.Reduction(torch.zeros(self.rows, dtype=torch.long))


def test_a_reducer_written_elsewhere_works(model):
    inputs = prompt(*ROWS)
    shorter = reduced(model, inputs, Halves())
    assert shorter["attention_mask"].sum(1).tolist() == [5, 7, 3, 3]
    (tokens, _), *_ = prumerge.select(model, inputs, "none")
    with torch.no_grad():
        upper = model.model.multi_modal_projector(tokens.features[:8].mean(0))
    torch.testing.assert_close(features_of(shorter)[0][0], upper)
    assert logits_of(model, shorter).isfinite().all()


@pytest.mark.parametrize("rows", [0, PLACES + 1])
def test_a_reducer_that_leaves_nothing_or_adds_tokens_is_refused(model, rows):
    with pytest.raises(ValueError, match=f"made {rows} tokens of 16; it must be 1 to 16"):
        reduced(model, prompt(*ROWS), Fixed(rows=rows))


# what cannot work is said plainly


def test_a_prompt_without_a_placeholder(model):
    inputs = {**prompt([5, 6, 7]), "pixel_values": pictures(1)}
    with pytest.raises(ValueError, match="no image placeholder; write <image> where the picture belongs"):
        reduced(model, inputs, "prumerge")


def test_more_pictures_than_placeholders(model):
    inputs = {**prompt([5, PICTURE, 7]), "pixel_values": pictures(2)}
    with pytest.raises(ValueError, match=r"placeholders for 1 pictures \(16 tokens, 16 each\), but 2 came"):
        reduced(model, inputs, "prumerge")


def test_fewer_pictures_than_placeholders(model):
    inputs = {**prompt([5, PICTURE, PICTURE, 7]), "pixel_values": pictures(1)}
    with pytest.raises(ValueError, match=r"placeholders for 2 pictures .* but 1 came"):
        reduced(model, inputs, "prumerge")


def test_placeholders_that_were_cut_off(model):
    inputs = prompt([5, PICTURE])
    inputs = {
        **inputs,
        "input_ids": inputs["input_ids"][:, :9],
        "attention_mask": inputs["attention_mask"][:, :9],
    }
    with pytest.raises(ValueError, match=r"placeholders for 0\.5 pictures"):
        reduced(model, inputs, "prumerge")


def test_embeddings_in_place_of_a_prompt(model):
    inputs = {"inputs_embeds": torch.zeros(1, 20, 32), "pixel_values": pictures(1)}
    with pytest.raises(ValueError, match="inputs_embeds cannot be shortened"):
        reduced(model, inputs, "prumerge")


def test_an_unknown_method(model):
    with pytest.raises(ValueError, match=r"there is no method 'magic'; choose one of: .*prumerge"):
        reduced(model, prompt(*ROWS), "magic")


def test_a_budget_beyond_the_picture(model):
    with pytest.raises(ValueError, match="more than the 16 visual tokens"):
        reduced(model, prompt(*ROWS), "prumerge:keep=17")


def test_a_language_model_that_sees_nothing():
    with pytest.raises(ValueError, match="'llama' is not a vision-language model"):
        reduced(LlamaForCausalLM(text_config()), prompt(*ROWS), "prumerge")


def test_a_module_that_is_no_transformers_model():
    with pytest.raises(TypeError, match="Linear is no Transformers model"):
        reduced(torch.nn.Linear(2, 2), prompt(*ROWS), "prumerge")


def test_something_that_is_no_model(unchecked):
    with pytest.raises(TypeError, match=r"a Transformers model is needed, not str; prumerge\.load"):
        reduced("tiny", prompt(*ROWS), "prumerge")


def test_a_vision_tower_that_is_not_known():
    config = LlavaConfig(
        vision_config=PixtralVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=56,
            patch_size=14,
        ),
        text_config=text_config(),
        image_token_index=IMAGE,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    with pytest.raises(ValueError, match="vision tower 'pixtral' is not supported yet; there are: clip"):
        reduced(LlavaForConditionalGeneration(config), prompt(*ROWS), "prumerge")


@pytest.mark.parametrize(("tower", "strategy"), [("clip", "full"), ("siglip", "default")])
def test_a_strategy_that_does_not_fit_the_tower(tower, strategy):
    with pytest.raises(ValueError, match=f"vision_feature_select_strategy='{strategy}' does not fit"):
        reduced(llava(tower, strategy=strategy), prompt(*ROWS), "prumerge")


def test_visual_tokens_must_fill_their_grid():
    with pytest.raises(ValueError, match=r"a grid of \(1, 2, 3\) does not hold 5 visual tokens"):
        prumerge.VisualTokens(
            features=torch.zeros(5, 4),
            grid=(1, 2, 3),
            keys=torch.zeros(5, 4),
            queries=torch.zeros(1, 4),
            heads=1,
        )


def test_heads_must_divide_the_keys():
    with pytest.raises(ValueError, match="3 heads do not divide keys of width 4"):
        prumerge.VisualTokens(
            features=torch.zeros(6, 4),
            grid=(1, 2, 3),
            keys=torch.zeros(6, 4),
            queries=torch.zeros(1, 4),
            heads=3,
        )


# methods that read the text, or compare what the language model would read


@pytest.mark.parametrize("padding", ["left", "right"])
def test_words_are_those_of_the_pictures_row(model, padding):
    inputs = prompt(*ROWS, [1, PICTURE, 0, 7], padding=padding)
    tokens = encoded(model, inputs)
    embedding = model.get_input_embeddings().weight
    words = [[5, 6, 7], [5, 6, 9], [5, 6, 9], [3], [7]]  # 0 and 1 begin, end and pad a text
    assert len(tokens) == len(words)
    for one, expected in zip(tokens, words, strict=True):
        assert torch.equal(one.text(), embedding[expected])


def test_several_tokens_may_end_a_text(model):
    model.config.text_config.eos_token_id = [6, 7]
    [tokens] = encoded(model, prompt([5, PICTURE, 6, 7]))
    assert torch.equal(tokens.text(), model.get_input_embeddings().weight[[5]])


def test_patches_are_embedded_by_the_projector(model):
    [tokens] = encoded(model, prompt([5, PICTURE, 6]))
    assert torch.equal(tokens.embeddings(), model.model.multi_modal_projector(tokens.features))
    assert not tokens.embeddings().requires_grad


def test_encoded_pictures_can_be_asked_about_anew(model):
    inputs = prompt([5, PICTURE, 6])
    [tokens] = encoded(model, {"pixel_values": inputs["pixel_values"]})
    with pytest.raises(ValueError, match="cdpruner needs text"):
        prumerge.make("cdpruner")(tokens)
    [asked] = shown(Prompt.read(model, inputs), [tokens], Options())
    assert torch.equal(asked.text(), model.get_input_embeddings().weight[[5, 6]])


@pytest.mark.parametrize("spec", ["visionzip:keep=5", "divprune:keep=5"])
def test_words_are_not_looked_up_for_a_method_that_does_not_ask(model, spec, monkeypatch):
    monkeypatch.setattr(Prompt, "words", None)
    assert len(features_of(reduced(model, prompt([5, PICTURE]), spec))[0]) == 5


def test_the_question_decides_what_a_text_aware_method_keeps(model):
    kept = {
        tuple(prumerge.select(model, prompt([word, PICTURE]), "trim:keep=4")[0][1].index.tolist())
        for word in range(5, 25)
    }
    assert len(kept) > 1


def test_a_prompt_without_words_names_a_method_that_needs_none(model):
    with pytest.raises(ValueError, match=r"cdpruner:keep=5 needs text .* use for example divprune"):
        reduced(model, prompt([1, PICTURE]), "cdpruner:keep=5")


def test_the_class_token_that_visionzip_keeps_goes_through_the_projector(model):
    inputs = prompt([5, PICTURE, 6])
    [tokens] = encoded(model, inputs)
    [features] = features_of(reduced(model, inputs, "visionzip:keep=5"))
    torch.testing.assert_close(features[0], model.model.multi_modal_projector(tokens.class_feature))


@pytest.mark.parametrize("layer", [-1, -2, -3, 1])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_attention_is_that_of_the_layer_a_paper_names(kind, layer):
    model, inputs = llava(kind, layer=layer), prompt([5, PICTURE], [6, PICTURE])
    tower = model.model.vision_tower
    tower.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = tower(inputs["pixel_values"], output_attentions=True).attentions
    writer = range(4)[layer] - 1  # hidden state 0 is what the first of the three layers reads
    for number, tokens in enumerate(encoded(model, inputs)):
        named = ("writer", writer), ("first", 0), (1, 0), (2, 1), (3, 2), (0.34, 0), (0.7, 1), (0.1, 0)
        for name, depth in named:
            received = attentions[depth][number].mean(0)  # over heads
            expected = received[0, 1:] if kind == "clip" else received.mean(0)
            torch.testing.assert_close(tokens.scored_by(name).attention(), expected, atol=1e-5, rtol=1e-4)
        reader = attentions[min(writer + 1, 2)][number].mean(0)
        expected = reader[0, 1:] if kind == "clip" else reader.mean(0)
        torch.testing.assert_close(tokens.attention(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layer", [4, 40])
def test_a_layer_that_the_tower_has_not_is_refused(model, layer):
    with pytest.raises(ValueError, match=rf"tower has 3 layers, counted from 1, and no layer {layer}; give"):
        reduced(model, prompt([5, PICTURE]), f"hiprune:keep=5,alpha=1,layer={layer}")


def test_a_middle_layer_is_one_that_the_method_names(model):
    [tokens] = encoded(model, prompt([5, PICTURE]))
    for layer in (1, 2):
        highest = tokens.scored_by(layer).attention().argmax()
        assert highest in prumerge.make(f"hiprune:keep=5,alpha=1,layer={layer}")(tokens).index


@pytest.mark.parametrize("name", ["visionzip", "vispruner", "scope", "fastervlm", "holov", "hired"])
def test_some_papers_take_the_layer_that_wrote_the_features(model, name):
    [tokens] = encoded(model, prompt([5, PICTURE], side=56))
    method = prumerge.make(f"{name}:keep=5")
    written = method(tokens.scored_by("writer"))
    assert torch.equal(method(tokens).index, written.index)
    assert not torch.equal(tokens.attention(), tokens.scored_by("writer").attention())
