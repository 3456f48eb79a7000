"""Processes that torchrun or accelerate started together, one for each device: which this is, and waiting for all."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

from babelscope.errors import PrerequisiteError, UsageError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
PATIENCE = timedelta(days=7)
"""The slowest rank may end so much later than the first."""


class Rank(NamedTuple):
    """One of the processes."""

    number: int = 0
    """From 0 on; rank 0 merges and prints."""
    world: int = 1
    """How many there are, on all machines."""
    local: int = 0
    """From 0 on, among those of this machine: the number of its GPU."""


def launched_rank() -> Rank:
    """Which process this is, by RANK, WORLD_SIZE and LOCAL_RANK; the only one where no launcher set them.

    Raises UsageError where they are no numbers that fit.
    """
    words = [os.environ.get(name) for name in VARIABLES]
    if words[0] is None or words[1] is None:
        return Rank()
    rank = Rank(*(int(word) if word and word.isdecimal() else -1 for word in words))
    if not 0 <= rank.number < rank.world or not 0 <= rank.local < rank.world:
        came = ", ".join(f"{name} {word!r}" for name, word in zip(VARIABLES, words, strict=True))
        raise UsageError(f"{came} came from the launcher; expected whole numbers, ranks below the size; unset them")
    return rank


def device_of_rank(rank: Rank, device: str) -> str:
    """For "auto", where a machine has GPUs, the one of this rank; any other word as it is."""
    import torch

    return f"cuda:{rank.local}" if rank.world > 1 and device == "auto" and torch.cuda.is_available() else device


def training_backend() -> str:
    """What carries sums between processes: NCCL for tensors on GPUs, gloo for all others."""
    import torch

    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


@contextmanager
def awaiting_all(rank: Rank) -> Iterator[Callable[[], object]]:
    """While open: a function that returns when every rank has called it, by torch.distributed's gloo.

    Raises PrerequisiteError where the ranks do not find each other.
    """
    if rank.world == 1:
        yield lambda: None
        return
    with joined(rank, "gloo", otherwise=", or give each --shard i/n and merge"):
        from torch import distributed

        yield distributed.barrier


@contextmanager
def joined(rank: Rank, backend: str, *, otherwise: str = "") -> Iterator[None]:
    """While open, a process group of all ranks; nothing for one alone. Raises as `awaiting_all`.

    otherwise: what else can be done where it cannot be opened, for the message.
    """
    if rank.world == 1:
        yield
        return
    from torch import distributed

    try:
        distributed.init_process_group(backend, timeout=PATIENCE)
    except (ValueError, distributed.DistError) as err:
        raise PrerequisiteError(
            f"rank {rank.number} of {rank.world} does not find the others ({err}); start them with torchrun or "
            f"accelerate launch{otherwise}"
        ) from err
    try:
        yield
    finally:
        distributed.destroy_process_group()
