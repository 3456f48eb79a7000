"""Which entries of a vocabulary speak for which language: from a user's words, or from parallel text by a rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import category

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Int64, Tensor
from babelscope.corpus import Texts, as_corpus, clean_text, encode_texts, tokenize_documents
from babelscope.errors import CorpusError, LanguageError, MeasurementError
from babelscope.languages import Language, language_index, parse_languages
from babelscope.reference import WORDS

SLACK = 1e-12
"""Rates that miss the ratio by less, relative to it, reach it: the last bit decides nothing."""
Words = Mapping[str, Mapping[str, str]] | Mapping[str, Mapping[Language, str]]
"""Concept → language tag → the word for it: `{"cat": {"en": "cat", "fi": "kissa"}}`."""


@dataclass(frozen=True, eq=False)
class LanguageTokens:
    """Disjoint sets of tokens, one per language."""

    __repr__ = shown_by()

    languages: tuple[Language, ...]
    member: Bool[Tensor, "language vocab"]
    """A token belongs to one language at most."""
    shared: Bool[Tensor, " vocab"]
    """Tokens that two languages or more claim; counted for none."""
    source: str
    """Where the sets come from, with the rule's parameters."""

    @property
    def sizes(self) -> Int64[Tensor, " language"]:
        """Tokens of each language."""
        return self.member.sum(dim=1)

    def index(self, language: str) -> int:
        """Place of a language; raises LanguageError if absent."""
        return language_index(language, self.languages, "no tokens are listed for {tag}")

    def shuffled(self, generator: torch.Generator) -> Bool[Tensor, "language vocab"]:
        """The same tokens dealt out to languages at random, as many to each: the control."""
        tokens = self.member.any(dim=0).nonzero()[:, 0]
        owner = self.member.to(torch.uint8).argmax(dim=0)[tokens]
        member = torch.zeros_like(self.member)
        member[owner[torch.randperm(len(tokens), generator=generator)], tokens] = True
        return member


def word_tokens(tokenizer: PreTrainedTokenizerBase, words: Words, *, vocabulary: int | None = None) -> LanguageTokens:
    """Tokens that begin a language's words, with and without a space before them.

    Tokens without a letter, and pieces of a character, say nothing of a language and are left out; tokens that begin
    words of two languages are `shared` and counted for neither.
    vocabulary: the model's number of output rows, where it is more than the tokenizer's entries.
    Raises LanguageError for a word list of one language, MeasurementError if a language keeps no token.
    Source: Wendler et al. 2024, arXiv:2402.10588.
    """
    tags = parse_languages(dict.fromkeys(tag for by_tag in words.values() for tag in by_tag))
    claimed = torch.zeros(len(tags), vocabulary or len(tokenizer), dtype=torch.bool)
    for by_tag in words.values():
        for tag, word in by_tag.items():
            claimed[tags.index(Language.parse(tag)), list(word_beginnings(tokenizer, word))] = True
    return _disjoint(tags, claimed, claimed.sum(dim=0) > 1, f"first tokens of {len(words)} words a language")


def word_beginnings(tokenizer: PreTrainedTokenizerBase, word: str) -> set[int]:
    """Tokens that begin a word, with and without a space before it; none that lacks a letter or a whole character."""
    tokens = set[int]()
    for encoded in encode_texts(tokenizer, (word, f" {word}")):
        first = first_meaningful(tokenizer, encoded.ids)
        if first is not None and has_letter(tokenizer, first):
            tokens.add(first)
    return tokens


def read_words(path: str | Path) -> dict[str, dict[Language, str]]:
    """Words in parallel from a table: tabs between columns, language tags in the first line, a concept a line.

    path: a file, or "reference" for the bundled list. An empty cell is a word that is not known; a concept is named by
    its number and its first word. Raises CorpusError for a table that is not of this form, LanguageError for a bad tag.
    """
    file = WORDS if path == "reference" else Path(path)
    try:
        lines = [clean_text(line) for line in file.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as err:
        raise CorpusError(f"{file}: unreadable ({err}); expected a table of words in UTF-8") from err
    rows = [[cell.strip() for cell in line.split("\t")] for line in lines]
    if len(rows) < 2 or len(rows[0]) < 2:
        raise CorpusError(
            f"{file}: {len(rows)} lines, {len(rows[0]) if rows else 0} columns; expected a line of language tags with "
            "tabs between them, and a line a concept below it"
        )
    tags, words = parse_languages(rows[0]), dict[str, dict[Language, str]]()
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(tags):
            raise CorpusError(f"{file}: word {number} has {len(row)} cells; expected {len(tags)}, one per language")
        word_by_language = {tag: word for tag, word in zip(tags, row, strict=True) if word}
        words[f"{number} {next(iter(word_by_language.values()), '')}"] = word_by_language
    return words


def indicative_tokens(
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    ratio: float | int = 5,
    min_count: int = 5,
    vocabulary: int | None = None,
) -> LanguageTokens:
    """Tokens that one language uses far more than any other: v belongs to k if c_k ≥ min_count and
    c_k/N_k ≥ ratio · max_{j≠k} c_j/N_j, counts c and N tokens of the text.

    Parallel text makes the lists parallel: the same content in every language. Take other text than the one that is
    measured. Tokens with letters that reach min_count in two languages and belong to none are `shared`.
    Raises LanguageError for one language, MeasurementError if a language keeps no token.
    """  # noqa: D205
    corpus = as_corpus(texts)
    size = vocabulary or len(tokenizer)
    counts = torch.zeros(len(corpus), size, dtype=torch.int64)
    for k, documents in enumerate(corpus.values()):
        for document in tokenize_documents(tokenizer, documents, k, max_length=100_000):
            ids = [token for token, is_counted in zip(document.tokens, document.counted, strict=True) if is_counted]
            counts[k] += torch.bincount(torch.tensor(ids, dtype=torch.int64), minlength=size)
    member = indicative(counts, ratio=ratio, min_count=min_count)
    used = (counts >= min_count).any(dim=0).nonzero()[:, 0].tolist()
    lettered = torch.zeros(size, dtype=torch.bool)
    lettered[[token for token in used if has_letter(tokenizer, token)]] = True
    shared = ((counts >= min_count).sum(dim=0) > 1) & ~member.any(dim=0) & lettered
    rule = f"tokens {ratio} times as frequent as in any other language, {min_count} times or more"
    return _disjoint(tuple(corpus), member & lettered, shared, f"{corpus.name}: {rule}")


def indicative(
    counts: Int64[Tensor, "language vocab"], *, ratio: float | int, min_count: int
) -> Bool[Tensor, "language vocab"]:
    """The rule alone; raises LanguageError for one language."""
    if len(counts) < 2:
        raise LanguageError("one language came; expected at least two, to tell their words apart; add text")
    rate = counts.double() / counts.sum(dim=1, keepdim=True).clamp(min=1)
    top = rate.topk(2, dim=0).values
    enough = top[0] >= ratio * top[1] * (1 - SLACK)
    best = (rate == top[0]) & enough & (top[0] > top[1])
    return best & (counts >= min_count)


def has_letter(tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
    """Whether a token is whole text with a letter in it."""
    text = str(tokenizer.decode([token]))
    return "\ufffd" not in text and any(category(letter)[0] == "L" for letter in text)


def first_meaningful(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> int | None:
    """The first token that is more than a space."""
    return next((token for token in ids if str(tokenizer.decode([token])).strip()), None)


def _disjoint(
    tags: tuple[Language, ...], claimed: Bool[Tensor, "language vocab"], shared: Bool[Tensor, " vocab"], source: str
) -> LanguageTokens:
    if len(tags) < 2:
        raise LanguageError(f"words of {', '.join(tags)} came alone; expected at least two languages; add words")
    member = claimed & ~shared
    bare = [tag for tag, is_member in zip(tags, member, strict=True) if not bool(is_member.any())]
    if bare:
        raise MeasurementError(
            f"no token is {', '.join(bare)}'s own; expected at least one; give more text or words, or a lower ratio"
        )
    return LanguageTokens(tags, member, shared, source)
