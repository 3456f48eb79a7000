"""A whole steering study: choose on development prompts, score once on test prompts, beside every baseline."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Direction, Observation, Operation, Schedule
from babelscope.corpus import Corpus, check_apart
from babelscope.errors import CorpusError, LanguageError
from babelscope.evaluation import known_languages
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.sites import Site
from babelscope.steering.directions import mean_direction
from babelscope.steering.engine import Operations
from babelscope.steering.sweeps.answer_scores import Score, fluency_by_target, score_answers
from babelscope.steering.sweeps.baselines import random_directions
from babelscope.steering.sweeps.curve import CurvePoint, dose_response, grid_edge, widened
from babelscope.steering.sweeps.decoding import Decoding
from babelscope.steering.sweeps.questions import ChatPrompts, check_asked, study_prompts
from babelscope.steering.sweeps.steered_answers import Answer, Steerer, generate_answers
from babelscope.steering.sweeps.steering_prompts import Prompt
from babelscope.steering.sweeps.sweep_grid import STRENGTHS

log = logging.getLogger(__name__)
FADE = Schedule.ramp(8, start=1.0, end=0.3)
"""Full strength on the prompt, 0.3 of it from the eighth new token on: by then the answer keeps its own language."""


class Trial(NamedTuple):
    """Answers of one kind with their scores."""

    answers: tuple[Answer, ...]
    scores: dict[Language, Score]


@dataclass(frozen=True, eq=False)
class SteeringStudy:
    """Everything a steering study measured."""

    points: tuple[CurvePoint, ...]
    """Dose–response on development prompts."""
    chosen: CurvePoint
    """The one layer and strength for all targets."""
    per_target: Mapping[Language, CurvePoint]
    """The best layer and strength of each target; strengths of 0 mean that none helped."""
    steered: Trial
    native: Trial
    """The model's own continuations of target-language prompts: the ceiling."""
    unsteered: Trial
    random: Trial
    """Random directions of the residual stream's covariance, at the steering vector's length."""
    other_language: Trial | None
    """The direction of a third language, success counted for the target; None where only two were observed."""
    directions: Mapping[Language, Direction]
    """One direction per target, away from the mean of the other languages, at the layer used for it."""
    not_measurable: tuple[Language, ...]
    """Targets that the language detector does not know."""
    edge: tuple[str, ...] = ()
    """What of the choice lies at the edge of its grid: see `grid_edge`."""
    dev_native: tuple[Answer, ...] = ()
    """The ceiling on development prompts, beside which a choice is made."""


def pair_steerer(
    observation: Observation, layer_of: Mapping[Language, int], strength_of: Mapping[Language, float]
) -> Steerer:
    """Add the mean difference between target and prompt language at `resid_out`, in multiples of that difference."""
    by_pair: dict[tuple[Language, Language], Sequence[Operation]] = {}

    def operations(target: Language, source: Language) -> Sequence[Operation]:
        if source == target or strength_of[target] == 0:
            return []
        if (target, source) not in by_pair:
            direction = mean_direction(observation, target=target, source=source, layer=layer_of[target])
            by_pair[target, source] = [direction.add(strength_of[target], "raw", schedule=FADE)]
        return by_pair[target, source]

    return operations


def constant(targets: Sequence[Language], value: int | float) -> dict[Language, int | float]:
    """The same value for every target."""
    return dict.fromkeys(targets, value)


def third_language(
    target: Language, source: Language, targets: Sequence[Language], observed: Sequence[Language]
) -> Language | None:
    """The next target after `target`, round and round, or else an observed language, that is none of the two."""
    start = targets.index(target)
    ring = [*targets[start:], *targets[:start], *observed]
    return next((tag for tag in ring if tag not in (target, source)), None)


def vary_sources(
    prompts: Sequence[Prompt], targets: Sequence[Language], per_target: int
) -> list[tuple[Prompt, Language]]:
    """For each target the same sentences, each in one of the other languages, the languages in turn."""
    by_source: dict[Language, list[Prompt]] = {}
    for prompt in prompts:
        by_source.setdefault(prompt.source, []).append(prompt)
    requests = []
    for number, target in enumerate(targets):
        other_tags = [tag for tag in by_source if tag != target]
        for index in range(per_target):
            group = by_source[other_tags[(index + number) % len(other_tags)]]
            requests.append((group[index % len(group)], target))
    return requests


def steering_study(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    observation: Observation,
    *,
    dev: Corpus,
    test: Corpus,
    targets: Sequence[str],
    layers: Sequence[int],
    strengths: Sequence[float] = STRENGTHS,
    dev_prompts: int = 10,
    test_prompts: int = 33,
    random_draws: int = 10,
    random_prompts: int = 10,
    per_target: bool = False,
    decoding: Decoding | None = None,
    chat: ChatPrompts | None = None,
    same_text: bool = False,
    progress: bool = False,
) -> SteeringStudy:
    """Measure mean-direction steering of each target from prompts in the other languages.

    The vector is mean(target) − mean(prompt language) at one layer's `resid_out`, times the strength, fading
    to 0.3 over eight new tokens. Layer and strength are chosen on `dev` (one for all, or per
    target), scored once on `test`. Where the chosen strength is at an end of the grid, up to two beyond it are tried.
    chat: prompts are messages for the model's own chat template, in each of the source languages; the native ceiling is
    then the answer to a question in the target language. None: the beginnings of documents are continued.
    same_text: allow a language's `dev` and `test`, or what is asked of both, to be the same text.
    Raises LanguageError if no target can be recognised, CorpusError for a target without text in either corpus, and
    where text to choose on is scored on too.
    """
    decoding = decoding or Decoding()
    target_tags = [observation.languages[observation.index(tag)] for tag in targets]
    detectable = [tag for tag in target_tags if tag in known_languages()]
    if not detectable:
        raise LanguageError(
            f"none of {', '.join(target_tags)} can be recognised; expected a language that `known_languages` of "
            "babelscope.evaluation has"
        )
    for text in (dev, test):
        if silent := [tag for tag in target_tags if tag not in text]:
            raise CorpusError(f"{text.name}: no text in {', '.join(silent)}, a target; add some, or leave it out")
    check_apart({"dev": dev, "test": test}, name=dev.name, same_text=same_text)
    if chat is not None and chat.questions:
        check_apart(chat.questions, name=chat.questions["dev"].name, same_text=same_text)
    prompts = {
        name: study_prompts(text, name, len(text[target_tags[0]]), chat)
        for name, text in (("dev", dev), ("test", test))
    }
    check_asked(prompts, detectable)

    def write(
        requests: Sequence[tuple[Prompt, Language]], steerer: Steerer | None = None, kind: str = ""
    ) -> list[Answer]:
        title = f"{kind} answers" if progress and kind else ""
        return generate_answers(model, tokenizer, requests, steerer, decoding=decoding, progress=title)

    def own(name: str, count: int) -> list[Answer]:
        questions = [(p, tag) for tag in detectable for p in [q for q in prompts[name] if q.source == tag][:count]]
        return write(questions, kind="native")

    dev_native = own("dev", max(16, dev_prompts))
    sweep = partial(
        dose_response,
        model,
        tokenizer,
        vary_sources(prompts["dev"], detectable, dev_prompts),
        dev_native,
        lambda layer, strength: pair_steerer(observation, constant(detectable, layer), constant(detectable, strength)),  # pyright: ignore[reportArgumentType]
        decoding=decoding,
        progress=progress,
    )
    points, chosen, best = widened(
        sweep(layers=layers, strengths=strengths),
        lambda layer, strength: sweep(layers=[layer], strengths=[strength]),
        layout_of(model).n_layers,
    )
    edge = grid_edge(points, chosen, layout_of(model).n_layers)
    warn_of_edge("steering", edge)
    at = {tag: best[tag] if per_target else chosen for tag in detectable}
    layer_of, strength_of = {t: p.layer for t, p in at.items()}, {t: p.strength for t, p in at.items()}
    requests, native = vary_sources(prompts["test"], detectable, test_prompts), own("test", test_prompts)
    few = vary_sources(prompts["test"], detectable, random_prompts)
    plain = pair_steerer(observation, layer_of, strength_of)
    fluency = fluency_by_target(model, tokenizer, native)

    def trial(answers: Sequence[Answer]) -> Trial:
        return Trial(tuple(answers), score_answers(model, tokenizer, answers, fluency))

    def other(target: Language, source: Language) -> Operations:
        """A third language's direction, for a row meant for `target`, at the target's own point if it is no target."""
        third = third_language(target, source, detectable, observation.languages)
        if third is None or third in detectable:
            return [] if third is None else plain(third, source)
        return pair_steerer(observation, {third: layer_of[target]}, {third: strength_of[target]})(third, source)

    any_third = any(third_language(target, p.source, detectable, observation.languages) for p, target in few)
    random = random_answers(model, tokenizer, observation, dev, few, at, random_draws, write)
    return SteeringStudy(
        points=tuple(points),
        chosen=chosen,
        per_target=best,
        steered=trial(write(requests, plain, "steered")),
        native=trial(native),
        unsteered=trial(write(few, kind="unsteered")),
        random=trial(random),
        other_language=trial(write(few, other, "other-language")) if any_third else None,
        directions={tag: mean_direction(observation, target=tag, layer=layer_of[tag]) for tag in detectable},
        not_measurable=tuple(tag for tag in target_tags if tag not in detectable),
        edge=edge,
        dev_native=tuple(dev_native),
    )


def random_answers(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    observation: Observation,
    texts: Corpus,
    requests: Sequence[tuple[Prompt, Language]],
    at: Mapping[Language, CurvePoint],
    draws: int,
    write: Callable[[Sequence[tuple[Prompt, Language]], Steerer], list[Answer]],
) -> list[Answer]:
    """Answers under random directions, each as long as the vector it stands for; draw i goes to every i-th request."""
    layers = sorted({point.layer for point in at.values()})
    # Form and massive units are those of the layer, so one direction there stands for all.
    like = {layer: mean_direction(observation, target=requests[0][1], layer=layer) for layer in layers}
    vectors = {
        layer: random_directions(
            model, tokenizer, texts, Site(layer, "resid_out"), draws=draws, seed=layer, like=like[layer]
        )
        for layer in layers
    }
    answers = []
    for draw in range(draws):

        def operations(target: Language, source: Language, draw: int = draw) -> Sequence[Operation]:
            point = at[target]
            if point.strength == 0:
                return []
            true = mean_direction(observation, target=target, source=source, layer=point.layer)
            vector = vectors[point.layer][draw] * true.norm
            noise = replace(true, vector=vector)
            return [noise.add(point.strength, "raw", schedule=FADE)]

        answers += write(requests[draw::draws], operations)
    return answers


def warn_of_edge(what: str, edge: Sequence[str]) -> None:
    """Log what of a choice lies at the edge of its grid."""
    if edge:
        log.warning("%s: the choice lies at the edge of its grid (%s); widen the grid", what, "; ".join(edge))


def success_by_source(trial: Trial) -> dict[Language, dict[Language, float]]:
    """Success by source, then target; a pair without answers is absent."""
    right: dict[tuple[Language, Language], list[bool]] = {}
    counters = {tag: iter(score.verdicts) for tag, score in trial.scores.items()}
    for answer in trial.answers:
        verdict = next(counters[answer.target])
        right.setdefault((answer.prompt.source, answer.target), []).append(verdict.verdict == "right")
    table: dict[Language, dict[Language, float]] = {}
    for (source, target), counts in right.items():
        table.setdefault(source, {})[target] = float(torch.tensor(counts).double().mean())
    return table
