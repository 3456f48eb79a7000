"""Rows that new entries begin with: how each is mixed, or drawn, from rows that the model has."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float, Float32, Float64, Int64, Tensor
from babelscope.corpus import Corpus, EncodedText
from babelscope.errors import MeasurementError
from babelscope.vocabulary.entry_scripts import script_of
from babelscope.vocabulary.merge_lists import SPACE, Pair, backend_of
from babelscope.vocabulary.text_vectors import TextVectors, matching_pursuit, sparsemax, text_vectors
from babelscope.vocabulary.tokenizer_form import FALLBACK_SET, TokenizerForm, encoded_in_parts
from babelscope.vocabulary.word_vectors import entry_vectors

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
    """All that the rows of another vocabulary can be worked out from."""

    tokenizer: PreTrainedTokenizerBase
    """The model's own."""
    form: TokenizerForm
    """Of the model's own tokenizer."""
    successor: PreTrainedTokenizerBase
    """The tokenizer with the new entries."""
    successor_form: TokenizerForm
    source: Int64[Tensor, " entry"]
    """By id of the successor: the row of the model's own tables that is copied; −1 where the entry is new. Rows behind
    the last entry pad the tables."""
    pairs: Mapping[str, Pair]
    """The two entries that each new one joins, in the order of making; empty for a Unigram that was trained."""
    corpus: Corpus
    """The text that they were learnt from."""
    learning: Mapping[str, Any]
    """How they were learnt, and what they save."""
    vector_file: Path | None = None
    """Vectors of words; without them those of neighbours in the text are made."""

    @cached_property
    def known(self) -> Int64[Tensor, " entry"]:
        """Ids of all entries of the model's own tokenizer."""
        return torch.tensor(sorted(self.form.entries))

    @cached_property
    def ids(self) -> list[int]:
        """Ids, in the successor, of the new entries."""
        return (self.source < 0).nonzero()[:, 0].tolist()

    @cached_property
    def entries(self) -> list[str]:
        """The new entries as the vocabulary writes them."""
        return [self.successor_form.entries[index] for index in self.ids]

    @cached_property
    def leaves(self) -> list[Counter[int]]:
        """The tokens, with their numbers, into which the model's own tokenizer cuts each new entry."""
        return [entry_leaves(self.tokenizer, entry) for entry in self.entries]

    @cached_property
    def vectors(self) -> TextVectors:
        """Vectors of the successor's entries in the text, as it cuts it."""
        if self.vector_file is None:
            return text_vectors(self.successor, self.corpus)
        return entry_vectors(self.successor, self.corpus, self.vector_file)


def entry_leaves(tokenizer: PreTrainedTokenizerBase, entry: str) -> Counter[int]:
    """The tokens, with their numbers, into which a tokenizer cuts an entry as a vocabulary writes it."""
    return Counter(token.id for token in backend_of(tokenizer).model.tokenize(entry))


def mixture_of(weights: Mapping[int, float] | Mapping[int, int]) -> RowMixture:
    """Rows by id with weights that are brought to a sum of 1."""
    values = torch.tensor(list(weights.values()), dtype=torch.float64)
    return RowMixture(torch.tensor(list(weights)), values / values.sum())


def random_rows(new: NewEntries) -> list[RowPool]:
    """Drawn from the normal distribution of all rows."""
    return [RowPool(new.known, 1.0)] * len(new.ids)


def mean_rows(new: NewEntries) -> list[RowPool]:
    """The mean of all rows."""
    return [RowPool(new.known, 0.0)] * len(new.ids)


def subword_rows(new: NewEntries) -> list[RowMixture]:
    """The mean of the rows of the tokens that the entry was cut into before.

    Source: Koto et al. 2021, arXiv:2109.04607; Gee et al. 2022, arXiv:2402.09977.
    """
    return [mixture_of(leaves) for leaves in new.leaves]


def merge_rows(new: NewEntries) -> list[RowMixture]:
    """The mean of the rows of the two entries that it joins, which may be new ones themselves.

    Of entries that no merge makes, such as letters and those of a Unigram that was trained, the mean of the sub-words.
    """
    made: dict[str, dict[int, float]] = {}
    for entry in new.pairs:
        if entry in new.form.ids:
            continue
        both: dict[int, float] = defaultdict(float)
        for part in new.pairs[entry]:
            for index, weight in (made[part] if part in made else _whole_or_cut(new, part)).items():
                both[index] += weight / 2
        made[entry] = both
    return [mixture_of(made[entry] if entry in made else entry_leaves(new.tokenizer, entry)) for entry in new.entries]


def _whole_or_cut(new: NewEntries, entry: str) -> Mapping[int, float]:
    """Weights of the entry itself where the model has it, else those of the tokens that it was cut into."""
    if entry in new.form.ids:
        return {new.form.ids[entry]: 1.0}
    leaves = entry_leaves(new.tokenizer, entry)
    return {index: count / leaves.total() for index, count in leaves.items()}


def aligned_rows(new: NewEntries) -> list[RowMixture]:
    """Mean over the entry's places in the text, of the mean row of the tokens that stood there before.

    e = Σ_c freq(c) · mean(rows of c) / Σ_c freq(c) over the cuts c, which are the tokens that share a byte with the
    entry's place. A tokenizer that is extended by merges after its own cuts each new entry in one way only, so that
    this is the mean of its sub-words there; Unigram may know several, and so does a tokenizer that is replaced.
    Entries that are in the text no more, since later ones took their places, have the mean of their sub-words.
    Source: Yamaguchi et al. 2024, arXiv:2406.11477.
    """
    cuts: dict[int, dict[int, float]] = {index: defaultdict(float) for index in new.ids}
    for before, after in zip(
        *(encoded_in_parts(one, new.corpus) for one in (new.tokenizer, new.successor)), strict=True
    ):
        edges = [byte_edges(form, one) for form, one in ((new.form, before), (new.successor_form, after))]
        if edges[0][-1] != edges[1][-1]:
            continue  # an unknown character in one of the two: places cannot be compared
        place = 0
        for index, start, end in zip(after.ids, edges[1], edges[1][1:], strict=False):
            while edges[0][place + 1] <= start:
                place += 1
            if index not in cuts:
                continue
            last = place
            while edges[0][last + 1] < end:
                last += 1
            for part in before.ids[place : last + 1]:
                cuts[index][part] += 1 / (last + 1 - place)
    by_leaves = subword_rows(new)
    return [mixture_of(cuts[index]) if cuts[index] else by_leaves[number] for number, index in enumerate(new.ids)]


def byte_edges(form: TokenizerForm, encoded: EncodedText) -> list[int]:
    """Where each token ends, in bytes of the normalised text; 0 before the first."""
    tokens = [] if encoded.encoding is None else encoded.encoding.tokens
    return [0, *accumulate(len(token) if form.byte_level else _n_bytes(form, token) for token in tokens)]


def _n_bytes(form: TokenizerForm, token: str) -> int:
    return 1 if form.byte_fallback and token in FALLBACK_SET else len(token.encode())


def script_rows(new: NewEntries) -> list[RowPool]:
    """Drawn from the rows of entries in the same script that begin a word, or do not, as the new one.

    Where they are fewer than 20, from those in the same script; where these are too, from all.
    Source: Downey et al. 2023, arXiv:2309.04679.
    """

    def kind(tokenizer: PreTrainedTokenizerBase, index: int, entry: str) -> tuple[str, bool]:
        text = backend_of(tokenizer).decode([index], skip_special_tokens=False)
        return script_of(text), text.startswith(" ") or entry.startswith(SPACE)

    rows: dict[tuple[str, bool], list[int]] = defaultdict(list)
    fixed_ids = {token["id"] for token in new.form.state["added_tokens"]}
    fixed_ids |= {new.form.ids[entry] for entry in new.form.bytes} if new.form.byte_fallback else set()
    for index, entry in new.form.entries.items():
        if index not in fixed_ids:
            rows[kind(new.tokenizer, index, entry)].append(index)

    @cache
    def pool(script: str, begins: bool) -> RowPool:
        same_place, other_place = rows[script, begins], rows[script, not begins]
        ids = next((ids for ids in (same_place, same_place + other_place) if len(ids) >= FEW), None)
        return RowPool(new.known if ids is None else torch.tensor(sorted(ids)), 1.0)

    return [pool(*kind(new.successor, index, entry)) for index, entry in zip(new.ids, new.entries, strict=True)]


def focus_rows(new: NewEntries) -> list[RowMixture]:
    """A mixture of the rows of entries that stand among the same neighbours in the text.

    e = Σ_o sparsemax_o(cos(a_new, a_o)) · e_o over the model's own entries o of the text; a are `NewEntries.vectors`.
    Source: Dobler and de Melo 2023, arXiv:2305.14481.
    """
    return _by_vectors(new, lambda vector, others: sparsemax(others @ vector))


def pursuit_rows(new: NewEntries) -> list[RowMixture]:
    """The mixture of eight entries' rows whose `NewEntries.vectors` give the entry's own, by matching pursuit.

    Source: Goddard and Fernandes Neto 2025, arXiv:2506.06607, where another model's embeddings are the vectors.
    """
    return _by_vectors(new, lambda vector, others: matching_pursuit(vector, others, ATOMS))


def _by_vectors(
    new: NewEntries,
    weigh: Callable[[Float64[Tensor, " dim"], Float64[Tensor, "entry dim"]], Float64[Tensor, " entry"]],
) -> list[RowMixture]:
    """Mixtures of the model's own entries; sub-word means for entries that have no vector."""
    place = {int(index): at for at, index in enumerate(new.vectors.ids)}
    ids = new.source[new.vectors.ids]
    others, ids = new.vectors.values[ids >= 0], ids[ids >= 0]
    by_leaves, new_rows = subword_rows(new), []
    for number, index in enumerate(new.ids):
        if index not in place or not len(others):
            new_rows.append(by_leaves[number])
            continue
        weights = weigh(new.vectors.values[place[index]], others)
        chosen = weights != 0
        new_rows.append(RowMixture(ids[chosen], weights[chosen]))
    return new_rows


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
"""Ways to begin that are mixed or drawn from rows, by name."""
DISTILLED = ("distill", "distill-shuffled")
"""Ways to begin that are learnt from the model's own states, and its control; see `distilled_rows`."""
TRANSLATED = ("translate", "translate-shuffled")
"""Ways to begin that need parallel text: its aligned words, and its control; see `translated_rows`."""


def check_init(name: str) -> None:
    """Raise MeasurementError for a way to begin that is unknown."""
    names = (*INITS, *DISTILLED, *TRANSLATED)
    if name not in names:
        raise MeasurementError(f"init {name!r} came; expected one of {', '.join(names)}")


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
