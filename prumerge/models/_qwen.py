"""What the Qwen-VL generations share: pictures packed into one sequence, 2 x 2 patches to a token, and rotary
positions in time and space (M-RoPE), which kept tokens keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prumerge.models._towers import run_model
from prumerge.models._weights import device_of, within_call
from prumerge.tokens import VisualTokens

INPUTS = (
    "pixel_values",
    "pixel_values_videos",
    "image_grid_thw",
    "video_grid_thw",
    "second_per_grid_ts",
    "mm_token_type_ids",
)


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """The visual tokens of each picture, or of each video (two pictures to a frame).

    q and k are those of the last block without rotary positions, averaged over the patches of a token.
    """
    is_video = inputs.get("pixel_values_videos") is not None
    grids = inputs["video_grid_thw" if is_video else "image_grid_thw"]
    look = base.get_video_features if is_video else base.get_image_features
    pixels = inputs["pixel_values_videos" if is_video else "pixel_values"].to(device_of(base))
    visual = base.visual
    last, unit = len(visual.blocks) - 1, visual.spatial_merge_size**2
    output, hidden = run_model(look, pixels, grids.to(device_of(base)), layers=[last])
    block = visual.blocks[last]
    scored = within_call(block, lambda hidden: block.attn.qkv(block.norm1(hidden)), hidden[last])
    queries, keys, _ = scored.chunk(3, dim=-1)
    queries, keys = (
        in_order(visual, each.unflatten(0, (-1, unit)).mean(1), grids) for each in (queries, keys)
    )
    shapes = [(frames, rows, columns) for frames, rows, columns in grids.tolist()]
    counts = [frames * rows * columns // unit for frames, rows, columns in shapes]
    levels = [output.pooler_output, *(getattr(output, "deepstack_features", None) or [])]
    merge = visual.spatial_merge_size
    return [
        VisualTokens(
            features=torch.cat(features, dim=-1),
            grid=(frames, rows // merge, columns // merge),
            keys=key,
            queries=query,
            heads=block.attn.num_heads,
            placed=torch.arange(len(key)),
        )
        for (frames, rows, columns), key, query, *features in zip(
            shapes, keys.split(counts), queries.split(counts), *levels, strict=True
        )
    ]


def in_order(visual: Any, tokens: Float[Tensor, "N D"], grids: Int[Tensor, "pictures 3"]) -> Tensor:
    """Undo the order of windows in which Qwen2.5-VL's tower keeps its tokens."""
    if not hasattr(visual, "fullatt_block_indexes"):
        return tokens
    from transformers.vision_utils import get_vision_window_index

    window, _ = get_vision_window_index(
        grids,
        spatial_merge_size=visual.spatial_merge_size,
        window_size=visual.window_size,
        patch_size=visual.patch_size,
    )
    return tokens[window.argsort().to(tokens.device)]


def positions(base: Any, inputs: Mapping[str, Any]) -> Int[Tensor, "3 B L"]:
    """Time, row and column of every token of the whole prompt, as the model counts them.

    They travel with the prompt, not on the model: `generate` counts on from the last, and so must whoever
    calls `forward` step by step, as with any prompt whose `position_ids` were given.
    """
    ids, kinds = inputs["input_ids"], inputs.get("mm_token_type_ids")
    if kinds is None:
        kinds = (ids == base.config.image_token_id).int() + 2 * (ids == base.config.video_token_id).int()
    names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts", "attention_mask")
    given = {name: inputs[name] for name in names if inputs.get(name) is not None}
    return base.get_rope_index(ids, mm_token_type_ids=kinds, **given)[0]
