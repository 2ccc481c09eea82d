"""What `benchmarks/real_llava.py` does, on a small random LLaVA in place of the real one."""

import copy
import importlib
import itertools
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import prumerge
from prumerge.loading.prompts import prepare_batch
from prumerge.loading.real.assembly import adapt
from prumerge.tiny.scenes import scene
from prumerge.train.batches import Batches


@pytest.fixture(scope="module")
def program():
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    try:
        yield importlib.import_module("real_llava")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def asked(program):
    return sys.modules["real_asked"]


@pytest.fixture(scope="module")
def rows(program):
    return sys.modules["real_rows"]


@pytest.fixture(scope="module")
def tiny():
    return prumerge.load("tiny")


@pytest.fixture
def stamps(tmp_path, rows):
    """Twelve stamps with a caption each, and one that is mirrored."""
    home = tmp_path / "stamps"
    (home / "fruit").mkdir(parents=True)
    for number in range(12):
        size = (30 + number, 40)
        Image.new("RGBA", size, (20 * number, 0, 0, 255)).save(home / "fruit" / f"{number}.png")
        (home / "fruit" / f"{number}.txt").write_text(f"Fruit {number}.\nde.utf8=Frucht")
    Image.new("RGB", (4, 4)).save(home / "fruit" / "0_mirror.png")
    rows.pack_stamps(home, tmp_path / "packed")
    return tmp_path / "packed"


# the rows


def test_no_caption_is_both_learned_and_held_out(rows, stamps):
    learned, held = ({text for _, text in rows.stamps(stamps, held=held)} for held in (False, True))
    assert len(learned) == 10
    assert len(held) == 2
    assert not learned & held


def test_a_stamp_is_whole_on_a_white_square(rows, stamps):
    with Image.open(stamps / "fruit-11.jpg") as picture:
        assert picture.size == (224, 224)
        middle = picture.getpixel((112, 112))
    assert middle[0] > 200 > 30 > middle[1]
    assert len(list(stamps.glob("*.jpg"))) == 12


def test_the_own_caption_comes_first_among_four_different_ones(rows, stamps, monkeypatch):
    monkeypatch.setattr(rows, "HELD", 2)
    for four in rows.choices(stamps):
        texts = [one.turns[0][1] for one in four]
        assert len(set(texts)) == 4
        assert {one.source for one in four} == {four[0].source}
        assert (four[0].source, texts[0]) in rows.stamps(stamps, held=True)


def test_training_and_checking_share_no_picture(rows):
    learned = {one.source for one in rows.easy_rows(0)}
    checked = {one.source for one in rows.single("train", range(4000 - rows.CHECKED, 4000), 2)}
    assert len(checked) == rows.CHECKED
    assert not learned & checked


def test_a_description_says_all_that_a_scene_shows(rows):
    for seed in range(20):
        drawn = scene(rows.FIRST + seed)
        told = rows.described(drawn)
        for thing in drawn.objects:
            assert (thing.text or thing.kind).lower() in told.lower()
        assert told.count(" at ") + told.count(" on the ") + told.count(" in the middle") >= len(
            drawn.objects
        )


def test_a_scene_is_asked_about_in_turns_that_training_reads(rows, tiny):
    one = rows.scene_rows(0, 1, 1)[0]
    batch = Batches(tiny[1])([one.row()])
    assert 2 <= len(one.turns) <= rows.TURNS
    assert (batch["labels"] != -100).any()


# the loss, the clock and what is kept


def test_the_loss_behind_the_picture_is_the_models_own(program, tiny, rows):
    model, processor = copy.deepcopy(tiny[0]), tiny[1]
    some = [one.row() for one in rows.scene_rows(0, 2, 1)]
    batch = program.Behind(processor)(some)
    count = batch.pop("logits_to_keep")
    whole = model(**batch).loss
    model.loss_function = program.loss_behind
    assert count < batch["labels"].shape[1] - 576
    torch.testing.assert_close(model(**batch, logits_to_keep=count).loss, whole)


@pytest.fixture(scope="module")
def learned(program, rows, tmp_path_factory):
    """A few steps on noise, by a clock that ticks a second whenever it is looked at."""
    out = tmp_path_factory.mktemp("learned")
    model, processor = copy.deepcopy(prumerge.load("tiny"))
    clock = program.Clock(out / "log.jsonl")
    ticks = itertools.count()
    clock = type("Ticking", (program.Clock,), {"__call__": lambda self: float(next(ticks))})(clock.file)
    model.loss_function = program.loss_behind
    some = [one.row() for one in rows.scene_rows(0, 4, 1)]
    before = copy.deepcopy(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "OFTEN", 6)
        for kind, until in (("projector", 14), ("lora", 40)):
            program.train(model, processor, some, kind, until, clock, out, lambda trained: 0.5, 0, 1)
    return before, model, out


def test_training_ends_with_the_time_and_says_how_it_went(learned):
    lines = [json.loads(line) for line in (learned[2] / "log.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines if "phase" in line] == ["projector", "lora"]
    assert len([line for line in lines if "exact" in line]) >= 3
    assert all(np.isfinite(line["loss"]) for line in lines if "loss" in line)
    assert 40 <= max(line["at"] for line in lines) <= 60


def test_what_is_kept_makes_the_trained_model_of_the_untouched_one(learned, tiny):
    before, trained, out = learned
    adapt(before, out / "adapter.safetensors")
    inputs = prepare_batch(tiny[1], [[scene(5).image]], ["is there a cat?"])
    with torch.no_grad():
        found, expected = (one.eval()(**inputs).logits[:, -1] for one in (before, trained))
        untouched = tiny[0](**inputs).logits[:, -1]
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    assert (untouched - expected).abs().max() > 0.2


# the questions


def test_an_answer_is_right_where_greedy_decoding_gives_it(asked, rows, tiny):
    model, processor = tiny
    drawn = [rows.drawn(number, 0) for number in range(4)]
    some = [
        rows.Asked(one.name, one.source, (("is there a cat?", gold),))
        for one, gold in zip(drawn, ("yes", "no", "no", "yes"), strict=True)
    ]
    images = [[one.row().open().pictures[0]] for one in some]
    inputs = prepare_batch(processor, images, [one.turns[0][0] for one in some])
    made = model.generate(**inputs, max_new_tokens=2, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    said = [text.strip() for text in processor.batch_decode(made, skip_special_tokens=True)]
    right, likely = asked.expected(model, Batches(processor)([one.row() for one in some]))
    assert right.tolist() == [text == one.turns[0][1] for text, one in zip(said, some, strict=True)]
    assert 0 < right.float().mean() < 1
    assert (likely < 0).all()


def test_every_method_is_asked_once_and_goes_on(asked, rows, tiny, stamps, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "HELD", 2)
    monkeypatch.setattr(asked, "methods", lambda: ["spatial", "cdpruner", "prumerge"])
    log, left = tmp_path / "answers.jsonl", iter([True, True, False])
    asks = {"counts": (9,), "pictures": [5], "held": 4}
    first = list(asked.ask(*tiny, stamps, log, lambda: next(left), **asks))
    again = list(asked.ask(*tiny, stamps, log, lambda: True, **asks))
    assert first == ["none", "spatial@9"]
    assert again == ["prumerge@9", "cdpruner@9"]
    lines = asked.lines(log)
    assert [line["tokens"] for line in lines] == [576, 9, 9, 9]
    assert {(len(line["right"]), len(line["likely"])) for line in lines} == {(3, 16)}


def test_with_all_tokens_the_sheet_says_what_the_model_says(asked, rows, tiny):
    some = rows.single("test", [5], 3)
    right, likely, tokens = asked.Sheet(*tiny, some).answered("none")
    expected = asked.expected(tiny[0], Batches(tiny[1])([one.row() for one in some]))
    assert right == expected[0].tolist()
    torch.testing.assert_close(torch.tensor(likely), expected[1])
    assert tokens == 576


def test_methods_that_read_words_do_not_read_the_answer(asked, rows, tiny):
    one = rows.single("test", [0], 1)[0]
    other = rows.Asked(one.name, one.source, ((one.turns[0][0], "circle"),))
    sheets = [asked.Sheet(*tiny, [each]) for each in (one, other)]
    texts = [sheet.tokens(sheet.rows, sheet.prompts[0][1])[0].text() for sheet in sheets]
    assert torch.equal(*texts)


def test_the_likeliest_of_four_is_chosen(asked):
    assert asked.chosen([-1, -2, -3, -4, -2, -1, -3, -4]).tolist() == [1, 0]


def test_the_report_marks_what_is_apart_from_the_grid(asked, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(asked, "RESULTS", tmp_path)
    golds = [one.turns[0][1] for one in rows.single("test", asked.PICTURES, asked.EACH)]
    count = len(golds)
    labels = {"none": 1, "spatial@36": 2, "topk@36": 5, "pool@36": 2}
    lines = [
        {
            "label": label,
            "tokens": 36,
            "right": [int(number % every != 0 or every == 1) for number in range(count)],
            "likely": [-1.0, -2, -3, -4] * 20,
        }
        for label, every in labels.items()
    ]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, lines)))
    training = [{"at": 9, "phase": "lora"}, {"at": 50, "step": 7, "exact": 0.5}, {"at": 60, "asked": "none"}]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, training)))
    asked.report(tmp_path / "answers.jsonl", tmp_path / "log.jsonl")
    result = json.loads((tmp_path / "real_llava.json").read_text())
    by_name = {row["method"]: row for row in result["methods"]}
    assert result["training"] == training[:2]
    assert by_name["none"]["right"] == result["sees_stamps"]["difference"] + 25 == 100
    assert 30 < result["blind"] < 70
    assert by_name["topk@36"]["against_grid"]["low"] > 0
    assert by_name["pool@36"]["against_grid"]["difference"] == 0
    docs = Path(__file__).parents[1] / "docs"
    monkeypatch.syspath_prepend(str(docs))
    tables = runpy.run_path(str(docs / "real_llava_tables.py"))
    lines = tables["real_llava"].__wrapped__(result).splitlines()
    cells = [line.split("|")[3] for line in lines if line.startswith("| `")]
    assert cells == [" 79.9 + ", " 50.0 ", " 50.0 "]
    assert "| 50 | lora | 7 | 50.0 |" in tables["real_llava_learned"].__wrapped__(result)
