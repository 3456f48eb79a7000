"""Folders of studies, and of single commands, to one self-contained HTML page: its parts in order."""

from collections.abc import Sequence
from pathlib import Path

from babelscope.errors import ArtifactError
from babelscope.files.writing import write_text
from babelscope.report.answer_samples import samples_section
from babelscope.report.card import card_section, limits_section
from babelscope.report.first_screen import first_screen, headline
from babelscope.report.folder_pages import folder_page
from babelscope.report.harm import ablation_section
from babelscope.report.lens_comparison import lens_section
from babelscope.report.markup import Markup, Section, element, table
from babelscope.report.page import assemble
from babelscope.report.results.study_results import FILE, Results, read_results
from babelscope.report.selection_sections import neuron_section, overlap_section, script_section, stability_section
from babelscope.report.steered import dose_section, steering_section
from babelscope.report.summary import comparison_table, model_name, summary_section

PAGE = "report.html"


def write_report(
    run_folders: Sequence[str | Path] | str | Path, *, out: str | Path | None = None, include_samples: bool = True
) -> Path:
    """Write one HTML page about one or several runs; it opens offline and asks no host for anything. Returns its path.

    Reads the `results.json` of each study (docs/results.schema.json), and of other folders what observe, identify,
    ablate, probe, features, steer --sweep or adapt wrote there; several stand side by side. out: the file,
    `report.html` in the first folder unless given; a page that is there is replaced, whole or not at all. Without
    samples no generated text and no prompt is in the page. A part that a run did not measure says so.
    Raises ArtifactError, in one line, for a folder that no command wrote, for files that are missing, foreign or
    malformed, and for an out that is a folder; PrerequisiteError if the page cannot be written.
    """
    folders = [Path(run_folders)] if isinstance(run_folders, str | Path) else [Path(folder) for folder in run_folders]
    if not folders:
        raise ArtifactError("no run folder came; expected at least one; name the folder of a finished run")
    path = Path(out) if out is not None else folders[0] / PAGE
    if path.is_dir():
        raise ArtifactError(f"{path}: is a folder; expected the name of a file to write; add {PAGE}")
    if all((folder / FILE).is_file() or not folder.is_dir() for folder in folders):
        runs = [read_results(folder) for folder in folders]
        return write_text(path, _page(runs, include_samples=include_samples))
    return write_text(path, _folders_page(folders, include_samples=include_samples))


def _folders_page(folders: list[Path], *, include_samples: bool) -> str:
    """Folders of several commands, or of one, side by side."""
    groups, lines, said = [], [], []
    for at, folder in enumerate(folders, start=1):
        label, anchor = folder.resolve().name, f"run{at}"
        if (folder / FILE).is_file():
            run = read_results(folder)
            sections, facts, verb = _sections(run, anchor, include_samples=include_samples), {}, "study"
            languages, summary = run.languages, headline(run)
        else:
            page = folder_page(folder, anchor)
            sections, facts, verb, languages = page.sections, page.facts, page.verb, page.languages
            summary = "; ".join(f"{key}: {value}" for key, value in facts.items())
        groups.append((anchor, (label if label == verb else f"{label} – {verb}") if len(folders) > 1 else "", sections))
        said.append(f"{verb}: {summary}")
        lines.append((element("a", label, href=f"#{anchor}"), verb, len(languages) or "–", summary))
    names = [folder.resolve().name for folder in folders]
    labels = names if len(set(names)) == len(names) else [f"{at} {name}" for at, name in enumerate(names, start=1)]
    if lenses := lens_section(dict(zip(labels, folders, strict=True)), "page"):
        groups.append(("page", "All together", [lenses]))
    title = (
        f"{len(folders)} folders side by side" if len(folders) > 1 else f"{folders[0].resolve().name} – {lines[0][1]}"
    )
    intro = table(("Folder", "Written by", "Languages", "What it says"), lines)
    return assemble(title=title, intro=intro, groups=groups, says="; ".join(said))


def _page(runs: list[Results], *, include_samples: bool) -> str:
    several = len(runs) > 1
    groups = []
    for at, run in enumerate(runs, start=1):
        heading = f"{run.folder.resolve().name} – {model_name(run)}" if several else ""
        groups.append((f"run{at}", heading, _sections(run, f"run{at}", include_samples=include_samples)))
    limits = limits_section(runs)
    groups = [*groups, ("page", "", [limits])] if several else [("run1", "", [*groups[0][2], limits])]
    title = f"{len(runs)} runs side by side" if several else f"Languages inside {model_name(runs[0])}"
    intro = comparison_table(runs) if several else first_screen(runs[0], "run1", include_samples=include_samples)
    return assemble(title=title, intro=intro, groups=groups, says="; ".join(map(headline, runs)))


def _sections(run: Results, name: str, *, include_samples: bool) -> list[Section]:
    parts = [
        summary_section(run),
        neuron_section(run, name),
        overlap_section(run, name),
        stability_section(run, name),
        ablation_section(run, name),
        dose_section(run, name),
        steering_section(run, name),
        script_section(run, name),
    ]
    if include_samples:
        parts.append(samples_section(run))
    else:
        note = element("p", "Left out of this page on request.", class_="missing")
        parts.append(Section("samples", "What the answers look like", Markup(note)))
    return [*parts, card_section(run)]
