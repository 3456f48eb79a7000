"""Which names of a corpus can be ids of the hub, and which are paths; no library is loaded to tell."""

import os
import re
from pathlib import Path

from babelscope.corpus.table_rows import TABLES, UNREAD_KINDS, file_kind, way_of_unread
from babelscope.errors import CorpusError


def check_corpus_name(name: str) -> None:
    """Raise CorpusError for a file that holds no rows, and for a path where nothing is.

    An id of the hub is only looked up later.
    """
    name = os.path.expanduser(name)
    if name == "reference" or os.path.isdir(name):
        return
    if os.path.isfile(name) and file_kind(Path(name)) in TABLES:
        return
    if os.path.exists(name):
        file = Path(name)
        folder = os.path.dirname(name) if file_kind(file) == "txt" else ""
        way = "write the text of each language into one such file of a folder"
        raise CorpusError(
            f"corpus {name!r} is no folder, but a file; expected a folder with <tag>.txt or <tag>.jsonl for each "
            "language, or a .jsonl, .csv or .tsv file whose rows name their language; "
            + (f"give the folder {folder!r}, or " if folder else "")
            + (way_of_unread(file) if file_kind(file) in UNREAD_KINDS else way)
        )
    if not may_be_hub_id(name):
        raise CorpusError(
            f"corpus {name!r} is no folder, as nothing is there; expected a folder with <tag>.txt or <tag>.jsonl for "
            "each language, or a hub id; check the path"
        )


def may_be_hub_id(name: str) -> bool:
    """Whether a name has the form of an id on the hub: one or two plain words of at most 96 letters."""
    return re.fullmatch(r"\w[\w.-]{0,95}(/\w[\w.-]{0,95})?", name) is not None
