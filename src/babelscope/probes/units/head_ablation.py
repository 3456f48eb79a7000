"""What breaks when a language's heads are switched off, against other heads of the same layers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float, Float64, Tensor
from babelscope.controls import percentile_interval, rank_p
from babelscope.controls.bootstrap_draws import draw_counts
from babelscope.corpus import Texts, as_corpus
from babelscope.errors import LanguageError, SelectionError
from babelscope.evaluation import HeldOut, Losses, document_losses
from babelscope.languages import Language, parse_languages
from babelscope.models import Edit, Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.sites import Site

Head = tuple[int, int]
"""Layer and head."""
TRIES = 200
"""Draws for one more control set that differs from the others, before no more are taken to exist."""


class HeadHarm(NamedTuple):
    """One language's heads switched off."""

    language: Language
    heads: tuple[Head, ...]
    harm: dict[Language, float]
    """Relative harm on each text: rise of its summed negative log-likelihood over what it was."""
    low: float
    """Ends of the 95 % interval of the own harm, over resampled documents."""
    high: float
    specificity: float
    """Own harm minus the largest harm on another language's text."""
    specificity_low: float
    specificity_high: float
    drawn: tuple[float, ...]
    """Own harm of each control set: as many other heads of the same layers."""
    p: float
    """Rank among them."""


@dataclass(frozen=True)
class HeadAblation:
    """Harm of every language's heads, with controls."""

    __repr__ = shown_by()

    languages: tuple[HeadHarm, ...]
    documents: Mapping[Language, int]
    """Of each text."""
    to: str
    """"zero" or "mean"."""
    resamples: int
    seed: int

    @property
    def worst(self) -> int:
        """Languages whose own heads harm them more than every control set does."""
        return sum(harm.harm[harm.language] > max(harm.drawn) for harm in self.languages)

    @property
    def worst_p(self) -> float:
        """Chance of as many if each set were any of its controls: Σ of unlike coins, convolved exactly."""
        chance = np.array([1.0])
        for harm in self.languages:
            hit = 1 / (len(harm.drawn) + 1)
            chance = np.convolve(chance, [1 - hit, hit])
        return float(chance[self.worst :].sum())

    def rows(self) -> list[SiteEvidence]:
        """Three rows per language, and one over all."""
        rows = []
        for harm in self.languages:
            sites = ",".join(f"{layer}.attn_heads[{head}]" for layer, head in harm.heads)
            shared = {"language": harm.language, "n": self.documents[harm.language], "seed": self.seed, "site": sites}
            other_harms = [value for tag, value in harm.harm.items() if tag != harm.language]
            rows += [
                SiteEvidence(
                    claim=f"ablating its heads to {self.to} harms the language",
                    control="as many other heads of the same layers",
                    estimate=harm.harm[harm.language],
                    low=harm.low,
                    high=harm.high,
                    p=harm.p,
                    draws=len(harm.drawn),
                    null=float(np.mean(harm.drawn)),
                    note=f"relative harm; {len(harm.drawn)} different control sets, so p >= 1/{len(harm.drawn) + 1}",
                    **shared,
                ),
                SiteEvidence(
                    claim="its heads harm it more than any other language",
                    control="largest harm on another language's text",
                    estimate=harm.specificity,
                    low=harm.specificity_low,
                    high=harm.specificity_high,
                    draws=self.resamples,
                    null=float(np.mean(other_harms)),
                    note="own relative harm minus the largest other; null is the mean other harm",
                    **shared,
                ),
            ]
        rows.append(
            SiteEvidence(
                claim="languages harmed most by their own heads",
                language="",
                control="as many other heads of the same layers",
                n=len(self.languages),
                estimate=self.worst,
                p=self.worst_p,
                seed=self.seed,
                null=sum(1 / (len(harm.drawn) + 1) for harm in self.languages),
                note="languages whose heads harm them more than every control set; null is the number expected",
            )
        )
        return rows


@contextmanager
def heads_off(
    layout: Layout, heads: Sequence[Head], fill: Float[Tensor, "layer head d_head"] | None = None
) -> Iterator[None]:
    """While open, these heads give `fill`, or zero, at every token; the other heads are untouched, bit for bit.

    Raises SelectionError for a head that the model does not have.
    """
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        if not (0 <= layer < layout.n_layers and 0 <= head < layout.n_heads):
            raise SelectionError(
                f"head {(layer, head)} came; expected layers 0–{layout.n_layers - 1} and heads "
                f"0–{layout.n_heads - 1}; correct it"
            )
        by_layer.setdefault(layer, []).append(head)

    def change_of(layer: int, off: list[int]) -> Edit:
        def change(value: Tensor) -> Tensor:
            new = value.clone()
            new[:, :, off] = 0 if fill is None else fill[layer, off].to(value)
            return new

        return change

    with ExitStack() as stack:
        for layer, off in by_layer.items():
            stack.enter_context(layout.edit(Site(layer, "attn_heads"), change_of(layer, off)))
        yield


def ablate_heads(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    heads: Mapping[Language, Sequence[Head]],
    texts: Texts,
    *,
    mean_output: Float64[Tensor, "layer head d_head"] | None = None,
    draws: int = 19,
    max_tokens: int | None = 600,
    max_length: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> HeadAblation:
    """Switch off each language's heads in turn; measure the harm on every text, and that of control heads on its own.

    heads: `HeadSelectivity.heads(...)`, or any (layer, head) pairs by language; choose them on other text than this.
    mean_output: `HeadRecord.mean_output` sets heads to their mean; None sets them to zero.
    draws: control sets at most; fewer where the layers have no more different ones.
    max_tokens: scored tokens per language at most, whole documents.
    Raises LanguageError where a language has no text or is alone, SelectionError where no control set exists.
    """
    tags = parse_languages(heads)
    layout, corpus = layout_of(model), as_corpus(texts)
    max_length = text_length(layout, max_length)
    if not set(tags) <= set(corpus) or len(corpus) < 2:
        raise LanguageError(
            f"heads of {', '.join(tags)} and text of {', '.join(corpus)}; expected text of each and of one more; add it"
        )
    held_out = HeldOut.prepare(tokenizer, texts, max_length=max_length, max_tokens=max_tokens)
    base = [document_losses(layout, part) for part in held_out]
    rng, harms = np.random.default_rng(seed), []

    def harm(off: Sequence[Head], column: int) -> Float64[Tensor, " document"]:
        with heads_off(layout, off, mean_output):
            return document_losses(layout, held_out[column]).nats - base[column].nats

    for tag in tags:
        own_column, chosen = list(corpus).index(tag), tuple(heads[tag])
        delta = [harm(chosen, column) for column in range(len(held_out))]
        totals = [float(losses.nats.sum()) for losses in base]
        control_harms = [
            float(harm(control_heads, own_column).sum()) / totals[own_column]
            for control_heads in matched_heads(layout, chosen, draws, rng)
        ]
        harms.append(head_harm_of(tag, chosen, own_column, delta, base, control_harms, resamples, seed))
    documents = {losses.language: len(losses.nats) for losses in base}
    return HeadAblation(tuple(harms), documents, "zero" if mean_output is None else "mean", resamples, seed)


def matched_heads(
    layout: Layout, chosen: Sequence[Head], draws: int, rng: np.random.Generator
) -> list[tuple[Head, ...]]:
    """Different sets of as many heads in each layer, none of them chosen; all there are where these are few.

    Raises SelectionError where a layer has too few other heads.
    """
    by_layer = {layer: [head for at, head in chosen if at == layer] for layer, _ in chosen}
    pools = {layer: sorted(set(range(layout.n_heads)) - set(off)) for layer, off in by_layer.items()}
    if not chosen or any(len(pools[layer]) < len(off) for layer, off in by_layer.items()):
        raise SelectionError(f"heads {list(chosen)}: no other heads in their layers to compare with; choose fewer")
    room = math.prod(math.comb(len(pools[layer]), len(off)) for layer, off in by_layer.items())
    sets: dict[tuple[Head, ...], None] = {}
    for _ in range(TRIES * draws):
        if len(sets) == min(draws, room):
            break
        heads = [
            (layer, int(head))
            for layer, off in sorted(by_layer.items())
            for head in sorted(rng.choice(pools[layer], size=len(off), replace=False))
        ]
        sets[tuple(heads)] = None
    return list(sets)


def head_harm_of(
    tag: Language,
    heads: tuple[Head, ...],
    own_column: int,
    delta: list[Float64[Tensor, " _"]],
    base: list[Losses],
    control_harms: list[float],
    resamples: int,
    seed: int,
) -> HeadHarm:
    """Harms, and intervals over resampled documents: one common draw where the texts are equally long."""
    harm = {losses.language: float(delta[c].sum() / losses.nats.sum()) for c, losses in enumerate(base)}
    equal = len({len(losses.nats) for losses in base}) == 1
    spread = []
    for column, losses in enumerate(base):
        n = len(losses.nats)
        rng = np.random.default_rng((seed, 0 if equal else column))
        weight = torch.from_numpy(draw_counts(n, resamples, rng)).double()
        spread.append((weight @ delta[column]) / (weight @ losses.nats))
    samples = torch.stack(spread, dim=1)
    other_columns = [column for column in range(len(base)) if column != own_column]
    gap = samples[:, own_column] - samples[:, other_columns].amax(dim=1)
    low, high = percentile_interval(samples[:, own_column])
    gap_low, gap_high = percentile_interval(gap)
    return HeadHarm(
        language=tag,
        heads=heads,
        harm=harm,
        low=low,
        high=high,
        specificity=harm[tag] - max(value for other_tag, value in harm.items() if other_tag != tag),
        specificity_low=gap_low,
        specificity_high=gap_high,
        drawn=tuple(control_harms),
        p=rank_p(harm[tag], control_harms),
    )
