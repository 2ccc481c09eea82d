"""Relevance by CLIP's two towers, on a small CLIP whose vision tower is that of the LLaVA model."""

import pytest
import reference_methods as reference
import torch
from builders import PICTURE, llava, prompt, vision_config
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, PreTrainedTokenizerFast

import prumerge

ROWS = [[5, PICTURE, 6, 7], [5, PICTURE, 6, PICTURE, 9]]
WORDS = ["<start>", "<end>", "what", "colour", "is", "the", "star", "car", "red"]
LONGEST = 8


@pytest.fixture
def tokenizer():
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, "red"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<start>", eos_token="<end>", pad_token="<end>"
    )


def clip_of(model):
    torch.manual_seed(3)
    config = CLIPConfig(
        text_config=CLIPTextConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LONGEST,
            bos_token_id=0,
            eos_token_id=1,
            initializer_range=0.5,
        ).to_dict(),
        vision_config=vision_config().to_dict(),
        projection_dim=24,
    )
    clip = CLIPModel(config).eval()
    clip.vision_model.load_state_dict(model.model.vision_tower.state_dict())
    return clip


@pytest.fixture
def clip(model):
    return clip_of(model)


def by_hand(clip, tokenizer, pixels, questions):
    """Minus the cosine of projected patches and texts, averaged over texts, between 0 and 1; both towers run
    by Transformers."""
    with torch.no_grad():
        states = clip.vision_model(pixels, output_hidden_states=True).hidden_states[-2]
        patches = clip.visual_projection(clip.vision_model.post_layernorm(states[0, 1:])).tolist()
        texts = [
            clip.get_text_features(**tokenizer(text, return_tensors="pt")).pooler_output[0].tolist()
            for text in questions
        ]
    found = [-sum(reference.cosine(patch, text) for text in texts) / len(texts) for patch in patches]
    return [(value - min(found)) / (max(found) - min(found) + 1e-6) for value in found]


@pytest.mark.parametrize("spec", ["cdpruner:keep=5", "trim:keep=5", "trim", "tome:r=0+cdpruner:keep=5"])
def test_methods_go_by_both_towers(model, clip, tokenizer, spec):
    inputs = prompt(*ROWS)
    questions = ["what colour is the star", "what colour is the car", "is the star red"]
    relevance = prumerge.clip_relevance(clip, tokenizer, questions)
    with torch.no_grad():
        chosen = prumerge.select(model, inputs, spec, relevance=relevance)
        plain = prumerge.select(model, inputs, spec)
    for (tokens, reduction), pixels, question in zip(
        chosen, inputs["pixel_values"].split(1), questions, strict=True
    ):
        expected = torch.tensor(by_hand(clip, tokenizer, pixels, [question]))
        torch.testing.assert_close(tokens.relevance, expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(reduction.index, prumerge.make(spec)(tokens).index)
    assert any(
        not torch.equal(one.index, other.index) for (_, one), (_, other) in zip(chosen, plain, strict=True)
    )


def test_trim_goes_by_the_products_as_they_are(model, clip, tokenizer):
    inputs = prompt(ROWS[0])
    relevance = prumerge.clip_relevance(clip, tokenizer, "is the star red", product=True)
    with torch.no_grad():
        [(tokens, reduction)] = prumerge.select(model, inputs, "trim:sharpness=1", relevance=relevance)
        states = clip.vision_model(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2]
        patches = clip.visual_projection(clip.vision_model.post_layernorm(states[0, 1:]))
        text = clip.get_text_features(**tokenizer("is the star red", return_tensors="pt")).pooler_output[0]
    torch.testing.assert_close(tokens.relevance, -(patches @ text), atol=1e-5, rtol=1e-4)
    scores = tokens.relevance.softmax(0)
    outliers = prumerge.ops.outliers(scores).nonzero()[:, 0].tolist()
    assert reduction.index[:-1].tolist() == (outliers or [int(scores.argmax())])


def test_one_text_for_all_pictures_shortens_the_prompt(model, clip, tokenizer):
    inputs = prompt(*ROWS)
    relevance = prumerge.clip_relevance(clip, tokenizer, "is the star red")
    with torch.no_grad():
        shorter = prumerge.reduce(model, inputs, "cdpruner:keep=5", relevance=relevance)
        features = shorter["mm_encoder_outputs"]["image"].pooler_output
        chosen = prumerge.select(model, inputs, "cdpruner:keep=5", relevance=relevance)
        expected = [model.model.multi_modal_projector(each.apply(tokens)) for tokens, each in chosen]
    assert [len(one) for one in features] == [5, 5, 5]
    for one, other in zip(features, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_long_text_is_the_mean_of_its_pieces(model, clip, tokenizer):
    pieces = ["what colour is the star the", "car is red"]
    inputs = prompt(ROWS[0])
    with torch.no_grad():
        relevance = prumerge.clip_relevance(clip, tokenizer, " ".join(pieces))
        [(tokens, _)] = prumerge.select(model, inputs, "cdpruner:keep=5", relevance=relevance)
    expected = by_hand(clip, tokenizer, inputs["pixel_values"], pieces)
    torch.testing.assert_close(tokens.relevance, torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_the_frames_of_a_clip_share_a_text(model, clip, tokenizer):
    inputs = prompt([5, PICTURE, PICTURE, 6, 7])
    relevance = prumerge.clip_relevance(clip, tokenizer, ["is the star red"])
    with torch.no_grad():
        [(tokens, reduction)] = prumerge.select(
            model, inputs, "cdpruner:keep=6", clip=True, relevance=relevance
        )
    assert (len(tokens.relevance), len(reduction)) == (32, 6)


def test_too_few_texts(model, clip, tokenizer):
    relevance = prumerge.clip_relevance(clip, tokenizer, ["red"])
    with pytest.raises(ValueError, match="there are 1 texts for 3 pictures; give one text for all"):
        prumerge.reduce(model, prompt(*ROWS), "cdpruner:keep=5", relevance=relevance)


def test_scores_of_another_number(model):
    with pytest.raises(
        ValueError, match=r"gives \[16, 3\] scores for pictures of \[16, 16, 16\] visual tokens"
    ):
        prumerge.select(
            model, prompt(*ROWS), "trim", relevance=lambda pictures: [torch.rand(16), torch.rand(3)]
        )


def test_another_vision_tower(clip, tokenizer, model):
    clip.visual_projection = torch.nn.Linear(48, 24, bias=False)
    relevance = prumerge.clip_relevance(clip, tokenizer, "red")
    with pytest.raises(ValueError, match=r"32 wide are not of this CLIP model's vision tower \(48 wide\)"):
        prumerge.reduce(model, prompt(*ROWS), "cdpruner:keep=5", relevance=relevance)


def test_a_half_precision_tower_scores_in_its_own_type(tokenizer):
    half = llava(dtype=torch.bfloat16)
    relevance = prumerge.clip_relevance(clip_of(half), tokenizer, "red")
    with torch.no_grad():
        [(tokens, _)] = prumerge.select(half, prompt(ROWS[0]), "cdpruner:keep=5", relevance=relevance)
    assert tokens.relevance.dtype == torch.float32
