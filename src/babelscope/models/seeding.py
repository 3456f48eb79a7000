"""Drawing by a seed, so that the caller's random numbers go on as if nothing had been drawn."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it torch draws by a seed; after it the generators of the CPU and of every GPU stand where they stood.

    `torch.manual_seed` seeds all GPUs, also those that a model is not on.
    """
    gpus = [*range(torch.cuda.device_count())] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)
        yield
