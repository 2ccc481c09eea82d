"""One answer with its question: read as it was written, by this version or an older one."""

import json
from dataclasses import asdict

import pytest
from builders import record

from prumerge.errors import PrumergeError
from prumerge.evaluate.records import by_method, record_of


def lines(value):
    return record_of(value, json.dumps(value).encode(), "answers.jsonl, line 2")


def test_what_is_written_is_read():
    one = record(gold=("red", "red", "dark red"), answer_tokens=12, cut=True)
    assert lines(json.loads(json.dumps(asdict(one)))) == one


def test_what_an_older_version_wrote_is_read():
    one = record("attribute-0007")
    old = {**asdict(one), "benchmark": "attribute", "gold": "red", "picture": 7}
    for name in ("task", "answer_tokens", "cut"):
        del old[name]
    assert lines(old) == one


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"gold": ["red", 3]}, "gold cannot be .*'red', 3"),
        ({"gold": 3}, "gold cannot be 3"),
        ({"cut": 1}, "cut cannot be 1"),
        ({"answer_tokens": False}, "answer_tokens cannot be False"),
        ({"task": "colours"}, "there is no task 'colours'; choose one of"),
    ],
)
def test_what_is_no_answer_is_named_with_its_place(changes, sentence):
    with pytest.raises(PrumergeError, match=f"answers.jsonl, line 2: {sentence}"):
        lines({**asdict(record()), "gold": ["red"], **changes})


def test_records_are_grouped_by_method_in_order_of_appearance_and_sorted_by_question():
    rows = [
        record("choice-0001"),
        record("choice-0000", method="topk@36"),
        record("choice-0000"),
    ]
    assert {label: [one.id for one in group] for label, group in by_method(rows).items()} == {
        "none": ["choice-0000", "choice-0001"],
        "topk@36": ["choice-0000"],
    }
