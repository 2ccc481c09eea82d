"""From costs to time and memory on a machine: each operation takes as long as its slowest resource.

    time = max(FLOPs / rate, bytes / bandwidth, bytes sent / link), summed over operations

Nothing overlaps, nothing is launched late and every kernel reaches the peak: a prediction of the best case,
whose ratios deserve more trust than its milliseconds.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

from prumerge.errors import PrumergeError
from prumerge.roofline import cost
from prumerge.roofline.configs import Model
from prumerge.roofline.cost import Op, Setting
from prumerge.roofline.hardware import Machine


@dataclass(frozen=True)
class Workload:
    """What is asked of the model."""

    visual: tuple[int, ...]
    """Visual tokens in each layer of the language model; methods before the model have the same in all."""
    encoded: int
    """Visual tokens that the tower produces, before reduction."""
    text: int = 40
    new_tokens: int = 64
    """Length of the answer."""
    tiles: int = 1
    whole_tower: bool = False

    @property
    def prompt(self) -> tuple[int, ...]:
        """Tokens in each layer."""
        return tuple(count + self.text for count in self.visual)

    @property
    def kept(self) -> int:
        """Visual tokens that the language model is given."""
        return self.visual[0]

    @property
    def fewest(self) -> int:
        """The least number of visual tokens that makes sense: none, if there is text."""
        return 0 if self.text else 1

    def with_visual(self, tokens: int) -> Workload:
        """The same with so many visual tokens in every layer."""
        return replace(self, visual=(tokens,) * len(self.visual))

    @property
    def label(self) -> str:
        """As written in `schedule`."""
        runs: list[list[int]] = []
        for count in self.visual:
            if runs and runs[-1][0] == count:
                runs[-1][1] += 1
            else:
                runs.append([count, 1])
        return "+".join([*(f"{count}x{layers}" for count, layers in runs[:-1]), str(runs[-1][0])])


@dataclass(frozen=True)
class Stage:
    """Operations on one machine, one after the other."""

    name: str
    ops: tuple[Op, ...]
    machine: Machine

    def seconds(self, op: Op) -> float:
        """One execution of an operation."""
        return max(self.limits(op).values())

    def limits(self, op: Op) -> dict[str, float]:
        """Seconds that each resource needs for one execution."""
        times = {
            "compute": op.flops / self.machine.rate(op.arithmetic) if op.flops else 0.0,
            "memory": op.bytes / self.machine.bandwidth,
        }
        if op.sent:
            if not self.machine.link:
                raise PrumergeError(
                    f"{self.machine.name} has no link to other devices; leave out --tensor-parallel"
                )
            times["link"] = op.sent / self.machine.link
        return times

    def bound(self, op: Op) -> str:
        """The resource that limits an operation."""
        times = self.limits(op)
        return max(times, key=lambda resource: times[resource])

    @property
    def time(self) -> float:
        return sum(self.seconds(op) * op.count for op in self.ops)

    @property
    def flops(self) -> int:
        return sum(op.flops * op.count for op in self.ops)

    @property
    def traffic(self) -> float:
        return sum(op.bytes * op.count for op in self.ops)

    @property
    def shares(self) -> dict[str, float]:
        """How much of the time each resource is the limit."""
        times: dict[str, float] = defaultdict(float)
        for op in self.ops:
            times[self.bound(op)] += self.seconds(op) * op.count
        return {resource: time / self.time for resource, time in sorted(times.items())}


@dataclass(frozen=True)
class Estimate:
    """One workload on one machine. Memory is of one device."""

    workload: Workload
    setting: Setting
    machine: Machine
    tower: Stage
    reduction: Stage
    connector: Stage
    prefill: Stage
    decode: Stage
    """One token, when half of the answer is written."""
    kv_cache: float
    """Bytes, at the end of the answer."""
    resident: float
    """Bytes at the peak: all weights, the KV cache, and the activations of the worst moment."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Until the first token."""
        return (self.tower, self.reduction, self.connector, self.prefill)

    @property
    def first_token(self) -> float:
        """Seconds."""
        return sum(stage.time for stage in self.stages)

    @property
    def answer(self) -> float:
        """Seconds until the last token; the prefill gives the first."""
        return self.first_token + (self.workload.new_tokens - 1) * self.decode.time

    @property
    def flops(self) -> int:
        """Until the first token, on one device."""
        return sum(stage.flops for stage in self.stages)

    @property
    def traffic(self) -> float:
        """Bytes moved between the memory and the processor until the first token."""
        return sum(stage.traffic for stage in self.stages)

    @property
    def fits(self) -> bool:
        return self.machine.memory is None or self.resident <= self.machine.memory


def estimate(model: Model, workload: Workload, machine: Machine, setting: Setting) -> Estimate:
    """Cost, time and memory of one workload."""
    llm, tower = model.language, model.tower

    def stage(name: str, ops: list[Op]) -> Stage:
        return Stage(name, tuple(ops), machine)

    patches = tower.side**2 if tower.side else -(-workload.encoded * model.projector.group // workload.tiles)
    seeing = stage("tower", cost.vision_tower(tower, patches, workload.tiles, setting, workload.whole_tower))
    reading = prefill(model, workload, machine, setting)
    half = [count + workload.new_tokens // 2 for count in workload.prompt]
    end = [count + workload.new_tokens - 1 for count in workload.prompt]
    kv_cache = cost.cache_size(llm, end, setting)
    weights = cost.language_weights(llm, setting) + cost.vision_weights(tower, model.projector, setting)
    streams = (
        max(workload.prompt) * llm.width * setting.precision.activations / 8,
        patches * workload.tiles * tower.width * setting.precision.outside().activations / 8,
    )
    live = max(
        cost.live_activations(each.ops, stream * setting.batch)
        for each, stream in zip((reading, seeing), streams, strict=True)
    )
    return Estimate(
        workload=workload,
        setting=setting,
        machine=machine,
        tower=seeing,
        reduction=stage("reduction", _reduction(model, workload, patches, setting)),
        connector=stage("connector", _connector(model, workload, setting)),
        prefill=reading,
        decode=stage("decode", cost.decode(llm, half, setting)),
        kv_cache=kv_cache,
        resident=weights + kv_cache + live,
    )


def _reduction(model: Model, workload: Workload, patches: int, setting: Setting) -> list[Op]:
    if workload.kept >= workload.encoded:
        return []
    tower, joined = model.tower, model.projector.group > 1
    left_out = tower.read_layers < tower.layers and not workload.whole_tower
    return [
        *(cost.scoring(tower, patches, workload.tiles, setting) if left_out else []),
        *cost.reduction(
            model.language.width if joined else tower.width, workload.encoded, workload.kept, setting
        ),
    ]


def _connector(model: Model, workload: Workload, setting: Setting) -> list[Op]:
    """Where the projector joins patches, visual tokens exist only after it: it sees all of them."""
    tokens = workload.encoded if model.projector.group > 1 else workload.kept
    return cost.connector(model.projector, tokens, setting) if tokens else []


def prefill(model: Model, workload: Workload, machine: Machine, setting: Setting) -> Stage:
    """The language model reads the prompt."""
    return Stage("prefill", tuple(cost.prefill(model.language, workload.prompt, setting)), machine)


def knee(model: Model, workload: Workload, machine: Machine, setting: Setting) -> int:
    """Visual tokens up to which more than half of the prefill's time goes into waiting for memory."""

    def waits(tokens: int) -> bool:
        return prefill(model, workload.with_visual(tokens), machine, setting).shares.get("memory", 0.0) > 0.5

    return _last(waits, workload)


def floor(model: Model, workload: Workload, machine: Machine, setting: Setting, share: float = 0.1) -> int:
    """Visual tokens below which fewer stop helping: at most this share of the prefill is left to gain.

    That is the largest number with which the prefill of the fewest still takes 1 - share of the time.
    """

    def prefill_time(tokens: int) -> float:
        return prefill(model, workload.with_visual(tokens), machine, setting).time

    allowed = prefill_time(workload.fewest) / (1 - share)
    return _last(lambda tokens: prefill_time(tokens) <= allowed, workload)


def _last(holds: Callable[[int], bool], workload: Workload) -> int:
    """The largest number of visual tokens, of those encoded, before a condition ceases: bisection."""
    low, high = workload.fewest, max(workload.encoded, workload.fewest) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def schedule(spec: str, layers: int) -> tuple[int, ...]:
    """Visual tokens in each layer: `576`; for methods inside the model `576x2+288` (2 layers, the rest)."""
    if not re.fullmatch(r"(\d+x\d+\+)*\d+", spec.strip()):
        raise PrumergeError(
            f"{spec!r} is no number of visual tokens; write a whole number of at least 0, such as 576, "
            "or tokens for so many layers and then for the rest: 576x2+288"
        )
    *first, rest = spec.strip().split("+")
    runs = [(int(tokens), int(times)) for tokens, times in (run.split("x") for run in first)]
    left = layers - sum(times for _, times in runs)
    if left < 1:
        raise PrumergeError(f"{spec!r} is for more than the {layers} layers of the model")
    counts = [tokens for tokens, times in [*runs, (int(rest), left)] for _ in range(times)]
    if counts != sorted(counts, reverse=True):
        raise PrumergeError(f"{spec!r} has more visual tokens in a later layer than before")
    return tuple(counts)


def workload(
    model: Model,
    visual: tuple[int, ...],
    encoded: int,
    text: int = 40,
    new_tokens: int = 64,
    tiles: int | None = None,
    whole_tower: bool = False,
) -> Workload:
    """Check what is asked against what the model gives.

    `encoded` is the number of visual tokens where the model does not fix it: pictures that keep their size.
    """
    tiles = model.tiles if tiles is None else tiles
    for name, value, least in (("text", text, 0), ("new_tokens", new_tokens, 1), ("tiles", tiles, 1)):
        if value < least:
            raise PrumergeError(f"{name} must be at least {least}, not {value}")
    if model.visual_tokens is not None:
        encoded = model.visual_tokens * tiles
        if visual[0] > encoded:
            raise PrumergeError(
                f"{visual[0]} visual tokens are more than the {encoded} that {model.name} makes of {tiles} "
                f"{'tile' if tiles == 1 else 'tiles'}; ask for fewer, or for more tiles"
            )
    if visual[0] + text < 1 or visual[-1] + text < 1:
        raise PrumergeError("there must be at least one token of text or picture")
    return Workload(visual, encoded, text, new_tokens, tiles, whole_tower)
