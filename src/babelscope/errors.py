"""Every exception of the library.

A message says what came, what was expected, and what to do.
"""

from babelscope_kernels.errors import KernelError


class ToolkitError(Exception):
    """Root of all errors that babelscope raises on purpose; the command line prints it as one line."""


class LanguageError(ToolkitError, ValueError):
    """A language tag is unknown, given twice, or missing."""


class SiteError(ToolkitError, ValueError):
    """A place that the model does not have."""


class CorpusError(ToolkitError, ValueError):
    """Text that is missing, empty, unreadable, or not in the language it is labelled with."""


class ChatError(ToolkitError, ValueError):
    """Messages that are none, that a model's chat template refuses, or a model without a template."""


class ArtifactError(ToolkitError, ValueError):
    """A saved artifact that is damaged, of another kind or version, or made for another model."""


class SteeringError(ArtifactError):
    """An operation that can not be applied: not finite, of another width or model, or at a place that refuses it."""


class SelectionError(ToolkitError, ValueError):
    """Counts or rates from which nothing can be selected."""


class MeasurementError(ToolkitError, RuntimeError):
    """A measurement that met NaN, infinity, or no data."""


class PrerequisiteError(ToolkitError, RuntimeError):
    """This machine or installation lacks something that was asked for."""


__all__ = [
    "ArtifactError",
    "ChatError",
    "CorpusError",
    "KernelError",
    "LanguageError",
    "MeasurementError",
    "PrerequisiteError",
    "SelectionError",
    "SiteError",
    "SteeringError",
    "ToolkitError",
]
