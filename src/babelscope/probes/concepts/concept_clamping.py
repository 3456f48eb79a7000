"""What a model says next while the experts of a concept are held at what they have on it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float64, Tensor
from babelscope.controls import rank_p
from babelscope.controls.shards import generator_of
from babelscope.corpus import Batch, Corpus, Texts, as_corpus, numbered, pad_of, tokenize_documents
from babelscope.errors import CorpusError, SelectionError
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.probes.concepts.concept_detectors import ConceptExperts
from babelscope.probes.concepts.concept_probe import Concept, has_concept
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.recording.walk import walk
from babelscope.recording.watchers import ReadSite
from babelscope.sites import Site


@dataclass(frozen=True, eq=False)
class ClampedConcept:
    """Rise of the concept's tokens by whose experts are clamped and whose text is read."""

    __repr__ = shown_by()

    concept: str
    sources: tuple[Language, ...]
    readers: tuple[Language, ...]
    base: Float64[Tensor, " reader"]
    """Mean probability of the concept's tokens as the next one, nothing clamped."""
    rise: Float64[Tensor, "source reader"]
    """Difference of that mean with the source's experts clamped."""
    null: Float64[Tensor, "source draw reader"]
    """The same with other neurons of the same layers, at their own values on the concept."""
    documents: tuple[int, ...]
    """Texts of each reader."""
    number: int
    draws: int
    seed: int

    def p(self, source: int, reader: int) -> float:
        """Rank of a rise among those of the other neurons."""
        return rank_p(float(self.rise[source, reader]), self.null[source, :, reader])

    def rows(self) -> list[SiteEvidence]:
        """One row per language of experts and language of text."""
        return [
            SiteEvidence(
                claim=f"probability of tokens of {self.concept} with its experts clamped, rise",
                language=reader,
                against=source,
                control="other neurons of the same layers, clamped alike",
                n=self.documents[j],
                estimate=float(self.rise[i, j]),
                p=self.p(i, j),
                null=float(self.null[i, :, j].mean()),
                draws=self.draws,
                seed=self.seed,
                note=f"against is the language of the {self.number} experts; without them {float(self.base[j]):.4g}; n "
                "in texts",
            )
            for i, source in enumerate(self.sources)
            for j, reader in enumerate(self.readers)
        ]


def clamp_experts(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    experts: ConceptExperts,
    texts: Texts,
    *,
    concept: Concept | Callable[[str], bool] = "questions",
    token_test: Callable[[str], bool] | None = None,
    documents: int = 20,
    draws: int = 19,
    max_length: int | None = None,
    seed: int = 0,
) -> ClampedConcept:
    """Hold each language's experts at their mean largest activation on the concept, and read texts without it.

    At every token the value of an expert is replaced; what rises is the mean probability of the concept's tokens as the
    next one, in each language's text: experts of one language that work in another's are shared in what they do.
    token_test: which tokens speak of the concept, by their text; None takes the concept's own test.
    Control: as many neurons of the same layers that are no experts of any language, clamped to their own values.
    Raises CorpusError where a language has no text without the concept, SelectionError where no token speaks of it or a
    layer has too few other neurons.
    Source: clamping of detectors, in form, arXiv:2506.01629.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    max_length = text_length(layout, max_length)
    test = concept if callable(concept) else has_concept(concept)
    few = {tag: [text for text in part if not test(text.text)][:documents] for tag, part in corpus.items()}
    if empty := [tag for tag, part in few.items() if not part]:
        raise CorpusError(f"{', '.join(empty)}: no text without the concept; expected at least one; give more text")
    # A tokenizer may have more entries than the head has rows: those are never the next token.
    entries = min(len(tokenizer), layout.width("logits"))
    names = [str(tokenizer.decode([token])) for token in range(entries)]
    member = torch.tensor([(token_test or test)(name) for name in names])
    if not bool(member.any()):
        raise SelectionError("no token speaks of the concept; expected at least one; give a token_test")
    reading = Corpus({tag: tuple(part) for tag, part in few.items()}, corpus.name)

    def mass(neurons: Sequence[tuple[int, int]], values: Mapping[tuple[int, int], float]) -> Tensor:
        with clamped(layout, neurons, values):
            masses = [reader_mass(layout, tokenizer, reading, k, member, max_length) for k in range(len(few))]
        return torch.tensor(masses, dtype=torch.float64)

    base, generator = mass((), {}), generator_of(seed)
    experts_of_all = {place for tag in experts.languages for place in experts.experts(tag)}
    rise, null = [], []
    for k, tag in enumerate(experts.languages):
        values = {place: float(experts.maximum[k][place]) for place in experts.experts(tag)}
        rise.append(mass(tuple(values), values) - base)
        rises = []
        for _ in range(draws):
            control = other_neurons(tuple(values), experts_of_all, layout.d_neuron, generator)
            rises.append(mass(control, {place: float(experts.maximum[k][place]) for place in control}) - base)
        null.append(torch.stack(rises))
    return ClampedConcept(
        concept=experts.concept,
        sources=experts.languages,
        readers=tuple(few),
        base=base,
        rise=torch.stack(rise),
        null=torch.stack(null),
        documents=tuple(map(len, few.values())),
        number=experts.number,
        draws=draws,
        seed=seed,
    )


def other_neurons(
    experts: Sequence[tuple[int, int]], experts_of_all: set[tuple[int, int]], width: int, generator: torch.Generator
) -> tuple[tuple[int, int], ...]:
    """As many neurons of each layer that nobody's experts are."""
    places = []
    for layer in sorted({layer for layer, _ in experts}):
        count = sum(at == layer for at, _ in experts)
        free = [neuron for neuron in range(width) if (layer, neuron) not in experts_of_all]
        if len(free) < count:
            raise SelectionError(
                f"layer {layer} has {len(free)} neurons that are no experts; expected {count}; ask fewer"
            )
        order = torch.randperm(len(free), generator=generator)[:count].tolist()
        places += [(layer, free[place]) for place in order]
    return tuple(places)


def clamped(layout: Layout, neurons: Sequence[tuple[int, int]], values: Mapping[tuple[int, int], float]) -> ExitStack:
    """While open, these neurons have these values at every token."""
    stack = ExitStack()
    for layer in sorted({layer for layer, _ in neurons}):
        units = [neuron for at, neuron in neurons if at == layer]
        levels = torch.tensor([values[layer, neuron] for neuron in units])

        def change(value: Tensor, units: list[int] = units, levels: Tensor = levels) -> Tensor:
            changed = value.clone()
            changed[..., units] = levels.to(value)
            return changed

        stack.enter_context(layout.edit(Site(layer, "mlp_inner"), change))
    return stack


def reader_mass(
    layout: Layout,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    language: int,
    member: Bool[Tensor, " vocab"],
    max_length: int,
) -> float:
    """Mean over a language's tokens of the probability that the next one is a member."""
    documents = list(corpus.values())[language]
    watcher = TokenMass(layout, member, [0.0, 0.0])
    encoded = tokenize_documents(tokenizer, documents, 0, max_length=max_length)
    walk(layout, [numbered(encoded)], [watcher], pad=pad_of(tokenizer))
    return watcher.total[0] / watcher.total[1]


@dataclass(frozen=True, eq=False)
class TokenMass:
    """Probability of some tokens, added up over positions, and the positions."""

    layout: Layout
    member: Bool[Tensor, " vocab"]
    total: list[float]

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """None: a pass gives its output by itself."""
        return {}

    def measure(self, batch: Batch, values: dict[Site, Tensor], hidden: Tensor) -> tuple[float, float]:
        """Sum over the counted positions of a batch, and how many they are."""
        states = hidden[batch.counted.to(hidden.device)]
        share = torch.softmax(self.layout.logits(states).double(), dim=-1)[:, : len(self.member)]
        return float(share[:, self.member.to(share.device)].sum()), float(len(states))

    def add(self, batch: Batch, values: tuple[float, float]) -> None:
        """Add a batch."""
        self.total[0] += values[0]
        self.total[1] += values[1]
