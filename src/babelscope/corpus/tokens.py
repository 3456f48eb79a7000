"""Documents as tokens, and what of them counts."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from babelscope.corpus.conversations import counted_bytes, tokenize_conversation
from babelscope.corpus.documents import Corpus, Document
from babelscope.corpus.encoding import EncodedText, begin_text, encode_texts, prefix_of, say_controls, special_ids
from babelscope.errors import PrerequisiteError
from babelscope.languages import Language

log = logging.getLogger(__name__)
WINDOW = 1024
"""Documents tokenized at a time: memory does not grow with the corpus."""
ASKED = 20
"""Documents of a language, or up to twice as many, by which an estimate is made."""


@dataclass(frozen=True)
class TokenDocument:
    """A document as tokens, with what of it counts."""

    language: int
    """Place in the corpus's order of languages."""
    id: str
    tokens: tuple[int, ...]
    """What begins a text first, where the tokenizer puts anything there (`prefix_of`)."""
    counted: tuple[bool, ...]
    """False for special tokens, those that begin the text among them, and for tokens past the language's budget."""
    truncated: int
    """Tokens dropped past `max_length`."""
    n_bytes: int
    """UTF-8 bytes of the whole text."""
    controls: int = 0
    """Control tokens that are spelt in the text and stayed text."""
    taught: tuple[bool, ...] | None = None
    """Of a conversation, what training takes the loss on: the words that count, and the token that ends each answer."""

    @property
    def n_counted(self) -> int:
        """Tokens that count."""
        return sum(self.counted)


def tokenize_documents(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Document],
    language: int,
    *,
    max_length: int,
    rendered: bool = False,
    name: str | None = "documents",
) -> list[TokenDocument]:
    """Tokens of each document: what begins a text once, control tokens never counted, nothing added at the end.

    A conversation is rendered by the model's chat template, and the words of its roles that count are counted. After a
    prompt, tokens count all of whose characters are the answer's.
    Control tokens that are spelt in a text stay text and count; a line in the log says so.
    rendered: the texts were written by a chat template, whose control tokens are meant; they do not count.
    name: what the texts are, for that line; None for a caller that says it itself.
    Raises CorpusError for half a surrogate pair, and for a tokenizer that cannot read control tokens as text.
    """
    special, prefix, documents = special_ids(tokenizer), prefix_of(tokenizer), []
    plain = [(text.prompt or "") + text.text for text in texts if text.conversation is None]
    encoded = encode_texts(tokenizer, plain, rendered=rendered)
    if name is not None:
        say_controls([encoded_text.controls for encoded_text in encoded], name)
    following = iter(encoded)
    for text in texts:
        if text.conversation is not None:
            documents.append(conversation_document(tokenizer, text, language, max_length))
            continue
        encoded_text = next(following)
        ids = begin_text(prefix, encoded_text.ids, rendered=rendered)
        before, n_bytes = len(ids) - len(encoded_text.ids), len(text.text.encode())
        counts = [token not in special for token in ids]
        if text.prompt is not None:
            answers, n_bytes = tokens_of_answer(tokenizer, text, encoded_text)
            counts = [a and b for a, b in zip(counts, [*(False for _ in range(before)), *answers], strict=True)]
        documents.append(
            TokenDocument(
                language=language,
                id=text.id,
                tokens=tuple(ids[:max_length]),
                counted=tuple(counts[:max_length]),
                truncated=max(0, len(ids) - max_length),
                n_bytes=n_bytes,
                controls=len(encoded_text.controls),
            )
        )
    return documents


def tokens_of_answer(
    tokenizer: PreTrainedTokenizerBase, text: Document, encoded_text: EncodedText
) -> tuple[list[bool], int]:
    """Which tokens of a prompt with its answer lie in the answer alone, and the UTF-8 bytes that they stand for."""
    if encoded_text.encoding is None:
        raise PrerequisiteError(
            f"{type(tokenizer).__name__} does not say which characters a token stands for; expected a tokenizer of the "
            "`tokenizers` library for prompts with answers; convert it"
        )
    prompt, offsets = text.prompt or "", encoded_text.encoding.offsets
    within = [start >= len(prompt) for start, _ in offsets]
    return within, counted_bytes(prompt + text.text, offsets, within)


def conversation_document(
    tokenizer: PreTrainedTokenizerBase, text: Document, language: int, max_length: int
) -> TokenDocument:
    """A conversation as tokens; `truncated` says what is past `max_length`."""
    assert text.conversation is not None
    talk = tokenize_conversation(tokenizer, text.conversation)
    return TokenDocument(
        language=language,
        id=text.id,
        tokens=talk.ids[:max_length],
        counted=talk.counted[:max_length],
        truncated=max(0, len(talk.ids) - max_length),
        n_bytes=talk.n_bytes,
        controls=talk.controls,
        taught=talk.taught[:max_length],
    )


def say_cut(documents: Sequence[TokenDocument], name: str, max_length: int) -> None:
    """One line in the log where conversations are longer than they may be: cutting one takes away an answer."""
    cut = [document.truncated for document in documents if document.taught is not None and document.truncated]
    if cut:
        log.warning(
            "%s: %d tokens of %d conversations are past max_length %d and are left out; raise it to keep them",
            name,
            sum(cut),
            len(cut),
            max_length,
        )


def limit_tokens(documents: Sequence[TokenDocument], limit: int | None) -> list[TokenDocument]:
    """The first documents that hold exactly `limit` counted tokens, the last one cut; all where there are fewer."""
    limited, room = [], limit
    for document in documents:
        if room is not None and room <= 0:
            break
        if room is not None and document.n_counted > room:
            document = cut_document(document, room)
        if document.n_counted:
            limited.append(document)
        if room is not None:
            room -= document.n_counted
    return limited


def cut_document(document: TokenDocument, room: int) -> TokenDocument:
    """The shortest beginning of a document that holds `room` counted tokens."""
    n_counted = 0
    for end, is_counted in enumerate(document.counted, start=1):
        n_counted += is_counted
        if n_counted == room:
            taught = None if document.taught is None else document.taught[:end]
            return replace(document, tokens=document.tokens[:end], counted=document.counted[:end], taught=taught)
    return document


def token_windows(
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    tokens_per_language: int | None,
    max_length: int,
    name: str | None = "documents",
) -> Iterator[list[TokenDocument]]:
    """The documents of a corpus as tokens: one language after the other, at most 1,024 documents at a time.

    tokens_per_language: counted tokens, met exactly where there is enough text; None reads all of it.
    name: as in `tokenize_documents`.
    """
    for k, documents in enumerate(corpus.values()):
        tokens_left = tokens_per_language
        for start in range(0, len(documents), WINDOW):
            if tokens_left is not None and tokens_left <= 0:
                break
            window = documents[start : start + WINDOW]
            tokens = limit_tokens(
                tokenize_documents(tokenizer, window, k, max_length=max_length, name=name), tokens_left
            )
            tokens_left = None if tokens_left is None else tokens_left - sum(document.n_counted for document in tokens)
            yield tokens


def expected_tokens(
    tokenizer: PreTrainedTokenizerBase, corpus: Corpus, *, max_length: int, most: int | None = None
) -> dict[Language, int]:
    """About how many tokens of each language would count, by some of its documents; `most` a language at most."""
    tokens = {}
    for place, (tag, documents) in enumerate(corpus.items()):
        sample = documents[:: max(1, len(documents) // ASKED)]  # all over the text: files are often sorted
        read = tokenize_documents(tokenizer, sample, place, max_length=max_length, name=None)
        expected = round(sum(document.n_counted for document in read) / max(1, len(sample)) * len(documents))
        tokens[tag] = expected if most is None else min(most, expected)
    return tokens
