"""Held-out text that is read once untouched, and again for every set that is switched off on it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.ablation.switch_off import switched_off_by_text
from babelscope.axes import Bool, Float, Float64, Tensor
from babelscope.corpus import Corpus, Texts, TokenDocument, as_corpus
from babelscope.evaluation import HeldOut, Losses, document_nats
from babelscope.models import Layout, layout_of
from babelscope.models.modes import refuse_steered
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.sites import At


@dataclass(frozen=True, eq=False)
class ScoredText:
    """Held-out text with the untouched model's losses on it: read once, however many sets are switched off on it.

    Texts of all languages are read in the same batches, which are the same with neurons off and without: fewer and
    fuller passes, and a set that changes nothing harms by nothing, to the bit.
    """

    layout: Layout
    corpus: Corpus
    held: tuple[HeldOut, ...]
    """One per language, in the order of the corpus."""
    base: tuple[Losses, ...]
    """The untouched model's losses on them."""
    documents: tuple[TokenDocument, ...]
    """Those of all languages, one language after the other, each with the place of its language and its own place."""

    @classmethod
    def prepare(
        cls,
        model: CausalModel,
        tokenizer: PreTrainedTokenizerBase,
        texts: Texts,
        *,
        max_tokens: int | None = None,
        max_length: int | None = None,
    ) -> "ScoredText":
        """Tokenize the text and score it; max_tokens: scored tokens per language at most, whole documents."""
        refuse_steered(model)
        corpus = as_corpus(texts)
        layout = layout_of(model)
        held = HeldOut.prepare(tokenizer, corpus, max_length=text_length(layout, max_length), max_tokens=max_tokens)
        return cls._read(layout, corpus, held)

    @classmethod
    def _read(cls, layout: Layout, corpus: Corpus, held: Sequence[HeldOut]) -> "ScoredText":
        documents = tuple(
            replace(document, language=column) for column, part in enumerate(held) for document in part.documents
        )
        documents = tuple(replace(document, id=str(place)) for place, document in enumerate(documents))
        nats = document_nats(layout, documents, pad=held[0].pad).split([len(part.documents) for part in held])
        base = tuple(part.losses(part_nats) for part, part_nats in zip(held, nats, strict=True))
        return cls(layout, corpus, tuple(held), base, documents)

    def only(self, columns: Sequence[int]) -> "ScoredText":
        """Some of the texts, in batches of their own, which the untouched model reads again; itself for all of them."""
        if [*columns] == [*range(len(self.held))]:
            return self
        held = [self.held[column] for column in columns]
        return self._read(self.layout, self.corpus.only([part.language for part in held]), held)

    def harms(
        self,
        masks: Bool[Tensor, "text layer neuron"],
        *,
        at: At,
        values: Float[Tensor, "text layer neuron"] | None = None,
    ) -> tuple[Float64[Tensor, " document"], ...]:
        """Harm in nats of each document of each text, in one reading, while the neurons of the text's mask are off.

        Of a text whose mask is empty it is 0. values: what the neurons give on each text in place of zero.
        """
        touched = masks.flatten(1).any(dim=1)
        if not bool(touched.any()):
            return tuple(torch.zeros_like(losses.nats) for losses in self.base)
        with switched_off_by_text(self.layout, masks, at=at, values=values) as passes:
            nats = document_nats(self.layout, self.documents, pad=self.held[0].pad, passes=passes)
        nats_by_text = nats.split([len(part.documents) for part in self.held])
        return tuple(
            part.losses(part_nats).nats - base.nats if off else torch.zeros_like(base.nats)
            for part, part_nats, base, off in zip(self.held, nats_by_text, self.base, touched, strict=True)
        )
