"""Answers on disk: whatever happens to a run, what was answered is there and nothing else."""

import json
import os
from pathlib import Path

import pytest
from builders import record

from prumerge.errors import PrumergeError
from prumerge.evaluate.log import Log, read

SETTINGS = {"model": "tiny", "questions": 12}
RECORDS = [
    record("attribute-0000"),
    record("reading-0001", prediction='caf\u00e9 \u2028 \U0001f6d1 \x85\n"quoted"', score=0.0),
    record("choice-0002", method="prumerge@36", spec="prumerge:keep=35", tokens_kept=36),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "answers.jsonl"


def write(path, records=RECORDS, settings=SETTINGS):
    log = Log(path, settings)
    for one in records:
        log.append(one)
    return log


def test_what_was_appended_is_read_again(path):
    log = write(path)
    assert log.records == RECORDS
    assert read(path) == (SETTINGS, RECORDS)
    assert Log(path, SETTINGS).records == RECORDS


def test_every_answer_is_on_disk_at_once(path):
    log = Log(path, SETTINGS)
    for count, one in enumerate(RECORDS, 1):
        log.append(one)
        lines = path.read_bytes().split(b"\n")
        assert (len(lines), lines[-1]) == (count + 2, b"")


def test_nothing_is_written_before_there_is_an_answer(path):
    Log(path, SETTINGS)
    assert not path.parent.exists()


def test_a_run_goes_on_after_a_cut_at_any_byte(path, tmp_path):
    write(path)
    whole, cut_short = path.read_bytes(), tmp_path / "answers.jsonl"
    for cut in range(len(whole)):
        cut_short.write_bytes(whole[:cut])
        lines, _, torn = whole[:cut].rpartition(b"\n")
        survived = lines.count(b"\n")  # the first line holds the settings
        log = Log(cut_short, SETTINGS)
        assert log.records == RECORDS[:survived]
        assert log.repaired == len(torn)
        if lines:
            assert read(cut_short)[1] == RECORDS[:survived]
        for one in RECORDS[survived:]:
            log.append(one)
        assert cut_short.read_bytes() == whole


def test_reading_passes_over_an_unfinished_line_and_changes_nothing(path):
    write(path)
    torn = path.read_bytes()[:-5]
    path.write_bytes(torn)
    assert read(path) == (SETTINGS, RECORDS[:2])
    assert path.read_bytes() == torn


def test_other_settings_are_refused_by_name_and_the_file_is_left_alone(path):
    write(path)
    torn = path.read_bytes()[:-5]
    path.write_bytes(torn)
    with pytest.raises(ValueError, match=r"other settings \(questions was 12, now 24\); choose another"):
        Log(path, {**SETTINGS, "questions": 24})
    with pytest.raises(ValueError, match=r"\(model was tiny, now large; device was None, now cpu\)"):
        Log(path, {**SETTINGS, "model": "large", "device": "cpu"})
    assert path.read_bytes() == torn


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "hello\n",
        "{}\n",
        '{"settings": {}}\n{"id": 1}\n',
        "[1]\n[2]\n",
        '{"settings": {"model": "large',
    ],
)
def test_a_file_that_is_no_run_of_these_settings_is_refused_and_left_alone(path, text):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(PrumergeError, match=r"is no file of answers|line 2: 'task' is missing"):
        Log(path, SETTINGS)
    assert path.read_text() == text


def test_there_must_be_a_file_to_read(path):
    with pytest.raises(ValueError, match="there are no answers at"):
        read(path)


def test_what_two_runs_asked_at_once_counts_once(path):
    log, other = Log(path, SETTINGS), None
    log.append(RECORDS[0])
    other = Log(path, SETTINGS)
    log.append(RECORDS[1])
    other.append(RECORDS[1])
    other.append(RECORDS[2])
    assert read(path)[1] == RECORDS


@pytest.mark.parametrize("place", ["file/answers.jsonl", "file/deeper/answers.jsonl", "folder"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PrumergeError, match=rf"{place} cannot be (written|read) \(.+\); "):
        Log(tmp_path / place, SETTINGS).append(RECORDS[0])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_named_with_what_is_safe(path):
    log = write(path, RECORDS[:2])
    safe = path.read_bytes()
    path.rename(path.with_suffix(".before"))
    os.symlink("/dev/full", path)
    with pytest.raises(
        PrumergeError, match=r"answers.jsonl cannot be written \(No space .+\); 2 answers are safe in it"
    ):
        log.append(RECORDS[2])
    assert log.records == RECORDS[:2]
    path.unlink()
    path.write_bytes(safe + json.dumps({"half": "a line"}).encode())  # as a full disk may leave it
    again = Log(path, SETTINGS)
    again.append(RECORDS[2])
    assert read(path)[1] == RECORDS
