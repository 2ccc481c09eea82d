"""What choosing 36 medoids of 576 x 1024 visual tokens costs beside PruMerge, on one thread of the CPU.

Decided is a batch of 32 pictures; milliseconds are processor time for one of them. Keys are drawn around 40
directions, as a picture has parts that look alike, or all at random, where no token stands for any other and
being lazy gains least. By themselves: the product of all keys with each other, without which nobody knows
what a token covers, also in bfloat16 and in int8, to see what rounding could gain; and the greedy choice
behind it, lazily and with every gain anew at each step. Also one picture on two threads (by the clock), the
operators of one step on a device that is asked for them, and a clip of 16384 tokens in 32 frames.

OMP_NUM_THREADS=1 python benchmarks/medoids.py --rounds 9
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from launches import BATCH, operators, pictures
from measure import rounds, save
from methods import a_video
from torch.nn.functional import normalize

import prumerge
from prumerge.ops.facility import at_once, lazily

KEEP = 36
SPECS = ("prumerge", "medoids", "medoids:merge=0", "scope", "topk", "topk:merge=0.5")


def in_parts(batch: list[prumerge.VisualTokens]) -> list[prumerge.VisualTokens]:
    """The same with keys around 40 directions in each picture."""
    found = []
    for one in batch:
        part = torch.randint(40, (len(one),))
        found.append(replace(one, keys=2 * torch.randn(40, one.keys.shape[1])[part] + one.keys))
    return found


def measured(batch: list[prumerge.VisualTokens], count: int) -> dict[str, Any]:
    methods = {spec: prumerge.make(f"{spec}{',' if ':' in spec else ':'}keep={KEEP}") for spec in SPECS}
    clock = time.process_time
    times = rounds({spec: partial(method.decide, batch) for spec, method in methods.items()}, count, clock)
    times = {spec: milliseconds / len(batch) for spec, milliseconds in times.items()}
    vectors, weight = normalize(batch[0].keys, dim=-1), batch[0].attention()
    keys, of_each = vectors.numpy(), weight.numpy()
    halved, bytes_each = vectors.bfloat16(), (vectors * 127 / vectors.abs().max()).round().to(torch.int8)
    turned = bytes_each.T.contiguous()
    parts = rounds(
        {
            "product_torch_ms": lambda: vectors @ vectors.T,
            "product_numpy_ms": lambda: keys @ keys.T,
            "product_bfloat16_ms": lambda: halved @ halved.T,
            "product_int8_ms": lambda: torch._int_mm(bytes_each, turned),
            "one_lazily_ms": lambda: lazily(keys, of_each, 1),
            "all_lazily_ms": lambda: lazily(keys, of_each, KEEP),
            "one_at_once_ms": lambda: at_once(vectors[None], weight[None], 1),
            "all_at_once_ms": lambda: at_once(vectors[None], weight[None], KEEP),
        },
        5 * count,
        clock,
    )
    return {
        "ms": times,
        "over_prumerge": {spec: milliseconds / times["prumerge"] for spec, milliseconds in times.items()},
        **parts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of medoids beside PruMerge.")
    parser.add_argument("--rounds", type=int, default=9)
    count = parser.parse_args().rounds
    torch.set_num_threads(1)
    with torch.inference_mode():
        batch = pictures(1024, (1, 24, 24))
        kinds = {"in_parts": measured(in_parts(batch), count), "random": measured(batch, count)}
        given = normalize(batch[0].keys, dim=-1)[None], batch[0].attention()[None]
        asked = [operators(partial(at_once, *given, steps)) for steps in (KEEP, KEEP + 16)]
        clip, methods = (
            a_video(),
            {name: prumerge.make(f"{name}:keep=0.1") for name in ("medoids", "visionzip")},
        )
        of_clip = rounds(
            {name: partial(method, clip) for name, method in methods.items()}, 3, time.process_time
        )
        torch.set_num_threads(2)
        one = {
            f"{name}@{keep}": prumerge.make(f"{name}:keep={keep}") for name in SPECS[:2] for keep in (36, 144)
        }
        on_two = rounds({label: partial(method, batch[0]) for label, method in one.items()}, 5 * count)
    save(
        "medoids",
        {
            "batch": BATCH,
            "kept": KEEP,
            "rounds": count,
            **kinds,
            "two_threads_ms": on_two,
            "operators_of_a_step": (asked[1] - asked[0]) / 16,
            "clip_tokens": len(clip),
            "clip_ms": of_clip,
        },
    )


if __name__ == "__main__":
    main()
