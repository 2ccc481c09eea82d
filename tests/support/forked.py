"""A process of its own that starts at once: a copy of this one, with all that is imported here."""

import multiprocessing
import warnings
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any


def forked(work: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Start `work` in a copy of this process; its exit code is 0 if nothing was raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's, of threads that a copy does not have
        process = multiprocessing.get_context("fork").Process(target=work, args=arguments, daemon=True)
        process.start()
    return process
