"""Queries from a file: prompts, and what the model is asked about having said after them; the same, words flipped."""

from pathlib import Path
from typing import Any

from babelscope.corpus import Corpus, Document, check_unicode, text_lines
from babelscope.corpus.documents import LineNumber
from babelscope.errors import CorpusError, LanguageError
from babelscope.files.strict_json import parse_json
from babelscope.languages import Language
from babelscope.languages.scripts import UNSPACED

ROW = '{"language": "fi", "prompt": "…", "completion": "…"}'


def read_queries(path: str | Path) -> Corpus:
    """Documents by language from a JSON-lines file; blank lines are skipped.

    Each row has `language` (a BCP-47 tag) and `completion`, and may have `prompt`, and `id`: a passage of the training
    text with the same id says the same. Prompt and completion are read as one text, so a space between them must stand
    in one of them.
    Raises CorpusError for a file without queries, a row without these fields, and an id that comes twice in a language.
    """
    documents: dict[Language, dict[str, Document]] = {}
    for number, line in text_lines(Path(path)):
        if line.strip():
            place = f"{path}, line {number}"
            tag, document = query_of(parse_json(line, place, error=CorpusError, advice=f"write {ROW}"), number, place)
            of_language = documents.setdefault(tag, {})
            if str(document.id) in of_language:
                raise CorpusError(f"{place}: id {document.id!r} came before in {tag}; expected each once; correct it")
            of_language[str(document.id)] = document
    if not documents:
        raise CorpusError(f"{path}: no query came; expected a line such as {ROW}; write some")
    return Corpus({tag: tuple(by_id.values()) for tag, by_id in documents.items()}, str(path))


def query_of(row: Any, number: int, place: str) -> tuple[Language, Document]:
    """One row's language and document."""
    fields = {"prompt": "", **row} if isinstance(row, dict) else {}
    values = [fields.get(name) for name in ("language", "prompt", "completion")]
    if not all(isinstance(value, str) for value in values) or not str(fields["completion"]).strip():
        raise CorpusError(
            f"{place}: {', '.join(row) if isinstance(row, dict) else type(row).__name__} came; expected {ROW}, with "
            "words in the completion; correct it"
        )
    language, prompt, completion = map(str, values)
    named = fields.get("id")
    if named is not None and not isinstance(named, str | int):
        raise CorpusError(f"{place}: id {named!r} came; expected a text or a whole number; correct it")
    try:
        tag = Language.parse(language)
    except LanguageError as err:
        raise CorpusError(f"{place}: {err}") from err
    check_unicode(prompt + completion, place)
    return tag, Document(LineNumber(number) if named is None else str(named), completion, prompt=prompt)


def flip_words(queries: Corpus) -> Corpus:
    """The same queries with their words from the last to the first, the prompt's and the completion's each for itself.

    White space at the ends stays there, so that both are read as one text as before. Characters stand for words in a
    language whose script has no spaces.
    """

    def flipped(text: str, tag: Language) -> str:
        words = text.strip()
        start, joint = text.find(words), "" if tag.script in UNSPACED else " "
        turned = joint.join(reversed(words.split() if joint else words))
        return text[:start] + turned + text[start + len(words) :]

    documents = {
        tag: tuple(
            query._replace(text=flipped(query.text, tag), prompt=query.prompt and flipped(query.prompt, tag))
            for query in of_language
        )
        for tag, of_language in queries.items()
    }
    return queries.derived(documents, f"{queries.name}, words flipped")
