"""Every question to every method, at equal numbers of tokens, none of them twice."""

from collections import Counter
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from builders import visual_tokens

import prumerge
from prumerge.evaluate.answering import Asker
from prumerge.evaluate.log import Log
from prumerge.evaluate.plan import Job, Plan, at
from prumerge.evaluate.records import by_method
from prumerge.evaluate.run import ask, run
from prumerge.generate.answer import answer
from prumerge.loading.fingerprint import fingerprint
from prumerge.loading.prompts import prepare
from prumerge.pipeline.options import Options
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline
from prumerge.spec import make
from prumerge.tiny.architecture import PRESETS, make_model
from prumerge.tiny.benchmarks import BENCHMARKS, WHOLE, pictures, video
from prumerge.tiny.vocabulary import make_processor

METHODS = [
    name
    for name in prumerge.names()
    if name != "none" and "frames" not in make(name).needs and make(name).place != "language model"
]


def plan(methods="prumerge,spatial", budgets="36", tasks="existence,perception", questions=WHOLE):
    return Plan.read(methods, budgets, tasks, questions)


def short(the_plan, questions):
    """The same plan with so few questions that pairs may be torn."""
    tasks = {name: replace(source, count=questions) for name, source in the_plan.tasks.items()}
    return replace(the_plan, tasks=tasks)


FEW = 6


def few(*given, **options):
    """A plan with a few questions for each task."""
    return short(plan(*given, **options), FEW)


# what is asked


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("budget", [2, 36, 144, 575, 576])
def test_every_method_hands_over_exactly_the_budget(name, budget):
    job = at(name, budget, visual_tokens())
    assert job.label == f"{name}@{budget}"
    assert len(make(job.spec)(visual_tokens(seed=1))) == budget  # of another picture than was counted on


@pytest.mark.parametrize(
    "spec", ["prumerge:variant=paper", "prumerge:k=auto,merge=average", "prumerge_plus:k=0"]
)
def test_options_stay_beside_the_budget(spec):
    job = at(spec, 36, visual_tokens())
    assert job.label == f"{spec}@36"
    assert len(make(job.spec)(visual_tokens(seed=1))) == 36


@pytest.mark.parametrize("name", ["fastv", "pyramiddrop", "sparsevlm", "prumerge+fastv"])
def test_inside_the_language_model_keep_is_what_the_paper_calls_so(name):
    assert at(name, 36, visual_tokens()) == Job(f"{name}@36", f"{name}:keep=36")


@pytest.mark.parametrize(
    ("chain", "spec"),
    [
        ("topk:keep=100+prumerge", "topk:keep=100+prumerge:keep=35"),
        ("tome:r=4+prumerge:k=8", "tome:r=4+prumerge:k=8,keep=35"),
        ("prumerge:keep=99+spatial", "prumerge:keep=99+spatial:keep=36"),
    ],
)
def test_the_last_of_a_chain_gets_the_budget(chain, spec):
    assert at(chain, 36, visual_tokens()) == Job(f"{chain}@36", spec)
    assert plan(chain).methods == (chain, "random")


def test_a_budget_that_a_method_cannot_meet_is_refused():
    with pytest.raises(ValueError, match="prumerge cannot hand over as few as 1 visual tokens"):
        at("prumerge", 1, visual_tokens())
    with pytest.raises(ValueError, match="more than the 576 visual tokens"):
        at("topk", 577, visual_tokens())


def test_none_and_random_always_take_part():
    jobs = plan("topk", "36,144").fixed(visual_tokens())
    assert [job.label for job in jobs] == ["none", "topk@36", "random@36", "topk@144", "random@144"]
    assert jobs[0] == Job("none", "none")


def test_what_is_named_twice_is_asked_once():
    twice = plan("topk, none,topk,random", "36,36,auto", "choice,choice,reading")
    assert (twice.methods, twice.budgets, twice.adaptive) == (("topk", "random"), (36,), True)
    assert tuple(twice.tasks) == ("choice", "reading")
    assert tuple(plan(tasks="all,video,choice").tasks) == (*BENCHMARKS, "video")


def test_budgets_are_counts_or_shares():
    assert plan("topk", "36,25%,0.25,auto").budgets == (36, 0.25)


def test_options_belong_to_the_method_before_them():
    specs = plan("prumerge:k=8,iqr=2,topk,prumerge_plus:heads=split,iqr=2").methods
    assert specs == ("prumerge:k=8,iqr=2", "topk", "prumerge_plus:heads=split,iqr=2", "random")


def test_only_adaptive_methods_choose_themselves():
    labels = [job.label for job in plan("prumerge,spatial,prumerge_plus:k=8", "auto").own_choice()]
    assert labels == ["prumerge@auto", "prumerge_plus:k=8@auto"]
    assert plan("prumerge", "36").own_choice() == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"methods": "prune"}, "there is no method 'prune' .did you mean 'hiprune'.*; choose one of: "),
        ({"methods": "topk,"}, "there is no method ''; choose one of"),
        ({"methods": "topk:size=3"}, "topk has no option 'size'; it has: keep"),
        (
            {"methods": "topk:keep=3"},
            "topk:keep=3: budgets are the same for all methods, give them by --keep",
        ),
        ({"budgets": "few"}, "budgets are whole numbers .*, such as 36,25%,auto, not 'few'"),
        ({"budgets": "0"}, "budgets are whole numbers"),
        ({"budgets": "1.5"}, "budgets are whole numbers"),
        ({"budgets": "100%"}, "budgets are whole numbers"),
        ({"budgets": "nan"}, "budgets are whole numbers"),
        ({"budgets": ""}, "budgets are whole numbers"),
        (
            {"tasks": "colours"},
            "there is no task 'colours'; choose one of: all, attribute, choice, reading",
        ),
        ({"questions": 500}, "groups of 24, .*: 480 or 504, not 500"),
        ({"questions": 1}, "24 or 48, not 1"),
        ({"questions": 0}, "24 or 48, not 0"),
        ({"questions": -12}, "24 or 48, not -12"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_in_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        plan(**changes)


def test_a_model_that_was_trained_further_is_another_one(model):
    before = fingerprint(model)
    assert fingerprint(model) == before
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.bias += 1e-3
    assert fingerprint(model) != before
    assert plan().settings("tiny", model)["weights"] == fingerprint(model)


# asking


@pytest.fixture(scope="module")
def tiny(small):
    return prumerge.load(str(small))


@pytest.fixture(scope="module")
def shipped():
    return prumerge.load("tiny")


@pytest.fixture(scope="module")
def deep():
    """An untrained model as deep as the embedded one, but narrow."""
    torch.manual_seed(0)
    model = make_model(replace(PRESETS["full"], vision_width=32, vision_heads=2, width=32, heads=2, ff=64))
    return model.eval(), make_processor()


def asked(tiny, the_plan, log):
    """Run, and the progress that was reported."""
    steps = []
    model, processor = tiny
    run(model, processor, the_plan, log, lambda done, total: steps.append((done, total)))
    return steps


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """A run of two methods at 36 tokens and by the one's own choice."""
    log = Log(tmp_path_factory.mktemp("run") / "answers.jsonl", {})
    steps = asked(tiny, few(budgets="36,auto"), log)
    return log, steps


def said(records):
    return {record.key: (record.prediction, record.score, record.tokens_kept) for record in records}


def test_every_method_answers_every_question_once(whole):
    log, steps = whole
    questions = sorted(item.id for _, items in pictures(FEW, ("existence", "perception")) for item in items)
    for label, records in by_method(log.records).items():
        assert [record.id for record in records] == questions, label
    assert sum(done for done, _ in steps) == steps[-1][1] == len(log.records)


def test_budgets_are_met_and_adaptive_methods_have_rivals_at_their_mean(whole):
    groups = by_method(whole[0].records)
    kept = {label: {record.tokens_kept for record in records} for label, records in groups.items()}
    mean = round(fmean(record.tokens_kept for record in groups["prumerge@auto"]))
    assert len(kept["prumerge@auto"]) > 1
    assert kept == {
        "none": {576},
        **{f"{name}@36": {36} for name in ("prumerge", "spatial", "random")},
        "prumerge@auto": kept["prumerge@auto"],
        **{f"{name}@{mean}": {mean} for name in ("spatial", "random")},
    }


def test_methods_inside_tower_and_language_model_are_asked_too(shipped, tmp_path):
    log = Log(tmp_path / "answers.jsonl", {})
    methods = "fastv,tome,tome:r=60+prumerge,pyramiddrop"
    asked(shipped, short(plan(methods, tasks="existence"), 2), log)
    groups = by_method(log.records)
    kept = {label: {record.tokens_kept for record in records} for label, records in groups.items()}
    assert kept == {
        "none": {576},
        "fastv@36": {(576 + 576 + 36 + 36) / 4},
        "tome@36": {36},
        "tome:r=60+prumerge@36": {36},
        "pyramiddrop@36": {(576 + 228 + 90 + 36) / 4},
        "random@36": {36},
    }
    assert {record.tokens_in for record in log.records} == {576}
    drawn, items = next(pictures(2, ("existence",)))
    for label, spec in [("fastv@36", "fastv:keep=36"), ("tome@36", "tome:keep=36")]:
        alone = answer(shipped[0], shipped[1], drawn.image, items[0].question, make(spec))
        (record,) = (record for record in groups[label] if record.id == items[0].id)
        assert (record.prediction, record.tokens_kept) == (alone.answer, alone.visual_tokens)
        with prumerge.attach(shipped[0], spec) as attached:
            inputs = prepare(shipped[1], drawn.image, items[0].question)
            said = shipped[0].generate(**inputs, max_new_tokens=12, do_sample=False)
            assert attached.average_tokens == [record.tokens_kept]
        said = shipped[1].decode(said[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert said.strip() == record.prediction


def test_a_batch_answers_what_each_question_alone_gets(shipped, tmp_path):
    log = Log(tmp_path / "answers.jsonl", {})
    asked(shipped, short(plan("prumerge", "36,auto", "existence,attribute"), 2), log)
    answers = said(log.records)
    for drawn, items in pictures(2, ("existence", "attribute")):
        for label, spec in [
            ("none", "none"),
            ("prumerge@36", "prumerge:keep=35"),
            ("prumerge@auto", "prumerge"),
        ]:
            for item in items:
                alone = answer(shipped[0], shipped[1], drawn.image, item.question, make(spec))
                assert answers[label, item.benchmark, item.id][::2] == (alone.answer, alone.visual_tokens)


def test_times_are_there(whole):
    for record in whole[0].records:
        assert record.encode_ms > 0
        assert record.prefill_ms > 0
        assert min(record.reduce_ms, record.decode_ms) >= 0


def test_a_picture_is_encoded_once_for_all_methods_and_questions(tiny, tmp_path, monkeypatch):
    encode, pictures_encoded = Pipeline.encode, []

    def note(self, prompt: Prompt):
        found = encode(self, prompt)
        pictures_encoded.append(len(found))
        return found

    monkeypatch.setattr(Pipeline, "encode", note)
    asked(tiny, few(), Log(tmp_path / "answers.jsonl", {}))
    scenes = len(list(pictures(FEW, ("existence", "perception"))))
    assert sum(pictures_encoded) == scenes + 1  # and one to count on


@pytest.mark.parametrize("cut", [20, 54])  # at the budget, and while methods choose themselves
def test_a_run_that_was_stopped_goes_on_and_ends_the_same(whole, tiny, tmp_path, monkeypatch, cut):
    before, _ = whole
    log = Log(tmp_path / "answers.jsonl", {})
    for record in before.records[:cut]:
        log.append(record)
    log = Log(log.path, {})
    new = len(before.records) - len(log.records)
    prompts = []
    generate = tiny[0].generate

    def noted(**given):
        prompts.append(len(given["input_ids"]))
        return generate(**given)

    monkeypatch.setattr(tiny[0], "generate", noted)
    asked(tiny, few(budgets="36,auto"), log)
    questions = len({record.place for record in before.records})
    assert new <= sum(prompts) <= new + questions  # the untouched model is listened to once again
    assert Counter(record.key for record in log.records).most_common(1)[0][1] == 1
    assert said(log.records) == said(before.records)
    assert list(by_method(log.records)) == list(by_method(before.records))


def test_a_finished_run_asks_nothing(whole, tiny, monkeypatch):
    log, _ = whole
    before = len(log.records)
    monkeypatch.setattr(tiny[0], "generate", None)
    steps = asked(tiny, few(budgets="36,auto"), log)
    assert len(log.records) == before
    assert sum(done for done, _ in steps) == before


def test_no_picture_is_opened_about_which_all_is_answered(whole, tiny):
    log, _ = whole
    the_plan, steps = few(), []
    closed = [(lambda: pytest.fail("opened"), questions) for _, questions in the_plan.showings]
    model, processor = tiny
    ask(Asker(model, processor, Options()), the_plan.fixed(visual_tokens()), closed, log, steps.append)
    assert sum(steps) == 4 * 2 * FEW


def test_many_questions_about_a_picture_are_answered_in_parts(whole, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("prumerge.evaluate.run.ROWS", 3)
    log, rows, generate = Log(tmp_path / "answers.jsonl", {}), [], tiny[0].generate

    def noted(**given):
        rows.append(len(given["input_ids"]))
        return generate(**given)

    monkeypatch.setattr(tiny[0], "generate", noted)
    asked(tiny, few("spatial"), log)
    assert max(rows) == 3
    answers = said(whole[0].records)
    assert said(log.records) == {key: answers[key] for key in said(log.records)}


def test_a_run_is_extended_by_methods_and_tasks(tiny, tmp_path):
    log = Log(tmp_path / "answers.jsonl", {})
    asked(tiny, few("spatial", tasks="existence"), log)
    assert len(log.records) == 3 * FEW
    asked(tiny, few("pool", tasks="existence"), log)
    assert len(log.records) == 4 * FEW
    asked(tiny, few("spatial", tasks="existence,choice"), log)
    counts = {label: len(records) for label, records in by_method(log.records).items()}
    assert counts == {"none": 2 * FEW, "spatial@36": 2 * FEW, "random@36": 2 * FEW, "pool@36": FEW}


def test_what_is_scored_is_what_is_saved(tiny, tmp_path, monkeypatch):
    log = Log(tmp_path / "answers.jsonl", {})
    monkeypatch.setattr(tiny[1], "batch_decode", lambda ids, **_: ["\nNo "] * len(ids))
    asked(tiny, few("spatial", tasks="existence"), log)
    assert {record.prediction for record in log.records} == {"No"}
    assert all(record.score == (record.gold == ("no",)) for record in log.records)


def test_a_clip_is_asked_with_the_tokens_of_all_its_frames(tiny, tmp_path):
    model, processor = tiny
    asking = short(plan("topk", "36", "video"), 3)
    log = Log(tmp_path / "answers.jsonl", asking.settings("tiny", model))
    run(model, processor, asking, log, lambda done, total: None)
    groups = by_method(log.records)
    assert {label: len(records) for label, records in groups.items()} == dict.fromkeys(
        ("none", "topk@36", "random@36"), 3
    )
    assert {record.tokens_in for record in log.records} == {8 * 576}
    assert {record.tokens_kept for record in groups["topk@36"]} == {8 * 36}


@pytest.mark.parametrize("spec", ["fastv", "tome+prumerge"])
def test_a_clip_counts_the_tokens_of_all_its_frames_wherever_they_go(deep, tmp_path, spec):
    log = Log(tmp_path / "answers.jsonl", {})
    asked(deep, short(plan(spec, "36", "video"), 1), log)
    groups = by_method(log.records)
    expected = {"fastv": 8 * (576 + 576 + 36 + 36) / 4, "tome+prumerge": 8 * 36}
    assert {record.tokens_kept for record in groups[f"{spec}@36"]} == {expected[spec]}
    assert {record.tokens_in for record in log.records} == {8 * 576}


@pytest.mark.parametrize(("spec", "budget"), [("evs", 80), ("vidcom2", 36), ("topk@merged", 16)])
def test_methods_that_compare_frames_divide_the_budget_of_a_clip_themselves(deep, tmp_path, spec, budget):
    log = Log(tmp_path / "answers.jsonl", {})
    asking = short(plan(spec, str(budget), "video"), 1)
    run(deep[0], deep[1], asking, log, lambda done, total: None)
    records = by_method(log.records)[f"{spec}@{budget}"]
    assert {record.spec.partition("@")[0] for record in records} == {
        f"{spec.partition('@')[0]}:keep={8 * budget}"
    }
    assert {record.tokens_in for record in records} == {8 * 576}
    assert {record.tokens_kept for record in records} == {8 * budget}
    [clip] = video(1)
    inputs = prepare(deep[1], [frame.image for frame in clip[0].frames], clip[1][0].question)
    with prumerge.attach(deep[0], records[0].spec, clip=True) as attached:
        said = deep[0].generate(**inputs, max_new_tokens=12, do_sample=False)
    answer = deep[1].decode(said[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert answer == records[0].prediction
    assert attached.average_tokens == [records[0].tokens_kept]


def test_rivals_on_clips_get_the_mean_of_one_frame(tiny, tmp_path):
    log = Log(tmp_path / "answers.jsonl", {})
    asked(tiny, short(plan("topk", "auto", "video"), 2), log)
    groups = by_method(log.records)
    own = sum(record.tokens_kept for record in groups["topk@auto"]) / 2 / 8
    assert {record.tokens_kept for record in groups[f"random@{round(own)}"]} == {8 * round(own)}


@pytest.mark.parametrize("spec", ["cdpruner:keep=36", "trim:keep=35", "tome:r=60+cdpruner:keep=36"])
def test_methods_that_read_the_text_decide_for_each_question(shipped, spec, tmp_path):
    log = Log(tmp_path / "answers.jsonl", {})
    chosen = spec.rpartition(":")[0]
    asked(shipped, short(plan(chosen, "36", "existence,attribute"), 2), log)
    answers = said(log.records)
    assert {record.spec for record in log.records if record.method == f"{chosen}@36"} == {spec}
    for drawn, items in pictures(2, ("existence", "attribute")):
        for item in items:
            alone = answer(shipped[0], shipped[1], drawn.image, item.question, make(spec))
            assert answers[f"{chosen}@36", item.benchmark, item.id][::2] == (
                alone.answer,
                alone.visual_tokens,
            )


def test_what_is_asked_changes_what_such_a_method_keeps(tiny, monkeypatch, tmp_path):
    kept = []

    decide = Pipeline.decide

    def note(self, pictures):
        found = decide(self, pictures)
        kept.append([one.reduction.index.tolist() for one in found])
        return found

    monkeypatch.setattr(Pipeline, "decide", note)
    asked(tiny, few("cdpruner", tasks="existence"), Log(tmp_path / "answers.jsonl", {}))
    questions = next(indexes for indexes in kept if len({len(index) for index in indexes} - {36}) == 0)
    assert len(set(map(tuple, questions))) > 1


@pytest.mark.parametrize("name", ["evs", "vidcom2"])
def test_methods_that_compare_frames_are_refused(tiny, tmp_path, name):
    with pytest.raises(ValueError, match=f"{name}.* needs the frames of a video .* use for example"):
        asked(tiny, few(name, tasks="existence"), Log(tmp_path / "answers.jsonl", {}))
