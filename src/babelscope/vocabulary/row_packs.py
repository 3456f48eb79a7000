"""The pack of a model and another tokenizer, with rows that begin in one of the ways."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from babelscope.models import origin_of
from babelscope.models.plain import CausalModel, plain_weight
from babelscope.vocabulary.distilled_rows import distilled
from babelscope.vocabulary.initial_rows import DISTILLED, INITS, TRANSLATED, NewEntries, rows_of
from babelscope.vocabulary.pack import VocabularyPack
from babelscope.vocabulary.token_tables import token_tables
from babelscope.vocabulary.translated_rows import PairedText, translated_rows


def pack_of(
    model: CausalModel,
    new: NewEntries,
    operation: str,
    init: str,
    *,
    translations: PairedText | None = None,
    vectors: Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> VocabularyPack:
    """The pack of a model and another tokenizer; operation: "extend" or "replace".

    Rows of an untied head are mixed by the same weights as those of the embeddings; elements of a bias are 0. Rows that
    are learnt begin with the mean of their sub-words. Rows that begin with translations need `translations`.
    vectors: a file of word vectors, for the ways that mix by them; None makes them from the text.
    """
    tables, account = token_tables(model), dict[str, Any]()
    new = replace(new, vector_file=vectors)
    if translations is None:
        begins = INITS["subword" if init in DISTILLED else init](new)
    else:
        begins, alignment = translated_rows(new, translations, shuffled=init == TRANSLATED[1], seed=seed)
        account = {"alignment": alignment}
    if vectors is not None:
        with_vector = {*new.vectors.ids.tolist()}
        account = {
            "vectors": {
                "file": vectors.name,
                "bytes": vectors.stat().st_size,
                "dimensions": new.vectors.values.shape[1],
                "new": len(with_vector.intersection(new.ids)),
                "own": len(with_vector.difference(new.ids)),
            }
        }
    generator = torch.Generator().manual_seed(seed)
    weights = [plain_weight(tables.embedding), *([] if tables.tied else [plain_weight(tables.head)])]
    rows = [rows_of(weight, begins, generator) for weight in weights]
    pack = VocabularyPack(
        origin=origin_of(model, new.tokenizer),
        languages=tuple(new.corpus),
        operation=operation,
        tokenizer=new.successor,
        base_rows=tables.rows,
        source=new.source,
        rows=rows[0],
        head_rows=None if tables.tied else rows[1],
        head_bias=None if tables.bias is None else torch.zeros(len(new.ids)),
        parameters={**new.learning, "init": init, "seed": seed, "text": new.corpus.hash, **account},
    )
    if init not in DISTILLED or not new.ids:
        return pack
    return distilled(model, new, pack, seed=seed, shuffled=init == DISTILLED[1], progress=progress)
