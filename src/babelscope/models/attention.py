"""Put a function in the place of a model's attention for a while, to see queries, keys and values."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from einops import rearrange
from torch import nn
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from babelscope.axes import Float, Tensor
from babelscope.errors import SiteError

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
def attention_by(model: PreTrainedModel, attend: Attend) -> Iterator[None]:
    """While open, every layer's attention is computed by `attend`; the model's own comes back on any exit.

    `attend` must know itself which positions are padding. Not to be nested.
    Raises SiteError for a family that does not compute its attention by transformers' registry (BLOOM), or if another
    function is already in place.
    """
    if NAME in ALL_ATTENTION_FUNCTIONS.valid_keys():
        raise SiteError("another probe already stands in the attention's place; expected none; leave it first")
    if not model._supports_attention_backend:
        raise SiteError(
            f"{model.config.model_type} computes its attention itself; expected a family that uses transformers' "
            "attention registry; probe its heads by attn_heads alone"
        )

    def forward(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        inputs = AttentionInputs(int(module.layer_idx), query, key, value, scaling, sliding_window, softcap)  # pyright: ignore[reportArgumentType]
        return rearrange(attend(inputs), "b h t d -> b t h d").contiguous(), None

    before = model.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS[NAME] = forward
    ALL_MASK_ATTENTION_FUNCTIONS[NAME] = sdpa_mask
    try:
        model.config._attn_implementation = NAME
        yield
    finally:
        model.config._attn_implementation = before
        del ALL_ATTENTION_FUNCTIONS[NAME], ALL_MASK_ATTENTION_FUNCTIONS[NAME]
