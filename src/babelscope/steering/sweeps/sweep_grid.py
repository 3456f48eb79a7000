"""What a steering sweep tries unless told otherwise: one grid for `study`, `steer --sweep` and Python."""

STRENGTHS = (0.75, 1.0, 1.25, 1.5)
"""In multiples of the difference of means: 1 moves one language's mean onto the other's."""
ARITHMETIC = (2.0, 4.0)
"""Strengths of neuron arithmetic, in multiples of the neurons' mean activation."""


def sweep_layers(n_layers: int) -> tuple[int, ...]:
    """The first layer, and those at an eighth, a quarter and a half of the depth; fewer in a model of a few layers."""
    return tuple(sorted({0, n_layers // 8, n_layers // 4, n_layers // 2}))
