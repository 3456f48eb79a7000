"""What one pass over labelled text saw: exact counts and float64 moments, added up by language."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from babelscope.artifacts.hub import HubArtifact
from babelscope.artifacts.identity import Origin
from babelscope.artifacts.possible_sums import check_range, check_site_sums
from babelscope.artifacts.shown import short_text, shown_by
from babelscope.artifacts.site_record import SiteRecord, layers_of, load_record
from babelscope.artifacts.storage import open_folder, origin_config, save_folder, write_card
from babelscope.artifacts.stream import HEAD, LayerStream
from babelscope.axes import Int64, Tensor
from babelscope.errors import ArtifactError, SiteError
from babelscope.languages import Language, language_index

log = logging.getLogger(__name__)
NOUN = "Observation"
MOST_IN_A_SHARD = torch.iinfo(torch.int32).max
"""Counts by shard are int32, and no count is above its tokens."""


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
        return language_index(
            language,
            self.languages,
            "language {tag} was not observed",
            advice="name one of them, or observe text of it",
        )

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

    def check_counts(self, *, norms: bool = True) -> None:
        """Raise ArtifactError for sums that no pass over text can give.

        Counts are of 0 or more tokens and of no more than there are, shards add up to the whole, and with n tokens
        (Σx)² ≤ n·Σx² for a unit, and (Σ|x|)² ≤ n·Σ_units Σx² for the norm.
        norms: as of `check_site_sums`.
        """
        tokens, shards = self.token_counts, self.shard_tokens
        check_range("token_counts", tokens)
        check_range("documents", self.documents, tokens)
        check_range("truncated", self.truncated)
        check_range("shard_tokens", shards)
        if self.shards and not torch.equal(shards.sum(0), tokens):
            raise ArtifactError("shard_tokens do not add up to token_counts")
        for at, record in self.records.items():
            check_site_sums(at, record, tokens=tokens, shards=shards, documents=self.documents, norms=norms)

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
            observation.check_counts()
            return observation


def stream_lines(observation: Observation) -> list[str]:
    """What a card says of massive units and first tokens: a table of every stream site's layers."""
    lines = []
    for at, record in observation.records.items():
        layers = [(layer, observation.stream(at, layer)) for layer in record.layers]
        if rows := [stream.row(f"{layer}.{at}") for layer, stream in layers if stream is not None]:
            lines += [*HEAD, *rows, ""]
    return lines
