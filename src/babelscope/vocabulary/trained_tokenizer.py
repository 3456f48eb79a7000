"""A tokenizer of the same kind, trained anew on a text: its special, added and byte tokens stay."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, repeat
from typing import Any, NamedTuple

from tokenizers import Tokenizer, models, trainers
from transformers import PreTrainedTokenizerBase

from babelscope.corpus import Corpus
from babelscope.errors import CorpusError, MeasurementError
from babelscope.vocabulary.entry_closure import with_entries_only
from babelscope.vocabulary.merge_lists import Pair, backend_of, pairs_of
from babelscope.vocabulary.tokenizer_form import TokenizerForm
from babelscope.vocabulary.words import count_words

UNKNOWN = "<unk>"
"""Unigram's trainer wants a name for it; the trained entry is left out again."""


class TrainedEntries(NamedTuple):
    """What a trainer made of a text."""

    letters: dict[str, float]
    """Single characters with their log-probability; 0 of BPE."""
    pieces: dict[str, float]
    """Longer entries, first the ones to keep first, with the same."""
    merges: list[Pair]
    """Of BPE, in order."""


def train_form(
    form: TokenizerForm,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    stay: Collection[int],
    *,
    size: int | None,
    min_count: int,
) -> TokenizerForm:
    """The tokenizer with entries that a text gives in the place of its own, trained by the `tokenizers` library.

    First come the entries that stay in any case, in their order, then letters that come `min_count` times, then what
    training adds until there are `size` entries. Words are cut as the tokenizer cuts them. No new entry is spelt as an
    added or byte token is, so that no text becomes a control token.

    stay: ids of entries that stay. size: None takes at most as many entries as the tokenizer has now.
    Raises CorpusError for text without a word; MeasurementError for a size below the entries that stay and the
    letters, or above what the text gives.
    """
    limit = len(form.ids) if size is None else size
    base = with_entries_only(form, sorted(stay))
    separate_entries = {token["content"] for token in form.state["added_tokens"]}
    separate_entries |= set(form.bytes) if form.byte_fallback else set()
    joined_pairs = form.merges or [(entry, "") for entry in form.ids if entry not in separate_entries]
    words = sum(count_words(backend_of(tokenizer), joined_pairs, corpus), Counter[str]())
    if not words:
        raise CorpusError(f"{corpus.name}: its text has no word; expected text of the languages to serve; add some")
    words = words_of_letters(words, set(base.ids) - separate_entries, min_count)
    letters = {letter for word in words for letter in word} - (set(base.ids) - separate_entries)
    if limit < len(base.ids) + len(letters):
        least = len(base.ids) + len(letters)
        raise MeasurementError(
            f"size {limit} came; {len(base.ids)} entries stay in any case (special and added tokens, bytes, and those "
            f"named by settings) and the text has {len(letters)} letters more; expected {least} or more"
        )
    room = limit - len(base.ids)
    # The trainer counts the letters of the text, of which some stay already, and may make an entry that stays.
    train = train_unigram if form.model["type"] == "Unigram" else train_bpe
    trained = train(words, most=room + len(base.ids.keys() - separate_entries), min_count=min_count)
    trained_form = with_trained(base, trained, separate_entries, room)
    if size is not None and len(trained_form.ids) < size:
        raise MeasurementError(
            f"size {size} came; the text gives {len(trained_form.ids)} entries, those that stay in any case with them; "
            "expected at most that; add text, or lower the size or min_count"
        )
    return trained_form


def words_of_letters(words: Counter[str], known: Collection[str], min_count: int) -> Counter[str]:
    """Words without the letters that are rare and no entries: these stay bytes, or unknown."""
    letters = Counter[str]()
    for word, count in words.items():
        for letter in word:
            letters[letter] += count
    rare = {ord(letter): "\0" for letter, count in letters.items() if count < min_count and letter not in known}
    if not rare:
        return words
    cut = Counter[str]()
    for word, count in words.items():
        for part in word.translate(rare).split("\0"):
            if part:
                cut[part] += count
    return cut


def train_bpe(words: Counter[str], *, most: int, min_count: int) -> TrainedEntries:
    """Byte pair encoding: again and again the most frequent pair is joined, while it comes `min_count` times."""
    trainer = trainers.BpeTrainer(vocab_size=most, min_frequency=min_count, show_progress=False, special_tokens=[])
    merges = pairs_of(_trained(models.BPE(), trainer, words)["merges"])
    pieces = dict.fromkeys((left + right for left, right in merges), 0.0)
    return TrainedEntries(_letters(words), pieces, merges)


def train_unigram(words: Counter[str], *, most: int, min_count: int) -> TrainedEntries:
    """Unigram: of all substrings those that the text is likeliest with. min_count: of letters alone.

    The trainer sums in an order that changes from run to run: log-probabilities differ in the fourth decimal.
    Source: Kudo 2018, arXiv:1804.10959.
    """
    trainer = trainers.UnigramTrainer(vocab_size=most, show_progress=False, special_tokens=[], unk_token=UNKNOWN)
    scores = {entry: score for entry, score in _trained(models.Unigram(), trainer, words)["vocab"] if entry != UNKNOWN}
    letters = {letter: scores[letter] for letter in _letters(words)}
    pieces = sorted(scores.keys() - letters.keys(), key=lambda entry: (-scores[entry], entry))
    return TrainedEntries(letters, {entry: scores[entry] for entry in pieces}, [])


def _trained(model: Any, trainer: Any, words: Counter[str]) -> dict[str, Any]:
    """The model that a trainer makes; each word comes as often as in the text."""
    backend = Tokenizer(model)
    backend.train_from_iterator(_repeated(words), trainer)
    return json.loads(backend.to_str())["model"]


def _repeated(words: Counter[str]) -> Iterator[str]:
    return chain.from_iterable(repeat(word, count) for word, count in sorted(words.items()))


def _letters(words: Iterable[str]) -> dict[str, float]:
    return dict.fromkeys(sorted({letter for word in words for letter in word}), 0.0)


def with_trained(
    base: TokenizerForm, trained: TrainedEntries, separate_entries: Collection[str], room: int
) -> TokenizerForm:
    """The entries that stay, then trained ones until there is no room; no merge makes one of the separate entries."""
    model, ids, first = dict(base.model), dict(base.ids), len(base.ids)
    for entry in (entry for entries in (trained.letters, trained.pieces) for entry in entries):
        if len(ids) < first + room and entry not in separate_entries:
            ids.setdefault(entry, len(ids))
    if model["type"] == "Unigram":
        scores = {**dict(model["vocab"]), **trained.letters, **trained.pieces}
        least = min(scores.values())
        model["vocab"] = [[entry, scores.get(entry, least)] for entry in sorted(ids, key=lambda entry: ids[entry])]
    else:
        joined = ids.keys() - set(separate_entries)
        model["vocab"] = dict(sorted(ids.items(), key=lambda pair: pair[1]))
        model["merges"] = [
            [left, right]
            for left, right in trained.merges
            if left in joined and right in joined and left + right in joined
        ]
    return base.with_state({**base.state, "model": model}, {index: index for index in base.entries})
