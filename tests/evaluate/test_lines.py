"""A file of JSON lines, killed anywhere and gone on with."""

import pytest

from prumerge.errors import PrumergeError
from prumerge.evaluate.lines import Lines

ROWS: list[dict] = [{"a": 1}, {"text": 'caf\u00e9 \u2028 "quoted"\n'}, {"list": [1, 2]}, {"half": "\ud83d"}]


def test_a_file_that_was_cut_at_any_byte_goes_on_and_becomes_the_same(tmp_path):
    path = tmp_path / "deeper" / "rows.jsonl"
    Lines(path).append(*ROWS)
    whole = path.read_bytes()
    assert Lines(path).rows == ROWS
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        lines = Lines(path)
        assert lines.rows == ROWS[: whole[:cut].count(b"\n")]
        lines.append(*ROWS[len(lines.rows) :])
        assert path.read_bytes() == whole


def test_a_line_that_is_no_object_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n[2]\n')
    with pytest.raises(PrumergeError, match=r"rows.jsonl, line 2: '\[2\]' is no JSON object"):
        Lines(path)


def test_a_folder_in_its_place_is_said(tmp_path):
    with pytest.raises(PrumergeError, match=r"cannot be read .Is a directory."):
        Lines(tmp_path)


def test_what_cannot_be_written_says_what_is_safe(tmp_path):
    lines = Lines(tmp_path / "rows.jsonl")
    lines.append(*ROWS)
    lines.path = tmp_path  # where there is a folder now
    with pytest.raises(PrumergeError, match=r"cannot be written .*; 4 lines are safe in it"):
        lines.append({"b": 2})
