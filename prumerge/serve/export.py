"""Checkpoints that stock vLLM loads: the language model alone, or the whole model by the names it expects."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from prumerge.errors import PrumergeError
from prumerge.loading.paths import first_line
from prumerge.serve.travel import check_travels

_LLAVA = """\
{% for message in messages %}\
{% set text %}{% for content in message['content'] if content['type'] == 'text' %}{{ content['text'] }}\
{% if not loop.last %} {% endif %}{% endfor %}{% endset %}\
{% if message['role'] == 'assistant' %} {{ text }}{% elif message['role'] == 'system' %}{{ text }} \
{% else %}USER: {{ text }} ASSISTANT:{% endif %}{% endfor %}"""

# What `prumerge serve` sends is a prompt already: its one part stands for all of it.
_RENDERED = """\
{% if rendered is defined %}\
{% for message in messages %}\
{% for content in message['content'] %}{{ content['text'] }}{% endfor %}\
{% endfor %}\
{% else %}"""

_TOWER = re.compile(r"^((?:model\.)?vision_tower\.)(?!vision_model\.)")


def export_language_model(model: Any, processor: Any, folder: Path) -> None:
    """Write the language model alone with tokenizer, generation config and chat template.

    Raises PrumergeError for a model whose prompts cannot travel as embeddings, whose language model is none
    of Transformers', or whose weights are quantised.
    """
    check_travels(model, processor)
    _check_plain(model)
    alone = language_model(model)
    alone.save_pretrained(folder)
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.chat_template = chat_template(processor)
    tokenizer.save_pretrained(folder)


def language_model(model: Any) -> Any:
    """A causal language model of Transformers' that shares the weights of the one inside, to be saved: what a
    checkpoint does not hold (frequencies of rotary positions) it has not. Raises PrumergeError."""
    config = copy.deepcopy(model.config.text_config)
    head = model.get_output_embeddings()
    config.tie_word_embeddings = head.weight is model.get_input_embeddings().weight
    try:
        with torch.device("meta"):
            alone = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
        alone.get_decoder().load_state_dict(model.get_decoder().state_dict(), assign=True)
        alone.get_output_embeddings().load_state_dict(head.state_dict(), assign=True)
    except (RuntimeError, ValueError, AttributeError) as error:
        raise PrumergeError(
            f"the language model of {model.config.model_type!r} is none that Transformers loads alone "
            f"({first_line(error)}); serve it by this process (prumerge serve without --engine)"
        ) from error
    alone.generation_config = copy.deepcopy(model.generation_config)
    return alone.eval()


def chat_template(processor: Any) -> str:
    """The processor's template for a tokenizer that is given no pictures: it writes the token that begins a
    text where the tokenizer would, since vLLM's chat tells the tokenizer not to; and it lets prompts through
    that are written already (`chat_template_kwargs={"rendered": true}`)."""
    return f"{_RENDERED}{_begun(processor, processor.chat_template or _LLAVA)}{{% endif %}}"


def _begun(processor: Any, template: str) -> str:
    """A template with the token that begins a text, where the tokenizer alone writes it."""
    tokenizer = processor.tokenizer
    ids = tokenizer("a").input_ids
    begins = tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
    return "{{ bos_token }}" + template if begins and "bos_token" not in template else template


def export_whole(model: Any, processor: Any, folder: Path) -> None:
    """Write the whole model with the names that weights have on the hub, which Transformers reads as well;
    its chat template writes the token that begins a text, since vLLM's chat has no tokenizer do so.

    Raises PrumergeError for quantised weights.
    """
    _check_plain(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    template = folder / "chat_template.jinja"
    if template.is_file():
        template.write_text(_begun(processor, template.read_text(encoding="utf-8")), encoding="utf-8")
    for path in sorted(folder.glob("*.safetensors")):
        rename(path, lambda name: _TOWER.sub(r"\1vision_model.", name))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        held = json.loads(index.read_text())
        held["weight_map"] = {
            _TOWER.sub(r"\1vision_model.", name): file for name, file in held["weight_map"].items()
        }
        index.write_text(json.dumps(held, indent=2, sort_keys=True))


def rename(path: Path, new: Callable[[str], str]) -> None:
    """Give the weights of a file other names; a file whose names stay is left alone."""
    with safe_open(path, "pt") as held:
        names = {name: new(name) for name in held.keys()}  # noqa: SIM118
        if all(name == other for name, other in names.items()):
            return
        tensors = {other: held.get_tensor(name) for name, other in names.items()}
        metadata = held.metadata()
    draft = path.with_suffix(".draft")
    save_file(tensors, draft, metadata)
    draft.replace(path)


def _check_plain(model: Any) -> None:
    if getattr(model, "hf_quantizer", None) is not None:
        raise PrumergeError("the weights are quantised; export the checkpoint that they were made of")
