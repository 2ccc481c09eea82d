"""A run goes on where it was stopped, and what it leaves behind is whole."""

import json
import os
import resource
import signal
import time

import pytest
import torch
from families import FAMILIES
from forked import forked
from processors import PROCESSORS
from safetensors.torch import load_file
from training import asked, drawn

import prumerge
from prumerge.errors import PrumergeError
from prumerge.train import train
from prumerge.train.folder import last_checkpoint, on_disk
from prumerge.train.rows import Rows
from prumerge.train.run import Run

DATA = [asked(f"w{5 + number % 5} w7", f"w{5 + number % 4}", number) for number in range(12)]
USUAL = {"budgets": "2-9", "steps": 4, "batch": 2, "rank": 2, "alpha": 4, "save_every": 1}


def subject():
    import copy

    return copy.deepcopy(FAMILIES["Llava"].model()), PROCESSORS["Llava"]()


def trained(folder, data=DATA, **more):
    model, processor = subject()
    return train(model, processor, data, "prumerge", output=folder, **{**USUAL, **more})


def weights(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def same(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_it_leaves_an_adapter_a_plain_checkpoint_and_what_it_is(tmp_path):
    outcome = trained(tmp_path / "run", held_out=2)
    assert outcome.finished and outcome.steps == 4
    assert {"adapter", "model", "run.json", "log.jsonl"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }
    about = json.loads((tmp_path / "run" / "model" / "prumerge.json").read_text())
    assert about["reducer"] == "prumerge" and about["budgets"] == "2-9"
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in logged if "loss" in entry] == [1, 2, 3, 4]
    assert {"eval_2_loss", "eval_4_loss", "eval_9_loss", "eval_none_loss"} <= set(logged[1])


def test_the_plain_checkpoint_has_the_weights_and_the_names_it_came_with(tmp_path):
    model, processor = subject()
    model.save_pretrained(tmp_path / "before")
    outcome = train(model, processor, DATA, "prumerge", output=tmp_path / "run", **USUAL)
    before = load_file(tmp_path / "before" / "model.safetensors")
    after = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert set(before) == set(after)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and not any("vision_tower" in name for name in moved)
    again, _ = prumerge.load(tmp_path / "run" / "model")
    assert again.adapted_to == "prumerge at 2-9 visual tokens"
    for name, weight in outcome.model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_the_adapter_on_the_model_it_came_from_is_the_plain_checkpoint(tmp_path):
    from peft import PeftModel

    outcome = trained(tmp_path / "run")
    model, processor = subject()
    adapted = PeftModel.from_pretrained(model, tmp_path / "run" / "adapter").eval()
    inputs = prumerge.loading.prompts.prepare(processor, drawn(), "w5 w6")
    with torch.no_grad():
        one, other = adapted(**inputs).logits, outcome.model(**inputs).logits
    assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    ("label_free", "rows", "stop"), [(False, 6, 2), (True, 6, 2), (False, 4, 3), (False, 4, 2)]
)  # in the first epoch, in the second, and between them
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(tmp_path, label_free, rows, stop):
    options = {"data": DATA[:rows], "label_free": label_free, "dropout": 0.1}
    straight = trained(tmp_path / "straight", **options)

    def interrupt(what, done, total):
        if what == "training" and done == stop:
            os.kill(os.getpid(), signal.SIGINT)

    half = trained(tmp_path / "halves", **options, track=interrupt)
    assert not half.finished and half.steps == stop
    assert not (tmp_path / "halves" / "adapter").exists()
    whole = trained(tmp_path / "halves", **options)
    assert whole.finished
    assert same(weights(tmp_path / "straight"), weights(tmp_path / "halves"))
    losses = [[entry["loss"] for entry in one.log if "loss" in entry] for one in (straight, whole)]
    assert losses[0] == losses[1]


def in_many_steps(folder):
    trained(folder, steps=14, save_every=2, dropout=0.1)


def test_a_kill_in_the_middle_loses_nothing(tmp_path):
    in_many_steps(tmp_path / "whole")
    folder = tmp_path / "killed"
    running = forked(in_many_steps, folder)
    while not any((folder / "checkpoints").glob("checkpoint-[46]")) and running.is_alive():
        time.sleep(0.02)
    running.kill()
    running.join()
    assert running.exitcode == -signal.SIGKILL
    in_many_steps(folder)
    assert same(weights(tmp_path / "whole"), weights(folder))


def test_a_checkpoint_that_was_not_finished_is_taken_away(tmp_path):
    for number, text in ((2, '{"global_step": 2}'), (4, '{"global_s')):
        (tmp_path / "checkpoints" / f"checkpoint-{number}").mkdir(parents=True)
        (tmp_path / "checkpoints" / f"checkpoint-{number}" / "trainer_state.json").write_text(text)
    assert last_checkpoint(tmp_path).name == "checkpoint-2"
    assert not (tmp_path / "checkpoints" / "checkpoint-4").exists()


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"data": DATA[:-1]}, "rows was 12, now 11"),
        ({"rank": 4}, "rank was 2, now 4"),
        ({"budgets": "3-9"}, "budgets was 2-9, now 3-9"),
        ({"label_free": True}, "label_free was False, now True"),
    ],
)
def test_another_run_does_not_go_on_there(tmp_path, change, sentence):
    trained(tmp_path / "run", steps=1)
    before = weights(tmp_path / "run")
    with pytest.raises(PrumergeError, match=sentence):
        trained(tmp_path / "run", **{"steps": 1, **change})
    assert same(before, weights(tmp_path / "run"))


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(PrumergeError, match="holds other things than a run"):
        trained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def on_a_full_disk(folder):
    def limit(what, done, total):
        if what == "training" and done == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))

    with pytest.raises(PrumergeError, match=r"cannot be written .*goes on from the last whole checkpoint"):
        trained(folder, track=limit)


def test_a_full_disk_is_one_sentence_and_what_was_saved_is_whole(tmp_path):
    running = forked(on_a_full_disk, tmp_path / "run")
    running.join()
    assert running.exitcode == 0
    assert trained(tmp_path / "run").finished
    trained(tmp_path / "other")
    assert same(weights(tmp_path / "run"), weights(tmp_path / "other"))


def test_a_missing_file_is_a_fault_in_code_and_stays_one(tmp_path):
    with pytest.raises(FileNotFoundError), on_disk(tmp_path):
        (tmp_path / "nowhere" / "file").read_text()


def clips(count):
    return [{"question": "w5 w6", "answer": "w7", "video": [drawn(n), drawn(n + 1)]} for n in range(count)]


def test_a_method_that_compares_frames_sees_a_clip_as_one_video(tmp_path):
    model, processor = subject()
    assert train(model, processor, clips(4), "vidcom2", output=tmp_path, **{**USUAL, "budgets": "4"}).finished


def test_a_method_that_compares_frames_is_not_trained_on_pictures(tmp_path):
    model, processor = subject()
    with pytest.raises(
        PrumergeError, match="vidcom2 compares the frames of a clip, and row 3 shows a picture"
    ):
        train(model, processor, [*clips(2), DATA[0]], "vidcom2", output=tmp_path, **{**USUAL, "budgets": "4"})


@pytest.mark.parametrize(
    "more, sentence",
    [
        ({"budgets": "a few"}, "budgets are whole numbers"),
        ({"rate": 0}, "rate must be above 0"),
        ({"dropout": 2}, "dropout is a share"),
        ({"steps": 0}, "steps must be above 0"),
        ({"held_out": 12}, "12 of 12 rows cannot be held out"),
        ({"report": ["telegraph"]}, "reports go to tensorboard or wandb"),
    ],
)
def test_what_is_no_recipe_is_said_before_anything_is_written(tmp_path, more, sentence):
    with pytest.raises(PrumergeError, match=sentence):
        trained(tmp_path / "run", **more)
    assert not (tmp_path / "run" / "adapter").exists()


def test_a_method_with_a_budget_of_its_own_is_not_given_another(tmp_path):
    with pytest.raises(PrumergeError, match="give it by --budgets alone"):
        model, processor = subject()
        train(model, processor, DATA, "prumerge:keep=4", output=tmp_path, budgets="2-9")


def test_an_epoch_is_every_row_once(tmp_path):
    rows = Rows.read(DATA)
    recipe = prumerge.train.Recipe(batch=2, accumulate=2, epochs=2)
    model, processor = subject()
    assert Run(model, processor, rows, output=tmp_path, recipe=recipe).steps == 6
