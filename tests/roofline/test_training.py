"""A step of training: its FLOPs and what it saves are what torch counts, and what the command says of it."""

import json
from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.checkpoint import set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from prumerge.roofline import configs, cost, hardware
from prumerge.roofline.cost import Setting
from prumerge.roofline.estimate import schedule, workload
from prumerge.roofline.precision import parse
from prumerge.roofline.training import KINDS, Recipe, gradients, training_step

IMAGE, VISUAL, WORDS, RANK = 290, 16, 24, 8
LLAVA = configs.model("llava-1.5-7b")
CONFIG = LlavaConfig(
    vision_config=CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=56,
        patch_size=14,
        projection_dim=64,
    ),
    text_config=LlamaConfig(
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=300,
        bos_token_id=None,
        eos_token_id=None,
    ),
    image_token_index=IMAGE,
)
SIZES = configs.read(CONFIG.to_dict(), "small LLaVA")


def real(recipe, attention="eager", dtype=torch.float32):
    """A small LLaVA that is trained in this way."""
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration._from_config(CONFIG, dtype=dtype, attn_implementation=attention)
    model.requires_grad_(recipe.train == "full")
    model.model.vision_tower.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    if recipe.train == "lora":
        lora = LoraConfig(
            r=recipe.rank,
            target_modules=r".*language_model.*_proj",
            modules_to_save=["multi_modal_projector"],
            lora_dropout=0.05 if recipe.dropout else 0.0,
        )
        model = get_peft_model(model, lora, autocast_adapter_dtype=False)
    if recipe.checkpointing:
        model.get_decoder().gradient_checkpointing_enable()
    return model.train()


def batch(dtype=torch.float32, rows=2):
    ids = torch.tensor([[IMAGE] * VISUAL + [1] * WORDS] * rows)
    pixels = torch.randn(rows, 3, 56, 56, dtype=dtype)
    labels = torch.where(ids == IMAGE, -100, ids)
    return {"input_ids": ids, "pixel_values": pixels, "labels": labels, "use_cache": False}


def predicted(recipe, bits="w32a32", attention="eager"):
    """The same step by the formulas; Transformers runs the whole tower."""
    counts = (VISUAL,) * SIZES.language.layers
    asked = workload(SIZES, counts, VISUAL, text=WORDS, whole_tower=True)
    setting = Setting(parse(bits), batch=2, attention=attention)
    return training_step(SIZES, asked, hardware.machine("laptop-cpu"), setting, recipe)


# what torch counts


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("train", KINDS)
def test_flops_of_forward_and_backward_are_those_that_torch_counts(train, checkpointing):
    recipe = Recipe(train, RANK, checkpointing=checkpointing)
    model = real(recipe)
    whole_layers = set_checkpoint_early_stop(False) if checkpointing else nullcontext()
    with FlopCounterMode(display=False) as counter, whole_layers:
        model(**batch()).loss.backward()
    assert counter.get_total_flops() == predicted(recipe).whole.flops


def test_the_gradients_of_fused_attention_cost_what_torch_says_of_its_kernels():
    setting = Setting(attention="fused", batch=2)
    (forward,) = cost.attention(40, 40, 40 * 40, 4, 4, 32, setting)
    (backward,) = gradients(forward, setting, trained=False)
    shape = (2, 4, 40, 32)
    assert backward.flops == sdpa_backward_flop_count(shape, shape, shape, shape)


@pytest.mark.parametrize("train", KINDS)
def test_the_parameters_that_are_trained_are_those_of_the_matrices(train):
    recipe = Recipe(train, RANK)
    matrices = [each for each in real(recipe).parameters() if each.requires_grad and each.ndim == 2]
    assert predicted(recipe).trained == sum(each.numel() for each in matrices)


def saved_bytes(model, inputs):
    """Of unique storages that are no parameters; a mask of dropout is a byte a number, as on GPUs."""
    own = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            mask = tensor.is_floating_point() and ((tensor == 0) | (tensor == tensor.max())).all()
            kept[storage.data_ptr()] = storage, tensor.numel() if mask else storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(**inputs)
    return sum(size for _, size in kept.values())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("dtype", "bits"), [(torch.float32, "w32a32"), (torch.bfloat16, "w16a16")])
@pytest.mark.parametrize(
    "recipe", [*(Recipe(train, RANK) for train in KINDS), Recipe("lora", RANK, dropout=True)], ids=str
)
def test_what_is_saved_for_the_backward_pass_is_predicted(recipe, dtype, bits, attention):
    measured = saved_bytes(real(recipe, attention, dtype), batch(dtype))
    expected = predicted(recipe, bits, "eager" if attention == "eager" else "fused")
    assert expected.memory.activations == pytest.approx(measured, rel=0.06)


# laws that must hold


def step_7b(visual, train="lora", *, checkpointing=False, bits="w16a16", batch=16, shards=1):
    asked = workload(LLAVA, schedule(visual, LLAVA.language.layers), 576, text=64)
    setting = Setting(parse(bits), batch, shards)
    recipe = Recipe(train, checkpointing=checkpointing)
    return training_step(LLAVA, asked, hardware.machine("h100"), setting, recipe)


@pytest.mark.parametrize("train", KINDS)
def test_a_step_follows_the_rule_of_thumb_and_stays_above_it(train):
    whole, few = (step_7b(visual, train) for visual in ("576", "36"))
    assert few.rule == (36 + 64) / (576 + 64)
    assert few.rule < few.whole.flops / whole.whole.flops < few.rule + 0.02
    assert few.memory.fixed == whole.memory.fixed
    assert few.memory.activations / whole.memory.activations == pytest.approx(few.rule, abs=0.01)


def test_methods_inside_the_model_are_summed_over_layers():
    inside = step_7b("576x2+36")
    assert inside.rule == pytest.approx((576 * 2 + 36 * 30 + 64 * 32) / (640 * 32))
    ends = step_7b("36").whole.flops, step_7b("576").whole.flops
    assert ends[0] < inside.whole.flops < ends[1]


def test_full_training_costs_three_forward_passes_and_lora_little_more_than_two():
    full, lora = step_7b("576", "full"), step_7b("576", "lora")
    stages = {stage.name: stage.flops for stage in full.stages}
    assert stages["backward"] == pytest.approx(2 * stages["forward"], rel=0.01)
    stages = {stage.name: stage.flops for stage in lora.stages}
    assert stages["backward"] == pytest.approx(1.1 * stages["forward"], rel=0.05)


def test_checkpointing_runs_the_layers_once_more_and_keeps_their_inputs():
    without, with_ = (step_7b("576", checkpointing=each) for each in (False, True))
    again = {stage.name: stage.flops for stage in with_.stages}["recomputation"]
    assert with_.whole.flops - without.whole.flops == again
    assert with_.memory.activations < without.memory.activations / 10
    assert with_.memory.activations > 16 * 640 * 32 * 4096 * 2


@pytest.mark.parametrize(("train", "bits"), [("full", "w16a16"), ("full", "w32a32"), ("lora", "w32a32")])
def test_sixteen_bytes_hold_a_trained_parameter_with_its_gradient_and_moments(train, bits):
    one = step_7b("36", train, bits=bits)
    frozen = step_7b("36", "projector", bits=bits)
    more = one.trained - frozen.trained
    new = more if train == "lora" else 0  # beside weights that are there anyway
    state = one.memory.fixed - frozen.memory.fixed
    size = parse(bits).weights // 8
    assert state == pytest.approx((16 - size) * more + size * new)
    optimizer = {stage.name: stage for stage in one.stages}["optimizer"]
    assert optimizer.traffic == 28 * one.trained


def test_the_largest_batch_fits_and_one_row_more_does_not():
    largest = step_7b("144").largest_batch
    assert step_7b("144", batch=largest).fits
    assert not step_7b("144", batch=largest + 1).fits
    assert step_7b("144", "full").largest_batch == 0


# the command


COMMAND = ["roofline", "--train", "lora", "--text", 64, "--batch", 16, "--bits", "w16a16,w4a16"]


def test_the_table_fits_80_columns_and_begins_with_all_tokens(run):
    code, out, err = run(*COMMAND, "--keep", "36,144")
    assert (code, err) == (0, "")
    table = [line for line in out.splitlines() if ": " not in line]
    assert max(map(len, table)) <= 80
    assert [line.split()[0] for line in table if line[:6].strip().isdigit()] == ["576", "36", "144"] * 4
    assert "h100, w4a16: with 36 of 576 visual tokens and 64 of text a step has 0.17 of the FLOPs" in out
    assert "340.8 million parameters are trained" in out


def test_json_holds_every_ratio_and_operation(run):
    _, out, _ = run(*COMMAND, "--visual", "36", "--hardware", "h100", "--json")
    base, few, *_ = json.loads(out)["steps"]
    assert (base["visual_tokens"], base["flops_ratio"], base["rule"]) == ("576", 1.0, 1.0)
    assert few["flops_ratio"] == pytest.approx(few["tera"] / base["tera"])
    assert few["time_ratio"] == few["ms"] / base["ms"]
    names = ["weights", "gradients", "optimizer", "activations"]
    assert few["memory_gb"] == pytest.approx(sum(few[f"{name}_gb"] for name in names))
    assert [stage["stage"] for stage in few["stages"]] == ["vision", "forward", "backward", "optimizer"]
    assert sum(stage["ms"] for stage in few["stages"]) == pytest.approx(few["ms"])


def test_every_operation_of_a_step_can_be_shown(run):
    _, out, _ = run("roofline", "--train", "projector", "--visual", "576", "--hardware", "h100", "--ops")
    assert "attention's inputs" in out
    assert "projector's weights" in out
    assert "AdamW" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--train", "all"], "train is lora, projector or full, not 'all'"),
        (["--train", "lora", "--rank", "0"], "rank must be at least 1, not 0"),
        (["--train", "full", "--rank", "8"], "--rank: without effect beside --train full"),
        (["--train", "projector", "--dropout"], "--dropout: without effect beside --train projector"),
        (["--rank", "8", "--checkpointing"], "--checkpointing, --rank: without effect but beside --train"),
        (
            ["--train", "lora", "--new-tokens", "8", "-o", "roof.png"],
            "--new-tokens, --output: without effect beside --train lora",
        ),
        (["--train", "lora", "--convention", "macs"], "--convention: without effect beside --train lora"),
        (["--train", "lora", "--tensor-parallel", "2"], "--tensor-parallel: without effect beside --train"),
        (["--verify", "--train", "lora"], "--train: without effect beside --verify"),
        (
            ["--convention", "llm-viewer-2024-03", "--train", "lora"],
            "--convention: without effect beside --train lora",
        ),
        (["--train", "lora", "--bits", "w4a8"], "gradients need activations of 16 or 32 bits, unlike w4a8"),
        (["--train", "lora", "--bits", "w16a16kv8"], "training has no KV cache to store in 8 bits"),
        (["--train", "full", "--bits", "w4a16"], "weights and activations of one width, unlike w4a16"),
        (["--train", "lora", "--keep", "600"], "600 visual tokens are more than the 576"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(run, unchecked, arguments, sentence):
    code, out, err = run("roofline", *arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert len(err.strip().splitlines()) == 1


def test_a_step_is_of_one_device():
    with pytest.raises(ValueError, match="for one device; leave tensor_parallel at 1"):
        step_7b("576", shards=2)
