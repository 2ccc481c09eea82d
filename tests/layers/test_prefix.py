"""Fewer keys and values of the visual prefix: what attention reads, what the cache keeps, what is refused."""

import math

import pytest
import torch
from builders import IMAGE, PICTURE, answer, llava, prompt, row_of
from families import FAMILIES, Picture
from steps import close, logits_of, token_by_token_and_at_once, words
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import prumerge
from prumerge.layers.pruning import Inside
from prumerge.pipeline.options import Options
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline
from prumerge.reducers.linformer import Linformer

ROWS = [[5, PICTURE, 6, 7], [5, PICTURE, 6, PICTURE, 9, 11, 12], [4, 8, 2]]
LAYERS = 4
SPEC = "linformer:keep=4"
SPECS = [SPEC, "linformer:keep=5,by=medoids,layer=3", "topk:keep=9+linformer:keep=2"]


@pytest.fixture
def llama():
    return llava(layers=LAYERS)


def by_hand(model, inputs, spec, layer, held=None):
    """The words' logits of one row whose attention reads W K and W V from a layer on, key by key; `held` is
    how many patches each visual token stands for."""
    pictures = prumerge.select(model, inputs, "none")
    reductions = [prumerge.make(spec)(tokens) for tokens, _ in pictures]
    decoder = model.model.language_model
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    ids, hidden = inputs["input_ids"][0], states[layer]
    length, at = len(ids), (ids == IMAGE).nonzero()[:, 0].split(16)
    rows, stands, sizes = [], [], []
    for column in (ids != IMAGE).nonzero()[:, 0].tolist():
        rows.append(torch.eye(length)[column])
        stands.append(column)
        sizes.append(1.0)
    for columns, reduction in zip(at, reductions, strict=True):
        for number, place in enumerate(reduction.index.tolist()):
            weights = torch.zeros(length)
            weights[columns] = reduction.weights[number]
            rows.append(weights)
            stands.append(int(columns[place]))
            sizes.append(float((reduction.assignment == number).sum()))
    matrix, bias = torch.stack(rows), torch.tensor(sizes).log()
    hidden_from = torch.tensor(stands) > torch.arange(length)[:, None]
    rotary = decoder.rotary_emb(hidden, torch.arange(length)[None])
    for block in decoder.layers[layer:]:
        attention, read = block.self_attn, block.input_layernorm(hidden)
        q, k, v = (
            getattr(attention, f"{name}_proj")(read).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for name in "qkv"
        )
        q, k = apply_rotary_pos_emb(q, k, *rotary)
        k, v = (torch.repeat_interleave(matrix @ x, q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        logits = q @ k.mT / math.sqrt(attention.head_dim) + bias
        mixed = logits.masked_fill(hidden_from, -torch.inf).softmax(-1) @ v
        hidden = hidden + attention.o_proj(mixed.transpose(1, 2).flatten(2))
        hidden = hidden + block.mlp(block.post_attention_layernorm(hidden))
    return model.lm_head(decoder.norm(hidden))[0, ids != IMAGE]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("by", ["pool", "medoids"])
def test_attention_reads_means_of_keys_and_values_that_count_as_what_is_in_them(by, layer, attention):
    model, spec = llava(layers=LAYERS, attention=attention), f"linformer:keep=5,by={by},layer={layer}"
    inputs = row_of(prompt(*ROWS), 1)
    with torch.no_grad():
        expected = by_hand(model, inputs, spec, layer)
    with prumerge.attach(model, spec):
        found = logits_of(model, inputs)[words(inputs)]
    close(found, expected)
    assert not torch.allclose(found, logits_of(model, inputs)[words(inputs)], atol=1e-3)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_as_many_rows_as_tokens_change_no_bit(llama, padding):
    inputs = prompt(*ROWS, padding=padding)
    logits, said = logits_of(llama, inputs), answer(llama, inputs)
    with prumerge.attach(llama, "linformer:keep=16"):
        assert torch.equal(logits_of(llama, inputs), logits)
        assert torch.equal(answer(llama, inputs), said)


def test_sizes_from_before_add_up_in_its_rows(llama):
    """With size_bias a token counts as its patches: two halves of a picture, in one mean or in two steps."""
    inputs = row_of(prompt(*ROWS), 0)
    pipeline = Pipeline("pool:keep=4+linformer:keep=2", Options(size_bias=True))
    read = Prompt.read(llama, inputs)
    shorter, decisions = pipeline.reduce(read)
    columns = pipeline.columns(read, shorter, decisions)
    assert columns.sizes.tolist() == [[1, 4, 4, 4, 4, 1, 1]]
    owners = columns.owners[0].tolist()
    assert [owners[0], *owners[5:]] == [0, 5, 6]
    assert sorted(owners.count(owner) for owner in set(owners[1:5])) == [2, 2]


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("text", ["llama", "qwen2", "phi"])
def test_a_ragged_batch_means_what_its_rows_mean(text, spec, padding):
    model, inputs = llava(text=text, layers=LAYERS), prompt(*ROWS, padding=padding)
    with prumerge.attach(model, spec):
        batch = logits_of(model, inputs)
        for row in range(len(ROWS)):
            alone = row_of(inputs, row)
            own = logits_of(model, alone)
            if "+" in spec:  # logits of a shorter prompt
                batch_row = batch[row, -3:] if padding == "left" else batch[row, :1]
                close(batch_row, own[0, -3:] if padding == "left" else own[0, :1])
            else:
                close(batch[row, words(inputs)[row]], own[words(alone)])


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=str)
@pytest.mark.parametrize("spec", SPECS)
def test_a_ragged_batch_is_answered_as_its_rows_are(llama, spec, options):
    inputs = prompt(*ROWS)
    with prumerge.attach(llama, spec):
        said = answer(llama, inputs, **options)
        for row in range(len(ROWS)):
            assert torch.equal(said[row], answer(llama, row_of(inputs, row), **options)[0])


@pytest.mark.parametrize("spec", SPECS[:2])
def test_answering_token_by_token_is_reading_prompt_and_answer_at_once(llama, spec):
    with prumerge.attach(llama, spec):
        steps, whole = token_by_token_and_at_once(llama, prompt(*ROWS))
    close(whole[:, -6:-1], steps)


def test_the_cache_keeps_the_rows_and_every_layer_reads_all_tokens(llama):
    inputs = prompt(*ROWS)
    length = inputs["input_ids"].shape[1]
    options = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True}
    with prumerge.attach(llama, "linformer:keep=5,layer=2") as attached:
        cache = llama.generate(**inputs, **options).past_key_values
        assert attached.average_tokens == [16] * 3
    lengths = [cache.get_seq_length(layer) for layer in range(LAYERS)]
    assert lengths == [length + 2] * 2 + [length - 2 * 11 + 2] * 2


def test_a_second_turn_goes_on_from_the_shorter_cache(llama):
    inputs = prompt(*ROWS)
    cache = DynamicCache(config=llama.config.text_config)
    options = {"max_new_tokens": 4, "do_sample": False, "past_key_values": cache}
    with prumerge.attach(llama, SPEC):
        first = llama.generate(**inputs, **options)
        ids = torch.cat([first, torch.tensor([[20, 21], [22, 23], [24, 25]])], dim=1)
        added = torch.ones(3, ids.shape[1] - inputs["input_ids"].shape[1], dtype=torch.long)
        mask = torch.cat([inputs["attention_mask"], added], dim=1)
        second = llama.generate(input_ids=ids, attention_mask=mask, **options)[:, ids.shape[1] :]
        whole = {**inputs, "input_ids": ids, "attention_mask": mask}
        assert torch.equal(answer(llama, whole, tokens=4), second)


def test_gradients_reach_everything_and_checkpoints_are_refused(llama):
    inputs = prompt([5, PICTURE, 6, 7, 20], [5, PICTURE, 6, PICTURE, 9, 11])
    inputs["labels"] = inputs["input_ids"].clone()
    inputs["labels"][:, :-1] = -100
    with prumerge.attach(llama.train(), SPEC):
        llama(**inputs, use_cache=False).loss.backward()
        for name, weight in llama.named_parameters():
            assert "vision" in name or weight.grad.abs().sum() > 0, name
        llama.gradient_checkpointing_enable()
        with pytest.raises(ValueError, match="leave out gradient checkpointing"):
            llama(**inputs, use_cache=False)


def test_newlines_between_tokens_keep_their_own_keys():
    family = FAMILIES["LlavaNext"]
    model, inputs = family.model(), family.prompt([5, Picture(1, (60, 112)), 6])
    pipeline, read = Pipeline("linformer:keep=6", Options()), Prompt.read(family.model(), inputs)
    (decision,) = pipeline.decide(pipeline.encode(read))
    tokens = decision.tokens
    (separators,) = [tokens.separators.at.tolist()]
    owners = decision.owners.tolist()
    assert [owners[at] for at in separators] == separators
    expected = prumerge.make("linformer:keep=6")(tokens)
    for token, row in enumerate(expected.assignment.tolist()):
        assert owners[int(tokens.placed[token])] == int(tokens.placed[expected.index[row]])
    assert model.config.model_type == "llava_next"


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("linformer:layer=0", "layer must be at least 1"),
        ("linformer:positions=compact", "all tokens stay, and so do their positions"),
    ],
)
def test_an_option_out_of_its_range_is_refused(asked, sentence):
    with pytest.raises(ValueError, match=sentence):
        prumerge.make(asked)


def test_what_cannot_work_is_said_plainly(llama):
    inputs = prompt(*ROWS)
    with pytest.raises(
        ValueError, match="linformer works inside the language model, not by a shorter prompt"
    ):
        prumerge.reduce(llama, inputs, "linformer")
    with torch.no_grad():
        by_others = prumerge.reduce(llama, inputs, "none")
    with (
        Inside(llama, Linformer(keep=4)),
        pytest.raises(ValueError, match="this prompt came without what it decided; use it by `with prumerge"),
    ):
        answer(llama, by_others)
    llama.model.language_model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="flash_attention_2 takes no mask for fewer keys than queries; load"):
        prumerge.attach(llama, SPEC)


def test_a_language_model_with_sliding_windows_is_refused():
    model = llava(text="mistral", layers=LAYERS)
    model.model.language_model.config.sliding_window = 8
    with pytest.raises(ValueError, match="sliding windows, which count the tokens between; use a method"):
        prumerge.attach(model, SPEC)
