"""Activation patching between translations and minimal pairs: at which layer and position an answer is carried."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from babelscope.axes import Bool, Float, Float64, Int, Tensor
from babelscope.controls import percentile_interval
from babelscope.corpus import Texts, bos_of
from babelscope.errors import CorpusError, MeasurementError
from babelscope.models import Edit, Layout, layout_of
from babelscope.probes.evidence import SiteEvidence
from babelscope.probes.sentences import parallel_corpus
from babelscope.sites import At, Site

Ids = Int[Tensor, "batch token"]
Forward = Callable[[Ids, Int[Tensor, "batch token"], Sequence[int], Mapping[Site, Edit]], Float[Tensor, "batch vocab"]]
"""Right-padded ids, mask, lengths, and what to do at which site → logits after each row's last token."""
GROUPS = ("before", "changed", "between", "last")
"""Positions up to the first token that differs, those that differ, those after them, and the last one."""
SMALLEST_GAP = 0.1
"""Nats of logit difference that clean and corrupt prompts must differ by for a pair to be used."""


class PatchPair(NamedTuple):
    """Two prompts that should be continued differently."""

    clean: str
    """Continued by `answer`."""
    corrupt: str
    """Continued by `foil`."""
    answer: str
    """Its first token is scored."""
    foil: str


class TokenPair(NamedTuple):
    """The same as tokens, BOS included."""

    clean: tuple[int, ...]
    corrupt: tuple[int, ...]
    answer: int
    foil: int


class PatchEffect(NamedTuple):
    """What patching one layer at one group of positions does, over all pairs."""

    layer: int
    group: str
    pairs: int
    """Pairs that have such positions."""
    effect: float
    """0: nothing is carried over; 1: the whole logit difference; a ratio of sums over pairs."""
    low: float
    """Ends of the 95 % interval, over resampled pairs."""
    high: float
    control: float
    """The same, patched from another pair's prompt at the same positions."""
    control_low: float
    control_high: float


@dataclass(frozen=True)
class PatchTable:
    """Effects by layer and position group."""

    effects: tuple[PatchEffect, ...]
    at: str
    direction: str
    """"denoise" or "noise"."""
    pairs: int
    """Pairs used."""
    left_out: int
    """Pairs whose prompts differ by less than 0.1 nats of logit difference."""
    resamples: int
    seed: int

    def rows(self) -> list[SiteEvidence]:
        """One row a layer and group."""
        return [
            SiteEvidence(
                claim=f"patching carries the answer ({self.direction}), positions: {one.group}",
                language="",
                control="patched from an unrelated prompt",
                n=one.pairs,
                estimate=one.effect,
                low=one.low,
                high=one.high,
                draws=self.resamples,
                seed=self.seed,
                note=f"share of the logit difference; n in pairs; control {one.control_low:.3f} … "
                f"{one.control_high:.3f}; {self.left_out} pairs left out",
                site=f"{one.layer}.{self.at}",
                null=one.control,
            )
            for one in self.effects
        ]


def translation_pairs(
    tokenizer: PreTrainedTokenizerBase, texts: Texts, source: str, target: str, *, share: float = 0.5, pairs: int = 30
) -> list[TokenPair]:
    """Beginnings of the same sentences in two languages, and how each goes on.

    clean: the first `share` of a sentence's tokens in `source`, answered by its next token; corrupt: the same of its
    translation in `target`.  Sentences shorter than four tokens, or with the same next token, are left out.
    Raises CorpusError for text that is not parallel, or where no pair is left.
    """
    corpus = parallel_corpus(texts)
    bos = first_token(tokenizer)
    both = [
        tokenizer([document.text for document in corpus.only([tag])[tag]], add_special_tokens=False)["input_ids"]
        for tag in (source, target)
    ]
    found = []
    for clean, corrupt in zip(*both, strict=True):
        cuts = [max(1, round(share * len(ids))) for ids in (clean, corrupt)]
        if min(len(clean), len(corrupt)) < 4 or clean[cuts[0]] == corrupt[cuts[1]]:
            continue
        prompts = [(*bos, *ids[:cut]) for ids, cut in zip((clean, corrupt), cuts, strict=True)]
        found.append(TokenPair(prompts[0], prompts[1], clean[cuts[0]], corrupt[cuts[1]]))
    if not found:
        raise CorpusError(f"{corpus.name}: no sentence of four tokens goes on differently in {source} and {target}")
    return found[:pairs]


def first_token(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """BOS where the tokenizer has one."""
    bos = bos_of(tokenizer)
    return [] if bos is None else [bos]


def read_pairs(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[PatchPair | TokenPair]) -> list[TokenPair]:
    """Pairs as tokens; raises CorpusError for an empty prompt, and for an answer and foil that begin alike."""
    bos = first_token(tokenizer)

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    found = []
    for pair in pairs:
        if isinstance(pair, TokenPair):
            found.append(pair)
            continue
        clean, corrupt, answer, foil = (ids(text) for text in pair)
        if not (clean and corrupt and answer and foil) or answer[0] == foil[0]:
            raise CorpusError(
                f"pair {pair.clean!r}, {pair.corrupt!r}: answer {pair.answer!r} and foil {pair.foil!r} begin with the "
                "same token, or a text is empty; expected two different continuations; change the pair"
            )
        found.append(TokenPair((*bos, *clean), (*bos, *corrupt), answer[0], foil[0]))
    if len(found) < 2:
        raise CorpusError(f"{len(found)} pair came; expected at least two, one is the other's control; add pairs")
    return found


def groups_of(pair: TokenPair) -> dict[str, tuple[list[int], list[int]]]:
    """Positions of each group in the clean and in the corrupt prompt; of prompts of unlike length, "last" alone."""
    last = {"last": ([len(pair.clean) - 1], [len(pair.corrupt) - 1])}
    if len(pair.clean) != len(pair.corrupt):
        return last
    differs = [place for place, (a, b) in enumerate(zip(pair.clean, pair.corrupt, strict=True)) if a != b]
    first, end = (differs[0], differs[-1]) if differs else (len(pair.clean) - 1, -1)
    inner = range(len(pair.clean) - 1)
    found = {
        "before": [place for place in inner if place < first],
        "changed": [place for place in inner if place in differs],
        "between": [place for place in inner if place > first and place not in differs],
    }
    return {**{name: (places, places) for name, places in found.items() if places}, **last}


def patch_effects(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[PatchPair | TokenPair],
    *,
    at: At = "resid_out",
    direction: Literal["denoise", "noise"] = "denoise",
    layers: Sequence[int] | None = None,
    forward: Forward | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> PatchTable:
    """Put activations of one prompt into a run on the other, and measure how much of the answer comes along.

    LD = logit(answer) - logit(foil) after the last token.
    denoise: clean activations into the corrupt run, Σ (LD_patched - LD_corrupt) / Σ (LD_clean - LD_corrupt);
    noise: corrupt ones into the clean run, Σ (LD_clean - LD_patched) / Σ (LD_clean - LD_corrupt).  Sums over pairs,
    each with the sign that makes its own LD_clean - LD_corrupt positive.
    Groups of positions: those before the first token that differs, those that differ, those between, and the last;
    prompts of unlike length, such as translations, are patched at the last position only.
    Control: the same patch with activations of another pair's prompt of the same kind, at the same positions (its
    last one for the last, and where it is shorter).  What it carries is not of this prompt: the language of a
    translation, or, where all pairs share answer and foil, their class, such as number.
    forward: how a pass is run; None is plain hooks, `babelscope.adapters.patching.lens_forward` is TransformerLens.
    Raises MeasurementError where no pair's prompts are told apart by the model, SiteError for a site it lacks.
    Source: Heimersheim and Nanda 2024, arXiv:2404.15255.
    """
    layout, tokens = layout_of(model), read_pairs(tokenizer, pairs)
    depth = tuple(range(layout.n_layers)) if layers is None else tuple(layers)
    for layer in depth:
        layout.check(Site(layer, at))
    patching = Patching.prepare(forward or hooked_forward(layout), tokens, at, depth)
    gap = patching.gap
    used = gap.abs() >= SMALLEST_GAP
    if not bool(used.any()):
        raise MeasurementError(
            f"in none of {len(tokens)} pairs do the prompts move the logit difference by {SMALLEST_GAP}; expected a "
            "model that tells them apart; choose other pairs"
        )
    order = np.random.default_rng(seed).permutation(len(tokens))
    shifted = torch.from_numpy(order[np.argsort(order) - 1])
    weight = torch.from_numpy(
        np.random.default_rng(seed).multinomial(len(tokens), np.full(len(tokens), 1 / len(tokens)), size=resamples)
    ).double()
    effects = []
    for layer in depth:
        for group in GROUPS:
            has = torch.tensor([group in groups_of(pair) for pair in tokens]) & used
            if not bool(has.any()):
                continue
            moved, unrelated = (patching.moved(layer, group, direction, rows) for rows in (None, shifted))
            effects.append(summarise(layer, group, has, gap, moved, unrelated, weight))
    return PatchTable(tuple(effects), at, direction, int(used.sum()), int((~used).sum()), resamples, seed)


def summarise(
    layer: int,
    group: str,
    has: Bool[Tensor, " pair"],
    gap: Float64[Tensor, " pair"],
    moved: Float64[Tensor, " pair"],
    unrelated: Float64[Tensor, " pair"],
    weight: Float64[Tensor, "resample pair"],
) -> PatchEffect:
    """Ratios of sums with intervals."""
    sign = torch.sign(gap) * has
    whole, found = gap * sign, []
    for values in (moved, unrelated):
        part = values * sign
        drawn = (weight @ part) / (weight @ whole)
        drawn = drawn[(weight @ whole) > 0]
        found += [float(part.sum() / whole.sum()), *percentile_interval(drawn)]
    return PatchEffect(layer, group, int(has.sum()), *found)


@dataclass(frozen=True, eq=False)
class Side:
    """All clean, or all corrupt, prompts as one batch, and what the sites gave on them."""

    ids: Ids
    mask: Int[Tensor, "batch token"]
    lengths: tuple[int, ...]
    difference: Float64[Tensor, " pair"]
    """LD of the untouched run."""
    values: dict[int, Tensor]
    """By layer, the value at the site, [batch, token, …]."""


@dataclass(frozen=True, eq=False)
class Patching:
    """Both sides of all pairs, ready to be patched into each other."""

    forward: Forward
    pairs: Sequence[TokenPair]
    at: At
    clean: Side
    corrupt: Side

    @classmethod
    def prepare(cls, forward: Forward, pairs: Sequence[TokenPair], at: At, layers: Sequence[int]) -> "Patching":
        """Run both sides once and keep the sites' values."""
        clean = run_side(forward, [pair.clean for pair in pairs], pairs, at, layers)
        return cls(forward, pairs, at, clean, run_side(forward, [pair.corrupt for pair in pairs], pairs, at, layers))

    @property
    def gap(self) -> Float64[Tensor, " pair"]:
        """LD_clean - LD_corrupt."""
        return self.clean.difference - self.corrupt.difference

    def moved(
        self, layer: int, group: str, direction: str, other: Int[Tensor, " pair"] | None
    ) -> Float64[Tensor, " pair"]:
        """How far the patch moves LD towards the side it comes from; `other`: take the vectors of these pairs."""
        giver, taker = (self.clean, self.corrupt) if direction == "denoise" else (self.corrupt, self.clean)
        spots = list(self.spots(group, direction, giver, other))
        if not spots:
            return torch.zeros(len(self.pairs), dtype=torch.float64)
        rows, places, from_rows, from_places = (list(part) for part in zip(*spots, strict=True))
        vectors = giver.values[layer][from_rows, from_places]

        def change(value: Tensor) -> Tensor:
            new = value.clone()
            new[rows, places] = vectors
            return new

        patched = logit_difference(
            self.forward(taker.ids, taker.mask, taker.lengths, {Site(layer, self.at): change}), self.pairs
        )
        sign = 1 if direction == "denoise" else -1
        return sign * (patched - taker.difference)

    def spots(
        self, group: str, direction: str, giver: Side, other: Int[Tensor, " pair"] | None
    ) -> Iterator[tuple[int, int, int, int]]:
        """(row, position) to patch and (row, position) to take from."""
        for row, pair in enumerate(self.pairs):
            found = groups_of(pair).get(group)
            if found is None:
                continue
            given, taken = found if direction == "denoise" else found[::-1]
            source = row if other is None else int(other[row])
            for place, here in zip(given, taken, strict=True):
                end = giver.lengths[source] - 1
                yield row, here, source, end if group == "last" else min(place, end)


def run_side(
    forward: Forward, prompts: Sequence[tuple[int, ...]], pairs: Sequence[TokenPair], at: At, layers: Sequence[int]
) -> Side:
    """One pass over right-padded prompts with the sites watched."""
    lengths = tuple(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), max(lengths), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)], mask[row, : len(prompt)] = torch.tensor(prompt), 1
    values: dict[int, Tensor] = {}

    def keeper(layer: int) -> Edit:
        def keep(value: Tensor) -> None:
            values[layer] = value.clone()

        return keep

    logits = forward(ids, mask, lengths, {Site(layer, at): keeper(layer) for layer in layers})
    return Side(ids, mask, lengths, logit_difference(logits, pairs), values)


def hooked_forward(layout: Layout) -> Forward:
    """Passes through the model itself, with plain hooks."""

    @torch.no_grad()
    def forward(
        ids: Ids, mask: Int[Tensor, "batch token"], lengths: Sequence[int], edits: Mapping[Site, Edit]
    ) -> Float[Tensor, "batch vocab"]:
        device = layout.device_of(Site(None, "embed"))
        with ExitStack() as stack:
            for site, change in edits.items():
                stack.enter_context(layout.edit(site, change))
            hidden = layout.body(
                input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False
            ).last_hidden_state
        return layout.logits(hidden[torch.arange(len(ids)), torch.tensor(lengths) - 1])

    return forward


def logit_difference(logits: Float[Tensor, "batch vocab"], pairs: Sequence[TokenPair]) -> Float64[Tensor, " batch"]:
    """logit(answer) - logit(foil) of each row; raises MeasurementError at NaN or infinity."""
    rows, wide = torch.arange(len(pairs)), logits.double().cpu()
    found = wide[rows, [pair.answer for pair in pairs]] - wide[rows, [pair.foil for pair in pairs]]
    if not math.isfinite(float(found.sum())):
        raise MeasurementError("a logit is NaN or infinite; expected numbers; check the weights and dtype")
    return found
