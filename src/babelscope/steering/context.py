"""A steering that is entered once."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

from babelscope.errors import SteeringError
from babelscope.steering.receipt import Receipt


class SteeringContext(AbstractContextManager[Receipt]):
    """What `steer` gives: open it by `with`, once; as a decorator it is opened anew for each call."""

    def __init__(self, make: Callable[[], AbstractContextManager[Receipt]]) -> None:
        self._make = make
        self._open: AbstractContextManager[Receipt] | None = None

    def __enter__(self) -> Receipt:
        if self._open is not None:
            raise SteeringError(
                "a steering was entered that was entered before; expected one `with` for each; call steer(…) anew"
            )
        self._open = self._make()
        return self._open.__enter__()

    def __exit__(self, *error: Any) -> bool | None:
        assert self._open is not None
        return self._open.__exit__(*error)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with the model steered while it runs."""

        @wraps(function)
        def steered(*args: Any, **kwargs: Any) -> Any:
            with SteeringContext(self._make):
                return function(*args, **kwargs)

        return steered
