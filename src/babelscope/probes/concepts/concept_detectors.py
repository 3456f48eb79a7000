"""Neurons that detect a labelled concept, language by language, and whether the languages share them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float, Float64, Tensor
from babelscope.controls import rank_p
from babelscope.corpus import Batch, Corpus, Texts, as_corpus, numbered, pad_of, tokenize_documents
from babelscope.errors import CorpusError, SelectionError, SiteError
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.probes.concepts.concept_probe import Concept, has_concept
from babelscope.probes.concepts.detector_ranking import ExpertOverlap, Ranked, expert_overlaps, places, top_units
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.probes.units.roles import Open
from babelscope.recording.walk import walk
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.sites import Site

FEWEST = 5
"""Texts with the concept, and without, in every language."""


@dataclass(frozen=True, eq=False)
class ConceptExperts:
    """How well each neuron tells the texts with a concept from the others, by language."""

    __repr__ = shown_by()

    concept: str
    languages: tuple[Language, ...]
    precision: Float64[Tensor, "language layer neuron"]
    """Average precision of a neuron's largest activation in a text."""
    maximum: Float64[Tensor, "language layer neuron"]
    """Mean of that over the texts with the concept: what a clamped expert is held at."""
    documents: Mapping[Language, tuple[int, int]]
    """Texts with the concept, and without."""
    null_best: Float64[Tensor, "language draw"]
    """Average precision of the best neuron for labels shuffled."""
    number: int
    """Experts of a language."""
    overlaps: tuple[ExpertOverlap, ...]
    draws: int
    seed: int

    def experts(self, language: str) -> tuple[tuple[int, int], ...]:
        """(layer, neuron) of a language's experts, best first; of equal ones the first."""
        k = self.languages.index(Language.parse(language))
        return places(self.precision[k], top_units(self.precision[k].flatten(), self.number))

    def bar(self) -> Float64[Tensor, " language"]:
        """What the best neuron reaches in 95 % of the shuffles."""
        return self.null_best.quantile(0.95, dim=1)

    def rows(self, checkpoint: str = "") -> list[SiteEvidence]:
        """The best neuron and the number of detectors by language, and the overlap of each pair."""
        before, rows = f"{checkpoint}: " if checkpoint else "", []
        common: dict[str, Any] = {
            "control": f"labels of {self.concept} shuffled",
            "draws": self.draws,
            "seed": self.seed,
        }
        for k, tag in enumerate(self.languages):
            has, lacks = self.documents[tag]
            best, place = float(self.precision[k].max()), self.experts(tag)[0]
            detectors = int((self.precision[k] > self.bar()[k]).sum())
            note = f"average precision; {has} of {has + lacks} texts have the concept; neuron {place[1]}"
            rows.append(
                SiteEvidence(
                    claim=f"{before}best detector of {self.concept}",
                    language=tag,
                    n=has + lacks,
                    estimate=best,
                    p=rank_p(best, self.null_best[k]),
                    null=float(self.null_best[k].mean()),
                    note=note,
                    site=f"{place[0]}.mlp_inner",
                    **common,
                )
            )
            rows.append(
                SiteEvidence(
                    claim=f"{before}neurons that detect {self.concept} better than the best of 95 % of shuffles",
                    language=tag,
                    n=self.precision[k].numel(),
                    estimate=detectors,
                    note="n in neurons",
                    **common,
                )
            )
        rows += [
            SiteEvidence(
                claim=f"{before}experts of {self.concept} that both languages have",
                language=overlap.second,
                against=overlap.first,
                n=self.number,
                estimate=overlap.share,
                p=overlap.p,
                null=overlap.null,
                note="share; n in experts",
                **common,
            )
            for overlap in self.overlaps
        ]
        return rows


def concept_experts(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    concept: Concept | Callable[[str], bool] = "questions",
    labels_from: str | None = None,
    number: int = 50,
    max_length: int | None = None,
    draws: int = 99,
    seed: int = 0,
) -> ConceptExperts:
    """Score every MLP neuron as a detector of a concept: average precision of its largest activation in a text.

    AP = Σ_n (R_n − R_{n−1}) P_n over the distinct values of the activation, falling, as scikit-learn's
    average_precision_score; equal values count together. A language's experts are its `number` best neurons.
    concept: a known one, or a test of a text. labels_from: in parallel text the concept of a sentence is read in this
    language, and holds for its translations; None reads each text itself.
    Control: labels shuffled within the language, alike in all languages of parallel text, so that what any group of
    sentences shares with its translations is in the control too.
    Raises SiteError for a mixture of experts, CorpusError for too few texts with or without the concept or labels from
    a language of text that is not parallel, SelectionError for more experts than neurons.
    Source: detectors by average precision, and their overlap and clamping over training, arXiv:2506.01629.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    max_length = text_length(layout, max_length)
    if layout.n_experts:
        raise SiteError(f"{model.config.model_type} is a mixture of experts; expected a dense model")
    units = layout.n_layers * layout.d_neuron
    if not 0 < number <= units:
        raise SelectionError(
            f"{number} experts came; expected 1 to {units}, the neurons of the model; change the number"
        )
    name, test = ("the concept", concept) if callable(concept) else (concept, has_concept(concept))
    labels = document_labels(corpus, test, name, labels_from)
    generator = torch.Generator().manual_seed(seed)
    lengths = [len(label) for label in labels]
    orders = [
        [torch.randperm(lengths[0], generator=generator)] * len(labels)
        if corpus.parallel
        else [torch.randperm(length, generator=generator) for length in lengths]
        for _ in range(draws)
    ]
    precision, maximum, best, chosen = [], [], [], []
    for k, documents in enumerate(corpus.values()):
        encoded = tokenize_documents(tokenizer, documents, k, max_length=max_length)
        if empty := [document.id for document in encoded if not document.n_counted]:
            raise CorpusError(f"{tuple(corpus)[k]}, text {empty[0]!r} has no token; expected text; drop it")
        watcher = DocumentMaxima.empty(layout, len(encoded))
        walk(layout, [numbered(encoded)], [watcher], pad=pad_of(tokenizer))
        ranked = Ranked(watcher.largest)
        of_texts = torch.stack([ranked.precision(labels[k])] + [ranked.precision(labels[k][o[k]]) for o in orders])
        precision.append(of_texts[0])
        maximum.append(watcher.largest[labels[k]].double().mean(dim=0))
        best.append(of_texts[1:].amax(dim=1))
        chosen.append(torch.stack([top_units(row, number) for row in of_texts]))
    shape = (len(corpus), layout.n_layers, layout.d_neuron)
    return ConceptExperts(
        concept=name,
        languages=tuple(corpus),
        precision=torch.stack(precision).reshape(shape),
        maximum=torch.stack(maximum).reshape(shape),
        documents={tag: (int(label.sum()), int((~label).sum())) for tag, label in zip(corpus, labels, strict=True)},
        null_best=torch.stack(best),
        number=number,
        overlaps=expert_overlaps(tuple(corpus), torch.stack(chosen), units),
        draws=draws,
        seed=seed,
    )


def track_concepts(
    checkpoints: Mapping[str, Open],
    texts: Texts,
    *,
    concept: Concept | Callable[[str], bool] = "questions",
    labels_from: str | None = None,
    number: int = 50,
    draws: int = 99,
    seed: int = 0,
) -> dict[str, ConceptExperts]:
    """The experts of one concept at every checkpoint, each opened in its turn."""
    steps = {}
    for checkpoint, open_checkpoint in checkpoints.items():
        model, tokenizer = open_checkpoint()
        steps[checkpoint] = concept_experts(
            model,
            tokenizer,
            texts,
            concept=concept,
            labels_from=labels_from,
            number=number,
            draws=draws,
            seed=seed,
        )
    return steps


@dataclass(frozen=True, eq=False)
class DocumentMaxima:
    """The largest activation of every MLP neuron in each of some numbered documents."""

    layout: Layout
    largest: Float[Tensor, "document unit"]

    @classmethod
    def empty(cls, layout: Layout, documents: int) -> "DocumentMaxima":
        """No document read yet."""
        dtype = torch.promote_types(next(layout.model.parameters()).dtype, torch.float32)
        return cls(layout, torch.full((documents, layout.n_layers * layout.d_neuron), math.nan, dtype=dtype))

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """What down projections read, in every layer."""
        return {Site(layer, "mlp_inner"): self.read for layer in range(self.layout.n_layers)}

    def read(self, batch: Batch, site_value: SiteValue) -> Float[Tensor, "batch neuron"]:
        """Over the counted tokens of each document."""
        return site_value.value.masked_fill(~site_value.counted[..., None], -math.inf).amax(dim=1).cpu()

    def add(self, batch: Batch, values: dict[Site, Float[Tensor, "batch neuron"]]) -> None:
        """Put a batch's documents into their places."""
        for site, value in values.items():
            first = (site.layer or 0) * self.layout.d_neuron
            self.largest[batch.places, first : first + self.layout.d_neuron] = value.to(self.largest.dtype)


def document_labels(
    corpus: Corpus, test: Callable[[str], bool], name: str, labels_from: str | None
) -> list[Bool[Tensor, " document"]]:
    """Whether each text has the concept, by language."""
    if labels_from is not None and not corpus.parallel:
        raise CorpusError(
            f"{corpus.name}: labels from {labels_from} came with text that is not parallel; expected rows with equal "
            "ids, or --parallel; leave the language out"
        )
    source = None if labels_from is None else corpus.only([labels_from])[Language.parse(labels_from)]
    labels = [torch.tensor([bool(test(text.text)) for text in source or documents]) for documents in corpus.values()]
    short = {
        tag: (int(label.sum()), int((~label).sum()))
        for tag, label in zip(corpus, labels, strict=True)
        if min(int(label.sum()), int((~label).sum())) < FEWEST
    }
    if short:
        counts = ", ".join(f"{tag} {has} with and {lacks} without" for tag, (has, lacks) in short.items())
        raise CorpusError(f"{name}: {counts}; expected {FEWEST} of each in every language; give more text")
    return labels
