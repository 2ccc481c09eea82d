"""PruMerge on one image of 576 x 1024 tokens, about 40 kept, beside its own three matrix products and loops.

The lower bound: similarity of the kept tokens [40, 1024] x [1024, 576], class attention [1, 1024] x
[1024, 577], and merging [41, 576] x [576, 1024]. The loops are direct readings of the algorithm: `pairs`
compares one token with one other at a time, `rows` one kept token with all others at once, as the official
code does. At one and at two threads, since small operators gain nothing from the second.
"""

from __future__ import annotations

import torch
from measure import DEVICE, rounds, save

import prumerge


def tokens_with_outliers(count: int, grid: int = 24, width: int = 1024) -> prumerge.VisualTokens:
    """Random tokens of which about `count` match the class token's query."""
    torch.manual_seed(0)
    features, keys = torch.randn(2, grid * grid + 1, width).to(DEVICE)
    query = 0.2 * torch.randn(grid * grid + 1, width).to(DEVICE)
    keys[1 : count + 1] += 2 * query[0]
    shuffled = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(grid * grid)])
    return prumerge.VisualTokens.from_class_sequence(
        features[shuffled], query, keys[shuffled], heads=16, grid=(grid, grid)
    )


def loop(tokens: prumerge.VisualTokens, *, pairs: bool) -> torch.Tensor:
    """PruMerge one kept token at a time."""
    scores = tokens.attention(split_heads=False)
    q1, q3 = torch.quantile(scores, torch.tensor([0.25, 0.75], device=scores.device))
    kept = [place for place in range(len(scores)) if scores[place] > q3 + 1.5 * (q3 - q1)]
    kept.sort(key=lambda place: -scores[place])
    rows = []
    for place in kept:
        others = [other for other in range(len(scores)) if other != place]
        key = tokens.keys[place]
        if pairs:
            cosines = [float(torch.cosine_similarity(key, tokens.keys[other], dim=0)) for other in others]
        else:
            cosines = torch.cosine_similarity(key[None], tokens.keys[others]).tolist()
        nearest = sorted(range(len(others)), key=lambda n: -cosines[n])[:32]
        neighbours = [others[n] for n in nearest]
        rows.append(tokens.features[place] + (scores[neighbours, None] * tokens.features[neighbours]).sum(0))
    rest = sorted(set(range(len(scores))) - set(kept))
    rows.append((scores[rest, None] * tokens.features[rest]).sum(0))
    return torch.stack(rows)


def main() -> None:
    tokens = tokens_with_outliers(40)
    method = prumerge.make("prumerge")
    reduction = method(tokens)
    kept = reduction.index[:-1]
    for pairs in (True, False):
        torch.testing.assert_close(reduction.apply(tokens), loop(tokens, pairs=pairs), rtol=1e-4, atol=1e-4)
    keys = torch.cat([tokens.class_key[None], tokens.keys])

    def products() -> None:
        tokens.keys[kept] @ tokens.keys.T
        tokens.queries @ keys.T
        reduction.weights @ tokens.features

    def measured(threads: int) -> dict[str, float]:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            times = rounds(
                {
                    "three_products_ms": products,
                    "prumerge_ms": lambda: method(tokens).apply(tokens),
                    "loop_over_rows_ms": lambda: loop(tokens, pairs=False),
                },
                count=51,
            )
        return {
            **times,
            "prumerge_over_products": times["prumerge_ms"] / times["three_products_ms"],
            "rows_over_prumerge": times["loop_over_rows_ms"] / times["prumerge_ms"],
        }

    two_threads, found = measured(2), measured(1)
    with torch.inference_mode():
        found |= rounds({"loop_over_pairs_ms": lambda: loop(tokens, pairs=True)}, count=5)
    found["pairs_over_prumerge"] = found["loop_over_pairs_ms"] / found["prumerge_ms"]
    save(
        "reduction",
        {
            "tokens": list(tokens.features.shape),
            "kept": len(kept),
            **found,
            "two_threads": two_threads,
        },
    )


if __name__ == "__main__":
    main()
