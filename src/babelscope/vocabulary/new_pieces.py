"""Further merges for a tokenizer: the pairs of its tokens that come most often in a text, one after the other."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple
from unicodedata import category

import numpy as np
from tokenizers import Encoding
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Int64
from babelscope.corpus import Corpus
from babelscope.errors import CorpusError
from babelscope.vocabulary.merge_lists import SPACE
from babelscope.vocabulary.merges import Chain
from babelscope.vocabulary.tokenizer_form import FALLBACK_SET, TokenizerForm, encoded_in_parts

GAIN = 1e-4
"""By how much, in nats, a new piece of Unigram is likelier than its two parts: enough to be chosen in their place, and
less than what divides two cuts of other words."""
SymbolWord = tuple[str, ...]
"""Neighbouring tokens that may be joined."""


class NewPiece(NamedTuple):
    """An entry that joins two others."""

    left: str
    right: str
    occurrences: int
    """How often the two stood side by side when it was made."""

    @property
    def entry(self) -> str:
        """As the vocabulary writes it."""
        return self.left + self.right


def learn_pieces(
    form: TokenizerForm, words: Counter[SymbolWord], *, most: int | None, min_count: int
) -> list[NewPiece]:
    """Join the most frequent pair of neighbours, again and again, from the tokenizer's own cut of the text onwards.

    So each new piece is formed, by merges after all earlier ones, just where it was counted; a list trained anew would
    hold pairs that the earlier merges never leave side by side. Of equally frequent pairs the one of lower ids comes
    first. A pair that spells an entry which is there already is passed over.
    most: pieces at most; None is until no pair comes `min_count` times.
    """
    ids, room = dict(form.ids), sum(count * (len(word) - 1) for word, count in words.items())
    limit = room if most is None else most
    chain = Chain([words], ids, room=min(limit, room))
    keys, weights = chain.tally(np.flatnonzero(chain.symbol[:-1] >= 0), 1.0)
    counts = Counter[int]()
    _add(counts, keys, weights)
    heap = [(-count, key) for key, count in counts.items()]
    heapq.heapify(heap)
    entries, pieces = form.entries | {}, list[NewPiece]()
    while heap and len(pieces) < limit:
        count, key = heapq.heappop(heap)
        if counts[key] != -count:
            continue
        if -count < min_count:
            break
        left, right = (entries[index] for index in divmod(key, chain.base))
        if left + right in ids:
            continue
        index = chain.base - 1 - (min(limit, room) - 1 - len(pieces))
        ids[left + right], entries[index] = index, left + right
        pieces.append(NewPiece(left, right, -count))
        for changed in _add(counts, *chain.merge(*divmod(key, chain.base), index)):
            if counts[changed] > 0:
                heapq.heappush(heap, (-counts[changed], changed))
    return pieces


def _add(counts: Counter[int], keys: np.ndarray, weights: np.ndarray) -> list[int]:
    """Add weights to the counts; the keys that changed."""
    unique, inverse = np.unique(keys, return_inverse=True)
    delta = np.bincount(inverse, weights, len(unique)).round().astype(np.int64)
    changed = unique[delta != 0].tolist()
    for key, change in zip(changed, delta[delta != 0].tolist(), strict=True):
        counts[key] += change
    return changed


def tokens_saved(
    form: TokenizerForm, words: Counter[SymbolWord], pieces: Sequence[NewPiece]
) -> Int64[np.ndarray, " piece"]:
    """By how many tokens a text is shorter with the first piece, the first two, and so on."""
    first = max(form.ids.values()) + 1
    ids = form.ids | {piece.entry: first + number for number, piece in enumerate(pieces)}
    chain, saved = Chain([words], ids), []
    for piece in pieces:
        left, right = ids[piece.left], ids[piece.right]
        saved.append(int(chain.weight[chain.find(left, right)].sum()))
        chain.merge(left, right, ids[piece.entry])
    return np.cumsum(np.array(saved, dtype=np.int64))


class CutText(NamedTuple):
    """A text as a tokenizer cuts it."""

    words: Counter[SymbolWord]
    """Runs of two tokens or more that may be joined."""
    tokens: int
    n_bytes: int


def cut_text(tokenizer: PreTrainedTokenizerBase, form: TokenizerForm, corpus: Corpus) -> CutText:
    """The text of all languages, cut into words of tokens; raises CorpusError for text without a token."""
    joinable = {entry: _joinable(form, entry) for entry in form.ids}
    joinable |= {token["content"]: False for token in form.state["added_tokens"]}
    words, tokens = Counter[SymbolWord](), 0
    for encoding_part in encoded_in_parts(tokenizer, corpus):
        if encoding_part.encoding is not None:
            tokens += len(encoding_part.ids)
            words.update(_words_of(form, encoding_part.encoding, joinable))
    if not tokens:
        raise CorpusError(f"{corpus.name}: its text has no token; expected text of the languages to serve; add some")
    n_bytes = sum(len(document.text.encode()) for documents in corpus.values() for document in documents)
    return CutText(words, tokens, n_bytes)


def _words_of(form: TokenizerForm, encoding: Encoding, joinable: Mapping[str, bool]) -> list[SymbolWord]:
    """Runs of tokens in one word of the tokenizer's own cutter; a space begins another word where it has none."""
    numbers, words, number = encoding.word_ids, list[SymbolWord](), 0
    places = list[tuple[int | None, int, bool]]()
    for token, word in zip(encoding.tokens, numbers, strict=True):
        number += not form.byte_level and token.startswith(SPACE)
        places.append((word, number, joinable.get(token, False)))
    run = 0
    for (_, _, is_whole), group in groupby(places):
        length = len(list(group))
        if is_whole and length > 1:
            words.append(tuple(encoding.tokens[run : run + length]))
        run += length
    return words


def _joinable(form: TokenizerForm, entry: str) -> bool:
    """Whether an entry may be a part of a new one: it holds letters, or bytes of them, and nothing else but a space."""
    if form.byte_level:
        text = ByteLevel().decode([entry])
        return bool(text.strip()) and all(_is_letter(c) or c == "\ufffd" for c in text.removeprefix(" "))
    if form.byte_fallback and entry in FALLBACK_SET:
        return False
    text = entry.removeprefix(SPACE)
    return all(_is_letter(letter) for letter in text)


def _is_letter(letter: str) -> bool:
    return category(letter)[0] in "LM"


def with_pieces(form: TokenizerForm, pieces: Sequence[NewPiece]) -> TokenizerForm:
    """The tokenizer with further entries, whose ids follow its own, and whose merges follow its own.

    Added tokens become entries of the model too, so that all ids stay what they are.
    """
    model, names = dict(form.model), form.entries
    first = max(names) + 1
    if model["type"] == "Unigram":
        rows = [list(entry) for entry in model["vocab"]]
        least = min(score for _, score in rows)
        rows += [[names[index], least] for index in range(len(rows), first)]
        score = {entry: value for entry, value in rows}
        for piece in pieces:
            score[piece.entry] = score[piece.left] + score[piece.right] + GAIN
            rows.append([piece.entry, score[piece.entry]])
        model["vocab"] = rows
    else:
        ids = form.ids | {piece.entry: first + number for number, piece in enumerate(pieces)}
        model["vocab"] = dict(sorted(ids.items(), key=lambda pair: pair[1]))
        model["merges"] = [list(pair) for pair in form.merges] + [[piece.left, piece.right] for piece in pieces]
    return form.with_state({**form.state, "model": model}, {index: index for index in names})
