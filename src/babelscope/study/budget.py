"""How much each stage of the main job may read or write."""

from dataclasses import dataclass, replace

MAIN = ("en", "de", "fr", "es", "ru", "uk", "zh", "ja", "ar", "hi", "fi", "id")
"""The languages the bundled model knows well."""


@dataclass(frozen=True)
class Budget:
    """How much each stage may read or write."""

    observe_tokens: int = 20_000
    """Tokens a language, training split."""
    choose_tokens: int = 250
    """Scored tokens a language for each candidate top_rate, validation split."""
    resamples: int = 100
    """Bootstraps, half-splits and label permutations."""
    ablate_tokens: int = 700
    """Scored tokens a language, test split."""
    draws: int = 19
    """Random sets of each control."""
    layers: tuple[int, ...] = ()
    """Layers of the steering sweep; none means those at one, two and three eighths of the depth."""
    strengths: tuple[float, ...] = (1.1, 1.2, 1.3)
    """Strengths of the sweep, in multiples of the difference of means."""
    dev_prompts: int = 11
    """Prompts a target for each point of the sweep."""
    test_prompts: int = 22
    """Prompts a target for the final score."""
    random_prompts: int = 10
    """Prompts a target without steering, and under random and other-language directions."""

    def for_depth(self, n_layers: int) -> "Budget":
        """The same, with the layers of the sweep named."""
        return replace(self, layers=self.layers or tuple(sorted({n_layers * eighths // 8 for eighths in (1, 2, 3)})))
