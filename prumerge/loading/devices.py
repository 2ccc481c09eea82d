"""From what a user writes to the device that a model goes to."""

from __future__ import annotations

import os

import torch

from prumerge.errors import PrumergeError, short


def chosen(device: str) -> str:
    """This device; of `auto` a GPU if there is one, and of several processes on a machine for each its own.

    Raises PrumergeError if there is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and "LOCAL_RANK" in os.environ:
            device = f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    try:
        numbers = not torch.empty(0, device=device).is_meta  # which has shapes alone
    except (RuntimeError, AssertionError, NotImplementedError):
        numbers = False
    if not numbers:
        raise PrumergeError(f"there is no device {short(device)!r} to run on; take cpu, cuda, or auto")
    return device
