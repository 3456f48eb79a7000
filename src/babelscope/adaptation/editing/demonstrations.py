"""Worked examples before a question: facts told anew, each followed by a question with its answer."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from babelscope.adaptation.editing.planned_edits import SEPARATOR, FactEdit, fact_text
from babelscope.errors import MeasurementError
from babelscope.languages import Language
from babelscope.probes.knowledge import Fact, FactTable

ShownIn = Literal["asked", "edit"]
"""In whose language examples ask and answer: in that of the question that they stand before, or in that of the edit."""


class Demonstration(NamedTuple):
    """One worked example."""

    edit: FactEdit
    """What it tells, in the language of the edit."""
    answered: Fact
    """What it asks, with the answer: the edited fact, or another one, which stays as it was."""

    def text(self, table: FactTable, language: Language) -> str:
        """The example, its question in a language."""
        return SEPARATOR.join((self.edit.sentence(table), fact_text(table, self.answered, language)))


def draw_demonstrations(
    table: FactTable, edit: FactEdit, edits: Sequence[FactEdit], *, count: int, rng: np.random.Generator
) -> list[Demonstration]:
    """Examples of other edits: the new object is the answer in every second one, the first among them.

    In the rest a fact is asked that was not edited. All are of other relations and share no entity with the edit, so
    that none gives an answer away.
    Raises MeasurementError where there are too few.
    Source: Zheng et al. 2023, arXiv:2305.12740, whose third kind, a rephrased question, needs a table with several
    templates.
    """
    entities = {*edit.fact[1:], edit.new}
    free = [
        part for part in edits if part.fact.relation != edit.fact.relation and not entities & {*part.fact[1:], part.new}
    ]
    needed = count + count // 2
    if len(free) < needed:
        raise MeasurementError(
            f"{count} demonstrations came, which take {needed} facts, and {table.name} has {len(free)} of other "
            f"relations that share nothing with {' '.join(edit.fact)}; expected no more; lower the number"
        )
    chosen = [free[place] for place in rng.permutation(len(free))[:needed].tolist()]
    examples, unchanged = chosen[:count], iter(chosen[count:])
    return [
        Demonstration(part, next(unchanged).fact if number % 2 else part.fact._replace(object=part.new))
        for number, part in enumerate(examples)
    ]


def shown_before(
    table: FactTable, examples: Sequence[Demonstration], sentence: str, *, shown_in: ShownIn, edited_in: Language
) -> dict[Language, str]:
    """By language of the question: the examples, and then a sentence such as the edited fact."""
    return {
        tag: SEPARATOR.join(
            (*(part.text(table, tag if shown_in == "asked" else edited_in) for part in examples), sentence)
        )
        for tag in table.languages
    }
