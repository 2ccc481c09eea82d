"""What lmms-eval asks, read: messages, pictures, clips, and how an answer is generated."""

import pytest
from builders import processor
from harness import question
from PIL import Image

from prumerge.errors import PrumergeError
from prumerge.lmms_eval.requests import LONGEST, Generation, read_messages
from prumerge.loading.prompts import question_prompt

RED, BLUE = (Image.new("RGB", (20, 16), name) for name in ("red", "blue"))


@pytest.fixture(scope="module")
def own():
    return processor()


@pytest.fixture
def clip(tmp_path):
    for number in range(6):
        Image.new("RGB", (20, 16), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    return str(tmp_path)


@pytest.mark.parametrize("pictures", [(), (RED,), (RED, BLUE)])
def test_a_question_reads_as_everywhere_else(own, pictures):
    asked = read_messages(own, question("w5 w6", *pictures), 8)
    assert asked.text == question_prompt(own, "w5 w6", len(pictures))
    assert [one.getpixel((0, 0)) for one in asked.pictures] == [one.getpixel((0, 0)) for one in pictures]
    assert (asked.instruction, asked.clip) == ("w5 w6", False)


def test_a_picture_may_be_a_file_and_have_any_mode(own, tmp_path):
    RED.convert("P").save(tmp_path / "a.png")
    [shown] = read_messages(own, question("w5", str(tmp_path / "a.png")), 8).pictures
    assert (shown.mode, shown.getpixel((0, 0))) == ("RGB", (255, 0, 0))


def test_a_clip_is_its_frames(own, clip):
    messages = [{"role": "user", "content": [{"type": "video", "url": clip}, {"type": "text", "text": "w5"}]}]
    asked = read_messages(own, messages, 3)
    assert asked.clip
    assert len(asked.pictures) == asked.text.count("<image>") == 3


def test_a_conversation_has_its_last_question_as_the_instruction(own):
    messages = [*question("w5", RED), {"role": "assistant", "content": [{"type": "text", "text": "w6"}]}]
    asked = read_messages(own, [*messages, *question("w7")], 8)
    assert asked.instruction == "w7"
    assert asked.text.index("w5") < asked.text.index("w6") < asked.text.index("w7")


def test_another_picture_or_another_word_is_another_question(own):
    first = read_messages(own, question("w5", RED), 8)
    assert first.digest == read_messages(own, question("w5", RED.copy()), 8).digest
    others = [question("w5", BLUE), question("w6", RED), question("w5", RED.resize((16, 20)))]
    assert len({first.digest, *(read_messages(own, one, 8).digest for one in others)}) == 4


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ({"type": "audio", "url": "a.wav"}, "a task shows audio as str; prumerge answers about pictures"),
        ({"type": "image", "url": 5}, "a task shows image as int"),
        (
            {"type": "text", "text": "what is <image>?"},
            "holds '<image>', which this model reads as a picture",
        ),
        ({"type": "video", "url": "a.mp4", "start_time": 1.0}, "parts of a clip are not supported; cut it"),
    ],
)
def test_what_cannot_be_shown_is_said(own, part, sentence):
    with pytest.raises(PrumergeError, match=sentence):
        read_messages(own, [{"role": "user", "content": [part]}], 8)


def test_pictures_and_clips_in_one_question_are_refused(own, clip):
    content = [{"type": "video", "url": clip}, {"type": "image", "url": RED}]
    with pytest.raises(PrumergeError, match="pictures and clips in one question"):
        read_messages(own, [{"role": "user", "content": content}], 3)


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({}, {"do_sample": False, "max_new_tokens": LONGEST}),
        (
            {"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False},
            {"max_new_tokens": 16, "num_beams": 1, "do_sample": False},
        ),
        (
            {"temperature": 0.7, "top_p": 0.9},
            {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": LONGEST},
        ),
        ({"temperature": 0, "do_sample": True}, {"do_sample": False, "max_new_tokens": LONGEST}),
        ({"do_sample": True, "top_p": None}, {"do_sample": True, "max_new_tokens": LONGEST}),
        ({"image_aspect_ratio": "original"}, {"do_sample": False, "max_new_tokens": LONGEST}),
    ],
)
def test_generation_is_greedy_unless_a_temperature_says_otherwise(given, options):
    before = dict(given)
    assert Generation.read(given).options == options
    assert given == before


def test_what_generate_does_not_know_is_left_out_with_a_warning():
    with pytest.warns(UserWarning, match="mood='bright' of a task is left out"):
        assert "mood" not in Generation.read({"mood": "bright"}).options


@pytest.mark.parametrize(
    ("until", "text", "expected"),
    [
        (["\n\n", "ASSISTANT:"], " yes ASSISTANT: no\n\nmore", "yes"),
        ("\n", "a\nb", "a"),
        ([], " a\n\nb ", "a\n\nb"),
        ([""], "a", "a"),
    ],
)
def test_an_answer_ends_before_the_first_word_that_ends_it(until, text, expected):
    assert Generation.read({"until": until}).ended(text) == expected
