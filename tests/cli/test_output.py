"""Tables that fit the terminal, text that breaks between words, files that are whole or not there."""

import errno
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prumerge.cli import COMMANDS, output
from prumerge.cli.output import (
    breakable,
    check_folder,
    check_target,
    clock,
    is_numeric,
    layout,
    print_table,
    taken,
    time_left,
    wrapped,
    written,
)
from prumerge.errors import PrumergeError
from prumerge.tiny import samples

NAMES = ("method", "tokens", "against none", "p", "first", "second", "third", "fourth")
ROWS = [
    ["tome:r=40+prumerge_plus:keep=36,k=auto@36", "36", "-12.5 [-16.4, -4.0]", "4.2e-06", *["1234.5"] * 4],
    ["none", "576", "", "", *["100.0"] * 4],
]


@pytest.fixture(params=[60, 80, 120, 200])
def columns(request, monkeypatch):
    monkeypatch.setattr(output, "width", lambda: request.param)
    return request.param


def test_a_table_is_never_wider_than_the_terminal_and_its_numbers_stay_whole(columns, capsys):
    print_table(NAMES, ROWS)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= columns
    for row in ROWS:
        assert all(cell in out for cell in row[1:])
    assert "…" not in out
    assert re.sub(r"\s", "", out).count("none") > 0


@pytest.mark.parametrize("terminal", [80, 120])
@pytest.mark.parametrize(
    "command",
    [
        "methods",
        "methods prumerge",
        "methods sparsevlm",
        "families",
        "samples",
        "roofline --bits w16a16,w8a8kv8:fp16 --hardware a100-40gb,laptop-cpu",
        "roofline --ops --visual 576x2+288,40 --hardware v100",
        "roofline --convention llm-viewer-2024-03",
        "answer --sample 1 what? --reducer prumerge,tome:r=40+prumerge_plus:k=auto+fastv --keep 36",
    ],
)
def test_what_commands_print_fits_the_terminal(run, monkeypatch, tmp_path, command, terminal):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(output, "width", lambda: terminal)
    code, out, _ = run(*command.split())
    assert code == 0
    assert max(map(len, out.splitlines())) <= terminal
    assert "…" not in out


@pytest.mark.parametrize("terminal", [80, 120])
def test_what_the_demo_prints_fits_the_terminal(run, monkeypatch, tmp_path, terminal):
    """Of the picture with the longest question."""
    longest = max(samples(), key=lambda sample: max(len(question.text) for question in sample.questions))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("prumerge.tiny.samples", lambda: [longest])
    monkeypatch.setattr(output, "width", lambda: terminal)
    code, out, _ = run("demo", "--keep", "36")
    assert code == 0
    assert max(map(len, out.splitlines())) <= terminal
    assert "…" not in out


@pytest.mark.parametrize("command", [[], *([name.replace("_", "-")] for name in COMMANDS)], ids=" ".join)
def test_help_fits_80_columns(run, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(*command, "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80


def test_every_part_of_a_table_begins_with_its_keys(monkeypatch, capsys):
    monkeypatch.setattr(output, "width", lambda: 40)
    print_table(("machine", "bits", *NAMES), [["v100", "w4a16", *row] for row in ROWS], keys=2)
    parts = capsys.readouterr().out.strip().split("\n\n")
    assert len(parts) > 2
    for part in parts:
        assert part.splitlines()[-1].startswith("v100     w4a16")


def test_a_pipe_gets_a_line_for_each_row_without_padding(capsys):
    print_table(NAMES, [*ROWS, ["blind", "0", "", "", "", "", "", ""]])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 3 + 1  # a head, a rule, rows, and an empty line
    assert all(line == line.rstrip() for line in lines)
    assert lines[2].startswith(ROWS[0][0])


def test_what_looks_like_markup_is_printed_as_it_is(capsys):
    print_table(("answer",), [["[bold]red[/bold] :smile:"]])
    assert "[bold]red[/bold] :smile:" in capsys.readouterr().out


def test_a_table_without_rows_has_a_head(capsys):
    print_table(NAMES, [])
    assert "against none" in capsys.readouterr().out


@given(
    st.lists(st.lists(st.text("ab 1", max_size=40), min_size=3, max_size=3), max_size=4),
    st.integers(40, 130),
)
def test_parts_hold_every_column_once_and_fit_as_far_as_words_let_them(rows, available):
    columns = [list(cells) for cells in zip(*rows, strict=True)] or [[], [], []]
    parts = layout(("one", "two", "three"), columns, 1, available)
    assert [column for part in parts for column, _ in part[1:]] == [1, 2]
    for part in parts:
        sizes = {column: size for column, size in part}
        assert (
            taken([sizes.get(column, 0) for column in range(3)], list(sizes)) <= available or len(part) == 2
        )


def test_numbers_stand_to_the_right():
    assert is_numeric(["36", "+0.1 [-1, 1]", "", "-5"])
    assert not is_numeric(["36", "auto"])
    assert not is_numeric(["", ""])


def test_a_long_spec_breaks_behind_its_marks():
    assert breakable("tome:r=40+prumerge_plus:keep=36,k=auto@36").split("\n") == [
        "tome:r=40+prumerge_plus:",
        "keep=36,k=auto@36",
    ]
    assert breakable("prumerge@36") == "prumerge@36"
    assert breakable("words that are short but many of them together") == (
        "words that are short but many of them together"
    )


def test_sentences_break_between_words_in_a_terminal_only(columns):
    text = "v100: from 576 to 40 visual tokens means 6.1x fewer FLOPs, a prefill 4.9x as fast " * 3
    lines = wrapped(text.strip()).splitlines()
    assert max(map(len, lines)) <= columns
    assert " ".join(lines) == text.strip()


def test_sentences_are_one_line_in_a_pipe():
    assert wrapped("a " * 200) == "a " * 200


# the time that is left


def test_the_time_left_follows_what_was_made_and_not_what_was_there():
    assert time_left(elapsed=10, made=5, left=50) == 100
    assert time_left(elapsed=10, made=0, left=50) is None
    assert clock(3725.4) == "1:02:05"


def test_progress_counts_what_is_made_from_where_it_began(monkeypatch):
    from rich.progress import Progress

    told = []
    monkeypatch.setattr(Progress, "update", lambda bar, task, **state: told.append(state))
    records = list(range(70))
    with output.progress("answering", made=lambda: len(records)) as track:
        track(70, 100)
        records.extend(range(5))
        track(5, 100)
    assert [state["made"] for state in told] == [0, 5]


# files


def test_what_is_written_whole_replaces_what_was_there(tmp_path):
    (tmp_path / "a.txt").write_text("older")
    with written(tmp_path / "a.txt") as draft:
        draft.write_text("newer")
        assert (tmp_path / "a.txt").read_text() == "older"
    assert (tmp_path / "a.txt").read_text() == "newer"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_what_the_file_system_refuses_names_the_file_and_no_number(tmp_path, code):
    with pytest.raises(PrumergeError) as raised, written(tmp_path / "a.txt") as draft:
        draft.write_text("half")
        raise OSError(code, os.strerror(code), str(draft))
    assert (
        str(raised.value) == f"{tmp_path}/a.txt cannot be written ({os.strerror(code)}); name another place"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_fault_while_writing_is_no_bad_input(tmp_path):
    with pytest.raises(KeyError), written(tmp_path / "a.txt"):
        raise KeyError("a fault")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_tried_and_left_as_it_was(tmp_path):
    check_folder(tmp_path / "not" / "yet")
    check_target(tmp_path / "a.png", output.PICTURES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("check", [check_folder, lambda path: check_target(path / "a.png", output.PICTURES)])
def test_a_folder_that_cannot_be_written_to_is_named_before_any_work(tmp_path, monkeypatch, check):
    def refuses(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", f"{tmp_path}/.prumerge-x1y2")

    monkeypatch.setattr(output.tempfile, "mkstemp", refuses)
    with pytest.raises(PrumergeError, match=r"cannot be written \(Permission denied\); name another place$"):
        check(tmp_path)
