"""The words of a sentence, and the tokens that each is written with."""

from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from babelscope.corpus import Document, encode_texts
from babelscope.languages import Language
from babelscope.languages.scripts import UNSPACED
from babelscope.vocabulary.premium import CharacterSpan, word_spans


class CutSentence(NamedTuple):
    """The words of a sentence and the tokens that each is written with."""

    words: tuple[str, ...]
    """Case-folded."""
    tokens: tuple[tuple[int, ...], ...]
    """By word."""


def cut_sentences(
    tokenizer: PreTrainedTokenizerBase, language: Language, documents: Sequence[Document]
) -> list[CutSentence]:
    """The words of each sentence, with their tokens."""
    texts = [document.text for document in documents]
    return [
        CutSentence((), ()) if cut.encoding is None else cut_sentence(text, cut.encoding, language)
        for text, cut in zip(texts, encode_texts(tokenizer, texts), strict=True)
    ]


def cut_sentence(text: str, encoding: Encoding, language: Language) -> CutSentence:
    """Runs of letters, or the tokens themselves where the script has no spaces, with the tokens that share a letter."""
    words, tokens, first = list[str](), list[tuple[int, ...]](), 0
    offsets: list[CharacterSpan] = encoding.offsets
    spans = list(word_spans(text))
    if language.script in UNSPACED:
        spans = sorted({(max(a, c), min(b, d)) for a, b in spans for c, d in offsets if max(a, c) < min(b, d)})
    for start, end in spans:
        while first < len(offsets) and offsets[first][1] <= start:
            first += 1
        last = first
        while last < len(offsets) and offsets[last][0] < end:
            last += 1
        if first < last:
            words.append(text[start:end].casefold())
            tokens.append(tuple(encoding.ids[first:last]))
    return CutSentence(tuple(words), tuple(tokens))
