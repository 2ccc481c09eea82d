from dataclasses import dataclass

import prumerge


@dataclass(frozen=True, kw_only=True)
class Loudest(prumerge.Reducer):
    """The tokens with the longest feature vectors."""

    keep: int | float = 36
    """Visual tokens to keep: a count or a share below 1."""

    def __call__(self, tokens: prumerge.VisualTokens) -> prumerge.Reduction:
        return prumerge.Reduction(tokens.features.norm(dim=-1).topk(self.count(len(tokens))).indices)
