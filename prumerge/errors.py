"""What a user can mend, and how it is said."""

from __future__ import annotations

from collections.abc import Sequence

_LONGEST = 60  # characters of what a user wrote that a sentence repeats


class PrumergeError(ValueError):
    """Something a user can mend, said in one sentence that names what to do next.

    The only error that the command line turns into a sentence: any other one is a fault in code, and shows
    where.
    """


class MissingPackage(PrumergeError, ModuleNotFoundError):
    """A package beyond the core is needed and not installed; the sentence says how to install it."""


def unknown(what: str, name: str, known: Sequence[str], *, instead: str = "") -> str:
    """The sentence for a name that is not among those there are, with the nearest one if one is near;
    `instead` is what may be given in place of a name."""
    from difflib import get_close_matches  # only those pay for it who misspell

    near = get_close_matches(name.lower()[:_LONGEST], known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    rest = f", or {instead}" if instead else ""
    return f"there is no {what} {short(name)!r}{hint}; choose one of: {', '.join(known)}{rest}"


def short(text: str, longest: int = _LONGEST) -> str:
    """What a user wrote, its middle left out where it is long."""
    if len(text) <= longest:
        return text
    half = (longest - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
