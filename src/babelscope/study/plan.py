"""What a run was asked, so that another one is never gone on with in its place."""

from dataclasses import asdict
from typing import Any

from babelscope.models.origin import plan_of_model
from babelscope.study.job import StudyInputs


def plan_of(job: StudyInputs, steering: bool) -> dict[str, Any]:
    """Model, text and amounts."""
    return {
        **plan_of_model(job.model, job.tokenizer),
        "text": {split: part.hash for split, part in job.texts.items()},
        "languages": list(job.texts["train"]),
        "budget": asdict(job.budget),
        "seed": job.seed,
        "steering": steering,
        **({} if job.chat is None else {"chat": job.chat.card()}),
    }
