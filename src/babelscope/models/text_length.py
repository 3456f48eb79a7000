"""How many tokens of a text a model reads where nobody says."""

import logging
from weakref import WeakSet

from torch import nn

from babelscope.models.module_map import ModuleMap

log = logging.getLogger(__name__)
USUAL_LENGTH = 512
"""Tokens of a text at most, what begins it included."""
_said: WeakSet[nn.Module] = WeakSet()
"""Models of which the log has a line."""


def text_length(layout: ModuleMap, asked: int | None, usual: int = USUAL_LENGTH) -> int:
    """Tokens of a text at most: what was asked for, else the usual number, or as many as the model has positions.

    Where it has fewer, one line of the log says so, once for each model.
    """
    positions = layout.positions
    if asked is not None or positions is None or positions >= usual:
        return usual if asked is None else asked
    if layout.model not in _said:
        _said.add(layout.model)
        kind = layout.model.config.model_type
        log.warning("this %s has %d positions: texts are read to so many tokens, not to %d", kind, positions, usual)
    return positions
