"""How a prompt is shortened, whichever method decides: one value that every entrance takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

from torch import Tensor

from prumerge.errors import PrumergeError
from prumerge.tokens import VisualTokens

Positions = Literal["auto", "compact", "original", "median"]
Separators = Literal["keep", "drop", "remake"]
Relevance: TypeAlias = Callable[[Sequence[VisualTokens]], Sequence[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a prompt is shortened; `reduce`, `attach`, `answer` and `evaluate` take its fields by name.

    Raises PrumergeError for a word that is none of a field's.
    """

    positions: Positions = "auto"
    """Position ids of what is left: counted anew without gaps (compact), those of the places that tokens
    stand for (original), or for merged tokens that of the median of their sources (median). `auto` is
    compact, and original where attention is told sizes: see `placing`."""

    separators: Separators = "keep"
    """What becomes of newlines between the rows of a large picture, and of class tokens between frames: all
    stay (keep), none (drop), or those of rows and frames of which a token stays (remake)."""

    clip: bool = False
    """Whether the pictures of a prompt are the frames of one clip, which methods see together."""

    size_bias: bool = False
    """Whether the language model attends to a token in proportion to the patches it stands for
    (`VisualTokens.assigned`; proportional attention, section 3 of ToMe, https://arxiv.org/abs/2210.09461)."""

    relevance: Relevance | None = None
    """How well each patch of a prompt's pictures matches the text, [N] each, 0 to 1, such as
    `prumerge.clip_relevance(...)`; None: by the language model's embeddings of the words."""

    def __post_init__(self) -> None:
        for name, words in (("positions", get_args(Positions)), ("separators", get_args(Separators))):
            if getattr(self, name) not in words:
                raise PrumergeError(f"{name} are {', '.join(words)}, not {getattr(self, name)!r}")
        if self.relevance is not None and not callable(self.relevance):
            raise PrumergeError(
                "relevance is a function of a prompt's pictures, such as prumerge.clip_relevance(...), not "
                f"{self.relevance!r}"
            )

    @cached_property
    def placing(self) -> Literal["compact", "original", "median"]:
        """`positions`, with `auto` decided.

        Without gaps, few tokens stand nearer to the question than all did, and rotary attention favours what
        is near: that makes up for their number. Told their sizes as well, they would be attended to twice as
        much as they should (docs/results.md, sizes and positions).
        """
        if self.positions == "auto":
            return "original" if self.size_bias else "compact"
        return self.positions

    def but(self, **changes: Any) -> Options:
        """The same with other values; TypeError for a name that is none of its fields."""
        known = [each.name for each in fields(self)]
        for name in changes:
            if name not in known:
                raise TypeError(f"there is no option {name!r}; there are: {', '.join(known)}")
        return replace(self, **changes) if changes else self

    def changed(self) -> dict[str, Any]:
        """The fields that are not as they are by default."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {each.name: given[each.name] for each in fields(self) if given[each.name] != each.default}


DEFAULT = Options()
