"""How much each stage of the main job may read or write."""

import math
from dataclasses import dataclass, fields

from babelscope.errors import MeasurementError, SiteError
from babelscope.steering.sweeps.sweep_grid import STRENGTHS, sweep_layers

MAIN = ("en", "de", "fr", "es", "ru", "uk", "zh", "ja", "ar", "hi", "fi", "id")
"""The languages the bundled model knows well."""
FEWEST = {
    "observe_tokens": 1,
    "choose_tokens": 1,
    "resamples": 2,
    "ablate_tokens": 1,
    "part_tokens": 0,
    "script_documents": 1,
    "draws": 1,
    "dev_prompts": 1,
    "test_prompts": 1,
    "random_prompts": 1,
}
"""What each amount is at least."""
LARGE_VOCABULARY = 100_000
"""Entries from which the head is most of what a scored token costs in a model of some hundred million parameters."""
SCORED = {"choose_tokens": 250, "ablate_tokens": 700, "part_tokens": 250}
SCORED_LARGE = {"choose_tokens": 180, "ablate_tokens": 400, "part_tokens": 180}
"""Scored tokens where none are given: with a large vocabulary two thirds as many, whose head is most of the work."""
FLAG = {"observe_tokens": "tokens_per_language"}
"""What the command line calls an amount, where it is something else."""


@dataclass(frozen=True)
class Budget:
    """How much each stage may read or write."""

    observe_tokens: int = 20_000
    """Tokens a language, training split."""
    choose_tokens: int | None = None
    """Scored tokens per language for each candidate top_rate, validation split; None takes what `SCORED` says, or
    `SCORED_LARGE` for a vocabulary of `LARGE_VOCABULARY` or more."""
    script_documents: int = 200
    """Documents a language that the romanised control reads, validation split."""
    resamples: int = 100
    """Bootstraps, half-splits and label permutations."""
    ablate_tokens: int | None = None
    """Scored tokens per language, test split; None as above."""
    part_tokens: int | None = None
    """Scored tokens per language, test split, with parts of the sets off: neurons that only one language has, and those
    that it shares with its script or family; 0 leaves the parts out, None as above."""
    draws: int = 19
    """Random sets of each control."""
    layers: tuple[int, ...] = ()
    """Layers of the steering sweep; none means the first, and those at 1/8, 1/4 and 1/2 of the depth."""
    strengths: tuple[float, ...] = STRENGTHS
    """Strengths of the sweep, in multiples of the difference of means."""
    dev_prompts: int = 11
    """Prompts a target for each point of the sweep."""
    test_prompts: int = 22
    """Prompts a target for the final score."""
    random_prompts: int = 10
    """Prompts a target without steering, and under random and other-language directions."""

    def check(self) -> None:
        """Raise MeasurementError, all faults in one line, for amounts that a later stage could not work with."""
        amounts = [(FLAG.get(name, name), getattr(self, name), least) for name, least in FEWEST.items()]
        faults = [
            f"{name} {value} (expected {least} or more)"
            for name, value, least in amounts
            if value is not None and value < least
        ]
        if not self.strengths or not all(map(math.isfinite, self.strengths)):
            faults.append(f"strengths {list(self.strengths)} (expected one or more finite numbers)")
        if faults:
            raise MeasurementError(f"the study cannot have {', '.join(faults)}; correct what is named")

    def for_model(self, n_layers: int, vocabulary: int) -> "PlannedBudget":
        """The same with every amount named, by the model; raises SiteError for a layer that it has not."""
        if outside := [layer for layer in self.layers if not 0 <= layer < n_layers]:
            raise SiteError(
                f"layers {', '.join(map(str, outside))} came; the model has layers 0–{n_layers - 1}; give layers in "
                "that range"
            )
        own_amounts = {field.name: getattr(self, field.name) for field in fields(self)}
        usual = SCORED_LARGE if vocabulary >= LARGE_VOCABULARY else SCORED
        scored = {name: amount if own_amounts[name] is None else own_amounts[name] for name, amount in usual.items()}
        return PlannedBudget(**{**own_amounts, **scored, "layers": self.layers or sweep_layers(n_layers)})


@dataclass(frozen=True)
class PlannedBudget(Budget):
    """The amounts of one study of one model: none is left open."""

    choose_tokens: int = SCORED["choose_tokens"]
    ablate_tokens: int = SCORED["ablate_tokens"]
    part_tokens: int = SCORED["part_tokens"]
