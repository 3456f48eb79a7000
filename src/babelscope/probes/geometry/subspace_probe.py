"""How much of the stream is language and how much content, how languages' subspaces lie, what their removal leaves."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange

from babelscope.artifacts.shown import shown_by
from babelscope.artifacts.stream_forms import StreamForm
from babelscope.axes import Float64, Int64, Tensor
from babelscope.controls import Interval, percentile_interval, rank_p
from babelscope.errors import MeasurementError
from babelscope.languages import Language
from babelscope.probes.geometry.alignment import mexa
from babelscope.probes.geometry.language_id import split_sentences
from babelscope.probes.geometry.ridge import RidgeProbe
from babelscope.probes.geometry.sentences import Pooling, Sentences
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.sites import Site
from babelscope.steering.directions.subspaces import (
    components_for,
    language_subspace,
    principal_angles,
    principal_components,
    random_subspace,
    without_subspace,
)

FEWEST = 8
"""Fewer sentences than this have no subspace to speak of."""
ORDINARY = "without first tokens and massive units"
"""What a row's note says where they are left out."""


class VarianceShare(NamedTuple):
    """Share of the variance over sentences and languages at one depth."""

    estimate: float
    interval: Interval
    """95 % over sentences, by half-samples."""
    null: float
    """Mean with the labels in question shuffled."""
    p: float


class SplitEffect(NamedTuple):
    """What the means' subspace holds at one depth: measured on sentences it was not made from."""

    accuracy: float
    """Of a linear language-identification probe on the whole stream."""
    accuracy_without: float
    """Of one trained anew without the language subspace."""
    accuracy_random: float
    """Of one without a random subspace of the same rank: the control."""
    mexa: float
    """Mean over all pairs of languages on the whole stream."""
    mexa_without: float
    mexa_random: float
    variance: float
    """Share of the test sentences' variance that lies in the language subspace."""


@dataclass(frozen=True, eq=False)
class LanguageSubspaces:
    """Geometry of languages at every depth."""

    __repr__ = shown_by()

    languages: tuple[Language, ...]
    sites: tuple[Site, ...]
    language: tuple[VarianceShare, ...]
    """Of language, by depth: what a language's mean alone explains."""
    content: tuple[VarianceShare, ...]
    """Of content: what a sentence's mean over languages explains."""
    rank: Int64[Tensor, "language depth"]
    """Components that hold 90 % of a language's variance over sentences; at most sentences - 1."""
    rank_means: Int64[Tensor, " depth"]
    """The same for the languages' means; at most n_language - 1."""
    overlap: Float64[Tensor, "depth language language"]
    """Mean squared cosine of the principal angles between two languages' leading components, from disjoint halves of
    the sentences; on the diagonal a language with itself, the ceiling."""
    floor: float
    """That of random subspaces, rank / hidden."""
    largest_angle: Float64[Tensor, "depth language language"]
    """The largest principal angle, radians."""
    split: tuple[SplitEffect, ...]
    split_rank: int
    """Dimensions taken out by the split."""
    components: int
    """Leading components compared in `overlap`."""
    sentences: int
    draws: int
    seed: int
    forms: tuple[Literal["whole", "ordinary"], ...]
    """By depth: of all tokens and units, or without first tokens and massive units."""

    def rows(self) -> list[SiteEvidence]:
        """Rows for variance shares, ranks, and the split, by depth."""
        rows = []
        shared: dict[str, Any] = {"draws": self.draws, "seed": self.seed}
        for depth, site in enumerate(self.sites):
            for name, shares, control in (
                ("language", self.language, "languages shuffled within each sentence"),
                ("content", self.content, "sentences shuffled within each language"),
            ):
                share = shares[depth]
                rows.append(
                    SiteEvidence(
                        claim=f"share of variance, {name}",
                        language="",
                        control=control,
                        n=self.sentences * len(self.languages),
                        estimate=share.estimate,
                        low=share.interval.low,
                        high=share.interval.high,
                        p=share.p,
                        null=share.null,
                        site=str(site),
                        **shared,
                    )
                )
            for k, tag in enumerate(self.languages):
                claim = "components for 90 % of the variance"
                value = int(self.rank[k, depth])
                row = SiteEvidence(
                    claim=claim, language=tag, control="none", n=self.sentences, estimate=value, site=str(site)
                )
                rows.append(row)
            effect = self.split[depth]
            for name in ("accuracy", "mexa"):
                values = [float(getattr(effect, f"{name}{end}")) for end in ("_without", "_random", "")]
                rows.append(
                    SiteEvidence(
                        claim=f"without the language subspace, {name}",
                        language="",
                        control=f"a random subspace of rank {self.split_rank}",
                        n=self.sentences,
                        estimate=values[0],
                        null=values[1],
                        note=f"whole stream {values[2]:.4f}; {effect.variance:.3f} of the variance taken out",
                        site=str(site),
                        seed=self.seed,
                    )
                )
        ordinary = {str(site) for site, form in zip(self.sites, self.forms, strict=True) if form == "ordinary"}
        return [
            replace(row, note="; ".join(filter(None, (row.note, ORDINARY)))) if row.site in ordinary else row
            for row in rows
        ]


def language_subspaces(
    sentences: Sentences,
    *,
    pooling: Pooling = "mean",
    rank: int | None = None,
    components: int = 8,
    form: StreamForm = "auto",
    draws: int = 99,
    seed: int = 0,
) -> LanguageSubspaces:
    """Variance of language and of content, ranks, angles between languages, and the language–content split.

    Vectors of parallel sentences are a two-way table, x = mean + language + sentence + rest, whose sums of squares add
    up. The split takes out the span of the languages' means over one half of the sentences and is measured on the
    other (see `babelscope.steering.directions.subspaces.language_subspace`).
    rank: of the split; None means all directions, n_language - 1.
    components: leading ones of each language that are compared by angle.
    form: as of `mean_direction`, by depth: where one unit or first tokens would dominate, "auto" leaves them out.
    Raises MeasurementError for fewer than eight sentences.
    """
    forms, sentences = sentences.forms(form), sentences.in_form(form)
    n, k = len(sentences.ids), len(sentences.languages)
    if n < FEWEST:
        raise MeasurementError(f"{n} parallel sentences came; expected at least {FEWEST}, better 200; give more text")
    generator = torch.Generator().manual_seed(seed)
    half = split_sentences(n, test_share=0.5, seed=seed)
    components = min(components, int(half.sum()) - 1, int((~half).sum()) - 1)
    language, content, ranks, rank_means, overlaps, largest, splits = [], [], [], [], [], [], []
    for depth in range(len(sentences.sites)):
        x = sentences.at(depth, pooling)
        language.append(_share(x, language_share, _relabel, draws, generator))
        content.append(_share(x, content_share, _repair, draws, generator))
        ranks.append([components_for(principal_components(vectors_of_language)[1]) for vectors_of_language in x])
        rank_means.append(components_for(principal_components(x.mean(dim=1))[1]))
        angles = subspace_angles_between(x[:, ~half], x[:, half], components)
        overlaps.append(angles.cos().square().mean(dim=2))
        largest.append(angles.amax(dim=2))
        splits.append(split_effect(x, half, rank, seed=seed))
    used = k - 1 if rank is None else rank
    return LanguageSubspaces(
        languages=sentences.languages,
        sites=sentences.sites,
        language=tuple(language),
        content=tuple(content),
        rank=rearrange(torch.tensor(ranks), "d k -> k d"),
        rank_means=torch.tensor(rank_means),
        overlap=torch.stack(overlaps),
        floor=components / sentences.vectors[pooling].shape[-1],
        largest_angle=torch.stack(largest),
        split=tuple(splits),
        split_rank=used,
        components=components,
        sentences=n,
        draws=draws,
        seed=seed,
        forms=forms,
    )


def language_share(x: Float64[Tensor, "language sentence hidden"]) -> float:
    """Share of the variance that languages' means hold: S Σ_k ‖m_k - m‖² / Σ_ks ‖x_ks - m‖²."""
    return _between(x, dim=1)


def content_share(x: Float64[Tensor, "language sentence hidden"]) -> float:
    """Share of the variance that sentences' means over languages hold."""
    return _between(x, dim=0)


def _between(x: Tensor, *, dim: Literal[0, 1]) -> float:
    centred = x - x.mean(dim=(0, 1))
    total = centred.square().sum()
    return float(centred.mean(dim=dim).square().sum() * x.shape[dim] / total) if total > 0 else 0.0


def _relabel(x: Tensor, generator: torch.Generator) -> Tensor:
    """Languages permuted within each sentence."""
    order = torch.rand(x.shape[:2], generator=generator).argsort(dim=0)
    return x.gather(0, order[..., None].expand_as(x))


def _repair(x: Tensor, generator: torch.Generator) -> Tensor:
    """Sentences permuted within each language."""
    order = torch.rand(x.shape[:2], generator=generator).argsort(dim=1)
    return x.gather(1, order[..., None].expand_as(x))


def _share(
    x: Tensor,
    measure: Callable[[Tensor], float],
    shuffle: Callable[[Tensor, torch.Generator], Tensor],
    draws: int,
    generator: torch.Generator,
) -> VarianceShare:
    estimate, n = measure(x), x.shape[1]
    null = torch.tensor([measure(shuffle(x, generator)) for _ in range(draws)], dtype=torch.float64)
    halves = [measure(x[:, torch.randperm(n, generator=generator)[: n // 2]]) for _ in range(draws)]
    parts = torch.tensor(halves, dtype=torch.float64)
    # The spread of half-samples is that of the whole; their bias, which grows as sentences get fewer, is not.
    low, high = percentile_interval(parts - parts.mean())
    interval = Interval(max(0.0, estimate + low), min(1.0, estimate + high))
    return VarianceShare(estimate, interval, float(null.mean()), rank_p(estimate, null))


def subspace_angles_between(
    x: Float64[Tensor, "language sentence hidden"], y: Float64[Tensor, "language sentence2 hidden"], rank: int
) -> Float64[Tensor, "language language angle"]:
    """Principal angles between languages' leading components: rows' from some sentences, columns' from others."""
    first = [principal_components(vectors_of_language, rank)[0] for vectors_of_language in x]
    second = [principal_components(vectors_of_language, rank)[0] for vectors_of_language in y]
    rows = [torch.stack([principal_angles(a, b) for b in second]) for a in first]
    return torch.stack(rows)


def split_effect(
    x: Float64[Tensor, "language sentence hidden"], test: Tensor, rank: int | None, *, seed: int
) -> SplitEffect:
    """Language identification and MEXA on test sentences with and without the language subspace of the others."""
    basis = language_subspace(x[:, ~test].mean(dim=1), rank)
    control = random_subspace(len(basis), x.shape[2], seed=seed)
    effects = []
    for projected in (x, without_subspace(x, basis), without_subspace(x, control)):
        pairs = combinations(projected[:, test], 2)
        near = torch.tensor([mexa(a, b) for a, b in pairs], dtype=torch.float64)
        effects.append((_accuracy(projected, test), float(near.mean())))
    (accuracy, near), (accuracy_without, near_without), (accuracy_random, near_random) = effects
    held_out = x[:, test] - x[:, test].mean(dim=(0, 1))
    variance = float((held_out @ basis.T).square().sum() / held_out.square().sum())
    return SplitEffect(accuracy, accuracy_without, accuracy_random, near, near_without, near_random, variance)


def _accuracy(x: Tensor, test: Tensor) -> float:
    train, held_out = (rearrange(x[:, side], "k s h -> (k s) h") for side in (~test, test))
    labels = torch.arange(len(x))
    predicted = RidgeProbe(train, held_out).predict(labels.repeat_interleave(int((~test).sum())), len(x))
    return float((predicted == labels.repeat_interleave(int(test.sum()))).double().mean())
