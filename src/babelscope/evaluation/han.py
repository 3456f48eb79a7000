"""Chinese and Japanese in Han characters, with and without kana; simplified and traditional."""

import math
from functools import cache

import numpy as np
from wordfreq import get_frequency_list

from babelscope.evaluation.switching import two_state_paths

KANA = frozenset({"Hira", "Kana"})
FIRST = {"zh": 3.5, "ja": 6.0}
"""Nats by which a change must be likelier than none, by target: kana are no Chinese, Han is common to both."""
LIMIT, FREQUENT, ORDINARY = 4.0, 3.0, 1.2
"""Nats at most by which a character may speak: one that only one of the two has; one that both have and that is among
the commonest of one (`的`, `是`); any other."""
COMMONEST, SCARCE = 4e-3, 1e-6


def in_set(character: str, encoding: str) -> bool:
    """Whether a national character set has the character."""
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


@cache
def shares(tag: str) -> dict[str, float]:
    """Share of each character in the words of a language, by wordfreq's list."""
    total: dict[str, float] = {}
    for place, words in enumerate(get_frequency_list(tag, "small")):
        for word in words:
            for character in word:
                total[character] = total.get(character, 0.0) + 10 ** (-place / 100)
    scale = sum(total.values())
    return {character: value / scale for character, value in total.items()}


@cache
def nats_for_japanese(character: str) -> float:
    """Nats by which a Han character or kana speaks for Japanese; below zero for Chinese.

    A character that Japan's standard has and neither of China's is Japanese (`経`, `労`), one that only China's have is
    Chinese (`这`, `們`); others go by how often each language uses them. wordfreq's Chinese is written simplified: for
    a traditional character (`國`) that is rare in Japanese the sets decide.
    """
    jis, simplified, traditional = (in_set(character, name) for name in ("shift_jis", "gb2312", "big5"))
    if "\u3040" <= character <= "\u30ff" or "\uff66" <= character <= "\uff9d":
        return LIMIT
    if jis and not simplified and not traditional:
        return LIMIT
    if not jis and (simplified or traditional):
        return -LIMIT
    japanese = shares("ja").get(character, SCARCE)
    if traditional and not simplified:
        return -2.0 if japanese < 1e-5 else 0.0
    chinese = shares("zh").get(character, SCARCE)
    limit = FREQUENT if max(chinese, japanese) > COMMONEST else ORDINARY
    return float(np.clip(math.log(max(japanese, SCARCE) / max(chinese, SCARCE)), -limit, limit))


def label_characters(text: str, target: str) -> list[str]:
    """For each Han character or kana whether it is Chinese (`zh`) or Japanese (`ja`), beside a target of the two."""
    other = "zh" if target == "ja" else "ja"
    sign = 1.0 if other == "ja" else -1.0
    nats = np.array([[sign * nats_for_japanese(character)] for character in text])
    if not len(nats):
        return []
    score, path = two_state_paths(nats)
    if score[0] <= FIRST[target]:
        return [target] * len(text)
    if nats.sum() > score[0] - 4.0:
        return [other] * len(text)
    return [other if there else target for there in path[:, 0]]


def variant(text: str) -> tuple[int, int]:
    """How many characters are simplified only, and traditional only, by the sets GB 2312 and Big5."""
    simplified = sum(in_set(c, "gb2312") and not in_set(c, "big5") for c in text)
    traditional = sum(in_set(c, "big5") and not in_set(c, "gb2312") for c in text)
    return simplified, traditional
