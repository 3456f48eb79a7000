"""Sets of autoencoder features by language, stored as compressed sparse rows."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from babelscope.artifacts.hub import HubArtifact
from babelscope.artifacts.identity import Origin
from babelscope.artifacts.json_entries import as_text, as_whole, entries_of
from babelscope.artifacts.shown import shown_by
from babelscope.artifacts.storage import open_folder, origin_config, save_folder, write_card
from babelscope.axes import Bool, Float, Float32, Int32, Int64, Tensor
from babelscope.errors import ArtifactError
from babelscope.languages import Language, language_index, parse_languages
from babelscope.sites import Site

NOUN = "FeatureSet"


@dataclass(frozen=True, eq=False)
class FeatureSet(HubArtifact):
    """Which features of one autoencoder belong to which language; a feature may belong to several, a language to none.

    Features of language k: `indices[offsets[k] : offsets[k + 1]]`, best first by `score`, higher being better.
    Raises ArtifactError for offsets, indices or scores that do not fit each other.
    """

    __repr__ = shown_by("origin.model", "sae_id", "site", "sizes", "method")

    origin: Origin
    languages: tuple[Language, ...]
    site: Site
    """Where the autoencoder reads and writes."""
    sae_id: str
    """What it was opened by; for people."""
    sae_hash: str
    """Hash of its weights: a set is good for these only."""
    n_features: int
    """Features of the autoencoder."""
    offsets: Int64[Tensor, " language_plus_one"]
    indices: Int32[Tensor, " selected"]
    score: Float32[Tensor, " selected"]
    """The method's score of each selected feature in its language; higher is better."""
    method: str
    parameters: Mapping[str, Any]
    """Every parameter and threshold used, sizes before any cap, and the tokens per language."""

    def __post_init__(self) -> None:
        offsets, n = self.offsets, len(self.indices)
        ends = len(offsets) == len(self.languages) + 1 and int(offsets[0]) == 0 and int(offsets[-1]) == n
        if not ends or bool((offsets.diff() < 0).any()) or len(self.score) != n:
            raise ArtifactError(
                f"offsets {offsets.tolist()} for {len(self.languages)} languages, {n} indices and {len(self.score)} "
                "scores; expected 0 … number of indices, ascending; the set is damaged"
            )
        if n and not 0 <= int(self.indices.min()) <= int(self.indices.max()) < self.n_features:
            raise ArtifactError(
                f"feature {int(self.indices.max())} is out of range; expected 0–{self.n_features - 1}; the set is "
                "damaged or for another autoencoder"
            )
        for k, tag in enumerate(self.languages):
            row = slice(int(offsets[k]), int(offsets[k + 1]))
            if len(self.indices[row].unique()) != row.stop - row.start or bool((self.score[row].diff() > 0).any()):
                raise ArtifactError(f"{tag}: features twice, or not best first; expected each once, by falling score")

    @property
    def sizes(self) -> dict[Language, int]:
        """Features of each language."""
        return dict(zip(self.languages, self.offsets.diff().tolist(), strict=True))

    def index(self, language: str) -> int:
        """Place of a language; raises LanguageError if absent."""
        return language_index(language, self.languages, "language {tag} is not in this set")

    def features(self, language: str) -> Int64[Tensor, " selected"]:
        """Features of a language, best first."""
        k = self.index(language)
        return self.indices[int(self.offsets[k]) : int(self.offsets[k + 1])].long()

    def as_dict(self) -> dict[Language, list[int]]:
        """`{tag: [feature, …]}`, best first; every language keeps its key."""
        return {tag: self.features(tag).tolist() for tag in self.languages}

    def mask(self) -> Bool[Tensor, "language feature"]:
        """True where a feature belongs to a language."""
        mask = torch.zeros(len(self.languages), self.n_features, dtype=torch.bool)
        for k, tag in enumerate(self.languages):
            mask[k, self.features(tag)] = True
        return mask

    def _cut(self, rows: list[tuple[Language, slice]]) -> "FeatureSet":
        return replace(
            self,
            languages=tuple(tag for tag, _ in rows),
            offsets=torch.tensor([0, *(row.stop - row.start for _, row in rows)]).cumsum(0),
            indices=torch.cat([self.indices[row] for _, row in rows]),
            score=torch.cat([self.score[row] for _, row in rows]),
        )

    def _row(self, language: str) -> slice:
        k = self.index(language)
        return slice(int(self.offsets[k]), int(self.offsets[k + 1]))

    def __iter__(self) -> Iterator[Language]:
        """The languages, in order."""
        return iter(self.languages)

    def __getitem__(self, language: str) -> "FeatureSet":
        """The same set with one language only."""
        return self.only([language])

    def only(self, languages: Iterable[str]) -> "FeatureSet":
        """The same set with these languages, in this order; raises LanguageError if one is absent."""
        return self._cut([(self.languages[self.index(tag)], self._row(tag)) for tag in parse_languages(languages)])

    def top(self, count: int) -> "FeatureSet":
        """The `count` best features of each language, all where there are fewer."""
        rows = [(tag, self._row(tag)) for tag in self.languages]
        return self._cut([(tag, slice(row.start, min(row.stop, row.start + count))) for tag, row in rows])

    @classmethod
    def from_mask(
        cls,
        mask: Bool[Tensor, "language feature"],
        score: Float[Tensor, "language feature"],
        *,
        cap: int | None = None,
        **fields: Any,
    ) -> "FeatureSet":
        """Pack a boolean mask, best first by `score`; equal scores go to the lowest feature.

        cap: features per language at most.
        fields: the other fields of the set.
        """
        rows, scores = [], []
        for chosen, values in zip(mask, score, strict=True):
            places = chosen.nonzero().flatten()
            order = values[places].to(torch.float32).sort(descending=True, stable=True).indices[:cap]
            rows.append(places[order])
            scores.append(values[places[order]])
        return cls(
            offsets=torch.tensor([0, *(len(row) for row in rows)]).cumsum(0),
            indices=torch.cat(rows).to(torch.int32),
            score=torch.cat(scores).to(torch.float32),
            n_features=mask.shape[1],
            **fields,
        )

    def save(self, path: str | Path) -> Path:
        """Write the folder atomically; raises ArtifactError if the path is taken."""
        config = {
            "origin": origin_config(self.origin),
            "languages": list(self.languages),
            "site": str(self.site),
            "sae": {"id": self.sae_id, "hash": self.sae_hash, "features": self.n_features},
            "method": self.method,
            "parameters": dict(self.parameters),
        }
        lines = [
            f"Autoencoder {self.sae_id} at `{self.site}`. Method: {self.method}. "
            f"Features: {', '.join(f'{tag} {n}' for tag, n in self.sizes.items())}.",
            "Selective is not causal: see the ablation table of the run for what these features do.",
        ]
        tensors = {"offsets": self.offsets, "indices": self.indices, "score": self.score}
        return save_folder(path, NOUN, config, tensors, write_card(NOUN, config, lines))

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> "FeatureSet":
        """Read a folder; raises ArtifactError for anything damaged or of another kind.

        verify: compare the tensors' bytes with their hash; False saves reading a huge file once more, and is logged.
        """
        with open_folder(path, NOUN, verify=verify) as saved:
            languages = saved.languages()
            indices = saved.tensor("indices", torch.int32, None)
            sae_id, sae_hash, features = entries_of(saved.entry("sae"), "sae", ("id", "hash", "features"))
            return cls(
                origin=saved.origin(),
                languages=languages,
                site=Site.parse(saved.text("site")),
                sae_id=as_text(sae_id, "sae.id"),
                sae_hash=as_text(sae_hash, "sae.hash"),
                n_features=as_whole(features, "sae.features", 1),
                offsets=saved.tensor("offsets", torch.int64, len(languages) + 1),
                indices=indices,
                score=saved.tensor("score", torch.float32, len(indices)),
                method=saved.text("method"),
                parameters=saved.table("parameters"),
            )
