"""How time is taken: in turns, by stages, by the clock of the device."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from prumerge.bench import timer
from prumerge.bench.timer import CpuClock, GpuClock, Spread, clock_of, rounds, stages


def seconds(*readings):
    """A clock that shows these, one after the other."""
    shown = iter(readings)
    return CpuClock(lambda: next(shown))


def ticking():
    """A clock that goes on by a second whenever it is read."""
    return CpuClock(map(float, itertools.count()).__next__)


def test_stages_are_the_milliseconds_between_laps_and_equal_names_are_summed():
    def run(lap):
        lap("encode")
        lap("decode")
        lap("decode")

    assert stages(run, seconds(0, 1, 3, 7)) == {"encode": 1000, "decode": 6000}


def test_what_follows_the_last_lap_is_not_counted():
    assert stages(lambda lap: lap("all"), seconds(5, 6)) == {"all": 1000}


def test_alternatives_take_turns_and_the_first_round_warms_up():
    turns, told = [], []

    def alternative(name):
        def run(lap):
            turns.append(name)
            lap("all")

        return run

    found = rounds({name: alternative(name) for name in "ab"}, 2, ticking(), lambda: told.append(1))
    assert "".join(turns) == "ababab"
    assert found == {name: [{"all": 1000}] * 2 for name in "ab"}
    assert len(told) == 6


@pytest.mark.parametrize(
    ("values", "expected"),
    [([4], (4, 4, 4)), ([3, 1], (2, 1.5, 2.5)), ([9, 1, 2, 3, 4], (3, 2, 4))],
)
def test_a_spread_is_the_median_and_the_middle_half(values, expected):
    assert Spread.of(values) == Spread(*expected)


def test_a_gpu_is_timed_by_events_on_its_current_stream(monkeypatch):
    waited = []

    class Event:
        at = itertools.count()

        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            assert stream == "stream"
            self.when = next(self.at)

        def elapsed_time(self, end):
            assert waited, "events are read before the device has reached them"
            return end.when - self.when

    cuda = SimpleNamespace(Event=Event, current_stream=lambda device: "stream", synchronize=waited.append)
    monkeypatch.setattr(timer.torch, "cuda", cuda)
    clock = clock_of("cuda")
    assert isinstance(clock, GpuClock)

    def run(lap):
        lap("a")
        lap("b")

    assert stages(run, clock) == {"a": 1, "b": 1}


def test_the_clock_of_a_cpu_is_on_the_wall():
    def run(lap):
        torch.ones(4).sum()
        lap("all")

    spent = stages(run, clock_of("cpu"))["all"]
    assert math.isfinite(spent)
    assert spent > 0
