"""Sums at one kind of site over all its recorded layers, added up and read back with their shapes checked."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch

from babelscope.artifacts.json_entries import as_list, as_whole
from babelscope.artifacts.shown import shown_by
from babelscope.artifacts.storage import SavedFolder
from babelscope.artifacts.stream import BINS, STREAM_SITES, StreamSums, add_streams
from babelscope.axes import Float64, Int32, Int64, Tensor
from babelscope.errors import ArtifactError

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SiteRecord:
    """Sums at one kind of site over all its recorded layers."""

    __repr__ = shown_by("layers")

    layers: tuple[int, ...]
    """Which layers, in the order of the layer axis; a site without layers has (0,)."""
    active: Int64[Tensor, "layer unit language"]
    """Tokens on which the unit was active: pre-activation > 0 at `mlp_gate`, value > 0 elsewhere."""
    sum: Float64[Tensor, "layer unit language"]
    """Sum of values over tokens."""
    sumsq: Float64[Tensor, "layer unit language"]
    """Sum of squared values over tokens."""
    norm: Float64[Tensor, "layer language"]
    """Sum over tokens of the Euclidean norm across units."""
    shard_active: Int32[Tensor, "shard layer unit language"]
    """`active` split by document shard; zero shards where none were asked for."""
    routed: Int64[Tensor, "layer expert language"] | None = None
    """MoE neuron sites only: tokens routed to each expert; units are expert-major there."""
    weight_norm: Float64[Tensor, "layer unit"] | None = None
    """`mlp_inner` only: length of each neuron's column of the down projection."""
    stream: StreamSums | None = None
    """Stream sites only: first tokens by themselves, and lengths of the others; None in what earlier versions saved."""

    def __add__(self, other: "SiteRecord") -> "SiteRecord":
        if self.layers != other.layers or self.active.shape != other.active.shape:
            raise ArtifactError("observations differ in layers or units; expected passes over the same model and sites")
        if self.shard_active.shape != other.shard_active.shape:
            raise ArtifactError("observations differ in their number of shards; expected equal; observe with the same")
        return replace(
            self,
            active=self.active + other.active,
            sum=self.sum + other.sum,
            sumsq=self.sumsq + other.sumsq,
            norm=self.norm + other.norm,
            shard_active=self.shard_active + other.shard_active,
            routed=None if self.routed is None or other.routed is None else self.routed + other.routed,
            stream=add_streams(self.stream, other.stream),
        )


def layers_of(value: Any, at: str) -> tuple[int, ...]:
    """The layers of a site in config.json: whole numbers, each once."""
    layers = tuple(as_whole(layer, f"sites.{at}") for layer in as_list(value, f"sites.{at}"))
    if len({*layers}) < len(layers) or not layers:
        raise ArtifactError(f"sites.{at} names layers {list(layers)}; expected each once")
    return layers


def load_record(saved: SavedFolder, at: str, layers: tuple[int, ...], k: int, shards: int) -> SiteRecord:
    """One site of a saved Observation, its shapes checked."""
    n, double = len(layers), torch.float64
    active = saved.tensor(f"{at}.active", torch.int64, n, None, k)
    units = active.shape[1]
    routed, weight_norm = f"{at}.routed", f"{at}.weight_norm"
    return SiteRecord(
        layers=layers,
        active=active,
        sum=saved.tensor(f"{at}.sum", double, n, units, k),
        sumsq=saved.tensor(f"{at}.sumsq", double, n, units, k),
        norm=saved.tensor(f"{at}.norm", double, n, k),
        shard_active=saved.tensor(f"{at}.shard_active", torch.int32, shards, n, units, k),
        routed=saved.tensor(routed, torch.int64, n, None, k) if saved.has(routed) else None,
        weight_norm=saved.tensor(weight_norm, double, n, units) if saved.has(weight_norm) else None,
        stream=load_stream(saved, at, (n, units, k)),
    )


def load_stream(saved: SavedFolder, at: str, shape: tuple[int, int, int]) -> StreamSums | None:
    """First tokens and lengths of one site; None, with a warning, where an earlier version saved a stream site."""
    names = ("first_sum", "first_sumsq", "lengths")
    if not any(saved.has(f"{at}.{name}") for name in names):
        if at in STREAM_SITES:
            log.warning(
                "%s: of an earlier version, without first tokens and lengths at %s; directions are made of all tokens "
                "and units, as they were; observe again for the ordinary form",
                saved.path,
                at,
            )
        return None
    first, square = (saved.tensor(f"{at}.{name}", torch.float64, *shape) for name in names[:2])
    return StreamSums(first, square, saved.tensor(f"{at}.lengths", torch.int64, shape[0], BINS, shape[2]))
