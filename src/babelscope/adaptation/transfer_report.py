"""The transfer matrix and the choice of sources, as rows of evidence and a figure in a folder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from babelscope.adaptation.source_choice import SourceChoice
from babelscope.adaptation.transfer_runs import TransferMatrix
from babelscope.controls import Evidence, write_evidence
from babelscope.figures import write_figure
from babelscope.figures.transfer_map import transfer_map
from babelscope.files.writing import new_folder
from babelscope.probes.probe_evidence import SiteEvidence


@dataclass(frozen=True, eq=False)
class TransferReport:
    """Everything that `babelscope transfer` measures."""

    matrix: TransferMatrix
    choices: Sequence[SourceChoice]
    draws: int
    seed: int

    def rows(self) -> Iterator[Evidence]:
        """One for each source and target, beside the mean of the other sources; one for each table of nearness."""
        matrix, gain = self.matrix, self.matrix.gain
        n, seeds = len(matrix.languages), len(matrix.gains)
        for i, source in enumerate(matrix.languages):
            for j, target in enumerate(matrix.languages):
                others = [k for k in range(n) if k not in (i, j)]
                low, high = matrix.gains[:, i, j].min(), matrix.gains[:, i, j].max()
                yield SiteEvidence(
                    claim=f"training on {source} gains in {target}",
                    language=target,
                    against=source,
                    control="mean of the other sources",
                    n=seeds,
                    estimate=float(gain[i, j]),
                    null=float(gain[others, j].mean()),
                    seed=self.seed,
                    note=f"bits per byte; seeds {low:.4f} to {high:.4f}",
                )
        for choice in self.choices:
            yield SiteEvidence(
                claim=f"nearness by {choice.table} ranks sources as their gains do",
                language="",
                control="languages change places in the table",
                n=n,
                estimate=choice.correlation,
                p=choice.p,
                null=choice.null,
                draws=self.draws,
                seed=self.seed,
                note=f"nearest source gains {choice.gain:.4f}, any {choice.gain_null:.4f}, the best "
                f"{choice.gain_best:.4f} bits per byte; p {choice.gain_p:.3f}",
            )

    def save(self, out: str | Path) -> None:
        """Write results.jsonl and transfer.html into a new folder."""
        with new_folder(out) as folder:
            write_evidence(self.rows(), folder / "results.jsonl")
            figure = transfer_map(gain=self.matrix.gain, languages=self.matrix.languages)
            write_figure(figure, folder / "transfer.html")

    def summary(self) -> dict[str, object]:
        """For the command's result."""
        gain, tags = self.matrix.gain, self.matrix.languages
        apart = np.where(np.eye(len(tags), dtype=bool), -np.inf, gain)
        return {
            "learning_rate": self.matrix.learning_rate,
            "best_source": {
                target: {"source": tags[int(apart[:, j].argmax())], "gain": round(float(apart[:, j].max()), 4)}
                for j, target in enumerate(tags)
            },
            "choice": {
                choice.table: {
                    "rank correlation": round(choice.correlation, 3),
                    "p": round(choice.p, 4),
                    "gain of the nearest": round(choice.gain, 4),
                    "of any": round(choice.gain_null, 4),
                    "of the best": round(choice.gain_best, 4),
                }
                for choice in self.choices
            },
        }
