"""Labels that are wrong, flipped, of another version or incomplete are noticed before anything is asked."""

import json

import pytest

from benchmarks import (
    MME,
    POPE,
    asked,
    clips_two_files,
    dump,
    dump_lines,
    gqa_llava,
    mmbench_rows,
    mmbench_tabs,
    mme_release,
    mme_table,
    pope_labels,
    pope_llava,
    pope_tabs,
    read,
    scienceqa_llava,
    tabbed,
    table,
    textvqa_llava,
    vqav2_llava,
)
from prumerge.errors import PrumergeError


def refused(name, folder, sentence):
    with pytest.raises(PrumergeError, match=sentence):
        read(name, folder)


def flipped(label):
    return {"yes": "no", "no": "yes", "Yes": "No", "No": "Yes"}[label]


# POPE

SHORTER = [row for row in POPE if row[:3] != ("random", "000000000002", "bus")]


@pytest.mark.parametrize(("asks", "labels"), [("POPE", SHORTER), ("SHORTER", POPE)])
def test_pope_of_two_versions_is_not_mixed_by_position(tmp_path, asks, labels):
    pope_llava(tmp_path, {"POPE": POPE, "SHORTER": SHORTER}[asks])
    pope_labels(tmp_path, labels)
    counts = {
        "POPE": "3 questions and .* asks 4, 3 of them",
        "SHORTER": "4 questions and .* asks 3, 3 of them",
    }
    refused(
        "pope", tmp_path, f"coco_pope_random.json has labels of {counts[asks]} the same: .* different vers"
    )


def test_pope_of_as_many_but_other_questions_is_noticed(tmp_path):
    pope_llava(tmp_path)
    others = [(*row[:2], "cup" if row[2] == "bus" else row[2], row[3]) for row in POPE]
    pope_labels(tmp_path, others)
    refused("pope", tmp_path, "4 questions and llava_pope_test.jsonl asks 4, 3 of them the same")


def test_pope_labels_in_another_order_still_belong_to_their_questions(tmp_path):
    pope_llava(tmp_path / "first")
    pope_llava(tmp_path / "second")
    pope_labels(tmp_path / "second", POPE[::-1])
    assert asked(read("pope", tmp_path / "second")) == asked(read("pope", tmp_path / "first"))


@pytest.mark.parametrize("split", ["random", "popular", "adversarial"])
def test_pope_with_the_labels_of_one_split_flipped_contradicts_itself(tmp_path, split):
    pope_labels(tmp_path, [(*row[:3], flipped(row[3]) if row[0] == split else row[3]) for row in POPE])
    refused("pope", tmp_path, r"says '(yes|no)' to (dog|apple) in COCO.*, where another row says (no|yes)")


def test_pope_with_a_label_that_is_neither_yes_nor_no_is_refused(tmp_path):
    pope_labels(tmp_path, [(*row[:3], "maybe" if row[2] == "bus" else row[3]) for row in POPE])
    refused("pope", tmp_path, "coco_pope_random.json, row 4 says 'maybe' to bus .*, where yes or no is")


def test_pope_needs_all_three_splits(tmp_path):
    pope_tabs(tmp_path, [row for row in POPE if row[0] != "random"])
    refused(
        "pope", tmp_path, "has the splits random, popular, adversarial; here there are: adversarial, popular"
    )


def test_a_question_that_is_in_the_files_twice_is_refused(tmp_path):
    pope_labels(tmp_path, [*POPE, POPE[0]])
    refused("pope", tmp_path, "pope has two questions random/COCO_val2014_000000000001/dog")


# MME


@pytest.mark.parametrize("write", [mme_release, mme_table])
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda rows: rows[1:], "has no;"),
        (lambda rows: [rows[0], *rows], "has yes, yes, no;"),
        (lambda rows: [(*rows[0][:3], "No"), *rows[1:]], "has no, no;"),
        (lambda rows: [(*rows[0][:3], ""), *rows[1:]], "has nothing, no;"),
        (lambda rows: [(*row[:3], "Yes") for row in rows], "has yes, yes;"),
    ],
)
def test_a_picture_of_mme_has_one_question_for_yes_and_one_for_no(tmp_path, write, change, found):
    write(tmp_path, change(MME))
    refused("mme", tmp_path, f"each picture has two questions, .*; existence/0001 {found}")


def test_mme_without_a_subtask_would_sum_to_less(tmp_path):
    mme_table(tmp_path, [row for row in MME if row[0] not in ("celebrity", "posters")])
    refused("mme", tmp_path, "14 subtasks, and there is nothing of celebrity, posters; get the whole of")


def test_mme_knows_its_subtasks(tmp_path):
    mme_table(tmp_path, [*MME, ("colour", "1", "Is it?", "Yes")])
    refused("mme", tmp_path, r"row 57: there is no subtask 'colour' \(did you mean 'color'\?\)")


# MMBench


def test_a_rotation_that_is_missing_is_noticed(tmp_path):
    mmbench_tabs(tmp_path, [row for row in mmbench_rows() if row["index"] != 2_000_241])
    refused("mmbench", tmp_path, "question 241 has 3 choices, so it is asked 3 times .*; here it is at B, C")


def test_a_file_without_rotations_is_no_circular_evaluation(tmp_path):
    mmbench_tabs(tmp_path, [row for row in mmbench_rows() if row["index"] < 1_000_000])
    refused("mmbench", tmp_path, "question 241 has 3 choices, .*; here it is at B; get")


def test_an_answer_that_did_not_turn_with_its_choices_is_noticed(tmp_path):
    rows = [{**row, "answer": "A"} if row["index"] == 1_000_252 else row for row in mmbench_rows()]
    mmbench_tabs(tmp_path, rows)
    refused("mmbench", tmp_path, "question 252 has 2 choices, .*; here it is at A, A")


def test_rotations_whose_right_choice_changes_are_noticed(tmp_path):
    rows = [{**row, "B": "mouse"} if row["index"] == 1_000_252 else row for row in mmbench_rows()]
    mmbench_tabs(tmp_path, rows)
    refused("mmbench", tmp_path, "question 252 has different right answers in its rotations: cat and mouse")


def test_the_test_set_has_no_answers(tmp_path):
    rows = [{key: value for key, value in row.items() if key != "answer"} for row in mmbench_rows()]
    mmbench_tabs(tmp_path, rows)
    refused("mmbench", tmp_path, "MMBench_DEV_EN.tsv, row 1 has no answer")


# the others


def test_vqa_questions_without_annotations_are_counted(tmp_path):
    vqav2_llava(tmp_path)
    path = tmp_path / "v2_mscoco_val2014_annotations.json"
    kept = json.loads(path.read_text())["annotations"][:1]
    dump(path, {"annotations": kept})
    refused("vqav2", tmp_path, f"2 of 3 questions have no annotations in {path.name}, the first is 262148001")
    dump(path, {"annotations": [{**kept[0], "answers": kept[0]["answers"][:9]}]})
    questions = tmp_path / "llava_vqav2_mscoco_val2014.jsonl"
    questions.write_text(questions.read_text().splitlines()[0])
    refused("vqav2", tmp_path, "row 1 has 9 answers and not ten")
    dump(path, {"info": "of the test split"})
    refused("vqav2", tmp_path, f"{path.name} has no annotations; get it from https://visualqa.org")


def test_gqa_questions_of_another_split_are_counted(tmp_path):
    gqa_llava(tmp_path)
    path = tmp_path / "data/testdev_balanced_questions.json"
    known = json.loads(path.read_text())
    known.pop("201640614")
    dump(path, known)
    refused(
        "gqa", tmp_path, "1 of 3 questions are not in testdev_balanced_questions.json, the first is 201640614"
    )
    dump(path, [])
    refused("gqa", tmp_path, "holds no questions by their id")


def test_textvqa_questions_that_llava_does_not_ask_are_counted(tmp_path):
    textvqa_llava(tmp_path)
    path = tmp_path / "llava_textvqa_val_v051_ocr.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
    refused(
        "textvqa", tmp_path, f"2 of 3 questions are not in {path.name}, the first is TextVQA_0.5.1_val.json"
    )


def test_scienceqa_answers_are_held_against_its_own(tmp_path):
    scienceqa_llava(tmp_path)
    path = tmp_path / "problems.json"
    problems = json.loads(path.read_text())
    problems["5"]["answer"] = 2
    dump(path, problems)
    refused("scienceqa", tmp_path, r"row 2 \(id 5\) is answered by B, and in problems.json by C")
    path.unlink()
    assert len(asked(read("scienceqa", tmp_path))) == 2
    dump(tmp_path / "llava_test_CQM-A.json", [{"id": "5"}])
    refused("scienceqa", tmp_path, "row 1 is no question with its answer")


def test_scienceqa_answers_are_among_the_choices(tmp_path):
    row = {"index": 0, "image": "a", "question": "Which?", "A": "one", "B": "two", "answer": "C"}
    tabbed(tmp_path / "ScienceQA_TEST.tsv", [row])
    refused("scienceqa", tmp_path, "row 1 has 2 choices and the answer C")


def test_ocrbench_knows_its_kinds_of_questions(tmp_path):
    row = {"index": 0, "image": "a", "question": "Which?", "answer": "x", "category": "Doc-oriented VQ"}
    tabbed(tmp_path / "OCRBench.tsv", [row])
    refused("ocrbench", tmp_path, "row 1: there is no kind of question 'Doc-oriented VQ'")


def test_clips_without_answers_are_counted(tmp_path):
    clips_two_files(tmp_path)
    dump(tmp_path / "test_a.json", [{"question_id": "q1", "answer": "ride"}])
    refused("msvd_qa", tmp_path, "2 of 3 questions have no answer in test_a.json, the first is q2")


@pytest.mark.parametrize(
    ("name", "write", "row"),
    [
        ("docvqa", lambda folder, row: tabbed(folder / "DocVQA_VAL.tsv", [row]), {"image": "a"}),
        ("gqa", lambda folder, row: tabbed(folder / "GQA_TestDev_Balanced.tsv", [row]), {"image": "a"}),
        (
            "ocrbench",
            lambda folder, row: table(folder / "data/test-00000-of-00001.parquet", [row]),
            {"image": "a"},
        ),
        (
            "textvqa",
            lambda folder, row: table(folder / "data/validation-00000-of-00001.parquet", [row]),
            {"image": "a"},
        ),
        ("msvd_qa", lambda folder, row: dump_lines(folder / "test.jsonl", [row]), {"video_name": "vid1451"}),
    ],
)
def test_a_field_that_is_not_there_is_named(tmp_path, name, write, row):
    (tmp_path / "videos").mkdir()
    write(tmp_path, {"question": "What?", **row})
    refused(name, tmp_path, r"row 1 has no ")
