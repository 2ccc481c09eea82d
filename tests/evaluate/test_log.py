"""Answers on disk: whatever happens to a run, what was answered is there and nothing else."""

import json
import os
from pathlib import Path

import pytest
from builders import record

from prumerge.errors import PrumergeError
from prumerge.evaluate.log import Log, file_of, files_in, read
from prumerge.evaluate.records import by_method

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


# what is asked, as settings


def asking(**tasks):
    """Settings with so many questions of each task, and a hash of them."""
    told = {name: {"questions": count, "options": {}, "hash": text} for name, (count, text) in tasks.items()}
    return {"model": "tiny", "asked": told}


def test_tasks_may_be_added_and_are_then_known(path):
    write(path, RECORDS[:1], asking(attribute=(24, "a")))
    write(path, RECORDS[1:2], asking(reading=(24, "b")))
    settings, records = read(path)
    assert (settings, records) == (asking(attribute=(24, "a"), reading=(24, "b")), RECORDS[:2])
    write(path, RECORDS[2:], asking(attribute=(24, "a")))
    assert path.read_bytes().count(b"settings") == 2
    with pytest.raises(PrumergeError, match="the questions of reading are others now"):
        Log(path, asking(reading=(24, "c")))


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        (
            asking(attribute=(48, "b")),
            r"other settings \(questions of attribute was 24, now 48\); choose another",
        ),
        (
            asking(attribute=(24, "b")),
            r"other settings \(the questions of attribute are others now\); choose",
        ),
        ({**asking(attribute=(24, "a")), "model": "large"}, r"other settings \(model was tiny, now large\)"),
    ],
)
def test_questions_that_changed_do_not_go_on(path, now, sentence):
    write(path, RECORDS, asking(attribute=(24, "a")))
    with pytest.raises(PrumergeError, match=sentence):
        Log(path, now)


def test_a_run_of_an_older_version_goes_on_with_as_many_questions(path):
    write(path, RECORDS, {"model": "tiny", "questions": 24, "unseen": False})
    assert Log(path, asking(attribute=(24, "a"))).records == RECORDS
    with pytest.raises(PrumergeError, match=r"\(questions of attribute was 24, now 48\)"):
        Log(path, asking(attribute=(48, "a")))


# several processes


def test_processes_know_what_the_others_answered_and_write_files_of_their_own(path):
    first, second = (Log(file_of(path.parent, one), SETTINGS, together=True) for one in (0, 1))
    first.append(RECORDS[0])
    second.append(RECORDS[1])
    assert (first.records, second.records) == (RECORDS[:1], RECORDS[1:2])
    first.read_again()
    assert first.records == RECORDS[:2] == read(path.parent)[1]
    alone = Log(file_of(path.parent), SETTINGS, together=True)
    alone.append(*RECORDS[1:])  # one of them twice
    assert read(path.parent)[1] == RECORDS
    assert [file.name for file in files_in(path.parent)] == [
        "answers-0.jsonl",
        "answers-1.jsonl",
        "answers.jsonl",
    ]


def test_methods_keep_the_order_of_the_file_that_was_first(path):
    def one(method, place):
        return record(f"attribute-{place:04}", method=method)

    Log(file_of(path.parent), SETTINGS, together=True).append(one("none", 0))
    Log(file_of(path.parent, 0), SETTINGS, together=True).append(one("topk@36", 0), one("none", 1))
    assert list(by_method(read(path.parent)[1])) == ["none", "topk@36"]


def test_files_of_different_runs_are_not_added_up(path):
    write(file_of(path.parent, 0))
    write(file_of(path.parent, 1), settings={**SETTINGS, "model": "large"})
    with pytest.raises(PrumergeError, match=r"of different runs \(model was large, now tiny\); part them"):
        read(path.parent)
    with pytest.raises(PrumergeError, match=r"answers-1.jsonl was made with other settings"):
        Log(file_of(path.parent), SETTINGS, together=True)


def test_a_file_whose_header_was_not_finished_holds_nothing(path):
    write(file_of(path.parent, 0))
    torn = file_of(path.parent, 1)
    torn.write_bytes(b'{"settings": {"model": "ti')
    assert read(path.parent)[1] == RECORDS
    Log(torn, SETTINGS, together=True).append(RECORDS[0])
    assert read(torn) == (SETTINGS, RECORDS[:1])
