"""Answers under a guard: few tokens where the model is sure, all of them where it is not."""

import json
from dataclasses import replace

import pytest

import prumerge
from prumerge.errors import PrumergeError
from prumerge.generate.answer import answer
from prumerge.generate.guarded import Guard, guarded
from prumerge.loading.fingerprint import fingerprint
from prumerge.tiny.scenes import scene

STEPS = ("prumerge:keep=15", "prumerge:keep=35")


@pytest.fixture(scope="module")
def tiny():
    return prumerge.load("tiny")


@pytest.fixture(scope="module")
def picture():
    return scene(9_800_013).image


def under(tiny, guard):
    model, processor = tiny
    return guarded(model, processor, guard)


@pytest.mark.parametrize("threshold", [0.0, 2.0])
def test_at_any_threshold_it_says_what_the_step_that_answers_says(tiny, picture, threshold):
    found = under(tiny, Guard(STEPS, threshold)).answer(picture, "which shape is blue?")
    spec = STEPS[0] if threshold == 0 else None
    model, processor = tiny
    alone = answer(model, processor, picture, "which shape is blue?", spec)
    assert found.answer == alone.answer
    assert [one.method for one in found.tries] == ([STEPS[0]] if spec else [*STEPS, "untouched"])
    assert found.visual_tokens == (16 if spec else 16 + 36 + 576)


def test_its_probability_is_that_of_the_whole_answer(tiny, picture):
    [one] = under(tiny, Guard(STEPS, 0.0)).answer(picture, "which shape is blue?").tries
    assert 0 < one.probability <= 1
    between = one.probability
    asked = under(tiny, Guard(STEPS, between)).answer(picture, "which shape is blue?")
    assert len(asked.tries) == 1  # at least as probable is enough
    asked = under(tiny, Guard(STEPS, between * 1.0001)).answer(picture, "which shape is blue?")
    assert len(asked.tries) > 1


def test_an_answer_below_the_threshold_is_not_written_to_its_end(tiny, picture):
    prompt = "describe the picture"
    whole = under(tiny, Guard(STEPS[:1], 0.0, 12)).answer(picture, prompt).tries[0]
    begun = under(tiny, Guard(STEPS[:1], 1.5, 12)).answer(picture, prompt).tries[0]
    assert whole.probability <= begun.probability < 1.5


def test_a_file_holds_all_of_it(tmp_path):
    guard = Guard(STEPS, 0.75, 8, {"size_bias": True}, {"model": "tiny"})
    guard.write(tmp_path / "guard.json")
    assert Guard.read(tmp_path / "guard.json") == guard


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"steps": ["none"], "threshold": "high"}', "no json"])
def test_what_is_no_guard_is_refused(tmp_path, text):
    (tmp_path / "guard.json").write_text(text)
    with pytest.raises(PrumergeError, match="guard"):
        Guard.read(tmp_path / "guard.json")


def test_a_guard_of_other_weights_is_refused(tiny):
    own = Guard(STEPS, 0.5, calibrated={"weights": fingerprint(tiny[0]), "model": "tiny"})
    assert under(tiny, own).guard is own
    other = replace(own, calibrated={"weights": "0" * 12, "model": "another"})
    with pytest.raises(PrumergeError, match=r"other weights \(those of another\)"):
        under(tiny, other)


@pytest.mark.parametrize(
    ("steps", "told"), [((), "a reducer at least"), (("fastv:keep=36",), "inside the model"), (("no",), "no")]
)
def test_steps_work_before_the_language_model(steps, told):
    with pytest.raises(PrumergeError, match=told):
        Guard(steps, 0.5)


def test_other_data_are_noticed_by_how_often_all_tokens_are_needed(tiny):
    model = under(tiny, Guard(STEPS, 0.5, calibrated={"untouched": 0.1}))
    for asked, untouched, noticed in ((10, 10, False), (100, 12, False), (100, 40, True)):
        model.asked, model.untouched = asked, untouched
        assert ("these are other pictures" in model.shift()) is noticed


def test_the_command_finds_a_guard_and_answers_under_it(small, run, tmp_path, picture):
    (tmp_path / "album").mkdir()
    for number in range(24):
        scene(9_800_000 + number).image.save(tmp_path / "album" / f"{number}.png", compress_level=1)
    (tmp_path / "questions.txt").write_text("what is it?\n")
    given = ["calibrate", "--data", tmp_path / "album", "--model", small]
    given += ["--questions", tmp_path / "questions.txt", "--cascade", "16,36"]
    given += ["--agreement", "75", "--confidence", "90", "-o", tmp_path / "guard.json"]
    code, out, err = run(*given)
    assert code == 0, err
    assert "same answer %" in out
    guard = Guard.read(tmp_path / "guard.json")
    assert guard.steps == STEPS
    assert guard.calibrated["tested_on"]["pictures"] == 12
    asked = ["answer", tmp_path / "album" / "0.png", "what is it?", "--model", small]
    code, out, err = run(*asked, "--guard", tmp_path / "guard.json", "--json")
    assert code == 0, err
    assert json.loads(out)["tries"][0]["method"] == STEPS[0]


def test_too_few_pictures_are_said_before_a_model_is_loaded(run, tmp_path, picture):
    picture.save(tmp_path / "one.png")
    code, out, err = run("calibrate", "--data", tmp_path, "--model", "nowhere")
    assert (code, out) == (2, "")
    assert "takes 299 pictures to find a threshold and as many to test it, and there are 1" in err
