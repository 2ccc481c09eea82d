"""What `prumerge evaluate` and `prumerge rescore` make of answers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prumerge.cli.output import need, note, print_json, print_table, progress, say, written
from prumerge.errors import PrumergeError, unknown

if TYPE_CHECKING:
    from prumerge.evaluate.faithful import Faithful
    from prumerge.evaluate.judge import Judge
    from prumerge.evaluate.records import Record
    from prumerge.evaluate.report import Row
    from prumerge.evaluate.verdicts import Judged

CHARTS = ("png", "pdf", "svg")


def check(chart: str) -> None:
    """Raise PrumergeError, before any work is done, for what would keep reports from being written."""
    need("scipy", "evaluate")
    need("matplotlib", "evaluate")
    if chart not in CHARTS:
        raise PrumergeError(unknown("kind of chart", chart, CHARTS))


def judge_of(tasks: Sequence[str], url: str | None, model: str | None, seed: int) -> Judge | None:
    """The judge of --judge, if there is one. Raises PrumergeError where it is asked for tasks that it has no
    business with, or says not who it is."""
    from prumerge.evaluate.judge import KEY, Judge
    from prumerge.evaluate.verdicts import check_judged

    if url is None:
        if model is not None:
            raise PrumergeError(
                "--judge-model names a model of the server at --judge; give its address as well"
            )
        return None
    check_judged(tasks)
    return Judge.at(url, model, seed, os.environ.get(KEY, "").strip())


def judge_saved(folder: Path, records: Sequence[Record], judge: Judge) -> None:
    """Have answers judged into a file beside them. Ctrl-C says what is safe."""
    from prumerge.evaluate.verdicts import Verdicts, ask_judge, file_of

    verdicts = Verdicts(file_of(folder, judge.model), judge.settings)
    try:
        with progress("judging", made=lambda: len(verdicts.replies)) as track:
            ask_judge(judge, records, verdicts, track)
    except KeyboardInterrupt:
        note(
            f"stopped; {len(verdicts.replies)} verdicts are safe in {verdicts.path}, the same command goes on"
        )
        sys.exit(130)


def report(folder: Path, records: Sequence[Record], chart: str, as_json: bool, agreement: float = 95) -> None:
    """Write table.csv, summary.json and pareto.png, and print the table.

    Of pictures without right answers also report.json, which can be handed in, and the cheapest method that
    keeps `agreement` percent of the answers.
    """
    from dataclasses import asdict

    from prumerge.cli.pictures import print_pictures
    from prumerge.evaluate import handin
    from prumerge.evaluate.charts import pareto
    from prumerge.evaluate.records import by_method
    from prumerge.evaluate.report import (
        as_csv,
        beside_keep,
        complete,
        cut_short,
        few,
        rivals,
        summarise,
    )
    from prumerge.evaluate.verdicts import Verdicts, columns_of, files_in, judged

    if not records:
        raise PrumergeError(f"there are no answers in {str(folder)!r} yet; run prumerge evaluate")
    groups = by_method(records)
    rows, pairs = summarise(groups), rivals(groups)
    verdicts = [Verdicts(path) for path in files_in(folder)]
    opinions = {one.judge: judged(groups, one) for one in verdicts}
    summary = {
        "methods": [asdict(row) for row in rows],
        "rivals": [asdict(pair) for pair in pairs],
        "judges": [
            {**one.settings, "judged": [asdict(own) for own in opinions[one.judge]]} for one in verdicts
        ],
    }
    files = {
        "table.csv": as_csv(rows, columns_of(opinions)),
        "summary.json": json.dumps(summary, indent=2) + "\n",
    }
    alone = {record.task for record in records} == {"pictures"}
    look = _looked(folder) if alone else None
    if look is not None:
        files["report.json"] = json.dumps(handin.report(look, rows, records), indent=2) + "\n"
    for name, text in files.items():
        with written(folder / name) as draft:
            draft.write_text(text, encoding="utf-8")
    figure = pareto(rows, "% of answers as the untouched model's") if alone else pareto(rows)
    with written(folder / f"pareto.{chart}") as draft:
        figure.savefig(draft, dpi=150)
    if as_json:
        print_json(summary)
        return
    if alone:
        print_pictures(rows, look, agreement)
        say(*beside_keep(rows), *cut_short(rows))
    else:
        _print_rows(rows)
        say(*(pair.sentence() for pair in pairs), *beside_keep(rows), *cut_short(rows))
    for judge, own in opinions.items():
        _print_judged(judge, own)
    if len(complete(rows)) < len(rows):
        asked = ", ".join(f"{row.method} {row.questions}" for row in rows)
        say(f"Not all were asked the same questions ({asked}): only differences compare like with like.")
    if not alone and (warning := few(rows)):
        say(warning)
    say(f"answers, {', '.join(files)} and pareto.{chart} are in {folder}")


def _print_judged(judge: str, rows: Sequence[Judged]) -> None:
    """What a judge says, in a table of its own."""
    table = []
    for row in rows:
        gap = row.against_none
        lost = (
            (f"{gap.difference:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]", f"{gap.p:.2g}") if gap else ("", "")
        )
        right = "" if row.right is None else f"{row.right:.1f}"
        score = "" if row.score is None else f"{row.score:.2f}"
        table.append([row.method, row.task, right, score, *lost, str(row.verdicts), str(row.unread)])
    names = ("method", "task", "% yes", "mean of 0-5", "against none", "p", "verdicts", "unread")
    print_table(names, table, keys=2, title=f"judged by {judge}")
    say("A judge's yes and 0-5 are its own opinion: compare them with those of the same judge only.")
    if unread := sum(row.unread for row in rows):
        say(f"{unread} of its replies say neither yes nor no with a score; they count as neither.")
    if unasked := sum(row.unasked for row in rows):
        say(f"{unasked} answers it was not asked about yet; go on by prumerge rescore --judge.")


def _print_rows(rows: Sequence[Row]) -> None:
    """What is right and what is lost first, then each task by its own measure."""
    from prumerge.evaluate.report import columns

    names = columns(rows)
    table = []
    for row in rows:
        gap = row.against_none
        spread = f" ({row.tokens_low:.0f}-{row.tokens_high:.0f})" if row.tokens_low < row.tokens_high else ""
        lost = ("", "", "")
        if gap:
            interval = f"{gap.difference:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]"
            lost = (interval, f"{gap.p:.2g}", f"{gap.flips:.1f}")
        scores = [f"{row.scores[name]:.1f}" if name in row.scores else "" for name in names]
        near = (f"{row.faithful.same:.1f}", nats(row.faithful)) if row.faithful and gap else ("", "")
        table.append([row.method, f"{row.tokens:.0f}{spread}", f"{row.accuracy:.1f}", *lost, *near, *scores])
    head = ("method", "tokens", "% right", "against none", "p", "flips %", "same %", "nats")
    print_table((*head, *names), table)


def nats(near: Faithful) -> str:
    """The divergence of the next token, as it is printed."""
    return "" if near.nats is None else f"{near.nats:.2g}"


def _looked(folder: Path) -> dict[str, Any] | None:
    """What a look at the checkpoint showed before questions were asked."""
    try:
        found = json.loads((folder / "self-check.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "check" in found else None
