"""What a cache was filled with: the caller's prompt, and the shorter one in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from prumerge.errors import PrumergeError
from prumerge.models import family_of
from prumerge.pipeline.options import Options


@dataclass(frozen=True)
class Memory:
    """The caller's prompt of a cache, L columns long, and the S columns that the model really read."""

    full: Int[Tensor, "B L"]
    short: Int[Tensor, "B S"]
    mask: Int[Tensor, "B S"]
    positions: Int[Tensor, "*R B S"] | None = None
    """Where they have gaps, or several rows."""

    @classmethod
    def of(cls, full: Tensor, reduced: dict[str, Any], options: Options) -> Memory:
        """Of the caller's prompt, and of the shorter one that a pipeline made of it."""
        own = reduced.get("position_ids")
        needed = own is not None and (options.placing != "compact" or own.ndim == 3)
        return cls(full, reduced["input_ids"], reduced["attention_mask"], own if needed else None)

    def after(self, later: Int[Tensor, "B T"]) -> Int[Tensor, "*R B T"]:
        """The positions of what follows the prompt, by its mask."""
        assert self.positions is not None
        return self.positions.amax(-1, keepdim=True) + later.cumsum(1)

    def continued(self, ids: Tensor, inputs: dict[str, Any], config: Any, cached: int) -> dict[str, Any]:
        """A later turn: the caller's longer prompt with its beginning shortened as before; the cache holds
        `cached` columns.

        Raises PrumergeError for a prompt that does not continue the one in the cache, and for new pictures.
        """
        length = self.full.shape[1]
        if ids.shape[0] != len(self.full) or not torch.equal(ids[:, :length], self.full):
            raise PrumergeError(
                "the prompt does not continue the one in the cache; pass the earlier prompt and answer "
                "(what generate returned) followed by the new text, or start a new cache"
            )
        new, mask = ids[:, length:], inputs.get("attention_mask")
        # The model itself may have said a placeholder: its answer is in the cache, but for the last token.
        asked = new[:, cached - self.short.shape[1] + 1 :]
        placeholders = [getattr(config, f"{modality}_token_id", None) for modality in ("image", "video")]
        if any((asked == token).any() for token in placeholders if token is not None):
            raise PrumergeError(
                "a new picture cannot join a cache that is in use; start a new cache with all pictures"
            )
        new_mask = torch.ones_like(new) if mask is None else mask[:, length:]
        seen = family_of(config.model_type).inputs
        later = {name: value for name, value in inputs.items() if name not in seen}
        later["input_ids"] = torch.cat([self.short, new], dim=1)
        later["attention_mask"] = torch.cat([self.mask, new_mask], dim=1)
        if self.positions is not None:
            later["position_ids"] = torch.cat([self.positions, self.after(new_mask)], dim=-1)
        return later

    def step(self, inputs: dict[str, Any], cached: int) -> dict[str, Any]:
        """A later `forward` on the cache: a mask of the caller's full length becomes one of what was read."""
        ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if ids is not None and mask is None and self.positions is not None and self.positions.ndim == 3:
            later = ids.new_ones(len(ids), cached + ids.shape[1] - self.short.shape[1])
            inputs.setdefault("position_ids", self.after(later)[..., -ids.shape[1] :])
        removed = self.full.shape[1] - self.short.shape[1]
        if ids is None or mask is None or mask.ndim != 2 or mask.shape[1] != cached + ids.shape[1] + removed:
            return inputs
        before, after = mask.split([self.full.shape[1], mask.shape[1] - self.full.shape[1]], dim=1)
        inputs["attention_mask"] = torch.cat([self.mask, after], dim=1)
        positions = inputs.get("position_ids")
        if self.positions is not None and self.positions.ndim == 2:
            inputs["position_ids"] = self.after(after)[:, -ids.shape[1] :] if positions is None else positions
        elif positions is not None and positions.ndim == 2:
            inputs["position_ids"] = positions - (before.sum(1) - self.mask.sum(1))[:, None]
        return inputs

    def restored(self, ids: Tensor, length: int, answer: Any, cache: Any) -> Any:
        """What `generate` returned with the caller's prompt in place of the short one, `length` columns long;
        the cache remembers both."""
        whole = isinstance(answer, Tensor)
        sequences = answer if whole else answer.sequences
        prompt = ids.repeat_interleave(len(sequences) // len(ids), dim=0)
        sequences = torch.cat([prompt, sequences[:, length:]], dim=1)
        cache = cache if whole else answer.past_key_values
        if cache is not None and len(prompt) == len(self.full):
            cache._prumerge = self
        if whole:
            return sequences
        answer.sequences = sequences
        return answer
