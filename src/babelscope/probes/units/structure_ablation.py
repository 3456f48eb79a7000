"""What breaks without a language's neurons, by block of layers and by structure: MLPs or attentions."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from babelscope.ablation.switch_off import filler
from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float64, Tensor
from babelscope.controls import Evidence, percentile_interval, rank_p
from babelscope.controls.bootstrap_draws import draw_counts
from babelscope.corpus import Texts
from babelscope.errors import LanguageError, SelectionError
from babelscope.evaluation.losses import HeldOut, Losses, document_losses
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.models.attention import AttentionInputs, attention_by
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.probes.units.attention_removal import STRUCTURES, attend_plainly
from babelscope.sites import At, Site

Masks = Mapping[str, Bool[Tensor, "layer unit"]]
"""By structure ("ffn", "query", "key", "value", "output"): True at the neurons that are meant."""
PARTS: Mapping[str, tuple[str, ...]] = {"ffn": ("ffn",), "attention": STRUCTURES}
"""What is switched off together."""


@contextmanager
def structures_off(layout: Layout, masks: Masks) -> Iterator[None]:
    """While open, the neurons of the masks are 0: of an MLP what its down projection reads, of attentions coordinates.

    An expert's neuron is off where its expert was chosen (`switch_off.filler`).
    Right-padded text only: what an attention sees is told from the order of the tokens.
    """
    sites: Mapping[str, At] = {"ffn": "mlp_inner", "output": "attn_out"}
    coordinates = [name for name in ("query", "key", "value") if name in masks and bool(masks[name].any())]

    def attend(inputs: AttentionInputs) -> Tensor:
        return attend_plainly(inputs, {name: masks[name][inputs.layer] for name in coordinates})

    with ExitStack() as stack:
        for name, at in sites.items():
            for layer, units in enumerate(masks.get(name, ())):
                if bool(units.any()):
                    site = Site(layer, at)
                    change = filler(layout, site, units[None], torch.zeros(1, len(units)))
                    stack.enter_context(layout.edit_routed(site, change))
        if coordinates:
            stack.enter_context(attention_by(layout.model, attend))
        yield


class BlockHarm(NamedTuple):
    """Harm of one language's neurons of one structure in one block of layers."""

    language: Language
    structure: str
    """ffn or attention."""
    layers: tuple[int, int]
    """First and last."""
    neurons: int
    own_harm: float
    """Relative harm on the language's own text."""
    low: float
    high: float
    """Of `own_harm`, over resampled documents."""
    other_harm: float
    """Mean over the other languages' texts."""
    control_harms: tuple[float, ...]
    """Of random sets of as many neurons in each layer and structure, on the own text."""

    def row(self, documents: int, seed: int) -> Evidence:
        """As evidence."""
        return Evidence(
            claim=f"own text is harmed without {self.structure} neurons in layers {self.layers[0]}–{self.layers[1]}",
            language=self.language,
            control="random sets of as many neurons in each layer and structure",
            n=documents,
            estimate=self.own_harm,
            low=self.low,
            high=self.high,
            p=rank_p(self.own_harm, self.control_harms),
            draws=len(self.control_harms),
            seed=seed,
            note=f"relative harm, n in documents; {self.neurons} neurons; other texts {self.other_harm:.4f}; control "
            f"{float(np.mean(self.control_harms)):.4f}",
        )


@dataclass(frozen=True)
class StructureAblation:
    """Harm by language, structure and block of layers."""

    __repr__ = shown_by()

    cells: tuple[BlockHarm, ...]
    documents: Mapping[Language, int]
    seed: int

    def rows(self) -> list[Evidence]:
        """One row per language, structure and block in which the language has a neuron."""
        return [cell.row(self.documents[cell.language], self.seed) for cell in self.cells]


def ablate_structures(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    sets: Mapping[str, Bool[Tensor, "language layer unit"]],
    languages: Sequence[str],
    texts: Texts,
    *,
    blocks: int = 3,
    draws: int = 3,
    max_tokens: int | None = 300,
    max_length: int | None = None,
    resamples: int = 500,
    seed: int = 0,
) -> StructureAblation:
    """Switch off each language's neurons, the FFN's or the attention's, in each block of layers; score every text.

    sets: of `StructureVotes.specific`, chosen on other text. blocks: layers are cut into so many parts of nearly equal
    size, as in the paper. Blocks in which a language has no neuron are left out.
    Control: random sets of as many neurons in each layer and structure, of those that are not the language's.
    Raises LanguageError where a language has no text, SelectionError where a layer has too few other neurons.
    Source: Zhao et al. 2024, arXiv:2402.18815: three blocks of layers by FFN and attention; its control is random too.
    """
    layout, tags = layout_of(model), tuple(map(Language.parse, languages))
    length = text_length(layout_of(model), max_length, 128)
    held_out = HeldOut.prepare(tokenizer, texts, max_length=length, max_tokens=max_tokens)
    column = {part.language: place for place, part in enumerate(held_out)}
    if missing := [tag for tag in tags if tag not in column]:
        raise LanguageError(f"no text of {', '.join(missing)}; expected text of every language with neurons; add it")
    base = [document_losses(layout, part) for part in held_out]
    rng, cells = np.random.default_rng(seed), []

    def harm(masks: Masks, place: int) -> Float64[Tensor, " document"]:
        with structures_off(layout, masks):
            return document_losses(layout, held_out[place]).nats - base[place].nats

    for k, tag in enumerate(tags):
        for structure, names in PARTS.items():
            for layers in np.array_split(np.arange(layout.n_layers), blocks):
                masks = {name: within(sets[name][k], layers) for name in names}
                if not any(bool(mask.any()) for mask in masks.values()):
                    continue
                own_column = column[tag]
                deltas = [harm(masks, place) for place in range(len(held_out))]
                controls = [{name: random_units(mask, rng) for name, mask in masks.items()} for _ in range(draws)]
                control_harms = [harm(control, own_column) for control in controls]
                cells.append(
                    BlockHarm(
                        language=tag,
                        structure=structure,
                        layers=(int(layers[0]), int(layers[-1])),
                        neurons=sum(int(mask.sum()) for mask in masks.values()),
                        **relative_harms(base, deltas, control_harms, own_column, resamples, rng),
                    )
                )
    documents = {tag: len(base[column[tag]].nats) for tag in tags}
    return StructureAblation(tuple(cells), documents, seed)


def relative_harms(
    base: Sequence[Losses],
    deltas: Sequence[Float64[Tensor, " _"]],
    control_harms: Sequence[Float64[Tensor, " _"]],
    own_column: int,
    resamples: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Harm in nats over the untouched loss: own with its interval over resampled documents, others', controls'."""
    totals = [float(losses.nats.sum()) for losses in base]
    relative = [float(delta.sum()) / total for delta, total in zip(deltas, totals, strict=True)]
    n = len(deltas[own_column])
    weights = draw_counts(n, resamples, rng)
    samples = (weights @ deltas[own_column].numpy()) / (weights @ base[own_column].nats.numpy())
    low, high = percentile_interval(samples)
    other_harms = [value for place, value in enumerate(relative) if place != own_column]
    return {
        "own_harm": relative[own_column],
        "low": low,
        "high": high,
        "other_harm": float(np.mean(other_harms)) if other_harms else float("nan"),
        "control_harms": tuple(float(control.sum()) / totals[own_column] for control in control_harms),
    }


def within(mask: Bool[Tensor, "layer unit"], layers: np.ndarray) -> Bool[Tensor, "layer unit"]:
    """The neurons of some layers alone."""
    chosen = torch.zeros_like(mask)
    chosen[torch.from_numpy(layers)] = mask[torch.from_numpy(layers)]
    return chosen


def random_units(mask: Bool[Tensor, "layer unit"], rng: np.random.Generator) -> Bool[Tensor, "layer unit"]:
    """As many others in each layer; raises SelectionError where a layer has too few."""
    chosen = torch.zeros_like(mask)
    for layer, units in enumerate(mask):
        pool, count = (~units).nonzero().flatten().numpy(), int(units.sum())
        if count > len(pool):
            raise SelectionError(
                f"layer {layer}: {count} of {len(units)} neurons are the language's; expected at most half, to draw a "
                "control from the others; lower top_rate"
            )
        chosen[layer, torch.from_numpy(rng.choice(pool, count, replace=False))] = True
    return chosen
