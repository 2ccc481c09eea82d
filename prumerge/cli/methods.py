"""`prumerge methods`: what there is to choose from."""

from __future__ import annotations

from typing import Annotated

import typer

from prumerge.cli import options as shared
from prumerge.cli.output import print_json, print_list, print_table, say
from prumerge.errors import PrumergeError, unknown

WHERE = {
    "vision tower": "inside the vision tower",
    "before the language model": "before the language model",
    "language model": "between layers of the language model",
    "": "where its source does not say",
}


def methods(
    name: Annotated[
        str | None,
        typer.Argument(help="Show the options of this method.", autocompletion=shared._methods),
    ] = None,
    as_json: shared.JsonOption = False,
) -> None:
    """List the methods of token reduction, or explain one."""
    from dataclasses import asdict

    from prumerge.catalogue import FACTS, entries, entry, names

    if name is None:
        found = entries()
        if as_json:
            print_json([asdict(one) for one in found])
            return
        for place in dict.fromkeys(one.place for one in found):
            rows = [[one.name, one.summary, one.needs] for one in found if one.place == place]
            print_table(("method", "what it does", "needs"), rows, title=f"Works {WHERE[place]}:")
        say("Options of one method: prumerge methods NAME")
        return
    if name not in names():
        raise PrumergeError(unknown("method", name, names()))
    one = entry(name)
    if as_json:
        print_json(asdict(one))
        return
    facts = [f"{fact}: {said}" for fact, said in zip(FACTS[1:], one.facts()[1:], strict=True) if said]
    for paragraph in (*one.description.split("\n\n"), ", ".join(facts), one.paper):
        if paragraph:
            say(" ".join(paragraph.split()), "")
    options = [(f"{each.name}={each.default}  ({each.type})", each.meaning) for each in one.options]
    print_list(options)
