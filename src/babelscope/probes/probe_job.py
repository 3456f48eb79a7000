"""What every probe is given, and what it gives."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.controls import Evidence
from babelscope.corpus import Corpus
from babelscope.figures import Figure
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.concepts.concept_probe import Concept
from babelscope.probes.geometry import sentences
from babelscope.probes.lens import word_lists
from babelscope.probes.lens.cloze import ClozeTask
from babelscope.probes.lens.translators import Translators


class Findings(NamedTuple):
    """What a probe gives: rows, and figures by name."""

    rows: list[Evidence]
    figures: dict[str, Figure]


@dataclass(frozen=True, eq=False)
class ProbeJob:
    """What every probe is given."""

    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    texts: Corpus
    """What is measured."""
    others: Corpus
    """Other text of the same languages, for what must be made beforehand."""
    against: str
    """The language that others are compared with."""
    n_sentences: int
    seed: int
    words: word_lists.Words | None = None
    """Words in parallel, for the lens and the embeddings instead of the other text's tokens."""
    translators: Translators | None = None
    """A tuned lens."""
    cloze: ClozeTask | None = None
    """Sentences with a gap, for the lens."""
    checkpoints: tuple[str, ...] = ()
    """Folders of a training run's checkpoints, in order."""
    task_scores: Mapping[Language, float] | None = None
    """Scores in a task by language, for alignment."""
    concept: Concept = "questions"
    """Whose keys and values are sought."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """How checkpoints are opened: device and dtype."""
    log: Callable[[str], AbstractContextManager[object]] = lambda _: nullcontext()
    """Keeps the work of a name for an interrupted run, as `StageStore.log` does: of what several probes share."""

    @cached_property
    def sentences(self) -> sentences.Sentences:
        """Sentence vectors, read once for all probes that use them."""
        with self.log("sentences"):
            return sentences.record_sentences(self.model, self.tokenizer, self.texts, sentences=self.n_sentences)

    @cached_property
    def tokens(self) -> word_lists.LanguageTokens:
        """Tokens that speak for each language: of the words, or indicative ones from the other text."""
        if self.words is not None:
            return word_lists.word_tokens(self.tokenizer, self.words, vocabulary=layout_of(self.model).width("logits"))
        return word_lists.indicative_tokens(
            self.tokenizer, self.others, vocabulary=layout_of(self.model).width("logits")
        )
