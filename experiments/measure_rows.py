"""How does each method stand beside its paper: a witness, a planted case, a control, the paper's figure and ours?

Rows are measured one by one, each with the control that it names, and replace their line in the file. A row speaks
against itself where a witness differs by more than its bar, planted truth is not found, or the paper's order does not
hold.
"""

import json
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from rows.catalogue import ROWS
from rows.result import Inputs, RowResult

from babelscope.errors import ToolkitError
from babelscope.files.strict_json import nan_as_null
from babelscope.files.writing import write_text
from babelscope.runs import Run, commit, environment, run_experiment


@dataclass(frozen=True)
class Config:
    rows: tuple[int, ...] = ()
    """Numbers; none: all that have a function."""
    gemma: str = ""
    """Folder of Gemma 3 270M."""
    corpora: str = ""
    """Folder of real text."""
    gemma_sae: str = ""
    """Folder of an autoencoder of Gemma's stream; empty: rows of features leave Gemma out."""
    vectors: str = ""
    """Folder of word vectors of fastText, eu.vec.gz; empty: row 31 leaves them out, and says so."""
    qwen: str = ""
    """Folder of Qwen2.5-Coder 0.5B Instruct, a chat model."""
    confusion: str = ""
    """A clone of github.com/for-ai/language-confusion; empty: row 37 has six answers alone, and says so."""
    lid: str = ""
    """lid.176.bin or lid.176.ftz of fastText, for row 37."""
    checkpoints: str = ""
    """Folder of a run of `experiments/train_into_languages.py`; empty: row 25 has its planted case alone."""
    out: str = ""
    """The file rows.jsonl to bring up to date; empty: the run's own."""


def run(config: Config, run: Run) -> None:
    path = Path(config.out) if config.out else run.folder / "rows.jsonl"
    wanted = config.rows or tuple(number for number, entry in ROWS.items() if entry.measure)
    if unknown := [number for number in wanted if number not in ROWS or not ROWS[number].measure]:
        raise ToolkitError(f"rows {unknown} have nothing to measure: {[n for n, e in ROWS.items() if e.measure]} have")
    inputs = Inputs(
        gemma=config.gemma,
        corpora=config.corpora,
        gemma_sae=config.gemma_sae,
        vectors=config.vectors,
        qwen=config.qwen,
        confusion=config.confusion,
        lid=config.lid,
        checkpoints=config.checkpoints,
    )
    for number in wanted:
        # Processor seconds: what a row costs, whatever else the machine does.
        began, processor = time.monotonic(), time.process_time()
        module, function = ROWS[number].measure.split(":")
        result: RowResult = getattr(import_module(f"rows.{module}"), function)(inputs)
        spent = {"seconds": time.monotonic() - began, "processor_seconds": time.process_time() - processor}
        keep(path, {"row": number, "mark": result.mark, **asdict(result), **spent, **commit(), "on": environment()})
        run.log([{"row": number, "mark": result.mark, **spent}])


def keep(path: Path, line: dict) -> None:
    """The file with this row's line in the place of its earlier one, in the order of rows."""
    earlier = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    lines = {row["row"]: row for row in (*earlier, line)}
    text = "".join(json.dumps(nan_as_null(lines[n]), ensure_ascii=False) + "\n" for n in sorted(lines))
    write_text(path, text)


if __name__ == "__main__":
    run_experiment(Config, run)
