"""What may act on the stream while a model trains, by the language of each row."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, runtime_checkable

from babelscope.languages import Language


@runtime_checkable
class RowSteering(Protocol):
    """Edits of the stream that belong to a training: in the trained passes and in the measured ones."""

    def over(self, languages: Sequence[Language]) -> AbstractContextManager[Any]:
        """While open, passes over rows of these languages are edited; one language stands for every number of rows."""
        ...

    def facts(self) -> dict[str, Any]:
        """What decides the edits, as JSON: for fingerprints and cards."""
        ...


def rows_with(steering: RowSteering | None, languages: Sequence[Language]) -> AbstractContextManager[Any]:
    """`steering.over(languages)`; nothing acts where there is none."""
    return nullcontext() if steering is None else steering.over(languages)
