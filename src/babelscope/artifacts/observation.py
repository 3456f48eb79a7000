"""What one pass over labelled text saw: exact counts and float64 moments, added up by language."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from babelscope.artifacts.hub import HubArtifact
from babelscope.artifacts.identity import Origin
from babelscope.artifacts.possible_sums import check_counts
from babelscope.artifacts.shown import short_text, shown_by
from babelscope.artifacts.storage import (
    SavedFolder,
    as_list,
    as_whole,
    open_folder,
    origin_config,
    save_folder,
    write_card,
)
from babelscope.artifacts.stream import BINS, HEAD, STREAM_SITES, LayerStream, StreamSums, add_streams
from babelscope.axes import Float64, Int32, Int64, Tensor
from babelscope.errors import ArtifactError, LanguageError, SiteError
from babelscope.languages import Language

log = logging.getLogger(__name__)
NOUN = "Observation"
MOST_IN_A_SHARD = torch.iinfo(torch.int32).max
"""Counts by shard are int32, and no count is above its tokens."""


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


@dataclass(frozen=True, eq=False)
class Observation(HubArtifact):
    """One streamed pass, as sums: `a + b` is the observation of both texts.

    `obs["mlp_gate"].active[layer, unit, language]`, `obs.tokens[language]`; `obs.active` is short for
    `obs["mlp_gate"].active`. Counts merge bit for bit. Moments are added in float64; those of parts differ from
    those of one pass by rounding (1e-8 of the largest in float32), for parts are batched otherwise.
    Raises ArtifactError for more tokens in a shard than its counts hold.
    """

    __repr__ = shown_by("origin.model", "tokens", "records")

    origin: Origin
    languages: tuple[Language, ...]
    """Order of every language axis."""
    records: Mapping[str, SiteRecord]
    """By the site's `at`."""
    token_counts: Int64[Tensor, " language"]
    """Tokens counted; pads, BOS and other special tokens are not among them."""
    shard_tokens: Int64[Tensor, "shard language"]
    """The same by document shard."""
    documents: Int64[Tensor, " language"]
    """Documents of which at least one token was counted."""
    truncated: Int64[Tensor, " language"]
    """Tokens dropped because a document was longer than `max_length`."""
    parts: tuple[str, ...]
    """`corpus hash:i/n` of every part in this sum."""
    settings: Mapping[str, Any]
    """Every parameter of the pass."""

    def __post_init__(self) -> None:
        if self.shards and int(self.shard_tokens.max()) > MOST_IN_A_SHARD:
            raise ArtifactError(
                f"a shard of {int(self.shard_tokens.max())} tokens of one language; expected at most "
                f"{MOST_IN_A_SHARD}, which its counts can hold; observe with more shards, or merge fewer parts"
            )

    def __getitem__(self, at: str) -> SiteRecord:
        if at not in self.records:
            raise SiteError(
                f"site {at!r} was not observed; expected one of {', '.join(self.records)}; observe again with "
                f"--sites {' '.join([*self.records, at])}, in Python sites=[…]"
            )
        return self.records[at]

    @property
    def active(self) -> Int64[Tensor, "layer unit language"]:
        """Short for `obs["mlp_gate"].active`."""
        return self["mlp_gate"].active

    @property
    def tokens(self) -> dict[Language, int]:
        """Tokens counted, by language."""
        return dict(zip(self.languages, self.token_counts.tolist(), strict=True))

    @property
    def shards(self) -> int:
        """Document shards kept apart."""
        return self.shard_tokens.shape[0]

    def index(self, language: str) -> int:
        """Place of a language on the language axis; raises LanguageError if absent."""
        tag = Language.parse(language)
        if tag not in self.languages:
            raise LanguageError(
                f"language {tag!r} was not observed; expected one of {', '.join(self.languages)}; name one of them, or "
                "observe text of it"
            )
        return self.languages.index(tag)

    def mean_norm(self, at: str, layer: int, languages: tuple[str, ...]) -> float:
        """Mean over the named languages' tokens of the norm at a site, units of the residual stream."""
        record, columns = self[at], [self.index(tag) for tag in languages]
        total = record.norm[self.row(at, layer), columns].sum()
        return float(total / self.token_counts[columns].sum())

    def row(self, at: str, layer: int) -> int:
        """Place of a layer on a site's layer axis; raises SiteError if it was not observed."""
        layers = self[at].layers
        if layer not in layers:
            raise SiteError(
                f"site '{layer}.{at}' was not observed; expected a layer of {short_text(layers)}; choose one, or "
                "observe it"
            )
        return layers.index(layer)

    def stream(self, at: str, layer: int) -> LayerStream | None:
        """What massive units and first tokens hold at a layer; None where that was not kept."""
        record, row = self[at], self.row(at, layer)
        if record.stream is None:
            return None
        parts = (record.sum, record.sumsq, record.stream.first_sum, record.stream.first_sumsq, record.stream.lengths)
        return LayerStream(self.token_counts, self.documents, *(part[row].T for part in parts))

    def __add__(self, other: "Observation") -> "Observation":
        self.origin.check_same(other.origin, "merging observations")
        if self.languages != other.languages or set(self.records) != set(other.records):
            raise ArtifactError(
                f"observations of {', '.join(self.languages)} at {', '.join(self.records)} and of "
                f"{', '.join(other.languages)} at {', '.join(other.records)}; expected the same languages and sites"
            )
        twice = sorted(set(self.parts) & set(other.parts))
        if twice:
            raise ArtifactError(f"part {twice[0]} is in both observations; expected each once; merge others")
        return replace(
            self,
            records={at: self.records[at] + other.records[at] for at in self.records},
            token_counts=self.token_counts + other.token_counts,
            shard_tokens=self.shard_tokens + other.shard_tokens,
            documents=self.documents + other.documents,
            truncated=self.truncated + other.truncated,
            parts=tuple(sorted({*self.parts, *other.parts})),
            settings={**self.settings, "controls": self._controls_with(other)},
        )

    def _controls_with(self, other: "Observation") -> dict[str, int]:
        """Control tokens that stayed text, of both."""
        own_controls, other_controls = (part.settings.get("controls", {}) for part in (self, other))
        return {
            tag: own_controls.get(tag, 0) + other_controls.get(tag, 0)
            for tag in self.languages
            if tag in own_controls or tag in other_controls
        }

    def save(self, path: str | Path) -> Path:
        """Write the folder atomically; raises ArtifactError if the path is taken."""
        tensors: dict[str, Tensor] = {
            name: getattr(self, name) for name in ("token_counts", "shard_tokens", "documents", "truncated")
        }
        for at, record in self.records.items():
            for name in ("active", "sum", "sumsq", "norm", "shard_active", "routed", "weight_norm"):
                if getattr(record, name) is not None:
                    tensors[f"{at}.{name}"] = getattr(record, name)
            if record.stream is not None:
                tensors |= {f"{at}.{name}": part for name, part in vars(record.stream).items()}
        config = {
            "origin": origin_config(self.origin),
            "languages": list(self.languages),
            "tokens": dict(self.tokens),
            "sites": {at: list(record.layers) for at, record in self.records.items()},
            "parts": list(self.parts),
            "settings": dict(self.settings),
        }
        lines = [f"Tokens counted: {', '.join(f'{tag} {n}' for tag, n in self.tokens.items())}.", ""]
        if spelt := self.settings.get("controls"):
            counts = ", ".join(f"{tag} {n}" for tag, n in spelt.items())
            lines += [f"Control tokens spelt in the text, read as text: {counts}.", ""]
        lines += stream_lines(self)
        return save_folder(path, NOUN, config, tensors, write_card(NOUN, config, lines))

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> "Observation":
        """Read a folder; raises ArtifactError for anything damaged or of another kind.

        verify: compare the tensors' bytes with their hash; False saves reading a huge file once more, and is logged.
        """
        with open_folder(path, NOUN, verify=verify) as saved:
            languages = saved.languages()
            k = len(languages)
            shard_tokens = saved.tensor("shard_tokens", torch.int64, None, k)
            records = {
                at: load_record(saved, at, layers_of(layers, at), k, len(shard_tokens))
                for at, layers in saved.table("sites").items()
            }
            observation = cls(
                origin=saved.origin(),
                languages=languages,
                records=records,
                token_counts=saved.tensor("token_counts", torch.int64, k),
                shard_tokens=shard_tokens,
                documents=saved.tensor("documents", torch.int64, k),
                truncated=saved.tensor("truncated", torch.int64, k),
                parts=saved.texts("parts"),
                settings=saved.table("settings"),
            )
            if saved.table("tokens") != dict(observation.tokens):
                raise saved.fault("tokens in config.json are not those that were counted")
            check_counts(observation)
            return observation


def layers_of(value: Any, at: str) -> tuple[int, ...]:
    """The layers of a site in config.json: whole numbers, each once."""
    layers = tuple(as_whole(layer, f"sites.{at}") for layer in as_list(value, f"sites.{at}"))
    if len({*layers}) < len(layers) or not layers:
        raise ArtifactError(f"sites.{at} names layers {list(layers)}; expected each once")
    return layers


def stream_lines(observation: Observation) -> list[str]:
    """What a card says of massive units and first tokens: a table of every stream site's layers."""
    lines = []
    for at, record in observation.records.items():
        layers = [(layer, observation.stream(at, layer)) for layer in record.layers]
        if rows := [stream.row(f"{layer}.{at}") for layer, stream in layers if stream is not None]:
            lines += [*HEAD, *rows, ""]
    return lines


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
