"""One model trained on the same text mixed by several units, and its knowledge barrier before and after each."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from babelscope import Language, mix_languages
from babelscope.adaptation import Material, adapt
from babelscope.corpus import Corpus, MixUnit
from babelscope.probes.knowledge import BarrierCell, BarrierChange, FactTable, barrier_change, knowledge_barrier


class Mixed(NamedTuple):
    """The barrier of a model as it was, and trained on text mixed by each unit."""

    before: list[BarrierCell]
    after: dict[MixUnit, list[BarrierCell]]
    bits: dict[MixUnit, dict[Language, float]]
    """Bits per byte of test text, after."""
    bits_before: dict[Language, float]

    def change(self, unit: MixUnit, *, against: MixUnit | None = None) -> dict[str, BarrierChange]:
        """By mixture: against the model as it was, or trained by another unit."""
        old = self.before if against is None else self.after[against]
        return {change.mixture: change for change in barrier_change(old, self.after[unit])}


def train_mixed(
    model: Any,
    tokenizer: Any,
    table: FactTable,
    texts: Mapping[str, Corpus],
    units: Sequence[MixUnit],
    *,
    words: int = 8,
    lines: int = 8,
    questions: int | None = None,
    max_length: int = 256,
    **training: Any,
) -> Mixed:
    """The same model trained on the same train text by every unit, and asked as before; its valid text is mixed too."""
    before = knowledge_barrier(model, tokenizer, table, questions=questions)
    first, *others = texts["train"]
    after, bits, bits_before = {}, {}, {}
    for unit in units:
        train = mix_languages(texts["train"], unit=unit, lines=lines, words=words)
        material = Material.prepare(
            model,
            tokenizer,
            language=first,
            documents=train[first],
            # Nothing is chosen: equal steps are compared, and text that is trained on takes the last.
            dev=train[first][:8],
            same_text=True,
            test=texts["test"],
            replay=train.only(others),
            # Every copy of a document is read equally often: all its units in all languages.
            replay_share=len(others) / len(train),
            max_length=max_length,
        )
        result = adapt(material, **training)
        bits[unit], bits_before = result.after, result.before
        assert result.delta is not None
        with result.delta.applied(model):
            after[unit] = knowledge_barrier(model, tokenizer, table, questions=questions)
    return Mixed(before, after, bits, bits_before)
