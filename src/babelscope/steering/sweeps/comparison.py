"""Many ways of steering on the same prompts: each at its best setting on development text, scored once on test text."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Operation, Schedule, SteeringRecipe
from babelscope.controls import percentile_interval, wilson_interval
from babelscope.corpus import Corpus
from babelscope.errors import MeasurementError
from babelscope.languages import Language
from babelscope.models.plain import CausalModel
from babelscope.runs import Run
from babelscope.steering.sweeps.answer_scores import AnswerFluency, fluency_by_target, score_answers
from babelscope.steering.sweeps.decoding import Decoding
from babelscope.steering.sweeps.fluent_choice import Bounds, Standing, best_fluent
from babelscope.steering.sweeps.prompting import Request
from babelscope.steering.sweeps.steered_answers import Answer, generate_answers
from babelscope.steering.sweeps.steering_prompts import make_prompts
from babelscope.steering.sweeps.steering_runs import vary_sources

NATIVE = "native"
"""The ceiling: the model's own continuations of target-language prompts."""
Row = dict[str, Any]
"""One method at one setting and seed, as it stands in results.jsonl."""


class Setting(NamedTuple):
    """One form of a method."""

    layer: int
    """Or what a method makes of it, such as a number of heads or of examples."""
    strength: float | int
    end: float | int = 1.0
    """Share of the strength that is left from the eighth new token on."""

    @property
    def fade(self) -> Schedule:
        """From the whole strength to that share."""
        return Schedule.ramp(8, start=1.0, end=self.end)


def leave(setting: Setting, target: Language, source: Language) -> Sequence[Operation]:
    """Nothing: what a baseline does to the model."""
    return []


class ComparedMethod(NamedTuple):
    """A way to steer, and the settings among which it is chosen."""

    name: str
    source: str
    settings: Sequence[Setting]
    build: Callable[[Setting, Language, Language], SteeringRecipe | Sequence[Operation]] = leave
    """Setting, target and source → operations for such a row."""
    rewrite: Callable[[Setting, Sequence[Request]], list[Request]] | None = None
    """For baselines that write other prompts."""
    batch: int = 128


def grid(
    layers: Sequence[int], strengths: Sequence[float | int], ends: Sequence[float | int] = (0.3,)
) -> list[Setting]:
    """Every combination."""
    return [Setting(layer, strength, end) for layer in layers for strength in strengths for end in ends]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The model and the prompts that every method is given."""

    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    texts: Mapping[str, Corpus]
    """By split, "valid" and "test"."""
    targets: tuple[Language, ...]
    prompts: Mapping[str, int]
    """A target and seed, by split; each seed has its own."""
    new_tokens: int = 32

    def answers(self, method: ComparedMethod, setting: Setting, split: str, seed: int) -> list[Answer]:
        """A method's answers; another seed has other prompts and other draws."""
        count = self.prompts[split]
        if (seed + 1) * count > len(self.texts[split][self.targets[0]]):
            raise MeasurementError(f"{split}: too few documents for {count} prompts at seed {seed}; ask for fewer")
        prompts = make_prompts(self.texts[split], per_language=count, start=seed * count)
        requests: list[Request] = vary_sources(prompts, self.targets, count)
        if method.name == NATIVE:
            requests = [(prompt, tag) for tag in self.targets for prompt in prompts if prompt.source == tag]
        if method.rewrite is not None:
            requests = method.rewrite(setting, requests)
        steerer = cache(partial(method.build, setting))
        decoding = Decoding(new_tokens=self.new_tokens, seed=seed, batch_size=method.batch)
        return generate_answers(self.model, self.tokenizer, requests, steerer, decoding=decoding)

    def measure(
        self, method: ComparedMethod, setting: Setting, split: str, seed: int, native: Mapping[Language, AnswerFluency]
    ) -> Row:
        """One row: which answers are right, and fluency beside the native answers of the same prompts' sentences."""
        began = time.perf_counter()
        answers = self.answers(method, setting, split, seed)
        scores = score_answers(self.model, self.tokenizer, answers, native)
        ratios = {tag: score.perplexity_ratio for tag, score in scores.items()}
        return {
            "method": method.name,
            "source": method.source,
            "split": split,
            "seed": seed,
            **setting._asdict(),
            "success": float(np.mean([score.success for score in scores.values()])),
            "perplexity_ratio": _geometric(list(ratios.values())),
            "distinct4_ratio": float(np.mean([score.distinct4_ratio for score in scores.values()])),
            "right": {tag: [int(v.verdict == "right") for v in score.verdicts] for tag, score in scores.items()},
            "ratio": ratios,
            "seconds": round(time.perf_counter() - began, 1),
        }


def compare_methods(
    comparison: Comparison, methods: Sequence[ComparedMethod], run: Run, *, seeds: Sequence[int], minutes: float | int
) -> bool:
    """Measure every method: all settings on "valid" at seed 0, then the chosen one on "test" at every seed.

    The first method must be the native one. Rows that the run has already are not measured again.
    Returns False where `minutes` were over before the last row; call again to go on.
    """
    began = time.monotonic()

    @cache
    def native(split: str, seed: int) -> Mapping[Language, AnswerFluency]:
        answers = comparison.answers(methods[0], methods[0].settings[0], split, seed)
        return fluency_by_target(comparison.model, comparison.tokenizer, answers)

    for method in methods:
        for split in ("valid", "test"):
            for setting, seed in _plan(method, split, seeds, run.results()):
                if (time.monotonic() - began) / 60 > minutes:
                    return False
                run.log([comparison.measure(method, setting, split, seed, native(split, seed))])
    return True


def _plan(method: ComparedMethod, split: str, seeds: Sequence[int], rows: Sequence[Row]) -> list[tuple[Setting, int]]:
    """What of a method is still to be measured."""
    method_rows = [row for row in rows if row["method"] == method.name]
    if split == "valid":
        planned = [(setting, 0) for setting in method.settings]
    else:
        planned = [
            (setting_of(choose_row([row for row in method_rows if row["split"] == "valid"])), seed) for seed in seeds
        ]
    measured = {(setting_of(row), row["seed"]) for row in method_rows if row["split"] == split}
    return [entry for entry in planned if entry not in measured]


def setting_of(row: Row) -> Setting:
    """The setting of a row."""
    return Setting(*(row[name] for name in Setting._fields))


def choose_row(rows: Sequence[Row]) -> Row:
    """The most successful fluent row, of equals that of the lower ratio, by `fluent_choice.best_fluent`.

    Answers far likelier than native ones are loops: they are no more fluent than odd ones.
    """
    return best_fluent(rows, _standing)


def _standing(row: Row) -> Standing:
    return Standing(row["success"], row["perplexity_ratio"], row["distinct4_ratio"])


def summarise(rows: Sequence[Row], *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Every method's test score, the best method on development text, and the best one of each language there.

    A method's success is over all targets and seeds; its 95 % interval draws sentences, which serve every target. The
    ratio to the ceiling draws the same sentences for both. Only methods with both splits are in it.
    Raises MeasurementError without the native method.
    """
    names = [
        name
        for name in dict.fromkeys(row["method"] for row in rows if row["split"] == "test")
        if _chosen(rows, name)[1]
    ]
    if NATIVE not in names:
        raise MeasurementError("no native answers were scored; expected them, as the ceiling; run the native method")
    native, rng = _right(rows, NATIVE), np.random.default_rng(seed)
    draws = rng.integers(native.shape[1], size=(resamples, native.shape[1]))
    entries = {name: _entry(rows, name, native, draws) for name in names}
    steered = [name for name in names if name != NATIVE]
    best = max(steered, key=lambda n: (entries[n]["fluent_on_dev"], entries[n]["dev_success"]), default=None)
    return {"methods": entries, "best_on_dev": best, "per_language": _per_language(rows, steered)}


def _chosen(rows: Sequence[Row], name: str) -> tuple[Row, list[Row]]:
    """A method's row on dev, and those on test with the setting of that one: others are left from a smaller grid."""
    dev = choose_row([row for row in rows if (row["method"], row["split"]) == (name, "valid")])
    test = [row for row in rows if (row["method"], row["split"]) == (name, "test")]
    return dev, [row for row in test if setting_of(row) == setting_of(dev)]


def _right(rows: Sequence[Row], name: str) -> np.ndarray:
    """Right answers on test, [target, sentence], the seeds side by side."""
    _, test = _chosen(rows, name)
    return np.concatenate([np.array(list(row["right"].values())) for row in test], axis=1)


def _entry(rows: Sequence[Row], name: str, native: np.ndarray, draws: np.ndarray) -> Row:
    dev, test = _chosen(rows, name)
    right = _right(rows, name)
    low, high = percentile_interval([right[:, d % right.shape[1]].mean() for d in draws])
    of_native, *bounds = _share_of(right, native, draws)
    return {
        "source": dev["source"],
        **setting_of(dev)._asdict(),
        "dev_success": dev["success"],
        "fluent_on_dev": Bounds().hold(_standing(dev)),
        "n": int(right.size),
        "seeds": len(test),
        "success": float(right.mean()),
        "low": low,
        "high": high,
        "of_native": of_native,
        "of_native_low": bounds[0],
        "of_native_high": bounds[1],
        "by_seed": [row["success"] for row in test],
        "perplexity_ratio": _geometric([row["perplexity_ratio"] for row in test]),
        "distinct4_ratio": float(np.mean([row["distinct4_ratio"] for row in test])),
        "by_language": dict(zip(test[0]["right"], right.mean(axis=1).tolist(), strict=True)),
    }


def _share_of(right: np.ndarray, native: np.ndarray, draws: np.ndarray) -> tuple[float | None, ...]:
    """Success as a share of the ceiling with its interval; None where the ceiling is 0, or the sentences differ."""
    if not native.any():
        return None, None, None
    share = float(right.mean() / native.mean())
    if right.shape != native.shape:
        return share, None, None
    shares = [right[:, d].mean() / native[:, d].mean() for d in draws if native[:, d].any()]
    return share, *percentile_interval(shares)


def _per_language(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Row]:
    """The method with the most right answers of a language on dev, of those fluent in it, and its test score."""
    chosen = {n: choose_row([r for r in rows if (r["method"], r["split"]) == (n, "valid")]) for n in names}
    best_by_language: dict[str, Row] = {}
    for tag in next(iter(chosen.values()), {"right": {}})["right"]:
        name = best_fluent(
            list(chosen),
            lambda n, tag=tag: Standing(
                float(np.mean(chosen[n]["right"][tag])), chosen[n]["ratio"][tag], chosen[n]["distinct4_ratio"]
            ),
        )
        test = [v for row in _chosen(rows, name)[1] for v in row["right"][tag]]
        low, high = wilson_interval(sum(test), len(test))
        best_by_language[tag] = {
            "method": name,
            "success": sum(test) / len(test),
            "low": low,
            "high": high,
            "n": len(test),
        }
    return best_by_language


def _geometric(values: Sequence[float]) -> float:
    return math.exp(float(np.mean(np.log(values))))
