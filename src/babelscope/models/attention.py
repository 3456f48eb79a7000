"""Put a function in the place of a model's attention for a while, to see queries, keys and values."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from einops import rearrange
from torch import nn

from babelscope.axes import Float, Tensor
from babelscope.errors import SiteError
from babelscope.models.plain import CausalModel
from babelscope.upstream.registries import attention_entry, read_attention_call, uses_registry

NAME = "babelscope"
"""Under which the function stands in transformers' registry while it is in use."""


class AttentionInputs(NamedTuple):
    """What the attention of one layer is given."""

    layer: int
    query: Float[Tensor, "batch head token d_head"]
    key: Float[Tensor, "batch kv_head token d_head"]
    value: Float[Tensor, "batch kv_head token d_head"]
    scale: float | None
    """Factor of the scores; None is 1/√d_head."""
    window: int | None
    """Tokens a row sees, itself among them; None is all before it."""
    softcap: float | None


Attend = Callable[[AttentionInputs], Float[Tensor, "batch head token d_head"]]
"""Inputs → the heads' output, before the output projection."""


@contextmanager
def attention_by(model: CausalModel, attend: Attend) -> Iterator[None]:
    """While open, every layer's attention is computed by `attend`; the model's own comes back on any exit.

    `attend` must know itself which positions are padding. Not to be nested.
    Raises SiteError for a family that does not compute its attention by transformers' registry (BLOOM) or hands it
    more than scale, window and soft cap (sinks), or if another function is already in place.
    """
    if not uses_registry(model):
        raise SiteError(
            f"{model.config.model_type} computes its attention itself; expected a family that uses transformers' "
            "attention registry; probe its heads by attn_heads alone"
        )

    def forward(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        call = read_attention_call(module, options)
        inputs = AttentionInputs(call.layer, query, key, value, call.scale, call.window, call.softcap)
        return rearrange(attend(inputs), "b h t d -> b t h d").contiguous(), None

    with attention_entry(model, NAME, forward):
        yield
