"""Whether a checkpoint's weights are all there, whole, and of the shapes that its configuration asks for."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError

from prumerge.errors import MissingPackage, PrumergeError
from prumerge.loading.paths import first_line


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Files of a checkpoint being read: what is wrong with them becomes one sentence that names it.

    Only libraries' calls belong inside: on files that are not as they should be they raise any exception.
    """
    try:
        yield
    except (PrumergeError, MemoryError, torch.OutOfMemoryError):
        raise
    except ImportError as error:
        raise MissingPackage(f"to load {name!r} a package is missing: {first_line(error)}") from error
    except (SafetensorError, EOFError) as error:
        raise PrumergeError(
            f"the weights of {name!r} are damaged or cut short ({first_line(error)}); get a whole copy"
        ) from error
    except UnpicklingError as error:
        raise PrumergeError(
            f"the weights of {name!r} are a pickle that is damaged or holds more than weights, and is not "
            "read since it could run any code; get them as safetensors"
        ) from error
    except OSError as error:
        raise PrumergeError(f"the checkpoint {name!r} is not complete: {first_line(error)}") from error
    except Exception as error:
        raise PrumergeError(
            f"the checkpoint {name!r} cannot be read ({type(error).__name__}: {first_line(error)})"
        ) from error


def check_weights(name: str, told: Mapping[str, Collection[Any]]) -> None:
    """`told` is what `from_pretrained(..., output_loading_info=True)` tells.

    Raises PrumergeError where weights are missing or of another shape: the model would answer from random
    ones. Warns of weights that the model does not know.
    """
    if missing := sorted(told["missing_keys"]):
        raise PrumergeError(
            f"the checkpoint {name!r} is not complete: {_listed(missing)} missing; get a whole copy"
        )
    if other := sorted(told["mismatched_keys"]):
        shapes = [f"{key} is {list(held)}, not {list(wanted)}" for key, held, wanted in other]
        raise PrumergeError(
            f"the checkpoint {name!r} does not fit its config.json: {_listed(shapes)}; get a whole copy"
        )
    if unknown := sorted(told["unexpected_keys"]):
        warnings.warn(
            f"the checkpoint {name!r} holds more than its model has: {_listed(unknown)} left out",
            stacklevel=3,
        )


def _listed(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
