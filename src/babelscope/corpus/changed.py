"""The same documents written in another way, for controls: in Latin letters, or with their words in random order."""

import random

from anyascii import anyascii

from babelscope.corpus.documents import Corpus, Document
from babelscope.errors import CorpusError

ROMANISABLE = frozenset({"Cyrl", "Arab", "Deva", "Hans", "Hant", "Grek", "Geor", "Armn"})
"""Scripts that anyascii writes in Latin letters letter by letter; it reads kanji as Mandarin, so Jpan is not here."""


def check_no_conversations(corpus: Corpus) -> None:
    """Raise CorpusError for conversations and prompts with answers, whose messages would be lost."""
    if any(document.conversation is not None for documents in corpus.values() for document in documents):
        raise CorpusError(f"{corpus.name}: conversations came; expected plain text; read it without --conversation")
    if any(document.prompt is not None for documents in corpus.values() for document in documents):
        raise CorpusError(f"{corpus.name}: prompts with answers came; expected plain text; give rows of text")


def romanise(corpus: Corpus) -> Corpus:
    """The same documents in ASCII letters, for the languages where that is defined; others are left out.

    Arabic loses its short vowels, which its script does not write. Raises CorpusError if no language is left.
    """
    check_no_conversations(corpus)
    documents = {
        tag: tuple(Document(document.id, anyascii(document.text)) for document in originals)
        for tag, originals in corpus.items()
        if tag.script in ROMANISABLE
    }
    if not documents:
        raise CorpusError(
            f"{corpus.name}: no language in a script that can be romanised; expected one of {ROMANISABLE}"
        )
    return corpus.derived(documents, f"{corpus.name}, romanised")


def shuffle_words(corpus: Corpus, *, seed: int = 0) -> Corpus:
    """The same documents with their words in random order; characters where a text has no spaces."""
    check_no_conversations(corpus)
    rng = random.Random(seed)

    def shuffled(text: str) -> str:
        parts, joint = (text.split(), " ") if " " in text else (list(text), "")
        return joint.join(rng.sample(parts, len(parts)))

    documents = {
        tag: tuple(Document(d.id, shuffled(d.text)) for d in language_documents)
        for tag, language_documents in corpus.items()
    }
    return corpus.derived(documents, f"{corpus.name}, words shuffled")
