"""Text with language labels, and its way into token batches: documents → tokens → batches.

A document is one line of a text file or one row of a jsonl file or data set; it gets BOS once where the tokenizer has
one, and never shares attention with another.
"""

from babelscope.corpus.batches import Batch, batch_documents, make_batch
from babelscope.corpus.changed import ROMANISABLE, romanise, shuffle_words
from babelscope.corpus.documents import Corpus, Document, Texts, as_corpus, clean_text, shard_of
from babelscope.corpus.encoding import (
    EncodedText,
    begin_text,
    bos_of,
    encode_texts,
    pad_of,
    say_controls,
    special_ids,
    tokenize_prompt,
    tokenize_prompts,
)
from babelscope.corpus.reading import OPENERS, load_corpus
from babelscope.corpus.splits import split_documents
from babelscope.corpus.tokens import TokenDocument, limit_tokens, tokenize_documents

__all__ = [
    "OPENERS",
    "ROMANISABLE",
    "Batch",
    "Corpus",
    "Document",
    "EncodedText",
    "Texts",
    "TokenDocument",
    "as_corpus",
    "batch_documents",
    "begin_text",
    "bos_of",
    "clean_text",
    "encode_texts",
    "limit_tokens",
    "load_corpus",
    "make_batch",
    "pad_of",
    "romanise",
    "say_controls",
    "shard_of",
    "shuffle_words",
    "special_ids",
    "split_documents",
    "tokenize_documents",
    "tokenize_prompt",
    "tokenize_prompts",
]
