"""Decisions about a batch: operators that the device is asked for, and time on the CPU against one by one.

Every method before the language model, 64 tokens kept (of those that compare frames 320, in two frames).
Counted are aten operators in the decide step (views included) on pictures of 576 tokens that an encoder left
as parts of one tensor, for batches of 1, 8 and 32; and for greedy methods those of one step (`medoids` takes
none on the CPU, where it is NumPy's; see `medoids.py`). Timed is a batch
of 32 pictures of 576 x 1024 tokens, as parts of one tensor and each in memory of its own, and of 576 x 192
(the embedded model's) as parts of one tensor.

python benchmarks/launches.py --rounds 5
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measure import DEVICE, rounds, save
from torch.utils._python_dispatch import TorchDispatchMode

import prumerge
from prumerge.catalogue import built_in, entry

BATCH, KEEP, KEEP_OF_FRAMES = 32, 64, 320
GREEDY = ("scope", "divprune", "cdpruner")


class Operators(TorchDispatchMode):
    """How many operators run while a `with` lasts."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def operators(call: Callable[[], Any]) -> int:
    with Operators() as counted:
        call()
    return counted.count


def pictures(width: int, grid: tuple[int, int, int], *, apart: bool = False) -> list[prumerge.VisualTokens]:
    """A batch of random pictures with a class token each, as parts of one tensor or `apart`."""
    torch.manual_seed(0)
    count, heads = grid[0] * grid[1] * grid[2], width // 64
    features, keys = (torch.randn(BATCH, count + 1, width, device=DEVICE) for _ in range(2))
    query, relevance = torch.randn(BATCH, 1, width, device=DEVICE), torch.rand(BATCH, count, device=DEVICE)
    held = [
        {
            "features": features[number, 1:],
            "keys": keys[number, 1:],
            "queries": query[number],
            "class_key": keys[number, 0],
            "class_feature": features[number, 0],
            "relevance": relevance[number],
        }
        for number in range(BATCH)
    ]
    return [
        prumerge.VisualTokens(
            grid=grid,
            heads=heads,
            **{name: value.clone() if apart else value for name, value in one.items()},
        )
        for one in held
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Operators and time of decisions about a batch.")
    parser.add_argument("--rounds", type=int, default=5)
    count = parser.parse_args().rounds
    described = [entry(name) for name in built_in()]
    before = [one for one in described if one.place == "before the language model"]
    grids = {one.name: (2, 12, 24) if one.video else (1, 24, 24) for one in before}
    specs = {
        one.name: one.name
        if one.name == "none"
        else f"{one.name}:keep={KEEP_OF_FRAMES if one.video else KEEP}"
        for one in before
    }
    found: dict[str, dict[str, Any]] = {}
    with torch.inference_mode():
        for name, spec in specs.items():
            method, batch = prumerge.make(spec), pictures(192, grids[name])
            asked = {f"batch_{n}": operators(partial(method.decide, batch[:n])) for n in (1, 8, BATCH)}
            found[name] = {**asked, "batch_32_over_1": asked["batch_32"] / asked["batch_1"]}
            if name in GREEDY:
                longer = operators(partial(prumerge.make(f"{name}:keep={KEEP + 16}").decide, batch[:1]))
                found[name]["a_step"] = (longer - asked["batch_1"]) / 16
        kinds = {
            "of_one_tensor": partial(pictures, 1024),
            "apart": partial(pictures, 1024, apart=True),
            "of_one_tensor_192_wide": partial(pictures, 192),
        }
        for kind, make in kinds.items():
            for name, spec in specs.items():
                method, batch = prumerge.make(spec), make(grids[name])
                times = rounds(
                    {
                        "one_by_one_ms": lambda method=method, batch=batch: [method(one) for one in batch],
                        "together_ms": partial(method.decide, batch),
                    },
                    count=count,
                )
                times["together_over_one_by_one"] = times["together_ms"] / times["one_by_one_ms"]
                found[name][kind] = times
                print(kind, name, round(times["together_over_one_by_one"], 2), flush=True)
    save("launches", {"batch": BATCH, "tokens": 576, "rounds": count, "methods": found})


if __name__ == "__main__":
    main()
