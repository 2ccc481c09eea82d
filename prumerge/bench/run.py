"""All cases in turns, each beside its prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from prumerge.bench.case import STAGES, Case, Read
from prumerge.bench.difference import Parts, divided, reason
from prumerge.bench.machine import launch_ms
from prumerge.bench.memory import PeakMemory
from prumerge.bench.prediction import Prediction, predict
from prumerge.bench.timer import Lap, Spread, clock_of, rounds
from prumerge.bench.trace import Traced, trace
from prumerge.models import device_of
from prumerge.roofline.calibrate import BUSY, load, usable_cores
from prumerge.roofline.hardware import Machine


@dataclass(frozen=True)
class Row:
    """One quantity of a case."""

    name: str
    measured: Spread
    predicted: float | None
    """None: the roofline does not know it."""
    why: str
    """Of a difference, in a few words; empty where there is none to speak of, or none was found."""

    @property
    def ratio(self) -> float | None:
        return self.measured.median / self.predicted if self.predicted else None


@dataclass(frozen=True)
class Measured:
    """A method at one batch size."""

    method: str
    batch: int
    read: Read
    stages: tuple[Row, ...]
    """Milliseconds of the whole batch; of `decode` one token of each prompt."""
    first_token: Row
    """Milliseconds, all stages but decoding."""
    tokens_per_s: Row
    """Of all answers together, from pictures to last tokens."""
    peak_mb: Row | None
    """Megabytes (10^6 bytes), of a CPU those of the whole process; None where the system does not tell."""
    operators: dict[str, int]
    """That the device was asked for, in each stage."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """Everything, in the order of a table."""
        last = () if self.peak_mb is None else (self.peak_mb,)
        return (*self.stages, self.first_token, self.tokens_per_s, *last)


def runs(cases: Sequence[Case], count: int) -> int:
    """How often `measure` runs a case, all of them together."""
    return len(cases) * (count + 2)


def measure(
    cases: Sequence[Case], machine: Machine | None, count: int, done: Callable[[], None] = lambda: None
) -> list[Measured]:
    """Each case in `count` rounds in which all take turns; without a machine nothing is predicted.

    `done` is told of every run. Raises PrumergeError as `Case.run` does.
    """
    device = device_of(cases[0].model)
    clock, launch = clock_of(device), launch_ms(device)
    read: dict[int, Read] = {}
    peaks: dict[int, int] = {}
    memory = PeakMemory(device)
    rest = memory.held() - _weights(cases[0])

    def watched(number: int, lap: Lap) -> None:
        memory.start()
        read[number] = cases[number].run(lap)
        peaks[number] = max(peaks.get(number, 0), memory.read() or 0)

    busy = _others_run()
    alternatives = {number: (lambda lap, number=number: watched(number, lap)) for number in range(len(cases))}
    times = rounds(alternatives, count, clock, done)
    busy = busy or _others_run()
    found = []
    for number, case in enumerate(cases):
        traced = trace(case.run, clock, device)
        done()
        prediction = None if machine is None else predict(case, read[number], machine)
        peak = _peak(peaks[number], rest, prediction)
        found.append(_beside(case, read[number], times[number], traced, prediction, launch, busy, peak))
    return found


def _beside(
    case: Case,
    read: Read,
    times: list[dict[str, float]],
    traced: dict[str, Traced],
    prediction: Prediction | None,
    launch: float,
    busy: bool,
    peak: Row | None,
) -> Measured:
    """Measured times beside predicted ones."""

    def why(spent: Spread, predicted: float | None, parts: Parts) -> str:
        return "" if predicted is None else reason(spent, predicted, parts, busy=busy)

    steps = case.new_tokens - 1
    stages = {} if prediction is None else prediction.stages
    rows, divisions = {}, {}
    for name in STAGES:
        each = steps if name == "decode" else 1
        passed = [one[name] / each for one in times]
        spent = Spread.of(passed)
        stage = stages.get(name)
        parts = divided(passed, stage, traced[name], launch, each)
        predicted = None if stage is None else 1e3 * stage.time
        rows[name], divisions[name] = Row(name, spent, predicted, why(spent, predicted, parts)), parts
    until_first = sum((divisions[name] for name in STAGES[:-1]), Parts())
    first = Spread.of([sum(one[name] for name in STAGES[:-1]) for one in times])
    answer = Spread.of([sum(one[name] for name in STAGES) for one in times])
    first_ms = answer_ms = None
    if "encode" in stages:  # else most of the time would be missing
        first_ms = sum(row.predicted or 0.0 for row in list(rows.values())[:-1])
        answer_ms = first_ms + steps * (rows["decode"].predicted or 0.0)
    whole = until_first + divisions["decode"] * steps
    tokens = 1e3 * case.batch * case.new_tokens
    speed = Spread(tokens / answer.median, tokens / answer.q75, tokens / answer.q25)
    return Measured(
        method=case.method,
        batch=case.batch,
        read=read,
        stages=tuple(rows.values()),
        first_token=Row("first token", first, first_ms, why(first, first_ms, until_first)),
        tokens_per_s=Row(
            "tokens/s",
            speed,
            None if answer_ms is None else tokens / answer_ms,
            why(answer, answer_ms, whole),
        ),
        peak_mb=peak,
        operators={name: traced[name].operators for name in STAGES},
    )


def _peak(peak: int, rest: int, prediction: Prediction | None) -> Row | None:
    """The most memory of a case; `rest` is what was held beside the weights before the first."""
    if not peak:
        return None
    measured, predicted = peak / 1e6, None if prediction is None else prediction.memory / 1e6
    why = ""
    if predicted is not None and rest / 1e6 >= (measured - predicted) / 2 > 0:
        why = f"the process {rest / 1e6:,.0f} MB"
    return Row("peak MB", Spread(measured, measured, measured), predicted, why)


def _others_run() -> bool:
    """Whether the machine is busy with more than the threads of this process."""
    return load() - torch.get_num_threads() > BUSY * usable_cores()


def _weights(case: Case) -> int:
    """Bytes of the model's weights."""
    return sum(weight.numel() * weight.element_size() for weight in case.model.parameters())
