"""What a study wrote down of its numbers, in words for captions: seeds, tokens, draws; or that it did not."""

from babelscope.report.results import Results
from babelscope.report.results.study_results import CorpusCard
from babelscope.report.wording import counted, known, plain

UNRECORDED = "not recorded"
CONTROL_STAGES = ("bootstrap", "stability", "overlap", "script")
"""Stages that belong to the controls and take their seed where they have none of their own."""


def seed_of(results: Results, stage: str) -> str:
    """Seed of a stage as the run wrote it down."""
    stages = {"ablation": results.ablation.seed, "steering": results.steered.seed}
    controls = results.controlled.seed if stage in CONTROL_STAGES else None
    places = (stages.get(stage), (results.seeds or {}).get(stage), controls, results.seed)
    recorded = next((seed for seed in places if seed is not None and known(seed)), None)
    return UNRECORDED if recorded is None else str(recorded)


def tokens_said(results: Results) -> str:
    """Tokens a language in the counts."""
    tokens = list(results.measured((results.corpus or CorpusCard()).tokens).values())
    if not tokens:
        return f"tokens {UNRECORDED}"
    return f"{counted(tokens)} tokens per language"


def parameter_said(results: Results, key: str, what: str) -> str:
    """A number of draws, splits or resamples and what it counts, such as "200 half-splits"."""
    parameter = (results.parameters or {}).get(key)
    value = (results.budget or {}).get("resamples") if parameter is None else parameter
    return f"{plain(value, 0)} {what}" if value is not None and known(value) else f"number of {what} {UNRECORDED}"
