"""Fields of a model's configuration, read by name and never guessed."""

import copy
from typing import Any

from babelscope.errors import PrerequisiteError
from babelscope.upstream.names import NAMES, attribute, imported, release, supported


def config_value(config: Any, key: str) -> Any:
    """A field by this library's key, such as "layers"; raises PrerequisiteError where no name of it is there."""
    return attribute(config, f"config.{key}")


def config_field(config: Any, name: str) -> Any:
    """A field that a family's table names; raises PrerequisiteError where this release has no such field."""
    if not hasattr(config, name):
        raise PrerequisiteError(
            f"{release('transformers')}: a {type(config).__name__} has no {name!r}, which the family's table names; "
            f"expected a release in which it has; install one that babelscope was tested with "
            f"({supported('transformers')}), and report this one"
        )
    return getattr(config, name)


def revision_of(config: Any) -> str:
    """Commit on the hub that a configuration came from; empty for one that came from a folder or was made here.

    The one name whose absence is ordinary and cannot be told from a rename: nothing is computed from it.
    """
    (name,) = NAMES["config.commit"]
    return vars(config).get(name) or ""


def with_mlp_biases(config: Any) -> Any | None:
    """The configuration of the same model with biases in its MLPs; None for a family that can have none.

    Llama has a setting for them. Mistral and Qwen 2 without sliding windows are Llama in all they compute.
    """
    kind = config_value(config, "type")
    if kind not in ("llama", "mistral", "qwen2"):
        return None
    biases = {NAMES["config.mlp_biases"][0]: True}
    if kind == "llama":
        wider = copy.deepcopy(config)
        attribute(wider, "config.mlp_biases")
    else:
        if attribute(config, "attention.window") is not None:
            return None
        llama = imported("transformers.models.llama.configuration_llama", "config.llama")
        fields = llama().to_dict().keys() & config.to_dict().keys() - {*NAMES["config.type"]}
        wider = llama(**{name: config.to_dict()[name] for name in fields})
        attribute(wider, "config.attention_biases")
        if kind == "qwen2":
            biases |= {NAMES["config.attention_biases"][0]: True}
    for name, value in biases.items():
        setattr(wider, name, value)
    return wider
