"""Measure the matrix of harm, with its controls, and choose how many neurons to take."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from babelscope.ablation.ablation_table import AblationTable
from babelscope.ablation.switch_off import switched_off
from babelscope.artifacts import NeuronSet, Observation
from babelscope.axes import Float64, Tensor
from babelscope.controls import contribution, contribution_matched, layer_matched
from babelscope.corpus import Texts, as_corpus
from babelscope.errors import MeasurementError, SelectionError
from babelscope.evaluation import HeldOut, Losses, document_losses
from babelscope.languages import Language
from babelscope.models import Layout, check_made_for, layout_of
from babelscope.models.plain import CausalModel
from babelscope.neurons.counts import routed_tokens
from babelscope.recording import observe

Control = Literal["layer_matched", "contribution_matched"]
CONTROLS: tuple[Control, ...] = ("layer_matched", "contribution_matched")


def relative_harm(
    layout: Layout, held_out: HeldOut, base: Losses, mask: Tensor, *, at: str = "mlp_gate", value: Tensor | None = None
) -> Float64[Tensor, " document"]:
    """Harm in nats of each document while the masked neurons are off."""
    with switched_off(layout, mask, at=at, value=value):  # pyright: ignore[reportArgumentType]
        return document_losses(layout, held_out).nats - base.nats


def ablation_matrix(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    sets: NeuronSet,
    texts: Texts,
    *,
    controls: Sequence[Control] = CONTROLS,
    draws: int = 19,
    to: Literal["zero", "mean"] = "zero",
    observation: Observation | None = None,
    max_tokens: int | None = None,
    max_length: int = 512,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> AblationTable:
    """Switch off each language's set in turn and measure the harm on every language's text.

    texts: held-out text; its languages are the columns.
    controls: "layer_matched" and "contribution_matched" random sets, `draws` of each, on the own language's text.
    to: "zero", or "mean": each neuron's mean over languages of its value at the set's site.
    observation: where contributions (mlp_inner) and means come from; None observes the same texts for them.
    max_tokens: scored tokens a language at most, whole documents.
    Raises SelectionError if every set is empty, ArtifactError if sets or observation are of another model.
    """
    check_made_for(sets.origin, model, tokenizer, "ablation")
    if not len(sets.indices):
        raise SelectionError("every set is empty; expected at least one neuron; select with a larger top_rate")
    if draws < 1 and controls:
        raise SelectionError(f"draws {draws} came; expected 1 or more, or no controls; draw more")
    if observation is not None:
        sets.origin.check_same(observation.origin, "ablation with an observation")
    layout, corpus = layout_of(model), as_corpus(texts)
    needed = [
        site for site, used in (("mlp_inner", "contribution_matched" in controls), (sets.at, to == "mean")) if used
    ]
    if needed and observation is None:
        observation = observe(model, tokenizer, corpus, sites=needed, tokens_per_language=max_tokens, shards=0)
    held = HeldOut.prepare(tokenizer, corpus, max_length=max_length, max_tokens=max_tokens)
    value = mean_value(observation, sets) if to == "mean" and observation is not None else None
    base = tuple(document_losses(layout, part) for part in held)
    masks, total = sets.mask(), len(sets.languages) * len(held)
    with tqdm(total=total, unit="cell", desc=f"ablating to {to}", disable=not progress) as bar:
        delta = tuple(
            tuple(
                advance(bar, relative_harm, layout, part, losses, mask, at=sets.at, value=value)
                for part, losses in zip(held, base, strict=True)
            )
            for mask in masks
        )
    drawn, ratio = draw_controls(sets, observation, controls, draws, seed)
    return AblationTable(
        languages=sets.languages,
        texts=tuple(corpus),
        base=base,
        delta=delta,
        draws={
            control: measure_draws(layout, sets, held, base, found, value, f"{control} control", progress)
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


def mean_value(observation: Observation, sets: NeuronSet) -> Float64[Tensor, "layer neuron"]:
    """Mean over languages of each neuron's mean value: every language weighs the same.

    In an MoE the mean is over the tokens routed to the neuron's expert, since only there it is switched off; languages
    that never met the expert are left out, and where none did the value is 0.
    """
    record = observation[sets.at]
    routed = routed_tokens(record)
    if routed is None:
        return (record.sum / observation.token_counts).mean(dim=2)
    return (record.sum / routed).nanmean(dim=2).nan_to_num(0.0)


def draw_controls(
    sets: NeuronSet, observation: Observation | None, controls: Sequence[Control], draws: int, seed: int
) -> tuple[dict[str, Tensor], dict[Language, float]]:
    """Masks `[draw, language, layer, neuron]` by control, and the contribution that the matched ones reach."""
    found: dict[str, Tensor] = {}
    ratio: dict[Language, float] = {}
    if "layer_matched" in controls:
        found["layer_matched"] = layer_matched(sets, draws=draws, seed=seed)
    if "contribution_matched" in controls and observation is not None:
        columns = [observation.index(tag) for tag in sets.languages]
        matched = contribution_matched(sets, contribution(observation)[columns], draws=draws, seed=seed)
        found["contribution_matched"] = matched.masks
        ratio = dict(zip(sets.languages, matched.achieved_ratio.mean(dim=0).tolist(), strict=True))
    return found, ratio


def measure_draws(
    layout: Layout,
    sets: NeuronSet,
    held: list[HeldOut],
    base: Sequence[Losses],
    masks: Tensor,
    value: Tensor | None,
    name: str,
    progress: bool,
) -> dict[Language, Float64[Tensor, "draw _"]]:
    """Harm of every random set on the own language's text."""
    columns = {part.language: part for part in held}
    untouched = {losses.language: losses for losses in base}
    measured = {}
    with tqdm(total=masks.shape[0] * len(sets.languages), unit="set", desc=name, disable=not progress) as bar:
        for k, tag in enumerate(sets.languages):
            if tag not in columns:
                continue
            rows = [
                advance(
                    bar, relative_harm, layout, columns[tag], untouched[tag], masks[draw, k], at=sets.at, value=value
                )
                for draw in range(masks.shape[0])
            ]
            measured[tag] = torch.stack(rows)
    return measured


class TopRateChoice(NamedTuple):
    """The method and top_rate taken, and what each candidate did on the text it was chosen on."""

    method: str
    top_rate: float
    rows: list[Mapping[str, float | str]]


def choose_top_rate(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    methods: Mapping[str, Callable[[float], NeuronSet]],
    texts: Texts,
    *,
    rates: Sequence[float] = (0.01, 0.02, 0.05, 0.10),
    min_size: int = 5,
    max_tokens: int | None = None,
    progress: bool = False,
) -> TopRateChoice:
    """Choose the method and rate at which most sets of `min_size` or more hurt their own language most.

    Ties go to the larger mean of own harm minus the largest other harm. Never use the text of the final table here.
    A rate that gives no language a neuron is passed over.
    Raises MeasurementError for text of one language: there is no other to hurt less; SelectionError where no rate
    gives a neuron.
    """
    rows: list[dict[str, float | str]] = []
    corpus = as_corpus(texts)
    if len(corpus) < 2:
        raise MeasurementError("one text came; expected two or more, to compare own harm with; add languages")
    for name, rate in ((name, rate) for name in methods for rate in rates):
        sets = methods[name](rate)
        sets = sets.only(tag for tag in sets.languages if tag in corpus)
        if not len(sets.indices):
            rows.append({"method": name, "top_rate": rate, "own_hurt_most": 0})
            continue
        table = ablation_matrix(model, tokenizer, sets, corpus, controls=(), max_tokens=max_tokens, progress=progress)
        harm, large = table.relative_harm, [sets.sizes[tag] >= min_size for tag in table.languages]
        gaps = []
        for row, tag in enumerate(table.languages):
            others = [t for t in range(len(table.texts)) if t != table.column(tag)]
            gaps.append(float(harm[row, table.column(tag)] - harm[row, others].max()))
        most = sum(hurt and big for hurt, big in zip(table.hurt_most().values(), large, strict=True))
        rows.append(
            {
                "method": name,
                "top_rate": rate,
                "own_hurt_most": most,
                "mean_gap": sum(gaps) / len(gaps),
                "mean_own_harm": sum(table.own_harm().values()) / len(table.languages),
            }
        )
    found = [row for row in rows if "mean_gap" in row]
    if not found:
        raise SelectionError(
            f"no rate of {', '.join(map(str, rates))} gives a language a neuron by {', '.join(methods)}; expected one; "
            "give larger rates, or more languages"
        )
    best = max(found, key=lambda row: (row["own_hurt_most"], row["mean_gap"]))
    return TopRateChoice(str(best["method"]), float(best["top_rate"]), [*rows])
