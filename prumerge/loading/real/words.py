"""The language model's weights and its tokenizer, out of a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

IMAGE = "<image>"
UNUSED = "<empty_output>"
"""A word of SmolLM2's for notebooks; `<image>` takes its place, so that no embedding is added."""
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""SmolLM2's own turns, pictures before words, and no words of a system."""
END = "<|im_end|>"
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def language_model(file: Path) -> tuple[LlamaConfig, dict[str, Tensor]]:
    """The configuration and the float32 weights by the names of Transformers' LlamaModel."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(str(file))
    config = _config({name: field.contents() for name, field in reader.fields.items() if _is_short(name)})
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    found = {}
    for tensor in reader.tensors:
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if tensor.name == "token_embd.weight":
            found["embed_tokens.weight"] = weight
        elif tensor.name == "output_norm.weight":
            found["norm.weight"] = weight
        else:
            _, layer, name, _ = tensor.name.split(".")
            found[f"layers.{layer}.{_LAYER[name]}.weight"] = (
                halves_apart(weight, heads[name]) if name in heads else weight
            )
    return config, found


def halves_apart(weight: Float[Tensor, "out in"], heads: int) -> Float[Tensor, "out in"]:
    """Rows of queries or keys in Transformers' order: llama.cpp turns neighbouring pairs, Transformers the
    first half of a head with the second."""
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape_as(weight)


def tokenizer(file: Path) -> Any:
    """SmolLM2's tokenizer, in which `<image>` stands for a visual token and a turn's end ends an answer."""
    with TemporaryDirectory() as folder:
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
        path = Path(folder, "tokenizer.json")
        path.write_text(_renamed(path.read_text(encoding="utf-8")), encoding="utf-8")
        return PreTrainedTokenizerFast(
            tokenizer_file=str(path),
            eos_token=END,
            pad_token=END,
            extra_special_tokens={"image_token": IMAGE},
        )


def _renamed(text: str) -> str:
    """A tokenizer.json with `<image>` in the place of the unused word, and the turns' marks as one token."""
    held = json.loads(text)
    words = held["model"]["vocab"]
    words[IMAGE] = words.pop(UNUSED)
    added = [one for one in held["added_tokens"] if one["content"] != UNUSED]
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    known = {one["content"] for one in added}
    for word in (IMAGE, "<|im_start|>", END):
        if word not in known:
            added.append({"id": words[word], "content": word, **special})
    held["added_tokens"] = sorted(added, key=lambda one: one["id"])
    return json.dumps(held, ensure_ascii=False)


def _config(known: dict[str, Any]) -> LlamaConfig:
    def of(name: str) -> Any:
        return known[f"llama.{name}"]

    return LlamaConfig(
        vocab_size=of("vocab_size"),
        hidden_size=of("embedding_length"),
        intermediate_size=of("feed_forward_length"),
        num_hidden_layers=of("block_count"),
        num_attention_heads=of("attention.head_count"),
        num_key_value_heads=of("attention.head_count_kv"),
        rms_norm_eps=of("attention.layer_norm_rms_epsilon"),
        max_position_embeddings=of("context_length"),
        rope_parameters={"rope_type": "default", "rope_theta": of("rope.freq_base")},
        tie_word_embeddings=True,
        bos_token_id=known["tokenizer.ggml.bos_token_id"],
        eos_token_id=known["tokenizer.ggml.eos_token_id"],
        pad_token_id=known["tokenizer.ggml.padding_token_id"],
    )


def _is_short(name: str) -> bool:
    """Whether a field is one value, not a list of all words."""
    return name.startswith("llama.") or name.endswith("_token_id")
