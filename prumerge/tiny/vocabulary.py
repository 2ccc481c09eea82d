"""The tokenizer and the processor: a closed vocabulary of words, single characters for the rest."""

import re
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

from prumerge.tiny import hard, questions, scenes

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
WORDS = (Path(__file__).parent / "words.txt").read_text().split()  # besides the names of what is drawn
HARD_WORDS = ["row", "column", "nearer", *hard.WORDS]  # of the model for hard scenes, behind all others
CHARACTERS = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
PROMPT = "USER: <image>\n{question} ASSISTANT:"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% if message['content'] is string %}{{ message['content'] }} "
    "{% else %}"
    "{% for content in message['content'] if content['type'] in ('image', 'video') %}<image>\n{% endfor %}"
    "{% for content in message['content'] if content['type'] == 'text' %}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ content['text'] }}{% endgeneration %}"
    "{% else %}{{ content['text'] }}{% endif %} {% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def words(hard: bool = False) -> list[str]:
    """Every token, in the order of its id; those for hard scenes come last."""
    drawn = [*scenes.COLOURS, *scenes.SHAPES, *scenes.PICTOGRAMS, *scenes.WORDS]
    plurals = [questions.PLURALS[kind] for kind in [*scenes.SHAPES, *scenes.PICTOGRAMS]]
    pieces = ["##" + character for character in CHARACTERS]
    return list(
        dict.fromkeys(
            [*SPECIAL, *CHARACTERS, *pieces, *WORDS, *drawn, *plurals, *(HARD_WORDS if hard else [])]
        )
    )


def unknown_words(processor: Any, question: str) -> list[str]:
    """The words of a question that the embedded model was never taught, in their order, each once.

    Its tokenizer spells such words letter by letter, and the model answers all the same.
    """
    known = processor.tokenizer.get_vocab()
    plain = processor.tokenizer.backend_tokenizer.normalizer.normalize_str(question)  # small, no accents
    return [word for word in dict.fromkeys(re.findall(r"[^\W\d_]+", plain)) if word not in known]


def make_tokenizer(hard: bool = False) -> PreTrainedTokenizerFast:
    vocabulary = {word: place for place, word in enumerate(words(hard))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=True, lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def make_processor(hard: bool = False) -> LlavaProcessor:
    side = scenes.SIDE
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=make_tokenizer(hard),
        patch_size=scenes.PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
