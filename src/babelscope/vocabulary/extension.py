"""Add entries to a vocabulary, so that a language is written in fewer tokens."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.corpus import Corpus, Texts, as_corpus
from babelscope.errors import CorpusError, MeasurementError, PrerequisiteError
from babelscope.models.plain import CausalModel
from babelscope.vocabulary.initial_rows import NewEntries, check_init
from babelscope.vocabulary.new_pieces import NewPiece, cut_text, learn_pieces, tokens_saved, with_pieces
from babelscope.vocabulary.pack import VocabularyPack
from babelscope.vocabulary.row_packs import pack_of
from babelscope.vocabulary.token_tables import check_none_applied, token_tables
from babelscope.vocabulary.tokenizer_form import TokenizerForm
from babelscope.vocabulary.translated_rows import check_pairs
from babelscope.vocabulary.word_vectors import check_vectors

log = logging.getLogger(__name__)
SIZES = (50, 100, 200, 500, 1000, 2000, 5000, 10_000)
"""Where the curve of saved tokens is read."""
ENOUGH = 0.75
"""Without a size: the first of these sizes that saves this part of what the longest list saves."""
HELD_OUT = 10
"""Without valid text: every tenth document is left out of learning."""


def extend_vocabulary(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    size: int | None = None,
    init: str = "subword",
    valid: Texts | None = None,
    min_count: int = 5,
    seed: int = 0,
    pairs: Texts | None = None,
    against: str = "en",
    vectors: str | Path | None = None,
    progress: bool = False,
) -> VocabularyPack:
    """More entries for the languages of a text, for byte-level BPE, BPE with byte fallback, and Unigram.

    New merges follow the tokenizer's own, each the most frequent pair that all before it leave side by side in the
    text; so text is cut as before but where a new entry occurs. New rows begin as `init` says, the rows of an untied
    head by the same weights, elements of a bias at 0. Rows that padded the model's tables give place first. The model
    is not changed: `pack.applied(model)` does that.

    size: new entries; None takes, of 50, 100, 200, 500 …, the first that saves three quarters of the tokens that the
    longest list saves in `valid`, or in every tenth document where that is not given, which learning then leaves out.
    init: one of `initial_rows.INITS`: random, mean, subword, merge, align, script, focus, omp; or "distill", which
    learns the rows in minutes, and its control "distill-shuffled": see `distilled_rows.distilled`; or "translate",
    mixtures of the rows of a word's translations, and its control "translate-shuffled": see
    `translated_rows.translated_rows`.
    valid: text that is not learnt from, in which the saved tokens are counted (`parameters["curve"]`); with a size and
    without it they are counted in the text that was learnt from, and the curve's `held_out` is False.
    min_count: how often a pair must come to be joined. seed: of what is drawn.
    pairs: for "translate", parallel text of each language of the text and of `against`, which the model knows.
    vectors: for "focus" and "omp", a .vec file of word vectors as fastText and word2vec write it, plain or compressed;
    see `word_vectors.entry_vectors`. None makes vectors of the neighbours in the text. New entries that stand in no
    word of the file begin with their sub-words; `parameters["vectors"]` says how many have a vector.
    Raises PrerequisiteError as `trim_vocabulary`, and for tokens without a row; CorpusError for text that gives no new
    token, pairs that are not parallel or align no new token, and a damaged file of vectors; LanguageError for a
    language that the pairs lack; MeasurementError for a size that it does not give, an unknown init, and pairs or
    vectors that are absent or not used.
    """
    check_init(init)
    if min_count < 1 or (size is not None and size < 0):
        raise MeasurementError(f"size {size}, min_count {min_count} came; expected 0 or more, and 1 or more")
    check_none_applied(model, "extending")
    corpus = as_corpus(texts)
    translations, vector_file = check_pairs(init, pairs, against, corpus), check_vectors(init, vectors)
    new = new_entries(tokenizer, corpus, rows=token_tables(model).rows, size=size, valid=valid, min_count=min_count)
    return pack_of(
        model, new, "extend", init, translations=translations, vectors=vector_file, seed=seed, progress=progress
    )


def new_entries(
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    rows: int,
    size: int | None,
    valid: Texts | None = None,
    min_count: int = 5,
) -> NewEntries:
    """The tokenizer with further entries, and what their rows can be worked out from; see `extend_vocabulary`.

    rows: of the model's tables.
    """
    corpus, form = as_corpus(texts), TokenizerForm.of(tokenizer)
    first = max(form.ids.values()) + 1
    if first > rows or first != len(form.entries):
        raise PrerequisiteError(
            f"{len(form.entries)} entries with ids up to {first - 1}, and {rows} rows came; expected a row for "
            "each, and no gap between ids; resize the model's embeddings"
        )
    train, test = (corpus, as_corpus(valid)) if valid is not None else _dealt(corpus, size)
    words = cut_text(tokenizer, form, train).words
    pieces = [] if size == 0 else learn_pieces(form, words, most=size, min_count=min_count)
    _check_given(pieces, size, min_count, corpus)
    curve = saving_curve(tokenizer, form, pieces, test)
    if curve["saved"] and not curve["saved"][-1]:
        log.warning(
            "%d new entries save none of the %d tokens of the text they are counted in: they are of other words; learn "
            "from text like that which the model is to read",
            len(pieces),
            curve["tokens"],
        )
    pieces = pieces[: _chosen(curve) if size is None else size]
    extended = with_pieces(form, pieces)
    # A curve of the text that was learnt from flatters: it says so.
    curve["held_out"] = test is not train
    source = torch.arange(max(rows, first + len(pieces)))
    source[first : first + len(pieces)] = -1
    return NewEntries(
        tokenizer=tokenizer,
        form=form,
        successor=extended.open("extended tokenizer"),
        successor_form=extended,
        source=source,
        pairs={piece.entry: (piece.left, piece.right) for piece in pieces},
        corpus=train,
        learning={"size": len(pieces), "min_count": min_count, "curve": curve},
    )


def _dealt(corpus: Corpus, size: int | None) -> tuple[Corpus, Corpus]:
    """The text to learn from and the text to choose on: the same where the size is given."""
    if size is not None:
        return corpus, corpus
    parts = [
        {
            tag: tuple(
                document for place, document in enumerate(documents) if (place % HELD_OUT == HELD_OUT - 1) == out
            )
            for tag, documents in corpus.items()
        }
        for out in (False, True)
    ]
    short = [tag for tag, documents in parts[1].items() if not documents]
    if short:
        raise CorpusError(
            f"{len(corpus[short[0]])} documents in {short[0]} came; expected {HELD_OUT} or more to choose a size on "
            "every tenth; add text, or give a size or valid text"
        )
    return corpus.derived(parts[0], corpus.name), corpus.derived(parts[1], corpus.name)


def _check_given(pieces: Sequence[NewPiece], size: int | None, min_count: int, corpus: Corpus) -> None:
    if not pieces and size != 0:
        raise CorpusError(
            f"{corpus.name}: no pair of tokens inside words comes {min_count} times, so that the text gives no new "
            "token; expected more text, or a lower min_count"
        )
    if size is not None and len(pieces) < size:
        raise MeasurementError(
            f"size {size} came; the text gives {len(pieces)} new entries that come {min_count} times; expected at most "
            "that; add text, or lower the size or min_count"
        )


def saving_curve(
    tokenizer: PreTrainedTokenizerBase, form: TokenizerForm, pieces: Sequence[NewPiece], corpus: Corpus
) -> dict[str, Any]:
    """How many tokens of a text the first pieces save: tokens and bytes of the text, sizes, and tokens saved at each.

    Exact for BPE, by the merges themselves; with Unigram some tokens in ten thousand differ.
    """
    text = cut_text(tokenizer, form, corpus)
    sizes = sorted({size for size in SIZES if size < len(pieces)} | ({len(pieces)} - {0}))
    saved = tokens_saved(form, text.words, pieces)
    return {
        "tokens": text.tokens,
        "bytes": text.n_bytes,
        "sizes": sizes,
        "saved": [int(saved[size - 1]) for size in sizes],
    }


def _chosen(curve: dict[str, Any]) -> int:
    """The first size that saves enough."""
    pairs = zip(curve["sizes"], curve["saved"], strict=True)
    return next(size for size, saved in pairs if saved >= ENOUGH * curve["saved"][-1])
