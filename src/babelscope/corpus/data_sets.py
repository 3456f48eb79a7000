"""Labelled text from a data set with one configuration a language, by the `datasets` library."""

from collections.abc import Iterable
from itertools import filterfalse
from typing import Any

from babelscope.corpus.conversations import as_conversation
from babelscope.corpus.documents import Corpus, Document, TextSource, is_blank
from babelscope.corpus.encoding import check_unicode
from babelscope.corpus.messages import Counted
from babelscope.corpus.splits import WHOLE, deal_out
from babelscope.corpus.text_files import ROW_FORM, row_document, unread_row
from babelscope.errors import CorpusError, first_line
from babelscope.languages import Language, parse_languages

NAMES = {"train": ("train",), "valid": ("valid", "validation", "dev"), "test": ("test",), WHOLE: ()}
"""What data sets call their splits."""


def load_dataset_corpus(
    name: str,
    label: str,
    languages: Iterable[str] | None,
    split: str,
    conversation: Counted | None,
    parallel: bool,
) -> Corpus:
    """One split of a data set; of one that has a single split, that one is dealt out by document.

    label: what the corpus is called in results. Only what was named is fetched.
    Raises CorpusError where the data set, the configuration or the split is not there, or a row has no text.
    """
    if languages is None:
        raise CorpusError(
            f"corpus {name!r}: no folder here, and no languages came for a data set of the hub; expected one of the "
            "two; check the path, or name the languages"
        )
    texts, single = {}, {}
    for tag in parse_languages(languages):
        splits, rows = split_rows(name, tag, split)
        documents = [
            checked_document(row, number, f"{name}, {tag}")
            if conversation is None
            else as_conversation(row, number, f"{name}, {tag} {number + 1}", conversation)
            for number, row in enumerate(rows)
        ]
        (single if len(splits) == 1 else texts)[tag] = tuple(filterfalse(is_blank, documents))
        if not {**single, **texts}[tag]:
            raise CorpusError(f"{name}, {tag}: all its rows are blank; expected text; fill them or leave it out")
    if texts and single:
        raise CorpusError(
            f"corpus {name!r}: {', '.join(single)} has one split, {', '.join(texts)} more; expected splits in every "
            "language or in none; name the languages of one kind"
        )
    corpus = Corpus(single or texts, label, TextSource(label, split))
    corpus = corpus.declared_parallel() if parallel else corpus
    return deal_out(corpus, split) if single else corpus


def split_rows(name: str, tag: Language, split: str) -> tuple[list[str], Any]:
    """The splits of a configuration, and the rows of the one asked for, or of the only one."""
    from datasets import get_dataset_split_names, load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        splits = list(get_dataset_split_names(name, tag))
        chosen = (
            splits[0]
            if len(splits) == 1
            else next((name_of_split for name_of_split in NAMES[split] if name_of_split in splits), None)
        )
        if chosen is None:
            raise CorpusError(
                f"corpus {name!r}, {tag}: has splits {', '.join(splits)} and none for {split}; expected one of "
                f"{', '.join(NAMES[split]) or 'a single split, to take all of it'}; ask for another"
            )
        return splits, load_dataset(name, tag, split=chosen, streaming=False)
    except (DatasetNotFoundError, OSError, ValueError, RuntimeError) as err:
        if isinstance(err, CorpusError):
            raise
        raise CorpusError(
            f"corpus {name!r}, {tag}: no folder here and no data set ({first_line(err)}); expected one whose text "
            "is in files, as code of a data set is never run; check the name"
        ) from err


def checked_document(row: Any, number: int, where: str) -> Document:
    """A row as a document; raises CorpusError for one without text."""
    place = f"{where}, row {number}"
    document = row_document(row, number, place)
    if document is None:
        raise CorpusError(f"{place}: {unread_row(row)} came; expected {ROW_FORM}; rename or correct the field")
    check_unicode((document.prompt or "") + document.text, place)
    return document
