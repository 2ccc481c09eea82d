"""Attention in proportion to sizes: one more channel of queries and keys beside a mask, and beside neither.

    OMP_NUM_THREADS=1 python benchmarks/sizes.py

Prefill by causal SDPA at the shape of a 7B language model (32 heads of 128), and of a small one with fewer
heads for keys (9 and 3 of 64); processor time on the CPU, where SDPA has one fused kernel for all three.
"""

from __future__ import annotations

import time

import torch
from measure import DEVICE, rounds, save
from torch.nn.functional import scaled_dot_product_attention as attention

from prumerge.layers.sized import attending

SHAPES = {"7B": (32, 32, 128), "small": (9, 3, 64)}
COLUMNS = (64, 128, 256, 512, 1024, 2304)


def measured(
    heads: int, of_keys: int, width: int, columns: int, dtype: torch.dtype = torch.float32
) -> dict[str, float]:
    """Milliseconds of a layer's attention, plain and with sizes in either way."""
    query, key, value = (
        torch.randn(1, count, columns, width, device=DEVICE, dtype=dtype)
        for count in (heads, of_keys, of_keys)
    )
    bias = torch.rand(1, columns, device=DEVICE) * 4
    options = {"enable_gqa": heads != of_keys}

    def plain() -> torch.Tensor:
        return attention(query, key, value, is_causal=True, **options)

    def masked() -> torch.Tensor:
        causal = torch.ones(columns, columns, dtype=torch.bool, device=DEVICE).tril()
        mask = torch.where(causal, bias[:, None, None], torch.finfo(query.dtype).min).to(dtype)
        return attention(query, key, value, attn_mask=mask, **options)

    def channels() -> torch.Tensor:
        with attending(bias):
            return plain()

    near = 1e-4 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(channels(), masked(), atol=near, rtol=near)
    clock = time.process_time if DEVICE == "cpu" else time.perf_counter
    times = rounds({"plain": plain, "mask": masked, "channels": channels}, 15, clock)
    return {**times, **{f"{name}_over_plain": times[name] / times["plain"] for name in ("mask", "channels")}}


def main() -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        found = {
            name: {str(columns): measured(*shape, columns) for columns in COLUMNS}
            for name, shape in SHAPES.items()
        }
    save("sizes", found)


if __name__ == "__main__":
    main()
