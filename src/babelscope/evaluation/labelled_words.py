"""Each word of an answer with its language: by script where scripts differ, else by words."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from babelscope.evaluation import han
from babelscope.evaluation.known_scripts import OWN_SCRIPT
from babelscope.evaluation.language_switches import counts_as, label_words, likeliest, probabilities
from babelscope.evaluation.prose import Word, foreign_names
from babelscope.evaluation.word_evidence import CANDIDATES
from babelscope.languages import Language
from babelscope.languages.scripts import COMMON, letters_of, scripts_of_language

NAME = Language("zxx")
"""Stands for a name in Latin letters inside another script: in no language."""
EAST_ASIAN = frozenset({"Hani", "Hira", "Kana"})


class LabelledWord(NamedTuple):
    """A word, or part of one, with its language."""

    text: str
    script: str
    weight: float
    start: int
    language: Language | None


WordLabeller = Callable[[Sequence[Word], str, Language], list[LabelledWord]]
"""Words, the prose they stand in and the target, to the same words with their languages."""


def accepted(target: Language) -> frozenset[Language]:
    """The languages that count as the target, where they cannot be told apart."""
    rows = [row for row in OWN_SCRIPT.values() if target in row]
    base = target.split("-")[0]
    return frozenset(map(Language, {target, base, *counts_as(base), *(tag for row in rows for tag in row)}))


def label_by_script(words: Sequence[Word], prose: str, target: Language) -> list[LabelledWord]:
    """Languages without an identifier of one's own: outside the target's scripts by script, inside by words."""
    labels, inside_places = label_outside(words, target)
    by_script: dict[str, list[int]] = {}
    for place in inside_places:
        by_script.setdefault(_group(words[place].script), []).append(place)
    for script, places in by_script.items():
        for place, tag in zip(places, _inside([words[i] for i in places], script, target), strict=True):
            labels[place] = tag
    return [LabelledWord(w.text, w.script, w.weight, w.start, tag) for w, tag in zip(words, labels, strict=True)]


def label_outside(words: Sequence[Word], target: Language) -> tuple[list[Language | None], list[int]]:
    """Languages of the words in scripts that the target is not written in, and the places of all others."""
    target_scripts = scripts_of_language(target) | {COMMON}
    names = foreign_names(list(words)) if "Latn" not in target_scripts else set()
    borrowed = target.split("-")[0] == "ko"
    beyond = (
        han.beyond_korean([word.text if word.script in EAST_ASIAN else "" for word in words]) if borrowed else set()
    )
    labels: list[Language | None] = [target] * len(words)
    places_by_script: dict[str, list[int]] = {}
    inside_places: list[int] = []
    for place, word in enumerate(words):
        kana_beside_han = word.script in EAST_ASIAN and "Hani" in target_scripts and not borrowed
        if (word.script in target_scripts or kana_beside_han) and place not in beyond:
            inside_places.append(place)
        elif place in names:
            labels[place] = NAME
        else:
            places_by_script.setdefault(_group(word.script), []).append(place)
    for script, places in places_by_script.items():
        tag = _language_of_script([words[place] for place in places], script)[0]
        for place in places:
            labels[place] = tag
    return labels, inside_places


def _group(script: str) -> str:
    return "Hani" if script in EAST_ASIAN else script


def _inside(words: list[Word], script: str, target: Language) -> list[Language | None]:
    """Languages of the words of one of the target's scripts."""
    base = target.split("-")[0]
    if script == "Hani" and base in ("zh", "ja"):
        return _east_asian(words, target, base)
    if script not in CANDIDATES:
        return [target] * len(words)
    target_tags = counts_as(base)
    candidates = target_tags & set(CANDIDATES[script])
    if not candidates:
        # Written in this script too, but without words to tell it by (`az` in Cyrillic): not taken for the target.
        return [_language_of_script(words, script)[0]] * len(words)
    stand_in = base if base in candidates else likeliest([w.text for w in words], script, candidates)
    tags = label_words([w.text for w in words], [w.name for w in words], script, stand_in, target_tags)
    return [target if tag in target_tags else Language(tag) for tag in tags]


def _language_of_script(words: Sequence[Word], script: str) -> tuple[Language | None, float]:
    """The language of words of one script without a target, and its probability; None where none is known."""
    if script in OWN_SCRIPT:
        return Language(OWN_SCRIPT[script][0]), 1.0
    if script == "Hani":
        text = "".join("".join(letters_of(word.text)) for word in words)
        japanese = 1 / (1 + math.exp(-max(-500.0, min(500.0, sum(map(han.nats_for_japanese, text))))))
        return (Language("ja"), japanese) if japanese > 0.5 else (Language("zh"), 1 - japanese)
    if script in CANDIDATES:
        shares = probabilities([word.text for word in words], script)
        top = max(shares, key=shares.__getitem__)
        return Language(top), shares[top]
    return None, 0.0


def _east_asian(words: list[Word], target: Language, base: str) -> list[Language | None]:
    """Chinese and Japanese by their characters, each run of one script as a whole."""
    labels = han.label_runs(["".join(letters_of(word.text)) for word in words], base)
    tags: list[Language | None] = [target if label == base else Language(label) for label in labels]
    return _variants(words, tags, target)


def _variants(words: list[Word], tags: list[Language | None], target: Language) -> list[Language | None]:
    """With `zh-Hans` or `zh-Hant` as the target, words in the other variant are the other language."""
    if target not in ("zh-Hans", "zh-Hant"):
        return tags
    variant = Language("zh-Hant" if target == "zh-Hans" else "zh-Hans")
    counts = [han.variant(word.text) for word in words]
    wrong = [(n[1] > n[0]) if target == "zh-Hans" else (n[0] > n[1]) for n in counts]
    return [variant if bad and tag == target else tag for bad, tag in zip(wrong, tags, strict=True)]


def guess_text(words: Sequence[Word]) -> tuple[Language | None, float]:
    """The language of most letters of a text, without a target, and its probability among those of its script."""
    weights: dict[str, float] = {}
    for word in words:
        weights[_group(word.script)] = weights.get(_group(word.script), 0.0) + word.weight
    weights.pop(COMMON, None)
    if not weights:
        return None, 0.0
    script = max(weights, key=weights.__getitem__)
    if script == "Hang":
        return Language("ko"), 1.0
    return _language_of_script([word for word in words if _group(word.script) == script], script)
