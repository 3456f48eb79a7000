"""Which command wrote a folder, and its page: observe, identify, ablate, probe, features, sweeps, adapt and others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from babelscope.artifacts import NeuronSet, Observation
from babelscope.artifacts.feature_observation import FeatureObservation
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.errors import ArtifactError
from babelscope.figures.pages import AGAIN
from babelscope.files.strict_json import read_json
from babelscope.report.evidence_sections import evidence_section, pictures, read_evidence
from babelscope.report.folder_records import (
    AblationFile,
    AdaptationFile,
    ConsistencyFile,
    FallbackFile,
    ProbeFile,
    SweepFile,
)
from babelscope.report.folder_sections import (
    adaptation_section,
    fallback_section,
    features_section,
    left_share,
    side_effect_section,
    tokens_section,
)
from babelscope.report.harm import ablation_section
from babelscope.report.markup import Section, join
from babelscope.report.results.record_json import languages_of, read_record
from babelscope.report.results.selection_record import SetLayers
from babelscope.report.results.steering_record import NOT_STEERED
from babelscope.report.results.study_results import NOTHING_MEASURED
from babelscope.report.results.value_kinds import Ends
from babelscope.report.selection_sections import neuron_section
from babelscope.report.steered import dose_section
from babelscope.report.wording import percent

R = TypeVar("R")


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


def _read(kind: type[R], file: Path) -> R:
    """A JSON file with the fields that a page reads."""
    tree = read_json(file, advice=AGAIN)
    expected = "what the command writes"
    return read_record(kind, tree, languages_of(tree), place=str(file), expected=expected, advice=AGAIN)


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
    results = replace(
        NOTHING_MEASURED,
        folder=folder,
        languages=sets.languages,
        neurons=sets.sizes,
        layers=SetLayers(counts=sets.layer_counts.tolist()),
        set_size_interval={row.language: Ends(row.low, row.high) for row in rows if row.claim == "set size"},
        parameters=sets.parameters,
    )
    facts = {"method": sets.method, "neurons": f"{sum(sets.sizes.values()):,}"}
    evidence = [evidence_section(rows, "controls")] if rows else []
    return FolderPage(verb, sets.languages, facts, [neuron_section(results, name), *evidence])


def _ablated(folder: Path, name: str, verb: str) -> FolderPage:
    written = _read(AblationFile, folder / "ablation.json")
    results = replace(NOTHING_MEASURED, folder=folder, languages=written.languages, ablation=written.ablation)
    most = f"{sum(written.own_hurt_most.values())} of {len(written.own_hurt_most)}"
    facts = {"own text hurt most, interval above 0": most, "off means": written.to}
    return FolderPage(verb, written.languages, facts, [ablation_section(results, name)])


def _swept(folder: Path, name: str, verb: str) -> FolderPage:
    written = _read(SweepFile, folder / "steering.json")
    layer, strength, macro, tags = written.layer, written.strength, written.macro, tuple(written.success)
    steering = replace(NOT_STEERED, layer=layer, strength=strength, sweep=written.sweep, edge=written.edge)
    sections = [dose_section(replace(NOTHING_MEASURED, folder=folder, languages=tags, steering=steering), name)]
    if written.side_effects:
        sections.append(side_effect_section(written, name))
    facts = {
        "chosen": f"layer {layer}, strength {strength:g}",
        "right answers": f"{percent(macro.steered.estimate)}, native {percent(macro.native.estimate)}",
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
    written = _read(ProbeFile, folder / "summary.json")
    rows = {probe: read_evidence(folder / probe / "results.jsonl") for probe in written.rows}
    facts = {"probes": ", ".join(rows), "rows of evidence": f"{sum(map(len, rows.values())):,}"}
    if written.left_out:
        facts["left out"] = "; ".join(f"{probe}: {why}" for probe, why in written.left_out.items())
    sections = [evidence_section(evidence, probe, folder / probe) for probe, evidence in rows.items()]
    return FolderPage(verb, list(written.text.measured.documents), facts, sections)


def _asked_alike(folder: Path, name: str, verb: str) -> FolderPage:
    written = _read(ConsistencyFile, folder / "consistency.json")
    best = max(written.right, key=written.right.__getitem__)
    facts = {
        "questions": f"{written.questions:,}",
        "right": f"{best} {percent(written.right[best])}, {written.against} {percent(written.vote.alone)}, "
        f"vote {percent(written.vote.right)}",
        "same answer in two languages": percent(written.mean_agreement),
    }
    evidence = evidence_section(read_evidence(folder / "results.jsonl"), "answers", folder)
    return FolderPage(verb, written.languages, facts, [evidence])


def _adapted(folder: Path, name: str, verb: str) -> FolderPage:
    file = folder / "result.json"
    written = _read(AdaptationFile, file)
    if not written.before.get(written.language, 0) > 0:
        fault = f"before has no bits per byte of {written.language}"
        raise ArtifactError(f"{file}: {fault}; expected what the command writes; {AGAIN}")
    facts = {
        "trained": f"{written.trained:,} values",
        "gain": f"{written.gain:+.4f} bits per byte of {written.language}",
        "harm": "not measured" if written.harm is None else f"{written.harm:+.4f} bits per byte of other languages",
    }
    if written.no_gain:
        facts["result"] = written.no_gain
    section = adaptation_section(written, name)
    section = replace(section, body=join([section.body, *pictures(folder, name)]))
    return FolderPage(verb, list(written.after), facts, [section])


def _left(folder: Path, name: str, verb: str) -> FolderPage:
    written = _read(FallbackFile, folder / "fallback.json")
    last = written.steps[-1]
    facts = {
        f"answers not in {written.first}": f"{left_share(last.answers, written.first)} with {', '.join(last.off)} off, "
        f"{left_share(last.random_sets, written.first)} with random sets",
        "off means": written.by,
    }
    evidence = evidence_section(read_evidence(folder / "results.jsonl"), "steps")
    return FolderPage(verb, written.languages, facts, [fallback_section(written, name), evidence])


def _evident(folder: Path, name: str, verb: str) -> FolderPage:
    """A command whose folder is rows of evidence and pictures."""
    rows = read_evidence(folder / "results.jsonl")
    section = evidence_section(rows, verb, folder)
    claims = list(dict.fromkeys(row.claim for row in rows))
    facts = {"rows of evidence": f"{len(rows):,}", "claims": f"{len(claims):,}"}
    return FolderPage(verb, sorted({row.language for row in rows} - {""}), facts, [section])


def _has(*names: str) -> Callable[[Path], bool]:
    return lambda folder: all((folder / name).is_file() for name in ("results.jsonl", *names))


KINDS: tuple[tuple[str, Callable[[Path], bool], Callable[[Path, str, str], FolderPage]], ...] = (
    ("observe", lambda folder: _format(folder) == "Observation", _observed),
    ("identify", lambda folder: _format(folder) == "NeuronSet", _identified),
    ("ablate", lambda folder: (folder / "ablation.json").is_file(), _ablated),
    ("features", lambda folder: (folder / "features" / "config.json").is_file(), _featured),
    ("adapt", lambda folder: (folder / "result.json").is_file(), _adapted),
    ("probe", lambda folder: (folder / "summary.json").is_file(), _probed),
    ("consistency", lambda folder: (folder / "consistency.json").is_file(), _asked_alike),
    ("steer --sweep", lambda folder: (folder / "steering.json").is_file(), _swept),
    ("fallback", lambda folder: (folder / "fallback.json").is_file(), _left),
    ("edit", _has("edits.jsonl"), _evident),
    ("influence", _has("scores.jsonl", "layers.jsonl"), _evident),
    ("knowledge", _has("shared_facts.html"), _evident),
    ("priming", _has("priming.html"), _evident),
    ("transfer", _has("transfer.html"), _evident),
    ("experts", _has("model/config.json"), _evident),
)
"""Each command, how its folder is known, and what reads it."""
