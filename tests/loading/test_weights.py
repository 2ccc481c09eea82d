"""Checkpoints whose files are broken, and what is said of them."""

import json
import os
import pickle

import pytest
import torch
from builders import IMAGE
from safetensors.torch import load_file, save_file

import prumerge
from prumerge.errors import PrumergeError

WEIGHTS = "model.safetensors"
ONE = "model.language_model.layers.0.mlp.down_proj.weight"
STORED = "language_model.model.layers.0.mlp.down_proj.weight"  # what checkpoints of LLaVA call it


def change(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def within(part, **settings):
    """A change of one part of the configuration."""

    def break_it(folder):
        now = json.loads((folder / "config.json").read_text())[part]
        change(folder, **{part: now | settings})

    return break_it


def rewritten(alter):
    """The weights read, altered in place, and written again."""

    def break_it(folder):
        weights = load_file(folder / WEIGHTS)
        alter(weights)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return break_it


def pickled(write):
    """Weights in a pickle in place of safetensors."""

    def break_it(folder):
        weights = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        write(weights, folder / "pytorch_model.bin")

    return break_it


class Evil:
    def __reduce__(self):
        return (os.system, ("false",))


def cut(weights, path):
    torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:9000])


def holding(file, text):
    return lambda folder: (folder / file).write_bytes(text)


DAMAGED = "the weights of .* are damaged or cut short"
PICKLE = "are a pickle that is damaged or holds more than weights"
NO_MODEL = "its config.json describes none that Transformers knows"
BROKEN = {
    "cut in its header": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:5000]), DAMAGED),
    "cut in its data": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-99]), DAMAGED),
    "empty": (holding(WEIGHTS, b""), DAMAGED),
    "random": (holding(WEIGHTS, bytes(range(256)) * 20), DAMAGED),
    "a pointer of git": (holding(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\n"), DAMAGED),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "is not complete"),
    "one weight less": (rewritten(lambda weights: weights.pop(STORED)), f"is not complete: {ONE} missing"),
    "half of the weights": (
        rewritten(lambda weights: [weights.pop(name) for name in sorted(weights)[::2]]),
        r"is not complete: \S+, \S+, \S+ and 37 more missing",
    ),
    "another shape": (
        rewritten(lambda weights: weights.update({STORED: torch.zeros(3, 3)})),
        rf"does not fit its config.json: {ONE} is \[3, 3\], not \[32, 64\]",
    ),
    "a pickle with a program": (pickled(lambda _, path: torch.save({"a": Evil()}, path)), PICKLE),
    "an old pickle with a program": (
        pickled(lambda _, path: path.write_bytes(pickle.dumps({"a": Evil()}, protocol=2))),
        PICKLE,
    ),
    "an empty pickle": (pickled(lambda _, path: path.touch()), DAMAGED),
    "a pickle that is cut": (pickled(cut), "cannot be read|is not complete"),
    "a pickle of a list": (pickled(lambda _, path: torch.save([1, 2], path)), "cannot be read"),
    "an index of nothing": (
        lambda f: ((f / WEIGHTS).unlink(), (f / f"{WEIGHTS}.index.json").write_text("[]")),
        "cannot be read",
    ),
    "a configuration that is a list": (holding("config.json", b"[1]"), "holds no names and values"),
    "a configuration that is a number": (holding("config.json", b"3"), "holds no names and values"),
    "a configuration in prose": (holding("config.json", b"hello"), "config.json' cannot be read"),
    "a configuration in bytes": (holding("config.json", b"\xff\xfe\0"), "config.json' cannot be read"),
    "a word for the tower": (lambda folder: change(folder, vision_config="word"), NO_MODEL),
    "a list for the language model": (lambda folder: change(folder, text_config=[1]), NO_MODEL),
    "a type that is none": (lambda folder: change(folder, model_type="nope"), NO_MODEL),
    "a type that is a number": (lambda folder: change(folder, model_type=3), NO_MODEL),
    "a width in words": (within("vision_config", hidden_size="wide"), NO_MODEL),
    "a width that heads do not divide": (within("vision_config", hidden_size=33), NO_MODEL),
    "an activation that is none": (within("text_config", hidden_act="nope"), "cannot be read"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "cannot be read"),
    "an empty tokenizer": (holding("tokenizer.json", b"{}"), "cannot be read"),
    "no processor": (lambda folder: (folder / "processor_config.json").unlink(), "is not complete"),
    "a processor that is a list": (holding("processor_config.json", b"[]"), "cannot be read"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_checkpoint_is_refused_in_one_sentence_that_names_it(checkpoint, kind):
    break_it, sentence = BROKEN[kind]
    break_it(checkpoint)
    with pytest.raises(PrumergeError, match=sentence) as refused:
        prumerge.load(checkpoint)
    assert str(checkpoint) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_the_model_does_not_know_is_one_warning(checkpoint):
    rewritten(lambda weights: weights.update({"left.over": torch.zeros(3), "more": torch.zeros(1)}))(
        checkpoint
    )
    with pytest.warns(UserWarning, match="holds more than its model has: left.over, more left out") as said:
        model, _ = prumerge.load(checkpoint)
    assert len(said) == 1
    assert model.config.image_token_id == IMAGE


def test_a_whole_pickle_of_weights_is_read(checkpoint):
    expected = load_file(checkpoint / WEIGHTS)[STORED]
    pickled(torch.save)(checkpoint)
    assert torch.equal(prumerge.load(checkpoint)[0].state_dict()[ONE], expected)
