"""Rows, processors and runs to train with: small ones of real classes."""

import copy
import tempfile
from functools import cache

import numpy as np
import torch
from builders import SIDE
from families import FAMILIES
from PIL import Image
from processors import PROCESSORS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlavaProcessor, PreTrainedTokenizerFast, TrainingArguments
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from prumerge.train.adapter import prepare
from prumerge.train.rows import Row, Rows

_NOWHERE = tempfile.TemporaryDirectory()
"""Of a run that keeps nothing: Trainer makes a folder in any case."""


@cache
def drawn(seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def rows(*data) -> list[Row]:
    return list(Rows.read(list(data)))


def asked(question, answer, seed=0):
    return {"question": question, "answer": answer, "image": drawn(seed)}


def talk(*turns, images=()):
    roles = ["user", "assistant"] * len(turns)
    messages = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    return {"messages": messages, "images": list(images)}


def spelling(template, *special):
    """LLaVA's processor with a tokenizer that spells bytes, and knows these special words."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    words.add_special_tokens(["<s>", "</s>", "<pad>", "<image>", *special])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )
    return LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def arguments(folder=None, **changes):
    usual = {
        "max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-2, "weight_decay": 0.0,
        "lr_scheduler_type": "constant", "report_to": "none", "disable_tqdm": True, "logging_steps": 1,
        "save_strategy": "no", "use_cpu": True, "remove_unused_columns": False, "seed": 3,
    }  # fmt: skip
    return TrainingArguments(output_dir=str(folder or _NOWHERE.name), **{**usual, **changes})


def small_lora(name="Llava", **more):
    """A small random model of a family with adapters to train, and its processor if it has one."""
    model = copy.deepcopy(FAMILIES[name].model())
    torch.manual_seed(0)
    return prepare(model, **{"rank": 2, "alpha": 4, "dropout": 0.0, **more}), PROCESSORS.get(
        name, lambda: None
    )()
