"""LLaVA 1.5 inside vLLM, with as many tokens of each picture as a method keeps of it.

vLLM counts the tokens of a picture before its engine sees it, so the picture is encoded and reduced where
vLLM prepares it, in the process of its API server, and the engine is handed what is left. The method is
`reducer` of `mm_processor_kwargs`, of the server (--mm-processor-kwargs) or of one request; with that it is
part of the key under which vLLM remembers a picture.

Imported by vLLM alone (`prumerge.serve.plugin`), whose Transformers may be older than prumerge asks for: only
what reads a LLaVA's tower is imported here, not what looks for its family.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModel, BatchFeature, LlavaConfig, PixtralVisionConfig
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector
from vllm.model_executor.models.llava import (
    LlavaDummyInputsBuilder,
    LlavaForConditionalGeneration,
    LlavaMultiModalProcessor,
    LlavaProcessingInfo,
    _build_llava_or_pixtral_hf_info,
    _build_llava_or_pixtral_hf_processor,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import InputProcessingContext, PromptReplacement, PromptUpdate

from prumerge.errors import PrumergeError
from prumerge.models.llava import encode, project
from prumerge.pipeline.decide import decide
from prumerge.reducer import Reducer
from prumerge.spec import make

OWN = ("reducer", "reducer_device")
"""What `mm_processor_kwargs` say to this file, and to nobody else."""


class Eyes(nn.Module):
    """What encodes pictures of a LLaVA: its vision tower and projector, without the language model."""

    def __init__(self, config: LlavaConfig, folder: Path, dtype: torch.dtype, device: str) -> None:
        super().__init__()
        self.config = config
        self.vision_tower = AutoModel.from_config(config.vision_config, dtype=dtype)
        self.multi_modal_projector = LlavaMultiModalProjector(config).to(dtype)
        for name, part in self.named_children():
            part.load_state_dict(_weights(folder, name, set(part.state_dict())))
        self.eval().requires_grad_(False).to(device)
        self._one = threading.Lock()

    def reduced(self, pixels: Float[Tensor, "B 3 H W"], method: Reducer) -> list[Float[Tensor, "_ H"]]:
        """What is left of each picture, as the language model reads it, on the CPU."""
        with self._one, torch.no_grad():
            decisions = decide(method, encode(self, {"pixel_values": pixels}))
            return [one.cpu() for one in project(self, [one.features() for one in decisions])]


def _weights(folder: Path, part: str, names: set[str]) -> dict[str, Tensor]:
    """The weights of one part of a checkpoint, whichever of its names they have there."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as held:
            for name in held.keys():  # noqa: SIM118
                _, is_of, own = name.partition(f"{part}.")
                own = own if own in names else own.removeprefix("vision_model.")
                if is_of and own in names:
                    found[own] = held.get_tensor(name)
    return found


@cache
def _eyes(model: str, revision: str | None, dtype: torch.dtype, device: str) -> Eyes:
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        wanted = ["*.safetensors", "config.json"]
        folder = Path(snapshot_download(model, revision=revision, allow_patterns=wanted))
    return Eyes(LlavaConfig.from_pretrained(folder), folder, dtype, device)


class _Context(InputProcessingContext):
    """What Hugging Face's processor is told: nothing of what is said to this file."""

    def get_merged_mm_kwargs(self, kwargs: Mapping[str, object], **more: Any) -> dict[str, Any]:
        merged = super().get_merged_mm_kwargs(kwargs, **more)
        return {name: value for name, value in merged.items() if name not in OWN}


class ReducedLlavaInfo(LlavaProcessingInfo):
    """How a picture is prepared."""

    def __init__(self, ctx: InputProcessingContext) -> None:
        super().__init__(_Context(ctx.model_config, ctx.tokenizer))

    def method(self, kwargs: Mapping[str, object]) -> tuple[Reducer, Eyes] | None:
        """The method that a request or the server names, and what encodes pictures for it. Raises
        PrumergeError for a method that there is none of, or that works inside the model."""
        config = self.ctx.model_config
        said = config.get_multimodal_config().merge_mm_processor_kwargs(kwargs)
        spec = said.get("reducer")
        if spec is None:
            return None
        method = make(str(spec))
        placed = method.placed
        if placed.tower is not None or placed.layers is not None or "text" in method.needs:
            raise PrumergeError(f"{method} does not only look at a picture; name a method that does")
        device = str(said.get("reducer_device", "cpu"))
        return method, _eyes(config.model, config.revision, config.dtype, device)


class ReducedLlavaProcessor(LlavaMultiModalProcessor):
    """Pictures in, what is left of them out."""

    def _postprocess_hf_mm_data(
        self,
        mm_inputs: Mapping[str, object],
        hf_processor_mm_kwargs: Mapping[str, object],
        processed_data: BatchFeature,
    ) -> BatchFeature:
        data = super()._postprocess_hf_mm_data(mm_inputs, hf_processor_mm_kwargs, processed_data)
        found = self.info.method(hf_processor_mm_kwargs)
        if found is not None and "pixel_values" in data:
            method, eyes = found
            data["image_embeds"] = eyes.reduced(torch.as_tensor(data.pop("pixel_values")), method)
        return data

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[PromptUpdate]:
        """So many placeholders as there are tokens, where they are known; else as vLLM counts them."""
        stock = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)
        items = out_mm_kwargs.get("image", [])
        if not any(item is not None and "image_embeds" in item for item in items):
            return stock
        token = self.info.get_hf_config().image_token_index

        def placeholders(number: int) -> list[int]:
            return [token] * len(items[number]["image_embeds"].data)

        return [PromptReplacement(modality="image", target=[token], replacement=placeholders)]


def _info(ctx: InputProcessingContext) -> Any:
    if isinstance(ctx.get_hf_config(LlavaConfig).vision_config, PixtralVisionConfig):
        return _build_llava_or_pixtral_hf_info(ctx)
    return ReducedLlavaInfo(ctx)


def _processor(info: Any, dummy_inputs: Any, **more: Any) -> Any:
    if isinstance(info, ReducedLlavaInfo):
        return ReducedLlavaProcessor(info, dummy_inputs, **more)
    return _build_llava_or_pixtral_hf_processor(info, dummy_inputs, **more)


@MULTIMODAL_REGISTRY.register_processor(_processor, info=_info, dummy_inputs=LlavaDummyInputsBuilder)
class ReducedLlava(LlavaForConditionalGeneration):
    """vLLM's LLaVA, which takes pictures of different counts in one step."""

    def embed_multimodal(self, **kwargs: object) -> Any:
        found = kwargs.get("image_embeds")
        if found is None or kwargs.get("pixel_values") is not None:
            return super().embed_multimodal(**kwargs)
        like = next(self.multi_modal_projector.parameters())
        return [one.to(like) for one in found]  # type: ignore[attr-defined]
