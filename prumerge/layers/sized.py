"""Attention in proportion to sizes without a mask, so that SDPA keeps its fast causal kernels.

What a size adds to the logits of a key, b_j, is a product too: one channel more, in which every query has 1
and key j has b_j / scaling. It comes behind rotary positions, which do not turn it, and is exact in half
precision as well: one channel holds b_j / scaling rounded, the next what rounding left. Kernels want heads of
a multiple of eight channels: the others are zeros, and values get as many, which are cut from what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

_CHANNELS = 8
_WORTH = {"cpu": 768, "cuda": 3072}
"""Columns from which copying queries, keys and values costs less than a mask does (benchmarks/sizes.py on a
CPU, benchmarks/gpu.py on an H100, whose kernels for heads wider than 128 are slower)."""


def by_channels(config: Any, hidden: Float[Tensor, "B S D"], mask: Tensor | None, seen: int) -> bool:
    """Whether `attending` is the way for this layer, and not a mask: SDPA that reads a whole prompt, causal
    and without padding, of so many columns that it is the faster one; and no gradients, as layers with
    checkpoints run again when nobody is `attending`."""
    long = hidden.shape[1] >= _WORTH.get(hidden.device.type, _WORTH["cuda"])
    whole = mask is None and seen == 0 and long
    return config._attn_implementation == "sdpa" and whole and not torch.is_grad_enabled()


@contextmanager
def attending(bias: Float[Tensor, "B S"]) -> Iterator[None]:
    """While a `with` lasts, causal SDPA of this thread has `bias` on the logits of its S keys.

    Raises RuntimeError if there was none.
    """
    mode = _Biased(bias)
    with mode:
        yield
    if not mode.called:
        raise RuntimeError("a layer with sdpa called no scaled_dot_product_attention: sizes had no effect")


class _Biased(TorchFunctionMode):
    def __init__(self, bias: Float[Tensor, "B S"]) -> None:
        super().__init__()
        self.bias = bias
        self.called = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self.called = True
        return _attended(self.bias, *args, **(kwargs or {}))


def _attended(
    bias: Float[Tensor, "B S"],
    query: Float[Tensor, "B H S D"],
    key: Float[Tensor, "B H2 S D"],
    value: Float[Tensor, "B H2 S V"],
    attn_mask: None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **rest: Any,
) -> Float[Tensor, "B H S V"]:
    assert attn_mask is None and is_causal
    scale = scale or 1 / math.sqrt(query.shape[-1])
    whole = bias.float()[:, None, :, None] / scale
    rounded = whole.bfloat16().float()
    added = pad(torch.cat([rounded, whole - rounded], dim=-1), (0, _CHANNELS - 2)).to(key)
    ones = pad(query.new_ones(2), (0, _CHANNELS - 2)).expand(*query.shape[:-1], -1)
    output = scaled_dot_product_attention(
        torch.cat([query, ones], dim=-1),
        torch.cat([key, added.expand(-1, key.shape[1], -1, -1)], dim=-1),
        pad(value, (0, query.shape[-1] + _CHANNELS - value.shape[-1])),
        dropout_p=dropout_p,
        is_causal=True,
        scale=scale,
        **rest,
    )
    return output[..., : value.shape[-1]]
