"""Fields of a model's configuration, read by name and never guessed."""

from typing import Any

from babelscope.errors import PrerequisiteError
from babelscope.upstream.names import NAMES, attribute, release, supported


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

    The one name whose absence is ordinary and can not be told from a rename: nothing is computed from it.
    """
    (name,) = NAMES["config.commit"]
    return vars(config).get(name) or ""
