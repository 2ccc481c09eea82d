"""`prumerge families`: which models can be reduced, and how each is read."""

from __future__ import annotations

from prumerge.cli import options as shared
from prumerge.cli.output import print_json, print_table


def families(as_json: shared.JsonOption = False) -> None:
    """List the model families, and how each is read."""
    from dataclasses import asdict

    from prumerge.catalogue import all_families

    found = all_families()
    if as_json:
        print_json([asdict(one) for one in found])
        return
    rows = [
        [one.name, f"{one.summary} Takes {one.takes}; attention: {one.attention}; reduced {one.reduced}."]
        for one in found
    ]
    print_table(("family", "what it is and how it is read"), rows)
