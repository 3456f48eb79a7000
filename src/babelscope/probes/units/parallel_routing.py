"""Whether a mixture of experts sends translations of one sentence to the same experts, and in which layers."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float64, Tensor
from babelscope.controls import percentile_interval, rank_p
from babelscope.controls.bootstrap_draws import draw_items
from babelscope.errors import MeasurementError
from babelscope.languages import Language
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.probes.shard_sums import check_english
from babelscope.probes.units.routing import jensen_shannon
from babelscope.probes.units.sentence_routes import ParallelRouting

Compared = Literal["divergence", "overlap"]
RANDOM_PAIRS, RANDOM_LAYERS = "sentences paired at random", "layers in random order"


class MiddleContrast(NamedTuple):
    """How much further apart translations are routed in the outer layers than in the middle ones."""

    estimate: float
    """Mean divergence over the outer layers less that over the middle ones, in bits."""
    low: float
    """Lower end of the 95 % bootstrap interval over sentences."""
    high: float
    """Upper end of it."""
    p_layers: float
    """Rank among the contrasts of layers in random order."""
    null_layers: float
    """Mean of these."""
    p_pairs: float
    """Rank among the contrasts of sentences paired at random."""
    null_pairs: float
    """Mean of these: what the two languages' routing shows without the sentences' meaning."""


@dataclass(frozen=True, eq=False)
class SharedRouting:
    """Routing of translations beside that of unrelated sentences, by language and layer."""

    __repr__ = shown_by()

    languages: tuple[Language, ...]
    against: Language
    mean: Mapping[Compared, Float64[Tensor, "language layer"]]
    """Over translations: divergence in bits, 0 the same weights … 1; overlap of picks, 0 … 1 the same."""
    low: Mapping[Compared, Float64[Tensor, "language layer"]]
    """Ends of the 95 % bootstrap interval over sentences."""
    high: Mapping[Compared, Float64[Tensor, "language layer"]]
    null: Mapping[Compared, Float64[Tensor, "language layer"]]
    """Mean over sentences paired at random."""
    p: Mapping[Compared, Float64[Tensor, "language layer"]]
    """Rank of the translations' nearness among these; NaN for `against`."""
    entropy: Float64[Tensor, "language layer"]
    """Mean over sentences."""
    consistency: Float64[Tensor, "language layer"]
    """Mean over sentences of two tokens or more."""
    contrasts: Mapping[Language, MiddleContrast]
    middle: Bool[Tensor, " layer"]
    sentences: int
    draws: int
    seed: int

    def rows(self) -> list[SiteEvidence]:
        """Divergence and overlap by language and layer, entropy and consistency, and both tests of the contrast."""
        common: dict[str, Any] = {"n": self.sentences, "seed": self.seed}
        columns = [(k, tag) for k, tag in enumerate(self.languages) if tag != self.against]
        layers = range(len(self.middle))
        compared = [
            SiteEvidence(
                claim=f"expert {name} between translations",
                language=tag,
                control=RANDOM_PAIRS,
                estimate=float(self.mean[name][k, layer]),
                low=float(self.low[name][k, layer]),
                high=float(self.high[name][k, layer]),
                p=float(self.p[name][k, layer]),
                draws=self.draws,
                note="p: translations are routed more alike",
                site=f"{layer}.router",
                against=self.against,
                null=float(self.null[name][k, layer]),
                **common,
            )
            for name in self.mean
            for k, tag in columns
            for layer in layers
        ]
        by_language = [
            SiteEvidence(
                claim=claim,
                language=tag,
                control="none",
                estimate=float(value[k, layer]),
                site=f"{layer}.router",
                **common,
            )
            for claim, value in (
                ("routing entropy of a token over its largest value", self.entropy),
                ("experts that two tokens of a sentence share", self.consistency),
            )
            for k, tag in enumerate(self.languages)
            for layer in layers
        ]
        span = [int(layer) for layer in self.middle.nonzero()[:, 0]]
        tests = [
            SiteEvidence(
                claim="translations are routed further apart in outer layers than in the middle",
                language=tag,
                control=control,
                estimate=contrast.estimate,
                low=contrast.low,
                high=contrast.high,
                p=p,
                draws=self.draws,
                note=f"bits; middle: layers {span[0]} to {span[-1]}",
                against=self.against,
                null=null,
                **common,
            )
            for tag, contrast in self.contrasts.items()
            for control, p, null in (
                (RANDOM_LAYERS, contrast.p_layers, contrast.null_layers),
                (RANDOM_PAIRS, contrast.p_pairs, contrast.null_pairs),
            )
        ]
        return [*tests, *compared, *by_language]


def pick_overlap(p: Float64[Tensor, "*any expert"], q: Float64[Tensor, "*any expert"]) -> Float64[Tensor, "*any"]:
    """Σ_e min(p_e, q_e): the share of choices that two sentences have in common."""
    return torch.minimum(p, q).sum(dim=-1)


def middle_layers(layers: int) -> Bool[Tensor, " layer"]:
    """The inner half: without a quarter, one layer at least, at both ends; raises MeasurementError for under three."""
    if layers < 3:
        raise MeasurementError(f"{layers} layers came; expected at least 3; a smaller model has no middle")
    edge, middle = max(1, layers // 4), torch.ones(layers, dtype=torch.bool)
    middle[:edge] = middle[layers - edge :] = False
    return middle


def outer_less_middle(
    divergence: Float64[Tensor, "draw layer"], middle: Bool[Tensor, " layer"]
) -> Float64[Tensor, " draw"]:
    """Mean over outer layers less the mean over middle ones."""
    return divergence[:, ~middle].mean(dim=1) - divergence[:, middle].mean(dim=1)


def shared_routing(
    record: ParallelRouting, *, against: str = "en", draws: int = 199, resamples: int = 200, seed: int = 0
) -> SharedRouting:
    """How alike each language's sentences and their translations are routed, by layer, and whether the middle shares.

    divergence: Jensen-Shannon of both sentences' mean weights, in bits; overlap: Σ_e min of both sentences' picks;
    means over sentences. The contrast is the mean divergence of the outer layers (first and last quarter) less that of
    the middle ones. Controls: sentences paired at random, which say whether meaning is what is shared, and layers in
    random order, which say whether the middle is a place of its own. Neighbouring layers are alike, so p over layers
    is too small for few or smooth layers; there the other control is the stricter.
    Source: routing that is language-specific early and late and shared in between, arXiv:2510.04694.
    Raises LanguageError without `against` or with one language, MeasurementError for fewer than four sentences or three
    layers.
    """
    check_english(record.languages, against)
    base, (k, layers, n) = record.languages.index(Language.parse(against)), record.entropy.shape
    middle = middle_layers(layers)
    if n < 4:
        raise MeasurementError(f"{n} parallel sentences came; expected at least 4, better 100; give more text")
    generator = torch.Generator().manual_seed(seed)
    shuffles = torch.stack([torch.randperm(n, generator=generator) for _ in range(draws)])
    orders = torch.stack([torch.randperm(layers, generator=generator) for _ in range(draws)])
    resampled = draw_items(n, resamples, generator)
    measures: dict[Compared, tuple[Tensor, Callable, float]] = {
        "divergence": (record.weights, jensen_shannon, -1.0),
        "overlap": (record.picks, pick_overlap, 1.0),
    }
    blank = torch.full((k, layers), math.nan, dtype=torch.float64)
    tables: list[dict[Compared, Tensor]] = [{name: blank.clone() for name in measures} for _ in range(5)]
    mean, low, high, null, p = tables
    contrasts = {}
    for row in (row for row in range(k) if row != base):
        for name, (shares, measure, sign) in measures.items():
            random_pairs, resamples_of = [], []
            for layer in range(layers):
                pairs = measure(*torch.broadcast_tensors(shares[base, layer][:, None], shares[row, layer][None]))
                translated = pairs.diagonal()
                random_pairs.append(pairs[torch.arange(n), shuffles].mean(dim=1))
                resamples_of.append(translated[resampled].mean(dim=1))
                mean[name][row, layer] = translated.mean()
                null[name][row, layer] = random_pairs[-1].mean()
                p[name][row, layer] = rank_p(float(sign * translated.mean()), sign * random_pairs[-1])
                low[name][row, layer], high[name][row, layer] = percentile_interval(resamples_of[-1])
            if name == "divergence":
                contrasts[record.languages[row]] = contrast_of(
                    mean[name][row], torch.stack(random_pairs, dim=1), torch.stack(resamples_of, dim=1), orders, middle
                )
    return SharedRouting(
        languages=record.languages,
        against=record.languages[base],
        mean=mean,
        low=low,
        high=high,
        null=null,
        p=p,
        entropy=record.entropy.mean(dim=2),
        consistency=record.consistency.nanmean(dim=2),
        contrasts=contrasts,
        middle=middle,
        sentences=n,
        draws=draws,
        seed=seed,
    )


def contrast_of(
    divergence: Float64[Tensor, " layer"],
    random_pairs: Float64[Tensor, "draw layer"],
    resampled: Float64[Tensor, "resample layer"],
    orders: Tensor,
    middle: Bool[Tensor, " layer"],
) -> MiddleContrast:
    """The contrast of one language with its interval and both controls."""
    estimate = float(outer_less_middle(divergence[None], middle)[0])
    of_layers, of_pairs = (outer_less_middle(by_layer, middle) for by_layer in (divergence[orders], random_pairs))
    return MiddleContrast(
        estimate,
        *percentile_interval(outer_less_middle(resampled, middle)),
        rank_p(estimate, of_layers),
        float(of_layers.mean()),
        rank_p(estimate, of_pairs),
        float(of_pairs.mean()),
    )
