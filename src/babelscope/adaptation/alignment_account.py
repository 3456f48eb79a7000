"""How well translations find each other inside a model, by layer, and at which layer to align them."""

from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float64, Tensor
from babelscope.corpus import Corpus
from babelscope.languages import Language
from babelscope.models.plain import CausalModel
from babelscope.probes.geometry.alignment import cosine_matrix, mexa
from babelscope.probes.geometry.sentences import Sentences, record_sentences
from babelscope.steering.directions.subspaces import covariance_distance, nearest_layers
from babelscope.subnetworks.row_steering import RowSteering, rows_with


class AlignmentAccount(NamedTuple):
    """Measures of each language with the one it is paired with, by layer."""

    against: Language
    mexa: dict[Language, Float64[Tensor, " layer"]]
    """Share of sentences whose translation is nearer than all others, from both sides (Kargaran et al. 2025)."""
    retrieval: dict[Language, Float64[Tensor, " layer"]]
    """Share of sentences whose nearest of the other language is the translation, mean of both ways; mean pooling."""
    unrelated: dict[Language, Float64[Tensor, " layer"]]
    """Mean cosine of sentences that are no translations: near 1 the layer's states have collapsed."""
    distance: dict[Language, Float64[Tensor, " layer"]]
    """`covariance_distance` of the two languages."""

    def mean(self, measure: str) -> Float64[Tensor, " layer"]:
        """A measure, mean over languages."""
        return torch.stack(list(getattr(self, measure).values())).mean(dim=0)

    def best_layer(self, lowest: int = 0, end: int | None = None) -> int:
        """The layer of the best retrieval from `lowest` to before `end`, mean over languages; the earlier of equals."""
        return lowest + int(self.mean("retrieval")[lowest:end].argmax())

    @property
    def area(self) -> range:
        """Neighbouring layers at which the languages' subspaces are nearest: the area of ShifCon, arXiv:2410.19453."""
        return nearest_layers(self.mean("distance"))


def alignment_account(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    translations: Corpus,
    *,
    against: str | None = None,
    steering: RowSteering | None = None,
) -> AlignmentAccount:
    """Read parallel text once and compare every language with one of them, at the output of every layer.

    against: None takes "en" where it is there, else the first. steering: what acts on each language's text.
    Raises what `record_sentences` raises.
    """
    base = against or ("en" if "en" in translations else str(next(iter(translations))))
    longest = max(len(documents) for documents in translations.values())
    sentences = record_sentences(
        model,
        tokenizer,
        translations,
        sentences=longest,
        poolings=("mean", "weighted"),
        steered=lambda tag: rows_with(steering, (tag,)),
    )
    return account_of(sentences, base)


def account_of(sentences: Sentences, against: str) -> AlignmentAccount:
    """The same, of sentence vectors that are there already."""
    base = sentences.index(against)
    rows: dict[str, dict[Language, list[float]]] = {name: {} for name in AlignmentAccount._fields[1:]}
    for number, tag in enumerate(sentences.languages):
        if number == base:
            continue
        for depth in range(1, len(sentences.sites)):
            weighted, mean = sentences.at(depth, "weighted"), sentences.at(depth, "mean")
            x, y = mean[base], mean[number]
            cosine = cosine_matrix(x, y)
            values = {
                "mexa": mexa(weighted[base], weighted[number]),
                "retrieval": retrieval(cosine),
                "unrelated": float(cosine.masked_fill(torch.eye(len(x), dtype=torch.bool), 0.0).sum())
                / (len(x) * (len(x) - 1)),
                "distance": covariance_distance(x, y),
            }
            for name, value in values.items():
                rows[name].setdefault(tag, []).append(value)
    tables = {
        name: {tag: torch.tensor(values, dtype=torch.float64) for tag, values in by_tag.items()}
        for name, by_tag in rows.items()
    }
    return AlignmentAccount(against=Language.parse(against), **tables)


def retrieval(cosine: Float64[Tensor, "sentence sentence"]) -> float:
    """Share of rows, and of columns, whose largest cell is on the diagonal, mean of both; the first of equals."""
    places = torch.arange(len(cosine))
    return float(sum((cosine.argmax(dim=dim) == places).double().mean() for dim in (0, 1)) / 2)
