"""What steering did: `steering` of results.json."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from babelscope.report.results.value_kinds import (
    BoundedEstimate,
    ByLanguage,
    Ends,
    Mark,
    Measure,
    Number,
    Rule,
    Table,
    Tag,
)


def sources_by_targets(value: Mapping[str, Any], at: str, tags: Sequence[str]) -> Iterator[str]:
    """Tables whose sides are the sources and the targets named beside them."""
    wanted = (len(value["sources"]), len(value["targets"]))
    for key in ("success", "n"):
        table = value.get(key)
        if table is not None and (len(table), len(table[0])) != wanted:
            sides = f"{wanted[0]} × {wanted[1]}"
            yield f"{at}.{key} is {len(table)} × {len(table[0])}, not sources × targets {sides}"


@dataclass(frozen=True, kw_only=True)
class SourcesByTargets:
    """Success by language of the prompt and target."""

    sources: Sequence[Tag]
    """Languages of the prompts: the rows."""
    targets: Sequence[Tag]
    """Targets: the columns."""
    success: Table
    """Success. Share of answers."""
    n: Table | None = None
    """Answers of each pair."""


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """One setting of the sweep on development prompts."""

    layer: Number
    """Block."""
    strength: Number
    """In strength_unit."""
    success: Measure
    """Share of answers, over all targets."""
    low: Measure | None = None
    """Lower end of its 95 % interval."""
    high: Measure | None = None
    """Upper end."""
    perplexity_ratio: Measure | None = None
    """Perplexity of the answers over that of native ones, over all targets."""
    distinct4_ratio: Measure | None = None
    """Share of distinct 4-grams over that in native answers, over all targets."""
    n: Measure | None = None
    """Answers."""


@dataclass(frozen=True, kw_only=True)
class SteeringSample:
    """An answer to read. The only place with text of the corpus or the model."""

    source: Tag
    """Language of the prompt."""
    target: Tag
    """Language asked for."""
    prompt: str
    """Text given."""
    answer: str
    """Text generated."""
    unsteered: Annotated[str | None, Mark.NULL_IS_WRITTEN] = None
    """Text generated from the same prompt without steering."""
    lines: Sequence[tuple[str, Tag | None]] | None = None
    """[text, tag or null]: the lines of the answer, each with the language detected in it."""
    recognised: bool | None = None
    """Whether the answer counts as a success."""
    verdict: str | None = None
    """What the judge made of the answer: right, other language, mixed, short, empty or broken."""
    reason: str | None = None
    """What decided, in a few words."""


@dataclass(frozen=True, kw_only=True)
class SteeredStream:
    """What massive units and first tokens hold at the chosen layer."""

    unit: Number
    """The unit that holds most of ordinary tokens' squared length."""
    unit_share: Number
    """What it holds, mean over languages. Share."""
    largest_share: Measure | None = None
    """The largest share of one unit in one language."""
    variance_share: Measure | None = None
    """The largest share of one unit, mean over languages, of ordinary tokens' variance."""
    first_share: Measure | None = None
    """Share of all tokens' squared length that first tokens hold, in the language where it is largest."""
    first_ratio: Number
    """Mean squared length of first tokens over the others', in the language where it is largest."""
    left_out: Sequence[Number] | None = None
    """Units that the directions leave out, the largest first."""


@dataclass(frozen=True, kw_only=True)
class ChatForm:
    """How a chat model was asked."""

    system: Annotated[str | None, Mark.NULL_IS_WRITTEN] = None
    """System prompt, before each message."""
    questions: Mapping[str, Any] | None = None
    """Hash of the questions of each part."""


@dataclass(frozen=True, kw_only=True)
class Steering:
    """Adding a direction while the model answers. Success: share of answers in which the detector reads the target
    language. Objects by language have the targets as keys."""

    success: ByLanguage[Measure]
    """Success by target. Share of answers."""
    native: ByLanguage[Measure]
    """Ceiling: share of the model's own continuations of native text in which the language is recognised."""
    unsteered: ByLanguage[Measure]
    """Success without steering. Share of answers."""
    random: ByLanguage[Measure]
    """Success with random directions of the same norm. Share of answers."""
    other_language: ByLanguage[Measure] | None = None
    """Success for the target when another target's direction is added. Share of answers."""
    neuron_arithmetic: ByLanguage[Measure] | None = None
    """Success when the set's neurons are raised instead of a direction added. Share of answers."""
    neuron_arithmetic_strength: Measure | None = None
    """How much they are raised."""
    neuron_arithmetic_edge: Sequence[str] | None = None
    """What of that strength lies at the edge of the grid; empty where nothing does."""
    neuron_arithmetic_perplexity_ratio: ByLanguage[Measure] | None = None
    """As perplexity_ratio, with the neurons raised."""
    perplexity_ratio: ByLanguage[Measure]
    """Perplexity of steered answers over that of native ones, both under the unsteered model."""
    perplexity_interval: ByLanguage[Ends | None] | None = None
    """[low, high]: 95 % interval of the perplexity ratio over answers, steered and native ones."""
    distinct4_ratio: ByLanguage[Measure]
    """Share of distinct 4-grams in steered answers over that in native ones."""
    layer: Number | ByLanguage[Measure]
    """Block to whose output the direction is added: one for all targets, or one each."""
    strength: Number | ByLanguage[Measure]
    """How much of the direction is added, in strength_unit: one for all targets, or one each."""
    edge: Sequence[str] | None = None
    """What of the chosen layer and strength lies at the edge of the grid; empty where nothing does."""
    form: str | None = None
    """whole: directions of all tokens and units; ordinary: without first tokens and massive units."""
    stream: SteeredStream | None = None
    """What massive units and first tokens hold at the chosen layer, and the units that the directions leave out."""
    receipt: Mapping[str, Mapping[str, Number]] | None = None
    """What steering did while the answers were drawn, by phase (prompt, generated): tokens seen and edited, and left
    alone by reason."""
    strength_unit: str | None = None
    """Unit of every strength; the multiple of mean(target) − mean(prompt language) where it is not given."""
    success_interval: ByLanguage[Ends | None] | None = None
    """[low, high]: 95 % Wilson interval of the success."""
    macro: Mapping[str, BoundedEstimate | None] | None = None
    """Means over targets, [estimate, low, high], by name (steered, native, unsteered, random, other_language and
    neuron_arithmetic), with 95 % intervals over prompts."""
    geometric_mean_perplexity_ratio: Measure | None = None
    """Geometric mean of perplexity_ratio over targets."""
    n: ByLanguage[Measure] | None = None
    """Answers by target."""
    p: ByLanguage[Measure] | None = None
    """p by target that answers are right more often than in every control: Fisher's exact test, the largest p of the
    controls, by Holm's rule over targets."""
    control_n: Mapping[str, ByLanguage[Measure]] | None = None
    """Answers of each control by target."""
    by_source: Annotated[SourcesByTargets, Rule(sources_by_targets)] | None = None
    """Success by language of the prompt and target."""
    sweep: Sequence[SweepRow] | None = None
    """Dose and response on development prompts: a row per setting."""
    not_measurable: Sequence[Tag] | None = None
    """Languages that the detector does not know."""
    samples: Sequence[SteeringSample] | None = None
    """Answers to read."""
    seed: Measure | None = None
    """Seed of the decoding."""
    temperature: Measure | None = None
    """Sampling temperature."""
    new_tokens: Measure | None = None
    """Tokens generated for each answer, at most."""
    overridden_settings: Mapping[str, Any] | None = None
    """Settings of the model's own generation config that were not followed."""
    chat: ChatForm | None = None
    """How a chat model was asked. Absent or null: text was continued."""


NOT_STEERED = Steering(
    success={}, native={}, unsteered={}, random={}, perplexity_ratio={}, distinct4_ratio={}, layer=math.nan,
    strength=math.nan,
)  # fmt: skip
"""Stands for the steering of results in which nothing was steered."""
