"""Text with language labels, and its way into token batches: documents → tokens → batches.

A document is one line of a text file or one row of a jsonl file or data set; it gets BOS once where the tokenizer has
one, and never shares attention with another.

Here: reading, splitting, rendering and encoding text, up to batches; what a language is, is in `languages`.
Imports: files, languages, reference, upstream.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.corpus.batches import Batch, batch_documents, make_batch, numbered, pad_rows
    from babelscope.corpus.changed import ROMANISABLE, romanise, shuffle_words
    from babelscope.corpus.chat import RenderedChat, check_template, end_of_turn, render_chat, render_whole, rendered
    from babelscope.corpus.conversations import as_conversations, check_conversations, tokenize_conversation
    from babelscope.corpus.documents import (
        Corpus,
        Document,
        LineNumber,
        Texts,
        TextSource,
        as_corpus,
        as_parallel,
        clean_text,
        shard_of,
        tenth_of,
    )
    from babelscope.corpus.encoding import (
        EncodedText,
        begin_text,
        check_unicode,
        encode_texts,
        pad_of,
        prefix_of,
        row_start,
        say_controls,
        special_ids,
        tokenize_prompt,
        tokenize_prompts,
    )
    from babelscope.corpus.file_lines import COMPRESSED, raw_lines, text_lines
    from babelscope.corpus.messages import Conversation, Counted, Message, Messages, as_messages, asked, check_counted
    from babelscope.corpus.mixed import MixUnit, join_pairs, mix_languages
    from babelscope.corpus.reading import has_splits, load_corpus, load_splits
    from babelscope.corpus.splits import SPLITS, WHOLE, check_apart, check_unseen, deal_out, split_documents
    from babelscope.corpus.text_files import check_plain
    from babelscope.corpus.tokens import (
        TokenDocument,
        expected_tokens,
        limit_tokens,
        say_cut,
        token_windows,
        tokenize_documents,
    )

__all__ = [
    "Batch",
    "COMPRESSED",
    "Conversation",
    "Corpus",
    "Counted",
    "Document",
    "EncodedText",
    "LineNumber",
    "MixUnit",
    "Message",
    "Messages",
    "ROMANISABLE",
    "RenderedChat",
    "SPLITS",
    "TextSource",
    "Texts",
    "TokenDocument",
    "WHOLE",
    "as_conversations",
    "as_corpus",
    "as_messages",
    "as_parallel",
    "asked",
    "batch_documents",
    "begin_text",
    "prefix_of",
    "row_start",
    "check_apart",
    "check_conversations",
    "check_counted",
    "check_plain",
    "check_template",
    "check_unicode",
    "check_unseen",
    "clean_text",
    "deal_out",
    "encode_texts",
    "expected_tokens",
    "end_of_turn",
    "has_splits",
    "limit_tokens",
    "load_corpus",
    "load_splits",
    "make_batch",
    "join_pairs",
    "mix_languages",
    "numbered",
    "pad_of",
    "pad_rows",
    "raw_lines",
    "render_chat",
    "render_whole",
    "rendered",
    "romanise",
    "say_controls",
    "say_cut",
    "shard_of",
    "tenth_of",
    "shuffle_words",
    "special_ids",
    "split_documents",
    "text_lines",
    "tokenize_conversation",
    "token_windows",
    "tokenize_documents",
    "tokenize_prompt",
    "tokenize_prompts",
]

__getattr__, __dir__ = lazy_names(__name__)
