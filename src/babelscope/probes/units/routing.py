"""Which experts a mixture of experts gives to which language."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64, Int64, Tensor
from babelscope.controls import Evidence, ShardSums, benjamini_hochberg, percentile_interval, rank_p
from babelscope.corpus import Batch, Texts, as_corpus, pad_of, token_windows
from babelscope.errors import SiteError
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.probes.shard_sums import UnitSums, add_rows, check_english, zero_sums
from babelscope.recording.walk import walk
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.sites import Site


@dataclass(frozen=True, eq=False)
class RoutingUse:
    """How often each expert was chosen, by document shard and language."""

    __repr__ = shown_by()

    sums: ShardSums[UnitSums]
    """Units are (layer, expert); unit: tokens routed there."""
    n_experts: int
    top_k: int
    """Experts that a token is given to."""
    layers: tuple[int, ...]
    """Those with experts: the order of the layer axes."""

    @property
    def languages(self) -> tuple[Language, ...]:
        """Order of the language axes."""
        return self.sums.languages

    @property
    def routed(self) -> Int64[Tensor, "language layer expert"]:
        """Tokens routed to each expert; over the experts of a layer they sum to top_k times the tokens."""
        counts = rearrange(self.sums.whole().total, "k (l e) -> k l e", e=self.n_experts)
        return counts.round().long().contiguous()

    @property
    def share(self) -> Float64[Tensor, "language layer expert"]:
        """Share of a layer's choices that fell on each expert; sums to 1."""
        return rearrange(self.sums.whole().mean(), "k (l e) -> k l e", e=self.n_experts).contiguous() / self.top_k


@dataclass(frozen=True, eq=False)
class RoutingDivergence:
    """How far each language's expert use lies from another's, against swapped labels."""

    __repr__ = shown_by()

    languages: tuple[Language, ...]
    against: Language
    divergence: Float64[Tensor, "language layer"]
    """Jensen-Shannon, in bits: 0 the same use … 1 no expert in common."""
    low: Float64[Tensor, "language layer"]
    """Ends of the 95 % bootstrap interval over shards."""
    high: Float64[Tensor, "language layer"]
    null: Float64[Tensor, "language layer"]
    """Mean divergence with swapped labels: what this much text gives where language does not matter."""
    p: Float64[Tensor, "language layer"]
    """Rank among the swapped draws; NaN for `against` itself."""
    q: Float64[Tensor, "language layer"]
    """p after Benjamini-Hochberg over all cells."""
    tokens: Int64[Tensor, " language"]
    layers: tuple[int, ...]
    """Those with experts: the order of the layer axes."""
    draws: int
    seed: int

    def rows(self) -> list[Evidence]:
        """One row per language and layer."""
        return [
            Evidence(
                claim=f"expert use differs from {self.against} in layer {number}",
                language=tag,
                control="language labels swapped by shard",
                n=int(self.tokens[k]),
                estimate=float(self.divergence[k, layer]),
                low=float(self.low[k, layer]),
                high=float(self.high[k, layer]),
                p=float(self.p[k, layer]),
                draws=self.draws,
                seed=self.seed,
                note=f"Jensen-Shannon, bits; n in tokens; null mean {float(self.null[k, layer]):.4f}, "
                f"q {float(self.q[k, layer]):.3g}",
            )
            for k, tag in enumerate(self.languages)
            if tag != self.against
            for layer, number in enumerate(self.layers)
        ]


def routing_use(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    tokens_per_language: int | None = 5000,
    shards: int = 32,
    max_length: int | None = None,
) -> RoutingUse:
    """Count in one streamed pass to which experts every layer sends each language's tokens.

    Pads, BOS and other special tokens are not counted. Layers with a dense MLP among others with experts are left out.
    Raises SiteError for a dense model.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    max_length = text_length(layout, max_length)
    if not layout.n_experts:
        raise SiteError(f"{model.config.model_type} is dense; expected a model with experts; probe heads or neurons")
    watcher = RouteCounts(layout, zero_sums(corpus, shards, len(layout.routed_layers) * layout.n_experts))
    text = token_windows(tokenizer, corpus, tokens_per_language=tokens_per_language, max_length=max_length)
    walk(layout, text, [watcher], pad=pad_of(tokenizer))
    return RoutingUse(watcher.sums, layout.n_experts, watcher.top_k, layout.routed_layers)


@dataclass(eq=False)
class RouteCounts:
    """Tokens that every layer sends to each expert."""

    layout: Layout
    sums: ShardSums[UnitSums]
    top_k: int = 0
    """Experts that a token is given to."""

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """The experts of every layer that has some."""
        return dict.fromkeys((Site(layer, "mlp_gate") for layer in self.layout.routed_layers), self.read)

    def read(self, batch: Batch, site_value: SiteValue) -> tuple[Float64[Tensor, "batch expert"], int]:
        """Counted tokens of each document by expert, and how many experts a token is given to."""
        assert site_value.routes is not None
        chosen = reduce(F.one_hot(site_value.routes, self.layout.n_experts), "b t k e -> b t e", "sum").double()
        return (chosen * site_value.counted[..., None]).sum(dim=1), site_value.routes.shape[-1]

    def add(self, batch: Batch, values: dict[Site, tuple[Float64[Tensor, "batch expert"], int]]) -> None:
        """Add a batch."""
        for site, (rows, self.top_k) in values.items():
            assert site.layer is not None
            place = self.layout.routed_layers.index(site.layer)
            add_rows(self.sums, batch, rows, place * self.layout.n_experts)
        no_values = torch.zeros(len(batch.documents), 0, dtype=torch.float64)
        add_rows(self.sums, batch, no_values, tokens=batch.counted.sum(dim=1))


def jensen_shannon(p: Float64[Tensor, "*any expert"], q: Float64[Tensor, "*any expert"]) -> Float64[Tensor, "*any"]:
    """Divergence of two distributions in bits: H((p + q)/2) - (H(p) + H(q))/2, in [0, 1]."""
    entropy = torch.special.entr(torch.stack([(p + q) / 2, p, q])).sum(dim=-1) / math.log(2)
    return (entropy[0] - (entropy[1] + entropy[2]) / 2).clamp(0, 1)


def routing_divergence(
    use: RoutingUse, *, against: str = "en", draws: int = 199, resamples: int = 200, seed: int = 0
) -> RoutingDivergence:
    """Jensen-Shannon divergence of each language's expert use from another's, by layer, with its null and interval.

    Null: the two languages' labels swapped by document shard, never by token. A divergence of finite text is above 0
    also where nothing differs; `null` says by how much, and bootstrap intervals share that bias.
    Raises LanguageError without `against` or with one language, MeasurementError for fewer than 20 shards with text.
    """
    check_english(use.languages, against)
    base, k = use.sums.column(against), len(use.languages)

    def by_layer(mean: Tensor) -> Tensor:
        return rearrange(mean, "... (l e) -> ... l e", e=use.n_experts) / use.top_k

    share = by_layer(use.sums.whole().mean())
    js = jensen_shannon(share, share[base].expand_as(share))
    use.sums.check_text()
    resampled = by_layer(torch.stack([sums.mean() for sums in use.sums.bootstrap(resamples, seed)]))
    spread = jensen_shannon(resampled, resampled[:, base : base + 1].expand_as(resampled))
    null, p = torch.zeros_like(js), torch.full_like(js, math.nan)
    for tag_index in (column for column in range(k) if column != base):
        swapped = [sums.mean() for sums in use.sums.pair(tag_index, base).permuted(draws, seed + tag_index)]
        pair = by_layer(torch.stack(swapped))
        null_draws = jensen_shannon(pair[:, 0], pair[:, 1])
        null[tag_index] = null_draws.mean(dim=0)
        p[tag_index] = torch.tensor(
            [rank_p(float(js[tag_index, layer]), null_draws[:, layer]) for layer in range(js.shape[1])]
        )
    ends = [[percentile_interval(spread[:, row, layer]) for layer in range(js.shape[1])] for row in range(k)]
    low, high = (torch.tensor([[cell[end] for cell in row] for row in ends], dtype=torch.float64) for end in (0, 1))
    return RoutingDivergence(
        languages=use.languages,
        against=use.languages[base],
        divergence=js,
        low=low,
        high=high,
        null=null,
        p=p,
        q=benjamini_hochberg(p).reshape(p.shape),
        tokens=use.sums.whole().tokens.long(),
        layers=use.layers,
        draws=draws,
        seed=seed,
    )
