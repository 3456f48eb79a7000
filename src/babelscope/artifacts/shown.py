"""What a notebook shows of an artifact: one line with its model, places and sizes; its tensors would fill pages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from babelscope.axes import Tensor

MOST = 8
"""Entries of a mapping or tuple that are written out."""
LONGEST = 120
"""Letters of an object inside another, beyond which only its class is named."""


def shown_by(*names: str) -> Callable[..., str]:
    """A `__repr__` of these attributes: `<NeuronSet model='reference', at='mlp_gate', sizes={en: 12, fi: 40}>`.

    names: of attributes in order; of one with a dot, such as "origin.model", the last part stands in the line. None
    means every field of the dataclass.
    """

    def representation(artifact: Any) -> str:
        attributes = names or tuple(field.name for field in fields(artifact))
        values = (f"{name.rpartition('.')[2]}={short_text(attrgetter(name)(artifact))}" for name in attributes)
        return f"<{type(artifact).__name__} {', '.join(values)}>"

    return representation


def short_text(value: Any) -> str:
    """A value in few words: of a tensor its type and shape, of a long mapping or sequence the first entries.

    Tags, sites and keys stand without quotes; of a dataclass or NamedTuple that would be long, the name of its class.
    """
    if isinstance(value, Tensor | np.ndarray):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if is_dataclass(value) or (isinstance(value, tuple) and type(value) is not tuple):
        text = str(value)
        return text if len(text) <= LONGEST else f"<{type(value).__name__}>"
    if isinstance(value, Mapping):
        return f"{{{listed_text([f'{key}: {short_text(entry)}' for key, entry in value.items()])}}}"
    if isinstance(value, range):
        return f"{value.start}–{value.stop - 1}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) > MOST and all(isinstance(entry, int) for entry in value):
            first, last = value[0], value[-1]
            if list(value) == [*range(first, last + 1)]:
                return f"{first}–{last}"
        return f"({listed_text([short_text(entry) for entry in value])})"
    if isinstance(value, float):
        return f"{value:.4g}"
    if type(value) is str:
        return repr(value if len(value) <= LONGEST else f"{value[:LONGEST]}…")
    return str(value)


def listed_text(entries: Sequence[str]) -> str:
    """The first entries, and how many there are where that is not all."""
    more = [f"… {len(entries)} in all"] if len(entries) > MOST else []
    return ", ".join([*entries[:MOST], *more])
