"""The Rust tokenizer inside a fast one, and transformers' progress bars."""

from typing import Any

from babelscope.upstream.names import attribute, imported


def fast_backend(tokenizer: Any) -> Any | None:
    """The tokenizers.Tokenizer inside a fast tokenizer; None for a slow one, which has none."""
    return attribute(tokenizer, "tokenizer.backend") if attribute(tokenizer, "tokenizer.fast") else None


def hide_progress() -> None:
    """No bars of transformers' own beside this library's."""
    imported("transformers.utils.logging", "transformers.utils.logging")()
