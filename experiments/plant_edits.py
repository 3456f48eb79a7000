"""Does an edit reach the languages that share the edited neurons, and no others? Planted: seven do, seven do not.

A model written down by hand knows eight facts in fifteen languages. In half of them a subject fires the neuron that it
fires in English, in the others each language has neurons of its own. Facts are edited in English, by rank one, by one
neuron and by MEMIT at once over three layers; the control of each is random and of equal size, at the same place. The
method speaks against itself where an edit stays out of a language that shares, or gets into one that does not, or
moves a fact that was not edited.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rows.edit_headlines import lines_by_language
from rows.planted_edits import fact_model, fact_table, planted_text

from babelscope.adaptation.editing import DescentSettings, EditEvidence, EditStudy, measure_edits
from babelscope.files.strict_json import nan_as_null
from babelscope.files.writing import write_text
from babelscope.runs import Run, commit, environment, run_experiment

LANGUAGES = ("en", "de", "fr", "es", "ru", "uk", "zh", "ja", "ar", "hi", "fi", "id", "eu", "cy", "tt")


@dataclass(frozen=True)
class Config:
    shared: tuple[str, ...] = LANGUAGES[:8]
    """Languages whose subjects fire the neurons of English, which is among them."""
    fact_layers: int = 3
    """In which the facts are."""
    strength: float = 0.35
    """Of what its MLPs write."""
    edits: int = 4
    out: str = "docs/measured"
    """Folder for planted_edits.jsonl."""


def run(config: Config, run: Run) -> None:
    table, last = fact_table(LANGUAGES), config.fact_layers - 1
    model, tokenizer = fact_model(
        shared=config.shared, languages=LANGUAGES, fact_layers=config.fact_layers, strength=config.strength
    )
    # The change is of few units: with the usual rate the descent would not get there in its steps.
    settings = DescentSettings(contexts=0, rate=1.0, longest=4.0 * config.fact_layers)
    study = EditStudy(
        edits=config.edits, held_out=1, methods=("rank one", "few neurons", "memit"), layers=(last,), neurons=(1,),
        span=config.fact_layers, weights=(0.01,), new_tokens=0, asked_after=1, settings=settings,
    )  # fmt: skip
    findings = measure_edits(model, tokenizer, table, study=study, text=planted_text(table))
    rows = [{**line, "shares": line["language"] in config.shared} for line in lines_by_language(EditEvidence(findings))]
    run.log(rows)
    facts = {**asdict(config), "environment": environment(), **commit()}
    lines = [json.dumps(nan_as_null(row), ensure_ascii=False) + "\n" for row in (facts, *rows)]
    write_text(Path(config.out) / "planted_edits.jsonl", "".join(lines))


if __name__ == "__main__":
    run_experiment(Config, run)
