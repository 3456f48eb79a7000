"""The dose–response curve of steering, and the choice of layer and strength on it."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.errors import MeasurementError
from babelscope.languages import Language
from babelscope.models.plain import CausalModel
from babelscope.progress import progress_bar
from babelscope.steering.sweeps.answer_scores import Macro, Score, fluency_by_target, macro, score_answers
from babelscope.steering.sweeps.decoding import Decoding
from babelscope.steering.sweeps.fluent_choice import (
    CHOICE_RATIO,
    LEAST_DISTINCT,
    LEAST_RATIO,
    Bounds,
    Standing,
    best_fluent,
)
from babelscope.steering.sweeps.steered_answers import Answer, Steerer, generate_answers
from babelscope.steering.sweeps.steering_prompts import Prompt

WIDENINGS = 2
"""Layers, and then strengths, beyond the grid that are tried at most where the choice lies at its end."""


class CurvePoint(NamedTuple):
    """One layer and strength, scored for every target."""

    layer: int
    strength: float
    scores: dict[Language, Score]
    macro: Macro
    """Mean success over targets."""
    perplexity_ratio: float
    """Geometric mean over targets."""
    distinct4_ratio: float
    """Mean over targets."""


def dose_response(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[tuple[Prompt, Language]],
    native: Sequence[Answer],
    steerer_at: Callable[[int, float], Steerer],
    *,
    layers: Sequence[int],
    strengths: Sequence[float],
    decoding: Decoding,
    progress: bool = False,
) -> list[CurvePoint]:
    """Score every (layer, strength) on development prompts; strength 0 is the unsteered model and is made once."""
    grid = [(layer, strength) for layer in layers for strength in strengths]
    points, fluency = [], fluency_by_target(model, tokenizer, native)
    with progress_bar(total=len(grid), unit="point", desc="steering sweep", shown=progress) as bar:
        for layer, strength in grid:
            answers = generate_answers(model, tokenizer, requests, steerer_at(layer, strength), decoding=decoding)
            points.append(make_point(layer, strength, answers, score_answers(model, tokenizer, answers, fluency)))
            bar.update()
    return points


def make_point(layer: int, strength: float, answers: Sequence[Answer], scores: dict[Language, Score]) -> CurvePoint:
    """One point from its answers and scores."""
    ratios = [score.perplexity_ratio for score in scores.values() if math.isfinite(score.perplexity_ratio)]
    distinct = [score.distinct4_ratio for score in scores.values() if math.isfinite(score.distinct4_ratio)]
    return CurvePoint(
        layer,
        strength,
        scores,
        macro(answers, scores),
        math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else float("nan"),
        sum(distinct) / len(distinct) if distinct else float("nan"),
    )


def choose_points(
    points: Sequence[CurvePoint],
    *,
    max_ratio: float = CHOICE_RATIO,
    min_ratio: float = LEAST_RATIO,
    min_distinct: float = LEAST_DISTINCT,
) -> tuple[CurvePoint, dict[Language, CurvePoint]]:
    """The best point for all targets together, and for each one, by `fluent_choice.best_fluent`.

    Best: the highest success among points whose perplexity ratio is from `min_ratio` to `max_ratio` and whose
    distinct-4 ratio is at least `min_distinct`.
    Choose on development prompts only.
    Raises MeasurementError without points.
    """
    if not points:
        raise MeasurementError("no point came; expected at least one layer and one strength; name some")
    bounds = Bounds(max_ratio, min_ratio, min_distinct)

    def of(target: Language) -> Callable[[CurvePoint], Standing]:
        return lambda point: Standing(
            point.scores[target].success,
            point.scores[target].perplexity_ratio,
            point.scores[target].distinct4_ratio,
        )

    def of_all(point: CurvePoint) -> Standing:
        return Standing(point.macro.estimate, point.perplexity_ratio, point.distinct4_ratio)

    each = {target: best_fluent(points, of(target), bounds) for target in points[0].scores}
    return best_fluent(points, of_all, bounds), each


def grid_edge(points: Sequence[CurvePoint], chosen: CurvePoint, n_layers: int | None = None) -> tuple[str, ...]:
    """What of a choice lies at the edge of what was tried, so that a better one may lie outside; nothing is good news.

    A single layer or strength is no grid. The model's first layer, and of `n_layers` its last, have nothing outside.
    """
    edges = []
    layers = sorted({point.layer for point in points})
    if len(layers) > 1 and chosen.layer in (layers[0], layers[-1]) and chosen.layer not in (0, (n_layers or 0) - 1):
        edges.append(
            f"layer {chosen.layer}, the {'first' if chosen.layer == layers[0] else 'last'} of {len(layers)} tried"
        )
    strengths = sorted({float(point.strength) for point in points})
    if len(strengths) > 1 and chosen.strength in (strengths[0], strengths[-1]):
        end = "lowest" if chosen.strength == strengths[0] else "highest"
        edges.append(f"strength {chosen.strength:g}, the {end} of {len(strengths)} tried")
    return tuple(edges)


def strength_beyond(points: Sequence[CurvePoint], chosen: CurvePoint) -> float | None:
    """The next strength outside of what was tried, where the choice lies at that end; None inside, or without a grid.

    Above the highest by the step from the one below it, below the lowest by half of it.
    """
    tried = sorted({float(point.strength) for point in points})
    if len(tried) < 2 or chosen.strength not in (tried[0], tried[-1]):
        return None
    return tried[0] / 2 if chosen.strength == tried[0] else 2 * tried[-1] - tried[-2]


def layer_beyond(points: Sequence[CurvePoint], chosen: CurvePoint, n_layers: int) -> int | None:
    """The next layer outside of what was tried, where the choice lies at that end; None inside, or without a grid.

    Above the last by the step from the one below it, before the first by half of it; never outside the model.
    """
    tried = sorted({point.layer for point in points})
    if len(tried) < 2 or chosen.layer not in (tried[0], tried[-1]):
        return None
    beyond = tried[0] // 2 if chosen.layer == tried[0] else min(n_layers - 1, 2 * tried[-1] - tried[-2])
    return None if beyond in tried else beyond


def widened(
    points: Sequence[CurvePoint],
    measure: Callable[[int, float], Sequence[CurvePoint]],
    n_layers: int | None = None,
) -> tuple[list[CurvePoint], CurvePoint, dict[Language, CurvePoint]]:
    """The points, more of them while the choice lies at an end of what was tried, and the choice.

    Up to WIDENINGS layers at the strength of the choice, then up to WIDENINGS strengths at its layer.
    measure: the points of one layer and strength. n_layers: of the model; None where layers are not chosen.
    """
    all_points = [*points]

    def follow(beyond: Callable[[CurvePoint], tuple[int, float] | None]) -> None:
        for _ in range(WIDENINGS):
            place = beyond(choose_points(all_points)[0])
            if place is None:
                return
            all_points.extend(measure(*place))

    def next_layer(chosen: CurvePoint) -> tuple[int, float] | None:
        layer = None if n_layers is None else layer_beyond(all_points, chosen, n_layers)
        return None if layer is None else (layer, chosen.strength)

    def next_strength(chosen: CurvePoint) -> tuple[int, float] | None:
        strength = strength_beyond(all_points, chosen)
        return None if strength is None else (chosen.layer, strength)

    follow(next_layer)
    follow(next_strength)
    return all_points, *choose_points(all_points)
