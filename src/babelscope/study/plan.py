"""What a study was asked, so that another one is never gone on with in its folder."""

import hashlib
from dataclasses import asdict
from typing import Any

from transformers import PreTrainedModel

from babelscope.models import origin_of
from babelscope.study.job import Job

SAMPLED = 64
"""Values of each parameter that the hash of the weights reads."""


def plan_of(job: Job, steering: bool) -> dict[str, Any]:
    """Model, text and amounts; not the model's path, which may move."""
    return {
        "model": {**asdict(origin_of(job.model, job.tokenizer)), "model": ""},
        "weights": weights_hash(job.model),
        "dtype": str(job.model.dtype),
        "text": {split: part.hash for split, part in job.texts.items()},
        "languages": list(job.texts["train"]),
        "budget": asdict(job.budget),
        "seed": job.seed,
        "steering": steering,
    }


def weights_hash(model: PreTrainedModel) -> str:
    """blake2b of 64 values of each parameter, evenly spaced: other training of one architecture has another hash."""
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        if not parameter.is_meta:  # "map" may leave some on the disk
            values = parameter.detach().flatten()
            digest.update(values[:: max(1, len(values) // SAMPLED)].float().cpu().numpy().tobytes())
    return digest.hexdigest()
