"""What every probe of the verb `probe` is given, and what it gives."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from babelscope.controls import Evidence
from babelscope.corpus import Corpus
from babelscope.figures import Figure
from babelscope.probes import sentences, word_lists


class Findings(NamedTuple):
    """What a probe gives: rows, and figures by name."""

    rows: list[Evidence]
    figures: dict[str, Figure]


@dataclass(frozen=True, eq=False)
class ProbeJob:
    """What every probe is given."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    texts: Corpus
    """What is measured."""
    others: Corpus
    """Other text of the same languages, for what must be made beforehand."""
    against: str
    """The language that others are compared with."""
    n_sentences: int
    seed: int

    @cached_property
    def sentences(self) -> sentences.Sentences:
        """Sentence vectors, read once for all probes that use them."""
        return sentences.record_sentences(self.model, self.tokenizer, self.texts, sentences=self.n_sentences)

    @cached_property
    def tokens(self) -> word_lists.LanguageTokens:
        """Tokens indicative of each language, from the other text."""
        return word_lists.indicative_tokens(self.tokenizer, self.others, vocabulary=self.model.config.vocab_size)
