"""Text with language labels, and its way into token batches: documents → tokens → batches.

A document is one line of a text file or one row of a jsonl file or data set; it gets BOS once where the tokenizer has
one, and never shares attention with another.
"""

from babelscope.corpus.batches import Batch, batch_documents, make_batch, pad_rows
from babelscope.corpus.changed import ROMANISABLE, romanise, shuffle_words
from babelscope.corpus.chat import RenderedChat, check_template, end_of_turn, render_chat, render_whole
from babelscope.corpus.conversations import as_conversations, check_conversations, tokenize_conversation
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
from babelscope.corpus.messages import Conversation, Counted, Message, Messages, as_messages, asked, check_counted
from babelscope.corpus.reading import OPENERS, load_corpus
from babelscope.corpus.splits import split_documents
from babelscope.corpus.tokens import TokenDocument, limit_tokens, say_cut, tokenize_documents

__all__ = [
    "OPENERS",
    "ROMANISABLE",
    "Batch",
    "Conversation",
    "Corpus",
    "Counted",
    "Document",
    "EncodedText",
    "Message",
    "Messages",
    "RenderedChat",
    "Texts",
    "TokenDocument",
    "as_conversations",
    "as_corpus",
    "as_messages",
    "asked",
    "batch_documents",
    "begin_text",
    "bos_of",
    "check_conversations",
    "check_counted",
    "check_template",
    "clean_text",
    "encode_texts",
    "end_of_turn",
    "limit_tokens",
    "load_corpus",
    "make_batch",
    "pad_of",
    "pad_rows",
    "render_chat",
    "render_whole",
    "romanise",
    "say_controls",
    "say_cut",
    "shard_of",
    "shuffle_words",
    "special_ids",
    "split_documents",
    "tokenize_conversation",
    "tokenize_documents",
    "tokenize_prompt",
    "tokenize_prompts",
]
