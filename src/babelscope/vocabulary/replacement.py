"""Give a model another vocabulary in the place of its own: one that is trained on text, or a finished one."""

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.corpus import Corpus, Texts, as_corpus
from babelscope.errors import MeasurementError, PrerequisiteError
from babelscope.models.plain import CausalModel
from babelscope.vocabulary.initial_rows import NewEntries, check_init
from babelscope.vocabulary.merge_lists import Pair
from babelscope.vocabulary.pack import VocabularyPack
from babelscope.vocabulary.row_packs import pack_of
from babelscope.vocabulary.token_tables import check_none_applied, ids_named_by, token_tables
from babelscope.vocabulary.tokenizer_form import TokenizerForm
from babelscope.vocabulary.trained_tokenizer import train_form
from babelscope.vocabulary.translated_rows import check_pairs
from babelscope.vocabulary.trimming import count_tokens_of
from babelscope.vocabulary.word_vectors import check_vectors


def replace_vocabulary(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    size: int | None = None,
    init: str = "subword",
    replacement: PreTrainedTokenizerBase | None = None,
    min_count: int = 5,
    seed: int = 0,
    pairs: Texts | None = None,
    against: str = "en",
    vectors: str | Path | None = None,
    progress: bool = False,
) -> VocabularyPack:
    """A vocabulary of a text's languages in the place of the model's, for the kinds that `extend_vocabulary` takes.

    A tokenizer of the same kind is trained on the text. Special, added and byte tokens stay, and so do the tokens that
    the settings of the model and of its generation name, the chat template, and how text is normalised and cut into
    words. An entry that both vocabularies have gets its row, bit for bit; the others begin as `init` says. Rows that
    pad the model's tables stay behind the last entry. The model is not changed: `pack.applied(model)` does that.

    size: entries in all; None takes as many as the text gives, at most as many as the model has.
    init: as in `extend_vocabulary`; "merge" needs merges, so not a Unigram.
    replacement: a finished tokenizer of the same kind; the text is then what rows are worked out from.
    min_count: how often a pair, or a letter, must come to be an entry. seed: of what is drawn.
    pairs, against, vectors: as in `extend_vocabulary`.
    Raises PrerequisiteError as `extend_vocabulary`, and for a replacement of another kind or without the special
    tokens; CorpusError for text without a word; MeasurementError for a size that cannot be, and an unknown init.
    Source: Dobler and de Melo 2023, arXiv:2305.14481.
    """
    check_init(init)
    if min_count < 1 or (size is not None and size < 1):
        raise MeasurementError(f"size {size}, min_count {min_count} came; expected 1 or more of both")
    if replacement is not None and size is not None:
        raise MeasurementError(f"size {size} and a finished replacement came; expected one of them; leave out the size")
    check_none_applied(model, "replacing")
    form, corpus = TokenizerForm.of(tokenizer), as_corpus(texts)
    translations, vector_file = check_pairs(init, pairs, against, corpus), check_vectors(init, vectors)
    if init == "merge" and form.model["type"] == "Unigram":
        raise MeasurementError("init 'merge' came for a Unigram, whose entries join no two; expected another init")
    rows, count = token_tables(model).rows, len(form.ids)
    if max(form.entries) != count - 1 or count > rows:
        raise PrerequisiteError(
            f"{count} entries with ids up to {max(form.entries)}, and {rows} rows came; expected a row for each, and "
            "no gap between ids; resize the model's embeddings"
        )
    named_ids = {index for index in ids_named_by(model) if index < count}
    if replacement is None:
        stay = form.indispensable(tokenizer) | named_ids
        successor = train_form(form, tokenizer, corpus, stay, size=size, min_count=min_count)
    else:
        successor = TokenizerForm.of(replacement)
        check_same_kind(form, successor, named_ids | {token["id"] for token in form.state["added_tokens"]})
    new = replaced_entries(tokenizer, form, successor, corpus, rows=rows, min_count=min_count)
    return pack_of(
        model, new, "replace", init, translations=translations, vectors=vector_file, seed=seed, progress=progress
    )


def check_same_kind(form: TokenizerForm, successor: TokenizerForm, named_ids: set[int]) -> None:
    """Raise PrerequisiteError unless a finished tokenizer writes entries as the model's does and has those named."""
    kinds = [(side.model["type"], side.byte_level, side.byte_fallback) for side in (form, successor)]
    if kinds[0] != kinds[1]:
        names = [
            f"{kind}{', byte-level' if level else ''}{', with byte fallback' if back else ''}"
            for kind, level, back in kinds
        ]
        raise PrerequisiteError(
            f"a replacement of the kind {names[1]} came for a tokenizer of the kind {names[0]}; expected the same, "
            "so that equal entries are spelt alike; give another replacement, or a text alone"
        )
    lacking = sorted(form.entries[index] for index in named_ids if form.entries[index] not in successor.ids)
    if lacking:
        raise PrerequisiteError(
            f"a replacement without {lacking[0]!r} came ({len(lacking)} special, added or named tokens are absent); "
            "expected all that the model's tokenizer and settings name; add them to the replacement"
        )
    if max(successor.entries) != len(successor.ids) - 1:
        raise PrerequisiteError(
            f"a replacement of {len(successor.ids)} entries with ids up to {max(successor.entries)} came; expected no "
            "gap between ids; give another replacement"
        )


def replaced_entries(
    tokenizer: PreTrainedTokenizerBase,
    form: TokenizerForm,
    successor: TokenizerForm,
    corpus: Corpus,
    *,
    rows: int,
    min_count: int,
) -> NewEntries:
    """What rows of another vocabulary can be worked out from, and how many tokens the text takes in both.

    rows: of the model's tables.
    """
    copied = [form.ids.get(successor.entries[index], -1) for index in range(len(successor.entries))]
    successor_tokenizer = successor.open("replaced tokenizer")
    tokens = [sum(count_tokens_of(reader, corpus).values()) for reader in (tokenizer, successor_tokenizer)]
    pairs: dict[str, Pair] = {}
    for left, right in successor.merges:
        pairs.setdefault(left + right, (left, right))
    shared = sum(index >= 0 for index in copied)
    return NewEntries(
        tokenizer=tokenizer,
        form=form,
        successor=successor_tokenizer,
        successor_form=successor,
        source=torch.tensor([*copied, *range(len(form.ids), rows)]),
        pairs=pairs,
        corpus=corpus,
        learning={"size": len(copied), "shared": shared, "min_count": min_count, "tokens": tokens},
    )
