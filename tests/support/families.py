"""A small random model of every supported family, and prompts with pictures or videos for it."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import transformers as hf
from builders import BOS, IMAGE, LANGUAGE, PAD, REGISTERS, SIZES, VOCABULARY, text_config, vision_config

from prumerge.models.llava_phi import LlavaPhiConfig, LlavaPhiForConditionalGeneration
from prumerge.models.mobilevlm import MobileVLMConfig, MobileVLMForConditionalGeneration
from prumerge.models.moe_llava import MoELlavaConfig, MoELlavaForConditionalGeneration
from prumerge.models.tinygpt_v import TinyGPTVConfig, TinyGPTVForConditionalGeneration

VIDEO, BREAK = 98, 97


@dataclass(frozen=True)
class Picture:
    """A picture of its own noise; `size` counts for families that take any size."""

    seed: int
    size: tuple[int, int] = (56, 56)
    modality: str = "image"

    def pixels(self, frames=1, size=(56, 56)):
        chance = torch.Generator().manual_seed(self.seed)
        return torch.randn(frames, 3, *size, generator=chance)


class Family:
    """LLaVA's layout; the others change what differs."""

    name = "llava"
    kind: Any
    """The model's class."""
    tower = "clip"
    options: dict = {}  # noqa: RUF012
    videos = False
    """Whether this layout has videos among its prompts."""
    frames = 2
    rows: tuple[tuple[int, ...], ...] = ((5, 0, 6, 7), (8, 5, 1, 6, 0, 9))  # numbers 0 and 1 are pictures

    def config(self, *given, **more):
        raise NotImplementedError

    # of a model

    @cache  # noqa: B019
    def model(self):
        torch.manual_seed(0)
        model = self.kind._from_config(self.config()).eval()
        awake(model)
        return model

    # of a prompt

    def shown(self, picture):
        """What stands for a picture in a prompt."""
        return [IMAGE] * 16

    def pixels(self, rows):
        """The encoder's inputs for the pictures of each row."""
        shown = [one.pixels() for row in rows for one in row]
        return {"pixel_values": torch.cat(shown)} if shown else {}

    def prompt(self, *rows):
        """A processor's output for rows such as [5, Picture(0), 6], padded on the left."""
        ids = [[t for x in row for t in (self.shown(x) if isinstance(x, Picture) else [x])] for row in rows]
        length = max(map(len, ids))
        margins = [length - len(row) for row in ids]
        inputs = {
            "input_ids": torch.tensor([[PAD] * m + row for m, row in zip(margins, ids, strict=True)]),
            "attention_mask": torch.tensor(
                [[0] * m + [1] * len(row) for m, row in zip(margins, ids, strict=True)]
            ),
        }
        inputs |= self.pixels([[x for x in row if isinstance(x, Picture)] for row in rows])
        return inputs | self.kinds(inputs["input_ids"])

    def kinds(self, ids):
        return {}


def awake(model):
    """Weights large enough that attention is uneven and answers are decided clearly."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            seeing = "vision" in name or "visual" in name or "tower" in name
            if seeing and weight.ndim == 2 and "embed" not in name:
                weight.normal_(std=0.25)
            elif seeing and ("patch_embed" in name or "patch_conv" in name) and weight.ndim > 2:
                weight.normal_(std=0.05)
            elif "projector" in name and weight.ndim == 2:
                weight.normal_(std=0.2)
            elif "register_tokens" in name:
                weight.normal_()


def towers(tower="clip", **more):
    return {"vision_config": vision_config(tower), "text_config": text_config(), **more}


class Llava(Family):
    kind = hf.LlavaForConditionalGeneration

    def config(self):
        return hf.LlavaConfig(**towers(image_token_index=IMAGE, image_seq_length=16))


class LlavaDinov2(Llava):
    """A tower with layer scale, whose table of positions is that of larger pictures."""

    tower = "dinov2"

    def config(self):
        vision = {"vision_config": vision_config(self.tower, 84)}
        return hf.LlavaConfig(**towers() | vision, image_token_index=IMAGE, image_seq_length=16)


class LlavaRegisters(LlavaDinov2):
    """Register tokens, which the language model reads before the patches."""

    tower = "registers"

    def shown(self, picture):
        return [IMAGE] * (REGISTERS + 16)


class VipLlava(Family):
    name = "vipllava"
    kind = hf.VipLlavaForConditionalGeneration

    def config(self):
        return hf.VipLlavaConfig(**towers(image_token_index=IMAGE, vision_feature_layers=[-2, -3, 1]))


PINPOINTS = [[56, 112], [112, 56], [112, 112]]


class Tiled(Family):
    sizes = ((60, 112), (112, 90))
    pinpoints = PINPOINTS

    def tiles(self, picture, together=False):
        from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

        return 1 if together else image_size_to_num_patches(picture.size, self.pinpoints, 56)

    def placeholders(self, picture):
        """Counted by hand: the whole picture, and rows of the unpadded tiles with a newline each."""
        from transformers.models.llava_next.modeling_llava_next import select_best_resolution

        high, wide = select_best_resolution(picture.size, self.pinpoints)
        rows, columns = high // 14, wide // 14
        height, width = picture.size
        if width / height > columns / rows:
            rows -= (rows - int(round(height * columns / width, 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * rows / height, 7))) // 2 * 2
        return 16 + rows * (columns + 1)

    def shown(self, picture):
        return [IMAGE] * self.placeholders(picture)

    def pixels(self, rows):
        shown = [one for row in rows for one in row]
        counts = [self.tiles(one) for one in shown]
        tiles = torch.zeros(len(shown), max(counts), 3, 56, 56)
        for number, (one, count) in enumerate(zip(shown, counts, strict=True)):
            tiles[number, :count] = one.pixels(count)
        return {"pixel_values": tiles, "image_sizes": torch.tensor([one.size for one in shown])}


class LlavaNext(Tiled):
    name = "llava_next"
    kind = hf.LlavaNextForConditionalGeneration

    def config(self):
        return hf.LlavaNextConfig(**towers(image_token_index=IMAGE, image_grid_pinpoints=self.pinpoints))


class LlavaNextVideo(LlavaNext):
    name = "llava_next_video"
    kind = hf.LlavaNextVideoForConditionalGeneration
    videos = True

    def config(self):
        return hf.LlavaNextVideoConfig(
            **towers(image_token_index=IMAGE, video_token_index=VIDEO, image_grid_pinpoints=self.pinpoints)
        )

    def shown(self, picture):
        return [VIDEO] * 4 * self.frames if picture.modality == "video" else super().shown(picture)

    def pixels(self, rows):
        return clips(self, rows) or super().pixels(rows)


def clips(family, rows):
    """Videos of noise, if that is what is shown."""
    shown = [one for row in rows for one in row]
    if not shown or shown[0].modality != "video":
        return None
    return {"pixel_values_videos": torch.stack([one.pixels(family.frames) for one in shown])}


class LlavaOnevision(Tiled):
    name = "llava_onevision"
    kind = hf.LlavaOnevisionForConditionalGeneration
    videos = True
    aspect = "anyres_max_9"

    def config(self):
        more = {
            "image_token_index": IMAGE,
            "video_token_index": VIDEO,
            "image_grid_pinpoints": self.pinpoints,
        }
        return hf.LlavaOnevisionConfig(**towers("siglip", vision_aspect_ratio=self.aspect, **more))

    def shown(self, picture):
        return [VIDEO] * (4 * self.frames + 1) if picture.modality == "video" else super().shown(picture)

    def pixels(self, rows):
        return clips(self, rows) or super().pixels(rows)


class OnevisionShrunk(LlavaOnevision):
    """Pictures of more than one tile are shrunk."""

    videos = False
    aspect = "anyres_max_1"
    sizes = ((56, 112), (112, 112))

    def placeholders(self, picture):
        rows, columns = (side // 14 for side in picture.size)
        ratio = (rows * columns / 16) ** 0.5
        if ratio > 1.1:
            rows, columns = int(rows // ratio), int(columns // ratio)
        return 16 + rows * (columns + 1)


class OnevisionTogether(LlavaOnevision):
    """Several pictures in one prompt: none is tiled."""

    videos = False

    def shown(self, picture):
        return [IMAGE] * 17

    def pixels(self, rows):
        shown = [one for row in rows for one in row]
        return {
            "pixel_values": torch.stack([one.pixels() for one in shown]),
            "image_sizes": torch.tensor([one.size for one in shown]),
            "batch_num_images": torch.tensor([len(row) for row in rows]),
        }

    rows = ((5, 0, 6, 1, 7), (8, 5, 1, 6, 0, 9))


class VideoLlava(Family):
    name = "video_llava"
    kind = hf.VideoLlavaForConditionalGeneration
    videos = True

    def config(self):
        return hf.VideoLlavaConfig(**towers(image_token_index=IMAGE, video_token_index=VIDEO))

    def shown(self, picture):
        return [VIDEO] * 17 * self.frames if picture.modality == "video" else [IMAGE] * 16

    def pixels(self, rows):
        return clips(self, rows) or super().pixels(rows)


class InternVL(Family):
    name = "internvl"
    kind = hf.InternVLForConditionalGeneration

    def config(self):
        vision = hf.InternVLVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=[112, 112],
            patch_size=[14, 14],
            use_qk_norm=True,
            layer_scale_init_value=1.0,
        )
        return hf.InternVLConfig(
            vision_config=vision, text_config=text_config(), image_token_id=IMAGE, image_seq_length=16
        )

    def shown(self, picture):
        return [IMAGE] * 16

    def pixels(self, rows):
        return {"pixel_values": torch.cat([one.pixels(size=(112, 112)) for row in rows for one in row])}


def idefics_vision(kind):
    return kind(**SIZES | {"num_hidden_layers": 3}, image_size=112, patch_size=14)


class Idefics3(Family):
    name = "idefics3"
    kind = hf.Idefics3ForConditionalGeneration

    def config(self):
        return hf.Idefics3Config(
            vision_config=idefics_vision(hf.Idefics3VisionConfig),
            text_config=text_config(),
            image_token_id=IMAGE,
            scale_factor=2,
        )

    def shown(self, picture):
        return [3, *[IMAGE] * 16, 4, *[IMAGE] * 16, 4]  # two tiles with words between them

    def pixels(self, rows):
        most = max(map(len, rows))
        tiles = torch.zeros(len(rows), 2 * most, 3, 112, 112)
        for number, row in enumerate(rows):
            for place, one in enumerate(row):
                tiles[number, 2 * place : 2 * place + 2] = one.pixels(2, (112, 112))
        return {"pixel_values": tiles}


class SmolVLM(Idefics3):
    name = "smolvlm"
    kind = hf.SmolVLMForConditionalGeneration

    def config(self):
        return hf.SmolVLMConfig(
            vision_config=idefics_vision(hf.SmolVLMVisionConfig),
            text_config=text_config(),
            image_token_id=IMAGE,
            scale_factor=2,
        )


class Idefics2(Idefics3):
    name = "idefics2"
    kind = hf.Idefics2ForConditionalGeneration

    def config(self):
        return hf.Idefics2Config(
            vision_config=idefics_vision(hf.Idefics2VisionConfig),
            text_config=text_config(),
            perceiver_config=hf.models.idefics2.configuration_idefics2.Idefics2PerceiverConfig(
                hidden_size=32,
                resampler_n_latents=8,
                resampler_depth=2,
                resampler_n_heads=4,
                resampler_head_dim=8,
                num_key_value_heads=2,
            ),
            image_token_id=IMAGE,
        )

    @cache  # noqa: B019
    def model(self):
        model = super().model()
        torch.manual_seed(2)
        with torch.no_grad():
            model.model.connector.perceiver_resampler.latents.normal_()
        return model

    def shown(self, picture):
        return [3, *[IMAGE] * 8, 4, *[IMAGE] * 8, 4]


def gemma_text(kind, **more):
    return kind(**LANGUAGE, num_key_value_heads=2, head_dim=8, **more)


class Gemma3(Family):
    name = "gemma3"
    kind = hf.Gemma3ForConditionalGeneration

    def config(self):
        text = gemma_text(
            hf.Gemma3TextConfig,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
            query_pre_attn_scalar=8,
        )
        return hf.Gemma3Config(
            vision_config=vision_config("siglip", 112),
            text_config=text,
            mm_tokens_per_image=16,
            image_token_index=IMAGE,
            boi_token_index=3,
            eoi_token_index=4,
        )

    def shown(self, picture):
        return [3, *[IMAGE] * 16, 4]

    def pixels(self, rows):
        return {"pixel_values": torch.cat([one.pixels(size=(112, 112)) for row in rows for one in row])}

    def kinds(self, ids):
        return {"token_type_ids": (ids == IMAGE).long()}


class PaliGemma(Family):
    name = "paligemma"
    kind = hf.PaliGemmaForConditionalGeneration

    def config(self):
        vision = vision_config("siglip")
        vision.projection_dim = 32
        return hf.PaliGemmaConfig(
            vision_config=vision,
            text_config=gemma_text(hf.GemmaConfig),
            image_token_index=IMAGE,
            projection_dim=32,
        )

    rows = ((0, 5, 6, 7), (1, 0, 5, 6, 8, 9))

    def kinds(self, ids):
        return {"token_type_ids": torch.zeros_like(ids)}


class Mistral3(Family):
    name = "mistral3"
    kind = hf.Mistral3ForConditionalGeneration
    sizes = ((112, 140), (140, 84))

    def config(self):
        vision = hf.PixtralVisionConfig(**SIZES | {"num_hidden_layers": 3}, image_size=140, patch_size=14)
        return hf.Mistral3Config(
            vision_config=vision, text_config=text_config(), image_token_index=IMAGE, spatial_merge_size=2
        )

    def shown(self, picture):
        rows, columns = (side // 28 for side in picture.size)
        return [*([*[IMAGE] * columns, BREAK] * rows)[:-1], 96]

    def pixels(self, rows):
        shown = [one for row in rows for one in row]
        pixels = torch.zeros(len(shown), 3, 140, 140)
        for number, one in enumerate(shown):
            pixels[number, :, : one.size[0], : one.size[1]] = one.pixels(size=one.size)[0]
        return {"pixel_values": pixels, "image_sizes": torch.tensor([one.size for one in shown])}


class Qwen2VL(Family):
    name = "qwen2_vl"
    kind = hf.Qwen2VLForConditionalGeneration
    videos = True
    sizes = ((112, 140), (140, 84))
    frames = 4
    rows = ((5, 96, 0, 95, 7), (8, 5, 96, 1, 95, 6, 96, 0, 95, 9))

    def text(self, kind, **more):
        return kind(
            **LANGUAGE | {"num_hidden_layers": 3},
            num_key_value_heads=2,
            rope_parameters={"rope_type": "default", "rope_theta": 100.0, "mrope_section": [2, 1, 1]},
            **more,
        )

    ids = {  # noqa: RUF012
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "vision_start_token_id": 96,
        "vision_end_token_id": 95,
    }

    def config(self):
        vision = hf.models.qwen2_vl.configuration_qwen2_vl.Qwen2VLVisionConfig(
            depth=3, embed_dim=32, hidden_size=32, mlp_ratio=2, num_heads=4, patch_size=14
        )
        return hf.Qwen2VLConfig(
            vision_config=vision.to_dict(), text_config=self.text(hf.Qwen2VLTextConfig).to_dict(), **self.ids
        )

    def grid(self, picture):
        frames = self.frames // 2 if picture.modality == "video" else 1
        return frames, picture.size[0] // 14, picture.size[1] // 14

    def shown(self, picture):
        frames, rows, columns = self.grid(picture)
        return [VIDEO if picture.modality == "video" else IMAGE] * (frames * rows * columns // 4)

    def pixels(self, rows):
        shown = [one for row in rows for one in row]
        grids = torch.tensor([self.grid(one) for one in shown])
        patches = [
            torch.randn(int(grid.prod()), 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(one.seed))
            for one, grid in zip(shown, grids, strict=True)
        ]
        if shown[0].modality == "video":
            return {"pixel_values_videos": torch.cat(patches), "video_grid_thw": grids}
        return {"pixel_values": torch.cat(patches), "image_grid_thw": grids}

    def kinds(self, ids):
        return {"mm_token_type_ids": (ids == IMAGE).int() + 2 * (ids == VIDEO).int()}


class Qwen25VL(Qwen2VL):
    name = "qwen2_5_vl"
    kind = hf.Qwen2_5_VLForConditionalGeneration

    def config(self):
        vision = hf.models.qwen2_5_vl.configuration_qwen2_5_vl.Qwen2_5_VLVisionConfig(
            depth=3,
            hidden_size=32,
            intermediate_size=64,
            num_heads=4,
            patch_size=14,
            window_size=56,
            out_hidden_size=32,
            fullatt_block_indexes=[2],
        )
        return hf.Qwen2_5_VLConfig(
            vision_config=vision.to_dict(),
            text_config=self.text(hf.Qwen2_5_VLTextConfig).to_dict(),
            **self.ids,
        )


class Qwen3VL(Qwen2VL):
    name = "qwen3_vl"
    kind = hf.Qwen3VLForConditionalGeneration

    def config(self):
        vision = hf.models.qwen3_vl.configuration_qwen3_vl.Qwen3VLVisionConfig(
            depth=3,
            hidden_size=32,
            intermediate_size=64,
            num_heads=4,
            patch_size=14,
            out_hidden_size=32,
            num_position_embeddings=16,
            deepstack_visual_indexes=[0, 1],
        )
        text = self.text(hf.Qwen3VLTextConfig, head_dim=8)
        return hf.Qwen3VLConfig(vision_config=vision.to_dict(), text_config=text.to_dict(), **self.ids)

    def shown(self, picture):
        if picture.modality != "video":
            return super().shown(picture)
        frames, rows, columns = self.grid(picture)
        return [x for n in range(frames) for x in (10 + n, 96, *[VIDEO] * (rows * columns // 4), 95)]


class Blip2(Family):
    name = "blip_2"
    kind = hf.Blip2ForConditionalGeneration

    def parts(self, vision, qformer):
        sizes = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        text = hf.OPTConfig(
            hidden_size=32,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            vocab_size=VOCABULARY,
            max_position_embeddings=256,
            word_embed_proj_dim=32,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=None,
            init_std=0.3,
            dropout=0.0,
        )
        return {
            "vision_config": vision(
                hidden_size=32, image_size=56, patch_size=14, initializer_range=0.1, **sizes
            ),
            "qformer_config": qformer(
                hidden_size=32, encoder_hidden_size=32, vocab_size=VOCABULARY, initializer_range=0.3, **sizes
            ),
            "text_config": text,
            "num_query_tokens": 8,
            "image_token_index": IMAGE,
        }

    def config(self):
        return hf.Blip2Config(**self.parts(hf.Blip2VisionConfig, hf.Blip2QFormerConfig))

    @cache  # noqa: B019
    def model(self):
        model = super().model()
        torch.manual_seed(2)
        with torch.no_grad():
            model.query_tokens.normal_()
        return model

    def shown(self, picture):
        return [IMAGE] * 8


class InstructBlip(Blip2):
    name = "instructblip"
    kind = hf.InstructBlipForConditionalGeneration
    rows = ((5, 0, 6, 7), (8, 5, 1, 6, 9))

    def config(self):
        return hf.InstructBlipConfig(**self.parts(hf.InstructBlipVisionConfig, hf.InstructBlipQFormerConfig))

    def pixels(self, rows):
        shown = [one for row in rows for one in row]
        return {
            **super().pixels(rows),
            "qformer_input_ids": torch.tensor([[2, 3 + one.seed % 3, 4] for one in shown]),
            "qformer_attention_mask": torch.ones(len(shown), 3, dtype=torch.long),
        }


class LlavaPhi(Family):
    name = "llava_phi"
    kind = LlavaPhiForConditionalGeneration

    def config(self):
        parts = {"vision_config": vision_config(), "text_config": phi()}
        return LlavaPhiConfig(**parts, image_token_index=IMAGE, image_seq_length=16)


def phi(**more):
    return hf.PhiConfig(**LANGUAGE, **more)


class MobileVLM(Family):
    """LDPv2, which has the whole layout; the first LDP derives from it."""

    name = "mobilevlm"
    kind = MobileVLMForConditionalGeneration
    projector = "ldpnetv2"

    def config(self):
        parts = {"vision_config": vision_config("clip", 112), "text_config": text_config()}
        return MobileVLMConfig(**parts, image_token_index=IMAGE, projector=self.projector)

    def pixels(self, rows):
        return {"pixel_values": torch.cat([one.pixels(size=(112, 112)) for row in rows for one in row])}


class MobileVLM1(MobileVLM):
    projector = "ldpnet"


class MoELlava(Family):
    """Experts in the first layer only."""

    name = "moe_llava"
    kind = MoELlavaForConditionalGeneration

    def config(self):
        return MoELlavaConfig(**towers(image_token_index=IMAGE), experts={"0": 4})


class TinyGPTV(Blip2):
    name = "tinygpt_v"
    kind = TinyGPTVForConditionalGeneration

    def config(self):
        parts = self.parts(hf.Blip2VisionConfig, hf.Blip2QFormerConfig)
        return TinyGPTVConfig(**{**parts, "text_config": phi(qk_layernorm=True)}, projector_size=64)


FAMILIES = {
    kind.__name__: kind()
    for kind in (
        Llava, LlavaDinov2, LlavaRegisters, VipLlava, LlavaNext, LlavaNextVideo, LlavaOnevision,
        OnevisionShrunk, OnevisionTogether, VideoLlava, Qwen2VL, Qwen25VL, Qwen3VL, InternVL, Idefics3,
        SmolVLM, Gemma3, PaliGemma, Mistral3, Blip2, InstructBlip, Idefics2, LlavaPhi, MobileVLM,
        MobileVLM1, MoELlava, TinyGPTV,
    )
}  # fmt: skip


def rows_of(family, modality="image", seed=0):
    """The rows of numbers as rows with pictures; in each, picture 0 and picture 1 differ in size."""
    sizes = getattr(family, "sizes", ((56, 56), (56, 56)))
    rows = family.rows
    if modality == "video":
        sizes = ((56, 84), (56, 84)) if issubclass(type(family), Qwen2VL) else sizes
    return [
        [Picture(seed + 10 * at + x, sizes[x], modality) if x in (0, 1) else x for x in row]
        for at, row in enumerate(rows)
    ]
