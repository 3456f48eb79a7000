"""What `adapt` checks of its flags together, before anything is loaded."""

from babelscope.errors import UsageError


def check_shift_layers(layers: tuple[int, ...]) -> None:
    """Raise UsageError for layers that are not two in order."""
    if layers and (len(layers) != 2 or not layers[0] < layers[1]):
        raise UsageError(
            f"--shift-layers {' '.join(map(str, layers))} came; expected two layers, the lower one first, or none; "
            "correct it"
        )


def check_rows(tokens_per_step: int, max_length: int, accumulation: int) -> None:
    """Raise UsageError where the rows of a step cannot be cut into as many batches as --accumulation says."""
    rows = max(1, tokens_per_step // max_length)
    if rows % accumulation:
        raise UsageError(
            f"--accumulation {accumulation} came for steps of {rows} rows (--tokens-per-step {tokens_per_step} over "
            f"--max-length {max_length}); expected a number that divides the rows; change one of them"
        )
