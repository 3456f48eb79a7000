"""What one pass saw of an autoencoder's features: firing by language, by document, and on random tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from babelscope.artifacts.hub import HubArtifact
from babelscope.artifacts.json_entries import as_text, entries_of
from babelscope.artifacts.observation import Observation
from babelscope.artifacts.possible_sums import ROUNDING, check_range
from babelscope.artifacts.shown import shown_by
from babelscope.artifacts.site_record import SiteRecord
from babelscope.artifacts.storage import SavedFolder, open_folder, origin_config, save_folder, write_card
from babelscope.axes import Float32, Float64, Int32, Int64, Tensor
from babelscope.errors import ArtifactError
from babelscope.languages import Language
from babelscope.sites import Site

NOUN = "FeatureObservation"


@dataclass(frozen=True, eq=False)
class RandomTokens:
    """The same features on sequences of tokens drawn uniformly; by language, because a language may leave out its own.

    Where the sequences are the same for every language its columns are equal.
    """

    fired: Int64[Tensor, "feature language"]
    """Tokens on which the feature fired."""
    present: Int64[Tensor, "feature language"]
    """Sequences in which it fired."""
    tokens: Int64[Tensor, " language"]
    sequences: Int64[Tensor, " language"]


@dataclass(frozen=True, eq=False)
class FeatureObservation(HubArtifact):
    """One streamed pass of an autoencoder over labelled text, as sums: `a + b` is the observation of both texts.

    Counts merge bit for bit, sums as those of an Observation. Random tokens are read once and are no part of the sum:
    two observations merge only if theirs are the same.
    """

    __repr__ = shown_by("sae_id", "site", "counts")

    counts: Observation
    """Firing of the features as an Observation: its units are features, at the site's name, of one layer."""
    present: Int64[Tensor, "feature language"]
    """Documents in which the feature fired."""
    shard_present: Int32[Tensor, "shard feature language"]
    shard_documents: Int64[Tensor, "shard language"]
    shard_sum: Float64[Tensor, "shard feature language"]
    """Sum of values, by document shard."""
    random: RandomTokens
    decoder_norm: Float32[Tensor, " feature"]
    site: Site
    sae_id: str
    sae_hash: str

    @property
    def languages(self) -> tuple[Language, ...]:
        """Order of every language axis."""
        return self.counts.languages

    @property
    def record(self) -> SiteRecord:
        """The sums, of one layer."""
        return self.counts[self.site.at]

    @property
    def fired(self) -> Int64[Tensor, "feature language"]:
        """Tokens on which each feature fired."""
        return self.record.active[0]

    @property
    def sum(self) -> Float64[Tensor, "feature language"]:
        """Sum of values over tokens, those where it did not fire being 0."""
        return self.record.sum[0]

    @property
    def sumsq(self) -> Float64[Tensor, "feature language"]:
        """Sum of squared values over tokens."""
        return self.record.sumsq[0]

    @property
    def tokens(self) -> Int64[Tensor, " language"]:
        """Tokens counted."""
        return self.counts.token_counts

    @property
    def documents(self) -> Int64[Tensor, " language"]:
        """Documents read."""
        return self.counts.documents

    @property
    def n_features(self) -> int:
        """Features of the autoencoder."""
        return self.record.active.shape[1]

    def __add__(self, other: "FeatureObservation") -> "FeatureObservation":
        if (self.sae_hash, self.site) != (other.sae_hash, other.site):
            raise ArtifactError(
                f"observations of {self.sae_id} at '{self.site}' ({self.sae_hash}) and of {other.sae_id} at "
                f"'{other.site}' ({other.sae_hash}); expected one autoencoder; observe with the same"
            )
        equal_parts = [
            torch.equal(getattr(self.random, f.name), getattr(other.random, f.name)) for f in fields(RandomTokens)
        ]
        if not all(equal_parts):
            raise ArtifactError(
                "observations differ on random tokens; expected the same sequences; observe with equal settings"
            )
        names = ("present", "shard_present", "shard_documents", "shard_sum")
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return replace(self, counts=self.counts + other.counts, **sums)

    def save(self, path: str | Path) -> Path:
        """Write the folder atomically; raises ArtifactError if the path is taken."""
        config = {
            "origin": origin_config(self.counts.origin),
            "languages": list(self.languages),
            "tokens": dict(self.counts.tokens),
            "site": str(self.site),
            "sae": {"id": self.sae_id, "hash": self.sae_hash},
            "parts": list(self.counts.parts),
            "settings": dict(self.counts.settings),
        }
        lines = [
            f"Autoencoder {self.sae_id} at `{self.site}`. Tokens counted: "
            f"{', '.join(f'{tag} {n}' for tag, n in self.counts.tokens.items())}.",
        ]
        return save_folder(path, NOUN, config, dict(self._tensors()), write_card(NOUN, config, lines))

    def _tensors(self) -> Mapping[str, Tensor]:
        own_fields = ("present", "shard_present", "shard_documents", "shard_sum", "decoder_norm")
        text = ("token_counts", "shard_tokens", "documents", "truncated")
        sums = ("active", "sum", "sumsq", "norm", "shard_active")
        return {
            **{name: getattr(self, name) for name in own_fields},
            **{name: getattr(self.counts, name) for name in text},
            **{name: getattr(self.record, name) for name in sums},
            **{f"random.{f.name}": getattr(self.random, f.name) for f in fields(RandomTokens)},
        }

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> "FeatureObservation":
        """Read a folder; raises ArtifactError for anything damaged or of another kind.

        verify: compare the tensors' bytes with their hash; False saves reading a huge file once more, and is logged.
        """
        with open_folder(path, NOUN, verify=verify) as saved:
            observation = cls._read(saved)
            if saved.table("tokens") != dict(observation.counts.tokens):
                raise saved.fault("tokens in config.json are not those that were counted")
            observation.check()
            return observation

    @classmethod
    def _read(cls, saved: SavedFolder) -> "FeatureObservation":
        languages, site = saved.languages(), Site.parse(saved.text("site"))
        sae_id, sae_hash = entries_of(saved.entry("sae"), "sae", ("id", "hash"))
        k, take = len(languages), saved.tensor
        features = take("decoder_norm", torch.float32, None).shape[0]
        shards = take("shard_tokens", torch.int64, None, k).shape[0]
        counts, double, small = torch.int64, torch.float64, torch.int32
        record = SiteRecord(
            layers=(site.layer or 0,),
            active=take("active", counts, 1, features, k),
            sum=take("sum", double, 1, features, k),
            sumsq=take("sumsq", double, 1, features, k),
            norm=take("norm", double, 1, k),
            shard_active=take("shard_active", small, shards, 1, features, k),
        )
        return cls(
            counts=Observation(
                origin=saved.origin(),
                languages=languages,
                records={site.at: record},
                token_counts=take("token_counts", counts, k),
                shard_tokens=take("shard_tokens", counts, shards, k),
                documents=take("documents", counts, k),
                truncated=take("truncated", counts, k),
                parts=saved.texts("parts"),
                settings=saved.table("settings"),
            ),
            present=take("present", counts, features, k),
            shard_present=take("shard_present", small, shards, features, k),
            shard_documents=take("shard_documents", counts, shards, k),
            shard_sum=take("shard_sum", double, shards, features, k),
            random=RandomTokens(
                fired=take("random.fired", counts, features, k),
                present=take("random.present", counts, features, k),
                tokens=take("random.tokens", counts, k),
                sequences=take("random.sequences", counts, k),
            ),
            decoder_norm=take("decoder_norm", torch.float32, features),
            site=site,
            sae_id=as_text(sae_id, "sae.id"),
            sae_hash=as_text(sae_hash, "sae.hash"),
        )

    def check(self) -> None:
        """Raise ArtifactError for sums that no pass over text can give, as those of its counts and by document."""
        self.counts.check_counts(norms=False)
        for what, values, most in (
            ("present", self.present, self.fired.minimum(self.documents)),
            ("shard_documents", self.shard_documents, self.documents),
            ("shard_present", self.shard_present, self.shard_documents[:, None]),
            ("random.tokens", self.random.tokens, None),
            ("random.sequences", self.random.sequences, self.random.tokens),
            ("random.fired", self.random.fired, self.random.tokens),
            ("random.present", self.random.present, self.random.fired.minimum(self.random.sequences)),
            ("decoder_norm", self.decoder_norm, None),
        ):
            check_range(what, values, most)
        if self.counts.shards:
            summed_shards = (self.shard_present.sum(0, dtype=torch.int64), self.shard_documents.sum(0))
            if not (torch.equal(summed_shards[0], self.present) and torch.equal(summed_shards[1], self.documents)):
                raise ArtifactError("sums by document shard do not add up to the whole")
            room = (self.sumsq * self.tokens).sqrt() * ROUNDING
            if bool(((self.shard_sum.sum(0) - self.sum).abs() > room).any()):
                raise ArtifactError("shard_sum does not add up to sum")
