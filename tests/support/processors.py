"""A processor of every family, with its own kind of pictures and prompts, for small random models."""

from importlib import import_module

import transformers as hf
from builders import IMAGE, REGISTERS, SIDE, VOCABULARY
from families import PINPOINTS, VIDEO
from tokenizers import Tokenizer, models, pre_tokenizers

from prumerge.loading.processors import NoVideos, pictures_only

LLAVA = {
    "patch_size": 14,
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
}
# A chat template that writes `PLACE` for a picture.
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %} PLACE {% else %} {{ part['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}"
)


def tokenizer(named=None, **special):
    """Words w0, w1, ... that are their own ids, but those that are `named`."""
    named = {IMAGE: "<image>", VIDEO: "<video>", **(named or {})}
    vocabulary = {named.get(token, f"w{token}"): token for token in range(VOCABULARY)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="w0",
        unk_token="w0",
        bos_token="w1",
        eos_token="w2",
        extra_special_tokens=special,
    )


def images(family, **options):
    """A family's processor of pictures that needs Pillow only."""
    module = import_module(f"transformers.models.{family}.image_processing_pil_{family}")
    (kind,) = (name for name in module.__all__ if name.endswith("Pil"))
    return getattr(module, kind)(**options)


def square(family, side=SIDE, **options):
    return images(family, size={"height": side, "width": side}, **options)


def cropped(family, side=SIDE, **options):
    crop = {"height": side, "width": side}
    return images(family, size={"shortest_edge": side}, crop_size=crop, **options)


def qwen(kind):
    named = {IMAGE: "<|image_pad|>", VIDEO: "<|video_pad|>", 96: "<|vision_start|>", 95: "<|vision_end|>"}
    return pictures_only(kind)(
        images("qwen2_vl", patch_size=14, min_pixels=56 * 56, max_pixels=112 * 112),
        tokenizer(named, image_token="<|image_pad|>", video_token="<|video_pad|>"),
        NoVideos(),
        chat_template=TEMPLATE.replace("PLACE", "<|vision_start|> <|image_pad|> <|vision_end|>"),
    )


def internvl():
    special = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<image>",
        "video_token": "<video>",
    }
    pixels = square("got_ocr2", 112)
    words = tokenizer({96: "<img>", 95: "</img>"}, **special)
    return pictures_only(hf.InternVLProcessor)(pixels, words, NoVideos(), image_seq_length=16)


def idefics(kind, family, length, **options):
    named = {3: "<fake_token_around_image>", 4: "<global-img>", 6: "<end_of_utterance>"}
    return kind(images(family, **options), tokenizer(named), image_seq_len=length)


def gemma():
    words = tokenizer({3: "<boi>", 4: "<eoi>"}, image_token="<image>", boi_token="<boi>", eoi_token="<eoi>")
    template = TEMPLATE.replace("PLACE", "<boi>")
    return hf.Gemma3Processor(square("gemma3", 112), words, image_seq_length=16, chat_template=template)


def llava(side=SIDE, pixels="clip", **options):
    return hf.LlavaProcessor(cropped(pixels, side), tokenizer(image_token="<image>"), **{**LLAVA, **options})


def tiled(kind, *videos):
    pixels = cropped("llava_next", image_grid_pinpoints=PINPOINTS)
    words = tokenizer(image_token="<image>", video_token="<video>")
    return kind(*videos, pixels, words, **LLAVA)


def onevision():
    pixels = square("llava_onevision", image_grid_pinpoints=PINPOINTS)
    words = tokenizer(image_token="<image>", video_token="<video>")
    more = {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}
    return pictures_only(hf.LlavaOnevisionProcessor)(pixels, words, NoVideos(), **more)


def video_llava():
    words = tokenizer(image_token="<image>", video_token="<video>")
    return pictures_only(hf.VideoLlavaProcessor)(cropped("clip"), NoVideos(), words, **LLAVA)


def blip(kind, *more):
    return kind(square("blip"), tokenizer(), *more, num_query_tokens=8)


def paligemma():
    return hf.PaliGemmaProcessor(square("siglip", image_seq_length=16), tokenizer(image_token="<image>"))


IDEFICS_2 = {"size": {"shortest_edge": 56, "longest_edge": 112}, "do_image_splitting": False}
IDEFICS_3 = {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 112}}
PROCESSORS = {
    "Llava": llava,
    "LlavaDinov2": lambda: llava(pixels="bit"),
    "LlavaRegisters": lambda: llava(pixels="bit", num_additional_image_tokens=1 + REGISTERS),
    "VipLlava": llava,
    "LlavaNext": lambda: tiled(hf.LlavaNextProcessor),
    "LlavaNextVideo": lambda: tiled(pictures_only(hf.LlavaNextVideoProcessor), NoVideos()),
    "LlavaOnevision": onevision,
    "VideoLlava": video_llava,
    "Qwen2VL": lambda: qwen(hf.Qwen2VLProcessor),
    "Qwen25VL": lambda: qwen(hf.Qwen2_5_VLProcessor),
    "Qwen3VL": lambda: qwen(hf.Qwen3VLProcessor),
    "InternVL": internvl,
    "Idefics2": lambda: idefics(hf.Idefics2Processor, "idefics2", 8, **IDEFICS_2),
    "Idefics3": lambda: idefics(hf.Idefics3Processor, "idefics3", 16, **IDEFICS_3),
    "Gemma3": gemma,
    "PaliGemma": paligemma,
    "Blip2": lambda: blip(hf.Blip2Processor),
    "InstructBlip": lambda: blip(hf.InstructBlipProcessor, tokenizer()),
    "LlavaPhi": llava,
    "MobileVLM": lambda: llava(112, patch_size=28),
    "MoELlava": llava,
    "TinyGPTV": lambda: blip(hf.Blip2Processor),
}
