"""MobileVLM: CLIP, a projector that makes one token of 2 x 2 patches (LDP, LDPv2), and MobileLLaMA.

Its projectors (arXiv 2312.16886, 2402.03766) are written from the papers and from the names in published
checkpoints. Both begin with LLaVA's MLP. The first (LDP) goes on with two depthwise separable convolutions,
one of stride 2; the second (LDPv2) averages 2 x 2 tokens and adds a depthwise convolution for their places.
24 x 24 patches become 12 x 12.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, no_type_check

from huggingface_hub.dataclasses import strict
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaConfig, LlavaForConditionalGeneration

from prumerge.errors import PrumergeError
from prumerge.models._delivery import as_they_are
from prumerge.models._family import Family
from prumerge.models._pictures import blocks, pictures, side
from prumerge.models._towers import LLAVA_INPUTS, run_tower
from prumerge.tokens import VisualTokens


@no_type_check  # its fields are checked by `strict`
@strict
class MobileVLMConfig(LlavaConfig):
    """LLaVA's, and which projector."""

    model_type = "mobilevlm"

    projector: Literal["ldpnet", "ldpnetv2"] = "ldpnetv2"


class DepthwiseSeparable(nn.Module):
    """A block of MobileNetV3 that does not widen: depthwise, squeeze and excite, pointwise; layer norms."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        squeezed = _multiple_of_eight(width // 4)
        self.residual = stride == 1
        self.depthwise = nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False)
        self.depthwise_norm = nn.LayerNorm(width)
        self.squeeze = nn.Conv2d(width, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, width, 1)
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.pointwise_norm = nn.LayerNorm(width)

    def forward(self, grid: Float[Tensor, "B H R C"]) -> Float[Tensor, "B H R2 C2"]:
        """Channels H first, as convolutions take them."""
        found = F.hardswish(_normed(self.depthwise_norm, self.depthwise(grid)))
        found = found * F.hardsigmoid(self.excite(F.relu(self.squeeze(found.mean((2, 3), keepdim=True)))))
        found = _normed(self.pointwise_norm, self.pointwise(found))
        return grid + found if self.residual else found


class LDPProjector(nn.Module):
    """Patches [B, N, C] of a square picture to N / 4 embeddings [B, N / 4, H]."""

    def __init__(self, config: MobileVLMConfig) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.vision_config.hidden_size, width)
        self.linear_2 = nn.Linear(width, width)
        self.first = config.projector == "ldpnet"
        if self.first:
            self.blocks = nn.Sequential(DepthwiseSeparable(width, 1), DepthwiseSeparable(width, 2))
        else:
            self.position = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, patches: Float[Tensor, "B N C"]) -> Float[Tensor, "B M H"]:
        found = self.linear_2(F.gelu(self.linear_1(patches)))
        side = int(found.shape[1] ** 0.5)
        grid = found.transpose(1, 2).unflatten(2, (side, side))
        if self.first:
            grid = self.blocks(grid)
        else:
            grid = F.avg_pool2d(grid, 2)
            grid = grid + self.position(grid)
        return grid.flatten(2).transpose(1, 2)


class MobileVLMForConditionalGeneration(LlavaForConditionalGeneration):
    """LLaVA with this projector."""

    config_class = MobileVLMConfig

    def __init__(self, config: MobileVLMConfig) -> None:
        super().__init__(config)
        vision = config.vision_config
        if vision.image_size // vision.patch_size % 2:
            raise PrumergeError(
                "MobileVLM makes one token of 2 x 2 patches: a picture needs an even number a side"
            )
        self.model.multi_modal_projector = LDPProjector(config)
        self.post_init()


def _normed(norm: nn.LayerNorm, grid: Tensor) -> Tensor:
    """A layer norm over channels that come first."""
    return norm(grid.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _multiple_of_eight(width: int) -> int:
    """The nearest, and not under nine tenths (as MobileNets round channels)."""
    nearest = max(8, (width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """What the projector makes of each picture; a token has the mean of the keys of its 2 x 2 patches."""
    encoded = run_tower(base.vision_tower, base.config, inputs, inputs["pixel_values"])
    projected = base.multi_modal_projector(encoded.features[:, encoded.first :])
    length = side(base.config)
    pool = partial(blocks, columns=length, size=2)
    return pictures(encoded, length // 2, length // 2, behind=projected, pool=pool)


FAMILY = Family(
    takes="pictures",
    attention="class token",
    reduced="behind the projector",
    inputs=("pixel_values", *LLAVA_INPUTS),
    encode=encode,
    project=as_they_are,
)
