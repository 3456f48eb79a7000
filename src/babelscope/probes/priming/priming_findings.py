"""Effects of primes as rows of evidence, a forest plot, and what is printed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babelscope.controls import write_evidence
from babelscope.figures import PRIMING_CAPTION, priming_forest, write_figure
from babelscope.files.writing import new_folder
from babelscope.probes.priming.primed_structures import CONDITIONS, PrimingEffect, PrimingPlan
from babelscope.probes.priming.stimuli import Stimuli
from babelscope.probes.probe_evidence import SiteEvidence


@dataclass(frozen=True, eq=False)
class PrimingFindings:
    """What was measured on a model, and on its earlier checkpoints."""

    stimuli: Stimuli
    effects: Sequence[PrimingEffect]
    earlier: Mapping[str, Sequence[PrimingEffect]]
    """By checkpoint, in order."""
    plan: PrimingPlan

    def rows(self) -> list[SiteEvidence]:
        """Those of the model, then those of each checkpoint, which is named at the end of the claim."""
        return [
            *priming_rows(self.effects, self.plan),
            *(
                row
                for checkpoint, effects in self.earlier.items()
                for row in priming_rows(effects, self.plan, f", checkpoint {checkpoint}")
            ),
        ]

    def summary(self) -> dict[str, Any]:
        """What is printed: each direction's effect, its interval and q."""
        return {
            "structures": list(self.stimuli.structures),
            "effects": {
                f"{effect.prime}:{effect.target}": {
                    "items": effect.items,
                    "effect": round(effect.effect, 4),
                    "interval": [round(effect.low, 4), round(effect.high, 4)],
                    "q": round(effect.q, 4),
                }
                for effect in self.effects
                if effect.condition == "structure"
            },
            "first_checkpoint_above_zero": {
                f"{effect.prime}:{effect.target}": first_above_zero(self.earlier, effect)
                for effect in self.effects
                if effect.condition == "structure" and self.earlier
            },
        }

    def save(self, out: str | Path) -> None:
        """Write results.jsonl and priming.html into a new folder."""
        directions = dict.fromkeys(f"{effect.prime} → {effect.target}" for effect in self.effects)
        by_condition = {
            condition: {
                f"{effect.prime} → {effect.target}": (effect.effect, effect.low, effect.high)
                for effect in self.effects
                if effect.condition == condition
            }
            for condition in CONDITIONS
        }
        figure = priming_forest(effects={k: v for k, v in by_condition.items() if v}, directions=[*directions])
        with new_folder(out) as folder:
            write_evidence(self.rows(), folder / "results.jsonl")
            write_figure(figure, folder / "priming.html", PRIMING_CAPTION)


def first_above_zero(earlier: Mapping[str, Sequence[PrimingEffect]], effect: PrimingEffect) -> str | None:
    """The first checkpoint from which on every interval of a direction lies above zero; None where there is none."""
    first = None
    for checkpoint, effects in earlier.items():
        above = any(earlier_effect[:3] == effect[:3] and earlier_effect.low > 0 for earlier_effect in effects)
        first = (first or checkpoint) if above else None
    return first


def priming_rows(effects: Iterable[PrimingEffect], plan: PrimingPlan, place: str = "") -> list[SiteEvidence]:
    """A row per direction and condition; place: what the claim ends with."""
    return [
        SiteEvidence(
            claim=f"priming, {effect.condition}{place}",
            language=effect.target,
            against=effect.prime,
            control=CONDITIONS[effect.condition],
            n=effect.items,
            estimate=effect.effect,
            low=effect.low,
            high=effect.high,
            p=effect.p,
            null=0.0,
            draws=plan.signs,
            seed=plan.seed,
            note=f"language of the prime in `against`; d {effect.d:.2f}; t {effect.t:.2f}; q {effect.q:.4f}; P_N "
            f"{effect.first:.3f} and {effect.second:.3f}; token overlap with X {effect.overlap:.3f} and "
            f"{effect.overlap_other:.3f}",
        )
        for effect in effects
    ]
