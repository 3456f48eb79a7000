"""Steering, measured: answers under a recipe, their score, the dose–response curve and its baselines."""

from babelscope.sweeps.answers import Answer, Decoding, Prompt, generate_answers, make_prompts
from babelscope.sweeps.baselines import random_directions
from babelscope.sweeps.curve import CurvePoint, choose_points, dose_response
from babelscope.sweeps.prompting import ANSWER_IN, few_shot, instructed
from babelscope.sweeps.scores import Score, macro, score_answers
from babelscope.sweeps.study import (
    NeuronSteering,
    SteeringStudy,
    Trial,
    neuron_steering_study,
    steering_study,
    success_by_source,
    vary_sources,
)

__all__ = [
    "ANSWER_IN",
    "Answer",
    "CurvePoint",
    "Decoding",
    "NeuronSteering",
    "Prompt",
    "Score",
    "SteeringStudy",
    "Trial",
    "choose_points",
    "dose_response",
    "few_shot",
    "generate_answers",
    "instructed",
    "macro",
    "make_prompts",
    "neuron_steering_study",
    "random_directions",
    "score_answers",
    "steering_study",
    "success_by_source",
    "vary_sources",
]
