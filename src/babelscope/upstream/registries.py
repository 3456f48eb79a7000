"""transformers' tables of attention and mask functions, and how its experts are run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn

from babelscope.errors import SiteError
from babelscope.upstream.config import config_value
from babelscope.upstream.names import NAMES, attribute, imported, parameter_name

HARMLESS = frozenset({
    "dropout", "is_causal", "position_ids", "cache_position", "use_cache", "output_attentions", "output_hidden_states",
    "position_embeddings", "return_dict", "head_mask", "past_key_values", "cache", "past_key_value", "layer_idx",
})  # fmt: skip
"""What else an attention may be handed that does not change its result without dropout."""


class AttentionCall(NamedTuple):
    """What transformers hands to an attention function besides query, key and value."""

    layer: int
    scale: float
    window: int | None
    softcap: float | None


def read_attention_call(module: nn.Module, arguments: Mapping[str, Any]) -> AttentionCall:
    """Settings of one layer's attention; raises SiteError for one that this library does not know how to honour."""
    scale = parameter_name(arguments, "attention.scale", f"{type(module).__name__}'s call of its attention")
    known_settings = {name for key in ("scale", "window", "softcap") for name in NAMES[f"attention.{key}"]}
    extra = [name for name, value in arguments.items() if value is not None and name not in known_settings | HARMLESS]
    if extra:
        raise SiteError(
            f"{type(module).__name__} hands {', '.join(map(repr, sorted(extra)))} to its attention, which this probe "
            "does not know; expected scale, window and soft cap only; probe its heads by attn_heads alone"
        )
    window, softcap = (
        next((arguments[name] for name in NAMES[f"attention.{key}"] if name in arguments), None)
        for key in ("window", "softcap")
    )
    return AttentionCall(int(attribute(module, "attention.layer")), arguments[scale], window, softcap)


def uses_registry(model: nn.Module) -> bool:
    """Whether a model computes its attention by transformers' table."""
    return bool(attribute(model, "model.attention_backend"))


@contextmanager
def attention_entry(model: nn.Module, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """While open, an attention function stands in the table and the model uses it; taken out on any exit.

    Raises SiteError if a function already stands there under this name.
    """
    functions = imported("transformers.modeling_utils", "transformers.modeling_utils")
    masks = imported("transformers.masking_utils", "transformers.masking_utils")
    sdpa_mask = imported("transformers.masking_utils", "transformers.masking_utils.sdpa")
    if name in functions.valid_keys():
        raise SiteError("another probe already stands in the attention's place; expected none; leave it first")
    (field,) = NAMES["config.attention"]
    config: Any = model.config
    before = config_value(config, "attention")
    functions[name], masks[name] = function, sdpa_mask
    try:
        setattr(config, field, name)
        yield
    finally:
        setattr(config, field, before)
        del functions[name], masks[name]


def experts_run_by(model: nn.Module) -> str | None:
    """How this model's experts are computed: "grouped_mm" (rows sorted by expert), "batched_mm" (unsorted), …"""
    return config_value(model.config, "grouping")


def run_experts_by(model: nn.Module, how: str) -> None:
    """Choose how a model's experts are computed."""
    attribute(model, "model.group_experts")(how)
