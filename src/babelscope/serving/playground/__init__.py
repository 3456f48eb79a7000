"""A local page to try steering on: plain and steered answers side by side, with the language of each segment."""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.serving.playground.answer_markup import answers_markup
    from babelscope.serving.playground.gradio_page import build_page, served_page
    from babelscope.serving.playground.offered_steering import SteeringChoice, neuron_switches, steering_choices
    from babelscope.serving.playground.side_by_side import (
        AnswersSideBySide,
        Playground,
        PlaygroundQuestion,
        ShownAnswer,
    )

__all__ = [
    "AnswersSideBySide",
    "Playground",
    "PlaygroundQuestion",
    "ShownAnswer",
    "SteeringChoice",
    "answers_markup",
    "build_page",
    "neuron_switches",
    "served_page",
    "steering_choices",
]

__getattr__, __dir__ = lazy_names(__name__)
