"""A mark on modules that carry hooks, which refuses to be copied or pickled with them."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import nn

from babelscope.errors import PrerequisiteError


class HookMark:
    """Stands on a module while hooks are open on it: a copy would hold hooks that belong to another model.

    It is registered as a hook of `load_state_dict`, which does nothing here, because a module's hooks are copied and
    pickled before its parts.
    """

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        """Run the hook that it stands for, if any."""
        return None if self._function is None else self._function(*args)

    def __deepcopy__(self, _: Any) -> Any:
        raise PrerequisiteError(_refusal("copied"))

    def __reduce_ex__(self, _: Any) -> Any:
        raise PrerequisiteError(_refusal("pickled"))


def _refusal(what: str) -> str:
    return (
        f"a model was {what} while it is steered, observed or trained, with the hooks that stand on it; expected a "
        f"model without; have it {what} before the with-block or after it, or take its state_dict()"
    )


def mark(stack: ExitStack, module: nn.Module) -> None:
    """Refuse copies and pickles of a module until the stack closes."""
    stack.callback(module.register_load_state_dict_post_hook(HookMark()).remove)
