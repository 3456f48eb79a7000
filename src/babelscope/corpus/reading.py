"""Labelled text from folders, compressed files and data sets; the one place that reads them."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from babelscope.corpus.corpus_names import check_corpus_name
from babelscope.corpus.data_sets import load_dataset_corpus
from babelscope.corpus.documents import Corpus, Document, TextSource
from babelscope.corpus.labelled_file import read_labelled_file
from babelscope.corpus.messages import Counted
from babelscope.corpus.splits import (
    SPLITS,
    WHOLE,
    check_apart,
    contents,
    deal_texts,
    repeated,
    say_copies,
    say_repeated,
)
from babelscope.corpus.table_rows import UNREAD_KINDS, file_kind, way_of_unread
from babelscope.corpus.text_files import each_document, find_files, read_documents, split_of, unread_names
from babelscope.errors import CorpusError
from babelscope.files.folder_kinds import kind_of_folder
from babelscope.languages import Language, parse_languages
from babelscope.reference import CORPUS as REFERENCE_CORPUS
from babelscope.upstream.hub_answers import no_data_set

log = logging.getLogger(__name__)
FILE_FORMS = "<tag>.txt or <tag>.jsonl, or <tag>.train.txt, <tag>.valid.txt and <tag>.test.txt"


def load_corpus(
    name: str | Path,
    languages: Iterable[str] | None = None,
    *,
    split: str = "train",
    conversation: Counted | None = None,
    parallel: bool = False,
) -> Corpus:
    """Read labelled text: a folder of `<tag>.txt` or `<tag>.jsonl`, one file of rows, "reference", or a hub id.

    Files may be packed as .gz .bz2 .xz .zst. One file is .jsonl, .csv or .tsv; its rows have a field `language` (or
    `lang`) beside their text, and it has no splits of its own.

    languages: which, in which order; None means every file of the folder.
    split: "train" (to observe and train on), "valid" (to choose on) or "test" (to score on). `<tag>.train.txt.xz` is
    read for split "train" where the files say so; a folder with one sub-folder a split is entered; a data set on the
    hub has its configurations named by the tags. Text without splits is dealt out by document, 7:1:2 (`deal_out`);
    "all" asks for the whole of it. Documents of a split that are in an earlier one too are counted and said.
    Blank lines are skipped, their numbers are not given to others. jsonl rows need `text` and may have `id`.
    conversation: rows are conversations, `{"messages": [{"role": …, "content": …}, …]}` or that list alone, for the
    model's chat template; "all", "user" or "answer" says whose words count, and whose training takes the loss on.
    parallel: line i is the same content in every language. Equal ids in jsonl rows say so by themselves, and
    "reference" is parallel; equally many lines say nothing.
    A text file whose name is no tag is refused, and passed over where languages are named.
    Raises CorpusError for a missing, empty, unreadable or double file, a split that is not there, or text declared
    parallel that is not; LanguageError for an unknown tag, ChatError for a row that is no conversation where they were
    asked for.
    """
    if split not in (*SPLITS, WHOLE):
        raise CorpusError(f"split {split!r} came; expected one of {', '.join((*SPLITS, WHOLE))}; correct it")
    if not isinstance(name, str | os.PathLike):
        raise CorpusError(f"corpus {name!r} came; expected 'reference', a folder or a data set of the hub; name one")
    check_corpus_name(str(name))
    languages = None if languages is None else parse_languages(languages)  # once: a generator is then used up
    path = REFERENCE_CORPUS if name == "reference" else Path(os.path.expanduser(name))
    if os.path.isfile(path):  # False for a name too long, where pathlib raises
        return load_file(path, name_of(name, conversation), languages, split, conversation, parallel)
    if not os.path.isdir(path):
        if languages is not None and (reason := no_data_set(str(name))):
            raise CorpusError(f"corpus {reason}")
        return load_dataset_corpus(str(name), name_of(name, conversation), languages, split, conversation, parallel)
    parallel = parallel or path == REFERENCE_CORPUS
    return load_folder(path, name_of(name, conversation), languages, split, conversation, parallel)


def load_file(
    path: Path, name: str, languages: Iterable[str] | None, split: str, conversation: Counted | None, parallel: bool
) -> Corpus:
    """One split of a file whose rows name their language, dealt out by document."""
    texts = read_labelled_file(path, languages, conversation)
    corpus = deal_texts(dict(Corpus(texts, name).declared_parallel()) if parallel else texts, name, split)
    say_copies(name, corpus)
    return corpus


def load_folder(
    path: Path, name: str, languages: Iterable[str] | None, split: str, conversation: Counted | None, parallel: bool
) -> Corpus:
    """One split of a folder's text, by its own files or dealt out; languages of either kind may stand together."""
    folders = [entry for entry in SPLITS if (path / entry).is_dir()]
    if folders and split not in folders:
        raise CorpusError(
            f"{path}: has folders {', '.join(folders)} and none for {split}; expected train, valid and test; add it, "
            "or ask for one of those"
        )
    folder = path / split if folders else path
    files = find_files(folder, split, languages, root=path)
    tags = parse_languages(languages) if languages is not None else tuple(sorted(files))
    unread = unread_names(folder, languages)
    there = shortened(sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in folder.iterdir()))
    if not tags and (kind := kind_of_folder(path)):
        raise CorpusError(
            f"{path}: is {kind}; expected the folder of a corpus, with {FILE_FORMS}; check the path, and that the "
            "model stands before the corpus"
        )
    if not tags:
        raise CorpusError(
            f"{folder}: no <tag>.txt or <tag>.jsonl in it for split {split!r}, but {there or 'nothing'}; expected "
            f"{FILE_FORMS}; check the path and the split, or write the text of each language into one such file"
            f"{way_of_tables(folder)}"
        )
    missing = [tag for tag in tags if tag not in files]
    if missing:
        raise CorpusError(
            f"{folder}: no file for {', '.join(missing)}, split {split!r}; expected {missing[0]}.txt or "
            f"{missing[0]}.jsonl beside what is there ({there or 'nothing'}); add it or leave the language out"
            f"{way_of_tables(folder, missing)}"
        )
    say_unread(str(folder), tuple(unread))
    plain = [tag for tag in tags if not folders and not split_of(files[tag])]
    texts = {tag: read_documents(files[tag], conversation) for tag in tags if parallel or tag not in plain}
    if parallel:
        texts = dict(Corpus(texts, name).declared_parallel())
    streams = {tag: texts[tag] if parallel else each_document(files[tag], conversation) for tag in plain}
    dealt_corpus = deal_texts(streams, name, split) if plain else None
    if dealt_corpus is not None and len(plain) == len(tags):
        say_copies(name, dealt_corpus)
        return dealt_corpus
    own_split = {tag: documents for tag, documents in texts.items() if tag not in plain}
    repeats = {} if path == REFERENCE_CORPUS else repeats_of(path, own_split, split, conversation)
    say_repeated(name, split, repeats)
    if dealt_corpus is None:
        say_copies(name, texts)
        return Corpus(texts, name, TextSource(name, split, False, repeats))
    texts_by_tag = {tag: own_split[tag] if tag in own_split else dealt_corpus[tag] for tag in tags}
    say_copies(name, texts_by_tag)
    source = TextSource(name, split, True, {**repeats, **lost(dealt_corpus)})
    return Corpus(texts_by_tag, f"{name}, {split}, {', '.join(plain)} by document", source)


def way_of_tables(folder: Path, tags: Sequence[Language] | None = None) -> str:
    """What a person can do with the first table of a folder, which is read only by itself; empty where none is there.

    tags: of languages whose file is missing; None means any table.
    """
    kinds = ("csv", "tsv", *UNREAD_KINDS)
    tables = sorted((entry for entry in folder.iterdir() if file_kind(entry) in kinds), key=lambda table: table.name)
    # The description that lies beside the rows of a saved data set is JSON too, so its rows come first.
    tables.sort(key=lambda table: kinds.index(file_kind(table)))
    table = next((entry for entry in tables if tags is None or entry.name.split(".")[0] in tags), None)
    if table is None:
        return ""
    if file_kind(table) in UNREAD_KINDS:
        return f"; {way_of_unread(table)}"
    return (
        f"; a table is a corpus by itself where its columns are language (a tag in each row) and text: give the file, "
        f"such as {str(table)!r}, in the folder's place"
    )


@cache
def say_unread(folder: str, names: tuple[str, ...]) -> None:
    """One line, once per process, on files of a corpus that look like text of a language and are not read."""
    if names:
        log.warning("%s: not read: %s; expected %s", folder, shortened(names), FILE_FORMS)


def shortened(names: Sequence[str]) -> str:
    """At most eight names, and how many more there are."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def has_splits(name: str | Path) -> bool:
    """Whether a folder, or "reference", has train, valid or test files or folders of its own; False for a hub id."""
    path = REFERENCE_CORPUS if name == "reference" else Path(name)
    if not os.path.isdir(path):
        return False
    return any((path / split).is_dir() or any(path.glob(f"*.{split}.*")) for split in SPLITS)


def load_splits(
    name: str | Path,
    languages: Iterable[str] | None = None,
    *,
    splits: Iterable[str] = SPLITS,
    same_text: bool = False,
    conversation: Counted | None = None,
    parallel: bool = False,
) -> dict[str, Corpus]:
    """Several splits of a corpus, every one in the languages of the first, of which none is the same text as another.

    same_text: allow that; of text without splits each is then the whole. `facts` of the corpora say so.
    Raises CorpusError as `load_corpus`, and where two splits of a language are the same text.
    """
    texts: dict[str, Corpus] = {}
    tags = None if languages is None else parse_languages(languages)
    for split in splits:
        source_split = split if not same_text or has_splits(name) else WHOLE
        texts[split] = load_corpus(name, tags, split=source_split, conversation=conversation, parallel=parallel)
        tags = tuple(texts[split])
    check_apart(texts, name=str(name), same_text=same_text)
    return texts


def lost(corpus: Corpus) -> Mapping[str, int]:
    """What dealing out left out."""
    return {} if corpus.source is None else corpus.source.repeated


def repeats_of(
    path: Path, texts: Mapping[Language, tuple[Document, ...]], split: str, conversation: Counted | None
) -> dict[str, int]:
    """By language, documents of a split that a person made whose text is in an earlier split too."""
    counts: dict[str, int] = {}
    before = SPLITS[: SPLITS.index(split)] if split in SPLITS else ()
    for tag, documents in texts.items():
        earlier_texts: set[bytes] = set()
        for earlier_split in before:
            folder = path / earlier_split if (path / earlier_split).is_dir() else path
            file = find_files(folder, earlier_split, [tag], root=path).get(tag)
            if file is not None and (folder != path or split_of(file)):
                earlier_texts |= contents(each_document(file, conversation))
        if number := len(repeated(documents, earlier_texts)):
            counts[tag] = number
    return counts


def name_of(name: str | Path, conversation: Counted | None) -> str:
    """What a corpus is called in results: its name, and whose words of its conversations count."""
    return str(name) if conversation is None else f"{name}, conversations, counted: {conversation}"
