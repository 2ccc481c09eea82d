"""`prumerge tasks`: what can be asked, and how it is scored."""

from __future__ import annotations

from prumerge.cli import options as shared
from prumerge.cli.output import print_json, print_list, print_table


def tasks(as_json: shared.JsonOption = False) -> None:
    """List the tasks of `prumerge evaluate`."""
    from prumerge.evaluate.tasks import names, task

    found = {name: task(name) for name in names()}
    if as_json:
        print_json(
            [
                {
                    "name": name,
                    "mirrors": one.mirrors,
                    "measure": one.measure,
                    "data": one.data,
                    "options": dict(one.options),
                    "max_new_tokens": one.max_new_tokens,
                    "frames": one.frames,
                    "judged": one.judged,
                }
                for name, one in found.items()
            ]
        )
        return
    rows = [[name, one.mirrors, one.measure, one.data] for name, one in found.items()]
    print_table(("task", "what it is or mirrors", "measure", "reads"), rows)
    takers: dict[tuple[str, str], list[str]] = {}
    for name, one in found.items():
        for choice in one.options.items():
            takers.setdefault(choice, []).append(name)
    print_list(
        [(f"--task-option {name}={meaning}", ", ".join(own)) for (name, meaning), own in takers.items()]
    )
