"""What is measured of the same questions in several languages."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from babelscope.errors import LanguageError, MeasurementError
from babelscope.languages import Language
from babelscope.probes.thought.forced_thought import PREFIXES, ThoughtCondition, prefix_conditions
from babelscope.probes.thought.parallel_questions import QuestionTable


@dataclass(frozen=True, kw_only=True)
class ThoughtPlan:
    """What is measured."""

    against: str = "en"
    """The language that all others are compared with."""
    chat: bool = True
    """Questions are messages for the model's own chat template; without, text that is gone on with."""
    system: str | None = None
    think_in: tuple[str, ...] = ()
    """Languages that answers are begun in, one after the other: tags, or "own" for the question's."""
    prefixes: Mapping[str, str] = field(default_factory=lambda: PREFIXES)
    """First words of answers by language."""
    answer_draws: int = 0
    """Answers that are also drawn to each question in `against`, and put to the vote; 0 draws none."""
    temperature: float = 0.7
    """Of the drawn answers."""
    new_tokens: int = 256
    """Of each answer at most."""
    draws: int = 999
    """Shuffles and random signs behind p-values."""
    batch_size: int = 128
    seed: int = 0

    def check(self, table: QuestionTable, *, steered: bool = False) -> None:
        """Raise, before the model is opened, where the questions do not allow what is asked for."""
        if Language.parse(self.against) not in table.languages:
            raise LanguageError(
                f"questions in {', '.join(table.languages)} came; expected {self.against} among them; add it, or name "
                "another language to compare with"
            )
        if table.kind == "choice" and (self.think_in or steered or self.answer_draws):
            raise MeasurementError(
                "questions with options came, with a language to think in, steering or drawn answers; expected "
                "questions that are answered in writing: options are scored, nothing is written; leave one of them out"
            )
        if self.answer_draws < 0 or (self.answer_draws and not 0 < self.temperature < math.inf):
            raise MeasurementError(
                f"{self.answer_draws} drawn answers at temperature {self.temperature:g} came; expected 0 or more of "
                "them, and a temperature above 0, at which answers differ; correct it"
            )
        self.begun(table)

    def begun(self, table: QuestionTable) -> list[ThoughtCondition]:
        """The conditions that begin answers."""
        return [*prefix_conditions(self.think_in, table.languages, self.prefixes)]
