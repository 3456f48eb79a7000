"""What a steering sweep tries unless told otherwise: one grid for `study`, `steer --sweep` and Python."""

from collections.abc import Sequence

STRENGTHS = (0.75, 1.0, 1.25, 1.5)
"""In multiples of the difference of means: 1 moves one language's mean onto the other's."""
ARITHMETIC = (2.0, 4.0)
"""Strengths of neuron arithmetic, in multiples of the neurons' mean activation."""


def sweep_layers(n_layers: int) -> tuple[int, ...]:
    """The first layer, and those at an eighth, a quarter and a half of the depth; fewer in a model of a few layers."""
    return tuple(sorted({0, n_layers // 8, n_layers // 4, n_layers // 2}))


def usual_layer(layers: Sequence[int]) -> int:
    """The observed layer nearest to a quarter of the depth, the lower of two: the middle of what a sweep tries.

    A place to begin, and nothing that was measured: sweeps chose layers from an eighth to a half of the depth.
    layers: those observed, one or more; the depth is taken to end behind the last.
    """
    quarter = (max(layers) + 1) // 4
    return min(layers, key=lambda layer: (abs(layer - quarter), layer))
