"""A task is a file; every one says what it is, and the drawn ones are scored as what they mirror."""

import subprocess
import sys
from pathlib import Path

import pytest
from builders import record

import prumerge
from prumerge.errors import PrumergeError
from prumerge.evaluate.asked import showings
from prumerge.evaluate.tasks import DRAWN, SCENES, names, task
from prumerge.evaluate.tasks._task import Question, Scored, Source, Task
from prumerge.tiny.benchmarks import BENCHMARKS

FILES = (Path(prumerge.__file__).parent / "evaluate" / "tasks").glob("[!_]*.py")


def question(name, gold, **more):
    return Question(name, "0", "0", "what is it?", (gold,), **more)


def test_tasks_are_the_names_of_their_files_those_that_draw_first():
    assert sorted(names()) == sorted(path.stem for path in FILES)
    assert names()[: len(DRAWN)] == DRAWN == (*BENCHMARKS, "video", "hard")


def test_listing_tasks_imports_none_of_them_and_describing_them_no_torch():
    code = (
        "import sys; from prumerge.evaluate.tasks import names, task; names(); "
        "assert not any(f'prumerge.evaluate.tasks.{name}' in sys.modules for name in names()); "
        "assert all(task(name).measure for name in names()); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_name_that_is_no_task_is_refused_with_the_nearest():
    with pytest.raises(PrumergeError, match=r"'existance' .did you mean 'existence'.*choose one of: attri"):
        task("existance")


@pytest.mark.parametrize("name", names())
def test_every_task_says_what_it_mirrors_and_how_it_is_measured(name):
    found = task(name)
    assert isinstance(found, Task)
    assert found.mirrors
    assert found.measure
    assert found.max_new_tokens > 0


def test_an_answer_on_disk_is_what_tasks_summarise():
    assert isinstance(record(), Scored)


# the drawn ones


@pytest.mark.parametrize(
    ("name", "prediction", "gold", "expected"),
    [
        ("attribute", "Red.", "red", 1.0),
        ("video", "Left", "left", 1.0),
        ("hard", "Red star.", "red star", 1.0),
        ("hard", "star", "red star", 0.0),
        ("reading", "exit", "exit", 1.0),
        ("reading", "exi", "exit", 0.0),
        ("existence", "banana", "yes", 1.0),
        ("existence", "banana", "no", 0.0),
        ("perception", "banana", "yes", 0.0),
        ("perception", "banana", "no", 0.0),
        ("choice", "c", "C", 1.0),
        ("choice", "star", "C", 0.0),
        ("circular", "(c)", "C", 1.0),
    ],
)
def test_each_is_scored_by_the_rules_of_the_one_it_mirrors(name, prediction, gold, expected):
    assert task(name).score(question(name, gold, options=4), prediction) == expected


def test_existence_is_the_mean_f1_of_its_splits():
    def one(split, prediction, gold):
        return record(task="existence", split=split, prediction=prediction, gold=gold, score=0.0)

    rows = [one("random", "yes", "yes"), one("random", "no", "no"), one("popular", "Yes.", "yes")]
    summary = task("existence").summary
    assert summary(rows) == 100
    assert summary([*rows, one("popular", "garbage", "no")]) == pytest.approx((100 + 200 / 3) / 2)


def test_perception_adds_pairs_and_circular_wants_all_rotations():
    pairs = [
        record(task="perception", split="colour", group=group, score=score)
        for group, score in [("1", 1.0), ("1", 1.0), ("2", 1.0), ("2", 0.0)]
    ]
    assert task("perception").summary(pairs) == 75 + 50
    turns = [record(task="circular", group=str(place // 4), score=float(place > 0)) for place in range(8)]
    assert task("circular").summary(turns) == 50


def test_hard_is_the_mean_of_its_families():
    scored = [("counting", 1.0), ("counting", 0.0), ("grid", 1.0)]
    rows = [record(task="hard", split=family, score=score) for family, score in scored]
    assert task("hard").details(rows) == {"counting": 50, "grid": 100}
    assert task("hard").summary(rows) == 75


def test_hard_asks_as_many_as_are_wanted_and_draws_what_it_asks_about():
    read = list(task("hard").read(Source(count=24)))
    assert sum(len(questions) for _, questions in read) == 24
    [picture] = read[0][0]()
    assert picture.size == (336, 336)


@pytest.mark.parametrize("unseen", [{}, {"unseen": "yes"}])
def test_tasks_about_scenes_ask_together_what_each_asks_alone(unseen):
    source = Source(count=24, options=unseen)
    together = list(showings(dict.fromkeys(SCENES, source)))
    keys = [questions[0].picture for _, questions in together]
    assert keys == sorted(set(keys))
    assert all(
        {one.picture for one in questions} == {key}
        for key, (_, questions) in zip(keys, together, strict=True)
    )
    asked = [one for _, questions in together for one in questions]
    for name in SCENES:
        alone = [one for _, questions in task(name).read(source) for one in questions]
        assert [one for one in asked if one.task == name] == alone
        assert len(alone) == 24


def test_a_scene_is_drawn_when_it_is_shown_and_a_clip_has_its_frames():
    (opens, questions), *_ = task("attribute").read(Source(count=1))
    [picture] = opens()
    assert (picture.size, questions[0].task) == ((336, 336), "attribute")
    (opens, _), *_ = task("video").read(Source(count=1))
    assert len(opens()) == task("video").frames == 8


def test_unseen_is_yes_or_no():
    with pytest.raises(PrumergeError, match="unseen is yes or no, not 'maybe'"):
        next(task("video").read(Source(options={"unseen": "maybe"})))
