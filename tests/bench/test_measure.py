"""Cases of a small model: every stage, what is counted in it, and the prediction beside it."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from families import FAMILIES
from processors import PROCESSORS

import prumerge
from prumerge.bench import run as running
from prumerge.bench.case import STAGES, Case
from prumerge.bench.machine import launch_ms, measured
from prumerge.bench.memory import PeakMemory
from prumerge.bench.prediction import predict
from prumerge.bench.run import measure, runs
from prumerge.bench.timer import CpuClock
from prumerge.bench.trace import trace
from prumerge.errors import PrumergeError
from prumerge.loading.prompts import prepare_batch
from prumerge.pipeline.reduce import Pipeline
from prumerge.roofline import calibrate as calibration
from prumerge.roofline.hardware import machine
from prumerge.tiny import samples
from prumerge.tiny.architecture import PRESETS, make_model
from prumerge.tiny.vocabulary import make_processor

NEW, CPU = 4, torch.device("cpu")


@pytest.fixture(scope="module")
def case():
    """Two pictures for an untrained model of two layers, by a method."""
    torch.manual_seed(0)
    model, processor = make_model(replace(PRESETS["test"], layers=2)).eval(), make_processor()
    images = [[prumerge.open_image(sample.path)] for sample in samples()[:2]]
    inputs = prepare_batch(processor, images, ["is there a heart?", "what does the sign say?"])
    return lambda spec: Case(model, Pipeline(spec), inputs, NEW)


@pytest.fixture
def laps(case):
    """The stages of a run in order, and what was read."""

    def run(spec):
        names = []
        return names, case(spec).run(names.append)

    return run


@pytest.mark.parametrize("spec", ["none", "prumerge:keep=36", "topk:keep=36+fastv:keep=10,layer=1"])
def test_a_run_takes_every_stage_and_all_tokens_of_the_answer(laps, spec):
    names, _ = laps(spec)
    assert names == [*STAGES[:-1], *["decode"] * (NEW - 1)]


@pytest.mark.parametrize(
    ("spec", "visual"),
    [("none", 576), ("prumerge:keep=36", 37), ("spatial:keep=36", 36), ("tome:r=50", 526)],
)
def test_what_was_read_is_counted(laps, spec, visual):
    _, read = laps(spec)
    assert set(read.visual) == {visual}
    assert read.encoded == 576


def test_the_tokens_of_methods_inside_the_language_model_are_those_of_each_layer(laps):
    assert laps("topk:keep=36+fastv:keep=10,layer=1")[1].visual == (36, 10)


@pytest.mark.parametrize("spec", ["none", "prumerge:keep=36"])
def test_the_products_are_those_of_the_prediction(case, spec):
    one = case(spec)
    found = trace(one.run, CpuClock(), CPU)
    predicted = predict(one, one.run(lambda name: None), machine("h100")).stages
    for stage in ("encode", "project", "prefill"):  # the rest: the class token's query, and its attention
        assert found[stage].flops == pytest.approx(predicted[stage].flops, rel=2e-3), stage


def test_a_stage_that_the_roofline_does_not_know_is_not_predicted(case):
    def known(spec):
        one = case(spec)
        return set(predict(one, one.run(lambda name: None), machine("h100")).stages)

    assert known("prumerge:keep=36") == {"encode", "decide", "project", "prefill", "decode"}
    assert known("none") == {"encode", "project", "prefill", "decode"}
    assert known("tome:r=50") == {"project", "prefill", "decode"}


@pytest.mark.parametrize("name", ["Qwen2VL", "InternVL"])
def test_where_the_projector_joins_patches_it_is_part_of_encoding(name):
    images = [[prumerge.open_image(samples()[0].path)]]
    inputs = prepare_batch(PROCESSORS[name](), images, ["w5 w6"])
    one = Case(FAMILIES[name].model(), Pipeline("pool:keep=4"), inputs, 2)
    predicted = predict(one, one.run(lambda name: None), machine("h100")).stages
    assert {op.name for op in predicted["project"].ops} == {"merge"}
    found = trace(one.run, CpuClock(), CPU)["encode"]
    assert found.flops == pytest.approx(predicted["encode"].flops, rel=0.05)  # queries of all patches


def test_cases_are_measured_beside_the_prediction(case):
    cases, told = [case("none"), case("prumerge:keep=36")], []
    everything, few = measure(cases, machine("h100"), 3, lambda: told.append(1))
    assert len(told) == runs(cases, 3)
    assert [row.name for row in few.rows] == [*STAGES, "first token", "tokens/s", "peak MB"]
    assert few.first_token.measured.median > 0
    assert few.first_token.predicted == pytest.approx(sum(row.predicted or 0 for row in few.stages[:-1]))
    assert few.stages[4].predicted < everything.stages[4].predicted
    assert few.tokens_per_s.measured.q25 <= few.tokens_per_s.measured.median
    assert few.peak_mb.measured.median > few.peak_mb.predicted
    assert few.operators["prefill"] > 0


def test_without_a_machine_nothing_is_predicted(case):
    (one,) = measure([case("spatial:keep=36")], None, 1)
    assert {row.predicted for row in one.rows} == {None}
    assert {row.why for row in one.rows} == {""}


def test_where_encoding_is_not_predicted_neither_is_the_first_token(case):
    (one,) = measure([case("tome:r=50")], machine("h100"), 1)
    predicted = {row.name for row in one.rows if row.predicted is not None}
    assert predicted == {"project", "prefill", "decode", "peak MB"}


@pytest.mark.parametrize(("load", "busy"), [(1.0, False), (1000.0, True)])
def test_its_own_threads_do_not_make_a_machine_busy(case, monkeypatch, load, busy):
    monkeypatch.setattr(running, "load", lambda: load)
    monkeypatch.setattr(running, "reason", lambda *_, busy: str(busy))
    (one,) = measure([case("none")], machine("h100"), 1)
    assert one.first_token.why == str(busy)


def test_a_peak_is_what_was_held_at_once_and_is_forgotten_before_the_next():
    memory = PeakMemory(CPU)

    def seen() -> bool:
        memory.start()
        before, held = memory.read(), torch.ones(64 << 20, dtype=torch.uint8)
        rose = memory.read() >= before + held.nbytes * 0.9
        del held
        memory.start()
        return rose and memory.read() < before + (32 << 20)

    # a kernel short of memory may take other pages of this process back meanwhile
    assert any(seen() for _ in range(5))


def test_an_operator_takes_some_time_to_ask_for():
    assert 0 < launch_ms(CPU) < 10


def test_a_busy_machine_is_measured_only_on_request(monkeypatch):
    monkeypatch.setattr(calibration, "load", lambda: 64.0)
    monkeypatch.setattr("prumerge.bench.machine.calibrate", partial(calibration.calibrate, 256, 1 << 22))
    with pytest.raises(PrumergeError, match="this machine is busy"):
        measured(CPU, torch.float32)
    assert measured(CPU, torch.float32, strict=False).rates["fp32"] > 0
