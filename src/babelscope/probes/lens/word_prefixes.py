"""Vocabulary entries that are a prefix of a word, as the logit lens of arXiv:2402.10588 counts them."""

from collections import defaultdict
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from babelscope.corpus import special_ids


class PrefixIndex:
    """The entries of a vocabulary by their text, with one space before it left out.

    Of "water" the entries "w", " w", "wa", " wa", … "water", " water" are prefixes. A word that begins with a letter
    of several bytes has the entry of its first byte too, where a tokenizer spells bytes as <0xE6>.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        special = special_ids(tokenizer)
        self.entries: dict[str, list[int]] = defaultdict(list)
        self.bytes: dict[int, int] = {}
        for piece, token in tokenizer.get_vocab().items():
            if token in special:
                continue
            if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
                self.bytes[int(piece[3:5], 16)] = token
                continue
            text = str(tokenizer.decode([token])).removeprefix(" ")
            if text and "\ufffd" not in text:
                self.entries[text].append(token)

    def of(self, word: str) -> set[int]:
        """Ids of all entries that the word, or the word after a space, begins with."""
        tokens = {token for end in range(1, len(word) + 1) for token in self.entries.get(word[:end], ())}
        first = word[:1].encode()
        if len(first) > 1 and first[0] in self.bytes:
            tokens.add(self.bytes[first[0]])
        return tokens


@lru_cache(maxsize=1)
def prefix_index(tokenizer: PreTrainedTokenizerBase, entries: int) -> PrefixIndex:
    """The index of a tokenizer with so many entries, made once: every entry of a large vocabulary is decoded for it."""
    return PrefixIndex(tokenizer)
