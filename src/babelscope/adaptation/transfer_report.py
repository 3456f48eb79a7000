"""The transfer matrix and the choice of sources, as rows of evidence and a figure in a folder."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from babelscope.adaptation.source_choice import SourceChoice
from babelscope.adaptation.space_changes import GAIN, SpaceChange
from babelscope.adaptation.transfer_runs import TransferMatrix
from babelscope.controls import Evidence, write_evidence
from babelscope.figures import write_figure
from babelscope.figures.transfer_map import TRANSFER_CAPTION, transfer_map
from babelscope.files.strict_json import nan_as_null
from babelscope.files.writing import new_folder, write_text
from babelscope.probes.probe_evidence import SiteEvidence

RESULT = "transfer.json"
UNTOUCHED = "the untouched model was the best step: nothing was learnt, and the source is left out of the choice"


@dataclass(frozen=True, eq=False)
class TransferReport:
    """Everything that `babelscope transfer` measures."""

    matrix: TransferMatrix
    choices: Sequence[SourceChoice]
    """Empty where too few sources learnt something."""
    draws: int
    seed: int
    changes: Sequence[SpaceChange] = ()
    """How the spaces of languages moved; empty there too."""

    def rows(self) -> Iterator[Evidence]:
        """One for each source and target, beside the mean of the other sources; two for each table of nearness."""
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
                    note=f"bits per byte; seeds {low:.4f} to {high:.4f}" if matrix.learnt[i] else UNTOUCHED,
                )
        for choice in self.choices:
            yield SiteEvidence(
                claim=f"nearness by {choice.table} ranks sources as their gains do",
                language="",
                control="languages change places in the table",
                n=int(matrix.learnt.sum()),
                estimate=choice.correlation,
                p=choice.p_adjusted,
                null=choice.null,
                draws=self.draws,
                seed=self.seed,
                note=f"p corrected for {len(self.choices)} tables, alone {choice.p:.4f}; nearest source gains "
                f"{choice.gain:.4f}, any {choice.gain_null:.4f}, the best {choice.gain_best:.4f} bits per byte; "
                f"p {choice.gain_p:.4f}",
            )
        for change in self.changes:
            yield SiteEvidence(
                claim=f"spaces of languages move with {'' if change.table == GAIN else 'nearness by '}{change.table}",
                language="",
                control="languages change places in the table",
                n=int(matrix.learnt.sum()),
                estimate=change.correlation,
                p=change.p_adjusted,
                null=change.null,
                draws=self.draws,
                seed=self.seed,
                note=f"p corrected for {len(self.changes)} tables, alone {change.p:.4f}; by layer "
                + ", ".join(f"{value:.2f}" for value in change.by_layer),
            )

    def save(self, out: str | Path) -> None:
        """Write results.jsonl, transfer.json and transfer.html into a new folder."""
        with new_folder(out) as folder:
            write_evidence(self.rows(), folder / "results.jsonl")
            fields = nan_as_null(self.summary())
            write_text(folder / RESULT, json.dumps(fields, ensure_ascii=False, indent=1) + "\n")
            gain = np.where(self.matrix.learnt[:, None], self.matrix.gain, np.nan)
            figure = transfer_map(gain=gain, languages=self.matrix.languages)
            write_figure(figure, folder / "transfer.html", TRANSFER_CAPTION)

    def summary(self) -> dict[str, object]:
        """For the command's result."""
        gain, tags = self.matrix.gain, self.matrix.languages
        learnt = self.matrix.learnt
        others = np.where(learnt[:, None] & ~np.eye(len(tags), dtype=bool), gain, -np.inf)
        best = {target: (tags[int(others[:, j].argmax())], float(others[:, j].max())) for j, target in enumerate(tags)}
        return {
            "learning_rate": self.matrix.learning_rate,
            "learnt_nothing": [tag for tag, some in zip(tags, learnt, strict=True) if not some],
            "best_source": {
                target: {"source": source, "gain": round(value, 4)} if value > 0 else "none gains"
                for target, (source, value) in best.items()
            },
            "choice": {
                choice.table: {
                    "rank correlation": round(choice.correlation, 3),
                    "p": round(choice.p, 4),
                    "p, corrected for all tables": round(choice.p_adjusted, 4),
                    "gain of the nearest": round(choice.gain, 4),
                    "of any": round(choice.gain_null, 4),
                    "of the best": round(choice.gain_best, 4),
                }
                for choice in self.choices
            },
            "change_of_spaces": {
                change.table: {"rank correlation": round(change.correlation, 3), "p": round(change.p_adjusted, 4)}
                for change in self.changes
            },
        }
