"""What a folder holds, by its settings alone: for messages that refuse it, and for verbs that take several kinds."""

from pathlib import Path
from typing import Any

from babelscope.files.strict_json import read_json

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"


def format_of(path: Path) -> str:
    """What kind of artifact a folder says it is; empty where it says nothing."""
    kind = settings_of_folder(path).get("format")
    return "" if kind is None else str(kind)


def class_saved(path: Path) -> str:
    """The class of what a folder holds, such as Direction; empty where it holds no artifact."""
    return format_of(path).removeprefix("babelscope.").partition("/")[0]


def kind_of_folder(path: Path) -> str:
    """What a folder is, in words: a babelscope Direction, a PEFT adapter, a model's folder; empty if nothing says."""
    settings = settings_of_folder(path)
    kind = str(settings.get("format", ""))
    if kind.startswith("babelscope."):
        return f"a babelscope {class_saved(path)}"
    if (path / ADAPTER_CONFIG).is_file():
        return "a PEFT adapter"
    return "a model's folder" if {"model_type", "architectures"} & set(settings) else ""


def settings_of_folder(path: Path) -> dict[str, Any]:
    """What its config.json says; empty without one, and where that is no table."""
    file = path / CONFIG
    settings = (
        read_json(file, advice="expected an artifact, such as a Direction or SteeringRecipe") if file.is_file() else {}
    )
    return settings if isinstance(settings, dict) else {}
