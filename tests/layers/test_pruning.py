"""Pruning between layers of the language model: what later layers see, remember, and what nobody notices."""

import copy
import inspect
import itertools
import math

import pytest
import torch
from builders import IMAGE, PICTURE, answer, llava, prompt, row_of, visual_tokens
from steps import Fourths, LaterFourths, close, logits_of, readings, token_by_token_and_at_once, words
from transformers import DynamicCache, LlavaForConditionalGeneration

import prumerge
from prumerge.layers.pruning import Inside
from prumerge.reducer import LayerReducer
from prumerge.reducers.fastv import FastV
from prumerge.reducers.sparsevlm import SparseVLM, density_peaks

ROWS = [[5, PICTURE, 6, 7], [5, PICTURE, 6, PICTURE, 9, 11, 12], [4, 8, 2]]
SPEC = "fastv:keep=5,layer=2"
LAYERS = 4
LANGUAGE_MODELS = ["llama", "qwen2", "mistral", "phi"]


def covered(*options):
    """Half of all combinations of language models and options: of three or more, any two values meet."""
    every = itertools.product(range(len(LANGUAGE_MODELS)), *[range(len(values)) for values in options])
    chosen = [numbers for numbers in every if sum(numbers) % 2 == 0]
    return [(LANGUAGE_MODELS[m], *[o[n] for o, n in zip(options, ns, strict=True)]) for m, *ns in chosen]


@pytest.fixture(params=LANGUAGE_MODELS)
def model(request):
    return llava(text=request.param, layers=LAYERS)


@pytest.fixture
def llama():
    return llava(layers=LAYERS)


# nothing dropped, nothing changed


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_keeping_everything_changes_no_bit(padding, dtype, attention):
    model = llava(layers=LAYERS, dtype=dtype, attention=attention)
    inputs = prompt(*ROWS, padding=padding)
    logits, said = logits_of(model, inputs), answer(model, inputs)
    with prumerge.attach(model, "fastv:keep=16"):
        assert torch.equal(logits_of(model, inputs), logits)
        assert torch.equal(answer(model, inputs), said)


def test_keeping_everything_changes_no_bit_in_other_language_models(model):
    inputs = prompt(*ROWS)
    logits, said = logits_of(model, inputs), answer(model, inputs)
    for positions in ("original", "compact"):
        with prumerge.attach(model, f"fastv:keep=16,positions={positions}"):
            assert torch.equal(logits_of(model, inputs), logits)
            assert torch.equal(answer(model, inputs), said)


def test_text_alone_is_read_as_before(llama):
    inputs = prompt([4, 5, 6], [7, 8])
    del inputs["pixel_values"]
    logits, said = logits_of(llama, inputs), answer(llama, inputs)
    with prumerge.attach(llama, SPEC):
        assert torch.equal(logits_of(llama, inputs), logits)
        assert torch.equal(answer(llama, inputs), said)


# what later layers see


@pytest.mark.parametrize(
    ("model", "mean", "positions", "padding"),
    covered([False, True], ["original", "compact"], ["left", "right"]),
    indirect=["model"],
)
def test_before_the_first_layer_it_is_a_shorter_prompt(model, mean, positions, padding):
    model.model.multi_modal_projector.act = torch.nn.Identity()  # before or after it, a mean is the same
    inputs = prompt(*ROWS, padding=padding)
    with torch.no_grad():
        shorter = prumerge.reduce(model, inputs, Fourths(mean=mean), positions=positions)
    expected = logits_of(model, shorter)[words(shorter)]
    with prumerge.attach(model, LaterFourths(mean=mean, positions=positions)):
        close(logits_of(model, inputs)[words(inputs)], expected)
        if padding == "left":
            said = answer(model, inputs)
    if padding == "left":
        assert torch.equal(said, answer(model, shorter))


def by_hand(model, inputs, keep, layer, positions, reads=-1):
    """One row with eager attention, of which layer + reads is looked at: logits of the words."""
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(**inputs, output_attentions=True, output_hidden_states=True)
    image = (inputs["input_ids"][0] == IMAGE).nonzero()[:, 0]
    chosen = []
    for picture in image.split(16):
        scores = output.attentions[layer + reads][0, :, -1].mean(0)[picture]
        chosen.append(picture[scores.topk(keep).indices.sort().values])
    text = (inputs["input_ids"][0] != IMAGE).nonzero()[:, 0]
    kept = torch.cat([text, *chosen]).sort().values
    place = kept if positions == "original" else torch.arange(len(kept))
    decoder = model.model.language_model
    hidden = output.hidden_states[layer][:, kept]
    causal = torch.full((len(kept), len(kept)), -torch.inf).triu(1)[None, None]
    with torch.no_grad():
        for block in decoder.layers[layer:]:
            hidden = block(
                hidden,
                attention_mask=causal,
                position_embeddings=decoder.rotary_emb(hidden, place[None]),
            )
        norm = decoder.final_layernorm if decoder.config.model_type == "phi" else decoder.norm
        return model.lm_head(norm(hidden))[0, torch.isin(kept, text)]


@pytest.mark.parametrize(
    ("model", "row", "layer", "positions"),
    covered([0, 1], [1, 3], ["original", "compact"]),
    indirect=["model"],
)
def test_fastv_is_what_eager_attention_would_make_of_it(model, row, layer, positions):
    inputs = row_of(prompt(*ROWS), row)
    with prumerge.attach(model, f"fastv:keep=5,layer={layer},positions={positions}"):
        logits = logits_of(model, inputs)
    close(logits[words(inputs)], by_hand(model, inputs, 5, layer, positions))
    assert not torch.allclose(logits[0, -1], logits_of(model, inputs)[0, -1], atol=1e-3)


@pytest.mark.parametrize("positions", ["original", "compact"])
@pytest.mark.parametrize("layer", [1, 3])
def test_a_stage_of_pyramiddrop_is_what_eager_attention_would_make_of_it(model, layer, positions):
    inputs = row_of(prompt(*ROWS), 1)
    with prumerge.attach(model, f"pyramiddrop:keep=5,layers={layer},positions={positions}"):
        logits = logits_of(model, inputs)
    close(logits[words(inputs)], by_hand(model, inputs, 5, layer, positions, reads=0))
    assert not torch.allclose(logits[0, -1], by_hand(model, inputs, 5, layer, positions)[-1], atol=1e-3)


MANY = [
    SPEC,
    "fastv:keep=3,layer=1,positions=compact",
    "pyramiddrop",
    "pyramiddrop:keep=1,layers=1-3,positions=compact",
    "sparsevlm:keep=4",
    "sparsevlm:keep=4,layers=1-2-3,positions=original",
]


@pytest.mark.parametrize(("model", "padding", "spec"), covered(["left", "right"], MANY), indirect=["model"])
def test_a_ragged_batch_means_what_its_rows_mean(model, padding, spec):
    inputs = prompt(*ROWS, padding=padding)
    with prumerge.attach(model, spec):
        batch = logits_of(model, inputs)
        for row in range(len(ROWS)):
            alone = row_of(inputs, row)
            close(batch[row, words(inputs)[row]], logits_of(model, alone)[words(alone)])


@pytest.mark.parametrize(  # every pair's logits are compared above
    ("model", "spec"),
    covered([*MANY, "prumerge_plus+fastv:keep=1", "prumerge+sparsevlm:keep=1"]),
    indirect=["model"],
)
def test_a_ragged_batch_is_answered_as_its_rows_are(model, spec):
    inputs = prompt(*ROWS)
    with prumerge.attach(model, spec):
        said = answer(model, inputs)
        for row in range(len(ROWS)):
            assert torch.equal(said[row : row + 1], answer(model, row_of(inputs, row)))


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("layer", range(LAYERS))
def test_rows_are_pruned_and_merged_at_any_depth(llama, layer, mean):
    inputs = prompt(*ROWS)
    with prumerge.attach(llama, LaterFourths(layer=layer, mean=mean)) as attached:
        batch, alone = logits_of(llama, inputs), logits_of(llama, row_of(inputs, 1))
        close(batch[1, words(inputs)[1]], alone[words(row_of(inputs, 1))])
    assert attached.inside.tokens_by_layer == [(16,) * layer + (4,) * (LAYERS - layer)] * 2
    assert attached.average_tokens == [(16 * layer + 4 * (LAYERS - layer)) / LAYERS] * 2
    assert not torch.allclose(batch[1, -1], logits_of(llama, inputs)[1, -1], atol=1e-3)


# stages


def test_fastv_costs_what_the_paper_counts():
    model = llava(layers=32)
    for share, average in ((0.25, 4.75), (0.5, 8.5), (0.75, 12.25)):
        with prumerge.attach(model, f"fastv:keep={share}") as attached:
            logits_of(model, prompt(ROWS[0]))
            assert attached.average_tokens == [average]


@pytest.mark.parametrize(
    ("spec", "average"),
    [
        ("fastv", 306),
        ("fastv:keep=0.25", 171),
        ("pyramiddrop", 270),
        ("sparsevlm:keep=192", 206),
        ("sparsevlm:keep=128", 145),
        ("sparsevlm:keep=96", 114),
        ("sparsevlm:keep=64", 82),
    ],
)
def test_averages_over_32_layers_are_those_of_the_official_code(spec, average):
    """Worked out by hand from the papers' schedules, for 576 tokens; recycled ones included."""
    model = llava(layers=32, side=336)
    with prumerge.attach(model, spec) as attached:
        logits_of(model, prompt([5, PICTURE, 6, 7], side=336))
    assert int(*attached.average_tokens) == average


@pytest.mark.parametrize(
    ("spec", "layers", "depths", "kept"),
    [
        ("pyramiddrop", 32, (8, 16, 24), (288, 144, 72)),
        ("pyramiddrop:keep=72", 32, (8, 16, 24), (288, 144, 72)),
        ("pyramiddrop:keep=9,layers=4-8", 32, (4, 8), (72, 9)),
        ("pyramiddrop:ratio=0.25", 40, (10, 20, 30), (144, 36, 9)),
        ("pyramiddrop", 2, (1,), (288,)),
        ("sparsevlm", 32, (3, 7, 16), (300, 200, 110)),
        ("sparsevlm:keep=128", 32, (3, 7, 16), (303, 110, 36)),
        ("sparsevlm:keep=96", 40, (4, 9, 20), (238, 48, 26)),
        ("sparsevlm:keep=64", 4, (1, 2, 3), (66, 30, 17)),
        ("sparsevlm:keep=160", 32, (3, 7, 16), (302, 155, 73)),
        ("sparsevlm:keep=32", 32, (3, 7, 16), (33, 15, 8)),
        ("sparsevlm:keep=576,layers=1-5-6", 32, (1, 5, 6), (576, 576, 576)),
    ],
)
def test_stages(spec, layers, depths, kept):
    method = prumerge.make(spec)
    assert isinstance(method, LayerReducer)
    assert method.depths(layers) == depths
    tokens = visual_tokens((1, 24, 24))
    recycled = [int((576 - keep) * 0.3) + 1 if keep < 576 else 0 for keep in kept]
    extra = [count // 10 + 1 if count and "sparse" in spec else 0 for count in recycled]
    found = [len(method.at(stage, len(depths), 576)(tokens)) for stage in range(len(depths))]
    assert found == [keep + more for keep, more in zip(kept, extra, strict=True)]


def test_raters_are_the_words_that_match_the_picture_more_than_average():
    visual, text = torch.eye(4)[:3] * 5, torch.eye(4)
    assert SparseVLM().askers(visual, text).tolist() == [True, True, True, False]
    assert SparseVLM().askers(visual, text[:1]).tolist() == [True]
    assert FastV().askers(visual, text) is None


def test_only_raters_are_looked_through(llama):
    """With every rater's attention at hand, the first stage keeps the best and the means of some others."""
    inputs = row_of(prompt(*ROWS), 1)
    eager = copy.deepcopy(llama)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        output = eager(**inputs, output_attentions=True, output_hidden_states=True)
    ids = inputs["input_ids"][0]
    image = (ids == IMAGE).nonzero()[:, 0].split(16)
    method = SparseVLM(keep=4, layers="1-2-3")
    with Inside(llama, method) as inside, torch.no_grad():
        cuts = readings(inside)
        llama(**prumerge.reduce(llama, inputs, "none"))
    chosen = []
    for picture, (relevance, _) in zip(image, cuts[0], strict=True):
        words_after = torch.tensor([at for at in range(picture[-1] + 1, len(ids)) if ids[at] != IMAGE])
        embedded = output.hidden_states[0][0]
        raters = words_after[method.askers(embedded[picture], embedded[words_after])]
        expected = output.attentions[0][0][:, raters][:, :, picture].mean((0, 1))
        close(relevance, expected)
        chosen.append((len(raters), len(words_after)))
    assert any(raters < words for raters, words in chosen)


def test_recycled_tokens_are_means_of_clusters_of_the_best_dropped():
    tokens = visual_tokens((1, 6, 10))
    method = prumerge.make("sparsevlm:keep=10")
    reduction = method(tokens)
    order = tokens.relevance.argsort(descending=True)
    kept, recycled = order[:10].sort().values, order[10:26]  # 30 % of 50, and one
    assert len(reduction) == 12
    assert reduction.index[:10].tolist() == kept.tolist()
    torch.testing.assert_close(reduction.apply(tokens)[:10], tokens.features[kept])
    assert set(reduction.index[10:].tolist()) <= set(recycled.tolist())
    into = reduction.weights[10:] > 0
    assert into.sum(0).nonzero()[:, 0].tolist() == sorted(recycled.tolist())
    assert (into.sum(0) <= 1).all()
    torch.testing.assert_close(reduction.weights.sum(1), torch.ones(12))
    for row in (10, 11):
        members = (reduction.weights[row] > 0).nonzero()[:, 0]
        torch.testing.assert_close(reduction.apply(tokens)[row], tokens.features[members].mean(0))
        assert reduction.index[row] in members
    assert len(prumerge.make("sparsevlm:keep=10,recycle=0")(tokens)) == 10


def test_density_peaks_are_those_of_a_loop():
    points = torch.randn(18, 3, generator=torch.Generator().manual_seed(0))
    centres, cluster = density_peaks(points, 3)
    distance = [[float((a - b).norm()) / 3**0.5 for b in points] for a in points]
    density = [math.exp(-sum(d * d for d in sorted(row)[:3]) / 3) for row in distance]
    score = []
    for i, row in enumerate(distance):
        denser = [row[j] for j in range(18) if density[j] > density[i]]
        score.append(density[i] * (min(denser) if denser else max(map(max, distance))))
    best = sorted(range(18), key=lambda i: -score[i])[:3]
    assert centres.tolist() == best
    nearest = [min(range(3), key=lambda c: distance[i][best[c]]) for i in range(18)]
    assert cluster.tolist() == nearest


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fastv:layer=0", "layer must be at least 1"),
        ("pyramiddrop:ratio=0", "ratio must be above 0"),
        ("pyramiddrop:keep=4,ratio=0.25", "give keep or ratio, not both"),
        ("pyramiddrop:layers=a-b", "written as 8-16-24, not 'a-b'"),
        ("sparsevlm:layers=3-7", "three stages, such as layers=3-7-16"),
        ("sparsevlm:recycle=2", "recycle is a share from 0 to 1"),
    ],
)
def test_a_wrong_option(spec, message):
    with pytest.raises(ValueError, match=message):
        prumerge.make(spec)


def test_stages_must_rise(llama):
    with pytest.raises(ValueError, match=r"stages end before layers \(2, 1\), which must rise"):
        prumerge.attach(llama, "pyramiddrop:layers=2-1")


# the cache


def test_the_cache_of_each_layer_is_as_long_as_what_it_saw(model):
    inputs = prompt(*ROWS)
    length = inputs["input_ids"].shape[1]  # 39: two pictures in the second row
    options = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True}
    with prumerge.attach(model, SPEC) as attached:
        cache = model.generate(**inputs, **options).past_key_values
        assert attached.tokens == [(16, 16)] * 3
        assert attached.average_tokens == [(2 * 16 + 2 * 5) / 4] * 3
    lengths = [cache.get_seq_length(layer) for layer in range(LAYERS)]
    assert lengths == [length + 2, length + 2, length - 22 + 2, length - 22 + 2]
    assert cache.layers[3].keys.shape[2] == length - 20


def test_a_row_with_fewer_pictures_is_padded_to_the_longest(llama):
    inputs = prompt([5, PICTURE, 6], [5, PICTURE, PICTURE, 6, 7])
    with prumerge.attach(llama, SPEC), torch.no_grad():
        cache = llama(**inputs, use_cache=True).past_key_values
    assert [cache.get_seq_length(layer) for layer in range(LAYERS)] == [35, 35, 13, 13]


@pytest.mark.parametrize("positions", ["original", "compact"])
def test_answering_token_by_token_is_reading_prompt_and_answer_at_once(model, positions):
    inputs = prompt(*ROWS)
    spec = f"{SPEC},positions={positions}"
    with prumerge.attach(model, spec):
        steps, whole = token_by_token_and_at_once(model, inputs)
    close(whole[:, -6:-1], steps)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 3},
        {"repetition_penalty": 1.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("spec", [LaterFourths(), LaterFourths(positions="compact")], ids=str)
def test_ways_to_generate(llama, options, spec):
    """As from the shorter prompt, whose cache Transformers itself looks after."""
    inputs = prompt(*ROWS)
    options = {"do_sample": False, "max_new_tokens": 4, **options}
    with torch.no_grad():
        shorter = prumerge.reduce(llama, inputs, Fourths(), positions=spec.positions)
    torch.manual_seed(1)
    expected = answer(llama, shorter, **options)
    torch.manual_seed(1)
    with prumerge.attach(llama, spec):
        assert torch.equal(answer(llama, inputs, **options), expected)


def test_beams_of_a_batch_are_those_of_each_row(llama):
    inputs = prompt(*ROWS)
    with prumerge.attach(llama, SPEC):
        batch = answer(llama, inputs, num_beams=3)
        for row in range(len(ROWS)):
            assert torch.equal(batch[row], answer(llama, row_of(inputs, row), num_beams=3)[0])


@pytest.mark.parametrize("spec", [SPEC, f"{SPEC},positions=compact", f"prumerge:keep=7+{SPEC}"])
def test_a_second_turn_on_the_cache_goes_on_from_what_each_layer_saw(llama, spec):
    inputs = prompt(*ROWS)
    cache = DynamicCache(config=llama.config.text_config)
    new = torch.tensor([[20, 21], [22, 23], [24, 25]])
    options = {"max_new_tokens": 4, "do_sample": False, "past_key_values": cache}
    with prumerge.attach(llama, spec):
        first = llama.generate(**inputs, **options)
        ids = torch.cat([first, new], dim=1)
        added = ids.shape[1] - inputs["attention_mask"].shape[1]
        mask = torch.cat([inputs["attention_mask"], torch.ones(3, added, dtype=torch.long)], dim=1)
        second = llama.generate(input_ids=ids, attention_mask=mask, **options)[:, ids.shape[1] :]
        # The same with the whole conversation at once, where the first turn's words asked.
        inputs["labels"] = torch.full_like(ids, -100)
        inputs["labels"][:, first.shape[1] - 4 :] = 0
        whole = {**inputs, "input_ids": ids, "attention_mask": mask}
        with torch.no_grad():
            whole = llama(**whole, position_ids=(mask.cumsum(1) - 1).clamp_min(0)).logits
    assert torch.equal(whole[:, -1].argmax(-1), second[:, 0])


def test_decoding_by_hand_is_generate(llama):
    inputs = prompt([5, PICTURE, 6, 7, 8, 9], [4, PICTURE, 3])
    with prumerge.attach(llama, SPEC), torch.no_grad():
        expected = answer(llama, inputs, tokens=4)
        mask, cache, tokens, step = inputs["attention_mask"], None, [], dict(inputs)
        for _ in range(4):
            step["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)[:, -step["input_ids"].shape[1] :]
            output = llama(**step, past_key_values=cache, use_cache=True)
            ids, cache = output.logits[:, -1:].argmax(-1), output.past_key_values
            tokens.append(ids)
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
            step = {"input_ids": ids, "attention_mask": mask}
    assert torch.equal(torch.cat(tokens, dim=1), expected)


# training


def test_labels_keep_their_places_and_the_answer_does_not_ask(llama):
    inputs = prompt([5, PICTURE, 6, 7])
    longer = {**prompt([5, PICTURE, 6, 7, 20, 21]), "pixel_values": inputs["pixel_values"]}
    longer["labels"] = torch.where(torch.tensor([False] * 19 + [True] * 2), longer["input_ids"], -100)
    with prumerge.attach(llama, SPEC):
        output = llama(**longer)
        close(output.logits[:, :19], logits_of(llama, inputs))
    expected = torch.nn.functional.cross_entropy(output.logits[0, 18:20], torch.tensor([20, 21]))
    close(output.loss, expected)


@pytest.mark.parametrize("spec", [SPEC, LaterFourths(layer=2, mean=True)], ids=str)
def test_gradients_reach_everything_and_checkpoints_give_the_same(llama, spec):
    inputs = prompt([5, PICTURE, 6, 7, 20], [5, PICTURE, 6, PICTURE, 9, 11])
    inputs["labels"] = inputs["input_ids"].clone()
    inputs["labels"][:, :-1] = -100
    other = copy.deepcopy(llama).train()
    other.gradient_checkpointing_enable()
    for one in (llama, other):
        with prumerge.attach(one, spec):
            one(**inputs, use_cache=False).loss.backward()
    for (name, weight), again in zip(llama.named_parameters(), other.parameters(), strict=True):
        if "vision" not in name:
            assert weight.grad.abs().sum() > 0, name
            torch.testing.assert_close(again.grad, weight.grad, msg=name)


# coming and going


def state(model):
    return [dict(vars(module)) for module in model.modules()]


def test_nothing_is_left_on_the_model_or_its_layers(llama):
    inputs = prompt(*ROWS)
    answer(llama, inputs)  # Transformers' own hooks come with a first run
    before = state(llama)
    with prumerge.attach(llama, SPEC) as attached:
        answer(llama, inputs)
        assert "forward" in vars(llama.model.language_model.layers[0])
    attached.detach()
    for was, now in zip(before, state(llama), strict=True):
        assert was.keys() == now.keys()
        assert all(now[name] is value for name, value in was.items())


def test_the_class_and_other_models_are_never_touched(llama):
    inputs, other = prompt(*ROWS), llava(layers=LAYERS)
    kind = type(llama.model.language_model.layers[0])
    methods = kind.forward, LlavaForConditionalGeneration.forward
    expected = answer(other, inputs)
    with prumerge.attach(llama, SPEC):
        assert (kind.forward, LlavaForConditionalGeneration.forward) == methods
        assert torch.equal(answer(other, inputs), expected)


def test_a_deep_copy_prunes_by_itself(llama):
    inputs = prompt(*ROWS)
    plain = answer(llama, inputs)
    with prumerge.attach(llama, "fastv:keep=1,layer=1"):
        expected = answer(llama, inputs)
        twin = copy.deepcopy(llama)
    assert not torch.equal(expected, plain)
    assert torch.equal(answer(llama, inputs), plain)
    assert torch.equal(answer(twin, inputs), expected)
    twin._prumerge.detach()
    assert torch.equal(answer(twin, inputs), plain)


def test_a_pickled_model_comes_back_plain(llama, tmp_path):
    inputs = prompt(*ROWS)
    plain = answer(copy.deepcopy(llama), inputs)
    with prumerge.attach(llama, SPEC):
        torch.save(llama, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(answer(loaded, inputs), plain)


def test_a_wrong_depth_leaves_the_model_alone(llama):
    before = state(llama)
    with pytest.raises(
        ValueError, match="has 4 layers, so pruning can begin before layer 3 at the latest, not 4"
    ):
        prumerge.attach(llama, "fastv:layer=4")
    assert [now.keys() for now in state(llama)] == [was.keys() for was in before]


def test_signatures_stay_those_of_the_model(llama):
    with prumerge.attach(llama, SPEC):
        assert inspect.signature(llama.forward) == inspect.signature(llava().forward)
        layer = llama.model.language_model.layers[0]
        assert inspect.signature(layer.forward) == inspect.signature(
            llava().model.language_model.layers[0].forward
        )


def test_prompts_that_were_reduced_by_hand_are_pruned_inside_too(llama):
    inputs = prompt(*ROWS)
    with torch.no_grad():
        shorter = prumerge.reduce(llama, inputs, "prumerge:keep=7")
    with Inside(llama, FastV(keep=5, layer=2)) as inside:
        said = answer(llama, shorter)
        assert inside.tokens_by_layer == [(8, 8, 5, 5)] * 3
    with prumerge.attach(llama, f"prumerge:keep=7+{SPEC}") as attached:
        assert torch.equal(answer(llama, inputs), said)
        assert attached.tokens == [(16, 8)] * 3


# what cannot work is said plainly


def test_it_is_no_shorter_prompt(llama):
    with pytest.raises(
        ValueError, match=r"fastv works inside .* use it by `with prumerge.attach\(model, 'fastv'\)"
    ):
        prumerge.reduce(llama, prompt(*ROWS), "fastv")


@pytest.mark.parametrize(
    "options",
    [
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 4},
        {"assistant_model": llava()},
    ],
    ids=lambda options: next(iter(options)),
)
def test_ways_to_generate_that_cannot_work(llama, options):
    (name,) = options
    with prumerge.attach(llama, SPEC), pytest.raises(ValueError, match=f"leave out {name}"):
        answer(llama, prompt(*ROWS), **options)


def test_a_prompt_that_ends_with_its_picture(llama):
    with prumerge.attach(llama, SPEC), pytest.raises(ValueError, match="write some after the last <image>"):
        logits_of(llama, prompt([5, PICTURE]))


def test_a_language_model_with_sliding_windows():
    model = llava(text="mistral", layers=LAYERS)
    model.model.language_model.config.sliding_window = 8
    with pytest.raises(
        ValueError, match="sliding windows, which count the tokens between; use a method before"
    ):
        prumerge.attach(model, SPEC)


def test_a_language_model_laid_out_otherwise(llama):
    del llama.model.language_model.layers[0].input_layernorm
    with pytest.raises(ValueError, match="LlamaModel are not laid out as Llama's"):
        prumerge.attach(llama, SPEC)


def test_a_new_picture_in_a_used_cache(llama):
    inputs = prompt(ROWS[0])
    with prumerge.attach(llama, SPEC), torch.no_grad():
        cache = llama(**inputs, use_cache=True).past_key_values
        with pytest.raises(ValueError, match="a new picture cannot join a cache that is in use"):
            llama(**inputs, past_key_values=cache)
