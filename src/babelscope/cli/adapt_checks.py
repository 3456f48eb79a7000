"""Which flags of `adapt` belong together, and what is checked of them before anything is loaded."""

from typing import Literal

from babelscope.cli.flag_conditions import UsedWith
from babelscope.errors import UsageError

Baseline = Literal[
    "none", "random", "full", "ffn", "lora", "lora-attention", "shira", "lt-sft", "ssu", "sparse-forward"
]
OF_NEURONS = UsedWith(
    "without --baseline or with --baseline random", lambda call: call["baseline"] in ("none", "random")
)
TICKET = UsedWith("with --baseline lt-sft", lambda call: call["baseline"] == "lt-sft")
SHIELDED = UsedWith("with --baseline ssu", lambda call: call["baseline"] == "ssu")
ALIGN = UsedWith("with --objective align or shift", lambda call: call["objective"] != "text")
SHIFTED = UsedWith("with --objective shift", lambda call: call["objective"] == "shift")
ALIGN_ON_PAIRS = UsedWith("with --pairs", lambda call: call["objective"] == "text" or bool(call["pairs"]))
CHOSEN_BY_TEXT = UsedWith("without --objective align or shift", lambda call: call["objective"] == "text")
MIXED = UsedWith(
    "with --replay, and without --conversation and --objective shift",
    lambda call: call["replay"] and call["conversation"] == "none" and call["objective"] != "shift",
)
NOT_PEFT = UsedWith(
    "without --baseline lora, lora-attention or shira, whose adapters have no decay",
    lambda call: call["baseline"] not in ("lora", "lora-attention", "shira"),
)
REPLAYED = UsedWith(
    "with a --replay-share above 0 or a --harm-bound",
    lambda call: call["replay_share"] > 0 or call["harm_bound"] is not None,
)
BOUNDED = UsedWith(
    "with --replay, and without --rates and --objective align or shift",
    lambda call: call["replay"] and not call["rates"] and call["objective"] == "text",
)


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


def check_shield(baseline: str, shield: tuple[str, ...], language: str) -> None:
    """Raise UsageError for source-shielded updates without a source, or with the trained language as one."""
    if baseline == "ssu" and not shield:
        raise UsageError(
            "--baseline ssu came without --shield; expected languages of the corpus whose text says what stays; "
            "name some, such as --shield en"
        )
    if language in shield:
        raise UsageError(f"--shield came with {language}, the language that is trained; expected others; leave it out")
