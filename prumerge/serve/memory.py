"""How this process takes memory from the system, and gives it back."""

from __future__ import annotations

import ctypes
import os
import sys

MMAP_THRESHOLD, ARENA_MAX = -3, -8
"""Of glibc's `malloc.h`."""
OWN_PAGES = 12 * 2**20
"""Bytes from which a tensor has pages of its own, which go back to the system with it."""


def settle() -> None:
    """Let memory be that of the largest batch, however long a server runs; to be called before there are
    threads. Where the environment sets either (`MALLOC_ARENA_MAX`, `MALLOC_MMAP_THRESHOLD_`) it decides, and
    where malloc is not glibc's nothing is done.

    Every batch has tensors of other sizes, and the keys and values of answers grow by a token each step. By
    itself glibc takes tensors of up to 32 MiB from heaps of 64 MiB which each thread has for itself; what is
    remembered lies between them, so that holes fit ever less of what comes, and no heap ever goes back.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return
    for name, parameter, value in (
        ("MALLOC_ARENA_MAX", ARENA_MAX, 1),
        ("MALLOC_MMAP_THRESHOLD_", MMAP_THRESHOLD, OWN_PAGES),
    ):
        if name not in os.environ:
            libc.mallopt(parameter, value)
