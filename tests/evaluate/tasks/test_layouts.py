"""Public benchmarks are read alike from every layout in which they are published."""

import sys
from collections import Counter

import pytest

from benchmarks import (
    LAYOUTS,
    SUFFIX,
    asked,
    laid_out,
    mmbench_rows,
    mmbench_tabs,
    read,
    seen,
    table,
    task,
    textvqa_official,
    textvqa_tabs,
)
from prumerge.errors import MissingPackage, PrumergeError
from prumerge.evaluate.tasks._task import Question

LETTER = "\nAnswer with the option's letter from the given choices directly."
EVERY = [(task, layout) for task, layouts in LAYOUTS.items() for layout in layouts]


FIRST = {
    "vqav2": Question(
        "vqav2",
        "262148000",
        "262148",
        f"Where is he looking?{SUFFIX}",
        (*["down"] * 7, "at table", "skateboard", "down"),
    ),
    "gqa": Question("gqa", "201307251", "n161313", f"Is it overcast?{SUFFIX}", ("no",)),
    "textvqa": Question(
        "textvqa",
        "34602",
        "003a8ae2ef43b901",
        f"What is the brand of this camera?\nReference OCR token: DAKOTA, TA{SUFFIX}",
        ("dakota",) * 10,
        split="with OCR tokens",
    ),
    "scienceqa": Question(
        "scienceqa",
        "0000",
        "0000",
        "Context: A test.\nFigure: a tunnel.\nWhich could it show?\nA. if\nB. how\nC. whether" + LETTER,
        ("B",),
        options=3,
    ),
    "pope": Question(
        "pope",
        "random/COCO_val2014_000000000001/dog",
        "COCO_val2014_000000000001",
        f"Is there a dog in the image?{SUFFIX}",
        ("yes",),
        split="random",
    ),
    "mme": Question(
        "mme",
        "artwork/0001/yes",
        "artwork/0001",
        f"Is artwork so?{SUFFIX}",
        ("yes",),
        split="artwork",
        group="artwork/0001",
    ),
    "mmbench": Question(
        "mmbench",
        "1000241",
        "241",
        "The passage.\nIt has lines.\nWhich could it show?\nA. green\nB. red\nC. blue" + LETTER,
        ("C",),
        split="ocr",
        group="241",
        options=3,
    ),
    "docvqa": Question("docvqa", "49153", "pybv0228_81", f"What is the actual value?{SUFFIX}", ("0.28",)),
    "ocrbench": Question(
        "ocrbench",
        "0001",
        "0001",
        "what is written in 1?",
        ("CENTRE", "center"),
        split="Irregular Text Recognition",
    ),
    **{
        name: Question(name, "q1", "vid1451", "what is a man doing?", ("ride",))
        for name in ("msvd_qa", "msrvtt_qa", "activitynet_qa")
    },
}


@pytest.mark.parametrize(("name", "layout"), EVERY)
def test_a_question_is_asked_as_the_protocol_says(tmp_path, name, layout):
    questions = asked(read(name, laid_out(tmp_path, name, layout)))
    assert questions[FIRST[name].id] == FIRST[name]


@pytest.mark.parametrize(("name", "layout"), EVERY)
def test_every_layout_gives_the_same_questions_and_pictures(tmp_path, name, layout):
    reference = read(name, laid_out(tmp_path / "first", name))
    here = read(name, laid_out(tmp_path / "second", name, layout))
    assert asked(here) == asked(reference)
    assert seen(here) == seen(reference)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_picture_comes_once_with_all_that_is_asked_about_it(tmp_path, name):
    pictures = read(name, laid_out(tmp_path, name))
    keys = [{question.picture for question in questions} for _, questions in pictures]
    assert all(len(key) == 1 for key in keys)
    assert len(set.union(*keys)) == len(keys)


@pytest.mark.parametrize("name", ["msvd_qa", "msrvtt_qa", "activitynet_qa"])
def test_a_clip_is_shown_as_eight_frames(tmp_path, name):
    pictures = read(name, laid_out(tmp_path, name))
    assert task(name).frames == 8
    assert [len(show()) for show, _ in pictures] == [8, 8]


def test_nothing_is_opened_before_it_is_shown(tmp_path):
    folder = laid_out(tmp_path, "gqa")
    (folder / "data/images/n161313.jpg").write_bytes(b"no picture")
    first, second = read("gqa", folder)
    second[0]()
    with pytest.raises(PrumergeError, match=r"n161313.jpg' is no picture"):
        first[0]()


# where it is looked for


def test_a_folder_of_many_benchmarks_holds_each_in_one_of_its_name(tmp_path):
    laid_out(tmp_path / "MME", "mme")
    laid_out(tmp_path / "pope", "pope")
    laid_out(tmp_path / "MSVD_Zero_Shot_QA", "msvd_qa")
    assert len(asked(read("mme", tmp_path))) == 56
    assert len(asked(read("pope", tmp_path))) == 12
    assert len(asked(read("msvd_qa", tmp_path))) == 3


@pytest.mark.parametrize(
    ("name", "layout", "path", "renamed"),
    [
        ("pope", "TSV", "POPE.tsv", "mine.tsv"),
        ("pope", "table", "data/test-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("mme", "release", "MME_Benchmark_release_version", "release"),
    ],
)
def test_what_the_user_names_may_be_the_file_or_the_folder_itself(tmp_path, name, layout, path, renamed):
    laid_out(tmp_path, name, layout)
    (tmp_path / path).rename(tmp_path / renamed)
    assert asked(read(name, tmp_path / renamed))[FIRST[name].id] == FIRST[name]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_folder_without_the_benchmark_is_told_what_it_may_hold_and_where_that_is_published(tmp_path, name):
    with pytest.raises(PrumergeError, match=rf"holds nothing that {name} is read from: .+ \(.+\)") as caught:
        read(name, tmp_path)
    assert "Hugging Face" in str(caught.value) or "Video-LLaVA" in str(caught.value)


def test_a_task_that_reads_the_disk_asks_for_a_folder():
    with pytest.raises(PrumergeError, match="pope reads what is on your disk; give its folder: coco/"):
        read("pope", None)


GONE = [
    ("vqav2", "LLaVA", "v2_mscoco_val2014_annotations.json", "published at https://visualqa.org"),
    ("vqav2", "official", "val2014", "published at http://images.cocodataset.org"),
    ("vqav2", "official", "val2014/COCO_val2014_000000262148.jpg", "asks about 262148, but there is no '"),
    (
        "vqav2",
        "table",
        "data/validation-00000-of-00002.parquet",
        "has 1 of 2 parts of a table and lacks valid",
    ),
    ("gqa", "LLaVA", "data/testdev_balanced_questions.json", "published at https://cs.stanford.edu"),
    ("gqa", "table", "testdev_balanced_images/testdev-00000-of-00001.parquet", "lmms-lab/GQA"),
    ("textvqa", "LLaVA", "llava_textvqa_val_v051_ocr.jsonl", "put LLaVA's llava_textvqa_val_v051_ocr.jsonl"),
    ("textvqa", "LLaVA", "train_images", "lacks train_images, which is published at https://textvqa.org"),
    ("scienceqa", "official", "pid_splits.json", "published at github.com/lupantech/ScienceQA"),
    ("pope", "LLaVA", "coco/coco_pope_random.json", "published at github.com/AoiDragon/POPE"),
    ("pope", "LLaVA", "val2014", "published at http://images.cocodataset.org"),
    ("mme", "release", "MME_Benchmark_release_version/OCR", "lacks OCR, which is published at github.com/Br"),
    ("mme", "release", "MME_Benchmark_release_version/OCR/0001.jpg", "lacks 0001.jpg, which is published"),
    ("docvqa", "official", "documents", "published at https://www.docvqa.org"),
    ("ocrbench", "official", "OCRBench_Images", "published at github.com/Yuliang-Liu/MultimodalOCR"),
    ("msvd_qa", "Video-LLaVA", "test_a.json", "published at github.com/PKU-YuanGroup/Video-LLaVA"),
    ("msvd_qa", "Video-LLaVA", "videos/vid1452.gif", "asks about vid1452, but there is no '.*vid1452.mp4'"),
]


@pytest.mark.parametrize(("name", "layout", "path", "sentence"), GONE)
def test_what_is_missing_is_named_with_where_it_is_published(tmp_path, name, layout, path, sentence):
    folder = laid_out(tmp_path, name, layout)
    (folder / path).rename(tmp_path / "elsewhere")
    with pytest.raises(PrumergeError, match=sentence):
        read(name, folder)


# damaged files


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def replaced(path, old, new):
    path.write_text(path.read_text().replace(old, new))


DAMAGED = {
    "json": ("vqav2", "official", "v2_OpenEnded_mscoco_val2014_questions.json", cut, "no JSON"),
    "json lines": ("gqa", "LLaVA", "llava_gqa_testdev_balanced.jsonl", cut, "line 3 is no JSON"),
    "a table": ("pope", "table", "data/test-00000-of-00001.parquet", cut, "no whole parquet file"),
    "TSV, a row": (
        "pope",
        "TSV",
        "POPE.tsv",
        lambda p: p.write_text(p.read_text() + "1\t2\n"),
        "2 fields and",
    ),
    "TSV, its head": (
        "pope",
        "TSV",
        "POPE.tsv",
        lambda p: replaced(p, '"image"', '"picture"'),
        "no columns question and image",
    ),
    "not rows": ("ocrbench", "official", "OCRBench.json", lambda p: p.write_text("[1]"), "no list of rows"),
    "no rows": ("ocrbench", "official", "OCRBench.json", lambda p: p.write_text("[]"), "holds no questions"),
    "empty": ("ocrbench", "official", "OCRBench.json", lambda p: p.write_text(""), "is empty"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_one_sentence_that_names_it(tmp_path, kind):
    name, layout, path, damage, sentence = DAMAGED[kind]
    folder = laid_out(tmp_path, name, layout)
    damage(folder / path)
    with pytest.raises(PrumergeError, match=sentence) as caught:
        read(name, folder)
    assert path.rpartition("/")[2] in str(caught.value)


def test_without_pyarrow_a_table_says_how_to_install_it(tmp_path, monkeypatch):
    folder = laid_out(tmp_path, "pope", "table")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        MissingPackage, match="parquet files need pyarrow; install it with: pip install pyarrow"
    ):
        read("pope", folder)


def test_a_picture_that_is_no_base64_is_named_by_its_row(tmp_path):
    folder = laid_out(tmp_path, "ocrbench", "TSV")
    path = folder / "OCRBench.tsv"
    path.write_text(path.read_text().replace("iVBOR", "****", 1))
    first, second, *_ = read("ocrbench", folder)
    second[0]()
    with pytest.raises(PrumergeError, match=r"the picture of OCRBench.tsv, row 1 is no base64"):
        first[0]()


def test_a_picture_that_another_row_should_hold_must_be_there(tmp_path):
    rows = mmbench_rows()
    mmbench_tabs(tmp_path, [{**row, "image": 999} if row["index"] == 1_000_252 else row for row in rows])
    with pytest.raises(PrumergeError, match="shows the picture of row '999', which is not in the file"):
        read("mmbench", tmp_path)


def test_a_row_without_a_picture_of_its_own_shows_that_of_another(tmp_path):
    laid_out(tmp_path / "first", "mmbench", "TSV")
    mmbench_tabs(tmp_path / "second", mmbench_rows()[::-1])  # those that refer to a picture come first
    assert seen(read("mmbench", tmp_path / "second")) == seen(read("mmbench", tmp_path / "first"))


def test_a_row_of_a_table_without_its_picture_is_named(tmp_path):
    folder = laid_out(tmp_path, "gqa", "table")
    table(
        folder / "testdev_balanced_images/testdev-00000-of-00001.parquet", [{"id": "n161313", "image": "a"}]
    )
    with pytest.raises(PrumergeError, match=r"testdev-00000-of-00001.parquet, row 2 holds no picture"):
        read("gqa", folder)


# how many questions


@pytest.mark.parametrize(("name", "layout"), EVERY)
@pytest.mark.parametrize("count", [1, 2, 4, 10**6])
def test_some_questions_are_whole_groups_even_over_splits(tmp_path, name, layout, count):
    folder = laid_out(tmp_path, name, layout)
    everything = asked(read(name, folder))
    whole = Counter(question.group or question.id for question in everything.values())
    least = {}  # of each split, its first group
    for question in everything.values():
        least.setdefault(question.split, whole[question.group or question.id])
    wanted = min(sum(least.values()) - 1 + count, len(everything))
    some = asked(read(name, folder, wanted))
    assert len(some) <= wanted
    taken = Counter(question.group or question.id for question in some.values())
    assert all(taken[group] == whole[group] for group in taken)
    splits = Counter(question.split for question in some.values())
    assert splits.keys() == least.keys()
    if name != "mmbench" and count < 10**6:  # whose groups are of different sizes
        assert max(splits.values()) - min(splits.values()) <= max(whole.values())
    if count == 10**6:
        assert some == everything


@pytest.mark.parametrize(("name", "least"), [("pope", 3), ("mme", 28), ("mmbench", 5), ("gqa", 1)])
def test_too_few_questions_for_all_splits_are_refused(tmp_path, name, least):
    folder = laid_out(tmp_path, name)
    assert len(asked(read(name, folder, least))) == least
    with pytest.raises(PrumergeError, match=f"{least - 1} questions are too few; ask at least {least}"):
        read(name, folder, least - 1)


# options


@pytest.mark.parametrize("layout", LAYOUTS["textvqa"])
def test_textvqa_asks_with_the_tokens_of_an_ocr_system_unless_told_otherwise(tmp_path, layout):
    folder = laid_out(tmp_path, "textvqa", layout)
    question = "What is the brand of this camera?"
    for options, text, split in (
        ({}, f"{question}\nReference OCR token: DAKOTA, TA", "with OCR tokens"),
        ({"ocr": "yes"}, f"{question}\nReference OCR token: DAKOTA, TA", "with OCR tokens"),
        ({"ocr": "no"}, question, "without OCR tokens"),
    ):
        one = asked(read("textvqa", folder, **options))["34602"]
        assert (one.text, one.split) == (text + SUFFIX, split)


@pytest.mark.parametrize("write", [textvqa_official, textvqa_tabs])
def test_textvqa_without_ocr_tokens_on_disk_can_only_be_asked_without_them(tmp_path, write):
    write(tmp_path)
    assert asked(read("textvqa", tmp_path, ocr="no"))["34602"].text == (
        f"What is the brand of this camera?{SUFFIX}"
    )
    with pytest.raises(PrumergeError, match=r"comes without OCR tokens; .* by the option ocr=no"):
        read("textvqa", tmp_path)


def test_clips_can_be_asked_for_short_answers(tmp_path):
    folder = laid_out(tmp_path, "msvd_qa")
    assert asked(read("msvd_qa", folder, short="yes"))["q1"].text == f"what is a man doing?{SUFFIX}"


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_option_that_a_task_has_not_is_refused(tmp_path, name):
    folder = laid_out(tmp_path, name)
    with pytest.raises(PrumergeError, match=f"{name} has no option 'colour'; its options are: "):
        read(name, folder, colour="yes")
    for option in task(name).options:
        with pytest.raises(PrumergeError, match=f"there is no {option} of {name} 'maybe'; choose one of"):
            read(name, folder, **{option: "maybe"})
