"""Documents as tokens, and what of them counts."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from babelscope.corpus.documents import Document


@dataclass(frozen=True)
class TokenDocument:
    """A document as tokens, with what of it counts."""

    language: int
    """Place in the corpus's order of languages."""
    id: str
    tokens: tuple[int, ...]
    """BOS first where the tokenizer has one."""
    counted: tuple[bool, ...]
    """False for BOS and other special tokens, and for tokens past the language's budget."""
    truncated: int
    """Tokens dropped past `max_length`."""
    n_bytes: int
    """UTF-8 bytes of the whole text."""

    @property
    def n_counted(self) -> int:
        """Tokens that count."""
        return sum(self.counted)


def bos_of(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Id of the token that begins a text; None where the tokenizer has none."""
    found = tokenizer.bos_token_id
    return None if found is None else int(found)  # pyright: ignore[reportArgumentType]


def pad_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id that fills rows; 0 where the tokenizer names none: a filled place is never read."""
    return int(tokenizer.pad_token_id or 0)  # pyright: ignore[reportArgumentType]


def tokenize_documents(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Document], language: int, *, max_length: int
) -> list[TokenDocument]:
    """Tokens of each document: BOS once, special tokens never counted, nothing added at the end."""
    bos, special = bos_of(tokenizer), set(tokenizer.all_special_ids)
    encoded = tokenizer([text.text for text in texts], add_special_tokens=False)["input_ids"]
    documents = []
    for text, ids in zip(texts, encoded, strict=True):  # pyright: ignore[reportArgumentType]
        whole: list[int] = [*([] if bos is None else [bos]), *ids]  # pyright: ignore[reportAssignmentType]
        kept = whole[:max_length]
        counted = tuple(token not in special for token in kept)
        documents.append(
            TokenDocument(language, text.id, tuple(kept), counted, len(whole) - len(kept), len(text.text.encode()))
        )
    return documents


def limit_tokens(documents: Sequence[TokenDocument], limit: int | None) -> list[TokenDocument]:
    """The first documents that hold exactly `limit` counted tokens, the last one cut; all where there are fewer."""
    kept, room = [], limit
    for document in documents:
        if room is not None and room <= 0:
            break
        if room is not None and document.n_counted > room:
            document = cut_document(document, room)
        if document.n_counted:
            kept.append(document)
        if room is not None:
            room -= document.n_counted
    return kept


def cut_document(document: TokenDocument, room: int) -> TokenDocument:
    """The shortest beginning of a document that holds `room` counted tokens."""
    seen = 0
    for end, counted in enumerate(document.counted, start=1):
        seen += counted
        if seen == room:
            return TokenDocument(
                document.language,
                document.id,
                document.tokens[:end],
                document.counted[:end],
                document.truncated,
                document.n_bytes,
            )
    return document
