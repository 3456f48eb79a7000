"""Row of influence: which training text makes the model say something, checked by training on random halves of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

import babelscope as bs
from babelscope.axes import Float64
from babelscope.controls import percentile_interval
from babelscope.corpus import Corpus, Document, load_corpus
from babelscope.probes.influence import (
    InfluenceReport,
    KroneckerCurvature,
    LinearRecord,
    TextInfluence,
    influence_of_text,
)
from rows.influence_decomposition import (
    ASKED,
    CARRIED,
    LENGTH,
    in_three_orders,
    layer_headline,
    order_headline,
    plain_nats,
    plain_parts,
    second_half,
    strongest_inside,
)
from rows.result import Headline, Inputs, Planted, RowResult, Witness
from rows.training_text import REFERENCE

TAGS = ("en", "de", "es", "fi", "eu", "ru")
PASSAGES = 16
HALVES, STEPS, STEP_TOKENS = 20, 8, 512
BAR = 0.3
"""Of the linear datamodelling score."""


def completions(text: Corpus) -> Corpus:
    """The second halves of the first passages of each language, after the first ones."""
    parts = {tag: tuple(map(second_half, documents[:ASKED])) for tag, documents in text.items()}
    return Corpus(parts, "completions")


def all_neurons(model: Any, tokenizer: Any) -> bs.NeuronSet:
    """Every neuron of the model as the set of one language."""
    layout = bs.layout_of(model)
    mask = torch.ones(1, layout.n_layers, layout.d_neuron, dtype=torch.bool)
    return bs.NeuronSet.from_mask(
        mask,
        torch.zeros(mask.shape),
        origin=bs.origin_of(model, tokenizer),
        languages=(bs.Language("en"),),
        at="mlp_gate",
        method="all",
        parameters={},
    )


def plain_products(model: Any, tokenizer: Any, influence: TextInfluence, rows: int, columns: int) -> float:
    """Largest relative difference of inner products of gradients from those of autograd on the MLPs' weights."""
    weights = [value for name, value in model.named_parameters() if ".mlp." in name]

    def gradient(document: Document) -> torch.Tensor:
        parts = torch.autograd.grad(plain_nats(model, tokenizer, document), weights)
        return torch.cat([part.flatten() for part in parts]).double()

    asked, passages = (
        torch.stack([gradient(part.document) for part in side])
        for side in (influence.queries[:rows], influence.passages[:columns])
    )
    expected = (asked @ passages.T).numpy()
    return float(np.abs(influence.scores["gradient"][:rows, :columns] - expected).max() / np.abs(expected).max())


def dense_inverse() -> float:
    """A two-layer MLP at one input and every unit residual: largest relative difference from numpy's inverse."""
    torch.manual_seed(0)
    mlp = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)).double()
    x = torch.randn(6, dtype=torch.float64)
    hidden = mlp[0](x)
    with_one = torch.cat([x, torch.ones(1, dtype=torch.float64)])
    records, dense = [], []
    for residual in torch.eye(4, dtype=torch.float64):
        delta = torch.autograd.grad(residual @ mlp[2](torch.tanh(hidden)), hidden, retain_graph=True)[0]
        records.append(LinearRecord(with_one[None, None], delta[None, None]))
        dense.append(torch.outer(delta, with_one).flatten().numpy())
    curvature, gradients = KroneckerCurvature(), np.stack(dense)
    for record in records:
        curvature.add_moments(record)
    curvature.decompose()
    for record in records:
        curvature.add_squares(record, 1)
    matrix = gradients.T @ gradients / len(gradients)
    shift = 0.1 * np.trace(matrix) / len(matrix)
    expected = np.linalg.solve(matrix + shift * np.eye(len(matrix)), gradients.T).T
    solved = torch.cat([curvature.solve(record.weight_gradients(), damping=0.1) for record in records]).flatten(1)
    return float(np.abs(solved.numpy() - expected).max() / np.abs(expected).max())


def retrained(
    model: Any, tokenizer: Any, influence: TextInfluence, halves: Float64[np.ndarray, "half passage"]
) -> Float64[np.ndarray, "half query"]:
    """ln P of each completion after training a Delta of all neurons on each half, by plain transformers."""
    neurons, nats = all_neurons(model, tokenizer), []
    settings: dict[str, Any] = {"steps": STEPS, "tokens_per_step": STEP_TOKENS, "max_length": LENGTH}
    for number, half in enumerate(halves):
        documents = [part.document for part, drawn in zip(influence.passages, half, strict=True) if drawn]
        delta = bs.train_subnetwork(model, tokenizer, neurons, documents, seed=number, **settings)
        with delta.applied(model), torch.no_grad():
            nats.append([float(plain_nats(model, tokenizer, query.document)) for query in influence.queries])
    return np.array(nats)


def datamodelling_scores(
    scores: Float64[np.ndarray, "query passage"], halves: np.ndarray, nats: Float64[np.ndarray, "half query"]
) -> Float64[np.ndarray, " query"]:
    """Rank correlation over halves of a completion's ln P with the sum of its passages' scores, by scipy."""
    predicted = halves @ scores.T
    results: Sequence[Any] = [spearmanr(x, y) for x, y in zip(predicted.T, nats.T, strict=True)]
    return np.array([float(result.statistic) for result in results])


def measure_influence(inputs: Inputs) -> RowResult:
    """Row 36: parallel text of six languages, second halves of some of its passages, and twenty random halves."""
    model, tokenizer = bs.open_model("reference", device="cpu", dtype="float32")
    text = load_corpus("reference", TAGS, split="train").head(PASSAGES)
    influence = influence_of_text(model, tokenizer, completions(text), text, max_length=LENGTH)
    report = InfluenceReport(influence)
    orders = influence_of_text(
        model, tokenizer, completions(text), in_three_orders(text), max_length=CARRIED, with_tokens=1
    )
    inside_completion = strongest_inside(tokenizer, orders)
    parts = plain_parts(model, tokenizer, text.only(["en", "fi"]))
    firsts = [influence.passages[order[0]] for order in influence.order()]
    alike = [
        (first.language, first.document.id) == (query.language, query.document.id)
        for first, query in zip(firsts, influence.queries, strict=True)
    ]
    rng = np.random.default_rng(0)
    # The passages that hold a completion, or its translation, are in no half: each would tell its own alone.
    asked = {query.document.id for query in influence.queries}
    free = np.flatnonzero([passage.document.id not in asked for passage in influence.passages])
    halves = np.zeros((HALVES, len(influence.passages)))
    for half in halves:
        half[rng.permutation(free)[: len(free) // 2]] = 1
    nats = retrained(model, tokenizer, influence, halves)
    by_ranking = {name: datamodelling_scores(scores, halves, nats) for name, scores in influence.scores.items()}
    score = by_ranking["influence"]
    low, high = percentile_interval(score[rng.integers(len(score), size=(1000, len(score)))].mean(axis=1))
    others = influence.scores["influence"].copy()
    others[:, free] = others[:, rng.permutation(free)]
    permuted = datamodelling_scores(others, halves, nats)
    rivals = ", ".join(f"{name} {values.mean():.2f}" for name, values in by_ranking.items() if name != "influence")
    shares = [*report.share_rows()]
    inside = [row for row in shares if row.language == row.against]
    other = [row for row in report.parallel_rows() if row.language != row.against]
    hits, chance = (float(np.mean([getattr(row, name) for row in other])) for name in ("estimate", "null"))
    share, base = (float(np.mean([getattr(row, name) for row in inside])) for name in ("estimate", "null"))
    by_vectors = np.mean([
        rank == 0 for row in other
        for rank in report.parallel_ranks(bs.Language(row.language), bs.Language(row.against), "vectors")[0]
    ])  # fmt: skip
    return RowResult(
        witnesses=[
            Witness(
                what="the inverse of the Gauss–Newton matrix of the first layer of a two-layer MLP, by numpy, relative",
                difference=dense_inverse(),
                bar=1e-4,
            ),
            Witness(
                what="inner products of gradients by autograd on the MLPs' weights, 2 queries and 4 passages, relative",
                difference=plain_products(model, tokenizer, influence, 2, 4),
                bar=1e-4,
            ),
            Witness(
                what="parts of 2 layers by autograd on weights of their own, 3 passages, relative",
                difference=parts["layers"],
                bar=1e-3,
            ),
            Witness(
                what="parts of each token by autograd with a copy of the weights for each token, 3 passages, relative",
                difference=parts["tokens"],
                bar=1e-3,
            ),
        ],
        planted=[
            Planted(
                what=f"{len(alike)} completions stand in the text, each with its prompt: that passage is first",
                recall=float(np.mean(alike)),
                precision=float(np.mean(alike)),
            ),
            Planted(
                what=f"{len(inside_completion)} passages that begin with half of another one: the strongest token "
                "reads the completion, or stands right before it",
                recall=float(np.mean(inside_completion)),
                precision=float(np.mean(inside_completion)),
            ),
        ],
        headlines=[
            Headline(
                paper="EK-FAC agrees with what training does about as well as iterative inverses do, and better than "
                "plain products of gradients",
                ours=f"linear datamodelling score {score.mean():.2f} ({low:.2f} to {high:.2f} over {len(score)} "
                f"completions; {HALVES} Deltas, each trained on a random half of {len(free)} passages that hold none)",
                control=f"scores of other passages {permuted.mean():.2f}; {rivals}",
                model=REFERENCE,
                verdict="in shape" if score.mean() >= max(BAR, by_ranking["gradient"].mean()) else "not",
            ),
            Headline(
                paper="the influence of a translated query is small at 810M parameters and grows with the model",
                ours=f"the {report.top} most influential passages are in the query's language: {share:.2f}; the "
                f"translation is the most influential passage of another language: {hits:.2f}",
                control=f"languages permuted {base:.2f}; a passage drawn at random {chance:.2f}; by mean states of the "
                f"middle layer {by_vectors:.2f}",
                model=REFERENCE,
                verdict="in shape" if share > base and hits < share else "not",
            ),
            order_headline(orders),
            layer_headline(report),
        ],
        absent=["growth with the size of the model: one model"],
    )
