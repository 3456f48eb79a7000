"""Measure the matrix of harm, with its controls."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from einops import rearrange
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from babelscope.ablation.ablation_table import AblationTable
from babelscope.ablation.observation_check import CONTROLS, MatchedControl, check_observation, sites_taken
from babelscope.ablation.scored_text import ScoredText
from babelscope.artifacts import NeuronSet, Observation
from babelscope.axes import Float64, Tensor
from babelscope.controls import contribution, contribution_matched, layer_matched
from babelscope.corpus import Texts, as_corpus, check_unseen
from babelscope.errors import SelectionError, refuse_no_number
from babelscope.languages import Language
from babelscope.models import check_made_for
from babelscope.models.plain import CausalModel
from babelscope.neurons.counts import routed_tokens
from babelscope.progress import progress_bar
from babelscope.recording import observe


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
    max_length: int | None = None,
    same_text: bool = False,
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
    same_text: allow the text that the sets were chosen on, on which they do better than on any other; a ScoredText is
    not asked.
    Raises CorpusError for that text unless it is allowed, SelectionError if every set is empty, ArtifactError if sets
    or observation are of another model; what else an observation may lack: see `check_observation`, which is asked
    before any text is read.
    """
    refuse_no_number({"draws": draws, "seed": seed}, SelectionError, whole=True)
    check_made_for(sets.origin, model, tokenizer, "ablation")
    if not len(sets.indices):
        raise SelectionError("every set is empty; expected at least one neuron; select with a larger top_rate")
    if draws < 1 and controls:
        raise SelectionError(f"draws {draws} came; expected 1 or more, or no controls; draw more")
    is_scored = isinstance(texts, ScoredText)
    corpus = texts.corpus if is_scored else as_corpus(texts)
    if not is_scored:
        check_unseen(corpus, sets.parameters.get("text"), what="these neurons", same_text=same_text)
    if observation is not None:
        check_observation(observation, sets, tuple(corpus), controls=controls, to=to)
    needed = sites_taken(sets, controls, to)
    if needed and observation is None:
        observation = observe(model, tokenizer, corpus, sites=needed, tokens_per_language=max_tokens, shards=0)
    means = mean_values(observation, sets, tuple(corpus)) if to == "mean" and observation is not None else None
    drawn, ratio = draw_controls(sets, observation, controls, draws, seed, barred)
    scored = (
        texts
        if is_scored
        else ScoredText.prepare(model, tokenizer, corpus, max_tokens=max_tokens, max_length=max_length)
    )
    masks, total = sets.mask(), len(sets.languages) * len(corpus)
    with progress_bar(total=total, unit="cell", desc=f"ablating to {to}", shown=progress) as bar:
        delta = tuple(
            advance(bar, scored.harms, mask.expand(len(corpus), -1, -1), at=sets.at, values=means) for mask in masks
        )
    return AblationTable(
        languages=sets.languages,
        texts=tuple(corpus),
        base=scored.base,
        delta=delta,
        draws={
            control: measure_draws(scored, sets, control_masks, means, f"{control} control", progress)
            for control, control_masks in drawn.items()
        },
        sizes=sets.sizes,
        to=to,
        seed=seed,
        resamples=resamples,
        achieved_ratio=ratio,
    )


def advance(
    bar: tqdm, call: Callable[..., tuple[Tensor, ...]], *args: object, **kwargs: object
) -> tuple[Float64[Tensor, " document"], ...]:
    """Call, then move the bar by as many cells as came."""
    harms = call(*args, **kwargs)
    bar.update(len(harms))
    return harms


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
    masks_by_control: dict[str, Tensor] = {}
    ratio: dict[Language, float] = {}
    if "layer_matched" in controls:
        masks_by_control["layer_matched"] = layer_matched(sets, draws=draws, seed=seed, barred=barred)
    if "contribution_matched" in controls and observation is not None:
        columns = [observation.index(tag) for tag in sets.languages]
        size = contribution(observation)[columns]
        matched = contribution_matched(sets, size, draws=draws, seed=seed, barred=barred)
        masks_by_control["contribution_matched"] = matched.masks
        ratio = dict(zip(sets.languages, matched.achieved_ratio.mean(dim=0).tolist(), strict=True))
    return masks_by_control, ratio


def measure_draws(
    scored: ScoredText, sets: NeuronSet, masks: Tensor, values: Tensor | None, name: str, progress: bool
) -> dict[Language, Float64[Tensor, "draw _"]]:
    """Harm of every random set on the own language's text: one draw of all languages is one reading of their texts.

    The random set of a language without a neuron is empty too, and its text is not read.
    """
    texts = [part.language for part in scored.held]
    columns = {tag: texts.index(tag) for tag in sets.languages if tag in texts}
    draws = {
        tag: torch.zeros(len(masks), len(scored.held[column].documents), dtype=torch.float64)
        for tag, column in columns.items()
    }
    tags = [tag for tag in texts if tag in columns and sets.sizes[tag]]
    if not tags:
        return draws
    text, rows = scored.only([columns[tag] for tag in tags]), [sets.languages.index(tag) for tag in tags]
    means = None if values is None else values[[columns[tag] for tag in tags]]
    with progress_bar(total=len(masks) * len(tags), unit="set", desc=name, shown=progress) as bar:
        for draw, mask in enumerate(masks[:, rows]):
            for tag, harm in zip(tags, advance(bar, text.harms, mask, at=sets.at, values=means), strict=True):
                draws[tag][draw] = harm
    return draws
