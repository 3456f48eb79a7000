"""The files of single commands as types: what a page reads of ablation.json, steering.json, summary.json and so on."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from babelscope.probes.catalogue import PROBES
from babelscope.report.results import Ablation, SweepRow
from babelscope.report.results.value_kinds import BoundedEstimate, ByTag, Mark, Measure, Number, Rule, Some, Tag, Tags


def names_of_probes(value: Mapping[str, Any], at: str, tags: Sequence[str]) -> Iterator[str]:
    """Each key is a folder, and so must be that of a probe."""
    yield from (f"{at} names {probe!r}, which is no probe" for probe in value if probe not in PROBES)


@dataclass(frozen=True, kw_only=True)
class EvidenceRow:
    """A row of evidence, as `write_evidence` writes it."""

    low: Measure = math.nan
    high: Measure = math.nan
    p: Measure = math.nan
    n: Measure = math.nan
    claim: str
    language: str
    control: str
    estimate: Measure
    further: Annotated[Mapping[str, Any], Mark.OTHER_KEYS]


@dataclass(frozen=True, kw_only=True)
class AblationFile:
    """ablation.json of the command ablate."""

    languages: Tags
    to: str
    own_hurt_most: ByTag[bool]
    ablation: Annotated[Ablation, Mark.OTHER_KEYS]


@dataclass(frozen=True, kw_only=True)
class SideEffect:
    """A row of `SideEffectPoint`."""

    target: Tag
    strength: Number
    text: Tag
    off: Measure | None = None
    on: Measure | None = None
    change: Number
    low: Measure | None = None
    high: Measure | None = None
    n: Measure | None = None


@dataclass(frozen=True, kw_only=True)
class SweepMeans:
    """Means over targets with their intervals."""

    steered: BoundedEstimate
    native: BoundedEstimate


@dataclass(frozen=True, kw_only=True)
class SweepFile:
    """steering.json of the command steer --sweep."""

    layer: Number
    strength: Number
    success: ByTag[Any]
    macro: SweepMeans
    sweep: Some[SweepRow]
    edge: Sequence[str] | None = None
    side_effects: Sequence[SideEffect] | None = None


@dataclass(frozen=True, kw_only=True)
class ReadDocuments:
    """Documents by language of one text."""

    documents: ByTag[Number]


@dataclass(frozen=True, kw_only=True)
class ProbedText:
    """The text that probes read."""

    measured: ReadDocuments


@dataclass(frozen=True, kw_only=True)
class ProbeFile:
    """summary.json of the command probe."""

    rows: Annotated[Mapping[str, Number], Rule(names_of_probes)]
    left_out: Mapping[str, str]
    text: ProbedText


@dataclass(frozen=True, kw_only=True)
class VoteShares:
    """Right answers by the vote of all languages, and in the one that it is compared with."""

    right: Measure
    alone: Measure


@dataclass(frozen=True, kw_only=True)
class ConsistencyFile:
    """consistency.json of the command consistency."""

    languages: Tags
    against: Tag
    questions: Number
    right: ByTag[Measure]
    mean_agreement: Measure
    vote: VoteShares


@dataclass(frozen=True, kw_only=True)
class AdaptationFile:
    """result.json of the command adapt; bits per byte by test language before and after."""

    language: Tag
    trained: Number
    gain: Number
    learning_rate: Number
    before: ByTag[Number]
    after: ByTag[Number]
    harm: Number | None = None
    no_gain: str | None = None


@dataclass(frozen=True, kw_only=True)
class FallbackRow:
    """A step of fallback.json: answers by language, "" where none is recognised."""

    off: Sequence[Tag]
    neurons: Number
    answers: Mapping[str, Number]
    random_sets: Mapping[str, Number]


@dataclass(frozen=True, kw_only=True)
class FallbackFile:
    """fallback.json of the command fallback."""

    languages: Tags
    first: Tag
    by: str
    seed: Number
    draws: Number
    steps: Some[FallbackRow]
