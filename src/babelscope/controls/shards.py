"""Sums kept by document shard and language: the one form in which anything is resampled or has its labels permuted.

Tokens of one document depend on each other, so shards of documents are weighed, never tokens.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from einops import rearrange

from babelscope.artifacts import Observation
from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.errors import LanguageError, MeasurementError, refuse_no_number
from babelscope.languages import Language

log = logging.getLogger(__name__)
FEWEST_SHARDS = 20
"""Fewer shards than this give no interval."""
BYTES_AT_ONCE = 2**25
"""Sums of so many bytes are held for the draws of one product."""


@runtime_checkable
class Sums(Protocol):
    """A NamedTuple of float64 sums over the same text, each [shard, language, …], or [language, …] of a resample."""

    @property
    def tokens(self) -> Tensor:
        """What was counted, of which there must be some in every language: [shard, language]."""
        ...

    def __iter__(self) -> Iterator[Tensor]: ...

    @classmethod
    def _make(cls, iterable: Iterable[Any], /) -> Any: ...


@runtime_checkable
class ActivitySums(Sums, Protocol):
    """Sums that say how often each unit was active."""

    @property
    def active(self) -> Tensor:
        """Tokens on which each unit was active: [shard, language, layer, unit]."""
        ...


class NeuronSums(NamedTuple):
    """Counts of a site's units."""

    tokens: Float64[Tensor, "*shard language"]
    active: Float64[Tensor, "*shard language layer unit"]
    """Tokens on which each unit was active; whole numbers, exact below 2⁵³."""

    def by_unit(self) -> tuple[Float64[Tensor, "layer unit language"], Float64[Tensor, " language"]]:
        """Active tokens and all tokens of a resample, in the order of axes that rules of selection read.

        A view: in memory the languages stay outermost, where sums and maxima over them are several times as fast.
        """
        return rearrange(self.active, "k l u -> l u k"), self.tokens


S = TypeVar("S", bound=Sums)
A = TypeVar("A", bound=ActivitySums)
Select = Callable[[S], Bool[Tensor, "language layer unit"]]
"""Sums of a resample → mask. Thresholds must come from these sums alone, so that every resample selects anew."""


class Scored(NamedTuple):
    """How selective each unit is."""

    score: Float64[Tensor, "layer unit"]
    """Lower is more selective; NaN is never selective."""
    eligible: Bool[Tensor, "layer unit"]
    """Units that may be chosen."""


ScoreShards = Callable[[S], Scored]
"""Sums of a resample → score and eligibility of every unit."""


@dataclass(frozen=True, eq=False)
class ShardSums(Generic[S]):
    """Sums by shard, and every way to add them up again.

    Resamples come as the same NamedTuple without its shard axis; MeasurementError where one has a language without
    tokens.
    """

    languages: tuple[Language, ...]
    """Order of the language axes."""
    parallel: bool
    """Whether a shard holds the same sentences in every language: resamples then take the same shards of each, and
    labels are permuted inside a shard, which holds the content fixed."""
    by_shard: S

    @property
    def n_shards(self) -> int:
        """Document shards per language."""
        return self.by_shard.tokens.shape[0]

    def column(self, language: str) -> int:
        """Place of a language; raises LanguageError if absent."""
        tag = Language.parse(language)
        if tag not in self.languages:
            raise LanguageError(f"language {tag!r} was not read; expected one of {', '.join(self.languages)}; add it")
        return self.languages.index(tag)

    def check(self, fewest: int = FEWEST_SHARDS) -> None:
        """Raise MeasurementError for fewer shards than that."""
        if self.n_shards < fewest:
            raise MeasurementError(
                f"{self.n_shards} document shards came; expected at least {fewest} for this control; "
                f"observe again with --shards {max(32, fewest)}, in Python shards={max(32, fewest)}"
            )

    def check_text(self, fewest: int = FEWEST_SHARDS) -> None:
        """Raise MeasurementError where fewer shards than that have text of a language."""
        filled = (self.by_shard.tokens > 0).sum(dim=0)
        column = int(filled.argmin())
        if int(filled[column]) < fewest:
            raise MeasurementError(
                f"{self.languages[column]} has text in {int(filled[column])} document shards; expected at least "
                f"{fewest} for an interval; give more documents, or more shards"
            )

    def whole(self) -> S:
        """Sums of all text."""
        return self._checked(self.by_shard._make(part.sum(dim=0) for part in self.by_shard))

    def apart(self, weight: Float64[Tensor, "language shard"]) -> S:
        """Each language's shards taken weight[k, s] times."""
        return next(self.each_apart(weight[None]))

    def each_apart(self, weight: Float64[Tensor, "draw language shard"]) -> Iterator[S]:
        """`apart` for many draws, one after the other, several added in one product."""
        return self._draws(weight, lambda weights, part: torch.einsum("dks,sk...->dk...", weights, part))

    def each_common(self, weight: Float64[Tensor, "draw shard"]) -> Iterator[S]:
        """Each shard taken weight[d, s] times, the same for every language; one draw after the other."""
        return self._draws(weight, lambda weights, part: torch.tensordot(weights, part, dims=1))

    def relabelled(self, weight: Float64[Tensor, "language shard source"]) -> S:
        """Language k as the sum over shards and source languages of weight[k, s, source] times the sums."""
        return next(self.each_relabelled(weight[None]))

    def each_relabelled(self, weight: Float64[Tensor, "draw language shard source"]) -> Iterator[S]:
        """`relabelled` for many draws, one after the other."""
        return self._draws(weight, lambda weights, part: torch.tensordot(weights, part, dims=2))

    def subset(self, shards: Int64[Tensor, " some"]) -> S:
        """Some shards, the same ones for every language."""
        return next(self.each_subset([shards]))

    def each_subset(self, subsets: Sequence[Int64[Tensor, " some"]]) -> Iterator[S]:
        """`subset` for many of them, one after the other."""
        weight = torch.zeros(len(subsets), self.n_shards, dtype=torch.float64)
        for row, shards in zip(weight, subsets, strict=True):
            row.index_fill_(0, shards, 1.0)
        return self.each_common(weight)

    def bootstrap(self, draws: int, seed: int) -> Iterator[S]:
        """As many shards as there are, drawn with replacement; one draw serves all languages of parallel text."""
        weight = bootstrap_weights(self.n_shards, 1 if self.parallel else len(self.languages), draws, seed)
        return self.each_common(weight[:, 0]) if self.parallel else self.each_apart(weight)

    def permuted(self, draws: int, seed: int) -> Iterator[S]:
        """Language labels permuted by shard: what the sums are if the labels mean nothing.

        Parallel text: inside each shard; else all (shard, language) cells are dealt out anew, as many per language.
        """
        generator, shape = generator_of(seed), (self.n_shards, len(self.languages), self.parallel)
        weight = [permuted_labels(*shape, generator) for _ in range(draws)]
        return self.each_relabelled(torch.stack(weight)) if weight else iter(())

    def pair(self, language: int, other: int) -> "ShardSums[S]":
        """Two languages alone, named by their places."""
        names = (self.languages[language], self.languages[other])
        parts = self.by_shard._make(part[:, [language, other]] for part in self.by_shard)
        return replace(self, languages=names, by_shard=parts)

    def _draws(self, weight: Tensor, add: Callable[[Tensor, Tensor], Tensor]) -> Iterator[S]:
        """Resamples by a weight for each draw: one product for several reads the shards once, not once per draw."""
        bytes_per_draw = sum(part[0].numel() * part.element_size() for part in self.by_shard)
        for weights in weight.split(max(1, BYTES_AT_ONCE // max(1, bytes_per_draw))):
            for parts in zip(*(add(weights, part) for part in self.by_shard), strict=True):
                yield self._checked(self.by_shard._make(parts))

    def _checked(self, sums: S) -> S:
        if not bool((sums.tokens > 0).all()):
            tag = self.languages[int((sums.tokens <= 0).nonzero()[0])]
            filled = int((self.by_shard.tokens[:, self.languages.index(tag)] > 0).sum())
            raise MeasurementError(
                f"a resample left no tokens of {tag}: {filled} of its {self.n_shards} shards hold text; expected "
                "documents in most shards; observe again with more text (--tokens-per-language)"
            )
        return sums


def neuron_shards(observation: Observation, at: str, *, parallel: bool) -> ShardSums[NeuronSums]:
    """Counts of one site by shard.

    In an MoE a resample's rates are shares of all tokens, which is logged: routed tokens are not kept by shard.
    """
    record = observation[at]
    if record.routed is not None:
        log.warning("%s: routed tokens are not kept by shard; rates in this control are shares of all tokens", at)
    active = rearrange(record.shard_active, "s l u k -> s k l u").double().contiguous()
    return ShardSums(observation.languages, parallel, NeuronSums(observation.shard_tokens.double(), active))


def bootstrap_weights(n_shards: int, columns: int, draws: int, seed: int) -> Float64[Tensor, "draw column shard"]:
    """How often each shard is drawn, with replacement and as many as there are, for each column by itself."""
    drawn_shards = torch.randint(n_shards, (draws, columns, n_shards), generator=generator_of(seed))
    one_each = torch.ones(drawn_shards.shape, dtype=torch.float64)
    return torch.zeros(drawn_shards.shape, dtype=torch.float64).scatter_add_(2, drawn_shards, one_each)


def permuted_labels(
    n_shards: int, n_languages: int, parallel: bool, generator: torch.Generator
) -> Float64[Tensor, "language shard source"]:
    """Weights of 0 and 1 that give every (shard, source) cell one new language."""
    if parallel:
        label = torch.stack([torch.randperm(n_languages, generator=generator) for _ in range(n_shards)])
    else:
        label = torch.randperm(n_shards * n_languages, generator=generator) % n_languages
        label = rearrange(label, "(s m) -> s m", m=n_languages)
    return rearrange(torch.nn.functional.one_hot(label, n_languages), "s m k -> k s m").double()


def generator_of(seed: int) -> torch.Generator:
    """A local random generator; raises MeasurementError for a seed that is no whole number."""
    refuse_no_number({"seed": seed}, MeasurementError, whole=True)
    return torch.Generator().manual_seed(seed)
