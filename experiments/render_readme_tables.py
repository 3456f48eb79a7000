"""Which figures do the pages and the measurements share? All of them: this writes their tables from docs/measured/.

`--check` writes nothing and fails where a page says something else. There is no control: nothing is measured here.
"""

import difflib
import json
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import tyro
from tables import (
    chat,
    editing,
    engines,
    gpu,
    judging,
    main_job,
    planted,
    probes,
    ranks,
    registries,
    robustness,
    rows,
    steering,
    training,
    units,
    vocabulary,
)
from tables.measured import ROOT

from babelscope.files.writing import write_text
from babelscope.report.results import Results
from babelscope.report.results.record_schema import json_schema


@dataclass(frozen=True)
class Config:
    check: bool = False
    """Compare only; exit 1 where a page differs."""


PAGES = (
    "README.md",
    "docs/measurements.md",
    "docs/methods.md",
    "docs/why-does-it-answer-in-english.md",
    "docs/judging-answers.md",
    "docs/kernels.md",
    "docs/what-happens-to-damaged-files.md",
    "docs/rows.md",
    "docs/how-much-text.md",
    "docs/glossary.md",
    "docs/on-several-machines.md",
    "docs/in-other-libraries.md",
    "docs/make-room-for-a-language.md",
    "docs/does-an-edited-fact-reach-other-languages.md",
)
"""A block between `<!-- measured: name -->` and its end is written here, wherever it stands."""

SCHEMA = "docs/results.schema.json"
TABLES = {
    "rules": registries.rules_table,
    "kinds": registries.kinds_table,
    "words": registries.words_table,
    "summary": main_job.summary_lines,
    "real summary": main_job.real_summary,
    "ablation": main_job.ablation_table,
    "steering": main_job.steering_table,
    "gemma": partial(main_job.study_lines, "study-gemma-3-270m.json"),
    "gemma ablation": partial(main_job.ablation_table, "study-gemma-3-270m.json"),
    "gemma steering": partial(main_job.steering_table, "study-gemma-3-270m.json"),
    "qwen": partial(main_job.study_lines, "study-qwen2.5-coder-0.5b-instruct.json"),
    "qwen ablation": partial(main_job.ablation_table, "study-qwen2.5-coder-0.5b-instruct.json"),
    "qwen steering": partial(main_job.steering_table, "study-qwen2.5-coder-0.5b-instruct.json"),
    "cost": main_job.cost_table,
    "text amounts": main_job.amounts_table,
    "verdicts": main_job.verdicts_table,
    "steering methods": steering.methods_table,
    "steering methods Gemma": partial(steering.methods_table, "steering_methods-gemma-3-270m.json"),
    "chat": chat.chat_table,
    "feature settings": steering.feature_settings_table,
    "features": steering.features_table,
    "autoencoders": steering.saes_table,
    "langfir": steering.sensitivity_table,
    "published masks": units.published_table,
    "releases": units.releases_table,
    "text sources": units.sources_table,
    "massive units": steering.massive_table,
    "massive steering": steering.massive_steering_table,
    "kernels": units.kernel_table,
    "heads": units.heads_table,
    "drawing": units.drawing_table,
    "gpu machine": gpu.gpu_machine_lines,
    "gpu kernels": gpu.gpu_kernels_table,
    "gpu step": gpu.gpu_step_table,
    "gpu passes": gpu.gpu_passes_table,
    "gpu agreement": gpu.gpu_agreement_table,
    "gpu commands": gpu.gpu_commands_lines,
    "delta": training.delta_table,
    "mutations": robustness.mutations_table,
    "kills": robustness.kills_table,
    "archives": robustness.archives_table,
    "bad calls": robustness.calls_line,
    "saving": robustness.saving_table,
    "long runs": robustness.long_runs_lines,
    "real study": robustness.real_study_line,
    "training summary": training.training_summary,
    "training": partial(training.training_table, "adapt-llama.jsonl"),
    "training reference": partial(training.training_table, "adapt-reference.jsonl"),
    "adaptation": training.adaptation_table,
    "adapt defaults": training.defaults_table,
    "adaptation verdict": training.verdict_lines,
    "adaptation rates": training.rates_table,
    **{
        f"{what} Gemma": partial(table, "adapt_underserved-gemma-3-270m.jsonl")
        for what, table in (
            ("adaptation", training.adaptation_table),
            ("adaptation frontier", training.frontier_table),
            ("adaptation rates", training.rates_table),
            ("adaptation verdict", training.verdict_lines),
        )
    },
    "premium": probes.premium_table,
    "training shares": probes.training_shares_table,
    "known mixtures": probes.known_mixtures_table,
    "probe times": probes.probe_times_table,
    "startup": probes.startup_table,
    "commits": probes.commits_table,
    "latent language": probes.latent_language_table,
    "families": probes.families_table,
    "judge": judging.judge_table,
    "judge of neighbours": judging.neighbours_table,
    "judge cost": judging.judge_cost,
    "language heads": probes.language_heads_table,
    "trims": vocabulary.trims_table,
    "trims summary": vocabulary.trims_summary,
    "beginnings": vocabulary.beginnings_table,
    "beginnings summary": vocabulary.beginnings_summary,
    "extended": vocabulary.extended_table,
    "extended summary": vocabulary.extended_summary,
    "ranks": ranks.ranks_line,
    "training ranks": ranks.training_ranks_line,
    "llama.cpp": engines.llama_cpp_table,
    "planted": planted.planted_table,
    "planted summary": planted.planted_summary,
    "edits": editing.measured_edits_lines,
    "planted edits": editing.planted_edits_table,
    "rows": rows.rows_table,
    "rows summary": rows.rows_summary,
}
"""By the name of its block."""


def render(text: str, made: dict[str, list[str]]) -> str:
    for name, lines in made.items():
        begin, end = f"<!-- measured: {name} -->", f"<!-- /measured: {name} -->"
        if begin in text:
            head, rest = text.split(begin)
            text = head + begin + "\n" + "\n".join(lines) + "\n" + end + rest.split(end)[1]
    return text


def results_schema() -> str:
    """docs/results.schema.json, from the types of a study's results."""
    schema = json_schema(Results, identifier="urn:babelscope:results:1", title="babelscope results, version 1")
    return folded(schema) + "\n"


def folded(value: Any, indent: str = "") -> str:
    """JSON in which an object stands in one line where it is short."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent + line) <= 120 or not isinstance(value, dict):
        return line
    deeper = f"{indent}  "
    entries = (f"{deeper}{json.dumps(key)}: {folded(entry, deeper)}" for key, entry in value.items())
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"


def run(config: Config) -> int:
    made, differs = {name: table() for name, table in TABLES.items()}, False
    for page in (*PAGES, SCHEMA):
        path = ROOT / page
        before = path.read_text()
        after = results_schema() if page == SCHEMA else render(before, made)
        differs |= before != after
        if config.check:
            sys.stdout.writelines(
                difflib.unified_diff(before.splitlines(True), after.splitlines(True), page, "measured")
            )
        else:
            write_text(path, after)
    return int(differs and config.check)


if __name__ == "__main__":
    sys.exit(run(tyro.cli(Config)))
