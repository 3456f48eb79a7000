"""How a study asks: plain beginnings of documents, or messages to a chat model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from babelscope.corpus import WHOLE, Corpus, check_apart, has_splits, load_corpus, shard_of
from babelscope.errors import CorpusError
from babelscope.languages import Language
from babelscope.steering.sweeps.steering_prompts import Prompt, make_prompts, make_questions

DEV_OF = 3
"""One of so many ids is for choosing where a folder has no splits; the others are for the score."""
SHUFFLE = 2**61
"""Shards so many that no two ids share one: their order is a fixed shuffle of the ids."""


@dataclass(frozen=True)
class ChatPrompts:
    """Prompts as messages for the model's own chat template: questions in each language, asked in that language.

    The native ceiling of a study is then the model's answer to a question asked in the target language, and a steered
    answer is one to a question asked in another.
    """

    system: str | None = None
    """A system prompt before each; None leaves it to the template."""
    questions: Mapping[str, Corpus] = field(default_factory=dict)
    """What is asked, by "dev" and "test"; none asks the study's own texts, each document a user's message."""

    def card(self) -> dict[str, Any]:
        """What a result says of it."""
        return {"system": self.system, "questions": {name: text.hash for name, text in self.questions.items()}}


def ask_as_chat(
    *,
    system: str | None = None,
    questions: str | None = None,
    languages: Iterable[str] | None = None,
    same_text: bool = False,
) -> ChatPrompts:
    """Chat prompts from a folder of questions: `<tag>.txt`, a question a line, or `<tag>.jsonl`.

    A folder with splits gives its valid and test questions; without, a third of the ids is for choosing and the others
    are for the score, the same ids in every language. same_text: allow that both are the same questions.
    Raises CorpusError where one of the two is left without any, and where they are the same.
    """
    if questions is None:
        return ChatPrompts(system)
    tags = None if languages is None else tuple(languages)
    if has_splits(questions):
        names = (("dev", "valid"), ("test", "test"))
        parts = {name: load_corpus(questions, tags, split=split) for name, split in names}
        check_apart(parts, name=questions, same_text=same_text)
    else:
        parts = deal_questions(load_corpus(questions, tags, split=WHOLE))
    return ChatPrompts(system, parts)


def deal_questions(corpus: Corpus) -> dict[str, Corpus]:
    """Questions to choose on and to score on: a third of all ids, in the order of their hashes, and the others."""
    ids = sorted({d.id for texts in corpus.values() for d in texts}, key=lambda name: (shard_of(name, SHUFFLE), name))
    chosen = frozenset(ids[: -(-len(ids) // DEV_OF)])
    parts = {
        name: {tag: tuple(d for d in texts if (d.id in chosen) == (name == "dev")) for tag, texts in corpus.items()}
        for name in ("dev", "test")
    }
    empty = [f"{tag} {name}" for name, texts in parts.items() for tag, documents in texts.items() if not documents]
    if empty:
        raise CorpusError(
            f"{corpus.name}: no question is left for {', '.join(empty)}; expected a dozen a language; add some, or "
            "give folders valid and test"
        )
    return {name: corpus.derived(texts, f"{corpus.name}, {name} by id") for name, texts in parts.items()}


def study_prompts(corpus: Corpus, part: str, most: int, chat: ChatPrompts | None) -> list[Prompt]:
    """The prompts of one part, "dev" or "test", of a study, so many a language at most."""
    if chat is None:
        return make_prompts(corpus, per_language=most)
    part_questions = chat.questions.get(part)
    if part_questions is None:
        return make_questions(corpus, per_language=most, system=chat.system)
    # Of the languages that were observed: there is no direction away from others.
    questions = part_questions.only([tag for tag in corpus if tag in part_questions] or [*part_questions])
    return make_questions(questions, per_language=max(map(len, questions.values())), system=chat.system)


def check_asked(prompts: Mapping[str, Sequence[Prompt]], targets: Sequence[Language]) -> None:
    """Raise CorpusError for a target without prompts in it, which are its ceiling, or in another language."""
    for name, group in prompts.items():
        sources = {prompt.source for prompt in group}
        if silent := sorted({*targets} - sources):
            raise CorpusError(f"{name}: no prompt in {', '.join(silent)}, a target; expected some; add questions in it")
        if len(sources) < 2:
            raise CorpusError(
                f"{name}: prompts in {', '.join(sources)} alone; expected some in another language, from which to "
                "steer; add questions in it"
            )
