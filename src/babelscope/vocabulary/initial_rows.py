"""Rows that new entries begin with: how each is mixed, or drawn, from rows that the model has."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float, Float32, Float64, Int64, Tensor
from babelscope.corpus import Corpus, encode_texts
from babelscope.errors import MeasurementError
from babelscope.vocabulary.entry_scripts import script_of
from babelscope.vocabulary.merge_lists import SPACE, backend_of
from babelscope.vocabulary.new_pieces import NewPiece
from babelscope.vocabulary.text_vectors import TextVectors, matching_pursuit, sparsemax, text_vectors
from babelscope.vocabulary.tokenizer_form import TokenizerForm

FEW = 20
"""Entries below which a script, or a script and place, has too few rows to draw from."""
ATOMS = 8
"""Rows that orthogonal matching pursuit mixes."""


class RowMixture(NamedTuple):
    """A row as a weighted sum of rows."""

    ids: Int64[Tensor, " part"]
    weights: Float64[Tensor, " part"]


class RowPool(NamedTuple):
    """A row drawn from the normal distribution, dimension by dimension, of some rows."""

    ids: Int64[Tensor, " part"]
    spread: float
    """What their standard deviation is multiplied by: 0 gives their mean."""


@dataclass(frozen=True, eq=False)
class NewEntries:
    """All that rows can be worked out from."""

    tokenizer: PreTrainedTokenizerBase
    """The model's own."""
    extended: PreTrainedTokenizerBase
    form: TokenizerForm
    """Of the model's own tokenizer."""
    pieces: Sequence[NewPiece]
    """In the order of their ids, which follow those of the form."""
    corpus: Corpus
    """What they were counted in."""
    learning: Mapping[str, Any]
    """How they were learnt, and what they save."""

    @cached_property
    def known(self) -> Int64[Tensor, " entry"]:
        """Ids of all entries of the model's own tokenizer."""
        return torch.tensor(sorted(self.form.entries))

    @cached_property
    def leaves(self) -> list[Counter[int]]:
        """The model's own tokens that each piece is made of, with their numbers."""
        made: dict[str, Counter[int]] = {}
        for piece in self.pieces:
            made[piece.entry] = self._parts(piece.left, made) + self._parts(piece.right, made)
        return [made[piece.entry] for piece in self.pieces]

    def _parts(self, entry: str, made: Mapping[str, Counter[int]]) -> Counter[int]:
        return made[entry] if entry in made else Counter({self.form.ids[entry]: 1})

    @cached_property
    def vectors(self) -> TextVectors:
        """Vectors of the entries in the text, as the extended tokenizer cuts it."""
        return text_vectors(self.extended, self.corpus)


def _mixture(weights: Mapping[int, float] | Mapping[int, int]) -> RowMixture:
    values = torch.tensor(list(weights.values()), dtype=torch.float64)
    return RowMixture(torch.tensor(list(weights)), values / values.sum())


def random_rows(new: NewEntries) -> list[RowPool]:
    """Drawn from the normal distribution of all rows."""
    return [RowPool(new.known, 1.0)] * len(new.pieces)


def mean_rows(new: NewEntries) -> list[RowPool]:
    """The mean of all rows."""
    return [RowPool(new.known, 0.0)] * len(new.pieces)


def subword_rows(new: NewEntries) -> list[RowMixture]:
    """The mean of the rows of the tokens that the entry was cut into before.

    Source: Koto et al. 2021, arXiv:2109.04607; Gee et al. 2022, arXiv:2402.09977.
    """
    return [_mixture(leaves) for leaves in new.leaves]


def merge_rows(new: NewEntries) -> list[RowMixture]:
    """The mean of the rows of the two entries that it joins, which may be new ones themselves."""
    made: dict[str, dict[int, float]] = {}
    for piece in new.pieces:
        both: dict[int, float] = defaultdict(float)
        for part in (piece.left, piece.right):
            for index, weight in (made[part] if part in made else {new.form.ids[part]: 1.0}).items():
                both[index] += weight / 2
        made[piece.entry] = both
    return [_mixture(made[piece.entry]) for piece in new.pieces]


def aligned_rows(new: NewEntries) -> list[RowMixture]:
    """Mean over the entry's places in the text, of the mean row of the tokens that stood there before.

    e = Σ_c freq(c) · mean(rows of c) / Σ_c freq(c) over the cuts c. A tokenizer that is extended by merges after its
    own cuts each new entry in one way only, so that this is the mean of its sub-words there; Unigram may know several.
    Entries that are in the text no more, since later ones took their places, have the mean of their sub-words.
    Source: Yamaguchi et al. 2024, arXiv:2406.11477.
    """
    first = int(new.known.max()) + 1
    cuts: dict[int, dict[int, float]] = {}
    texts = [document.text for documents in new.corpus.values() for document in documents]
    encoded = zip(encode_texts(new.tokenizer, texts), encode_texts(new.extended, texts), strict=True)
    for before, after in encoded:
        if before.encoding is None or after.encoding is None:
            continue
        ends = list(accumulate(len(token) for token in before.encoding.tokens))
        place, start = 0, 0
        for index, token in zip(after.ids, after.encoding.tokens, strict=True):
            start += len(token)
            parts = []
            while place < len(ends) and ends[place] <= start:
                parts.append(before.ids[place])
                place += 1
            if index >= first:
                weights = cuts.setdefault(index - first, defaultdict(float))
                for part in parts:
                    weights[part] += 1 / len(parts)
    by_leaves = subword_rows(new)
    return [_mixture(cuts[number]) if cuts.get(number) else by_leaves[number] for number in range(len(new.pieces))]


def script_rows(new: NewEntries) -> list[RowPool]:
    """Drawn from the rows of entries in the same script that begin a word, or do not, as the new one.

    Where they are fewer than 20, from those in the same script; where these are too, from all.
    Source: Downey et al. 2023, arXiv:2309.04679.
    """
    backend = backend_of(new.extended)
    first = int(new.known.max()) + 1

    def kind(index: int, entry: str) -> tuple[str, bool]:
        text = backend.decode([index], skip_special_tokens=False)
        return script_of(text), text.startswith(" ") or entry.startswith(SPACE)

    rows: dict[tuple[str, bool], list[int]] = defaultdict(list)
    apart = {token["id"] for token in new.form.state["added_tokens"]}
    apart |= {new.form.ids[entry] for entry in new.form.bytes} if new.form.byte_fallback else set()
    for index, entry in new.form.entries.items():
        if index not in apart:
            rows[kind(index, entry)].append(index)
    found = []
    for number, piece in enumerate(new.pieces):
        script, begins = kind(first + number, piece.entry)
        here, there = rows[script, begins], rows[script, not begins]
        ids = next((ids for ids in (here, here + there) if len(ids) >= FEW), None)
        found.append(RowPool(new.known if ids is None else torch.tensor(sorted(ids)), 1.0))
    return found


def focus_rows(new: NewEntries) -> list[RowMixture]:
    """A mixture of the rows of entries that stand among the same neighbours in the text.

    e = Σ_o sparsemax_o(cos(a_new, a_o)) · e_o over the model's own entries o of the text; a are vectors of the text.
    Source: Dobler and de Melo 2023, arXiv:2305.14481, which takes fastText's vectors; here they are of word pairs.
    """
    return _by_vectors(new, lambda vector, others: sparsemax(others @ vector))


def pursuit_rows(new: NewEntries) -> list[RowMixture]:
    """The mixture of eight entries' rows whose vectors of the text give the entry's own, by matching pursuit.

    Source: Goddard and Fernandes Neto 2025, arXiv:2506.06607, where another model's embeddings are the vectors.
    """
    return _by_vectors(new, lambda vector, others: matching_pursuit(vector, others, ATOMS))


def _by_vectors(
    new: NewEntries,
    weigh: Callable[[Float64[Tensor, " dim"], Float64[Tensor, "entry dim"]], Float64[Tensor, " entry"]],
) -> list[RowMixture]:
    """Mixtures of the model's own entries; sub-word means for entries that have no vector."""
    first, place = int(new.known.max()) + 1, {int(index): at for at, index in enumerate(new.vectors.ids)}
    shared = new.vectors.ids < first
    others, ids = new.vectors.values[shared], new.vectors.ids[shared]
    by_leaves, found = subword_rows(new), []
    for number in range(len(new.pieces)):
        if first + number not in place:
            found.append(by_leaves[number])
            continue
        weights = weigh(new.vectors.values[place[first + number]], others)
        chosen = weights != 0
        found.append(RowMixture(ids[chosen], weights[chosen]))
    return found


INITS: dict[str, Callable[[NewEntries], Sequence[RowMixture | RowPool]]] = {
    "random": random_rows,
    "mean": mean_rows,
    "subword": subword_rows,
    "merge": merge_rows,
    "align": aligned_rows,
    "script": script_rows,
    "focus": focus_rows,
    "omp": pursuit_rows,
}
"""Ways to begin, by name."""


def check_init(name: str) -> None:
    """Raise MeasurementError for a way to begin that is unknown."""
    if name not in INITS:
        raise MeasurementError(f"init {name!r} came; expected one of {', '.join(INITS)}")


@torch.no_grad()
def rows_of(
    table: Float[Tensor, "row hidden"], begins: Sequence[RowMixture | RowPool], generator: torch.Generator
) -> Float32[Tensor, "new hidden"]:
    """The new rows of one table, worked out in float64."""
    moments: dict[int, tuple[Tensor, Tensor]] = {}
    rows = torch.zeros(len(begins), table.shape[1])
    for number, begin in enumerate(begins):
        if isinstance(begin, RowMixture):
            rows[number] = (begin.weights @ table[begin.ids.to(table.device)].cpu().double()).float()
            continue
        if id(begin.ids) not in moments:
            part = table[begin.ids.to(table.device)].cpu().double()
            moments[id(begin.ids)] = part.mean(dim=0), part.std(dim=0)
        mean, deviation = moments[id(begin.ids)]
        noise = torch.randn(len(mean), generator=generator, dtype=torch.float64)
        rows[number] = (mean + begin.spread * deviation * noise).float()
    return rows
