"""The influence of each passage of training text on the probability of each completion."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float64, Tensor
from babelscope.corpus import Batch, Corpus, Document, TokenDocument, numbered, pad_of, tokenize_documents
from babelscope.errors import CorpusError, MeasurementError
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.influence.kronecker_curvature import KroneckerCurvature, LinearRecord
from babelscope.probes.influence.mlp_projections import MlpProjections, Records, predicted_tokens
from babelscope.probes.influence.passage_rankings import bm25, tfidf_cosines, vector_cosines
from babelscope.progress import progress_bar
from babelscope.recording.walk import Forward, walk
from babelscope.recording.watchers import ReadSite, Watcher
from babelscope.sites import Site

Ranking = Literal["influence", "gradient", "TF-IDF", "BM25", "vectors", "length"]
"""influence: EK-FAC. gradient: the inner product alone. vectors: cosines of mean states. length: predicted tokens."""
BATCH_TOKENS = 512
"""Padded tokens of a batch: inputs and gradients of all projections are kept for it."""
QUERY_BYTES = 2 * 2**30
"""Of the queries' solved gradients that are kept at a time; the passages are read once for each such group."""


class LabelledText(NamedTuple):
    """A query or passage with its language."""

    language: Language
    document: Document

    @property
    def text(self) -> str:
        """All that is read of it."""
        return (self.document.prompt or "") + self.document.text


@dataclass(frozen=True, eq=False)
class TextInfluence:
    """Scores of each passage for each query."""

    queries: tuple[LabelledText, ...]
    passages: tuple[LabelledText, ...]
    scores: dict[Ranking, Float64[np.ndarray, "query passage"]]
    """Larger is more influential; of "influence", 0 for a passage in which no token is predicted."""
    predicted: int
    """Tokens of the passages that are predicted: N of the influence."""

    def order(self, ranking: Ranking = "influence") -> np.ndarray:
        """Numbers of the passages for each query, the first the most influential."""
        return np.argsort(-self.scores[ranking], axis=1, kind="stable")


@dataclass(eq=False)
class GradientWalk:
    """Text that goes through the model with gradients, and how much of it did."""

    projections: MlpProjections
    pad: int
    bar: Any

    def run(
        self, documents: Sequence[TokenDocument], add: Callable[[Batch, Records], None], *, seed: int | None = None
    ) -> None:
        """Hand the records of each batch on; seed: of targets drawn from the model, None takes the text's own."""
        watcher = RecordWatcher(lambda batch, records: self.told(batch, records, add))
        walk(
            self.projections.layout,
            [documents],
            [watcher],
            pad=self.pad,
            batch_tokens=BATCH_TOKENS,
            passes=partial(gradient_passes, self.projections, seed),
        )

    def told(self, batch: Batch, records: Records, add: Callable[[Batch, Records], None]) -> None:
        """Add a batch, and move the bar."""
        add(batch, records)
        self.bar.update(len(batch.documents))


@dataclass(frozen=True, eq=False)
class RecordWatcher:
    """What a walk with gradients adds to."""

    adds: Callable[[Batch, Records], None]
    hooks: dict[Site, ReadSite] = field(default_factory=dict)

    def add(self, batch: Batch, values: Records) -> None:
        """Hand a batch on."""
        self.adds(batch, values)


@contextmanager
def gradient_passes(
    projections: MlpProjections, seed: int | None, layout: Layout, watchers: Sequence[Watcher]
) -> Iterator[Forward]:
    """Passes whose one value is the batch's records."""
    # On the CPU always: of the same seed a GPU draws other numbers, and the curvature of few texts is another one.
    draws = None if seed is None else torch.Generator().manual_seed(seed)
    yield lambda batch: [projections.records(batch, draws)]


def influence_of_text(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    queries: Corpus,
    texts: Corpus,
    *,
    layers: Sequence[int] = (),
    max_length: int = 128,
    damping: float = 0.1,
    layer: int | None = None,
    progress: bool = False,
    seed: int = 0,
) -> TextInfluence:
    """Score each passage of some text by how much training on it makes the model say each query's completion.

    I(q, m) = ∇ ln P(q)ᵀ (G + λI)⁻¹ ∇ ln P(m), over the weights of the MLPs' projections, in nats: a passage m that is
    given the weight 1 more among N predicted tokens raises ln P(completion | prompt) by I / N, to first order.
    G: Gauss–Newton matrix of the mean loss per token over the same text, by EK-FAC (`KroneckerCurvature`), with targets
    that the model draws; λ: damping · mean eigenvalue, for each projection.
    queries: documents with `prompt` and `text`, the completion; without a prompt the whole text is the completion.
    texts: the passages; each is cut to max_length tokens. layers: whose MLPs take part, none means all.
    layer: of the vectors that are compared beside it; None takes the middle. The model stays as it was, bit for bit.
    Raises CorpusError for a query or a text without a token to predict, PrerequisiteError for a model without plain
    MLPs, MeasurementError for a damping that is not above 0 and for scores that are no numbers.
    Source: Grosse et al. 2023, arXiv:2308.03296.
    """
    if not (damping > 0 and math.isfinite(damping)):
        raise MeasurementError(f"damping {damping} came; expected a finite number above 0, such as 0.1; correct it")
    layout = layout_of(model)
    projections = MlpProjections.of(layout, layers)
    asked, passages = labelled_texts(queries), labelled_texts(texts)
    query_tokens = numbered(tokens_of(tokenizer, queries, max_length))
    passage_tokens = numbered(tokens_of(tokenizer, texts, max_length))
    for query, document in zip(asked, query_tokens, strict=True):
        if not predicted_tokens(document):
            raise CorpusError(
                f"{queries.name}, {query.language} {query.document.id!r}: no token of the completion within "
                f"{max_length} tokens is predicted; expected one; write a completion, or raise max_length"
            )
    predicted = [predicted_tokens(document) for document in passage_tokens]
    read = [document for document, count in zip(passage_tokens, predicted, strict=True) if count]
    if not read:
        raise CorpusError(f"{texts.name}: no token of any passage is predicted; expected text; give some")
    groups = query_groups(projections, query_tokens)
    total = (2 + len(groups)) * len(read) + len(query_tokens)
    with progress_bar(total=total, unit="text", desc="influence", shown=progress) as bar:
        steps = GradientWalk(projections, pad_of(tokenizer), bar)
        curvatures = fitted_curvatures(steps, read, seed)
        pairs = [scored(steps, group, read, curvatures, damping, len(passages)) for group in groups]
    influence, gradient = (np.concatenate(side) for side in zip(*pairs, strict=True))
    if not (np.isfinite(influence).all() and np.isfinite(gradient).all()):
        raise MeasurementError("an influence is no number; expected finite ones; open the model in float32")
    middle = layout.n_layers // 2 if layer is None else layer
    asked_texts, passage_texts = ([part.text for part in side] for side in (asked, passages))
    scores: dict[Ranking, np.ndarray] = {
        "influence": influence,
        "gradient": gradient,
        "TF-IDF": tfidf_cosines(query_tokens, passage_tokens),
        "BM25": bm25(query_tokens, passage_tokens),
        "vectors": vector_cosines(model, tokenizer, asked_texts, passage_texts, middle, max_length=max_length),
        "length": np.tile(np.array(predicted, dtype=float), (len(asked), 1)),
    }
    return TextInfluence(asked, passages, scores, sum(predicted))


def labelled_texts(corpus: Corpus) -> tuple[LabelledText, ...]:
    """Documents with their languages, in order."""
    return tuple(LabelledText(tag, document) for tag, documents in corpus.items() for document in documents)


def tokens_of(tokenizer: PreTrainedTokenizerBase, corpus: Corpus, max_length: int) -> list[TokenDocument]:
    """Documents of all languages as tokens, in order."""
    return [
        document
        for number, (tag, documents) in enumerate(corpus.items())
        for document in tokenize_documents(tokenizer, documents, number, max_length=max_length, name=tag)
    ]


def query_groups(projections: MlpProjections, queries: Sequence[TokenDocument]) -> list[list[TokenDocument]]:
    """Queries whose solved gradients are kept together."""
    values = sum(part.numel() for module in projections.modules.values() for part in module.parameters(recurse=False))
    size = max(1, QUERY_BYTES // (4 * values))
    return [numbered(queries[start : start + size]) for start in range(0, len(queries), size)]


def fitted_curvatures(
    steps: GradientWalk, documents: Sequence[TokenDocument], seed: int
) -> dict[str, KroneckerCurvature]:
    """Two passes with the same drawn targets."""
    curvatures = {name: KroneckerCurvature() for name in steps.projections.modules}

    def add_moments(_: Batch, records: Records) -> None:
        for name, record in records.items():
            curvatures[name].add_moments(record)

    def add_squares(batch: Batch, records: Records) -> None:
        predicted = sum(map(predicted_tokens, batch.documents))
        for name, record in records.items():
            curvatures[name].add_squares(record, predicted)

    steps.run(documents, add_moments, seed=seed)
    for curvature in curvatures.values():
        curvature.decompose()
    steps.run(documents, add_squares, seed=seed)
    return curvatures


def scored(
    steps: GradientWalk,
    queries: Sequence[TokenDocument],
    documents: Sequence[TokenDocument],
    curvatures: dict[str, KroneckerCurvature],
    damping: float,
    n_passages: int,
) -> tuple[Float64[np.ndarray, "query passage"], Float64[np.ndarray, "query passage"]]:
    """Influence, and inner products of plain gradients, of all passages for some queries."""
    batches: list[tuple[list[int], Records, dict[str, Tensor]]] = []

    def keep(batch: Batch, records: Records) -> None:
        solved = {
            name: curvatures[name].solve(record.weight_gradients(), damping=damping) for name, record in records.items()
        }
        batches.append((batch.places, records, solved))

    influence, gradient = (np.zeros((len(queries), n_passages)) for _ in range(2))

    def add(batch: Batch, records: Records) -> None:
        for rows, of_queries, solved in batches:
            at = np.ix_(rows, batch.places)
            for name, record in records.items():
                influence[at] += products_with(solved[name], record)
                gradient[at] += of_queries[name].products(record).double().cpu().numpy()

    steps.run(queries, keep)
    steps.run(documents, add)
    return influence, gradient


def products_with(solved: Tensor, record: LinearRecord) -> Float64[np.ndarray, "query passage"]:
    """Inner products of solved gradients and those of a batch."""
    products = solved.flatten(1) @ record.weight_gradients().flatten(1).mT
    return products.double().cpu().numpy()
