"""`steer --sweep`: the dose–response study of an Observation's directions."""

from pathlib import Path

from babelscope.artifacts import Observation
from babelscope.cli.argument_kinds import checkpoint_of, free
from babelscope.cli.arguments import Result
from babelscope.cli.finished_calls import kept_result
from babelscope.cli.telling import Fields, Told
from babelscope.cli.telling_steering import sweep_lines
from babelscope.corpus import load_splits
from babelscope.models import open_model
from babelscope.study.sweep_job import TABLE, SweepPlan, run_sweep

TOLD = ("layer", "strength", "edge", "macro")


def sweep_steering(
    model_name: str,
    observation: Path,
    corpus: str,
    plan: SweepPlan,
    out: Path,
    *,
    resume: bool,
    device: str,
    dtype: str,
) -> Result:
    """What `steer --sweep` does, and what is printed of it."""
    checkpoint = checkpoint_of(out, resume=resume)
    if resume and (finished := kept_result(out, TABLE, checkpoint, lambda fields: told_sweep(fields, out))) is not None:
        return finished
    free(out)
    languages = Observation.load(observation).languages
    texts = load_splits(corpus, languages, splits=("valid", "test"), same_text=plan.same_text)
    model, tokenizer = open_model(model_name, device=device, dtype=dtype)
    table = run_sweep(model, tokenizer, observation, texts, plan, out, checkpoint)
    return told_sweep({"out": str(out), **table}, out)


def told_sweep(table: Fields, out: Path) -> Told:
    """A sweep's choice and score, as fields for machines and as lines for a person."""
    return Told({key: table[key] for key in table if key in ("out", "resumed", *TOLD)}, sweep_lines(table, out))
