"""Counts by document shard, added up again with other weights or under other labels."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import einsum, rearrange

from babelscope.artifacts import Observation
from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.errors import MeasurementError
from babelscope.languages import Language

log = logging.getLogger(__name__)
FEWEST_SHARDS = 20
"""Fewer shards than this give no interval."""

Selector = Callable[
    [Int64[Tensor, "layer unit language"], Int64[Tensor, " language"]], Bool[Tensor, "language layer unit"]
]
"""(active, tokens) → mask.  Thresholds must come from these counts alone, so that every resample selects anew."""


class Scored(NamedTuple):
    """How selective each unit is."""

    score: Float64[Tensor, "layer unit"]
    """Lower is more selective; NaN is never selective."""
    eligible: Bool[Tensor, "layer unit"]
    """Units that a selector may choose from."""


Scorer = Callable[[Int64[Tensor, "layer unit language"], Int64[Tensor, " language"]], Scored]
"""(active, tokens) → score and eligibility of every unit."""


class Resample(NamedTuple):
    """Counts of some weighted shards."""

    active: Int64[Tensor, "layer unit language"]
    """Tokens on which each unit was active."""
    tokens: Int64[Tensor, " language"]
    """Tokens counted."""


@dataclass(frozen=True, eq=False)
class Shards:
    """Counts of one site by shard, laid out so that a resample is one matrix product.

    In an MoE a resample's rates are shares of all tokens: routed tokens are not kept by shard.
    """

    languages: tuple[Language, ...]
    """Order of the language axes."""
    counts: Float64[Tensor, "layer shard_language unit"]
    """Active tokens; whole numbers, exact in float64."""
    tokens: Float64[Tensor, "shard language"]
    """Tokens counted."""

    @classmethod
    def read(cls, observation: Observation, at: str, *, fewest: int) -> "Shards":
        """Shards of an observation; raises MeasurementError if there are fewer than `fewest` at the site."""
        record = observation[at]
        found = record.shard_active.shape[0]
        if found < fewest:
            raise MeasurementError(
                f"{at} has {found} document shards; expected at least {fewest} for this control; "
                f"observe with shards={max(32, fewest)}"
            )
        if record.routed is not None:
            log.warning("%s: routed tokens are not kept by shard; rates in this control are shares of all tokens", at)
        counts = rearrange(record.shard_active, "s l u k -> l (s k) u").double()
        return cls(observation.languages, counts, observation.shard_tokens.double())

    @property
    def n_shards(self) -> int:
        """Document shards a language."""
        return self.tokens.shape[0]

    def relabelled(self, weight: Float64[Tensor, "language shard source"]) -> Resample:
        """Counts of language k as the sum over shards and source languages of weight[k, s, source] · counts.

        Raises MeasurementError where a language is left without tokens.
        """
        rows = rearrange(weight, "k s m -> k (s m)")
        return self._resample(einsum(weight, self.tokens, "k s m, s m -> k"), rows @ self.counts)

    def own(self, weight: Float64[Tensor, "language shard"]) -> Resample:
        """Counts of each language's own shards, each taken weight[k, s] times."""
        same = torch.eye(len(weight), dtype=torch.float64)
        return self.relabelled(einsum(weight, same, "k s, k m -> k s m"))

    def common(self, weight: Float64[Tensor, " shard"]) -> Resample:
        """Counts of the shards, each taken weight[s] times, the same for every language."""
        by_shard = rearrange(self.counts, "l (s k) u -> l s (k u)", s=self.n_shards)
        counts = rearrange(weight @ by_shard, "l (k u) -> l k u", k=len(self.languages))
        return self._resample(weight @ self.tokens, counts)

    def subset(self, shards: Int64[Tensor, " some"]) -> Resample:
        """Counts of some shards, the same ones for every language."""
        return self.common(torch.zeros(self.n_shards, dtype=torch.float64).index_fill_(0, shards, 1.0))

    def _resample(
        self, tokens: Float64[Tensor, " language"], counts: Float64[Tensor, "layer language unit"]
    ) -> Resample:
        if not bool((tokens > 0).all()):
            tag = self.languages[int((tokens <= 0).nonzero()[0])]
            raise MeasurementError(
                f"a resample left no tokens of {tag}: too few of its {self.n_shards} shards hold text; "
                "expected documents in most shards; observe more text or fewer shards"
            )
        active = rearrange(counts, "l k u -> l u k").round().long().contiguous()
        return Resample(active, tokens.round().long())


def generator_of(seed: int) -> torch.Generator:
    """A local random generator."""
    return torch.Generator().manual_seed(seed)
