"""Costs, times and memory: the paper's table, laws that must hold, and what users mistype."""

import json
from dataclasses import astuple, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prumerge.roofline import configs, conventions, cost, hardware, paper
from prumerge.roofline.cost import Setting
from prumerge.roofline.estimate import estimate, floor, knee, schedule, workload
from prumerge.roofline.precision import ARITHMETIC, WIDTHS, Precision, parse
from prumerge.tiny import __file__ as tiny_file

LLAVA = configs.model("llava-1.5-7b")
V100 = hardware.machine("v100")


def flops(ops):
    return sum(op.flops * op.count for op in ops)


def llava(visual, machine="v100", bits="w16a16", **options):
    counts = schedule(visual, LLAVA.language.layers)
    settings = {key: options.pop(key) for key in ("batch", "shards", "attention", "causal") if key in options}
    asked = workload(LLAVA, counts, 576, **options)
    return estimate(LLAVA, asked, hardware.machine(machine), Setting(parse(bits), **settings))


# the paper's Table 2


@pytest.mark.parametrize(
    "cell", paper.agreement(), ids=lambda cell: f"{'-'.join(map(str, cell[0]))}-{cell[1]}"
)
def test_a_cell_of_table_2_comes_out_as_printed(cell):
    _, _, published, value = cell
    assert paper.printed(value) == paper.printed(published)


def test_these_are_28_of_32_cells():
    assert len(paper.agreement()) == 28
    assert sum(len(astuple(cells)) for cells in paper.PUBLISHED.values()) == 32


def test_with_the_stated_tokens_hardly_a_cell_comes_out():
    cells = [
        paper.printed(value) == paper.printed(published)
        for row, published_row in paper.PUBLISHED.items()
        for published, value in zip(
            astuple(published_row), astuple(paper.reproduced(*row, tokens=paper.STATED)), strict=True
        )
    ]
    assert sum(cells) <= 3


# counting by hand, in loops


def test_a_layer_costs_what_its_matrices_say():
    llm = LLAVA.language
    n, d, f = 100, 4096, 11008
    weights = 4 * d * d + 3 * d * f
    ops = cost.decoder_layer(llm, n, 0, Setting())
    assert flops(ops) == 2 * n * weights + 4 * n * n * d
    assert sum(op.weights for op in ops) == 2 * weights
    assert sum(op.cache_written for op in ops) == 2 * n * d * 2


def test_published_counts_of_llava():
    """FlopCounterMode's figures, which `test_roofline_verify` counts anew, and the formulas of two papers."""
    llm = LLAVA.language
    assert flops(cost.prefill(llm, [616] * 32, Setting())) == 8_177_645_518_848
    assert flops(cost.vision_tower(LLAVA.tower, 576, 1, Setting(), whole=True)) == 381_918_216_192
    assert flops(cost.connector(LLAVA.projector, 576, Setting())) == 24_159_191_040
    assert conventions.visual_macs(llm, [576] * 32, 2) / 1e12 == pytest.approx(2.986, abs=5e-4)
    assert conventions.visual_macs(llm, [576] * 32, 3) / 1e12 == pytest.approx(3.817, abs=5e-4)


def test_the_skipped_layer_is_one_twenty_fourth_of_the_layers():
    patches = flops(cost.vision_tower(replace(LLAVA.tower, layers=0, read_layers=0), 576, 1, Setting()))
    whole = flops(cost.vision_tower(LLAVA.tower, 576, 1, Setting(), whole=True)) - patches
    read = flops(cost.vision_tower(LLAVA.tower, 576, 1, Setting())) - patches
    assert read * 24 == whole * 23


def test_windows_make_attention_linear_in_the_patches():
    tower = configs.model("qwen2.5-vl-7b").tower
    assert (tower.window, tower.full_layers) == (64, 4)

    def pairs(patches, **changes):
        ops = cost.vision_tower(replace(tower, **changes), patches, 1, Setting())
        return sum(op.flops * op.count for op in ops if op.name == "attention")

    layer = 4 * 1280
    assert pairs(1024) == layer * (4 * 1024**2 + 28 * 1024 * 64)
    assert pairs(1024, window=None) == layer * 32 * 1024**2


def test_distinct_experts_are_counted_as_by_throwing_dice():
    import numpy as np

    experts = configs.Experts(count=16, active=4, width=8)
    random = np.random.default_rng(0)
    drawn = [
        len({int(choice) for _ in range(6) for choice in random.permutation(16)[:4]}) for _ in range(4000)
    ]
    assert cost.distinct_experts(experts, 6) == pytest.approx(np.mean(drawn), abs=0.1)
    assert cost.distinct_experts(experts, 1) == pytest.approx(4)


def test_a_mixture_of_all_experts_costs_what_they_cost_together():
    experts = configs.Experts(count=4, active=4, width=64)
    mixture = [op for op in cost.mixture(32, experts, 10, Setting()) if op.name != "router"]
    dense = cost.feed_forward(32, 4 * 64, 10, Setting())
    assert flops(mixture) == flops(dense)
    assert sum(op.weights for op in mixture) == pytest.approx(sum(op.weights for op in dense))


def test_weights_are_those_of_the_published_models():
    """Parameters of LLaVA-1.5-7B as Transformers counts them; without norms and biases, below 0.02 %."""
    setting = Setting()
    llm = cost.language_weights(LLAVA.language, setting) / 2
    vision = cost.vision_weights(LLAVA.tower, LLAVA.projector, setting) / 2
    assert llm + vision == pytest.approx(7_063_427_072, rel=2e-4)
    qwen = configs.model("qwen3-vl-30b-a3b").language
    assert cost.language_weights(qwen, setting) / 2 == pytest.approx(30.5e9, rel=0.01)


# laws

TOKENS = st.integers(1, 576)
MACHINES = st.sampled_from([name for name in hardware.names() if "fp16" in hardware.machine(name).rates])
BITS = st.sampled_from(["w16a16", "w8a16", "w4a16", "w4a16kv8"])


@given(TOKENS, TOKENS, MACHINES, BITS)
def test_fewer_tokens_never_cost_more(one, other, machine, bits):
    fewer, more = (llava(str(tokens), machine, bits) for tokens in sorted((one, other)))
    assert fewer.prefill.time <= more.prefill.time
    assert fewer.prefill.flops <= more.prefill.flops
    assert fewer.decode.time <= more.decode.time
    assert fewer.kv_cache <= more.kv_cache
    assert fewer.resident <= more.resident


@given(TOKENS, MACHINES, BITS)
def test_a_stage_is_no_faster_than_either_of_its_roofs(tokens, machine, bits):
    one = llava(str(tokens), machine, bits)
    for stage in (one.tower, one.connector, one.prefill, one.decode):
        floors = (stage.flops / one.machine.rate("fp16"), stage.traffic / one.machine.bandwidth)
        assert max(floors) * (1 - 1e-9) <= stage.time <= sum(floors)
        assert sum(stage.shares.values()) == pytest.approx(1)


@given(TOKENS, MACHINES)
def test_operations_do_not_fall_with_bits_but_traffic_does(tokens, machine):
    wide, narrow = (llava(str(tokens), machine, bits) for bits in ("w16a16", "w4a16"))
    assert narrow.flops == wide.flops
    assert narrow.prefill.traffic < wide.prefill.traffic
    assert narrow.prefill.time <= wide.prefill.time


@given(TOKENS, st.integers(1, 8))
def test_a_batch_shares_the_weights_only(tokens, batch):
    one, many = llava(str(tokens)), llava(str(tokens), batch=batch)
    assert many.flops == batch * one.flops
    assert many.kv_cache == batch * one.kv_cache
    assert one.prefill.time * (1 - 1e-9) <= many.prefill.time <= one.prefill.time * batch * (1 + 1e-9)


@given(TOKENS, st.sampled_from([2, 4, 8]))
def test_devices_share_the_language_model_and_talk(tokens, shards):
    one, share = llava(str(tokens), "h100"), llava(str(tokens), "h100", shards=shards)
    assert share.prefill.flops * shards == pytest.approx(one.prefill.flops, rel=1e-3)
    assert share.kv_cache * shards == one.kv_cache
    assert share.tower.flops == one.tower.flops
    sent = sum(op.sent * op.count for op in share.prefill.ops)
    prompt = (tokens + 40) * 4096 * 2
    assert sent == pytest.approx(32 * 2 * 2 * (shards - 1) / shards * prompt)
    assert not any(op.sent for op in one.prefill.ops)


@given(TOKENS)
def test_eager_attention_moves_the_scores_and_computes_the_same(tokens):
    fused, eager = (llava(str(tokens), attention=name).prefill for name in ("fused", "eager"))
    assert fused.flops == eager.flops
    scores = 32 * 32 * (tokens + 40) ** 2 * 2
    assert eager.traffic - fused.traffic == pytest.approx(4 * scores)


def test_half_of_a_causal_mask_is_half_of_the_pairs():
    full, half = (
        sum(op.flops * op.count for op in llava("576", causal=name).prefill.ops if op.name == "attention")
        for name in ("full", "half")
    )
    assert full * (616 + 1) == half * 2 * 616


@given(st.integers(1, 31), TOKENS)
def test_a_method_inside_the_model_lies_between_its_numbers(layers, tokens):
    inside = llava(f"576x{layers}+{tokens}")
    assert inside.workload.label == (f"576x{layers}+{tokens}" if tokens < 576 else "576")
    assert llava(str(tokens)).prefill.flops <= inside.prefill.flops <= llava("576").prefill.flops
    fill = 40 + 63
    assert inside.kv_cache == 2 * 4096 * 2 * ((576 + fill) * layers + (tokens + fill) * (32 - layers))


@settings(max_examples=10)  # each looks for its count by many estimates
@given(MACHINES, BITS, st.integers(1, 200))
def test_below_the_floor_a_tenth_is_left_and_above_it_more(machine, bits, text):
    one = llava("576", machine, bits, text=text)
    tokens = floor(LLAVA, one.workload, one.machine, one.setting)
    alone = llava("0", machine, bits, text=text).prefill.time
    assert alone >= 0.9 * llava(str(tokens), machine, bits, text=text).prefill.time
    if tokens < 576:
        assert alone < 0.9 * llava(str(tokens + 1), machine, bits, text=text).prefill.time


@settings(max_examples=10)  # each looks for its count by many estimates
@given(MACHINES, BITS, st.integers(1, 200))
def test_up_to_the_knee_memory_is_the_limit_and_beyond_it_arithmetic(machine, bits, text):
    one = llava("576", machine, bits, text=text)
    tokens = knee(LLAVA, one.workload, one.machine, one.setting)
    if tokens > 0:
        assert llava(str(tokens), machine, bits, text=text).prefill.shares["memory"] > 0.5
    if tokens < 576:
        assert llava(str(tokens + 1), machine, bits, text=text).prefill.shares.get("memory", 0) <= 0.5


def test_three_memories_are_three_things():
    many, few = llava("576"), llava("40")
    assert many.kv_cache / few.kv_cache > 4
    assert 1.3 < many.traffic / few.traffic < 1.5
    assert many.resident / few.resident < 1.03


@pytest.mark.parametrize("batch", [1, 3])
def test_the_peak_is_weights_and_cache_and_the_widest_moment(batch):
    """With few tokens that moment is in the tower, where 577 x 4096 values are read and written."""
    one = llava("40", batch=batch)
    weights = 2 * (7_063_427_072 - 1_000_000)  # without norms and biases
    tower, prompt = 577 * (2 * 4096), 80 * (3 * 11008 + 4096)
    patches = 576 * 1024
    assert tower + patches > prompt
    live = 2 * batch * (tower + patches)
    assert one.resident - one.kv_cache - live == pytest.approx(weights, rel=1e-4)
    many = llava("576", batch=batch)
    prompt = 2 * batch * 616 * (3 * 11008 + 4096)
    assert many.resident - one.resident == pytest.approx(many.kv_cache + prompt - one.kv_cache - live)


def test_an_answer_is_its_first_token_and_the_others():
    one, longer = llava("576", new_tokens=1), llava("576", new_tokens=101)
    assert one.answer == one.first_token == longer.first_token
    assert longer.answer == pytest.approx(longer.first_token + 100 * longer.decode.time)
    assert one.kv_cache == 616 * 32 * 2 * 4096 * 2
    assert longer.kv_cache == (616 + 100) * 32 * 2 * 4096 * 2


def test_a_token_is_timed_when_half_of_the_answer_is_written():
    long = llava("576", new_tokens=100)
    read = sum(op.cache_read * op.count for op in long.decode.ops)
    assert read == (616 + 50 + 1) * 32 * 2 * 4096 * 2


def test_a_reduction_compares_all_pairs_and_merges_and_none_costs_nothing():
    n, d = 576, 1024
    skipped, whole = llava("40"), llava("40", whole_tower=True)
    pairs = 2 * n * n * d + 2 * 40 * n * d
    assert whole.reduction.flops == pairs
    assert skipped.reduction.flops == pairs + 2 * 577 * d * d  # keys of the layer that is left out
    assert llava("576").reduction.ops == ()


def test_a_projector_that_joins_patches_sees_all_of_them():
    qwen = configs.model("qwen2.5-vl-7b")
    few = workload(qwen, (64,) * 28, 256)
    one = estimate(qwen, few, V100, Setting())
    assert one.connector.flops == 2 * 256 * (5120 * 5120 + 5120 * 3584)
    assert llava("40").connector.flops == 2 * 40 * (1024 * 4096 + 4096 * 4096)


def test_a_prompt_of_text_alone_is_possible():
    assert llava("0").connector.ops == ()
    with pytest.raises(ValueError, match="at least one token"):
        llava("0", text=0)


# precision


@given(
    st.sampled_from(WIDTHS["w"]), st.sampled_from(WIDTHS["a"]), st.sampled_from(WIDTHS["kv"]), st.booleans()
)
def test_a_precision_reads_back_as_it_is_named(weights, activations, cache, explicit):
    spec = f"w{weights}a{activations}kv{cache}" + (":fp32" if explicit else "")
    precision = parse(spec)
    assert astuple(precision)[:3] == (weights, activations, cache)
    assert parse(precision.name) == precision
    assert ARITHMETIC[precision.arithmetic] >= max(weights, activations)


def test_four_bit_weights_are_multiplied_in_sixteen():
    assert parse("w4a16") == Precision(4, 16, 16, "fp16")
    assert parse("w4a16").outside() == Precision(16, 16, 16, "fp16")
    assert parse("w8a8:fp8").arithmetic == "fp8"


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("int4", "'int4' is no bit width; write weights and activations as in w4a16"),
        ("w5a16", "w5 in 'w5a16' is impossible; choose from: w2, w3, w4, w8, w16, w32"),
        ("w0a16", "w0 in 'w0a16' is impossible"),
        ("w4a2", "a2 in 'w4a2' is impossible; choose from: a4, a8, a16, a32"),
        ("w4a16kv7", "kv7 in 'w4a16kv7' is impossible"),
        ("w8a8:int7", "there is no arithmetic 'int7'; choose from: int4, int8, fp8, fp16, fp32"),
        ("w16a8:int8", "16-bit operands cannot be multiplied in int8"),
    ],
)
def test_impossible_bits_are_refused(spec, sentence):
    with pytest.raises(ValueError) as raised:
        parse(spec)
    assert sentence in str(raised.value)


# machines


@pytest.mark.parametrize("name", hardware.names())
def test_a_machine_has_sane_figures_and_a_source(name):
    machine = hardware.machine(name)
    assert machine.source.startswith("https://")
    order = [machine.rates[key] for key in ("fp32", "fp16", "int8", "int4") if key in machine.rates]
    assert order == sorted(order)
    assert 1 < machine.ridge("fp16") < 1000


def test_names_of_machines_are_listed_when_one_is_wrong():
    with pytest.raises(
        ValueError,
        match=r"there is no machine 'h1000' .*'h100'.*choose one of: v100, .*h100, .*laptop-cpu",
    ):
        hardware.machine("h1000")


def test_a_machine_does_not_invent_arithmetic():
    with pytest.raises(ValueError, match=r"v100 has no int8 arithmetic, only fp16, fp32; .* w4a16"):
        llava("40", "v100", "w8a8").prefill.time  # noqa: B018
    with pytest.raises(ValueError, match="h100 has no int4 arithmetic"):
        hardware.machine("h100").rate("int4")
    assert hardware.machine("laptop-cpu").rate("fp16") == hardware.machine("laptop-cpu").rate("fp32")


def test_a_machine_alone_has_no_link():
    alone = llava("40", "laptop-cpu", shards=2)
    with pytest.raises(ValueError, match="laptop-cpu has no link"):
        alone.prefill.time  # noqa: B018


# models


@pytest.mark.parametrize("name", configs.names())
def test_a_preset_is_a_whole_model(name):
    model = configs.model(name)
    visual = model.visual_tokens or 256
    asked = workload(model, (visual,) * model.language.layers, visual)
    one = estimate(model, asked, hardware.machine("h200"), Setting())
    assert one.flops > 0
    assert one.fits


def test_a_folder_and_a_file_are_read_like_any_published_model():
    folder = tiny_file.replace("__init__.py", "weights")
    by_folder, by_file = configs.model(folder), configs.model(f"{folder}/config.json")
    assert by_folder == by_file
    assert (by_folder.visual_tokens, by_folder.language.layers, by_folder.tower.read_layers) == (576, 4, 5)


def test_the_original_checkpoints_are_the_same_model():
    original = {
        "model_type": "llava_llama",
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "mm_vision_select_layer": -2,
        "mm_projector_type": "mlp2x_gelu",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32064,
    }
    assert configs.read(original, "llava-1.5-7b") == LLAVA
    with pytest.raises(ValueError, match="vision tower 'other' are not known; known are: openai/clip"):
        configs.read(original | {"mm_vision_tower": "other"})
    with pytest.raises(ValueError, match="the projector 'linear' of original checkpoints is not known"):
        configs.read(original | {"mm_projector_type": "linear"})


def test_sizes_left_out_are_those_of_transformers():
    from transformers import CONFIG_MAPPING

    for kind, sizes in configs.DEFAULTS.items():
        theirs = CONFIG_MAPPING[kind]().to_dict()
        assert sizes == {key: theirs[key] for key in sizes}, kind


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"model_type": "llama", "hidden_size": 64}, "(model_type 'llama') is no vision-language model"),
        ({}, "is no vision-language model: its config has no text_config and vision_config"),
        ({"text_config": 3, "vision_config": {}}, "is no vision-language model"),
        (
            {"model_type": "llava", "text_config": {}, "vision_config": {}},
            "the config has no num_hidden_layers",
        ),
    ],
)
def test_other_configs_are_refused(unchecked, config, sentence):
    with pytest.raises(ValueError) as raised:
        configs.read(config)
    assert sentence in str(raised.value)


def changed(part, **values):
    published = json.loads(json.dumps(configs.presets()["llava-1.5-7b"]["config"]))
    (published[part] if part else published).update(values)
    return published


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            changed("", model_type="blip_3"),
            "'blip_3' joins tower and language model is not known; known are: llava",
        ),
        (changed("text_config", hidden_size=-1), "hidden_size must be a whole number above 0, not -1"),
        (changed("text_config", vocab_size="many"), "vocab_size must be a whole number above 0"),
        (changed("text_config", kv_lora_rank=512), "latent cache (kv_lora_rank) is not covered"),
        (changed("text_config", layer_types=["linear_attention"]), "linear attention are not covered"),
        (changed("", vision_feature_layer=-30), "vision_feature_layer -30 is not among 24 layers"),
        (changed("vision_config", image_size=[336, 448]), "must be square"),
    ],
)
def test_configs_beyond_the_formulas_are_refused(unchecked, config, sentence):
    with pytest.raises(ValueError) as raised:
        configs.read(config)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("-5", "'-5' is no number of visual tokens"),
        ("many", "'many' is no number of visual tokens"),
        ("1.5", "is no number of visual tokens"),
        ("", "is no number of visual tokens"),
        ("576x32+40", "is for more than the 32 layers"),
        ("576x999999999999+40", "is for more than the 32 layers"),
        ("40x2+576", "more visual tokens in a later layer"),
    ],
)
def test_wrong_numbers_of_tokens_are_refused(spec, sentence):
    with pytest.raises(ValueError) as raised:
        schedule(spec, 32)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"visual": "577"}, "577 visual tokens are more than the 576 that llava-1.5-7b makes of 1 tile"),
        ({"text": -1}, "text must be at least 0, not -1"),
        ({"new_tokens": 0}, "new_tokens must be at least 1"),
        ({"tiles": 0}, "tiles must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"shards": 0}, "tensor_parallel must be at least 1"),
        ({"shards": 3}, "cannot be divided among 3 devices"),
        ({"attention": "flash"}, "attention is fused or eager, not 'flash'"),
        ({"causal": "yes"}, "causal is full or half, not 'yes'"),
    ],
)
def test_impossible_workloads_are_refused(options, sentence):
    with pytest.raises(ValueError) as raised:
        llava(**{"visual": "40", **options})
    assert sentence in str(raised.value)
