"""Every method before the language model on 576 x 1024 visual tokens, 64 kept: milliseconds, and their share
of the time in which CLIP ViT-L/14-336 (random weights) encodes the picture.

Features, keys and queries are the tower's own for a random picture. Methods that compare what the language
model would read put all patches through the projector (an MLP to 4096) first, and those that take the
attention of the layer that wrote the features compute its keys again; both are measured apart, once.
For DivPrune also a direct re-selection that recomputes the distances to the chosen tokens at every step; and
a video of 16384 tokens in 32 frames.

python benchmarks/methods.py --rounds 21
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial

import torch
from encoder import vision_side
from measure import DEVICE, rounds, save

import prumerge
from prumerge.catalogue import built_in, entry
from prumerge.models import _vision as vision
from prumerge.models import llava

KEEP, VIDEO = 64, ("divprune", "visionzip")


def directly(tokens: prumerge.VisualTokens) -> torch.Tensor:
    """DivPrune that compares all tokens with the chosen ones anew at every step."""
    directions = torch.nn.functional.normalize(tokens.embeddings(), dim=-1)
    distance = 1 - directions @ directions.T
    chosen = distance.topk(2, dim=0, largest=False).values[1].argmax().unsqueeze(0)
    while len(chosen) < KEEP:
        nearest = (1 - directions @ directions[chosen].T).amin(dim=1)
        nearest[chosen] = -1
        chosen = torch.cat([chosen, nearest.argmax().unsqueeze(0)])
    return chosen.sort().values


def a_video() -> prumerge.VisualTokens:
    """32 frames of 16 x 32 tokens, each with a class token."""
    patches, of_class = (torch.randn(count, 1024, device=DEVICE) for count in (16384, 32))
    return prumerge.VisualTokens(
        features=patches,
        grid=(32, 16, 32),
        keys=patches.flip(1),
        queries=of_class,
        heads=16,
        class_key=of_class.flip(1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of the methods before the language model.")
    parser.add_argument("--rounds", type=int, default=21)
    count = parser.parse_args().rounds
    few = max(3, count // 4)  # of what takes seconds
    torch.manual_seed(0)
    base, pixels, video = (
        vision_side().to(DEVICE).model,
        torch.randn(1, 3, 336, 336, device=DEVICE),
        a_video(),
    )
    described = [entry(name) for name in built_in() if name != "none"]
    methods = {
        one.name: prumerge.make(f"{one.name}:keep={KEEP}")
        for one in described
        if one.place == "before the language model" and not one.video
    }
    of_video = {name: prumerge.make(f"{name}:keep=0.1") for name in ("evs", "vidcom2", *VIDEO)}

    with torch.inference_mode():
        [encoded] = llava.encode(base, {"pixel_values": pixels})
        tower = vision.encode(base.vision_tower, pixels, -2)
        tokens = replace(encoded, relevance=torch.rand(len(encoded), device=DEVICE))
        assert torch.equal(methods["divprune"](tokens).index, directly(tokens))
        projecting = {name for name, method in methods.items() if projects(method, tokens)}
        sides = rounds(
            {
                "encode_ms": lambda: llava.encode(base, {"pixel_values": pixels}),
                "projector_ms": lambda: llava.project(base, [tokens.features]),
                "other_layer_ms": lambda: tower.scores_of("writer"),
            },
            count=few,
        )
        calls = {name: partial(method, tokens) for name, method in methods.items()}
        times = rounds({**calls, "direct": lambda: directly(tokens)}, count=count)
        on_video = rounds({name: partial(method, video) for name, method in of_video.items()}, count=few)
    direct = times.pop("direct")
    save(
        "methods",
        {
            "tokens": list(tokens.features.shape),
            "kept": KEEP,
            "rounds": count,
            **sides,
            "methods": {
                name: {
                    "ms": ms,
                    "share_of_encode": ms / sides["encode_ms"],
                    "projects_all": name in projecting,
                }
                for name, ms in sorted(times.items(), key=lambda item: item[1])
            },
            "direct_divprune_ms": direct,
            "direct_over_divprune": direct / times["divprune"],
            "video_tokens": len(video),
            "video_ms": on_video,
        },
    )


def projects(method: prumerge.Reducer, tokens: prumerge.VisualTokens) -> bool:
    """Whether a method asks for the patches behind the projector."""
    asked = []

    def embed(features: torch.Tensor) -> torch.Tensor:
        asked.append(features)
        return features

    method(replace(tokens, embed=embed))
    return bool(asked)


if __name__ == "__main__":
    main()
