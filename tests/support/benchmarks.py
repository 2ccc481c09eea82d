"""Small folders laid out as public benchmarks are published, of drawn pictures and made-up questions."""

import base64
import csv
import io
import json
from importlib import import_module

import pytest
from clips import animated
from PIL import Image, ImageDraw

from prumerge.evaluate.tasks._task import Source


def drawn(name):
    """A picture of its own for each name."""
    picture = Image.new("RGB", (32, 24), "white")
    code = sum(ord(mark) * (place + 1) for place, mark in enumerate(str(name)))
    colour = (code % 256, code // 7 % 256, code // 31 % 256)
    ImageDraw.Draw(picture).rectangle((4, 4, 4 + code % 20, 16), fill=colour)
    return picture


def data(name):
    buffer = io.BytesIO()
    drawn(name).save(buffer, "PNG")
    return buffer.getvalue()


def picture(path, name):
    """A picture in a file, whatever its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data(name))


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def dump_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def table(path, rows, groups=2):
    """As Hugging Face stores datasets: pictures as {bytes, path}, some rows in a group."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {**row, "image": {"bytes": data(row["image"]), "path": None}} if "image" in row else row
        for row in rows
    ]
    parquet.write_table(arrow.Table.from_pylist(rows), path, row_group_size=groups)


def tabbed(path, rows):
    """As VLMEvalKit's files: pictures in base64; where `image` is a number, that of the row that has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        for row in rows:
            there = row["image"]
            image = str(there) if isinstance(there, int) else base64.b64encode(data(there)).decode()
            writer.writerow({**row, "image": image})


SUFFIX = "\nAnswer the question using a single word or phrase."

# VQAv2

VQA = [  # question id, picture, question, ten answers
    (262148000, 262148, "Where is he looking?", ["down"] * 7 + ["at table", "skateboard", "down"]),
    (262148001, 262148, "How many people?", ["1"] * 4 + ["2"] * 6),
    (393225000, 393225, "What colour is it?", ["red"] * 10),
]


def coco(number):
    return f"COCO_val2014_{number:012}.jpg"


def vqav2_annotations(folder):
    kept = [
        {"question_id": name, "image_id": shown, "answers": [{"answer": a, "answer_id": 1} for a in answers]}
        for name, shown, _, answers in VQA
    ]
    dump(folder / "v2_mscoco_val2014_annotations.json", {"annotations": kept})
    for _, shown, _, _ in VQA:
        picture(folder / "val2014" / coco(shown), shown)


def vqav2_official(folder):
    asked = [{"question_id": name, "image_id": shown, "question": text} for name, shown, text, _ in VQA]
    dump(folder / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": asked})
    vqav2_annotations(folder)


def vqav2_llava(folder):
    rows = [
        {"question_id": name, "image": coco(shown), "text": text + SUFFIX, "category": "default"}
        for name, shown, text, _ in VQA
    ]
    dump_lines(folder / "llava_vqav2_mscoco_val2014.jsonl", rows)
    vqav2_annotations(folder)


def vqav2_table(folder):
    for part, rows in enumerate((VQA[:2], VQA[2:])):
        table(
            folder / f"data/validation-{part:05}-of-00002.parquet",
            [
                {
                    "question_id": name,
                    "image_id": shown,
                    "question": text,
                    "answers": [{"answer": answer, "answer_confidence": "yes"} for answer in answers],
                    "image": shown,
                }
                for name, shown, text, answers in rows
            ],
        )


# GQA

GQA = [  # id, picture, question, answer
    ("201307251", "n161313", "Is it overcast?", "no"),
    ("201640614", "n235859", "Who is wearing the dress?", "woman"),
    ("202225914", "n161313", "What is on the plate?", "food"),
]


def gqa_official(folder):
    asked = {name: {"imageId": shown, "question": text, "answer": gold} for name, shown, text, gold in GQA}
    dump(folder / "data/testdev_balanced_questions.json", asked)
    for _, shown, _, _ in GQA:
        picture(folder / f"data/images/{shown}.jpg", shown)


def gqa_llava(folder):
    gqa_official(folder)
    rows = [
        {"question_id": name, "image": f"{shown}.jpg", "text": text + SUFFIX, "category": "default"}
        for name, shown, text, _ in GQA
    ]
    dump_lines(folder / "llava_gqa_testdev_balanced.jsonl", rows)


def gqa_table(folder):
    keys = ("id", "imageId", "question", "answer")
    rows = [dict(zip(keys, row, strict=True)) for row in GQA]
    table(folder / "testdev_balanced_instructions/testdev-00000-of-00001.parquet", rows)
    pictures = [{"id": shown, "image": shown} for shown in ("n235859", "n161313")]
    table(folder / "testdev_balanced_images/testdev-00000-of-00001.parquet", pictures)


# TextVQA

TEXT = [  # id, picture, question, OCR tokens, ten answers
    (34602, "003a8ae2ef43b901", "what is the brand of this camera?", ["DAKOTA", "TA"], ["dakota"] * 10),
    (34603, "4cf91022e36a29ca", "What does GA say?", [], ["copenhagen"] * 6 + ["carlsberg"] * 4),
    (34604, "003a8ae2ef43b901", "is it digital?", ["DAKOTA", "TA"], ["yes"] * 9 + ["no"]),
]


def textvqa_official(folder):
    keys = ("question_id", "image_id", "question", "answers")
    rows = [dict(zip(keys, (*row[:3], row[4]), strict=True)) for row in TEXT]
    dump(folder / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": rows})
    for _, shown, *_ in TEXT:
        picture(folder / f"train_images/{shown}.jpg", shown)


def textvqa_llava(folder):
    textvqa_official(folder)
    rows = [
        {
            "question_id": shown,
            "image": f"{shown}.jpg",
            "text": f"{text.capitalize()}\nReference OCR token: {', '.join(tokens)}{SUFFIX}",
            "category": "default",
        }
        for _, shown, text, tokens, _ in TEXT
    ]
    dump_lines(folder / "llava_textvqa_val_v051_ocr.jsonl", rows)


def textvqa_table(folder):
    keys = ("question_id", "image_id", "question", "ocr_tokens", "answers")
    rows = [{**dict(zip(keys, row, strict=True)), "image": row[1]} for row in TEXT]
    table(folder / "data/validation-00000-of-00001.parquet", rows)


def textvqa_tabs(folder):
    rows = [
        {"index": name, "image": shown, "image_id": shown, "question": text, "answer": str(golds)}
        for name, shown, text, _, golds in TEXT
    ]
    tabbed(folder / "TextVQA_VAL.tsv", rows)


# ScienceQA

SCIENCE = [  # id, picture, hint, question, choices, place of the right one
    ("4", None, "", "Which figure of speech is used?", ["chiasmus", "apostrophe"], 1),
    ("5", "image.png", "A test.\nFigure: a tunnel.", "Which could it show?", ["if", "how", "whether"], 1),
    ("11", "image.png", "", "What is its name?", ["Maryland", "Vermont"], 0),
]
WITH_PICTURE = [row for row in SCIENCE if row[1]]


def scienceqa_pictures(folder):
    for name, shown, *_ in WITH_PICTURE:
        picture(folder / "images/test" / name / shown, name)


def scienceqa_problems(folder):
    keys = ("image", "hint", "question", "choices", "answer")
    everything = {row[0]: dict(zip(keys, row[1:], strict=True)) for row in SCIENCE}
    dump(folder / "problems.json", {**everything, "1": everything["4"]})
    dump(folder / "pid_splits.json", {"train": ["1"], "test": [row[0] for row in SCIENCE]})
    scienceqa_pictures(folder)


def scienceqa_llava(folder):
    rows = []
    for name, shown, hint, text, choices, right in SCIENCE:
        lines = [f"Context: {hint}"] if hint else []
        lines += [text, *(f"{letter}. {one}" for letter, one in zip("ABCDE", choices, strict=False))]
        if shown:
            lines.insert(0, "<image>")
        turns = [{"from": "human", "value": "\n".join(lines)}, {"from": "gpt", "value": "ABCDE"[right]}]
        rows.append({"id": name, "conversations": turns} | ({"image": f"{name}/{shown}"} if shown else {}))
    dump(folder / "llava_test_CQM-A.json", rows)
    scienceqa_problems(folder)


def scienceqa_table(folder):
    rows = [
        {"image": name, "question": text, "choices": choices, "answer": right, "hint": hint, "task": "closed"}
        for name, _, hint, text, choices, right in WITH_PICTURE
    ]
    table(folder / "ScienceQA-IMG/test-00000-of-00001.parquet", rows)


def scienceqa_tabs(folder):
    rows = [
        {
            "index": number,
            "image": name,
            "question": text,
            "hint": hint,
            **dict(zip("ABCD", [*choices, "", ""], strict=False)),
            "answer": "ABCD"[right],
        }
        for number, (name, _, hint, text, choices, right) in enumerate(WITH_PICTURE)
    ]
    tabbed(folder / "ScienceQA_TEST.tsv", rows)


# POPE

POPE = [  # split, picture, thing, label
    *(("random", "000000000001", thing, label) for thing, label in (("dog", "yes"), ("sink", "no"))),
    *(("popular", "000000000001", thing, label) for thing, label in (("dog", "yes"), ("person", "no"))),
    *(("adversarial", "000000000001", thing, label) for thing, label in (("dog", "yes"), ("cat", "no"))),
    *(("random", "000000000002", thing, label) for thing, label in (("apple", "yes"), ("bus", "no"))),
    *(("popular", "000000000002", thing, label) for thing, label in (("apple", "yes"), ("chair", "no"))),
    *(("adversarial", "000000000002", thing, label) for thing, label in (("apple", "yes"), ("fork", "no"))),
]


def is_there(thing):
    return f"Is there {'an' if thing[0] in 'aeiou' else 'a'} {thing} in the image?"


def pope_labels(folder, rows=None):
    for split in ("random", "popular", "adversarial"):
        lines = [
            {"question_id": number, "image": f"COCO_val2014_{shown}.jpg", "text": text, "label": label}
            for number, (shown, text, label) in enumerate(
                [(row[1], is_there(row[2]), row[3]) for row in rows or POPE if row[0] == split], 1
            )
        ]
        dump_lines(folder / f"coco/coco_pope_{split}.json", lines)
    for _, shown, _, _ in POPE:
        picture(folder / f"val2014/COCO_val2014_{shown}.jpg", shown)


def pope_llava(folder, rows=None):
    rows = [
        {
            "question_id": number,
            "image": f"COCO_val2014_{shown}.jpg",
            "text": is_there(thing) + SUFFIX,
            "category": split,
        }
        for number, (split, shown, thing, _) in enumerate(rows or POPE)
    ]
    dump_lines(folder / "llava_pope_test.jsonl", rows)
    pope_labels(folder)


def pope_table(folder):
    rows = [
        {
            "id": str(number),
            "question_id": str(number),
            "question": is_there(thing),
            "answer": label,
            "image_source": f"COCO_val2014_{shown}",
            "image": shown,
            "category": split,
        }
        for number, (split, shown, thing, label) in enumerate(POPE)
    ]
    table(folder / "data/test-00000-of-00001.parquet", rows)


def pope_tabs(folder, rows=None):
    """A question that is in all splits is one row here."""
    splits = {}
    for split, shown, thing, label in rows or POPE:
        splits.setdefault((shown, thing, label), []).append(split)
    rows = [
        {
            "index": number,
            "image": shown,
            "image_source": f"COCO_val2014_{shown}",
            "question": is_there(thing),
            "answer": label.capitalize(),
            "category": ",".join(those),
        }
        for number, ((shown, thing, label), those) in enumerate(splits.items())
    ]
    tabbed(folder / "POPE.tsv", rows)


# MME

APART = (
    "artwork",
    "celebrity",
    "landmark",
    "posters",
    "scene",
)  # pictures and questions in folders of their own
SUBTASKS = (
    *("existence", "count", "position", "color", "OCR", *APART),
    *("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
)
MME = [  # subtask, picture, question, answer
    (subtask, shown, f"Is {subtask} {word}? Please answer yes or no.", answer)
    for subtask in SUBTASKS
    for shown in ("0001", "0002")
    for word, answer in (("so", "Yes"), ("otherwise", "No"))
]


def mme_release(folder, rows=None):
    for subtask, shown, text, answer in rows or MME:
        home = folder / "MME_Benchmark_release_version" / subtask
        questions = home / ("questions_answers_YN" if subtask in APART else "") / f"{shown}.txt"
        questions.parent.mkdir(parents=True, exist_ok=True)
        with questions.open("a") as file:
            file.write(f"{text}\t{answer}\n")
        picture(home / ("images" if subtask in APART else "") / f"{shown}.jpg", subtask + shown)


def mme_table(folder, rows=None):
    columns = [
        {
            "question_id": f"{subtask}/{shown}.png",
            "image": subtask + shown,
            "question": text,
            "answer": answer,
            "category": subtask,
        }
        for subtask, shown, text, answer in rows or MME
    ]
    table(folder / "data/test-00000-of-00001.parquet", columns)


def mme_tabs(folder):
    rows = [
        {
            "index": number,
            "image": subtask + shown if number % 2 == 0 else number - 1,
            "image_path": f"images/{subtask}/{shown}.jpg",
            "question": text,
            "answer": answer,
            "category": subtask,
        }
        for number, (subtask, shown, text, answer) in enumerate(MME)
    ]
    tabbed(folder / "MME.tsv", rows)


# MMBench

CHOICES = [  # index, hint, question, choices, place of the right one, category
    (241, "The passage.\nIt has lines.", "Which could it show?", ["red", "blue", "green"], 1, "ocr"),
    (252, "", "What is it?", ["cat", "dog"], 0, "localization"),
]


def mmbench_rows(choices=None):
    rows = []
    for index, hint, text, options, right, category in choices or CHOICES:
        for turn in range(len(options)):
            turned = [options[(place - turn) % len(options)] for place in range(len(options))]
            rows.append(
                {
                    "index": index + turn * 1_000_000,
                    "question": text,
                    "hint": hint,
                    **dict(zip("ABCD", [*turned, "nan", ""], strict=False)),
                    "answer": "ABCD"[(right + turn) % len(options)],
                    "category": category,
                    "image": str(index) if turn == 0 else index,
                }
            )
    return rows


def mmbench_llava(folder):
    rows = [{**row, "image": str(row["index"] % 1_000_000)} for row in mmbench_rows()]
    tabbed(folder / "mmbench_dev_20230712.tsv", rows)


def mmbench_tabs(folder, rows=None):
    tabbed(folder / "MMBench_DEV_EN.tsv", rows or mmbench_rows())


def mmbench_table(folder):
    rows = [{**row, "image": str(row["index"] % 1_000_000)} for row in mmbench_rows()]
    table(folder / "en/dev-00000-of-00001.parquet", rows)


# DocVQA

DOCUMENTS = [  # id, document, page, question, answers
    (49153, "pybv0228", "81", "What is the actual value?", ["0.28"]),
    (24580, "nkbl0226", "1", "Whose name is there?", ["R. Barlow", "Barlow"]),
    (24581, "nkbl0226", "1", "What is the date?", ["12/4/99"]),
]
DOCUMENT_KEYS = ("questionId", "ucsf_document_id", "ucsf_document_page_no", "question", "answers")


def docvqa_official(folder):
    rows = [
        {**dict(zip(DOCUMENT_KEYS, row, strict=True)), "image": f"documents/{row[1]}_{row[2]}.png"}
        for row in DOCUMENTS
    ]
    dump(folder / "val_v1.0_withQT.json", {"dataset_name": "docvqa", "data": rows})
    for _, document, page, *_ in DOCUMENTS:
        picture(folder / f"documents/{document}_{page}.png", document + page)


def docvqa_table(folder):
    rows = [{**dict(zip(DOCUMENT_KEYS, row, strict=True)), "image": row[1] + row[2]} for row in DOCUMENTS]
    for row in rows:
        row["questionId"] = str(row["questionId"])
    table(folder / "DocVQA/validation-00000-of-00001.parquet", rows)


def docvqa_tabs(folder):
    rows = [
        {
            "index": name,
            "image": document + page,
            "ucsf_document_id": document,
            "ucsf_document_page_no": page,
            "question": text,
            "answer": str(golds),
        }
        for name, document, page, text, golds in DOCUMENTS
    ]
    tabbed(folder / "DocVQA_VAL.tsv", rows)


# OCRBench

KINDS = (
    *("Regular", "Irregular", "Artistic"),
    *("Scene Text-centric VQA", "Doc-oriented VQA", "Key Information Extraction"),
    "Handwritten Mathematical Expression Recognition",
)
READING = [  # picture, question, answers, kind
    (
        f"IIIT5K/{number}.png",
        f"what is written in {number}?",
        ["CENTRE", "center"] if number % 2 else ["x ^ { 2 }"],
        kind if " " in kind else f"{kind} Text Recognition",
    )
    for number, kind in enumerate(KINDS)
]


def ocrbench_official(folder):
    rows = [
        {"dataset_name": "IIIT5K", "image_path": shown, "question": text, "answers": golds, "type": kind}
        for shown, text, golds, kind in READING
    ]
    dump(folder / "OCRBench.json", rows)
    for shown, *_ in READING:
        picture(folder / "OCRBench_Images" / shown, shown)


def ocrbench_table(folder):
    rows = [
        {"dataset": "IIIT5K", "question": text, "question_type": kind, "answer": golds, "image": shown}
        for shown, text, golds, kind in READING
    ]
    table(folder / "data/test-00000-of-00001.parquet", rows, groups=100)


def ocrbench_tabs(folder):
    rows = [
        {"index": number, "image": shown, "question": text, "answer": str(golds), "category": kind}
        for number, (shown, text, golds, kind) in enumerate(READING)
    ]
    tabbed(folder / "OCRBench.tsv", rows)


# clips

CLIPS = [  # id, clip, question, answer
    ("q1", "vid1451", "what is a man doing?", "ride"),
    ("q2", "vid1452", "who is dancing?", "woman"),
    ("q3", "vid1451", "is it day?", "yes"),
]
CLIP_KEYS = ("question_id", "video_name", "question", "answer")


def clip_rows():
    return [dict(zip(CLIP_KEYS, row, strict=True)) for row in CLIPS]


def clips_two_files(folder, prefix=""):
    rows = clip_rows()
    dump(folder / "test_q.json", [{key: row[key] for key in CLIP_KEYS[:3]} for row in rows])
    answers = [{"answer": row["answer"], "question_id": row["question_id"], "type": 0} for row in rows]
    dump(folder / "test_a.json", answers[::-1])  # their order does not matter
    (folder / "videos").mkdir()
    for place, name in enumerate(("vid1451", "vid1452")):
        animated(folder / "videos" / f"{prefix}{name}.gif", 10 - place)


def clips_lines(folder):
    clips_two_files(folder)
    (folder / "test_q.json").unlink()
    dump_lines(folder / "test.jsonl", clip_rows())


def clips_table(folder):
    clips_two_files(folder, prefix="v_")
    (folder / "test_q.json").unlink()
    table(folder / "data/test-00000-of-00001.parquet", clip_rows())


CLIP_LAYOUTS = {"Video-LLaVA": clips_two_files, "lines": clips_lines, "table": clips_table}
LAYOUTS = {
    "vqav2": {"official": vqav2_official, "LLaVA": vqav2_llava, "table": vqav2_table},
    "gqa": {"official": gqa_official, "LLaVA": gqa_llava, "table": gqa_table},
    "textvqa": {"LLaVA": textvqa_llava, "table": textvqa_table},
    "scienceqa": {
        "LLaVA": scienceqa_llava,
        "official": scienceqa_problems,
        "table": scienceqa_table,
        "TSV": scienceqa_tabs,
    },
    "pope": {"LLaVA": pope_llava, "labels": pope_labels, "table": pope_table, "TSV": pope_tabs},
    "mme": {"release": mme_release, "table": mme_table, "TSV": mme_tabs},
    "mmbench": {"LLaVA": mmbench_llava, "TSV": mmbench_tabs, "table": mmbench_table},
    "docvqa": {"official": docvqa_official, "table": docvqa_table, "TSV": docvqa_tabs},
    "ocrbench": {"official": ocrbench_official, "table": ocrbench_table, "TSV": ocrbench_tabs},
    **dict.fromkeys(("msvd_qa", "msrvtt_qa", "activitynet_qa"), CLIP_LAYOUTS),
}
"""How each task can lie in a folder."""


def task(name):
    return import_module(f"prumerge.evaluate.tasks.{name}").TASK


def read(name, folder, count=None, **options):
    return list(task(name).read(Source(folder, count, options)))


def laid_out(folder, name, layout=None):
    layouts = LAYOUTS[name]
    layouts[layout or next(iter(layouts))](folder)
    return folder


def asked(pictures):
    return {question.id: question for _, questions in pictures for question in questions}


def seen(pictures):
    return {
        questions[0].picture: [frame.convert("RGB").tobytes() for frame in show()]
        for show, questions in pictures
    }
