"""Neuron arithmetic measured: its strength chosen on development prompts, its answers scored beside the directions'."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import NeuronSet, Observation, Operation, SteeringRecipe
from babelscope.corpus import Corpus
from babelscope.languages import Language
from babelscope.models.plain import CausalModel
from babelscope.steering.directions import language_arithmetic
from babelscope.steering.sweeps.answer_scores import score_answers
from babelscope.steering.sweeps.curve import CurvePoint, dose_response, grid_edge, widened
from babelscope.steering.sweeps.decoding import Decoding
from babelscope.steering.sweeps.questions import ChatPrompts, study_prompts
from babelscope.steering.sweeps.steered_answers import Steerer, generate_answers
from babelscope.steering.sweeps.steering_runs import SteeringStudy, Trial, vary_sources, warn_of_edge
from babelscope.steering.sweeps.sweep_grid import ARITHMETIC


class NeuronSteering(NamedTuple):
    """Neuron arithmetic, scored on test prompts of the directions."""

    strength: float
    """λ chosen on development prompts."""
    points: tuple[CurvePoint, ...]
    """Dose–response; the layer is −1, for all layers that hold neurons."""
    trial: Trial
    edge: tuple[str, ...] = ()
    """As of SteeringStudy."""


def neuron_steering_study(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    sets: NeuronSet,
    observation: Observation,
    study: SteeringStudy,
    *,
    dev: Corpus,
    strengths: Sequence[float] = ARITHMETIC,
    dev_prompts: int = 4,
    decoding: Decoding,
    chat: ChatPrompts | None = None,
) -> NeuronSteering:
    """Switch the prompt language's neurons off and the target's on by λ times their mean activation.

    λ is chosen on `dev`, up to two beyond the grid where it lies at an end; every second test prompt of `study` is
    answered. A language without neurons is left
    as it is, and so scored as unsteered. Source: arXiv:2507.22608.
    """
    decoding = replace(decoding, batch_size=min(16, decoding.batch_size))  # each row has its own steps in every layer
    targets = list(study.steered.scores)
    recipes: dict[tuple[Language, Language, float], SteeringRecipe | Sequence[Operation]] = {}

    def steerer(strength: float) -> Steerer:
        def operations(target: Language, source: Language) -> SteeringRecipe | Sequence[Operation]:
            key = (target, source, strength)
            if key not in recipes:
                off = source if sets.sizes[source] else None
                recipes[key] = (
                    language_arithmetic(sets, observation, target=target, source=off, strength=strength)
                    if sets.sizes[target]
                    else []
                )
            return recipes[key]

        return operations

    prompts = study_prompts(dev, "dev", len(dev[targets[0]]), chat)
    sweep = partial(
        dose_response,
        model,
        tokenizer,
        vary_sources(prompts, targets, dev_prompts),
        study.dev_native,
        lambda layer, strength: steerer(strength),
        layers=[-1],
        decoding=decoding,
    )
    points, chosen, _ = widened(sweep(strengths=strengths), lambda layer, strength: sweep(strengths=[strength]))
    edge = grid_edge(points, chosen)
    warn_of_edge("neuron arithmetic", edge)
    requests = [(answer.prompt, answer.target) for answer in study.steered.answers[::2]]
    answers = generate_answers(model, tokenizer, requests, steerer(chosen.strength), decoding=decoding)
    scores = score_answers(model, tokenizer, answers, study.native.answers)
    return NeuronSteering(chosen.strength, tuple(points), Trial(tuple(answers), scores), edge)
