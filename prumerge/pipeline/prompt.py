"""A processor's output, read once: whose model it is for, what it shows, and where its pictures stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from prumerge.errors import PrumergeError
from prumerge.models import Family, family_of, unwrap

Modality = Literal["image", "video"]
VIDEOS = "pixel_values_videos"
_PIXELS: dict[Modality, str] = {"image": "pixel_values", "video": VIDEOS}


@dataclass(frozen=True)
class Prompt:
    """A batch of B prompts, L columns long, as a processor made it, and what is known of it on the CPU."""

    model: PreTrainedModel
    """The Transformers model inside wrappers such as PEFT's."""

    base: Any
    """That without its head: what a family's functions take."""

    family: Family
    """How models of its type are read."""

    inputs: Mapping[str, Any]
    """The processor's output as it came."""

    modality: Modality | None
    """What raw pixels came with it; None: none, or features that are among embeddings already."""

    ids: Int[Tensor, "B L"] | None
    """Token ids, on the CPU; None where a prompt has none, only pixels."""

    mask: Bool[Tensor, "B L"] | None
    """False for padding, on the CPU; inferred as `generate` does where nobody said."""

    @classmethod
    def read(cls, model: nn.Module, inputs: Mapping[str, Any], *, infer_padding: bool = True) -> Prompt:
        """Read a processor's output; the one wait for the device until something is decided.

        `infer_padding=False` takes a prompt without `attention_mask` as `forward` does: without padding.

        Raises PrumergeError for pictures and videos at once, videos where a family takes none, a mask of
        another shape than the prompt, and something that is no processor's output at all; TypeError for
        something that is no model.
        """
        inner = unwrap(model)
        if not isinstance(inputs, Mapping):
            raise PrumergeError(
                "inputs are what a processor returns (input_ids, pixel_values, ...), not "
                f"{type(inputs).__name__}; for a picture: processor(images=..., text=..., "
                "return_tensors='pt')"
            )
        family = family_of(inner.config.model_type)
        modality = modality_of(inputs)
        if modality == "video" and VIDEOS not in family.inputs:
            raise PrumergeError(
                f"models of type {inner.config.model_type!r} take no videos; pass the frames as pictures"
            )
        ids, mask = _on_cpu(inner, inputs, infer_padding)
        return cls(inner, inner.base_model, family, inputs, modality, ids, mask)

    @cached_property
    def image(self) -> Bool[Tensor, "B L"]:
        """Where placeholders are, on the CPU; PrumergeError for a prompt without `input_ids`."""
        if self.ids is None:
            raise PrumergeError("the prompt must come as input_ids; inputs_embeds cannot be shortened")
        # The token that stands for visual tokens.
        return self.ids == getattr(self.model.config, f"{self.modality or 'image'}_token_id")

    def rows(self, sizes: Sequence[int]) -> list[int]:
        """The row of each picture, which come in the order of the prompt and have so many placeholders each.

        Raises PrumergeError where pictures and placeholders do not match.
        """
        row = self.image.nonzero()[:, 0].tolist()
        if len(row) != sum(sizes):
            self._refuse(len(row), sum(sizes), len(sizes))
        ends = list(accumulate(sizes))
        rows = [(row[end - size], row[end - 1]) for end, size in zip(ends, sizes, strict=True)]
        parted = next((first for first, last in rows if first != last), None)
        if parted is not None:
            raise PrumergeError(
                f"row {parted} of the batch has {int(self.image[parted].sum())} placeholders, which are no "
                f"whole number of its pictures; write <{self.modality or 'image'}> once for each in the row "
                "it belongs to"
            )
        return [first for first, _ in rows]

    def nothing_to_show(self) -> None:
        """Raise PrumergeError where a prompt without pictures has placeholders for some."""
        if self.ids is None or self.inputs.get("mm_encoder_outputs") is not None:
            return
        if self.inputs.get("inputs_embeds") is None and self.image.any():
            raise PrumergeError(
                f"the prompt has {int(self.image.sum())} image placeholders, but no pictures came with it; "
                "pass pixel_values, as the processor returns them"
            )

    @cached_property
    def words(self) -> Bool[Tensor, "B L"]:
        """Where words are, on the CPU: all but padding, placeholders, and tokens that begin or end a text."""
        assert self.ids is not None and self.mask is not None
        text = self.model.config.text_config
        special = [getattr(text, f"{name}_token_id", None) for name in ("bos", "eos", "pad")]
        flat = [token for each in special for token in (each if isinstance(each, list) else [each])]
        known = torch.tensor([token for token in flat if token is not None], dtype=self.ids.dtype)
        return self.mask & ~self.image & ~torch.isin(self.ids, known)

    def _refuse(self, places: int, needed: int, pictures: int) -> None:
        modality = self.modality or "image"
        what = {"image": "picture"}.get(modality, modality)
        if not places:
            raise PrumergeError(
                f"the prompt has no {modality} placeholder; write <{modality}> where the {what} belongs"
            )
        each = needed // pictures
        raise PrumergeError(
            f"the prompt has placeholders for {places / each:g} {what}s ({places} tokens, {each} each), but "
            f"{pictures} came with it; write <{modality}> once for each {what}"
        )


def modality_of(inputs: Mapping[str, Any]) -> Modality | None:
    """What raw pixels came with a prompt, or nothing.

    Raises PrumergeError for both at once, for a video without frames, and for pixels that are no tensors.
    """
    if inputs.get("inputs_embeds") is not None and inputs.get("input_ids") is not None:
        return None  # features are among the embeddings already
    given = {modality: inputs.get(name) for modality, name in _PIXELS.items()}
    for name in ("input_ids", *_PIXELS.values()):
        if inputs.get(name) is not None and not isinstance(inputs[name], Tensor):
            raise PrumergeError(
                f"{name} is a {type(inputs[name]).__name__}, not a tensor; call the processor with "
                "return_tensors='pt'"
            )
    if given["video"] is not None and 0 in given["video"].shape:
        raise PrumergeError("the video has no frames; give it at least one")
    found = [modality for modality, pixels in given.items() if pixels is not None and len(pixels)]
    if len(found) > 1:
        raise PrumergeError("pictures and videos in one batch are not supported; ask about them one by one")
    return found[0] if found else None


def _on_cpu(
    model: PreTrainedModel, inputs: Mapping[str, Any], infer_padding: bool
) -> tuple[Int[Tensor, "B L"] | None, Bool[Tensor, "B L"] | None]:
    """Ids and mask on the CPU, in one transfer."""
    ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    if ids is None:
        return None, None
    if mask is None:
        ids = ids.cpu()
        return ids, _unpadded(model, ids) if infer_padding else torch.ones_like(ids, dtype=torch.bool)
    if not isinstance(mask, Tensor) or mask.shape != ids.shape:
        raise PrumergeError(
            f"attention_mask is {tuple(getattr(mask, 'shape', ())) or type(mask).__name__}, but the prompt "
            f"is {tuple(ids.shape)}; pass the mask that the processor made"
        )
    ids, mask = torch.stack([ids, mask.to(ids)]).cpu()
    return ids, mask.bool()


def _unpadded(model: PreTrainedModel, ids: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """The mask that `generate` infers: False at padding, unless the same token also ends an answer."""
    config = model.generation_config
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if config.pad_token_id is None or config.pad_token_id in ends:
        return torch.ones_like(ids, dtype=torch.bool)
    return ids != config.pad_token_id
