"""The whole of `results.json`, and its reading: every fault is named in one line before anything is drawn."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from babelscope.errors import ArtifactError
from babelscope.files.strict_json import parse_json
from babelscope.report.results.ablation_record import NOT_ABLATED, Ablation
from babelscope.report.results.record_json import languages_of, read_record
from babelscope.report.results.selection_record import HalfSplits, SelectionControls, SetLayers
from babelscope.report.results.steering_record import NOT_STEERED, Steering
from babelscope.report.results.value_kinds import (
    BoundedEstimate,
    ByEveryLanguage,
    ByLanguage,
    Ends,
    Mark,
    Measure,
    Number,
    Tags,
)

T = TypeVar("T")
FILE = "results.json"
SCHEMA = "babelscope.results/1"
HALF_PAIR = re.compile(
    r"(?P<pair>\\u[dD][89abAB]..\\u[dD][c-fC-F]..)|(?P<backslash>\\\\)|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
"""Half of a surrogate pair, as JSON may spell it; no file in UTF-8 can hold it."""


@dataclass(frozen=True, kw_only=True)
class CorpusCard:
    """What was read; further keys are free."""

    name: Any = None
    """What the corpus is called."""
    hash: Any = None
    """Hash of its text."""
    tokens: ByLanguage[Measure] | None = None
    """Tokens of each language that were counted."""
    shortfall: ByLanguage[Measure] | None = None
    """Tokens fewer than asked for."""
    further: Annotated[Mapping[str, Any], Mark.OTHER_KEYS] = field(default_factory=dict)
    """What else is known of it: documents, splits, whether one text was asked for several ends."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a finished run leaves in results.json, and what its report is drawn from. Shares are numbers (0.01 is 1 %),
    never per cent. null stands for a number that is undefined or was not measured; NaN and Infinity are refused. Every
    language axis has the order of `languages`; objects by language have its tags as keys and may leave languages out
    unless said otherwise. Keys that are not named here are allowed and left alone."""

    folder: Annotated[Path, Mark.NOT_IN_FILE] = Path()
    """The run folder."""
    schema: str
    """Name and version of this format: babelscope.results/1."""
    languages: Tags
    """Canonical BCP-47 tags, each once; the order of every language axis."""
    neurons: ByEveryLanguage[Number]
    """Neurons selected for each language; every language has its key. Unit: neurons."""
    top_rate: Number
    """Share of all neurons that was selected as most selective, before the filters."""
    stability: ByLanguage[HalfSplits | None]
    """[median, low, high, chance, size]: Jaccard index of the sets found in two random halves of the shards, its median
    and 2.5–97.5 % range over splits (a range, no confidence interval), the index by chance, and the size of the set in
    neurons. null where undefined."""
    stability_lead: ByLanguage[BoundedEstimate | None] | None = None
    """[median, low, high]: the same Jaccard index less its mean with the other languages' sets of the other half, with
    its 2.5–97.5 % range over splits."""
    layers: SetLayers | None = None
    """Where the selected neurons lie."""
    set_size_interval: ByLanguage[Ends | None] | None = None
    """[low, high]: 95 % percentile interval of the set's size over resamples of shards. Unit: neurons."""
    ablation: Ablation
    """Switching off each language's set on held-out text of every language."""
    steering: Steering | None = None
    """Adding a direction while the model answers; left out where nothing was steered."""
    controls: SelectionControls | None = None
    """Controls of the selection."""
    model: Mapping[str, Any] | None = None
    """Card of the model: name, shape, hashes; keys are free. `name` is its title in the report."""
    corpus: CorpusCard | None = None
    """Card of the corpus; further keys are free."""
    identification: Mapping[str, Any] | None = None
    """Method of the selection with every parameter and threshold; keys are free."""
    budget: Mapping[str, Any] | None = None
    """How much each stage may read or write; keys are free. `resamples` is named in the captions."""
    parameters: Mapping[str, Any] | None = None
    """Every parameter and threshold that was used; keys are free. `half_splits` and `set_size_resamples`, where given,
    are named in the captions."""
    seed: Measure | None = None
    """Seed of the run, where a stage names none of its own."""
    seeds: Mapping[str, Measure] | None = None
    """Seed of each stage; `bootstrap`, `stability`, `overlap` and `script`, where given, are named in the captions."""
    files: Sequence[str] | None = None
    """Names of the files and folders saved beside results.json."""
    seconds: Mapping[str, Measure]
    """Wall-clock time of each stage. Unit: seconds."""
    environment: Mapping[str, Any]
    """Versions, device, threads, peak memory; keys are free."""

    @property
    def steered(self) -> Steering:
        """The steering, with nothing in it where nothing was steered."""
        return self.steering or NOT_STEERED

    @property
    def controlled(self) -> SelectionControls:
        """The controls, with nothing in them where there are none."""
        return self.controls or SelectionControls()

    def measured(self, by_tag: Mapping[str, T | None] | None) -> dict[str, T]:
        """A field by language in the order of the languages, without those where it is undefined or missing."""
        listed = {tag: (by_tag or {}).get(tag) for tag in self.languages}
        return {
            tag: value
            for tag, value in listed.items()
            if value is not None and not (isinstance(value, float) and math.isnan(value))
        }


NOTHING_MEASURED = Results(
    schema=SCHEMA, languages=(), neurons={}, top_rate=math.nan, stability={}, ablation=NOT_ABLATED, seconds={},
    environment={},
)  # fmt: skip
"""Results of which only some parts were measured begin with this."""


def read_results(folder: Path) -> Results:
    """Read and check a run folder's results.json; raises ArtifactError, in one line, for anything that does not fit."""
    file = folder / FILE
    if not file.is_file():
        raise ArtifactError(f"{folder}: has no {FILE}; expected the folder of a finished run; check the path")
    try:
        written = HALF_PAIR.sub(_whole, file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise ArtifactError(f"{file}: is no JSON that can be read ({err}); make the run again") from err
    tree = parse_json(written, str(file), advice="make the run again")
    schema = tree.get("schema") if isinstance(tree, dict) else None
    if schema != SCHEMA:
        raise ArtifactError(f"{file}: schema {schema!r}; expected {SCHEMA!r}; give the folder of a babelscope run")
    return replace(results_of_tree(tree, str(file)), folder=folder)


def results_of_tree(tree: Any, place: str) -> Results:
    """The results of a tree of JSON; place: what the message begins with where they do not fit."""
    expected = f"{SCHEMA} (docs/results.schema.json)"
    return read_record(Results, tree, languages_of(tree), place=place, expected=expected, advice="make the run again")


def _whole(match: re.Match[str]) -> str:
    return match["pair"] or match["backslash"] or "\ufffd"
