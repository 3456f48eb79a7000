"""How likely each word is in each language of a script. The only importer of lingua and of wordfreq."""

import math
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
from jaxtyping import Float64
from lingua import Language as LinguaLanguage
from lingua import LanguageDetector, LanguageDetectorBuilder
from wordfreq import available_languages, get_frequency_list

from babelscope.evaluation.common_words import COMMON_WORDS, FUNCTION_WORDS
from babelscope.evaluation.common_words_of_neighbours import LACKED_WORDS
from babelscope.evaluation.list_spelling import listed_forms

# fmt: off
CANDIDATES: dict[str, tuple[str, ...]] = {
    "Latn": (
        "af", "az", "bs", "ca", "cs", "cy", "da", "de", "en", "eo", "es", "et", "eu", "fi", "fr", "ga", "hr", "hu",
        "id", "is", "it", "la", "lg", "lt", "lv", "mi", "ms", "nb", "nl", "nn", "pl", "pt", "ro", "sk", "sl", "sn",
        "so", "sq", "st", "sv", "sw", "fil", "tn", "tr", "ts", "vi", "xh", "yo", "zu",
    ),
    "Cyrl": ("be", "bg", "kk", "mk", "mn", "ru", "sr", "uk"),
    "Arab": ("ar", "fa", "ur"),
    "Deva": ("hi", "mr"),
}
COMMON_LANGUAGES = frozenset((
    "ar", "bg", "ca", "cs", "da", "de", "en", "es", "fa", "fi", "fr", "hi", "hr", "hu", "id", "it", "nb", "nl", "pl",
    "pt", "ro", "ru", "sr", "sv", "tr", "uk", "vi",
))
# fmt: on
"""Languages of which much text is about: they are believed on less evidence."""

LINGUA = {"tl": "fil"}
"""Our tags for lingua's codes where they differ."""
LISTS = {"bs": "sh", "hr": "sh", "sr": "sh"}
"""wordfreq's lists where their names are not ours; `sh` is Serbian, Croatian and Bosnian in Latin letters."""

TO_CYRILLIC = (
    ("lj", "љ"), ("nj", "њ"), ("dž", "џ"),
    *zip("abcčćdđefghijklmnoprsštuvzž", "абцчћдђефгхијклмнопрсштувзж", strict=True),
)  # fmt: skip
"""Serbian in Cyrillic, letter by letter, the digraphs first."""

CENTIBEL = math.log(10) / 100
"""wordfreq lists words by hundredths of a power of ten."""
UNSEEN = math.log(1e-7)
"""Log share of a word that a list lacks; the lists end at 1e-6."""
FUNCTION, COMMON_SHARE = -5.0, -8.0
"""Log shares that `FUNCTION_WORDS` and `COMMON_WORDS` are taken to have."""
RARE_UNLISTED = (-10.5, -12.5)
"""Log share at most of a word in a language without a list: with function words above, and without."""
LIST_LIMIT, LETTER_LIMIT, WORD_LIMIT = 6.0, 4.0, 8.0
"""Nats at most by which one word's list, its letters, and both may speak for a language."""
BESIDE_LIST = 0.7
"""How much a word's letters count beside its list: the two are not independent. .3 to 1 differ by 8 of 3000 answers."""
RELATIVES = {"af": "nl", "nn": "nb"}
"""Languages of a list of ours whose words, where they share them, are as common as in the list of a relative."""
BORROWED = 1.0
"""Nats by which a word that our list lacks is rarer than in the relative's, unless it is among `LACKED`."""
LACKED = {tag: frozenset(words.split()) for tag, words in LACKED_WORDS.items()}
EXCLUDED = 5.0
"""Nats by which a language that lingua excludes stands behind the likeliest one."""


NEIGHBOURS: tuple[frozenset[str], ...] = (
    frozenset({"id", "ms"}), frozenset({"da", "nb", "nn", "sv"}), frozenset({"cs", "sk"}),
)  # fmt: skip
"""Languages that share most words: a whole text of one is told from the others by lingua's full models of these few."""


@cache
def detector(languages: tuple[str, ...], full: bool) -> LanguageDetector:
    """lingua with some languages of one script; its models are read when first used.

    Unless full, it reads trigrams only, which takes far less memory; beside the word lists the longer ones add little.
    """
    by_code = {_tag(language): language for language in LinguaLanguage.all()}
    builder = LanguageDetectorBuilder.from_languages(*(by_code[tag] for tag in languages))
    return (builder if full else builder.with_low_accuracy_mode()).build()


def _tag(language: LinguaLanguage) -> str:
    code = language.iso_code_639_1.name.lower()
    return LINGUA.get(code, code)


class WordList:
    """Log share of each word of a language, by the hash of the word: 10 bytes per word in the place of 140."""

    def __init__(self, bins: Sequence[Iterable[str]]) -> None:
        pairs = {hash(word): place for place, words in enumerate(bins) for word in words}
        hashes = np.fromiter(pairs.keys(), dtype=np.int64, count=len(pairs))
        order = np.argsort(hashes)
        self._hashes = hashes[order]
        self._places = np.fromiter(pairs.values(), dtype=np.int16, count=len(pairs))[order]

    def __contains__(self, word: str) -> bool:
        return self._place(word) is not None

    def get(self, word: str, default: float) -> float:
        """Log share of a word; the default where the list lacks it."""
        place = self._place(word)
        return default if place is None else -place * CENTIBEL

    def _place(self, word: str) -> int | None:
        word_hash = hash(word)
        at = int(np.searchsorted(self._hashes, word_hash))
        return int(self._places[at]) if at < len(self._hashes) and self._hashes[at] == word_hash else None


@cache
def word_list(tag: str, script: str) -> WordList | dict[str, float] | None:
    """Log share of the words of a language; None where no list is known in that script."""
    if tag in FUNCTION_WORDS:
        listed = dict.fromkeys(COMMON_WORDS[tag].split(), COMMON_SHARE)
        return listed | dict.fromkeys(FUNCTION_WORDS[tag].split(), FUNCTION)
    name = LISTS.get(tag, tag)
    if name not in available_languages("small"):
        return None
    # Past the cache of wordfreq, which would hold every word a second time.
    bins = get_frequency_list.__wrapped__(name, "small")
    if (name, script) == ("sh", "Cyrl"):
        bins = [[_in_cyrillic(word) for word in words] for words in bins]
    return WordList(bins)


def _in_cyrillic(word: str) -> str:
    for latin, cyrillic in TO_CYRILLIC:
        word = word.replace(latin, cyrillic)
    return word


def _share(word: str, tag: str, entry: WordList | dict[str, float]) -> float:
    """Log share of a word in a list, in whichever way the list writes it; in parts, that of the rarest."""
    return max(min(entry.get(part, UNSEEN) for part in parts) for parts in listed_forms(word, tag))


class WordEvidence:
    """Per-word log-likelihoods in languages of one script, remembered by word."""

    def __init__(self, script: str, languages: tuple[str, ...], *, full: bool, remember: int = 100_000) -> None:
        self.languages, self._full = languages, full
        self._seen: dict[str, tuple[Float64[np.ndarray, " language"], Float64[np.ndarray, " language"]]] = {}
        self._remember = remember
        self._lists = [word_list(tag, script) for tag in self.languages]

    def learn(self, words: list[str]) -> None:
        """Look up words together; lingua works on them in parallel."""
        if len(self._seen) > self._remember:
            self._seen.clear()
        new = [word for word in dict.fromkeys(words) if word not in self._seen]
        place = {tag: index for index, tag in enumerate(self.languages)}
        values = detector(self.languages, self._full).compute_language_confidence_values_in_parallel(new) if new else []
        for word, entries in zip(new, values, strict=True):
            # lingua drops languages by rule for one letter (`ê` for Welsh): then it is unlikely, not impossible.
            letters = np.full(len(place), math.log(max(max((e.value for e in entries), default=0), 1e-3)) - EXCLUDED)
            for entry in entries:
                index = place[_tag(entry.language)]
                letters[index] = max(letters[index], math.log(max(entry.value, 1e-13)))
            self._seen[word] = (letters, self._listed(word))

    def _listed(self, word: str) -> Float64[np.ndarray, " language"]:
        """Log share of the word in each language; in one without a list, as rare as is compatible with the others."""
        entries = list(zip(self.languages, self._lists, strict=True))
        log_shares = [UNSEEN if entry is None else _share(word, tag, entry) for tag, entry in entries]
        most, by_tag = max(log_shares), dict(zip(self.languages, log_shares, strict=True))
        for index, (tag, entry) in enumerate(entries):
            of_relative = by_tag.get(RELATIVES.get(tag, tag), UNSEEN)
            if entry is None or (tag in FUNCTION_WORDS and log_shares[index] == UNSEEN):
                log_shares[index] = min(most, RARE_UNLISTED[tag not in FUNCTION_WORDS])
                if tag in LACKED and word not in LACKED[tag]:
                    log_shares[index] = max(log_shares[index], of_relative - BORROWED)
            else:
                log_shares[index] = max(log_shares[index], of_relative)
        return np.array(log_shares)

    def commonest(self, word: str) -> float:
        """Log share of a word in the language where it is most common."""
        return float(self._seen[word][1].max())

    def beside(self, words: list[str], target: str) -> Float64[np.ndarray, "word language"]:
        """Nats by which each word speaks for each language against the target; column of the target is 0."""
        self.learn(words)
        index = self.languages.index(target)
        letters = np.stack([self._seen[word][0] for word in words])
        lists = np.stack([self._seen[word][1] for word in words])
        lengths = np.array([[min(len(word), 10)] for word in words])
        by_letters = np.clip(letters - letters[:, [index]], -9, 9) * np.sqrt(lengths) / 2
        by_list = np.clip(lists - lists[:, [index]], -LIST_LIMIT, LIST_LIMIT)
        lists_and_letters = by_list + BESIDE_LIST * np.clip(by_letters, -LETTER_LIMIT, LETTER_LIMIT)
        return np.clip(np.where(by_list == 0, by_letters, lists_and_letters), -WORD_LIMIT, WORD_LIMIT)


@cache
def evidence(script: str) -> WordEvidence:
    """The evidence of one script's languages, built at first use."""
    return WordEvidence(script, CANDIDATES[script], full=False)


@cache
def evidence_of_neighbours(script: str, languages: frozenset[str]) -> WordEvidence:
    """The evidence of a few neighbours, with lingua's full models, built at first use."""
    return WordEvidence(script, tuple(sorted(languages)), full=True)
