"""Steering, measured: answers under a recipe, their score, the dose–response curve and its baselines."""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.steering.sweeps.answer_scores import Score, macro, score_answers
    from babelscope.steering.sweeps.baselines import random_directions
    from babelscope.steering.sweeps.beside import AnswerPair, compare_answers, meant_language
    from babelscope.steering.sweeps.curve import CurvePoint, choose_points, dose_response, grid_edge
    from babelscope.steering.sweeps.decoding import Decoding, overridden_settings
    from babelscope.steering.sweeps.effect_curve import SideEffectPoint, side_effect_curve
    from babelscope.steering.sweeps.evaluated import (
        LanguageScore,
        SteeringEvaluation,
        evaluate_steering,
        score_language,
    )
    from babelscope.steering.sweeps.fallbacks import Fallbacks, FallbackStep, answer_shares, fallback_languages
    from babelscope.steering.sweeps.judge_check import JudgeErrors, judge_errors
    from babelscope.steering.sweeps.neuron_steering import NeuronSteering, neuron_steering_study
    from babelscope.steering.sweeps.prompting import ANSWER_IN, few_shot, instructed
    from babelscope.steering.sweeps.questions import ChatPrompts, ask_as_chat
    from babelscope.steering.sweeps.side_effects import (
        LanguageEffect,
        Untouched,
        kept_in_answers,
        language_effects,
        untouched_prompts,
    )
    from babelscope.steering.sweeps.steered_answers import Answer, generate_answers, steered_tokens
    from babelscope.steering.sweeps.steering_prompts import Prompt, make_prompts, make_questions
    from babelscope.steering.sweeps.steering_runs import (
        SteeringStudy,
        Trial,
        steering_study,
        success_by_source,
        vary_sources,
    )
    from babelscope.steering.sweeps.strength_limits import Dose, StrengthLimit, by_layer, strength_limit

__all__ = [
    "FallbackStep",
    "Fallbacks",
    "answer_shares",
    "fallback_languages",
    "JudgeErrors",
    "judge_errors",
    "ANSWER_IN",
    "Answer",
    "AnswerPair",
    "ChatPrompts",
    "CurvePoint",
    "Decoding",
    "Dose",
    "LanguageEffect",
    "LanguageScore",
    "NeuronSteering",
    "Prompt",
    "Score",
    "SideEffectPoint",
    "SteeringEvaluation",
    "SteeringStudy",
    "StrengthLimit",
    "Trial",
    "Untouched",
    "ask_as_chat",
    "by_layer",
    "choose_points",
    "compare_answers",
    "dose_response",
    "evaluate_steering",
    "few_shot",
    "generate_answers",
    "steered_tokens",
    "grid_edge",
    "instructed",
    "kept_in_answers",
    "language_effects",
    "macro",
    "make_prompts",
    "make_questions",
    "meant_language",
    "neuron_steering_study",
    "overridden_settings",
    "random_directions",
    "score_answers",
    "score_language",
    "side_effect_curve",
    "steering_study",
    "strength_limit",
    "success_by_source",
    "untouched_prompts",
    "vary_sources",
]

__getattr__, __dir__ = lazy_names(__name__)
