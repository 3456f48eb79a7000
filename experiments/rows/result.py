"""What a measured row says: witnesses, planted truth, control, and the paper's figure beside ours."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["reproduced", "in shape", "not"]


@dataclass(frozen=True, kw_only=True)
class Witness:
    """A number of this library beside the same number computed without its code."""

    what: str
    """How the other number was computed, with how many cases."""
    difference: float
    """The largest, in the unit that `what` names."""
    bar: float
    """The difference may not be larger."""

    @property
    def holds(self) -> bool:
        return math.isfinite(self.difference) and self.difference <= self.bar


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A truth put into a model or data, and how much of it is found."""

    what: str
    recall: float
    precision: float

    @property
    def holds(self) -> bool:
        return self.recall == 1 and self.precision == 1


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The paper's own figure and ours."""

    paper: str
    """What the paper reports, with its model."""
    ours: str
    """What was measured here, with its interval or seeds, formatted from numbers."""
    control: str
    """The same under the control, formatted from numbers."""
    model: str
    verdict: Verdict
    """By a comparison of numbers in the row's function: reproduced where the figure lies in the paper's range, in shape
    where the paper's order or course holds with another figure."""


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """One row as it was measured."""

    witnesses: Sequence[Witness]
    headlines: Sequence[Headline]
    planted: Sequence[Planted] = ()
    absent: Sequence[str] = ()
    """Parts of the paper's method that cannot be had here, one short phrase each, with the reason."""
    table: Sequence[Mapping[str, str | int | float]] = ()
    """Lines of a table of its own, which a page of the docs shows."""

    @property
    def mark(self) -> str:
        """● where all is there, all witnesses agree and all that was planted is found; else ◐."""
        whole = bool(self.witnesses) and not self.absent
        return "●" if whole and all(part.holds for part in (*self.witnesses, *self.planted)) else "◐"


@dataclass(frozen=True)
class Inputs:
    """What rows are measured on, beside the bundled model and corpus."""

    gemma: str = ""
    """Folder of Gemma 3 270M."""
    corpora: str = ""
    """Folder of real text with `mono`, `parallel` and `eval`."""
    gemma_sae: str = ""
    """Folder of an autoencoder of Gemma's stream, as `experiments/train_reference_saes.py` trains one."""
    vectors: str = ""
    """Folder of <tag>.vec.gz, as `experiments/make_word_vectors.py` writes them."""
    qwen: str = ""
    """Folder of Qwen2.5-Coder 0.5B Instruct, a chat model."""
    confusion: str = ""
    """A clone of github.com/for-ai/language-confusion, whose script is run."""
    lid: str = ""
    """The identifier lid.176 of fastText, whole or compressed."""
    checkpoints: str = ""
    """Folder of a run of `experiments/train_into_languages.py`, with a folder for each checkpoint."""
