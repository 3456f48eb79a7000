"""Conversations as documents: rows of messages by language, and which of their tokens count.

A token counts where all its characters are words of a message whose role counts. What the template writes itself (role
names, a system prompt of its own, control tokens) never does.
"""

import logging
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.corpus.chat import RenderedChat, check_template, render_whole
from babelscope.corpus.documents import Corpus, Document, id_of
from babelscope.corpus.encoding import special_ids
from babelscope.corpus.messages import (
    FORM,
    ROLES,
    Conversation,
    Counted,
    Message,
    as_messages,
    check_counted,
    counts,
)
from babelscope.corpus.template_bounds import within_bounds
from babelscope.errors import ChatError, PrerequisiteError
from babelscope.files.strict_json import parse_json

log = logging.getLogger(__name__)
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""How a template marks what the assistant writes."""


class ConversationTokens(NamedTuple):
    """A conversation as tokens."""

    ids: tuple[int, ...]
    """The template's own."""
    counted: tuple[bool, ...]
    """Words that count."""
    taught: tuple[bool, ...]
    """What training takes the loss on: the words that count, and for answers the control token that ends each."""
    n_bytes: int
    """UTF-8 bytes of the words that count."""
    torn: int
    """Tokens that hold both words that count and something else; they are not counted."""
    controls: int
    """Control tokens typed into messages, which stayed text."""


def as_conversations(corpus: Corpus, *, counted: Counted = "user", system: str | None = None) -> Corpus:
    """The same corpus with every plain document as a user's message; conversations stay what they are.

    A prompt with its answer becomes the user's message and the assistant's.

    counted: of what is made here. system: a system prompt for these.
    """
    before = () if system is None else as_messages([Message("system", system)], "system prompt")

    def put(document: Document) -> Document:
        if document.conversation is not None:
            return document
        words = [document.text] if document.prompt is None else [document.prompt, document.text]
        turns = [Message(role, text) for role, text in zip(("user", "assistant"), words, strict=False)]
        talk = Conversation((*before, *turns), counted)
        return Document(document.id, document.text, talk)

    return corpus.derived({tag: tuple(map(put, texts)) for tag, texts in corpus.items()}, f"{corpus.name}, as messages")


def parse_conversation(line: str, number: int, where: Any, counted: str) -> Document:
    """A line of a jsonl file as a conversation; raises ChatError if it is none."""
    row = parse_json(
        line,
        f"{where}, line {number + 1}",
        error=ChatError,
        advice=f"expected {FORM}; correct the line",
    )
    return as_conversation(row, number, f"{where}, line {number + 1}", counted)


def as_conversation(row: Any, number: int, place: str, counted: str) -> Document:
    """A row `{"messages": […]}`, which may have an `id`, or the list alone, as a document.

    Raises ChatError for anything else, and for a row without a message of a role that counts.
    """
    choice = check_counted(counted)
    talk = Conversation(as_messages(row, place), choice)
    roles = [message.role for message in talk.messages]
    if not any(counts(role, choice) for role in roles):
        raise ChatError(
            f"{place}: no message of the {ROLES[choice][0]}, whose words are to count (roles: {', '.join(roles)}); "
            "expected one; leave the row out or count others"
        )
    return Document(id_of(row, number), talk.text, talk)


def tokenize_conversation(tokenizer: PreTrainedTokenizerBase, talk: Conversation) -> ConversationTokens:
    """Ids of a conversation by the model's own template, and which of them count.

    Where the template itself marks what the assistant writes (`{% generation %}`), its word on answers is taken.
    Raises ChatError where the template rewrites the words, so that they cannot be told from its own, and
    PrerequisiteError for a tokenizer that does not say which characters a token stands for.
    """
    chat = render_whole(tokenizer, talk.messages)
    if not chat.spans:
        raise ChatError(
            "the model's chat template rewrites messages, so that words cannot be told from its own text; expected a "
            "template that writes them as they are; rewrite the messages, or set tokenizer.chat_template"
        )
    if chat.offsets is None:
        raise PrerequisiteError(
            f"{type(tokenizer).__name__} does not say which characters a token stands for; expected a tokenizer of the "
            "`tokenizers` library; convert it"
        )
    special = special_ids(tokenizer)
    counted_spans = [
        (span.start, span.end) for span in chat.spans if counts(talk.messages[span.message].role, talk.counted)
    ]
    is_inside, torn = _inside(chat, counted_spans)
    counted = [is_in and token not in special for is_in, token in zip(is_inside, chat.ids, strict=True)]
    taught = list(counted)
    if talk.counted == "answer":
        marked = assistant_mask(tokenizer, talk.messages, chat)
        if marked is not None:
            counted = [a and b for a, b in zip(counted, marked, strict=True)]
            taught = [a and not b for a, b in zip(marked, torn, strict=True)]
        else:
            taught = _with_ends(chat, counted_spans, counted, special)
    n_bytes = counted_bytes(chat.text, chat.offsets, counted)
    return ConversationTokens(chat.ids, tuple(counted), tuple(taught), n_bytes, sum(torn), chat.typed)


def _inside(chat: RenderedChat, spans: Sequence[tuple[int, int]]) -> tuple[list[bool], list[bool]]:
    """For each token whether all its characters are in one of the spans, and whether only some of them are."""
    is_inside, torn = [], []
    for start, end in chat.offsets or ():
        within = any(first <= start < end <= last for first, last in spans)
        is_inside.append(within)
        torn.append(not within and any(start < last and first < end for first, last in spans))
    return is_inside, torn


def _with_ends(
    chat: RenderedChat, spans: Sequence[tuple[int, int]], counted: Sequence[bool], special: frozenset[int]
) -> list[bool]:
    """The counted tokens, and the control token right behind each span: the model is to learn to stop."""
    ends = {end for _, end in spans}
    return [
        is_in or (token in special and start in ends)
        for is_in, token, (start, _) in zip(counted, chat.ids, chat.offsets or (), strict=True)
    ]


def counted_bytes(text: str, offsets: Sequence[tuple[int, int]], counted: Sequence[bool]) -> int:
    """UTF-8 bytes of the characters that counted tokens stand for, each once: a character may be several tokens."""
    size, place = 0, 0
    for (start, end), is_in in zip(offsets, counted, strict=True):
        if is_in and end > place:
            size += len(text[max(start, place) : end].encode())
            place = end
    return size


def assistant_mask(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], chat: RenderedChat
) -> tuple[bool, ...] | None:
    """What the template itself says the assistant writes; None where it does not say, or its ids are not ours."""
    template = tokenizer.chat_template
    text = template.get("default", "") if isinstance(template, dict) else template or ""
    if not GENERATION.search(text):
        return None
    run: Any = tokenizer.apply_chat_template
    rows = [message.as_dict() for message in messages]
    encoded = within_bounds(lambda: run(rows, tokenize=True, return_dict=True, return_assistant_tokens_mask=True))
    if tuple(encoded["input_ids"]) != chat.ids:
        return None
    return tuple(bool(mark) for mark in encoded["assistant_masks"])


def check_conversations(tokenizer: PreTrainedTokenizerBase, corpus: Corpus) -> None:
    """Raise ChatError, before the work, where the template is missing or cannot render some document.

    Every conversation is rendered; a line says how many tokens hold words and something else, and so do not count.
    """
    check_template(tokenizer)
    torn = documents = 0
    for tag, texts in corpus.items():
        for document in texts:
            if document.conversation is None:
                continue
            try:
                tokens = tokenize_conversation(tokenizer, document.conversation)
            except ChatError as err:
                raise ChatError(f"{corpus.name}, {tag}, document {document.id}: {err}") from err
            torn += tokens.torn
            documents += tokens.torn > 0
    if torn:
        log.warning(
            "%s: %d tokens of %d conversations hold words and text of the template; they do not count",
            corpus.name,
            torn,
            documents,
        )
