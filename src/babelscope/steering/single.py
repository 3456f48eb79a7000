"""A steering as plain functions of one forward pass, for libraries that hold the model themselves."""

from collections.abc import Callable
from functools import partial

from transformers import PreTrainedTokenizerBase

from babelscope.axes import Int, Tensor
from babelscope.errors import SteeringError
from babelscope.models import Layout
from babelscope.sites import Site
from babelscope.steering.checking import check_operations
from babelscope.steering.engine import Operations, flat_operations, ordinary_tokens
from babelscope.steering.frame import Frame
from babelscope.steering.ready_operation import ReadyOperation
from babelscope.upstream.forward import ForwardInputs

StreamChange = Callable[[Tensor], Tensor]
"""Value at a site, [batch, token, unit] or [batch, token, head, d_head], to what replaces it."""


def changes_of_pass(
    layout: Layout,
    operations: Operations,
    input_ids: Int[Tensor, "batch token"],
    *,
    attention_mask: Int[Tensor, "batch token"] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> dict[Site, StreamChange]:
    """What `steer` would do to one pass over these tokens, as a function for each site; all of it is prompt.

    Raises SteeringError for operations that need a clean pass first, which only `steer` runs; else as `steer`.
    """
    flat = flat_operations(operations)
    check_operations(layout, flat)
    if any(operation.clean or operation.gate.condition is not None for operation in flat):
        raise SteeringError(
            "an operation reads the prompt unsteered first; expected plain ones in a single pass; use steer"
        )
    ordinary = ordinary_tokens(layout, flat, tokenizer)
    frame = Frame(ForwardInputs(input_ids, None, attention_mask, None, None), None)
    ready: dict[Site, list[ReadyOperation]] = {}
    for operation in flat:
        ready_operation = ReadyOperation.of(operation, layout.width(operation.site.at), None)
        if not ready_operation.idle:
            ready.setdefault(operation.site, []).append(ready_operation)
    return {site: partial(_change, at_site, frame, ordinary) for site, at_site in ready.items()}


def _change(ready: list[ReadyOperation], frame: Frame, ordinary: Tensor | None, value: Tensor) -> Tensor:
    for ready_operation in ready:
        value = ready_operation.apply(value, None, frame, ordinary)
    return value
