"""What was found out about single units of a language, as rows for people and for programs."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from babelscope.artifacts.shown import shown_by
from babelscope.files.writing import write_text
from babelscope.languages import Language


class FiringContext(NamedTuple):
    """A place in a text where a unit fires."""

    language: Language
    """Of the text."""
    before: str
    """What stands before the token."""
    token: str
    """The token on which the unit fires."""
    after: str
    """What follows it, which the unit has not seen."""
    value: float
    """The unit's activation there."""


@dataclass(frozen=True)
class UnitDescription:
    """One neuron or feature."""

    __repr__ = shown_by()

    unit: str
    """Such as `3.mlp_gate[120]`."""
    layer: int
    index: int
    score: float
    """By the method that selected it."""
    rates: Mapping[Language, float]
    """Share of each language's counted tokens on which it is active; empty where no text came."""
    harm: float | None
    """With this unit alone off: rise of the own text's negative log-likelihood over what it was; None: not measured."""
    control: str
    """A unit of the same layer, or autoencoder, that belongs to no language, drawn at random."""
    control_harm: float | None
    """The same for that one."""
    contexts: tuple[FiringContext, ...]
    """Where it fires most, one place of a document at most, the greatest first."""
    writes: tuple[str, ...]
    """Tokens whose logits rise most if the stream were what this unit adds to it alone, the first most of all."""

    def lead(self, language: Language) -> float:
        """Rate on a language's tokens over the largest of the others; the rate itself where there are no others."""
        other_rates = [rate for tag, rate in self.rates.items() if tag != language]
        return self.rates[language] - max(other_rates, default=0.0)


@dataclass(frozen=True)
class UnitDashboard:
    """The units of one language."""

    __repr__ = shown_by()

    kind: str
    """neuron or feature."""
    language: Language
    model: str
    """What the artifact calls its model."""
    method: str
    """What selected them."""
    total: int
    """Units of the language in the artifact, of which some are described."""
    tokens: Mapping[Language, int]
    """Counted tokens of each language's text."""
    seed: int
    """What the control units were drawn with."""
    units: tuple[UnitDescription, ...]
    """By falling lead of the own language's rate over the others'; without text in the artifact's order."""

    def __str__(self) -> str:
        return "\n".join(self.lines())

    @property
    def has_effects(self) -> bool:
        """Whether any unit was switched off alone."""
        return any(unit.harm is not None for unit in self.units)

    def rows(self) -> list[dict[str, Any]]:
        """A row per unit, with lists and objects in it, for JSON."""
        return [
            {**vars(unit), "rates": dict(unit.rates), "contexts": [context._asdict() for context in unit.contexts]}
            for unit in self.units
        ]

    def flat_rows(self) -> list[dict[str, Any]]:
        """A row per unit of numbers and texts alone, for CSV; a fired token stands between ‹ and ›."""
        return [
            {
                "language": self.language, "unit": unit.unit, "layer": unit.layer, "index": unit.index,
                "score": unit.score, **{f"rate_{tag}": rate for tag, rate in unit.rates.items()}, "harm": unit.harm,
                "control": unit.control, "control_harm": unit.control_harm, "writes": " ".join(map(repr, unit.writes)),
                **{f"context_{at}": f"{context.before}‹{context.token}›{context.after}"
                   for at, context in enumerate(unit.contexts, start=1)},
            }
            for unit in self.units
        ]  # fmt: skip

    def lines(self) -> list[str]:
        """A table for the terminal: a line per unit, and under it its places in the text, the fired token in ‹ ›."""
        other, effects = len(self.tokens) > 1, self.has_effects
        head = [f"{self.kind} of {self.language}", "active", *(["next most"] if other else [])]
        head += ["off alone", "control"] if effects else []
        control = "control: a unit of no language off alone"
        cells = [head if self.tokens else head[:1]]
        for unit in self.units:
            other_rates = {tag: rate for tag, rate in unit.rates.items() if tag != self.language}
            nearest = max(other_rates, key=other_rates.__getitem__, default=None)
            cells.append([
                unit.unit,
                *([] if not unit.rates else [f"{100 * unit.rates[self.language]:.1f} %"]),
                *([] if nearest is None else [f"{100 * other_rates[nearest]:.1f} % {nearest}"]),
                *([in_percent(unit.harm), in_percent(unit.control_harm)] if unit.rates and effects else []),
            ])  # fmt: skip
        widths = [max(len(row[at]) for row in cells) for at in range(len(cells[0]))]
        lines = [
            f"{len(self.units)} of {self.total} {self.kind}s of {self.language} in {self.model}, by {self.method}"
            + (f"; active: share of {self.tokens[self.language]:,} tokens" if self.tokens else "")
            + (f"; off alone: rise of the loss on {self.language} text; {control}" if effects else "")
        ]
        for at, row in enumerate(cells):
            joined = "  ".join(
                [row[0].ljust(widths[0]), *(cell.rjust(widths[1 + n]) for n, cell in enumerate(row[1:]))]
            )
            lines.append(f"{joined}  {'writes' if not at else ' '.join(map(repr, self.units[at - 1].writes))}")
            for context in self.units[at - 1].contexts if at else ():
                words = " ".join(f"{context.before}‹{context.token}›{context.after}".split())
                lines.append(f"    {context.language} {context.value:.2f}  {words}")
        return lines

    def write_csv(self, path: str | Path) -> Path:
        """Write `flat_rows` as CSV in UTF-8, whole or not at all; raises PrerequisiteError if the disk refuses."""
        rows = self.flat_rows()
        lines = io.StringIO()
        names = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(lines, fieldnames=list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return write_text(Path(path), lines.getvalue())


def in_percent(harm: float | None) -> str:
    """A relative harm with its sign; a dash where none was measured."""
    return "–" if harm is None else f"{100 * harm:+.3f} %".replace("-", "−")
