from __future__ import annotations

from dataclasses import dataclass

import torch

from prumerge.errors import PrumergeError
from prumerge.reducer import Reducer
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class KeepAll(Reducer):
    """Every visual token, as the model itself would read them.

    The yardstick: logits and answers are bit-identical to those of the untouched model.
    """

    decides = "once"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep is not None:
            raise PrumergeError(
                "none keeps every visual token; for a budget choose another method, e.g. spatial:keep=36"
            )

    def __call__(self, tokens: VisualTokens) -> Reduction:
        return Reduction(torch.arange(len(tokens), device=tokens.features.device))
