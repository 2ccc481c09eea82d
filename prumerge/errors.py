"""What a user can mend."""

from __future__ import annotations


class PrumergeError(ValueError):
    """Something a user can mend, said in one sentence that names what to do next.

    The only error that the command line turns into a sentence: any other one is a fault in code, and shows
    where.
    """


class MissingPackage(PrumergeError, ModuleNotFoundError):
    """A package beyond the core is needed and not installed; the sentence says how to install it."""
