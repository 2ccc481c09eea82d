"""From costs to time and memory on a machine: each operation takes as long as its slowest resource.

    time = max(FLOPs / rate, bytes / bandwidth, bytes sent / link), summed over operations

Nothing overlaps, nothing is launched late and every kernel reaches the peak: a prediction of the best case, in
which ratios are more trustworthy than milliseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    arithmetic: str

    def seconds(self, op: Op) -> float:
        """One execution of an operation."""
        return max(self.limits(op).values())

    def limits(self, op: Op) -> dict[str, float]:
        """Seconds that each resource needs for one execution."""
        times = {
            "compute": op.flops / self.machine.rate(self.arithmetic) if op.flops else 0.0,
            "memory": op.bytes / self.machine.bandwidth,
        }
        if op.sent:
            if not self.machine.link:
                raise ValueError(
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
    llm, tower, projector = model.language, model.tower, model.projector
    patches = tower.side**2 if tower.side else -(-workload.encoded * projector.group // workload.tiles)
    tower_ops = cost.vision_tower(tower, patches, workload.tiles, setting, workload.whole_tower)
    # Where the projector joins patches, features exist only after it, so that it sees all of them.
    projected = workload.encoded if projector.group > 1 else workload.kept
    width = llm.width if projector.group > 1 else tower.width
    reduction = cost.reduction(width, workload.encoded, workload.kept, setting)
    connector = cost.connector(projector, projected, setting) if projected else []
    prefill = cost.prefill(llm, workload.prompt, setting)
    context = [count + workload.new_tokens // 2 for count in workload.prompt]
    inside, outside = setting.precision, setting.precision.outside()

    def stage(name: str, ops: Sequence[Op], arithmetic: str) -> Stage:
        return Stage(name, tuple(ops), machine, arithmetic)

    cached = [count + workload.new_tokens - 1 for count in workload.prompt]
    kv_cache = cost.cache_size(llm, cached, setting)
    stream = max(workload.prompt) * llm.width * setting.batch * inside.activations / 8
    patch_stream = patches * workload.tiles * tower.width * setting.batch * outside.activations / 8
    return Estimate(
        workload,
        setting,
        machine,
        stage("tower", tower_ops, outside.arithmetic),
        stage("reduction", reduction, outside.arithmetic),
        stage("connector", connector, outside.arithmetic),
        stage("prefill", prefill, inside.arithmetic),
        stage("decode", cost.decode(llm, context, setting), inside.arithmetic),
        kv_cache,
        cost.language_weights(llm, setting)
        + cost.vision_weights(tower, projector, setting)
        + kv_cache
        + max(cost.live_activations(prefill, stream), cost.live_activations(tower_ops, patch_stream)),
    )


def knee(model: Model, machine: Machine, setting: Setting) -> int | None:
    """The longest prompt whose decoder layers still wait for their weights, in tokens of one sequence.

    Up to there the products of activations and weights, taken together, have less FLOPs per byte than the
    machine's ridge: the time is that of reading the weights, whatever the number of tokens. None: at any length.
    """
    ridge = machine.ridge(setting.precision.arithmetic)
    sparse = any(model.language.sparse)

    def waits(tokens: int) -> bool:
        layer = cost.decoder_layer(model.language, tokens, 0, setting, sparse)
        products = [op for op in layer if op.weights]
        return sum(op.flops for op in products) < ridge * sum(op.bytes for op in products)

    longest = 1 << 20
    if waits(longest):
        return None
    return _last(waits, longest)


def _last(holds: Callable[[int], bool], limit: int) -> int:
    """The largest number below `limit` for which something holds that never holds again once it ceases to."""
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def schedule(spec: str, layers: int) -> tuple[int, ...]:
    """Visual tokens in each layer: `576`, or for a method inside the model `576x2+288` (2 layers, then the rest)."""
    *parts, rest = spec.strip().split("+")
    counts: list[int] = []
    try:
        for part in parts:
            tokens, times = part.split("x")
            counts += [_count(tokens)] * _count(times)
        counts += [_count(rest)] * (layers - len(counts))
    except ValueError:
        raise ValueError(
            f"{spec!r} is no number of visual tokens; write a whole number of at least 0, such as 576, "
            "or tokens for so many layers and then for the rest: 576x2+288"
        ) from None
    if len(counts) > layers or (parts and len(counts) == sum(_count(part.split("x")[1]) for part in parts)):
        raise ValueError(f"{spec!r} is for more than the {layers} layers of the model")
    if any(after > before for before, after in zip(counts, counts[1:], strict=False)):
        raise ValueError(f"{spec!r} has more visual tokens in a later layer than before")
    return tuple(counts)


def _count(text: str) -> int:
    if not text.strip().isdecimal():
        raise ValueError(text)
    return int(text)


def workload(
    model: Model,
    visual: str,
    encoded: int | None = None,
    text: int = 40,
    new_tokens: int = 64,
    tiles: int | None = None,
    whole_tower: bool = False,
) -> Workload:
    """Check what is asked against what the model gives."""
    tiles = model.tiles if tiles is None else tiles
    for name, value, least in (("text", text, 0), ("new_tokens", new_tokens, 1), ("tiles", tiles, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    counts = schedule(visual, model.language.layers)
    if model.visual_tokens is not None:
        encoded = model.visual_tokens * tiles
        if counts[0] > encoded:
            raise ValueError(
                f"{counts[0]} visual tokens are more than the {encoded} that {model.name} makes of {tiles} "
                f"{'tile' if tiles == 1 else 'tiles'}; ask for fewer, or for more tiles"
            )
    elif encoded is None:
        encoded = counts[0]
    if counts[0] + text < 1 or counts[-1] + text < 1:
        raise ValueError("there must be at least one token of text or picture")
    return Workload(counts, encoded, text, new_tokens, tiles, whole_tower)
