"""Whether an artifact can be of the model that a call names, by the sizes that both folders say: before any loading."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from babelscope.errors import ArtifactError
from babelscope.files.folder_kinds import settings_of_folder
from babelscope.reference import MODEL

SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size")
"""Settings that a model of one architecture cannot change; what a folder does not say is not compared."""


def check_model_sizes(model: str, flag: str, artifact: Path) -> None:
    """Raise ArtifactError where an artifact was made for a model of other sizes than the named one's folder says.

    An hour can pass before a large model is open and its identity is compared, which is done all the same: this sees
    the plain mistake alone. A model of the hub, or a file of one, is let pass.
    """
    origin = settings_of_folder(artifact).get("origin")
    made_for = origin.get("config") if isinstance(origin, Mapping) else None
    if not isinstance(made_for, Mapping):
        return
    settings = size_settings(MODEL if model == "reference" else Path(model))
    common_names = [name for name in SIZES if {type(settings.get(name)), type(made_for.get(name))} == {int}]
    unlike = [name for name in common_names if settings[name] != made_for[name]]
    if unlike:
        raise ArtifactError(
            f"{flag} {artifact}: made for a model with {words(unlike, made_for)}; {model} has "
            f"{words(unlike, settings)}; expected the same model; use the one it was made with"
        )


def size_settings(folder: Path) -> Mapping[str, Any]:
    """The settings of a model's folder, of a multimodal one those of its text part; empty where nothing says."""
    try:
        settings = settings_of_folder(folder)
    except ArtifactError:
        return {}  # Whoever opens the model says what is wrong with its settings.
    text = settings.get("text_config")
    return text if isinstance(text, Mapping) else settings


def words(names: list[str], settings: Mapping[str, Any]) -> str:
    """Settings with their values."""
    return ", ".join(f"{name} {settings[name]}" for name in names)
