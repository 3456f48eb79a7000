"""Vectors of a vocabulary's entries from a file of word vectors, by the words that the entries stand in."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float64, Tensor
from babelscope.corpus import Corpus, text_lines
from babelscope.errors import CorpusError, MeasurementError
from babelscope.vocabulary.cut_words import cut_sentences
from babelscope.vocabulary.text_vectors import TextVectors
from babelscope.vocabulary.tokenizer_form import PART

BY_VECTORS = ("focus", "omp")
"""Ways to begin that mix rows by vectors."""
HEADER = re.compile(r"(\d{1,12}) (\d{1,12}) ?")
WIDEST = 10_000
"""Numbers of a vector at most: what is kept of a file is no more than this for each word of the text."""
FORM = "a first line with the number of words and of dimensions, then a line a word with as many numbers, as fastText's"


class VectorHeader(NamedTuple):
    """The first line of a file of word vectors."""

    words: int
    width: int
    """Dimensions of a vector."""


def check_vectors(init: str, vectors: str | Path | None) -> Path | None:
    """The file that a way to begin takes vectors from; None where they are made from the text.

    Raises MeasurementError for vectors that the way does not use, CorpusError for a file that does not begin as one.
    """
    if vectors is None:
        return None
    if init not in BY_VECTORS:
        raise MeasurementError(
            f"vectors came with init {init!r}; only {' and '.join(BY_VECTORS)} use them; leave them out"
        )
    path = Path(vectors)
    _header(path, _lines(path))
    return path


def read_word_vectors(path: Path, words: Collection[str]) -> dict[str, Float64[Tensor, " dim"]]:
    """Vectors by word, of some case-folded words only, from a .vec file of fastText or word2vec, plain or compressed.

    Of several spellings of a word the case-folded one is taken, else the first of the file. Every line is checked, and
    numbers are read for those words alone, so that a file may be larger than the memory.
    Raises CorpusError, with the line, for a file of another form, cut off or damaged.
    """
    lines = _lines(path)
    count, width = _header(path, lines)
    vectors, exact, number = dict[str, Tensor](), set[str](), 1
    for number, line in lines:
        fields = line.rstrip(" ")
        if number - 1 > count or fields.count(" ") != width:
            what = f"more than {count:,} words" if number - 1 > count else f"{fields.count(' ')} numbers after a word"
            raise CorpusError(
                f"{path}, line {number}: {what}; expected {count:,} words with {width} numbers each, as its first "
                "line says; fetch the file again"
            )
        written = fields[: fields.index(" ")]
        word = written.casefold()
        if word not in words or word in exact or (written != word and word in vectors):
            continue
        vectors[word] = _numbers(path, number, fields)
        if written == word:
            exact.add(word)
    if number - 1 < count:
        raise CorpusError(
            f"{path}: ends after {number - 1:,} words; expected {count:,}, as its first line says; fetch the file again"
        )
    return vectors


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    return text_lines(path, most=None)  # only what is needed of them is kept


def _header(path: Path, lines: Iterator[tuple[int, str]]) -> VectorHeader:
    first = next(lines, (1, ""))[1]
    sizes = HEADER.fullmatch(first)
    if sizes is None or not 0 < int(sizes[2]) <= WIDEST:
        came = repr(first if len(first) <= 40 else f"{first[:37]}…")
        raise CorpusError(
            f"{path}, line 1: {came}; expected {FORM} have, at most {WIDEST:,} dimensions; add the line, or convert it"
        )
    return VectorHeader(int(sizes[1]), int(sizes[2]))


def _numbers(path: Path, number: int, fields: str) -> Float64[Tensor, " dim"]:
    try:
        vector = torch.tensor([float(field) for field in fields.split(" ")[1:]], dtype=torch.float64)
    except ValueError as err:
        raise CorpusError(f"{path}, line {number}: {err}; expected numbers after the word; fetch it again") from err
    if not bool(torch.isfinite(vector).all()):
        raise CorpusError(
            f"{path}, line {number}: a number is infinite or none; expected finite ones; fetch the file again"
        )
    return vector


def entry_vectors(tokenizer: PreTrainedTokenizerBase, corpus: Corpus, path: Path) -> TextVectors:
    """Unit vectors of the entries that stand in words that a file has.

    a_e = Σ_w c(e, w) · v_w, brought to length 1, over the case-folded words w of the text, c being how often an entry
    stands in a word; so the vector of an entry that is a word and nothing else is the word's own. Where no spaces are
    written, each token is a word.
    Raises CorpusError as `read_word_vectors`, and for a file that has no word of the text.
    Source: Minixhofer et al. 2022, arXiv:2112.06598, for vectors of words without n-grams.
    """
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for tag, documents in corpus.items():
        for start in range(0, len(documents), PART):
            for sentence in cut_sentences(tokenizer, tag, documents[start : start + PART]):
                for word, ids in zip(sentence.words, sentence.tokens, strict=True):
                    for index in ids:
                        counts[index][word] += 1
    words = {word for by_word in counts.values() for word in by_word}
    vectors = read_word_vectors(path, words)
    if not vectors:
        raise CorpusError(
            f"{path}: has none of the {len(words):,} words of {corpus.name}; expected vectors of its language; give "
            "another file"
        )
    place = {word: at for at, word in enumerate(vectors)}
    ids = sorted(index for index, by_word in counts.items() if not place.keys().isdisjoint(by_word))
    cells = [
        (row, place[word], count)
        for row, index in enumerate(ids)
        for word, count in counts[index].items()
        if word in place
    ]
    rows, columns, values = (np.array(part) for part in zip(*cells, strict=True))
    sums = csr_array((values.astype(np.float64), (rows, columns))) @ torch.stack(list(vectors.values())).numpy()
    summed = torch.from_numpy(sums)
    return TextVectors(torch.tensor(ids), summed / summed.norm(dim=1, keepdim=True).clamp(min=1e-12))
