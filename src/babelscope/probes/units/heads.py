"""Attention heads by language: how much each writes, where it looks, and which prefer a language."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from einops import rearrange, repeat
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64, Tensor
from babelscope.controls import ShardSums, benjamini_hochberg, percentile_interval
from babelscope.corpus import Texts, as_corpus, pad_of, token_windows
from babelscope.errors import LanguageError, SelectionError
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.models.modes import own_precision
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.probes.shard_sums import UnitSums, check_english, zero_sums
from babelscope.probes.units.head_sums import HeadSums, gram_of
from babelscope.recording.walk import walk

HeadMeasure = Literal["written", "entropy_nats", "evenness", "sink", "previous"]
"""written   length of what the head adds to the residual stream, ‖W_O z‖
entropy_nats  of its attention pattern
evenness  that entropy over ln(tokens seen so far), 0 … 1: a longer sentence alone does not raise it
sink      attention on the first token
previous  attention on the token just before"""
MEASURES: tuple[HeadMeasure, ...] = get_args(HeadMeasure)
Heads = Mapping[Language, tuple[tuple[int, int], ...]]
"""(layer, head) pairs by language."""


@dataclass(frozen=True, eq=False)
class HeadRecord:
    """Sums of every measure of every head, by document shard and language."""

    __repr__ = shown_by()

    sums: ShardSums[UnitSums]
    """Units are (measure, layer, head); every counted token but the first of a document is a row."""
    n_layers: int
    n_heads: int
    mean_output: Float64[Tensor, "layer head d_head"]
    """Mean over languages of each head's mean output, for ablation to the mean."""

    @property
    def languages(self) -> tuple[Language, ...]:
        """Order of the language axes."""
        return self.sums.languages

    def units(self, measure: HeadMeasure) -> slice:
        """Where a measure's heads are among the units."""
        size = self.n_layers * self.n_heads
        start = MEASURES.index(measure) * size
        return slice(start, start + size)

    def by_head(self, mean: Float64[Tensor, "*any unit"], measure: HeadMeasure) -> Float64[Tensor, "*any layer head"]:
        """One measure out of means over units."""
        return rearrange(mean[..., self.units(measure)], "... (l h) -> ... l h", h=self.n_heads).contiguous()

    def mean(self, measure: HeadMeasure) -> Float64[Tensor, "language layer head"]:
        """Mean over tokens."""
        return self.by_head(self.sums.whole().mean(), measure)

    def rows(
        self, measure: HeadMeasure, *, against: str = "en", draws: int = 199, resamples: int = 200, seed: int = 0
    ) -> list[SiteEvidence]:
        """A measure of every head and language, with its interval, and its null: labels swapped with `against`.

        p is two-sided: how often swapped labels give a difference from `against` as large.
        Raises LanguageError without `against`, MeasurementError for fewer than 20 shards with text.
        """
        check_english(self.languages, against)
        base, value = self.sums.column(against), self.mean(measure)
        self.sums.check_text()
        resampled = torch.stack([sums.mean() for sums in self.sums.bootstrap(resamples, seed)])
        spread, tokens = self.by_head(resampled, measure), self.sums.whole().tokens
        rows = []
        for k, tag in enumerate(self.languages):
            swapped = [sums.mean() for sums in self.sums.pair(k, base).permuted(draws, seed + k)]
            pair = self.by_head(torch.stack(swapped), measure)
            null = (pair[:, 0] - pair[:, 1]).abs()
            gap = (value[k] - value[base]).abs()
            p = (1 + (null >= gap - 1e-15).sum(dim=0)).double() / (draws + 1)
            for layer in range(self.n_layers):
                for head in range(self.n_heads):
                    low, high = percentile_interval(spread[:, k, layer, head])
                    rows.append(
                        SiteEvidence(
                            claim=f"{measure} of head {head}",
                            language=tag,
                            control=f"labels swapped with {self.languages[base]} by shard",
                            n=int(tokens[k]),
                            estimate=float(value[k, layer, head]),
                            low=low,
                            high=high,
                            p=math.nan if k == base else float(p[layer, head]),
                            draws=draws,
                            seed=seed,
                            note="n in tokens; p of the difference from the other language, two-sided",
                            site=f"{layer}.attn_heads",
                            against=str(self.languages[base]),
                            null=float(null[:, layer, head].mean()),
                        )
                    )
        return rows


@dataclass(frozen=True, eq=False)
class HeadSelectivity:
    """How unevenly the languages share each head's activity, against permuted labels."""

    __repr__ = shown_by()

    languages: tuple[Language, ...]
    measure: str
    share: Float64[Tensor, "language layer head"]
    """A language's mean over the sum of all languages' means; 1/K is even, NaN for a head that writes nothing."""
    entropy_nats: Float64[Tensor, "layer head"]
    """Of those shares; low is selective, ln K even."""
    null: Float64[Tensor, "layer head"]
    """Mean entropy with language labels permuted by shard."""
    p: Float64[Tensor, "layer head"]
    """Rank of the entropy among the permuted ones."""
    q: Float64[Tensor, "layer head"]
    """p after Benjamini-Hochberg over all heads."""
    draws: int
    seed: int

    def heads(self, per_language: int = 1) -> Heads:
        """For each language the heads with its largest share; a head may serve several languages."""
        n_heads = self.share.shape[2]
        if not 1 <= per_language <= self.share[0].numel():
            raise SelectionError(f"{per_language} heads came; expected 1 to {self.share[0].numel()}; correct it")
        best = self.share.nan_to_num(0.0).flatten(start_dim=1).topk(per_language, dim=1).indices.tolist()
        return {
            tag: tuple(sorted(divmod(place, n_heads) for place in row))
            for tag, row in zip(self.languages, best, strict=True)
        }

    def rows(self) -> list[SiteEvidence]:
        """One row per head: its entropy, and the language with the largest share."""
        rows = []
        for layer in range(self.share.shape[1]):
            for head in range(self.share.shape[2]):
                first = int(self.share[:, layer, head].argmax())
                rows.append(
                    SiteEvidence(
                        claim=f"entropy over languages of head {head}'s {self.measure}",
                        language=self.languages[first],
                        control="language labels permuted by shard",
                        n=len(self.languages),
                        estimate=float(self.entropy_nats[layer, head]),
                        p=float(self.p[layer, head]),
                        draws=self.draws,
                        seed=self.seed,
                        note=f"nats, n in languages; largest share {float(self.share[first, layer, head]):.4f}, "
                        f"even {1 / len(self.languages):.4f}, q {float(self.q[layer, head]):.3g}",
                        site=f"{layer}.attn_heads",
                        null=float(self.null[layer, head]),
                    )
                )
        return rows


@own_precision()
def record_heads(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    tokens_per_language: int | None = 3000,
    shards: int = 32,
    max_length: int | None = None,
) -> HeadRecord:
    """Measure every head in one streamed pass: what it writes, and where it looks; no pattern is stored.

    Pads, special tokens and the first token of each document, which can only look at itself, are left out. `previous`
    counts the second token's look at the first, so there it is the sink too.
    Raises SiteError for a family that computes its attention itself (BLOOM).
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    max_length = text_length(layout, max_length)
    n_layers, n_heads = layout.n_layers, layout.n_heads
    width = layout.width("attn_heads") // n_heads
    watcher = HeadSums(
        layout=layout,
        sums=zero_sums(corpus, shards, len(MEASURES) * n_layers * n_heads),
        output=torch.zeros(len(corpus), n_layers, n_heads, width, dtype=torch.float64),
        grams=[gram_of(layout, layer) for layer in range(n_layers)],
    )
    text = token_windows(tokenizer, corpus, tokens_per_language=tokens_per_language, max_length=max_length)
    walk(layout, text, [watcher], pad=pad_of(tokenizer))
    mean = watcher.output / watcher.sums.whole().tokens[:, None, None, None]
    return HeadRecord(watcher.sums, n_layers, n_heads, mean.mean(dim=0))


def head_selectivity(
    record: HeadRecord,
    *,
    measure: Literal["written", "off_sink"] = "written",
    draws: int = 199,
    seed: int = 0,
) -> HeadSelectivity:
    """Entropy over languages of each head's activity, as LAPE takes it of a neuron's rate.

    q_k = a_k / Σ_m a_m,  H = -Σ_k q_k ln q_k. A head has no sign that says "active", so a is either
    written   mean length of what it adds to the residual stream: a size, not a rate; or
    off_sink  mean attention that is not on the first token, a rate in [0, 1]: a head at rest looks at the sink.
    Selective is not causal: see `ablate_heads`.
    Control: language labels permuted by document shard; p cannot be below 1/(draws + 1).
    Raises LanguageError for fewer than two languages.
    """
    if len(record.languages) < 2:
        raise LanguageError("one language came; an entropy over languages needs two; record another language too")

    def shares(mean: Tensor) -> Tensor:
        # A row of float32 may add up to a little more than 1.
        sink = record.by_head(mean, "sink").clamp(max=1)
        value = record.by_head(mean, "written") if measure == "written" else 1 - sink
        return value / value.sum(dim=0)

    share = shares(record.sums.whole().mean())
    entropy = torch.special.entr(share).sum(dim=0)
    permuted = (shares(sums.mean()) for sums in record.sums.permuted(draws, seed))
    null = torch.stack([torch.special.entr(permuted_share).sum(dim=0) for permuted_share in permuted])
    below = (null <= repeat(entropy, "l h -> d l h", d=draws) + 1e-12).sum(dim=0)
    p = ((1 + below).double() / (draws + 1)).masked_fill(entropy.isnan(), math.nan)
    return HeadSelectivity(
        languages=record.languages,
        measure=measure,
        share=share,
        entropy_nats=entropy,
        null=null.mean(dim=0),
        p=p,
        q=benjamini_hochberg(p).reshape(p.shape),
        draws=draws,
        seed=seed,
    )
