"""Keys and values of MLPs: do neurons that write a concept answer to it in every language, and what do they write?"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Bool, Float, Float64, Int64, Tensor
from babelscope.corpus import Corpus, Document, Texts, as_corpus
from babelscope.errors import CorpusError, MeasurementError, SelectionError, SiteError
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.probes.concepts.concept_probe import Concept, concept_direction, has_concept
from babelscope.probes.concepts.value_evidence import WRITTEN, ConceptValues
from babelscope.probes.lens.logit_lens import lens_logits
from babelscope.probes.lens.word_lists import LanguageTokens
from babelscope.sites import Site
from babelscope.steering.directions import document_means
from babelscope.steering.directions.document_samples import DocumentMeans

FEWEST = 5
"""Documents with the concept, and without, in every language."""
NEIGHBOURS = 10
"""A control neuron is one of so many of the layer whose column is nearest in length."""


def concept_values(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    others: Texts | None = None,
    tokens: LanguageTokens,
    concept: Concept | Callable[[str], bool] = "questions",
    language: str = "en",
    potential: int = 100,
    doses: Sequence[float] = (0.0, 1.0, 5.0),
    dose_documents: int = 20,
    max_length: int | None = None,
    draws: int = 199,
    seed: int = 0,
) -> ConceptValues:
    """Find the MLP neurons that write a concept, and test in how many languages their keys and values serve it.

    w = unit normal of a logistic regression on mean last-layer streams of one language's documents in `others`.
    Potential sources: the `potential` columns v of all down projections with the largest cos(v, w). Actual sources:
    those of them with a positive mean post-activation on the concept's documents (published: over twenty generated
    tokens of prompts). Value: languages of the tokens with the largest logits of v through the last norm and the head.
    Key: gap of the mean activation between documents with the concept and without in `texts`, by language.
    Cause: a dose added to the values of all sources at every token; the first dose is 0, what others are compared with.
    Controls: labels shuffled or permuted within a language; neurons of the same layer with a column about as long.
    others: text that the neurons are chosen on; None takes `texts`, and then the gap in `language` is not held out.
    Raises SiteError for a mixture of experts, CorpusError for too few documents with or without the concept,
    MeasurementError for doses that do not begin with 0, SelectionError where a layer has too few other neurons.
    Source: arXiv:2406.16235, sections on value and key vectors; concept by text, not by toxicity.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    max_length = text_length(layout, max_length)
    if layout.n_experts:
        raise SiteError(f"{model.config.model_type} is a mixture of experts; expected a dense model")
    if not doses or doses[0] != 0 or dose_documents < 1:
        raise MeasurementError(
            f"doses {', '.join(map(str, doses))} on {dose_documents} documents came; expected 0 first, with which the "
            "others are compared, and one document or more; correct them"
        )
    name, test = ("the concept", concept) if callable(concept) else (concept, has_concept(concept))
    chosen_on = corpus if others is None else as_corpus(others)
    tag = Language.parse(language)
    check_documents(corpus, test, name)
    check_documents(chosen_on.only([tag]), test, name)
    sites = [Site(layer, "mlp_inner") for layer in range(layout.n_layers)]
    last = Site(layout.n_layers - 1, "resid_out")
    of_one = chosen_on.only([tag])
    first = document_means(model, tokenizer, of_one, [*sites, last], max_length=max_length)
    labels = concept_labels(first[last], of_one, test)
    direction = concept_direction(first[last].value.double(), labels, seed=seed)
    neurons, cosine = sources_of(layout, direction.vector, potential, first, labels)
    matched = matched_neurons(layout, neurons, seed)
    means = document_means(model, tokenizer, corpus, sites, max_length=max_length)
    values = torch.stack([activations(means, group) for group in (neurons, matched)])
    gap, p = key_gaps(values, concept_labels(means[sites[0]], corpus, test), means[sites[0]].language, draws, seed)
    few = Corpus({tag: few_documents(corpus[tag], test, dose_documents) for tag in corpus}, corpus.name)
    score = torch.zeros(2, len(doses), len(corpus), dtype=torch.float64)
    for which, group in enumerate((neurons, matched)):
        for at, dose in enumerate(doses):
            with offset(layout, group, dose):
                rows = document_means(model, tokenizer, few, [last], max_length=max_length)[last]
            along = rows.value.double() @ direction.vector
            score[which, at] = torch.stack([along[rows.language == k].mean() for k in range(len(corpus))])
    return ConceptValues(
        concept=name,
        language=tag,
        languages=tuple(corpus),
        direction=direction,
        neurons=neurons,
        potential=potential,
        cosine=cosine,
        matched=matched,
        written=torch.stack([languages_written(layout, group, tokens) for group in (neurons, matched)]),
        gap=gap,
        p=p,
        documents={tag: documents_by_concept(corpus[tag], test) for tag in corpus},
        dose_documents={tag: len(few[tag]) for tag in corpus},
        doses=tuple(doses),
        score=score,
        draws=draws,
        seed=seed,
    )


def documents_by_concept(documents: Sequence[Document], test: Callable[[str], bool]) -> tuple[int, int]:
    """Documents with the concept, and without."""
    has = sum(test(document.text) for document in documents)
    return has, len(documents) - has


def check_documents(corpus: Corpus, test: Callable[[str], bool], name: str) -> None:
    """Raise CorpusError unless every language has enough documents with the concept, and without."""
    short = {tag: counts for tag in corpus if min(counts := documents_by_concept(corpus[tag], test)) < FEWEST}
    if short:
        listed = ", ".join(f"{tag} {has} with and {lacks} without" for tag, (has, lacks) in short.items())
        raise CorpusError(f"{name}: {listed}; expected {FEWEST} of each in every language; give more text")


def concept_labels(means: DocumentMeans, corpus: Corpus, test: Callable[[str], bool]) -> Bool[Tensor, " document"]:
    """Whether each document that was read has the concept; documents without a token are not there."""
    texts = {(k, document.id): document.text for k, tag in enumerate(corpus) for document in corpus[tag]}
    read = zip(means.language.tolist(), means.ids, strict=True)
    return torch.tensor([test(texts[place]) for place in read])


def few_documents(documents: Sequence[Document], test: Callable[[str], bool], most: int) -> tuple[Document, ...]:
    """The first documents without the concept, on which the dose must raise its score."""
    return tuple(document for document in documents if not test(document.text))[:most]


def sources_of(
    layout: Layout,
    vector: Float64[Tensor, " hidden"],
    potential: int,
    means: Mapping[Site, DocumentMeans],
    labels: Bool[Tensor, " document"],
) -> tuple[tuple[tuple[int, int], ...], Float64[Tensor, " neuron"]]:
    """The columns nearest to the vector whose neurons are active on the concept, by falling cosine.

    Raises CorpusError where none of them is.
    """
    columns = [layout.down_weight(layer).detach().double().cpu() for layer in range(layout.n_layers)]
    cosine = torch.stack([vector @ column / column.norm(dim=0).clamp(min=1e-30) for column in columns])
    best = cosine.flatten().topk(min(potential, cosine.numel())).indices.tolist()
    places = [divmod(place, cosine.shape[1]) for place in best]
    active = [
        place for place, mean in zip(places, activations(means, places)[labels].mean(dim=0), strict=True) if mean > 0
    ]
    if not active:
        raise CorpusError(
            f"none of {len(places)} columns' neurons is active on the concept; expected some; ask for more"
        )
    return tuple(active), torch.stack([cosine[place] for place in active])


def activations(
    means: Mapping[Site, DocumentMeans], neurons: Sequence[tuple[int, int]]
) -> Float64[Tensor, "document neuron"]:
    """Mean post-activation of each neuron on each document."""
    return torch.stack([means[Site(layer, "mlp_inner")].value[:, neuron].double() for layer, neuron in neurons], dim=1)


def matched_neurons(layout: Layout, neurons: Sequence[tuple[int, int]], seed: int) -> tuple[tuple[int, int], ...]:
    """For each neuron another one of its layer, drawn among those whose columns are nearest in length.

    Raises SelectionError where a layer has too few neurons that are no sources.
    """
    rng, matched = np.random.default_rng(seed), []
    for layer, neuron in neurons:
        length = layout.down_norm(layer)
        distance = (length - length[neuron]).abs()
        distance[[other for place, other in (*neurons, *matched) if place == layer]] = math.inf
        nearest = distance.topk(min(NEIGHBOURS, int(distance.isfinite().sum())), largest=False).indices
        if not len(nearest):
            raise SelectionError(
                f"layer {layer}: more than half of its {len(distance)} neurons are sources; expected as many others to "
                "compare with; ask for fewer potential sources"
            )
        matched.append((layer, int(nearest[rng.integers(len(nearest))])))
    return tuple(matched)


def languages_written(
    layout: Layout, neurons: Sequence[tuple[int, int]], tokens: LanguageTokens
) -> Int64[Tensor, " neuron"]:
    """Languages with a token among those of the largest logits of each neuron's column alone."""
    with torch.no_grad():
        columns = torch.stack([layout.down_weight(layer)[:, neuron] for layer, neuron in neurons])
        logits: Float[Tensor, "neuron vocab"] = lens_logits(layout, columns).cpu()
    member = tokens.member[:, logits.topk(WRITTEN, dim=1).indices]
    return member.any(dim=2).sum(dim=0)


def key_gaps(
    values: Float64[Tensor, "which document neuron"],
    labels: Bool[Tensor, " document"],
    language: Int64[Tensor, " document"],
    draws: int,
    seed: int,
) -> tuple[Float64[Tensor, "which neuron language"], Float64[Tensor, "which neuron language"]]:
    """Gap of means between documents with the concept and without, and its one-sided p by permuted labels."""
    generator = torch.Generator().manual_seed(seed)
    gaps, ranks = [], []
    for k in range(int(language.max()) + 1):
        rows, label = values[:, language == k], labels[language == k].double()
        weights = torch.stack([label, *(label[torch.randperm(len(label), generator=generator)] for _ in range(draws))])
        weights = weights / weights.sum(dim=1, keepdim=True) - (1 - weights) / (1 - weights).sum(dim=1, keepdim=True)
        gap = torch.einsum("rd,wdn->rwn", weights, rows)
        gaps.append(gap[0])
        ranks.append((1 + (gap[1:] >= gap[0] - 1e-12).sum(dim=0)).double() / (draws + 1))
    return torch.stack(gaps, dim=2), torch.stack(ranks, dim=2)


def offset(layout: Layout, neurons: Sequence[tuple[int, int]], dose: float) -> ExitStack:
    """While open, the dose is added to the post-activation of these neurons at every token."""
    stack = ExitStack()
    for layer in sorted({layer for layer, _ in neurons}):
        places = [neuron for at, neuron in neurons if at == layer]

        def change(value: Tensor, places: list[int] = places) -> Tensor:
            raised = value.clone()
            raised[..., places] += dose
            return raised

        stack.enter_context(layout.edit(Site(layer, "mlp_inner"), change))
    return stack
