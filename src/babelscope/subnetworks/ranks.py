"""Processes that share each step of one training: every one takes some of its rows, and their gradients are added."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from babelscope.axes import Tensor
from babelscope.errors import MeasurementError, PrerequisiteError


@dataclass(frozen=True)
class Ranks:
    """This process among those of a training; one alone takes all rows and waits for nobody.

    All of them hold the same values, and move them by the same gradient. What they exchange is a step's gradients of
    the trained values, which are few, and some numbers; a model must fit on the device of each.
    """

    number: int = 0
    """From 0 on; the first keeps the checkpoint and the result."""
    world: int = 1
    """How many there are."""

    @classmethod
    def of_group(cls) -> "Ranks":
        """The processes of torch.distributed's default group, all of which must call this.

        Raises PrerequisiteError where none is open, or where it carries no tensors of the CPU, as of NCCL alone.
        """
        if not (distributed.is_available() and distributed.is_initialized()):
            raise PrerequisiteError(
                "no process group is open; expected one for ranks to share a training; start by torchrun and call "
                "torch.distributed.init_process_group, or leave ranks out"
            )
        try:
            distributed.all_reduce(torch.zeros(1))
        except RuntimeError as err:
            raise PrerequisiteError(
                f"the process group carries no tensors of the CPU ({str(err).splitlines()[0]}); expected gloo beside "
                "NCCL; open it with backend 'cpu:gloo,cuda:nccl'"
            ) from err
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.world == 1

    @property
    def first(self) -> bool:
        """Whether this one keeps what is written."""
        return self.number == 0

    def check_rows(self, rows: int) -> None:
        """Raise MeasurementError unless rows of one pass can be shared equally."""
        if rows % self.world:
            raise MeasurementError(
                f"{rows} rows a pass came for {self.world} ranks; expected a multiple of the ranks; change the tokens "
                "of a step, the length of a row, or the number of ranks"
            )

    def part(self, start: int, count: int) -> tuple[int, int]:
        """Of `count` rows from `start`, the first and the number of those that this one takes."""
        size = count // self.world
        return start + self.number * size, size

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Put the sum over all ranks into each tensor."""
        if not self.alone:
            for tensor in tensors:
                distributed.all_reduce(tensor)

    def total(self, *numbers: float) -> list[float]:
        """Sums over all ranks, in float64 and the same in each of them."""
        if self.alone:
            return [*numbers]
        sums = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(sums)
        return sums.tolist()

    def any(self, yes: bool) -> bool:
        """Whether it is so in one of them."""
        return yes if self.alone else self.total(float(yes))[0] > 0

    def from_first(self, value: Any) -> Any:
        """What the first one has, as JSON; the others' own is not read."""
        if self.alone:
            return value
        # As bytes of text: torch's own way to send an object is pickle.
        text = json.dumps(value).encode() if self.first else b""
        length = torch.tensor([len(text)])
        distributed.broadcast(length, 0)
        letters = torch.tensor([*text] if self.first else [0] * int(length), dtype=torch.uint8)
        distributed.broadcast(letters, 0)
        return json.loads(bytes(letters.tolist()).decode())

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Make each tensor what it is in the first one."""
        if not self.alone:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)
