"""Methods that do not wait between the encoder and the language model: those inside either of them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from jaxtyping import Bool, Float, Int
from torch import Tensor

from prumerge.reducer import PLACES, Chain, Reducer, make
from prumerge.tokens import VisualTokens


@dataclass(frozen=True, kw_only=True)
class TowerReducer(Reducer):
    """A method that merges inside the vision tower, between attention and MLP of its blocks.

    Called by itself it is one such step on a picture's tokens.
    """

    place = "vision tower"

    proportional: bool = True
    """Attention to a merged token weighs by its size: the logarithm is added to its logit."""

    @abstractmethod
    def schedule(self, patches: int, blocks: int) -> list[int]:
        """How many tokens to merge away in each of the tower's blocks."""

    @abstractmethod
    def match(self, keys: Float[Tensor, "*B S D"], r: int, *, class_token: bool) -> Int[Tensor, "*B S"]:
        """Which of the S - r tokens that are left each token goes into."""


@dataclass(frozen=True, kw_only=True)
class LayerReducer(Reducer):
    """A method that prunes between layers of the language model.

    It is called at each of its stages with the visual tokens of one picture as they are there:
    `tokens.features` are their hidden states, `tokens.relevance` the attention they receive from the prompt.
    """

    place = "language model"
    needs = "attention"

    reads: ClassVar[int] = -1
    """Whose attention a stage looks at: that of the layer before it (-1) or of the layer after it (0)."""

    positions: Literal["original", "compact"] = "original"
    """Position ids of what is left: as they were, or counted anew without gaps."""

    @abstractmethod
    def depths(self, layers: int) -> tuple[int, ...]:
        """Its stages in a language model of so many layers: a stage at depth d stands before layer d."""

    def at(self, stage: int, stages: int, available: int) -> Reducer:
        """What decides at a stage (0 is the first) about a picture that came with `available` tokens."""
        return self

    def received(self, tokens: VisualTokens) -> Float[Tensor, "N"]:
        """The attention that each token receives in a layer; ValueError where nobody has looked."""
        self.need(
            tokens.relevance is not None,
            "the attention of a language model's layer (prumerge.attach lets it work there)",
            instead="topk",
        )
        assert tokens.relevance is not None
        return tokens.relevance

    def askers(self, visual: Float[Tensor, "N H"], text: Float[Tensor, "T H"]) -> Bool[Tensor, "T"] | None:
        """Which of the words after a picture ask for its tokens, chosen on their embeddings; None: only the
        last token of the prompt."""
        return None


def split(method: Reducer) -> tuple[TowerReducer | None, Reducer, LayerReducer | None]:
    """The parts of a method by place; before the language model `none` where there is nothing."""
    tower, before, inside = ([part for part in method.parts if part.place == place] for place in PLACES)
    return (
        cast(TowerReducer, tower[0]) if tower else None,
        (Chain(chain=tuple(before)) if len(before) > 1 else before[0]) if before else make("none"),
        cast(LayerReducer, inside[0]) if inside else None,
    )
