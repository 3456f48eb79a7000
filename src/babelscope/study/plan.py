"""What a study was asked, so that another one is never gone on with in its folder."""

from dataclasses import asdict
from typing import Any

from babelscope.models import origin_of, weights_hash
from babelscope.study.job import StudyInputs


def plan_of(job: StudyInputs, steering: bool) -> dict[str, Any]:
    """Model, text and amounts; not the model's path, which may move."""
    return {
        "model": {**origin_of(job.model, job.tokenizer).names, "model": ""},
        "weights": weights_hash(job.model),
        "dtype": str(job.model.dtype),
        "text": {split: part.hash for split, part in job.texts.items()},
        "languages": list(job.texts["train"]),
        "budget": asdict(job.budget),
        "seed": job.seed,
        "steering": steering,
        **({} if job.chat is None else {"chat": job.chat.card()}),
    }
