"""What the embedded model can be asked: its words, and pictures to ask about."""

import pytest
from PIL import Image

import prumerge
from prumerge.errors import PrumergeError
from prumerge.tiny import copy_samples, samples
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


def test_sample_pictures_are_copied(tmp_path):
    copies = copy_samples(tmp_path / "new" / "folder")
    assert [path.name for path in copies] == [sample.path.name for sample in samples()]
    assert all(isinstance(prumerge.open_image(path), Image.Image) for path in copies)
    assert copy_samples(tmp_path / "new" / "folder") == copies  # once more is no harm


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PrumergeError, match=r"the folder .* cannot be written"):
        copy_samples(tmp_path / "file" / "folder")
