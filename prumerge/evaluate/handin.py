"""A report to hand in: which checkpoint, which machine, what was measured; no picture and no answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

from prumerge.evaluate.records import Record
from prumerge.evaluate.report import Row

FORM = 1
"""Of the report; a later version that changes it counts on."""
_TIMES = ("encode_ms", "reduce_ms", "prefill_ms", "decode_ms")


def report(look: dict[str, Any], rows: Sequence[Row], records: Sequence[Record]) -> dict[str, Any]:
    """What `described` and the self-check said, and a line for each method and budget."""
    kinds: dict[str, int] = {}
    for question in {record.place: record for record in records}.values():
        kinds[question.split] = kinds.get(question.split, 0) + 1
    return {
        "form": FORM,
        "date": date.today().isoformat(),
        **look,
        "pictures": len({record.cluster for record in records}),
        "questions": kinds,
        "methods": [_line(row) for row in rows if row.faithful],
    }


def _line(row: Row) -> dict[str, Any]:
    assert row.faithful is not None
    times = {
        name: round(getattr(row, name), 3) for name in ("encode_ms", "reduce_ms", "prefill_ms", "decode_ms")
    }
    return {"method": row.method, "spec": row.spec, "tokens": row.tokens, **asdict(row.faithful), **times}
