"""The kernels, by the name of their folder: what the tests, the interpreter run and the benchmark go through."""

NAMES = (
    "swiglu",
    "active_counts",
    "steer_residual",
    "rows_wgrad",
    "rows_adamw",
    "sae_counts",
    "attention_stats",
    "row_lengths",
)
