"""The influence of each passage of training text on the probability of each completion."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float64
from babelscope.corpus import Batch, Corpus, Document, TokenDocument, numbered, pad_of, tokenize_documents
from babelscope.errors import CorpusError, MeasurementError
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.influence.gradient_walk import GradientWalk
from babelscope.probes.influence.influence_parts import FittedInfluence
from babelscope.probes.influence.influence_queries import flip_words
from babelscope.probes.influence.kronecker_curvature import KroneckerCurvature
from babelscope.probes.influence.mlp_projections import MlpProjections, Records, predicted_tokens
from babelscope.probes.influence.passage_rankings import bm25, tfidf_cosines, vector_cosines
from babelscope.progress import progress_bar

Ranking = Literal["influence", "flipped", "gradient", "TF-IDF", "BM25", "vectors", "length"]
"""influence: EK-FAC. flipped: the same, the order of the query's words flipped. gradient: the inner product alone.
vectors: cosines of mean states. length: predicted tokens."""
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


class TokenPart(NamedTuple):
    """A token of a passage, and what it adds to the passage's influence."""

    text: str
    part: float


@dataclass(frozen=True, eq=False)
class TextInfluence:
    """Scores of each passage for each query."""

    queries: tuple[LabelledText, ...]
    passages: tuple[LabelledText, ...]
    scores: dict[Ranking, Float64[np.ndarray, "query passage"]]
    """Larger is more influential; of "influence", 0 for a passage in which no token is predicted."""
    predicted: int
    """Tokens of the passages that are predicted: N of the influence."""
    layers: tuple[int, ...]
    """Whose MLPs take part."""
    by_layer: Float64[np.ndarray, "layer query passage"]
    """The influence by layer of the weights: over layers the parts sum to it."""
    tokens: Mapping[tuple[int, int], tuple[TokenPart, ...]] = field(default_factory=dict)
    """By (query, passage), of each query's first passages alone: over tokens, what begins a text among them, the parts
    sum to the influence."""

    def order(self, ranking: Ranking = "influence") -> np.ndarray:
        """Numbers of the passages for each query, the first the most influential."""
        return np.argsort(-self.scores[ranking], axis=1, kind="stable")


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
    with_tokens: int = 0,
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
    The gradient of a passage is a sum over layers, and in each over the tokens t that its maps y = W x read, of δ_t
    x_tᵀ: so the influence has a part for each layer, and one for each token. The part of a token is what the passage
    teaches where that token is read; what attention has brought there from earlier tokens is in it.
    with_tokens: of how many first passages of each query the tokens' parts are kept, by one more pass over these.
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
    flipped_tokens = tokens_of(tokenizer, flip_words(queries), max_length)
    groups = query_groups(projections, [*query_tokens, *flipped_tokens])
    total = (2 + len(groups)) * len(read) + len(query_tokens) + len(flipped_tokens)
    with progress_bar(total=total, unit="text", desc="influence", shown=progress) as bar:
        steps = GradientWalk(projections, pad_of(tokenizer), bar)
        fitted = FittedInfluence(steps, fitted_curvatures(steps, read, seed), damping)
        sides = [fitted.scores(group, read, len(passages)) for group in groups]
        by_layer, gradient = (np.concatenate(side, axis=-2) for side in zip(*sides, strict=True))
        influence, flipped = np.split(by_layer.sum(axis=0), 2)
        first = np.argsort(-influence, axis=1, kind="stable")[:, :with_tokens]
        parts = fitted.token_parts(query_groups(projections, query_tokens), read, first) if with_tokens else {}
    by_layer, gradient = by_layer[:, : len(asked)], gradient[: len(asked)]
    if not (np.isfinite(influence).all() and np.isfinite(gradient).all()):
        raise MeasurementError("an influence is no number; expected finite ones; open the model in float32")
    middle = layout.n_layers // 2 if layer is None else layer
    asked_texts, passage_texts = ([part.text for part in side] for side in (asked, passages))
    scores: dict[Ranking, np.ndarray] = {
        "influence": influence,
        "flipped": flipped,
        "gradient": gradient,
        "TF-IDF": tfidf_cosines(query_tokens, passage_tokens),
        "BM25": bm25(query_tokens, passage_tokens),
        "vectors": vector_cosines(model, tokenizer, asked_texts, passage_texts, middle, max_length=max_length),
        "length": np.tile(np.array(predicted, dtype=float), (len(asked), 1)),
    }
    tokens = {
        (query, place): tuple(
            TokenPart(str(tokenizer.decode([token])), part)
            for token, part in zip(passage_tokens[place].tokens, by_token.tolist(), strict=True)
        )
        for (query, place), by_token in parts.items()
    }
    return TextInfluence(asked, passages, scores, sum(predicted), projections.layers, by_layer, tokens)


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
