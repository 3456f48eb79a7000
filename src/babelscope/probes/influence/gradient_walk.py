"""Text that goes through a model with gradients: what each batch leaves at the MLPs' projections."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from babelscope.corpus import Batch, TokenDocument
from babelscope.models import Layout
from babelscope.probes.influence.mlp_projections import MlpProjections, Records
from babelscope.recording.walk import Forward, walk
from babelscope.recording.watchers import ReadSite, Watcher
from babelscope.sites import Site

BATCH_TOKENS = 512
"""Padded tokens of a batch: inputs and gradients of all projections are kept for it."""


@dataclass(eq=False)
class GradientWalk:
    """Text that goes through the model with gradients, and how much of it did."""

    projections: MlpProjections
    pad: int
    bar: Any

    def run(
        self, documents: Sequence[TokenDocument], add: Callable[[Batch, Records], None], *, seed: int | None = None
    ) -> None:
        """Hand the records of each batch on; seed: of targets drawn from the model, None takes the text's own."""
        watcher = RecordWatcher(lambda batch, records: self.told(batch, records, add))
        walk(
            self.projections.layout,
            [documents],
            [watcher],
            pad=self.pad,
            batch_tokens=BATCH_TOKENS,
            passes=partial(gradient_passes, self.projections, seed),
        )

    def told(self, batch: Batch, records: Records, add: Callable[[Batch, Records], None]) -> None:
        """Add a batch, and move the bar."""
        add(batch, records)
        self.bar.update(len(batch.documents))


@dataclass(frozen=True, eq=False)
class RecordWatcher:
    """What a walk with gradients adds to."""

    adds: Callable[[Batch, Records], None]
    hooks: dict[Site, ReadSite] = field(default_factory=dict)

    def add(self, batch: Batch, values: Records) -> None:
        """Hand a batch on."""
        self.adds(batch, values)


@contextmanager
def gradient_passes(
    projections: MlpProjections, seed: int | None, layout: Layout, watchers: Sequence[Watcher]
) -> Iterator[Forward]:
    """Passes whose one value is the batch's records."""
    # On the CPU always: of the same seed a GPU draws other numbers, and the curvature of few texts is another one.
    draws = None if seed is None else torch.Generator().manual_seed(seed)
    yield lambda batch: [projections.records(batch, draws)]
