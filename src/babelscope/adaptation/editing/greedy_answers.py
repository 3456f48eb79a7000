"""What a model writes about an edited fact, and in whose words: of the asked language, or of the edit's."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.adaptation.editing.planned_edits import SEPARATOR, FactEdit, without_object
from babelscope.evaluation import judge_answers, known_languages
from babelscope.languages import Language
from babelscope.models.plain import CausalModel
from babelscope.probes.knowledge import FactTable
from babelscope.probes.knowledge.typed_ranking import entity_labels
from babelscope.steering.sweeps.decoding import Decoding
from babelscope.steering.sweeps.steered_answers import generate_answers
from babelscope.steering.sweeps.steering_prompts import Prompt

ScoredWords = Literal["asked", "edit", "neither"]
"""Whether an answer begins with an object's name in the asked language, in that of the edit alone, or with neither."""


class EditAnswer(NamedTuple):
    """One greedy answer."""

    method: str
    edit: int
    language: Language
    text: str
    words: ScoredWords
    new: bool
    """Whether it begins with the new object's name in the asked language."""
    judged: Language | None
    """The language of the answer by `judge_answers`; None where it is too short, or the asked one is not known."""


def greedy_answers(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    table: FactTable,
    edit: FactEdit,
    method: str,
    number: int,
    *,
    told: Mapping[Language, str],
    length: int,
) -> list[EditAnswer]:
    """The continuation of the fact's prompt in each language, by greedy decoding, up to the end of the line.

    told: by language, a text before the prompt.
    """
    answers, requests = [], []
    for tag in table.languages:
        begin = told[tag] + SEPARATOR if tag in told else ""
        requests.append((Prompt(str(tag), tag, begin + without_object(table, edit._replace(language=tag))), tag))
    decoding = Decoding(new_tokens=length, temperature=0.0)
    written = generate_answers(model, tokenizer, requests, decoding=decoding)
    for (_, tag), answer in zip(requests, written, strict=True):
        text = answer.text.strip().partition("\n")[0].strip()
        judged = None
        if tag in known_languages():
            (recognition,) = judge_answers([text], [tag])
            judged = recognition.language if recognition.verdict in ("right", "mixed", "other language") else None
        words = words_of_answer(table, edit, tag, text)
        names = entity_labels(table, table.objects(edit.fact.relation, tag), tag)
        new = begins_with(text, (table.labels[edit.new][tag],), among=names)
        answers.append(
            EditAnswer(method=method, edit=number, language=tag, text=text, words=words, new=new, judged=judged)
        )
    return answers


def words_of_answer(table: FactTable, edit: FactEdit, tag: Language, text: str) -> ScoredWords:
    """Whose words an answer begins with; names that both languages have are those of the asked one."""
    by_language = (
        entity_labels(table, table.objects(edit.fact.relation, language), language) for language in (tag, edit.language)
    )
    asked, edits = by_language
    return "asked" if begins_with(text, asked) else "edit" if begins_with(text, edits) else "neither"


def begins_with(text: str, names: tuple[str, ...], among: tuple[str, ...] = ()) -> bool:
    """Whether a text begins with one of some names, and with no longer one of `among`; case does not matter.

    "Nigeria" begins with "Niger", and is not it where both are names. Endings behind a name are let pass.
    """
    folded = text.casefold()

    def longest(candidates: tuple[str, ...]) -> int:
        return max((len(name) for name in map(str.casefold, candidates) if folded.startswith(name)), default=0)

    return longest(names) > 0 and longest(names) >= longest(among)
