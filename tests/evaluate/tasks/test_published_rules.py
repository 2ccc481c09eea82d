"""Scores and summaries of public benchmarks against their rules, written out a second time as published."""

import re
from dataclasses import dataclass
from functools import cache
from itertools import product
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as some

from benchmarks import asked, laid_out, read, task
from prumerge.evaluate.tasks._task import Question


@dataclass(frozen=True)
class Answer:
    """What a record says of an answer, as far as scores go."""

    split: str
    group: str
    gold: tuple[str, ...]
    prediction: str
    score: float


def question(name, gold, **more):
    gold = (gold,) if isinstance(gold, str) else tuple(gold)
    return Question(name, "1", "1", "What?", gold, **more)


def score(name, prediction, gold, **more):
    return task(name).score(question(name, gold, **more), prediction)


def answered(name, rows):
    """Answers to (prediction, gold) or (prediction, gold, split, group), scored by the task."""
    found = []
    for prediction, gold, *where in rows:
        split, group = (*where, "", "")[:2]
        one = question(name, gold, split=split, group=group)
        found.append(Answer(split, group, one.gold, prediction, task(name).score(one, prediction)))
    return found


TEXTS = some.text("abnoNOyesYES ,.'?!-/\n0123", max_size=12)
WORDS = some.sampled_from(
    [
        "a",
        "A",
        "the",
        "red",
        "Red.",
        "two",
        "2",
        "none",
        "it's",
        "dont",
        "1,000",
        "3.5",
        "a/b",
        "x-ray",
        "?",
        "U.S.",
    ]
)
SENTENCES = some.lists(WORDS, max_size=4).map(" ".join)

# VQAv2 and TextVQA: the official answer processing, step by step

MARKS = [
    ";",
    "/",
    "[",
    "]",
    '"',
    "{",
    "}",
    "(",
    ")",
    "=",
    "+",
    "\\",
    "_",
    "-",
    ">",
    "<",
    "@",
    "`",
    ",",
    "?",
    "!",
]
NUMBERS = dict(none="0", zero="0", one="1", two="2", three="3", ten="10")
CONTRACTED = {"dont": "don't", "its": "its", "cant": "can't"}


def vqa_processed(text):
    text = text.replace("\n", " ").replace("\t", " ").strip()
    result = text
    for mark in MARKS:
        if mark + " " in text or " " + mark in text or re.search(r"(\d)(,)(\d)", text):
            result = result.replace(mark, "")
        else:
            result = result.replace(mark, " ")
    result = re.sub(r"(?!<=\d)(\.)(?!\d)", "", result)
    words = [NUMBERS.get(word, word) for word in result.lower().split()]
    return " ".join(CONTRACTED.get(word, word) for word in words if word not in ("a", "an", "the"))


def textvqa_processed(text):
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return vqa_processed(text)


def agreement(said, golds):
    """The mean, over each annotator left out, of a third for each of the others who said so."""
    shares = []
    for place in range(len(golds)):
        others = golds[:place] + golds[place + 1 :]
        shares.append(min(1, sum(other == said for other in others) / 3))
    return fmean(shares)


@pytest.mark.parametrize(("name", "processed"), [("vqav2", vqa_processed), ("textvqa", textvqa_processed)])
@given(prediction=SENTENCES, golds=some.lists(SENTENCES, min_size=10, max_size=10))
def test_answers_of_ten_annotators(name, processed, prediction, golds):
    for said in (prediction, golds[0], golds[9].upper()):
        expected = agreement(processed(said), [processed(gold) for gold in golds])
        assert score(name, said, golds) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "gold", "expected"),
    [
        ("wendy's", "wendy 's", 1.0),
        ("What?", "what", 1.0),
        ("10,000", "10000", 1.0),
        ("Dakota", "dakota digital", 0.0),
    ],
)
def test_textvqa_by_hand(prediction, gold, expected):
    assert score("textvqa", prediction, [gold] * 10) == expected


@pytest.mark.parametrize("name", ["vqav2", "textvqa", "gqa", "scienceqa", "docvqa", "ocrbench"])
def test_the_number_of_most_tasks_is_the_mean_score_in_percent(name):
    rows = [Answer("without OCR tokens", "", ("x",), "x", value) for value in (1.0, 0.3, 0.0, 0.6)]
    assert task(name).summary(rows) == pytest.approx(47.5)


def test_textvqa_reports_under_the_name_of_its_prompt():
    rows = [Answer("without OCR tokens", "", ("x",), "x", value) for value in (1.0, 0.0)]
    assert task("textvqa").details(rows) == {"without OCR tokens": 50}


# GQA


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [("no", 1.0), ("No.", 1.0), ("no..", 1.0), ("no way", 0.0), ("", 0.0), ("the no", 0.0)],
)
def test_gqa_compares_the_whole_answer(prediction, expected):
    assert score("gqa", prediction, "no") == expected


# ScienceQA, as LLaVA's eval_science_qa.py reads answers

LETTERS = ["A", "B", "C", "D", "E"]


def scienceqa_read(text, choices):
    if text in LETTERS:
        answer = text
    elif len(text) >= 3 and text[0] in LETTERS and text[1:3] == ". ":
        answer = text[0]
    else:
        found = re.compile(r"The answer is ([A-Z]).").findall(text)
        answer = found[0] if len(found) == 1 else "FAILED"
    return LETTERS.index(answer) if answer in LETTERS[:choices] else -1


PARTS = some.sampled_from(
    ["A", "B", "C", "E", ".", ". ", " ", "The answer is ", "The answer is B.", "red", "(", ")", "Z", "b"]
)


@given(some.lists(PARTS, max_size=5).map("".join).map(str.strip), some.integers(2, 5), some.integers(0, 4))
def test_scienceqa_reads_letters_as_llava_does(text, choices, right):
    right = min(right, choices - 1)
    said = score("scienceqa", text, LETTERS[right], options=choices)
    assert said == (scienceqa_read(text, choices) == right)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("B", True),
        ("B. red", True),
        ("The answer is B.", True),
        ("So: The answer is B. It is.", True),
        ("The answer is B. The answer is A.", False),
        ("(B)", False),
        ("b", False),
        ("B.", False),
    ],
)
def test_scienceqa_by_hand(text, right):
    assert score("scienceqa", text, "B", options=3) == right


# POPE, as LLaVA's eval_pope.py counts


def pope_counted(rows):
    """Accuracy, precision, recall, F1 and share of yes."""
    said, gold = [], []
    for text, label in rows:
        if text.find(".") != -1:
            text = text.split(".")[0]
        words = text.replace(",", "").split(" ")
        said.append(0 if "No" in words or "not" in words or "no" in words else 1)
        gold.append(0 if label == "no" else 1)
    pairs = list(zip(said, gold, strict=True))
    right, false, missed = pairs.count((1, 1)), pairs.count((1, 0)), pairs.count((0, 1))
    precision = right / (right + false) if right + false else 0
    recall = right / (right + missed) if right + missed else 0
    both = 2 * precision * recall / (precision + recall) if precision + recall else 0
    return (right + pairs.count((0, 0))) / len(pairs), precision, recall, both, said.count(1) / len(said)


SPLITS = ("random", "popular", "adversarial")
SAID = some.one_of(TEXTS, some.sampled_from(["Yes", "No", "no.", "Yes, there is.", "There is not.", "NO"]))
POPE_ROWS = some.lists(some.tuples(SAID, some.sampled_from(["yes", "no"])), min_size=1, max_size=8)


@given(some.tuples(POPE_ROWS, POPE_ROWS, POPE_ROWS))
def test_pope_is_the_mean_f1_of_its_splits(rows):
    answers = answered("pope", [(*row, split) for split, of in zip(SPLITS, rows, strict=True) for row in of])
    counted = [pope_counted(of) for of in rows]
    assert task("pope").summary(answers) == pytest.approx(100 * fmean(one[3] for one in counted))
    details = task("pope").details(answers)
    for split, of in zip(SPLITS, counted, strict=True):
        names = ("accuracy", "precision", "recall", "f1", "yes")
        assert [details[f"{split} {name}"] for name in names] == pytest.approx([100 * one for one in of])
    everything = [pope_counted([row])[0] for of in rows for row in of]
    assert details["accuracy"] == pytest.approx(100 * fmean(everything))


# MME, as its calculation.py counts

PERCEPTION = ["existence", "count", "position", "color", "posters"]
PERCEPTION += ["celebrity", "scene", "landmark", "artwork", "OCR"]
COGNITION = ["commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"]


def mme_read(text):
    text = text.lower()
    if text in ("yes", "no"):
        return text
    return "yes" if "yes" in text[:4] else "no" if "no" in text[:4] else "other"


def mme_counted(pairs):
    """Of one subtask: a pair of (answer, label) for each picture."""
    right = [[mme_read(text) == label for text, label in pair] for pair in pairs]
    return 100 * fmean(one for pair in right for one in pair) + 100 * fmean(all(pair) for pair in right)


MME_SAID = some.sampled_from(["Yes", "no", "No.", "yes, it is", "know", "I think no", "maybe", "", "not so"])


@given(some.lists(some.tuples(MME_SAID, MME_SAID), min_size=28, max_size=28))
def test_mme_sums_perception_and_keeps_cognition_apart(said):
    subtasks = [*PERCEPTION, *COGNITION]
    pairs = {name: [] for name in subtasks}
    rows = []
    for number, (first, second) in enumerate(said):
        subtask = subtasks[number % 14]
        pairs[subtask].append([(first, "yes"), (second, "no")])
        rows += [
            (first, "yes", subtask, f"{subtask}/{number}"),
            (second, "no", subtask, f"{subtask}/{number}"),
        ]
    answers = answered("mme", rows)
    points = {name: mme_counted(of) for name, of in pairs.items()}
    assert task("mme").summary(answers) == pytest.approx(sum(points[name] for name in PERCEPTION))
    details = task("mme").details(answers)
    assert details.pop("cognition") == pytest.approx(sum(points[name] for name in COGNITION))
    assert details == pytest.approx(points)


# MMBench: circular, and read as VLMEvalKit does before it asks a judge


def mmbench_read(answer, choices):
    changed = answer
    for mark in ".()[],:;!*#{}":
        changed = changed.replace(mark, " ")
    words = changed.split()
    there = [letter for letter in choices if letter in words]
    if len(there) == 1 and not ("A" in words and len(words) > 3):
        return there[0]
    answer = answer.lower()
    if len(answer) > 2 * sum(len(text) for text in choices.values()):
        return None
    there = [letter for letter, text in choices.items() if text.lower() in answer]
    return there[0] if len(there) == 1 else None


SAYING = some.sampled_from(
    [
        "A",
        "B",
        "C",
        "D",
        "A.",
        "(B)",
        "red",
        "blue",
        "green",
        "a",
        "The answer is",
        "\n",
        "Red",
        "is it",
        "B:",
    ]
)


@given(some.lists(SAYING, max_size=5).map(" ".join), some.sampled_from("ABC"))
def test_mmbench_reads_a_letter_or_the_text_of_a_choice(text, right):
    choices = {"A": "red", "B": "Blue", "C": "green"}
    prompt = "A hint:\nA. is no choice\nWhich?\nA. red\nB. Blue\nC. green"
    prompt += "\nAnswer with the option's letter from the given choices directly."
    one = Question("mmbench", "1", "1", prompt, (right,), options=3)
    assert task("mmbench").score(one, text) == (mmbench_read(text, choices) == right)


@pytest.mark.parametrize("wrong", [[], [3], [0, 1, 2], [0, 4]])
def test_mmbench_counts_a_question_that_is_right_in_every_rotation(tmp_path, wrong):
    questions = list(asked(read("mmbench", laid_out(tmp_path, "mmbench"))).values())
    answers = [
        Answer(one.split, one.group, one.gold, "", float(place not in wrong))
        for place, one in enumerate(questions)
    ]
    turns = {}
    for place, one in enumerate(questions):
        turns.setdefault(int(one.id) % 1_000_000, []).append(place not in wrong)
    whole = {group: all(right) for group, right in turns.items()}
    assert task("mmbench").summary(answers) == 100 * fmean(whole.values())
    details = task("mmbench").details(answers)
    assert details["every rotation alone"] == pytest.approx(100 * (1 - len(wrong) / len(questions)))
    assert (details["ocr"], details["localization"]) == (100 * whole[241], 100 * whole[252])


# DocVQA: ANLS


def similarity(said, gold):
    """1 - Levenshtein's distance over the longer length, by its recursive definition."""
    said, gold = (" ".join(text.strip().lower().split()) for text in (said, gold))

    @cache
    def distance(a, b):
        if not a or not b:
            return len(a) + len(b)
        if a[0] == b[0]:
            return distance(a[1:], b[1:])
        return 1 + min(distance(a[1:], b), distance(a, b[1:]), distance(a[1:], b[1:]))

    return 1 - distance(said, gold) / max(len(said), len(gold)) if said or gold else 1


@given(some.text("abA .", max_size=6), some.lists(some.text("abA .", max_size=6), min_size=1, max_size=3))
def test_docvqa_is_the_similarity_to_the_nearest_answer_from_a_half_up(prediction, golds):
    best = max(similarity(prediction, gold) for gold in golds)
    assert score("docvqa", prediction, golds) == pytest.approx(best if best >= 0.5 else 0)


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [("0.28", 1.0), (" 0.28\n", 1.0), ("0.2", 0.75), ("0.", 0.5), ("0", 0.0), ("", 0.0)],
)
def test_docvqa_by_hand(prediction, expected):
    assert score("docvqa", prediction, ["0.28"]) == expected


# OCRBench

FORMULA = "Handwritten Mathematical Expression Recognition"


def ocr_counted(said, golds, formula):
    for gold in golds:
        if formula:
            answer = gold.strip().replace("\n", " ").replace(" ", "")
            predict = said.strip().replace("\n", " ").replace(" ", "")
        else:
            answer = gold.lower().strip().replace("\n", " ")
            predict = said.lower().strip().replace("\n", " ")
        if answer in predict:
            return 1
    return 0


READ = some.text("aA \nb^2", max_size=6)


@pytest.mark.parametrize("kind", ["Regular Text Recognition", FORMULA])
@given(prediction=READ, golds=some.lists(READ.filter(str.strip), min_size=1, max_size=2))
def test_ocrbench_looks_for_the_text_in_the_answer(kind, prediction, golds):
    for said in (prediction, f"it says {golds[0]}!", golds[0].upper()):
        assert score("ocrbench", said, golds, split=kind) == ocr_counted(said, golds, kind == FORMULA)


def test_ocrbench_has_five_groups():
    kinds = ["Regular Text Recognition", "Digit String Recognition", "Doc-oriented VQA", FORMULA]
    rows = [Answer(kind, "", ("x",), "x", float(place % 2)) for place, kind in enumerate(kinds)]
    assert task("ocrbench").details(rows) == {"text recognition": 50, "documents": 0, "formulas": 100}


# clips


@pytest.mark.parametrize("name", ["msvd_qa", "msrvtt_qa", "activitynet_qa"])
@pytest.mark.parametrize(
    ("prediction", "gold", "holds", "exact", "f1"),
    [
        ("ride", "ride", 1, 1, 1),
        ("Ride.", "ride", 1, 1, 1),
        ("The man is riding a horse.", "ride", 1, 0, 0),
        ("He rode.", "ride", 1, 0, 0),
        ("two men", "man", 1, 0, 0),
        ("two men", "2", 1, 0, 2 / 3),
        ("women", "man", 0, 0, 0),
        ("a plane", "plan", 0, 0, 0),
        ("play the guitar", "playing guitar", 1, 0, 1 / 2),
        ("guitar playing", "playing guitar", 0, 0, 1),
        ("No, but yes.", "yes", 0, 0, 1 / 2),
        ("Yes, he does not.", "yes", 1, 0, 2 / 5),
        ("", "yes", 0, 0, 0),
    ],
)
def test_an_answer_about_a_clip_holds_the_right_words(name, prediction, gold, holds, exact, f1):
    (answer,) = answered(name, [(prediction, gold)])
    assert answer.score == holds
    assert task(name).summary([answer]) == 100 * holds
    assert task(name).details([answer]) == pytest.approx({"exact": 100 * exact, "token F1": 100 * f1})


def test_numbers_of_clips_are_means():
    rows = answered("msvd_qa", [("ride", "ride"), ("he rides", "ride"), ("he", "ride"), ("no", "yes")])
    assert task("msvd_qa").summary(rows) == 50
    assert task("msvd_qa").details(rows) == {"exact": 25, "token F1": 25}


@pytest.mark.parametrize(
    "forms",
    [
        "ride rides riding rode",
        "run runs running ran",
        "dance dancing danced",
        "carry carries carried",
        "box boxes",
        "man men",
        "child children",
        "knife knives",
        "stop stopped stopping",
        "bus buses",
        "baby babies",
    ],
)
def test_forms_of_a_word_are_the_same_word(forms):
    for said, gold in product(forms.split(), repeat=2):
        assert score("msvd_qa", f"they {said} there", gold) == 1


@pytest.mark.parametrize(
    ("said", "gold"),
    [
        ("plane", "plan"),
        ("glass", "glas"),
        ("king", "k"),
        ("red", "r"),
        ("cape", "cap"),
        ("this", "thi"),
        ("bed", "be"),
    ],
)
def test_words_that_only_look_alike_are_not(said, gold):
    assert score("msvd_qa", said, gold) == 0
