"""Modules whose weights are elsewhere until they are called: offloaded by accelerate, sharded by FSDP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Found = TypeVar("Found")


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes: where its weights are, or where accelerate brings them when it is called."""
    device = next(module.parameters()).device
    if device.type != "meta":
        return device
    hooks = (getattr(part, "_hf_hook", None) for part in module.modules())
    given = (getattr(hook, "execution_device", None) for hook in hooks)
    return torch.device(next((found for found in given if found is not None), device))


def within_call(module: Any, compute: Callable[..., Found], *inputs: Tensor) -> Found:
    """`compute(*inputs)`, which reads a module's weights or parts, as if the module were called.

    What accelerate does around a call (`cpu_offload`, `disk_offload`, `device_map`), and what hooks do (FSDP
    gathers a sharded module's weights, and waits for their gradients), is done around this one as well. A
    module that nobody waits for is left alone.
    """
    if (hook := getattr(module, "_hf_hook", None)) is not None:
        moved, _ = hook.pre_forward(module, *inputs)
        return hook.post_forward(module, compute(*moved))
    if not module._forward_pre_hooks:
        return compute(*inputs)
    own = vars(module).get("forward")
    module.forward = compute
    try:  # past the class's own __call__, which may run it again later (gradient checkpointing)
        return nn.Module.__call__(module, *inputs)
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def weight_of(module: nn.Module, name: str) -> Tensor:
    """A copy of a module's own weight, through which gradients reach it."""
    return within_call(module, lambda: getattr(module, name).clone())
