"""Steered models behind an OpenAI-compatible server."""

from babelscope.serving.steered_models import ServedModel, ServedModels, serve_models, served_application

__all__ = ["ServedModel", "ServedModels", "serve_models", "served_application"]
