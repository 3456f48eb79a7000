"""Steered models behind an OpenAI-compatible server.

Here: what answers while people wait: the server, and the `playground`.
Imports: artifacts, corpus, evaluation, figures, languages, models, report, steering, subnetworks, upstream,
vocabulary.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.serving.steered_models import ServedModel, ServedModels, serve_models, served_application

__all__ = ["ServedModel", "ServedModels", "serve_models", "served_application"]

__getattr__, __dir__ = lazy_names(__name__)
