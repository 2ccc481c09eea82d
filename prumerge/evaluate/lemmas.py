"""Which words are forms of the same word: enough English grammar for answers of one to three words.

A form may come from several base forms (planing from plan and from plane), so a word has all that it may come
from, and two words are forms of one where these meet. No dictionary is asked.
"""

from __future__ import annotations

from functools import lru_cache

_IRREGULAR = """
be am is are was were been being; have has had; do does did done; go goes went gone; make made;
take took taken; run ran; ride rode ridden; eat ate eaten; drive drove driven; write wrote written;
sing sang sung; cut; put; hit; swim swam swum; drink drank drunk; throw threw thrown; blow blew blown;
fly flew flown; draw drew drawn; sit sat; stand stood; hold held; fall fell fallen; sleep slept;
speak spoke spoken; break broke broken; wear wore worn; give gave given; get got gotten; catch caught;
teach taught; fight fought; build built; shoot shot; feed fed; lie lying lay lain; tie tying; die dying;
man men; woman women; child children; person people; foot feet; tooth teeth; mouse mice; goose geese;
knife knives; wife wives; leaf leaves; wolf wolves; half halves; shelf shelves
"""
_FORMS: dict[str, set[str]] = {}
for _line in _IRREGULAR.split(";"):
    for _word in _line.split():
        _FORMS.setdefault(_word, set()).add(_line.split()[0])
_VOWELS = set("aeiouy")


@lru_cache(maxsize=65536)
def lemmas(word: str) -> frozenset[str]:
    """What a word in lower case may be a form of, itself among it."""
    found = {word} | _FORMS.get(word, set())
    if word.endswith(("ies", "ied")):
        found.add(word[:-3] + "y")
    if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        found.add(word[:-2])
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        found.add(word[:-1])
    for ending in ("ing", "ed"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 1 and _VOWELS & set(stem):
            found |= {stem, stem + "e"}
            if stem[-1] == stem[-2]:
                found.add(stem[:-1])
    return frozenset(found)


def same(word: str, other: str) -> bool:
    """Whether two words in lower case may be forms of one."""
    return not lemmas(word).isdisjoint(lemmas(other))
