"""How a model is trained: the numbers that a user may turn."""

from __future__ import annotations

from dataclasses import dataclass

from prumerge.errors import PrumergeError
from prumerge.train.adapter import check_trained


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How is trained: by default as the paper does (section 4.1 and its scripts), but for the batch."""

    train: str = "lora"
    """What is trained: lora, projector or full; see `prepare`."""
    rank: int = 128
    alpha: int = 256
    dropout: float = 0.05
    rate: float = 2e-4
    """The highest learning rate; it rises linearly over the warm-up and falls as a cosine."""
    projector_rate: float = 2e-5
    warmup: float = 0.03
    """Share of the steps."""
    epochs: float = 1
    steps: int | None = None
    """In place of epochs."""
    batch: int = 16
    """Rows in a forward pass of one process."""
    accumulate: int = 1
    """Forward passes in a step."""
    bf16: bool = False
    checkpointing: bool = False
    """Whether activations are computed again in the backward pass, in place of being kept."""
    distil: float = 0.0
    """Share of the divergence from the untouched model in the loss; without labels it is all of it."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_trained(self.train)
        for name in ("rank", "alpha", "rate", "projector_rate", "epochs", "batch", "accumulate"):
            if not getattr(self, name) > 0:
                raise PrumergeError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("dropout", "warmup", "distil"):
            if not 0 <= getattr(self, name) <= 1:
                raise PrumergeError(f"{name} is a share from 0 to 1, not {getattr(self, name)}")
        if self.steps is not None and self.steps < 1:
            raise PrumergeError(f"steps must be above 0, not {self.steps}")
