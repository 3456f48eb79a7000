"""Documents as tokens, and what of them counts."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from babelscope.corpus.conversations import counted_bytes, tokenize_conversation
from babelscope.corpus.documents import Corpus, Document
from babelscope.corpus.encoding import EncodedText, begin_text, encode_texts, prefix_of, say_controls, special_ids
from babelscope.errors import CorpusError, PrerequisiteError
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
    torn: int = 0
    """Of a prompt with its answer, tokens that hold the end of the one and the start of the other; none counts."""

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
    name: what the texts are, for that line and for one on torn tokens; None for a caller that says it itself.
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
        before, n_bytes, torn = len(ids) - len(encoded_text.ids), len(text.text.encode()), 0
        counts = [token not in special for token in ids]
        if text.prompt is not None:
            answers, n_bytes, torn = tokens_of_answer(tokenizer, text, encoded_text)
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
                torn=torn,
            )
        )
    if name is not None:
        say_torn([document.torn for document in documents], name)
    return documents


def tokens_of_answer(
    tokenizer: PreTrainedTokenizerBase, text: Document, encoded_text: EncodedText
) -> tuple[list[bool], int, int]:
    """Which tokens of a prompt with its answer lie in the answer alone, their UTF-8 bytes, and how many lie in both."""
    if encoded_text.encoding is None:
        raise PrerequisiteError(
            f"{type(tokenizer).__name__} does not say which characters a token stands for; expected a tokenizer of the "
            "`tokenizers` library for prompts with answers; convert it"
        )
    prompt, offsets = text.prompt or "", encoded_text.encoding.offsets
    within = [start >= len(prompt) for start, _ in offsets]
    torn = sum(start < len(prompt) < end for start, end in offsets)
    return within, counted_bytes(prompt + text.text, offsets, within), torn


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


def say_torn(torn: Sequence[int], name: str) -> None:
    """One line in the log where tokens hold the end of a prompt and the start of its answer: how many in each text."""
    if any(torn):
        log.warning(
            "%s: %d tokens of %d prompts with answers hold the end of the prompt and the start of the answer; they do "
            "not count; begin answers with a space or a new line to count them",
            name,
            sum(torn),
            sum(number > 0 for number in torn),
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
    return [document for document in documents_within(documents, limit) if document.n_counted]


def documents_within(documents: Iterable[TokenDocument], limit: int | None) -> Iterator[TokenDocument]:
    """As `limit_tokens`, with those of which nothing counts."""
    room = limit
    for document in documents:
        if room is not None and room <= 0:
            return
        if room is not None and document.n_counted > room:
            document = cut_document(document, room)
        yield document
        if room is not None:
            room -= document.n_counted


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
    name: as in `tokenize_documents`; with None, torn tokens are still said, once for each language.
    Raises CorpusError, before the first of them, for a language of which nothing counts.
    """
    check_counts(tokenizer, corpus, max_length=max_length)
    for k, (tag, documents) in enumerate(corpus.items()):
        tokens_left, torn = tokens_per_language, []
        for start in range(0, len(documents), WINDOW):
            if tokens_left is not None and tokens_left <= 0:
                break
            window = documents[start : start + WINDOW]
            read = tokenize_documents(tokenizer, window, k, max_length=max_length, name=name)
            within = list(documents_within(read, tokens_left))
            tokens_left = None if tokens_left is None else tokens_left - sum(document.n_counted for document in within)
            torn += [document.torn for document in within if document.torn]
            yield [document for document in within if document.n_counted]
        if name is None:
            say_torn(torn, f"{corpus.name}, {tag}")


def check_counts(tokenizer: PreTrainedTokenizerBase, corpus: Corpus, *, max_length: int) -> None:
    """Raise CorpusError for a language of whose documents no token counts; they are read up to the first that has some.

    A language without documents is not asked.
    """
    for tag, documents in corpus.items():
        n_torn = n_cut = n_counted = start = 0
        while start < len(documents) and not n_counted:
            part = documents[start : start + ASKED]
            read = tokenize_documents(tokenizer, part, 0, max_length=max_length, name=None)
            n_counted = sum(document.n_counted for document in read)
            n_torn += sum(document.torn for document in read)
            n_cut += sum(document.truncated for document in read)
            start += ASKED
        if documents and not n_counted:
            raise CorpusError(f"{corpus.name}: no token of {tag} counts{why_none(n_torn, n_cut, max_length)}")


def why_none(n_torn: int, n_cut: int, max_length: int) -> str:
    """Why nothing of a text counts, as far as it is known, and the ways out."""
    reasons, ways = [], []
    if n_torn:
        reasons.append(f"{n_torn} tokens hold the end of a prompt and the start of its answer")
        ways.append("begin answers with a space or a new line")
    if n_cut:
        reasons.append(f"{n_cut} are past max_length {max_length}")
        ways.append("raise max_length")
    because = f" ({', '.join(reasons)})" if reasons else ""
    return f"{because}; expected text that counts; {' or '.join([*ways, 'leave the language out'])}"


def expected_tokens(
    tokenizer: PreTrainedTokenizerBase, corpus: Corpus, *, max_length: int, most: int | None = None
) -> dict[Language, int]:
    """About how many tokens of each language would count, by some of its documents; `most` a language at most."""
    check_counts(tokenizer, corpus, max_length=max_length)
    tokens = {}
    for place, (tag, documents) in enumerate(corpus.items()):
        sample = documents[:: max(1, len(documents) // ASKED)]  # all over the text: files are often sorted
        read = tokenize_documents(tokenizer, sample, place, max_length=max_length, name=None)
        expected = round(sum(document.n_counted for document in read) / max(1, len(sample)) * len(documents))
        tokens[tag] = expected if most is None else min(most, expected)
    return tokens
