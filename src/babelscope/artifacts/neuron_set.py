"""Sets of neurons by language, stored as compressed sparse rows."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from babelscope.artifacts.hub import HubArtifact
from babelscope.artifacts.identity import Origin
from babelscope.artifacts.shown import shown_by
from babelscope.artifacts.storage import open_folder, origin_config, save_folder, write_card
from babelscope.axes import Bool, Float, Float32, Int32, Int64, Tensor
from babelscope.errors import ArtifactError
from babelscope.languages import Language, language_index, parse_languages
from babelscope.sites import NEURON_SITES

NOUN = "NeuronSet"


@dataclass(frozen=True, eq=False)
class NeuronSet(HubArtifact):
    """Which neurons belong to which language; a neuron may belong to several, a language to none.

    Neurons of language k in layer l: `indices[offsets[k, l] : offsets[k, l + 1]]`, ascending.
    """

    __repr__ = shown_by("origin.model", "at", "sizes", "method")

    origin: Origin
    languages: tuple[Language, ...]
    n_neurons: int
    """Neurons a layer (experts times their width in an MoE)."""
    at: str
    """`mlp_gate` or `mlp_inner`."""
    offsets: Int64[Tensor, "language layer_plus_one"]
    indices: Int32[Tensor, " selected"]
    score: Float32[Tensor, " selected"]
    """The method's score of each selected neuron; lower or higher is better as `method` says."""
    method: str
    parameters: Mapping[str, Any]
    """Every parameter and threshold used, and the tokens per language."""

    def __post_init__(self) -> None:
        offsets, indices = self.offsets, self.indices
        fits = offsets.ndim == 2 and offsets.shape[0] == len(self.languages) and offsets.shape[1] >= 2
        if not fits or len(indices) != len(self.score):
            raise ArtifactError(f"offsets {list(offsets.shape)}, {len(indices)} indices, {len(self.score)} scores")
        flat = torch.cat([offsets[:, :-1].flatten(), offsets[-1:, -1]])
        joined = bool((offsets[1:, 0] == offsets[:-1, -1]).all())
        if not joined or int(flat[0]) != 0 or int(flat[-1]) != len(indices) or bool((flat.diff() < 0).any()):
            raise ArtifactError("offsets do not cut the indices into layers; expected 0 … number of indices, ascending")
        if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < self.n_neurons):
            raise ArtifactError(
                f"neurons {int(indices.min())}–{int(indices.max())} came; expected 0–{self.n_neurons - 1}; the set is "
                "damaged or for another model"
            )
        for k in range(len(self.languages)):
            for layer in range(self.n_layers):
                if bool((self.layer_of(k, layer).diff() <= 0).any()):
                    raise ArtifactError(f"{self.languages[k]}, layer {layer}: indices not strictly ascending")

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.offsets.shape[1] - 1

    @property
    def sizes(self) -> dict[Language, int]:
        """Neurons of each language."""
        return dict(zip(self.languages, (self.offsets[:, -1] - self.offsets[:, 0]).tolist(), strict=True))

    @property
    def layer_counts(self) -> Int64[Tensor, "language layer"]:
        """Neurons of each language in each layer."""
        return self.offsets.diff(dim=1)

    def layer_of(self, k: int, layer: int) -> Int32[Tensor, " selected"]:
        """Neurons of the k-th language in a layer."""
        return self.indices[int(self.offsets[k, layer]) : int(self.offsets[k, layer + 1])]

    def index(self, language: str) -> int:
        """Place of a language; raises LanguageError if absent."""
        return language_index(language, self.languages, "language {tag} is not in this set")

    def __iter__(self) -> Iterator[Language]:
        """The languages, in order."""
        return iter(self.languages)

    def __getitem__(self, language: str) -> "NeuronSet":
        """The same set with one language only."""
        k = self.index(language)
        row = slice(int(self.offsets[k, 0]), int(self.offsets[k, -1]))
        return replace(
            self,
            languages=(self.languages[k],),
            offsets=self.offsets[k : k + 1] - self.offsets[k, 0],
            indices=self.indices[row],
            score=self.score[row],
        )

    def only(self, languages: Iterable[str]) -> "NeuronSet":
        """The same set with these languages, in this order; raises LanguageError if one is absent."""
        rows = [self[tag] for tag in parse_languages(languages)]
        starts = torch.tensor([0, *(len(row.indices) for row in rows)]).cumsum(0)
        return replace(
            self,
            languages=tuple(row.languages[0] for row in rows),
            offsets=torch.cat([row.offsets + start for row, start in zip(rows, starts[:-1], strict=True)]),
            indices=torch.cat([row.indices for row in rows]),
            score=torch.cat([row.score for row in rows]),
        )

    def mask(self) -> Bool[Tensor, "language layer neuron"]:
        """True where a neuron belongs to a language."""
        mask = torch.zeros(len(self.languages), self.n_layers, self.n_neurons, dtype=torch.bool)
        for k in range(len(self.languages)):
            for layer in range(self.n_layers):
                mask[k, layer, self.layer_of(k, layer).long()] = True
        return mask

    def as_dict(self) -> dict[Language, list[tuple[int, int]]]:
        """`{tag: [(layer, neuron), …]}`, sorted; every language keeps its key."""
        return {
            tag: [(layer, int(n)) for layer in range(self.n_layers) for n in self.layer_of(k, layer)]
            for k, tag in enumerate(self.languages)
        }

    @classmethod
    def from_mask(
        cls,
        mask: Bool[Tensor, "language layer neuron"],
        score: Float[Tensor, "language layer neuron"],
        *,
        origin: Origin,
        languages: tuple[Language, ...],
        at: str,
        method: str,
        parameters: Mapping[str, Any],
    ) -> "NeuronSet":
        """Pack a boolean mask; `score` is read where the mask is True."""
        counts = mask.sum(dim=2).flatten().cumsum(0).reshape(mask.shape[:2])
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts[:-1, -1]])
        return cls(
            origin=origin,
            languages=languages,
            n_neurons=mask.shape[2],
            at=at,
            offsets=torch.cat([starts[:, None], counts], dim=1),
            indices=mask.nonzero()[:, 2].to(torch.int32),
            score=score[mask].to(torch.float32),
            method=method,
            parameters=parameters,
        )

    def save(self, path: str | Path) -> Path:
        """Write the folder atomically; raises ArtifactError if the path is taken."""
        config = {
            "origin": origin_config(self.origin),
            "languages": list(self.languages),
            "n_layers": self.n_layers,
            "n_neurons": self.n_neurons,
            "at": self.at,
            "method": self.method,
            "parameters": dict(self.parameters),
        }
        lines = [
            f"Method: {self.method}. Neurons: {', '.join(f'{tag} {n}' for tag, n in self.sizes.items())}.",
            "Selective is not causal: see the ablation table of the run for what these neurons do.",
        ]
        tensors = {"offsets": self.offsets, "indices": self.indices, "score": self.score}
        return save_folder(path, NOUN, config, tensors, write_card(NOUN, config, lines))

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> "NeuronSet":
        """Read a folder; raises ArtifactError for anything damaged or of another kind.

        verify: compare the tensors' bytes with their hash; False saves reading a huge file once more, and is logged.
        """
        with open_folder(path, NOUN, verify=verify) as saved:
            languages = saved.languages()
            if saved.text("at") not in NEURON_SITES:
                raise saved.fault(f"at is {saved.text('at')!r}, and none of {', '.join(NEURON_SITES)}")
            indices = saved.tensor("indices", torch.int32, None)
            return cls(
                # A mask that was published without its model has an origin without a hash.
                origin=saved.origin(refuse_unknown=False),
                languages=languages,
                n_neurons=saved.whole("n_neurons", 1),
                at=saved.text("at"),
                offsets=saved.tensor("offsets", torch.int64, len(languages), saved.whole("n_layers", 1) + 1),
                indices=indices,
                score=saved.tensor("score", torch.float32, len(indices)),
                method=saved.text("method"),
                parameters=saved.table("parameters"),
            )
