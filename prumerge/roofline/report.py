"""Estimates in words: sentences, and flat rows for tables and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby, product
from typing import Any

from prumerge.errors import PrumergeError
from prumerge.roofline.configs import Model
from prumerge.roofline.conventions import card, count, llm_viewer
from prumerge.roofline.cost import Op
from prumerge.roofline.estimate import Estimate, Stage, Workload, floor, knee, prefill
from prumerge.roofline.precision import Precision
from prumerge.roofline.training import KINDS, Step


def row(one: Estimate, base: Estimate, model: Model, convention: str = "flops") -> dict[str, Any]:
    """The figures of one estimate, beside `base`: times in ms, rates and sizes in the unit of the key."""
    precision = one.setting.precision
    return {
        "machine": one.machine.name,
        "bits": precision.name,
        "visual_tokens": one.workload.label,
        "text_tokens": one.workload.text,
        "tera": count(convention, one.flops, model.language, one.workload.visual) / 1e12,
        "convention": convention,
        "encode_ms": (one.first_token - one.prefill.time) * 1e3,
        "prefill_ms": one.prefill.time * 1e3,
        "first_token_ms": one.first_token * 1e3,
        "speedup": base.first_token / one.first_token,
        "decode_ms": one.decode.time * 1e3,
        "answer_ms": one.answer * 1e3,
        "traffic_gb": one.traffic / 1e9,
        "kv_cache_gb": one.kv_cache / 1e9,
        "resident_gb": one.resident / 1e9,
        "fits": one.fits,
        "prefill_bound": {resource: round(share, 4) for resource, share in one.prefill.shares.items()},
        "stages": [stage_row(stage) for stage in (*one.stages, one.decode)],
    }


def stage_row(stage: Stage) -> dict[str, Any]:
    """A stage with all its operations, for JSON."""
    total = {"stage": stage.name, "flops": stage.flops, "traffic": stage.traffic, "ms": stage.time * 1e3}
    return {**total, "ops": [op_row(stage, op) for op in stage.ops]}


def op_row(stage: Stage, op: Op) -> dict[str, Any]:
    """An operation: bytes and FLOPs of one execution, what limits it, and microseconds."""
    took = {"bound": stage.bound(op), "us": stage.seconds(op) * 1e6}
    return {**asdict(op), "bytes": op.bytes, "intensity": op.intensity, **took}


def bound(stage: Stage) -> str:
    """What limits a stage, with its share of the time."""
    shares = stage.shares
    resource = max(shares, key=lambda name: shares[name])
    return f"{resource} {shares[resource]:.0%}"


def sentences(model: Model, estimates: Sequence[Estimate]) -> list[str]:
    """What to conclude: for each machine and precision, what was gained, what was not, and where it ends."""
    found = []
    for (machine, bits), group in groupby(
        estimates, key=lambda one: (one.machine.name, one.setting.precision.name)
    ):
        cases = sorted(group, key=lambda one: -sum(one.workload.visual))
        most, fewest, head = cases[0], cases[-1], f"{machine}, {bits}: "
        if len(cases) > 1:
            found.append(head + gain(most, fewest))
        found.append(head + limit(model, most))
        large = [one.workload.label for one in cases if not one.fits]
        if large and most.machine.memory:
            found.append(
                f"{head}{', '.join(large)} visual tokens need more than its "
                f"{most.machine.memory / 1e9:.0f} GB of memory."
            )
    return found + [f"{model.name}: {note}." for note in model.notes]


def gain(before: Estimate, after: Estimate) -> str:
    """From the first number of tokens to the last, and what keeps it from being more."""
    faster, encoding = before.prefill.time / after.prefill.time, 1 - after.prefill.time / after.first_token
    return (
        f"from {before.workload.label} to {after.workload.label} visual tokens means "
        f"{before.flops / after.flops:.1f}x fewer FLOPs, a prefill {faster:.1f}x "
        f"as fast, the first token {before.first_token / after.first_token:.1f}x and the whole answer of "
        f"{after.workload.new_tokens} tokens {before.answer / after.answer:.2f}x as fast; "
        f"{encoding:.0%} of the time to the first token then goes into encoding the picture."
    )


def limit(model: Model, one: Estimate) -> str:
    """Where memory takes over, and the number of visual tokens below which fewer stop helping."""
    case = (model, one.workload, one.machine, one.setting)
    waits, ends, fewest = knee(*case), floor(*case), one.workload.fewest
    at, least = (
        prefill(model, one.workload.with_visual(count), one.machine, one.setting).time * 1e3
        for count in (ends, fewest)
    )
    rest = "at 1" if fewest else "with the text alone"
    taken = (
        f"up to {waits} visual tokens most of the prefill waits for memory"
        if waits > fewest
        else "arithmetic takes most of the prefill at any number of visual tokens"
    )
    return (
        f"{taken} (the ridge is {one.machine.ridge(one.setting.precision.arithmetic):.0f} FLOP per byte); "
        f"below {ends} fewer stop helping: at most a tenth of the prefill is left to gain, "
        f"{at:.2f} ms at {ends} and {least:.2f} ms {rest}."
    )


def viewer_rows(
    model: Model, workloads: Sequence[Workload], cards: Sequence[str], precisions: Sequence[Precision]
) -> list[dict[str, Any]]:
    """What LLM-Viewer would print; ValueError for what it cannot express."""
    for precision in precisions:
        if len({precision.weights, precision.activations, precision.cache}) > 1:
            raise PrumergeError(
                "llm-viewer-2024-03 has one width for weights, activations and cache, unlike "
                f"{precision.name}; write w{precision.weights}a{precision.weights}"
            )
    rows = []
    for name, precision, work in product(cards, precisions, workloads):
        if len(set(work.visual)) > 1:
            raise PrumergeError("llm-viewer-2024-03 has the same tokens in every layer")
        answer = llm_viewer(model.language, work.prompt[0], card(name), precision.weights)
        rows.append(
            {
                "machine": name,
                "bits": precision.name,
                "visual_tokens": work.label,
                "prompt_tokens": work.prompt[0],
                "tera": answer.operations / 1e12,
                "prefill_ms": answer.seconds * 1e3,
                "total_memory_gb": answer.memory_access / 1e9,
                "activation_gb": answer.activations / 1e9,
            }
        )
    return rows


# Training


def step_row(one: Step, base: Step) -> dict[str, Any]:
    """The figures of a training step, and those that fall with the tokens as ratios to `base`."""
    whole = one.whole
    return {
        "machine": one.machine.name,
        "bits": one.setting.precision.name,
        "batch": one.setting.batch,
        **asdict(one.recipe),
        "trained_parameters": one.trained,
        "visual_tokens": one.workload.label,
        "text_tokens": one.workload.text,
        "tera": whole.flops / 1e12,
        "flops_ratio": whole.flops / base.whole.flops,
        "rule": one.rule,
        "ms": whole.time * 1e3,
        "time_ratio": whole.time / base.whole.time,
        "bound": {resource: round(share, 4) for resource, share in whole.shares.items()},
        **{f"{name}_gb": size / 1e9 for name, size in asdict(one.memory).items()},
        "activations_ratio": one.memory.activations / base.memory.activations,
        "memory_gb": one.memory.total / 1e9,
        "fits": one.fits,
        "largest_batch": one.largest_batch,
        "stages": [stage_row(stage) for stage in one.stages],
    }


def step_sentences(model: Model, groups: Sequence[Sequence[Step]]) -> list[str]:
    """What to conclude; each group is of one machine and precision and begins with all visual tokens."""
    found = []
    for group in groups:
        base, few = group[0], min(group, key=lambda one: one.rule)
        head = f"{base.machine.name}, {base.setting.precision.name}: "
        if few is not base:
            found.append(head + saving(base, few))
        found += [f"{head}{sentence}" for sentence in room(base, few)]
    one = groups[0][0]
    rank = f" of rank {one.recipe.rank}" if one.recipe.train == "lora" else ""
    found.append(
        f"{one.trained / 1e6:,.1f} million parameters are trained: {KINDS[one.recipe.train]}{rank}; their "
        "gradients, AdamW's moments and all weights stay as they are, however few the tokens."
    )
    return found + [f"{model.name}: {note}." for note in model.notes]


def saving(base: Step, few: Step) -> str:
    """A step with the fewest tokens beside one with all."""
    all_, kept = base.whole, few.whole
    return (
        f"with {few.workload.label} of {base.workload.label} visual tokens and {few.workload.text} of text a "
        f"step has {kept.flops / all_.flops:.2f} of the FLOPs and takes {kept.time / all_.time:.2f} of the "
        f"time; the rule of thumb (k + W) / (all + W) says {few.rule:.2f}."
    )


def room(base: Step, few: Step) -> list[str]:
    """What the machine's memory has room for."""
    if base.machine.memory is None or base.largest_batch is None or few.largest_batch is None:
        return []
    size = f"{base.machine.memory / 1e9:.0f} GB"
    if few.largest_batch == 0:
        return [f"not one row fits into {size}, whatever the tokens."]
    rows = f"{base.largest_batch:,} with {base.workload.label} visual tokens"
    if few is not base:
        rows += f" and {few.largest_batch:,} with {few.workload.label}"
    return [f"rows of a batch that {size} hold: {rows}."]
