"""Chinese and Japanese in Han characters, with and without kana; simplified and traditional."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from wordfreq import get_frequency_list

from babelscope.evaluation.language_switches import two_state_paths
from babelscope.languages.scripts import script_of_character

FIRST = 3.0
"""Nats by which a change must be likelier than none."""
NEVER, LIMIT, FREQUENT, ORDINARY = 8.0, 4.0, 3.0, 1.2
"""Nats at most by which a character may speak: kana and simplified characters, which the other never writes; one that
only one of the two has; one that both have and that is among the commonest of one (`的`, `是`); any other."""
SHARED_KANA = "の"
"""Written in Chinese too, on signs and labels."""
WITHOUT_KANA = 0.2
"""Nats by which a character that both have speaks for Chinese, because it is no kana."""
LONGEST_KOREAN = 6
"""Han characters that Korean writes without a break, at most: of 9 runs in 504 lines none has more than 3."""
COMMONEST, SCARCE = 4e-3, 1e-6


def is_han(character: str) -> bool:
    """Whether a character is Han, by Unicode's Script property."""
    return script_of_character(character) == "Hani"


def in_set(character: str, encoding: str) -> bool:
    """Whether a national character set has the character."""
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


@cache
def shares(tag: str) -> dict[str, float]:
    """Share of each Han character among all those in the words of a language, by wordfreq's list.

    Kana are left out of the sum: with them every Han character would be rarer in Japanese than in Chinese.
    """
    total: dict[str, float] = {}
    for place, words in enumerate(get_frequency_list(tag, "small")):
        for word in words:
            for character in filter(is_han, word):
                total[character] = total.get(character, 0.0) + 10 ** (-place / 100)
    scale = sum(total.values())
    return {character: value / scale for character, value in total.items()}


@cache
def nats_for_japanese(character: str) -> float:
    """Nats by which a Han character or kana speaks for Japanese; below zero for Chinese.

    A character that Japan's standard has and neither of China's is Japanese (`経`, `労`), one that only China's have is
    Chinese (`这`, `們`); others go by how often each language uses them among its Han characters. wordfreq's Chinese is
    written simplified: for a traditional character (`國`) that is rare in Japanese the sets decide.
    """
    jis, simplified, traditional = (in_set(character, name) for name in ("shift_jis", "gb2312", "big5"))
    if "\u3040" <= character <= "\u30ff" or "\uff66" <= character <= "\uff9d":
        return LIMIT if character == SHARED_KANA else NEVER
    if jis and not simplified and not traditional:
        return LIMIT
    if not jis and (simplified or traditional):
        return -LIMIT if traditional else -NEVER
    japanese = shares("ja").get(character, SCARCE)
    if traditional and not simplified:
        return -2.0 if japanese < 1e-5 else 0.0
    chinese = shares("zh").get(character, SCARCE)
    limit = FREQUENT if max(chinese, japanese) > COMMONEST else ORDINARY
    return float(np.clip(math.log(max(japanese, SCARCE) / max(chinese, SCARCE)), -limit, limit)) - WITHOUT_KANA


def label_runs(runs: Sequence[str], target: str) -> list[str]:
    """Whether each run of Han characters or kana is Chinese (`zh`) or Japanese (`ja`), beside a target of the two.

    A change within a run gives it to the other language where most of its characters are that, or all together speak
    for it: the characters at its ends are often common to both.
    """
    alternative = "zh" if target == "ja" else "ja"
    sign = 1.0 if alternative == "ja" else -1.0
    nats = np.array([[sign * nats_for_japanese(character)] for run in runs for character in run])
    if not len(nats):
        return [target] * len(runs)
    score, path = two_state_paths(nats)
    if score[0] <= FIRST:
        return [target] * len(runs)
    if nats.sum() > score[0] - 4.0:
        return [alternative] * len(runs)
    ends = np.cumsum([len(run) for run in runs])[:-1]
    parts = zip(np.split(path[:, 0], ends), np.split(nats[:, 0], ends), strict=True)
    return [
        alternative if has_evidence.any() and (has_evidence.mean() > 0.5 or nats.sum() > 0) else target
        for has_evidence, nats in parts
    ]


def beyond_korean(words: Sequence[str]) -> set[int]:
    """Places of the words in Han characters and kana that are no Korean, of a text as words; others are "".

    Korean writes Han in short words that Hangul parts, of characters that its own standard (KS X 1001) has. A run with
    kana, with other characters or of more than `LONGEST_KOREAN` is foreign, and then so is every other; so is a
    text without Hangul.
    """
    runs: list[list[int]] = [[]]
    for place, word in enumerate(words):
        if word:
            runs[-1].append(place)
        elif runs[-1]:
            runs.append([])
    texts = ["".join(filter(str.isalpha, "".join(words[place] for place in run))) for run in runs]
    foreign = all(words) or any(len(text) > LONGEST_KOREAN or not all(map(_korean, text)) for text in texts)
    return {place for run in runs for place in run} if foreign else set()


def _korean(character: str) -> bool:
    return is_han(character) and in_set(character, "euc_kr")


def variant(text: str) -> tuple[int, int]:
    """How many characters are simplified only, and traditional only, by the sets GB 2312 and Big5."""
    simplified = sum(in_set(c, "gb2312") and not in_set(c, "big5") for c in text)
    traditional = sum(in_set(c, "big5") and not in_set(c, "gb2312") for c in text)
    return simplified, traditional
