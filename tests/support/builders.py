"""Small random things to test with."""

import copy
from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MistralConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from prumerge.evaluate.records import Record
from prumerge.tokens import VisualTokens

PAD, BOS, IMAGE, VOCABULARY = 0, 1, 99, 120
SIDE, PATCH, PLACES, REGISTERS = 56, 14, 16, 2
PATCHES, CLASS = ("features", "keys", "queries", "relevance"), ("class_key", "class_feature")


def visual_tokens(
    grid=(1, 24, 24),
    *,
    seed=0,
    channels=16,
    width=8,
    heads=2,
    peak=3.0,
    dtype=torch.float32,
    class_tokens=1,
):
    """Visual tokens whose class attention has outliers (with `peak=0` it is flat) and whose keys cluster.

    `class_tokens` is 1, or the number of frames, each with its own.
    """
    if class_tokens > 1:
        frames = [
            visual_tokens(
                (1, *grid[1:]),
                seed=1000 * seed + n,
                channels=channels,
                width=width,
                heads=heads,
                peak=peak,
                dtype=dtype,
            )
            for n in range(class_tokens)
        ]
        of_patches: Any = {name: torch.cat([getattr(x, name) for x in frames]) for name in PATCHES}
        of_class: Any = {name: torch.stack([getattr(x, name) for x in frames]) for name in CLASS}
        return VisualTokens(
            grid=grid,
            heads=heads,
            **of_patches,
            **of_class,
        )
    count = grid[0] * grid[1] * grid[2]
    chance = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=chance)

    topics, topic = normal(6, width), torch.randint(6, (count + 1,), generator=chance)
    keys = topics[topic] + 0.3 * normal(count + 1, width)
    queries = normal(count + 1, width)
    striking = torch.rand(count + 1, generator=chance) < 0.1
    keys[striking] += peak * queries[0] / queries[0].norm()
    queries *= peak > 0
    features = normal(6, channels)[topic] + 0.3 * normal(count + 1, channels)
    return VisualTokens.from_class_sequence(
        features.to(dtype),
        queries.to(dtype),
        keys.to(dtype),
        heads=heads,
        grid=grid,
        relevance=torch.rand(count, generator=chance),
    )


SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LANGUAGE: dict[str, Any] = SIZES | {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 256,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": None,
    "initializer_range": 0.3,
}


def text_config(kind="llama", layers=2):
    more: Any = {"mistral": {"sliding_window": None}, "phi": {"qk_layernorm": True}}.get(kind, {})
    kinds = {"llama": LlamaConfig, "qwen2": Qwen2Config, "mistral": MistralConfig, "phi": PhiConfig}
    return kinds[kind](**LANGUAGE | {"num_hidden_layers": layers, "num_key_value_heads": 2} | more)


def vision_config(tower="clip", side=SIDE):
    sizes = SIZES | {"num_hidden_layers": 3, "image_size": side, "patch_size": PATCH}
    dinov2 = {"mlp_ratio": 2, "layerscale_value": 0.5}
    kind, more = {
        "clip": (CLIPVisionConfig, {}),
        "siglip": (SiglipVisionConfig, {}),
        "dinov2": (Dinov2Config, dinov2),
        "registers": (Dinov2WithRegistersConfig, {**dinov2, "num_register_tokens": REGISTERS}),
    }[tower]
    return kind(**sizes, **more)


def llava(*given, seed=0, **options):
    """LLaVA with random weights, large enough that attention is uneven and answers are decided clearly.

    One of its own: it is made once and copied, which takes half as long.
    """
    made = _llava(*given, seed=seed, **options)
    torch.manual_seed(seed)
    return copy.deepcopy(made)


@cache
def _llava(
    tower="clip",
    *,
    side=SIDE,
    layer=-2,
    strategy=None,
    seed=0,
    dtype=torch.float32,
    text="llama",
    layers=2,
    attention="sdpa",
):
    torch.manual_seed(seed)
    config = LlavaConfig(
        vision_config=vision_config(tower, side),
        text_config=text_config(text, layers),
        image_token_index=IMAGE,
        image_seq_length=(side // PATCH) ** 2,
        vision_feature_layer=list(layer) if isinstance(layer, tuple) else layer,
        vision_feature_select_strategy=strategy or ("full" if tower == "siglip" else "default"),
        attn_implementation=attention,
    )
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.model.vision_tower.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                weight.normal_(std=0.3)
            if "patch_embedding" in name and weight.ndim == 4:
                weight.normal_(std=0.05)
            if "register_tokens" in name:
                weight.normal_()
    return model.to(dtype)


def pictures(count, *, side=SIDE, seed=0):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


PICTURE = object()


def prompt(*rows, side=SIDE, padding="left", seed=0):
    """A processor's output for rows such as [5, PICTURE, 6, 7]."""
    places = [IMAGE] * (side // PATCH) ** 2
    ids = [[token for x in row for token in (places if x is PICTURE else [x])] for row in rows]
    length = max(map(len, ids))

    def padded(row, fill, value):
        margin = [fill] * (length - len(row))
        row = [value] * len(row) if value is not None else row
        return margin + row if padding == "left" else row + margin

    return {
        "input_ids": torch.tensor([padded(row, PAD, None) for row in ids]),
        "attention_mask": torch.tensor([padded(row, 0, 1) for row in ids]),
        "pixel_values": pictures(sum(x is PICTURE for row in rows for x in row), side=side, seed=seed),
    }


def row_of(inputs, row):
    """One row of a batch as if it had been processed alone."""
    first = [int((ids == IMAGE).sum()) // PLACES for ids in inputs["input_ids"]]
    start, end = sum(first[:row]), sum(first[: row + 1])
    real = inputs["attention_mask"][row].bool()
    alone = {name: value[row : row + 1, real] for name, value in inputs.items() if name != "pixel_values"}
    return {**alone, "pixel_values": inputs["pixel_values"][start:end]} if end > start else alone


def answer(model, inputs, tokens=4, **options):
    """The greedy answer, without the prompt."""
    with torch.no_grad():
        ids = model.generate(**inputs, **{"max_new_tokens": tokens, "do_sample": False, **options})
    return ids[:, inputs["input_ids"].shape[1] :]


def processor():
    """A LLaVA processor for small pictures, whose words w0, w1, ... are their own ids."""
    vocabulary = {"<image>" if token == IMAGE else f"w{token}": token for token in range(VOCABULARY)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        ),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=words,
            pad_token="w0",
            unk_token="w0",
            bos_token="w1",
            padding_side="left",
            extra_special_tokens={"image_token": "<image>"},
        ),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def record(id="attribute-0000", **changes):
    """An answer of an evaluation; its task is in its id."""
    like = {
        "task": id.partition("-")[0],
        "picture": str(int(id.rpartition("-")[2])),
        "method": "none",
        "spec": "none",
        "question": "what colour is the star?",
        "gold": ("red",),
        "prediction": "red",
        "score": 1.0,
        "split": "",
        "group": "",
        "options": 0,
        "tokens_in": 576,
        "tokens_kept": 576,
    }
    times = dict.fromkeys(("encode_ms", "reduce_ms", "prefill_ms", "decode_ms"), 1.0)
    if isinstance(changes.get("gold"), str):
        changes["gold"] = (changes["gold"],)
    return Record(id=id, **{**like, **times, **changes})
