"""How answers are scored, as pure functions of strings, by the rules of the benchmarks in PruMerge's paper.

A scorer takes one prediction and its gold answer, an aggregate all rows of a task. The rules are those
of the LLaVA-1.5 protocol.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from string import ascii_uppercase

from prumerge.evaluate.lemmas import same

_ARTICLES = {"a", "an", "the"}
_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_NUMBERS = {word: str(number) for number, word in enumerate(_DIGITS)}
_NUMBERS["none"] = "0"  # as the official code has it
_PUNCTUATION = r""";/[]"{}()=+\_-><@`,?!"""
_CONTRACTIONS = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
how'll how's i'm i've isn't it'd it'll ma'am might've mightn't must've mustn't needn't o'clock
oughtn't shan't should've shouldn't someone's that'd that's there'd there's they'd they'll they're
they've wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd
who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
_APOSTROPHES = {word.replace("'", ""): word for word in _CONTRACTIONS.split()}


def normalised(text: str) -> str:
    """VQA's normal form: lower case, no punctuation or articles, digits for number words.

    As in the official code a mark is deleted if it stands beside a space anywhere, and else becomes one.
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    thousands, cleaned = re.search(r"\d,\d", text), text
    for mark in _PUNCTUATION:
        deleted = thousands or f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if deleted else " ")
    cleaned = re.sub(r"\.(?!\d)", "", cleaned).lower()
    words = [_NUMBERS.get(word, word) for word in cleaned.split()]
    return " ".join(_APOSTROPHES.get(word, word) for word in words if word not in _ARTICLES)


def vqa(prediction: str, golds: Sequence[str]) -> float:
    """VQAv2 and TextVQA: min(1, 0.3 n), n of ten annotators gave this answer; one gold answer counts as ten.

    That is the mean over annotators of min(1, matches among the nine others / 3).
    """
    said = normalised(prediction)
    matches = sum(normalised(gold) == said for gold in golds) * (10 if len(golds) == 1 else 1)
    return min(10, 3 * matches) / 10


def yes_or_no(prediction: str) -> str:
    """POPE's reading: "no" if a word of the first sentence is no or not, and "yes" for all else."""
    words = prediction.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def mme_yes_or_no(prediction: str) -> str | None:
    """MME's reading: the whole text or its first four characters; None (wrong) for anything else."""
    text = prediction.strip().lower()
    return next((word for word in ("yes", "no") if text == word or word in text[:4]), None)


def letter(prediction: str, options: int) -> str | None:
    """ScienceQA's and MMBench's reading: a letter alone, before a mark, or in "The answer is X."."""
    text = prediction.strip().upper()
    found = re.findall(r"^\(?([A-Z])[.:)]*$|^\(?([A-Z])[.:)]+\s|ANSWER IS \(?([A-Z])\)?(?:\.|$)", text)
    letters = {"".join(groups) for groups in found}
    return min(letters) if len(letters) == 1 and letters <= set(ascii_uppercase[:options]) else None


def accuracy(scores: Iterable[float]) -> float:
    """The mean score in percent."""
    scores = list(scores)
    return 100 * sum(scores) / len(scores)


def f1(rows: Iterable[tuple[str, str]]) -> dict[str, float]:
    """POPE over (prediction, gold) pairs of "yes" and "no": percent, "yes" being what is looked for."""
    pairs = list(rows)
    true = sum(p == g == "yes" for p, g in pairs)
    said, there = sum(p == "yes" for p, _ in pairs), sum(g == "yes" for _, g in pairs)
    precision, recall = true / max(said, 1), true / max(there, 1)
    return {
        "accuracy": accuracy(p == g for p, g in pairs),
        "precision": 100 * precision,
        "recall": 100 * recall,
        "f1": 200 * precision * recall / max(precision + recall, 1e-12),
        "yes": 100 * said / len(pairs),
    }


def all_right(rows: Iterable[tuple[str, float]]) -> float:
    """Percent of groups of which every member is right: MMBench's circular evaluation, MME's acc+."""
    groups: dict[str, list[float]] = defaultdict(list)
    for group, score in rows:
        groups[group].append(score)
    return accuracy(min(scores) for scores in groups.values())


def mme(rows: Iterable[tuple[str, str, float]]) -> float:
    """MME over (subtask, picture, score): accuracy plus acc+, at most 200, summed over subtasks."""
    subtasks: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for subtask, picture, score in rows:
        subtasks[subtask].append((picture, score))
    return sum(accuracy(score for _, score in pairs) + all_right(pairs) for pairs in subtasks.values())


def textvqa(prediction: str, golds: Sequence[str]) -> float:
    """TextVQA: as VQA, of answers in lower case, without commas and question marks, 's a word of its own."""
    said, *given = (
        text.lower().replace(",", "").replace("?", "").replace("'s", " 's") for text in (prediction, *golds)
    )
    return vqa(said, given)


def gqa(prediction: str, gold: str) -> float:
    """GQA: the answer itself, whatever its case, with or without a full stop."""
    return float(prediction.rstrip(".").lower() == gold)


def llava_letter(prediction: str, options: int) -> str | None:
    """ScienceQA's reading in LLaVA: a letter alone, before ". ", or once in "The answer is X."."""
    text = prediction.strip()
    if text in ("A", "B", "C", "D", "E") or re.match(r"[A-E]\. ", text):
        said = text[0]
    else:
        found = re.findall(r"The answer is ([A-Z]).", text)
        said = found[0] if len(found) == 1 else ""
    return said if said and said in ascii_uppercase[:options] else None


def choice(prediction: str, choices: Sequence[str]) -> str | None:
    """MMBench's reading without a judge: the one letter that stands as a word, else the one choice whose text
    is in the answer; None for all else.

    A among more than three words is an article, and a text twice as long as all choices says too much.
    """
    letters = ascii_uppercase[: len(choices)]
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", prediction).split()
    found = [letter for letter in letters if letter in words]
    if len(found) == 1 and not ("A" in words and len(words) > 3):
        return found[0]
    text = prediction.lower()
    if len(text) > 2 * sum(map(len, choices)):
        return None
    held = [letter for letter, one in zip(letters, choices, strict=True) if one.lower() in text]
    return held[0] if len(held) == 1 else None


def anls(prediction: str, golds: Sequence[str]) -> float:
    """DocVQA: 1 - edit distance / longer length, of the nearest gold answer; 0 where that is below a half.

    Case and runs of spaces do not count.
    """
    said = " ".join(prediction.lower().split())
    best = 0.0
    for gold in golds:
        text = " ".join(gold.lower().split())
        longest = max(len(said), len(text))
        best = max(best, 1 - _edits(said, text) / longest if longest else 1.0)
    return best if best >= 0.5 else 0.0


def _edits(a: str, b: str) -> int:
    """Levenshtein's distance: insertions, deletions and replacements that make b of a."""
    row = list(range(len(b) + 1))
    for number, mark in enumerate(a, 1):
        before, row[0] = row[0], number
        for place, other in enumerate(b, 1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (mark != other))
    return row[-1]


def contains(prediction: str, golds: Sequence[str], formula: bool = False) -> float:
    """OCRBench: whether the text of any gold answer is in the answer; in a formula case counts, and spaces do
    not."""

    def plain(text: str) -> str:
        text = text.strip().replace("\n", " ")
        return text.replace(" ", "") if formula else text.lower()

    return float(any(plain(gold) in plain(prediction) for gold in golds))


def holds(prediction: str, gold: str) -> float:
    """Open answers: whether the words of the gold answer stand in the answer, side by side and in any form.

    Of yes and no the first word of the answer counts, since a sentence may hold both.
    """
    said, wanted = normalised(prediction).split(), normalised(gold).split()
    if wanted in (["yes"], ["no"]):
        said = said[:1]
    starts = range(len(said) - len(wanted) + 1)
    return float(
        any(all(map(same, said[start : start + len(wanted)], wanted)) for start in starts) and bool(wanted)
    )


def exact(prediction: str, gold: str) -> float:
    """Open answers: whether answer and gold answer are the same in VQA's normal form."""
    return float(normalised(prediction) == normalised(gold))


def token_f1(prediction: str, gold: str) -> float:
    """Open answers: harmonic mean of the shares of words that answer and gold answer have in common."""
    said, wanted = Counter(normalised(prediction).split()), Counter(normalised(gold).split())
    common = (said & wanted).total()
    return 2 * common / (said.total() + wanted.total()) if common else float(said == wanted)
