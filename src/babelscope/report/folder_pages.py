"""Which command wrote a folder, and its page: observe, identify, ablate, probe, features, steer --sweep, adapt."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from babelscope.artifacts import NeuronSet, Observation
from babelscope.artifacts.feature_observation import FeatureObservation
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.errors import ArtifactError
from babelscope.files.strict_json import read_json
from babelscope.probes.catalogue import PROBES
from babelscope.report.folder_sections import (
    adaptation_section,
    evidence_section,
    features_section,
    read_evidence,
    side_effect_section,
    tokens_section,
)
from babelscope.report.harm import ablation_section
from babelscope.report.json_checks import (
    Check,
    anything,
    by_tag,
    each,
    keyed,
    languages,
    nullable,
    number,
    record,
    tag,
    text,
    truth,
)
from babelscope.report.markup import Section
from babelscope.report.results import Results
from babelscope.report.schema import ABLATION, SWEEP_ROW
from babelscope.report.selection_sections import neuron_section
from babelscope.report.steered import dose_section
from babelscope.report.wording import percent

AGAIN = "make it again with the command that wrote it"
EFFECT = record({"target": tag, "strength": number, "text": tag, "change": number})
"""A row of `SideEffectPoint`."""


class FolderPage(NamedTuple):
    """What one command wrote, as sections of a page."""

    verb: str
    """The command that wrote it."""
    languages: Sequence[str]
    facts: Mapping[str, str]
    """What stands beside other folders: a name and what was found, in words."""
    sections: Sequence[Section]


def folder_page(folder: Path, name: str) -> FolderPage:
    """The page of a folder that a command other than `study` wrote.

    name: begins the anchors of its sections. Everything is read as its own loader reads it, hashes and all.
    Raises ArtifactError, in one line, for a folder that no such command wrote, and for damaged files.
    """
    for verb, wrote, read in KINDS:
        if wrote(folder):
            return read(folder, name, verb)
    if (folder / "plan.json").is_file() and (folder / "stages").is_dir():
        raise ArtifactError(
            f"{folder}: is a study that has not ended; expected results.json in it; go on with the same `babelscope "
            "study` and --resume"
        )
    verbs = ", ".join(verb for verb, *_ in KINDS)
    raise ArtifactError(f"{folder}: no results of a command in it; expected a folder of study, {verbs}; check the path")


def _format(folder: Path) -> str:
    """Class of the artifact that a folder's config names; empty where there is none."""
    file = folder / "config.json"
    config = read_json(file, advice=AGAIN) if file.is_file() else {}
    return (
        str(config.get("format", "")).removeprefix("babelscope.").partition("/")[0] if isinstance(config, dict) else ""
    )


def _checked(file: Path, *checks: Check) -> Mapping[str, Any]:
    """A JSON object with the fields that a page reads; a later check may rely on what the earlier ones found."""
    tree = read_json(file, advice=AGAIN)
    found = tree.get("languages") if isinstance(tree, dict) else None
    tags = [entry for entry in found if isinstance(entry, str)] if isinstance(found, list) else []
    for check in checks:
        if faults := list(check(tree, "", tags)):
            raise ArtifactError(f"{file}: {'; '.join(faults[:3])}; expected what the command writes; {AGAIN}")
    return tree


def _observed(folder: Path, name: str, verb: str) -> FolderPage:
    observed = Observation.load(folder)
    facts = {
        "tokens": f"{sum(observed.tokens.values()):,}",
        "sites": ", ".join(observed.records),
        "model": observed.origin.model or "not named",
    }
    return FolderPage(verb, observed.languages, facts, [tokens_section(observed, name)])


def _identified(folder: Path, name: str, verb: str) -> FolderPage:
    sets = NeuronSet.load(folder)
    # A set that was imported or made by hand has no controls.
    file = folder / "evidence.jsonl"
    rows = read_evidence(file) if file.is_file() else []
    sizes = {row["language"]: [row["low"], row["high"]] for row in rows if row["claim"] == "set size"}
    tree = {
        "languages": list(sets.languages),
        "neurons": dict(sets.sizes),
        "layers": {"counts": sets.layer_counts.tolist()},
        "set_size_interval": sizes,
        "parameters": sets.parameters,
    }
    results = Results(folder, tree, tuple(sets.languages))
    facts = {"method": sets.method, "neurons": f"{sum(sets.sizes.values()):,}"}
    evidence = [evidence_section(rows, "controls")] if rows else []
    return FolderPage(verb, sets.languages, facts, [neuron_section(results, name), *evidence])


def _ablated(folder: Path, name: str, verb: str) -> FolderPage:
    tree = _checked(folder / "ablation.json", ABLATION_FILE, ABLATION)
    tags = tuple(tree["languages"])
    results = Results(folder, {"languages": list(tags), "ablation": tree}, tags)
    most = sum(tree["own_hurt_most"].values())
    facts = {"own text hurt most, interval above 0": f"{most} of {len(tree['own_hurt_most'])}", "off means": tree["to"]}
    return FolderPage(verb, tags, facts, [ablation_section(results, name)])


def _swept(folder: Path, name: str, verb: str) -> FolderPage:
    tree = _checked(folder / "steering.json", SWEEP_FILE)
    tags = tuple(tree["success"])
    results = Results(folder, {"languages": list(tags), "steering": {**tree, "by_source": None}}, tags)
    sections = [dose_section(results, name)]
    if tree.get("side_effects"):
        sections.append(side_effect_section(tree, name))
    steered, native = (percent(tree["macro"][trial][0]) for trial in ("steered", "native"))
    facts = {
        "chosen": f"layer {tree['layer']}, strength {tree['strength']:g}",
        "right answers": f"{steered}, native {native}",
    }
    return FolderPage(verb, tags, facts, sections)


def _featured(folder: Path, name: str, verb: str) -> FolderPage:
    sets, observed = FeatureSet.load(folder / "features"), FeatureObservation.load(folder / "observation")
    if sets.sae_hash != observed.sae_hash:
        raise ArtifactError(f"{folder}: features of one autoencoder, counts of another; expected one; {AGAIN}")
    facts = {"method": sets.method, "features": f"{len(sets.indices):,}", "autoencoder": sets.sae_id}
    evidence = evidence_section(read_evidence(folder / "evidence.jsonl"), "controls")
    return FolderPage(verb, sets.languages, facts, [features_section(sets, observed, name), evidence])


def _probed(folder: Path, name: str, verb: str) -> FolderPage:
    summary = _checked(folder / "summary.json", PROBE_FILE)
    sections, found = [], 0
    for probe in summary["rows"]:
        rows = read_evidence(folder / probe / "results.jsonl")
        found += len(rows)
        sections.append(evidence_section(rows, probe))
    facts = {"probes": ", ".join(summary["rows"]), "rows of evidence": f"{found:,}"}
    if summary["left_out"]:
        facts["left out"] = "; ".join(f"{probe}: {why}" for probe, why in summary["left_out"].items())
    return FolderPage(verb, list(summary["text"]["measured"]["documents"]), facts, sections)


def _adapted(folder: Path, name: str, verb: str) -> FolderPage:
    tree = _checked(folder / "result.json", ADAPT_FILE, target_was_read)
    facts = {
        "trained": f"{tree['trained']:,} values",
        "gain": f"{tree['gain']:+.4f} bits per byte of {tree['language']}",
        "harm": "not measured" if tree.get("harm") is None else f"{tree['harm']:+.4f} bits per byte of other languages",
    }
    if tree.get("no_gain"):
        facts["result"] = tree["no_gain"]
    return FolderPage(verb, list(tree["after"]), facts, [adaptation_section(tree, name)])


def names_of_probes(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
    """An object {probe: rows}: each name is a folder, and so must be that of a probe."""
    yield from keyed(number)(value, at, tags)
    if isinstance(value, dict):
        yield from (f"{at} names {probe!r}, which is no probe" for probe in value if probe not in PROBES)


def some(check: Check) -> Check:
    """A list of one or more."""

    def check_list(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
        yield from each(check)(value, at, tags)
        yield from (f"{at} is empty",) if value == [] else ()

    return check_list


def target_was_read(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
    """The text of the language that was trained has bits per byte before, above 0."""
    if not value["before"].get(value["language"], 0) > 0:
        yield f"before has no bits per byte of {value['language']}"


MACRO: Check = each(nullable(number), exactly=3)
ABLATION_FILE: Check = record({"languages": languages, "to": text, "own_hurt_most": by_tag(truth)})
SWEEP_FILE: Check = record(
    {
        "layer": number,
        "strength": number,
        "success": by_tag(anything),
        "macro": record({"steered": MACRO, "native": MACRO}),
        "sweep": some(SWEEP_ROW),
    },
    edge=each(text),
    side_effects=each(EFFECT),
)
PROBE_FILE: Check = record(
    {
        "rows": names_of_probes,
        "left_out": keyed(text),
        "text": record({"measured": record({"documents": by_tag(number)})}),
    }
)
ADAPT_FILE: Check = record(
    {
        "language": tag,
        "trained": number,
        "gain": number,
        "learning_rate": number,
        "before": by_tag(number),
        "after": by_tag(number),
    },
    harm=number,
    no_gain=text,
)
KINDS: tuple[tuple[str, Callable[[Path], bool], Callable[[Path, str, str], FolderPage]], ...] = (
    ("observe", lambda folder: _format(folder) == "Observation", _observed),
    ("identify", lambda folder: _format(folder) == "NeuronSet", _identified),
    ("ablate", lambda folder: (folder / "ablation.json").is_file(), _ablated),
    ("features", lambda folder: (folder / "features" / "config.json").is_file(), _featured),
    ("adapt", lambda folder: (folder / "result.json").is_file(), _adapted),
    ("probe", lambda folder: (folder / "summary.json").is_file(), _probed),
    ("steer --sweep", lambda folder: (folder / "steering.json").is_file(), _swept),
)
"""Each command, how its folder is known, and what reads it."""
