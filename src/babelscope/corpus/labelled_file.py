"""Text of several languages in one file, whose rows name their language."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from babelscope.corpus.conversations import as_conversation
from babelscope.corpus.documents import Document
from babelscope.corpus.messages import Counted
from babelscope.corpus.table_rows import file_rows
from babelscope.corpus.text_files import FIELDS, row_document, unread_row
from babelscope.errors import CorpusError, LanguageError
from babelscope.languages import Language, parse_languages

COLUMNS = ("language", "lang")
"""Names of the field with a row's tag."""
FORM = "rows with language and text"


def read_labelled_file(
    path: Path, languages: Iterable[str] | None, conversation: Counted | None
) -> dict[Language, tuple[Document, ...]]:
    """Documents by language of one .jsonl, .csv or .tsv file; the n-th row of a language has the number n.

    languages: those to read, in which order; rows of others are passed over. None means all that are there, by their
    tags, and then a tag that is none is refused.
    Raises CorpusError for a row without text, a language that has no row, and rows that name splits, which are not
    read; LanguageError for an unknown tag.
    """
    tags = None if languages is None else parse_languages(languages)
    documents: dict[Language, list[Document]] = {}
    passed_over: set[str] = set()
    for where, row in file_rows(path):
        name = _row_tag(row, where)
        try:
            tag = Language.parse(name)
        except LanguageError as err:
            if tags is None:
                raise LanguageError(f"{where}: {err}") from err
            passed_over.add(name)
            continue
        if tags is not None and tag not in tags:
            passed_over.add(tag)
            continue
        of_language = documents.setdefault(tag, [])
        of_language.append(_row_text(row, len(of_language), where, conversation))
    if not documents and not passed_over:
        raise CorpusError(f"{path}: holds no row; expected {FORM}; fill it")
    tags = tuple(sorted(documents)) if tags is None else tags
    if missing := [tag for tag in tags if tag not in documents]:
        present = ", ".join(sorted({*documents, *passed_over}))
        raise CorpusError(
            f"{path}: no row of {', '.join(missing)}; expected rows of it beside those of {present}; add them or "
            "leave the language out"
        )
    texts = {tag: tuple(document for document in documents[tag] if document.text.strip()) for tag in tags}
    if empty := [tag for tag, rows in texts.items() if not rows]:
        raise CorpusError(f"{path}: all rows of {', '.join(empty)} are blank; expected text; fill them")
    return texts


def _row_tag(row: Mapping[str, Any], where: str) -> str:
    """What a row names as its language."""
    columns = [column for column in COLUMNS if column in row]
    if not columns:
        raise CorpusError(
            f"{where}: no field language among {', '.join(map(repr, row)) or 'none'}; expected {FORM}; add or "
            "rename the column, or give a folder with the text of each language in <tag>.txt or <tag>.jsonl"
        )
    if len(columns) == 2:
        raise CorpusError(f"{where}: both language and lang came; expected one of them; remove one")
    if "split" in row:
        raise CorpusError(
            f"{where}: a field split came, which is not read; expected rows without one, which are dealt out; "
            "leave the field out, or write folders train, valid and test with a file for each language"
        )
    tag = row[columns[0]]
    if not isinstance(tag, str):
        raise CorpusError(f"{where}: {columns[0]} is {type(tag).__name__}; expected a tag such as 'fi'; correct it")
    return tag


def _row_text(row: Mapping[str, Any], number: int, where: str, conversation: Counted | None) -> Document:
    """The document of a row, or its conversation."""
    if conversation is not None:
        return as_conversation(row, number, where, conversation)
    document = row_document(row, number, where)
    if document is None:
        texts = [name for name, value in row.items() if isinstance(value, str) and name not in (*COLUMNS, "id")]
        advice = "correct it" if len(texts) != 1 else f"rename the field {texts[0]!r} to text"
        if "messages" in row:
            advice = "say --conversation (whose words count)"
        reason = f" ({unread_row(row)})" if any(name in row for name in FIELDS) else ""
        raise CorpusError(
            f"{where}: no text in the fields {', '.join(map(repr, row))}{reason}; expected {FORM}, or with prompt "
            f"and answer; {advice}"
        )
    return document
