"""Measure the matrix of harm, with its controls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from babelscope.ablation.ablation_table import AblationTable
from babelscope.ablation.observation_check import CONTROLS, MatchedControl, check_observation, sites_taken
from babelscope.ablation.switch_off import switched_off
from babelscope.artifacts import NeuronSet, Observation
from babelscope.axes import Float64, Tensor
from babelscope.controls import contribution, contribution_matched, layer_matched
from babelscope.corpus import Corpus, Texts, as_corpus
from babelscope.errors import SelectionError, refuse_no_number
from babelscope.evaluation import HeldOut, Losses, document_losses
from babelscope.languages import Language
from babelscope.models import Layout, check_made_for, layout_of
from babelscope.models.plain import CausalModel
from babelscope.neurons.counts import routed_tokens
from babelscope.progress import progress_bar
from babelscope.recording import observe


@dataclass(frozen=True, eq=False)
class ScoredText:
    """Held-out text with the untouched model's losses on it: read once, however many sets are switched off on it."""

    layout: Layout
    corpus: Corpus
    held: tuple[HeldOut, ...]
    """One per language, in the order of the corpus."""
    base: tuple[Losses, ...]
    """The untouched model's losses on them."""

    @classmethod
    def prepare(
        cls,
        model: CausalModel,
        tokenizer: PreTrainedTokenizerBase,
        texts: Texts,
        *,
        max_tokens: int | None = None,
        max_length: int = 512,
    ) -> "ScoredText":
        """Tokenize the text and score it; max_tokens: scored tokens per language at most, whole documents."""
        layout, corpus = layout_of(model), as_corpus(texts)
        held = HeldOut.prepare(tokenizer, corpus, max_length=max_length, max_tokens=max_tokens)
        return cls(layout, corpus, tuple(held), tuple(document_losses(layout, part) for part in held))

    def harm(self, column: int, mask: Tensor, *, at: str, value: Tensor | None = None) -> Float64[Tensor, " document"]:
        """Harm in nats of each document of one language while the masked neurons are off; 0 where none is masked."""
        if not bool(mask.any()):
            return torch.zeros_like(self.base[column].nats)
        with switched_off(self.layout, mask, at=at, value=value):  # pyright: ignore[reportArgumentType]
            return document_losses(self.layout, self.held[column]).nats - self.base[column].nats


def ablation_matrix(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    sets: NeuronSet,
    texts: Texts | ScoredText,
    *,
    controls: Sequence[MatchedControl] = CONTROLS,
    draws: int = 19,
    to: Literal["zero", "mean"] = "zero",
    observation: Observation | None = None,
    barred: NeuronSet | None = None,
    max_tokens: int | None = None,
    max_length: int = 512,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> AblationTable:
    """Switch off each language's set in turn and measure the harm on every language's text.

    texts: held-out text; its languages are the columns. A ScoredText is read already, by its own max_tokens and
    max_length, and serves many calls.
    controls: "layer_matched" and "contribution_matched" random sets, `draws` of each, on the own language's text.
    to: "zero", or "mean": each neuron's mean value on the language of the text that is read. The mean over languages
    would switch a neuron on that fires in one script alone, wherever another script is read.
    observation: where contributions (mlp_inner) and means come from; None observes the same texts for them.
    barred: sets whose neurons no control is drawn from either, such as those that `sets` are parts of.
    max_tokens: scored tokens per language at most, whole documents.
    Raises SelectionError if every set is empty, ArtifactError if sets or observation are of another model; what else
    an observation may lack: see `check_observation`, which is asked before any text is read.
    """
    refuse_no_number({"draws": draws, "seed": seed}, SelectionError, whole=True)
    check_made_for(sets.origin, model, tokenizer, "ablation")
    if not len(sets.indices):
        raise SelectionError("every set is empty; expected at least one neuron; select with a larger top_rate")
    if draws < 1 and controls:
        raise SelectionError(f"draws {draws} came; expected 1 or more, or no controls; draw more")
    given = isinstance(texts, ScoredText)
    corpus = texts.corpus if given else as_corpus(texts)
    if observation is not None:
        check_observation(observation, sets, tuple(corpus), controls=controls, to=to)
    needed = sites_taken(sets, controls, to)
    if needed and observation is None:
        observation = observe(model, tokenizer, corpus, sites=needed, tokens_per_language=max_tokens, shards=0)
    means = mean_values(observation, sets, tuple(corpus)) if to == "mean" and observation is not None else None
    drawn, ratio = draw_controls(sets, observation, controls, draws, seed, barred)
    scored = (
        texts if given else ScoredText.prepare(model, tokenizer, corpus, max_tokens=max_tokens, max_length=max_length)
    )
    values = [None] * len(corpus) if means is None else [*means]
    masks, total = sets.mask(), len(sets.languages) * len(corpus)
    with progress_bar(total=total, unit="cell", desc=f"ablating to {to}", shown=progress) as bar:
        delta = tuple(
            tuple(
                advance(bar, scored.harm, column, mask, at=sets.at, value=value) for column, value in enumerate(values)
            )
            for mask in masks
        )
    return AblationTable(
        languages=sets.languages,
        texts=tuple(corpus),
        base=scored.base,
        delta=delta,
        draws={
            control: measure_draws(scored, sets, found, values, f"{control} control", progress)
            for control, found in drawn.items()
        },
        sizes=sets.sizes,
        to=to,
        seed=seed,
        resamples=resamples,
        achieved_ratio=ratio,
    )


def advance(bar: tqdm, call: Callable[..., Tensor], *args: object, **kwargs: object) -> Tensor:
    """Call, then move the bar."""
    result = call(*args, **kwargs)
    bar.update()
    return result


def mean_values(
    observation: Observation, sets: NeuronSet, languages: Sequence[str]
) -> Float64[Tensor, "language layer neuron"]:
    """Mean value of each neuron on the text of each of some languages, at the sets' site.

    In an MoE the mean is over the tokens routed to the neuron's expert, since only there it is switched off; 0 where a
    language never met the expert. Raises LanguageError for a language that was not observed.
    """
    record, columns = observation[sets.at], [observation.index(tag) for tag in languages]
    routed = routed_tokens(record)
    mean = record.sum / (observation.token_counts if routed is None else routed)
    return rearrange(mean[..., columns].nan_to_num(0.0), "l j k -> k l j").contiguous()


def draw_controls(
    sets: NeuronSet,
    observation: Observation | None,
    controls: Sequence[MatchedControl],
    draws: int,
    seed: int,
    barred: NeuronSet | None = None,
) -> tuple[dict[str, Tensor], dict[Language, float]]:
    """Masks `[draw, language, layer, neuron]` by control, and the contribution that the matched ones reach."""
    found: dict[str, Tensor] = {}
    ratio: dict[Language, float] = {}
    if "layer_matched" in controls:
        found["layer_matched"] = layer_matched(sets, draws=draws, seed=seed, barred=barred)
    if "contribution_matched" in controls and observation is not None:
        columns = [observation.index(tag) for tag in sets.languages]
        size = contribution(observation)[columns]
        matched = contribution_matched(sets, size, draws=draws, seed=seed, barred=barred)
        found["contribution_matched"] = matched.masks
        ratio = dict(zip(sets.languages, matched.achieved_ratio.mean(dim=0).tolist(), strict=True))
    return found, ratio


def measure_draws(
    scored: ScoredText, sets: NeuronSet, masks: Tensor, values: Sequence[Tensor | None], name: str, progress: bool
) -> dict[Language, Float64[Tensor, "draw _"]]:
    """Harm of every random set on the own language's text."""
    columns = {part.language: column for column, part in enumerate(scored.held)}
    measured = {}
    with progress_bar(total=masks.shape[0] * len(sets.languages), unit="set", desc=name, shown=progress) as bar:
        for k, tag in enumerate(sets.languages):
            if tag in columns:
                own = columns[tag]
                rows = [advance(bar, scored.harm, own, mask, at=sets.at, value=values[own]) for mask in masks[:, k]]
                measured[tag] = torch.stack(rows)
    return measured
