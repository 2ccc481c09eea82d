"""Attention in proportion to size: a merged token counts as the patches it stands for."""

import copy
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import pytest
import torch
from builders import IMAGE, PICTURE, answer, llava, processor, prompt, row_of, visual_tokens
from families import FAMILIES, Picture, rows_of
from noise import noise
from steps import (
    Fourths,
    LaterFourths,
    close,
    decided,
    logits_of,
    readings,
    spliced,
    token_by_token_and_at_once,
    words,
)
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache

import prumerge
from prumerge.generate.answer import answer as ask_about
from prumerge.layers import pruning, sized
from prumerge.layers.pruning import Inside
from prumerge.layers.sized import attending
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline
from prumerge.pipeline.splice import column_sizes
from prumerge.reducers.fastv import FastV

ROWS = [[5, PICTURE, 6, 7], [5, PICTURE, 6, PICTURE, 9, 11, 12], [4, 8, 2]]
LAYERS = 4
UNEVEN = [1, 3, 7, 5]


@dataclass(frozen=True, kw_only=True)
class Uneven(prumerge.Reducer):
    """Means of 1, 3, 7 and 5 tokens in a row."""

    def __call__(self, tokens):
        ends = list(accumulate(UNEVEN))
        weights = torch.zeros(4, len(tokens))
        for row, (end, size) in enumerate(zip(ends, UNEVEN, strict=True)):
            weights[row, end - size : end] = 1 / size
        rows = torch.arange(4).repeat_interleave(torch.tensor(UNEVEN))
        return prumerge.Reduction(torch.tensor(ends) - 1, weights, rows)


SPECS = [
    Uneven(),
    "prumerge:keep=3",
    "tome:r=3",
    "visionzip:keep=5",
    "pool:keep=8+fastv:keep=3,layer=2",
    "sparsevlm:keep=4,layers=1-2-3",
    "prumerge:keep=9+sparsevlm:keep=4,positions=original",
]


@pytest.fixture
def llama():
    return llava(layers=LAYERS)


def biased(model, inputs, spec, **options):
    with prumerge.attach(model, spec, size_bias=True, **options):
        return logits_of(model, inputs)


# sizes


def test_what_was_pruned_stands_for_itself():
    assert prumerge.Reduction(torch.tensor([4, 2])).sizes().tolist() == [1, 1]
    assert prumerge.Reduction(torch.tensor([1, 2])).sizes(torch.tensor([5.0, 2, 3])).tolist() == [2, 3]


def test_sizes_are_the_numbers_of_patches_where_each_goes_into_one_token():
    tokens = visual_tokens((1, 6, 6))
    assert prumerge.make("pool:keep=9")(tokens).sizes().tolist() == [4] * 9
    assert Uneven()(visual_tokens((1, 4, 4))).sizes(torch.full((16,), 2.0)).tolist() == [2, 6, 14, 10]
    zipped = prumerge.make("visionzip:keep=9")(tokens)
    assert zipped.sizes()[0] == 1  # the class token
    assert sorted(zipped.sizes().tolist())[:8] == [1] * 8
    assert zipped.sizes().sum() == 37


@pytest.mark.parametrize("spec", ["prumerge:keep=5", "prumerge_plus", "resampler:keep=4"])
def test_a_patch_in_several_tokens_is_divided_among_them(spec):
    reduction = prumerge.make(spec)(visual_tokens((1, 6, 6)))
    expected = [0.0] * len(reduction)
    for patch in reduction.weights.T.tolist():
        for row, weight in enumerate(patch):
            expected[row] += weight / sum(patch)
    close(reduction.sizes(), torch.tensor(expected))
    assert float(reduction.sizes().sum()) == pytest.approx(36)


def test_columns_have_the_sizes_of_their_tokens_in_the_order_they_are_read():
    family = FAMILIES["LlavaNext"]
    inputs = family.prompt([5, Picture(1, (60, 112)), 6])
    ((tokens, _),) = prumerge.select(family.model(), inputs, "none")
    own = torch.zeros(len(tokens), dtype=torch.long)
    own[3:8], own[20:22] = 1, 2
    chosen = [(tokens, prumerge.Reduction(torch.tensor([24, 3, 20]), None, own))]
    model = family.model()
    for policy in ("keep", "drop", "remake"):
        shorter = spliced(model, inputs, chosen, separators=policy)
        sizes = column_sizes(model, shorter, decided(chosen, separators=policy))
        placed = shorter["input_ids"] == model.config.image_token_id
        features = shorter["mm_encoder_outputs"]["image"].pooler_output[0]
        tokens_only = ~(features == model.model.image_newline).all(1)
        order = tokens.placed[chosen[0][1].index].argsort()
        assert sizes[placed][tokens_only].tolist() == torch.tensor([len(tokens) - 7.0, 5, 2])[order].tolist()
        assert (sizes[placed][~tokens_only] == 1).all()
        assert (sizes[~placed] == 1).all()


@pytest.mark.parametrize(
    "spec", ["medoids:keep=3", "scope:keep=3", "prumerge:keep=3", "pool:keep=3", "tome:r=3+topk:keep=3"]
)
def test_every_patch_counts_once_in_the_prompt(llama, spec):
    pipeline, inputs = Pipeline(spec), prompt(*ROWS)
    with torch.no_grad():
        shorter, decisions = pipeline.reduce(Prompt.read(llama, inputs))
    sizes, placed = column_sizes(llama, shorter, decisions), shorter["input_ids"] == IMAGE
    assert [float(row[at].sum()) for row, at in zip(sizes, placed, strict=True)] == [16, 32, 0]
    assert sizes.min() == 1


# what it means


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("text", ["llama", "qwen2", "mistral"])
def test_a_token_counts_as_that_many_copies_in_its_place(text, attention):
    """The prompt with every token as often as its size, copies at one position that see one another."""
    model = llava(text=text, layers=LAYERS, attention=attention)
    inputs = prompt(ROWS[0])
    with torch.no_grad():
        shorter = prumerge.reduce(model, inputs, Uneven())
        [features] = shorter["mm_encoder_outputs"]["image"].pooler_output
        ids = shorter["input_ids"][0]
        embedded = model.get_input_embeddings()(ids)
        embedded[ids == IMAGE] = features
        times = torch.ones_like(ids)
        times[ids == IMAGE] = torch.tensor(UNEVEN)
        place = torch.arange(len(ids)).repeat_interleave(times)
        sees = place[:, None] >= place
        mask = torch.where(sees, 0.0, -torch.inf) if attention == "eager" else sees
        copies = model.model.language_model(
            inputs_embeds=embedded.repeat_interleave(times, dim=0)[None],
            position_ids=place[None],
            attention_mask=mask[None, None],
        ).last_hidden_state
        expected = model.lm_head(copies)[0, times.cumsum(0) - 1]
    found = biased(model, inputs, Uneven(), positions="compact")[0]
    close(found, expected)
    assert not torch.allclose(found[-1], logits_of(model, shorter)[0, -1], atol=1e-2)


def test_who_is_told_sizes_is_told_where_tokens_stood(llama):
    inputs, spec = prompt(ROWS[0]), "spatial:keep=4"
    told = biased(llama, inputs, spec)
    assert torch.equal(told, biased(llama, inputs, spec, positions="original"))
    assert not torch.allclose(told, biased(llama, inputs, spec, positions="compact"), atol=1e-3)
    plain = prumerge.reduce(llama, inputs, spec)
    compact = prumerge.reduce(llama, inputs, spec, positions="compact")
    assert torch.equal(logits_of(llama, plain), logits_of(llama, compact))


def test_methods_between_layers_look_at_the_attention_that_the_layers_have(llama):
    inputs = prompt(ROWS[0])
    eager = copy.deepcopy(llama)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        shorter = prumerge.reduce(llama, inputs, Uneven())
    sizes = torch.ones(shorter["input_ids"].shape)
    sizes[shorter["input_ids"] == IMAGE] = torch.tensor(UNEVEN, dtype=torch.float)
    with Inside(eager, None, sizes), torch.no_grad():
        attentions = eager(**shorter, output_attentions=True).attentions
    with Inside(llama, FastV(keep=2, layer=2), sizes) as inside, torch.no_grad():
        seen = readings(inside)
        llama(**shorter)
    [[(relevance, _)]] = seen
    close(relevance, attentions[1][0, :, -1].mean(0)[shorter["input_ids"][0] == IMAGE])


@pytest.mark.parametrize("positions", ["original", "compact"])
def test_merging_before_the_first_layer_is_merging_before_the_language_model(positions):
    model = llava(layers=LAYERS)
    model.model.multi_modal_projector.act = torch.nn.Identity()  # before or after it, a mean is the same
    inputs = prompt(*ROWS)
    with torch.no_grad():
        shorter = prumerge.reduce(model, inputs, Fourths(mean=True), positions=positions)
    before = biased(model, inputs, Fourths(mean=True), positions=positions)[words(shorter)]
    inside = biased(model, inputs, LaterFourths(mean=True, positions=positions))[words(inputs)]
    close(inside, before)


@pytest.fixture
def long_prompts(monkeypatch):
    """Prompts of any length count as long ones."""
    monkeypatch.setattr(sized, "_WORTH", {"cpu": 1, "cuda": 1})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [4, 2])
def test_a_channel_more_is_a_mask(heads, dtype):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, n, 9, 16, dtype=dtype) for n in (4, heads, heads))
    bias = torch.rand(2, 9) * 6
    mask = torch.ones(9, 9).tril().log() + bias[:, None, None]
    expected = scaled_dot_product_attention(
        query.double(), key.double(), value.double(), attn_mask=mask.double(), enable_gqa=True
    )
    with attending(bias):
        found = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.double(), expected, atol=1e-5 if dtype == torch.float32 else 2e-2, rtol=0
    )


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_long_prompts_are_read_as_short_ones(llama, spec, monkeypatch):
    inputs = prompt(ROWS[1])
    with prumerge.attach(llama, spec, size_bias=True):
        logits, said = logits_of(llama, inputs), answer(llama, inputs, tokens=4)
        monkeypatch.setattr(sized, "_WORTH", {"cpu": 1, "cuda": 1})
        close(logits_of(llama, inputs), logits)
        assert torch.equal(answer(llama, inputs, tokens=4), said)


def test_long_prompts_have_no_mask(llama, long_prompts, monkeypatch):
    monkeypatch.setattr(pruning, "biased", None)  # nobody asks for one
    assert biased(llama, prompt(ROWS[1]), Uneven()).isfinite().all()


def test_attention_that_is_none_does_not_lose_sizes_in_silence():
    with pytest.raises(RuntimeError, match="sizes had no effect"), attending(torch.zeros(1, 3)):
        torch.ones(3).softmax(dim=0)


# batches, padding, caches


def of_words(model, inputs, spec):
    """Logits of each row's words."""
    with prumerge.attach(model, spec, size_bias=True) as attached, torch.no_grad():
        logits = model(**inputs).logits
        shorter, _ = attached.pipeline.reduce(Prompt.read(model, inputs))
    return [row[of_row] for row, of_row in zip(logits, words(shorter), strict=True)]


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_ragged_batch_means_what_its_rows_mean(llama, padding, spec):
    inputs = prompt(*ROWS, padding=padding)
    batch = of_words(llama, inputs, spec)
    for row in range(len(ROWS)):
        close(batch[row], of_words(llama, row_of(inputs, row), spec)[0])


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_one_of_these_methods_is_read_otherwise(llama, spec):
    inputs = prompt(*ROWS)
    found = biased(llama, inputs, spec)
    with prumerge.attach(llama, spec):
        assert not torch.allclose(found[1], logits_of(llama, inputs)[1], atol=1e-2)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_batch_is_answered_as_its_rows_are(llama, spec, options):
    inputs = prompt(*ROWS)
    with prumerge.attach(llama, spec, size_bias=True):
        said = answer(llama, inputs, tokens=4, **options)
        for row in range(len(ROWS)):
            assert torch.equal(said[row], answer(llama, row_of(inputs, row), tokens=4, **options)[0])


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[-1]], ids=str)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_keys_in_the_cache_keep_their_bias(attention, spec):
    """Token by token as prompt and answer at once."""
    model, inputs = llava(layers=LAYERS, attention=attention), prompt(*ROWS)
    with prumerge.attach(model, spec, size_bias=True):
        steps, whole = token_by_token_and_at_once(model, inputs)
    close(whole[:, -6:-1], steps)


def test_a_second_turn_on_the_cache_attends_alike(llama):
    inputs, new = prompt(*ROWS), torch.tensor([[20, 21], [22, 23], [24, 25]])
    cache = DynamicCache(config=llama.config.text_config)
    options = {"max_new_tokens": 3, "do_sample": False}
    with prumerge.attach(llama, Uneven(), size_bias=True):
        first = llama.generate(**inputs, **options, past_key_values=cache)
        ids = torch.cat([first, new], dim=1)
        mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 5), value=1)
        second = llama.generate(input_ids=ids, attention_mask=mask, **options, past_key_values=cache)
        whole = llama.generate(**{**inputs, "input_ids": ids, "attention_mask": mask}, **options)
    assert torch.equal(second, whole)


@pytest.mark.parametrize("rows", [2, 1])
def test_training_goes_through_it_with_checkpoints_too(llama, long_prompts, rows):
    inputs = prompt(*[[5, PICTURE, 6, 7, 20], [5, PICTURE, 6, PICTURE, 9, 11]][:rows])
    inputs["labels"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, -100)
    other = copy.deepcopy(llama).train()
    other.gradient_checkpointing_enable()
    for one in (llama, other):
        with prumerge.attach(one, "prumerge:keep=3", size_bias=True):
            one(**inputs, use_cache=False).loss.backward()
    for (name, weight), again in zip(llama.named_parameters(), other.parameters(), strict=True):
        if "vision" not in name:
            assert weight.grad.abs().sum() > 0, name
            torch.testing.assert_close(again.grad, weight.grad, msg=name)


def test_in_half_precision_and_under_autocast(llama):
    inputs = prompt(ROWS[0])
    exact, half = biased(llama, inputs, Uneven()), llava(layers=LAYERS, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        auto = biased(llama, inputs, Uneven())
    for found in (auto, biased(half, inputs, Uneven())):
        assert torch.nn.functional.cosine_similarity(found.float(), exact, dim=-1).min() > 0.98
    with prumerge.attach(llama, Uneven()):
        other = logits_of(llama, inputs)
    assert torch.nn.functional.cosine_similarity(other, exact, dim=-1).min() < 0.95


def test_a_question_is_answered_with_it_too(llama):
    picture = noise((80, 64))
    ask = partial(ask_about, llama, processor(), picture, "w7 w8 w9", prumerge.make(Uneven()))
    plain, found = ask(), ask(size_bias=True)
    assert (plain.visual_tokens, found.visual_tokens) == (4, 4)
    assert plain.answer != found.answer
    assert not any("forward" in vars(module) for module in llama.modules())


# where nothing changes


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("spec", ["none", "topk:keep=16", "fastv:keep=5,layer=2", "tome:r=0", "pool:keep=16"])
def test_tokens_of_one_patch_each_change_no_bit(attention, spec):
    model, inputs = llava(layers=LAYERS, attention=attention), prompt(*ROWS)
    with prumerge.attach(model, spec):
        logits, said = logits_of(model, inputs), answer(model, inputs)
    with prumerge.attach(model, spec, size_bias=True):
        assert torch.equal(logits_of(model, inputs), logits)
        assert torch.equal(answer(model, inputs), said)


def test_text_alone_and_the_detached_model_are_as_before(llama):
    inputs, text = prompt(*ROWS), prompt([4, 5, 6], [7, 8])
    del text["pixel_values"]
    before, alone = logits_of(llama, inputs), logits_of(llama, text)
    with prumerge.attach(llama, Uneven(), size_bias=True) as attached:
        assert torch.equal(logits_of(llama, text), alone)
        assert not torch.equal(logits_of(llama, inputs)[:, -1], before[:, -1])
        assert attached.average_tokens == [4, 4, 4]
    assert torch.equal(logits_of(llama, inputs), before)
    assert not any("forward" in vars(module) for module in llama.modules())


# families, and what cannot work

REFUSED = {"Gemma3", "Blip2", "InstructBlip", "TinyGPTV"}  # sliding windows, embeddings in place of a prompt


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_attends_so_or_says_that_it_cannot(name):
    family = FAMILIES[name]
    model, inputs = family.model(), family.prompt(*rows_of(family))
    try:
        found = biased(model, inputs, "pool:keep=1")
    except ValueError as error:
        assert str(error).endswith("leave out size_bias")
        assert name in REFUSED
    else:
        assert name not in REFUSED
        with prumerge.attach(model, "pool:keep=1"):
            assert not torch.allclose(found, logits_of(model, inputs), atol=1e-4)


def test_it_is_no_shorter_prompt(llama):
    with pytest.raises(
        ValueError, match=r"use it by `with prumerge.attach\(model, 'pool', size_bias=True\)`"
    ):
        prumerge.reduce(llama, prompt(*ROWS), "pool", size_bias=True)


def test_flash_attention_takes_no_bias(llama):
    llama.model.language_model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match=r"flash_attention_2 takes no bias .* or leave out size_bias"):
        biased(llama, prompt(*ROWS), Uneven())


def test_a_language_model_with_sliding_windows():
    model = llava(text="mistral", layers=LAYERS)
    model.model.language_model.config.sliding_window = 8
    with pytest.raises(ValueError, match=r"size_bias: .* sliding windows, .*; leave out size_bias"):
        prumerge.attach(model, Uneven(), size_bias=True)


def test_a_mask_of_another_shape(llama):
    with torch.no_grad():
        shorter = prumerge.reduce(llama, prompt(*ROWS), Uneven())
    mask = shorter.pop("attention_mask").bool()[:, None, None]
    with (
        Inside(llama, None, torch.ones(shorter["input_ids"].shape)),
        pytest.raises(ValueError, match=r"size_bias needs an attention_mask of shape \[B, L\]"),
    ):
        llama(**shorter, attention_mask=mask)


def test_an_answer_without_a_cache(llama):
    with (
        prumerge.attach(llama, Uneven(), size_bias=True),
        pytest.raises(
            ValueError, match=r"size_bias needs the whole prompt read at once.* leave out use_cache"
        ),
    ):
        answer(llama, prompt(*ROWS), use_cache=False)
