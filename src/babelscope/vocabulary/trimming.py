"""Leave out the entries of a vocabulary that some languages do not use."""

from collections import Counter
from collections.abc import Iterable

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.corpus import Corpus, Texts, as_corpus, encode_texts
from babelscope.errors import CorpusError, MeasurementError, refuse_one_text
from babelscope.models import origin_of
from babelscope.models.plain import CausalModel
from babelscope.vocabulary.entry_closure import EntryClosure, with_entries_only
from babelscope.vocabulary.pack import VocabularyPack
from babelscope.vocabulary.token_tables import check_none_applied, ids_named_by, token_tables
from babelscope.vocabulary.tokenizer_form import TokenizerForm, encoded_in_parts


def trim_vocabulary(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    min_count: int = 1,
    size: int | None = None,
    also: Iterable[str] = (),
) -> VocabularyPack:
    """The part of a vocabulary that some languages use, for byte-level BPE, BPE with byte fallback, and Unigram.

    Of the text's tokens those are chosen that occur `min_count` times, the most frequent first, until there are `size`
    entries. With them stay the entries that they are formed from by merges, special and added tokens, bytes (single
    characters in a tokenizer without bytes), the tokens that the settings of the model and of its generation name, and
    those of the text `also`. Entries are numbered anew in the order that they had.

    Text whose tokens all stay is cut into the same tokens, and the model's states and their logits are the same:
    probabilities are those of before, divided by the mass that the chosen entries had. Other text is cut into smaller
    tokens. The model is not changed: `pack.applied(model)` does that.

    size: None sets no limit. also: texts whose tokens stay whatever their count, such as prompts.
    Raises PrerequisiteError for a slow tokenizer, one of another kind, or without all bytes; MeasurementError for a
    size below the entries that stay in any case; CorpusError for text without a token.
    Source: Ushio et al. 2023, arXiv:2305.15020, for encoders; the closure under merges is this library's.
    """
    if min_count < 1:
        raise MeasurementError(f"min_count {min_count} came; expected 1 or more")
    refuse_one_text(also, "also", MeasurementError)
    corpus, form = as_corpus(texts), TokenizerForm.of(tokenizer)
    check_none_applied(model, "trimming")
    tables = token_tables(model)
    closure = EntryClosure(form)
    counts = count_tokens_of(tokenizer, corpus)
    chosen = {index for index in form.indispensable(tokenizer) | ids_named_by(model) if index < tables.rows}
    for encoding in encode_texts(tokenizer, list(also)):
        chosen = chosen.union(*(closure.of(index) for index in encoding.ids))
    if size is not None and size < len(chosen):
        raise MeasurementError(
            f"size {size} came; {len(chosen)} entries stay in any case (special and added tokens, bytes, and "
            f"those named by settings or asked for); expected {len(chosen)} or more, or no size"
        )
    chosen = most_frequent(counts, chosen, closure, min_count=min_count, size=size)
    ids = sorted(chosen)
    trimmed = with_entries_only(form, ids).open("trimmed tokenizer")
    return VocabularyPack(
        origin=origin_of(model, tokenizer),
        languages=tuple(corpus),
        operation="trim",
        tokenizer=trimmed,
        base_rows=tables.rows,
        source=torch.tensor(ids),
        rows=torch.zeros(0, tables.embedding.weight.shape[1]),
        head_rows=None if tables.tied else torch.zeros(0, tables.embedding.weight.shape[1]),
        head_bias=None if tables.bias is None else torch.zeros(0),
        parameters={"min_count": min_count, "size": size, "text": corpus.hash, "tokens_counted": sum(counts.values())},
    )


def count_tokens_of(tokenizer: PreTrainedTokenizerBase, corpus: Corpus) -> Counter[int]:
    """How often each id occurs in the text; raises CorpusError where none does."""
    counts = Counter(index for encoding in encoded_in_parts(tokenizer, corpus) for index in encoding.ids)
    if not counts:
        raise CorpusError(f"{corpus.name}: its text has no token; expected text of the languages to serve; add some")
    return counts


def most_frequent(
    counts: Counter[int], chosen: set[int], closure: EntryClosure, *, min_count: int, size: int | None
) -> set[int]:
    """Add to the chosen entries the most frequent ones, each with those it is formed from, while there is room."""
    chosen = set(chosen)
    for index, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        if count < min_count:
            break
        more = closure.of(index) - chosen
        if size is not None and len(chosen) + len(more) > size:
            break
        chosen |= more
    return chosen
