"""Attention heads chosen by how well a linear probe on each one's output tells two languages apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.controls import Evidence, Interval, percentile_interval, rank_p
from babelscope.controls.bootstrap_draws import draw_items
from babelscope.corpus import Texts, as_corpus
from babelscope.errors import CorpusError, MeasurementError
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.sites import Site
from babelscope.steering.directions.document_samples import document_means

NEWTON_STEPS = 100
GRADIENT = 1e-7


@dataclass(frozen=True, eq=False)
class HeadProbes:
    """Accuracy of each head's probe on documents that it was not trained on."""

    __repr__ = shown_by()

    target: Language
    source: Language
    accuracy: Float64[Tensor, "layer head"]
    """Mean of both languages' recalls, over all folds; chance is 1/2."""
    likelihood: Float64[Tensor, "layer head"]
    """Mean log-likelihood, in nats, that a probe gives a document's true language: it tells heads apart that are always
    right."""
    low: Float64[Tensor, "layer head"]
    """Ends of the 95 % bootstrap interval over documents; of parallel text over pairs."""
    high: Float64[Tensor, "layer head"]
    null_best: Float64[Tensor, " draw"]
    """Accuracy of the best head for labels shuffled."""
    documents: int
    pairs: int | None
    """Sentences with their translations, of parallel text; None where each document stands for itself."""
    draws: int
    seed: int

    def best(self, heads: int) -> list[tuple[int, int]]:
        """(layer, head) of those with the largest likelihood; of equal ones the earlier."""
        order = self.likelihood.flatten().sort(descending=True, stable=True).indices[:heads].tolist()
        return [divmod(place, self.accuracy.shape[1]) for place in order]

    def rows(self) -> list[Evidence]:
        """One row per head; p is its rank among the best heads of shuffled labels, so that it holds over all heads."""
        n, unit = (self.documents, "documents") if self.pairs is None else (self.pairs, "pairs of translations")
        return [
            Evidence(
                claim=f"a probe of head {layer}.{head} tells the language from {self.source}",
                language=self.target,
                control="labels shuffled, best head of each shuffle",
                n=n,
                estimate=float(self.accuracy[layer, head]),
                low=float(self.low[layer, head]),
                high=float(self.high[layer, head]),
                p=rank_p(float(self.accuracy[layer, head]), self.null_best),
                draws=self.draws,
                seed=self.seed,
                note=f"balanced accuracy on other documents; n in {unit}; null {float(self.null_best.mean()):.3f}",
            )
            for layer in range(self.accuracy.shape[0])
            for head in range(self.accuracy.shape[1])
        ]


def head_probe_accuracy(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    target: str,
    source: str = "en",
    folds: int = 5,
    draws: int = 19,
    resamples: int = 200,
    max_length: int | None = None,
    seed: int = 0,
) -> HeadProbes:
    """Train a logistic probe on each head's mean output in a document, to tell two languages apart.

    ½‖w‖² + Σ log(1 + exp(−y (w·x + b))) on units standardised over the training documents, scikit-learn's
    LogisticRegression with C = 1; accuracy on folds that were not trained on. A sentence and its translation, by id,
    are in one fold, and of parallel text they are drawn together for the interval: as two they would count twice what
    they say. Hand `likelihood` to `head_shift(scores=)` to shift the heads that are chosen so.
    Raises CorpusError for fewer documents of a language than folds.
    Source: heads by probes, CLAIM, arXiv:2506.11073; there on heads that attend to an image, here on any.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    max_length = text_length(layout, max_length)
    part = corpus.only([target, source])
    if short := [tag for tag, documents in part.items() if len(documents) < folds]:
        raise CorpusError(
            f"{', '.join(short)}: fewer than {folds} documents; expected one a fold at least; give more text"
        )
    sites = [Site(layer, "attn_heads") for layer in range(layout.n_layers)]
    means = document_means(model, tokenizer, part, sites, max_length=max_length)
    first = means[sites[0]]
    heads = layout.n_heads
    x = torch.cat([rearrange(means[site].value, "n (h d) -> h n d", h=heads).double() for site in sites])
    labels, generator = first.language == first.index(target), torch.Generator().manual_seed(seed)
    fold = fold_of(first.ids, folds, generator)
    margin = held_out_margin(x, labels, fold)
    right = margin > 0
    nulls = [
        balanced(held_out_margin(x, shuffled, fold) > 0, shuffled).max()
        for shuffled in (labels[torch.randperm(len(labels), generator=generator)] for _ in range(draws))
    ]
    units = places_by_id(first.ids) if part.parallel else [torch.tensor([place]) for place in range(len(labels))]
    picks = draw_items(len(units), resamples, generator).tolist()
    drawn_rows = (torch.cat([units[place] for place in pick]) for pick in picks)
    resampled = torch.stack([balanced(right[:, rows], labels[rows]) for rows in drawn_rows])
    ends: list[Interval] = [percentile_interval(column) for column in resampled.T]
    likelihood = -torch.nn.functional.softplus(-margin).mean(dim=1)
    accuracy, likelihood, low, high = (
        torch.as_tensor(value, dtype=torch.float64).reshape(layout.n_layers, heads)
        for value in (balanced(right, labels), likelihood, [end.low for end in ends], [end.high for end in ends])
    )
    return HeadProbes(
        target=Language.parse(target),
        source=Language.parse(source),
        accuracy=accuracy,
        likelihood=likelihood,
        low=low,
        high=high,
        null_best=torch.stack(nulls),
        documents=len(labels),
        pairs=len(units) if part.parallel else None,
        draws=draws,
        seed=seed,
    )


def places_by_id(ids: Sequence[str]) -> list[Int64[Tensor, " document"]]:
    """The places of each id's documents, in the order in which the ids came."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(ids):
        places.setdefault(name, []).append(place)
    return [torch.tensor(group) for group in places.values()]


def fold_of(ids: Sequence[str], folds: int, generator: torch.Generator) -> Int64[Tensor, " document"]:
    """The fold of each document; equal ids are in one."""
    names = sorted(set(ids))  # Documents come in the order in which they were read.
    order = torch.randperm(len(names), generator=generator).tolist()
    place = {name: order[number] % folds for number, name in enumerate(names)}
    return torch.tensor([place[name] for name in ids])


def held_out_margin(
    x: Float64[Tensor, "head document unit"], labels: Bool[Tensor, " document"], fold: Int64[Tensor, " document"]
) -> Float64[Tensor, "head document"]:
    """Log-odds that each head's probe, trained on the other folds, gives a document's label: above 0 it is right."""
    margin = torch.zeros(x.shape[:2], dtype=torch.float64)
    for number in range(int(fold.max()) + 1):
        train, test = fold != number, fold == number
        centre, spread = x[:, train].mean(dim=1, keepdim=True), x[:, train].std(dim=1, keepdim=True, correction=0)
        scaled = (x - centre) / spread.where(spread > 0, 1.0)
        weight, bias = fit_logistic(scaled[:, train], labels[train])
        score = torch.einsum("hnd,hd->hn", scaled[:, test], weight) + bias[:, None]
        margin[:, test] = torch.where(labels[test], score, -score)
    return margin


def balanced(right: Bool[Tensor, "head document"], labels: Bool[Tensor, " document"]) -> Float64[Tensor, " head"]:
    """Mean of both languages' recalls."""
    return (right[:, labels].double().mean(dim=1) + right[:, ~labels].double().mean(dim=1)) / 2


def fit_logistic(
    x: Float64[Tensor, "head document unit"], labels: Bool[Tensor, " document"]
) -> tuple[Float64[Tensor, "head unit"], Float64[Tensor, " head"]]:
    """Weights and bias of every head's logistic regression at C = 1, by Newton's steps, halved where they lead up."""
    rows = torch.cat([x, torch.ones(*x.shape[:2], 1, dtype=torch.float64)], dim=2)
    ridge = torch.ones(rows.shape[2], dtype=torch.float64)
    ridge[-1] = 0
    sign = labels.double() * 2 - 1

    def loss(weight: Tensor) -> Tensor:
        margin = sign * torch.einsum("hnd,hd->hn", rows, weight)
        return torch.nn.functional.softplus(-margin).sum(dim=1) + (ridge * weight.square()).sum(dim=1) / 2

    weight = torch.zeros(len(x), rows.shape[2], dtype=torch.float64)
    for _ in range(NEWTON_STEPS):
        share = torch.sigmoid(torch.einsum("hnd,hd->hn", rows, weight))
        slope = torch.einsum("hnd,hn->hd", rows, share - labels.double()) + ridge * weight
        if float(slope.abs().max()) < GRADIENT:
            return weight[:, :-1], weight[:, -1]
        curve = torch.einsum("hnd,hn,hne->hde", rows, share * (1 - share), rows) + torch.diag(ridge + 1e-12)
        step, length, before = (
            torch.linalg.solve(curve, slope),
            torch.ones(len(x), 1, dtype=torch.float64),
            loss(weight),
        )
        for _ in range(40):
            up = loss(weight - length * step) > before + 1e-12 * before.abs()
            if not bool(up.any()):
                break
            length[up] /= 2
        weight = weight - length * step
    raise MeasurementError("a head's probe did not converge; expected finite outputs of every head; check the model")
