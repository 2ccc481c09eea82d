"""What the embedded model can be asked: its words, and pictures to ask about."""

import pytest

from prumerge.tiny import samples
from prumerge.tiny.vocabulary import make_processor, unknown_words


@pytest.mark.parametrize(
    ("question", "unknown"),
    [
        ("is there a heart?", []),
        ("What colour is the K?", []),
        ("is thére a HEART?", []),
        ("what is on the table?", ["table"]),
        ("Is a zebra on the table, or 12 zebra?", ["zebra", "table"]),
        ("", []),
    ],
)
def test_words_that_were_never_taught_are_told(question, unknown):
    assert unknown_words(make_processor(), question) == unknown


def test_every_sample_question_is_in_known_words():
    processor = make_processor()
    for sample in samples():
        for question in sample.questions:
            assert unknown_words(processor, question.text) == []
