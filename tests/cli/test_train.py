"""`prumerge train` on the command line."""

import json

import pytest
from families import FAMILIES
from PIL import Image
from processors import PROCESSORS
from training import drawn


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, a picture, and rows about it."""
    folder = tmp_path_factory.mktemp("data")
    FAMILIES["Llava"].model().save_pretrained(folder / "checkpoint")
    PROCESSORS["Llava"]().save_pretrained(folder / "checkpoint")
    drawn().save(folder / "one.png")
    rows = [{"id": n, "image": "one.png", "question": "w5 w6", "answer": "w7"} for n in range(4)]
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture
def train(run, folder, tmp_path):
    """Train on the rows; what is given comes on top."""

    def train(*more, data="rows.json"):
        small = ["--steps", "2", "--batch", "2", "--rank", "2", "--alpha", "4"]
        small += ["--budgets", "3-9", "--device", "cpu"]
        model = ["--model", str(folder / "checkpoint"), "-o", str(tmp_path / "run")]
        return run("train", *([str(folder / data)] if data else []), *model, *small, *more)

    return train


def test_it_says_how_the_loss_moved_and_where_things_are(train, tmp_path):
    code, out, err = train("--held-out", "1")
    assert code == 0, err
    assert "after 2 steps" in out and "held-out loss at first" in out
    for part in ("adapter", "model"):
        assert str(tmp_path / "run" / part) in out
        assert (tmp_path / "run" / part / "prumerge.json").is_file()
    with Image.open(tmp_path / "run" / "loss.png") as picture:
        assert picture.width > 600


def test_as_json_it_is_what_was_logged(train, tmp_path):
    found = json.loads(train("--json")[1])
    assert found["output"] == str(tmp_path / "run")
    assert [entry["step"] for entry in found["log"] if "loss" in entry] == [1, 2]


def test_the_same_command_again_finds_it_done(train):
    first, again = (json.loads(train("--json")[1]) for _ in range(2))
    losses = [[entry["loss"] for entry in one["log"] if "loss" in entry] for one in (first, again)]
    assert losses[0] == losses[1]


def test_a_model_says_what_it_was_adapted_to(train, run, folder, tmp_path):
    train()
    model = str(tmp_path / "run" / "model")
    _, _, err = run("answer", str(folder / "one.png"), "w5", "--model", model, "--device", "cpu")
    assert "this model was adapted to prumerge_plus at 3-9 visual tokens" in err


@pytest.mark.parametrize("more", [[], ["--label-free"], ["--train", "projector"]])
def test_a_dry_run_shows_the_first_batch_and_writes_nothing(train, tmp_path, more):
    code, out, _ = train("--dry-run", "--json", *more)
    shown = json.loads(out)
    assert code == 0
    assert [one["trained"].split() for one in shown["first"]] == [
        ["w2"] if more[:1] == ["--label-free"] else ["w7", "w2"]
    ] * 2
    assert shown["visual_before"] == 32 and len(shown["visual_after"]) == 2
    assert shown["visual_after"][0] < shown["visual_after"][1] < 32
    assert 0 < shown["trained_parameters"] < shown["parameters"]
    assert shown["seconds_a_step"] > 0 and shown["saved_mib"] > 0
    assert not (tmp_path / "run").exists()


def test_a_dry_run_reads_well(train):
    _, out, _ = train("--dry-run")
    assert "trained text" in out and "a step here" in out and "kept for the backward pass" in out


def test_pictures_alone_are_enough_without_labels(train, folder, tmp_path):
    (folder / "pictures").mkdir(exist_ok=True)
    drawn(1).save(folder / "pictures" / "a.png")
    code, _, err = train("--label-free", data="pictures")
    assert code == 0, err
    assert (tmp_path / "run" / "teacher" / "000000.safetensors").is_file()


@pytest.mark.parametrize(
    "more, data, sentence",
    [
        ([], None, "Missing argument 'DATA'"),
        (["--quick"], "rows.json", "--quick draws its own rows"),
        (["--budgets", "many"], "rows.json", "budgets are whole numbers"),
        (["--budgets", "144-16"], "rows.json", "a range of budgets goes from few to many"),
        (["--train", "tower"], "rows.json", "what is trained is lora, projector, full"),
        (["--rate", "-1"], "rows.json", "rate must be above 0"),
        (["--reducer", "prumerg"], "rows.json", "did you mean 'prumerge'"),
        (["--reducer", "prumerge:keep=4"], "rows.json", "give it by --budgets alone"),
        (["--report", "telegraph"], "rows.json", "reports go to tensorboard or wandb"),
        ([], "nothing.json", "nothing.json"),
        ([], "pictures", "has no answers to learn"),
        (["--images", "/nowhere"], "rows.json", "there is no folder of pictures at"),
    ],
)
def test_what_cannot_be_is_one_sentence(train, folder, tmp_path, more, data, sentence):
    (folder / "pictures").mkdir(exist_ok=True)
    code, out, err = train(*more, data=data)
    assert (code, out) == (2, "")
    assert sentence in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_another_data_file_does_not_go_on(train, folder):
    assert train()[0] == 0
    other = json.loads((folder / "rows.json").read_text())
    other[0]["answer"] = "w8"
    (folder / "other.json").write_text(json.dumps(other))
    code, _, err = train(data="other.json")
    assert code == 2
    assert "is a run with other settings (data was" in err and "choose another --output" in err
