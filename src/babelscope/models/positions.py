"""Rotary positions whose frequencies follow the longest row of a batch, pinned to each document by itself.

Dynamic NTK and longrope choose their frequencies by the largest position of a forward pass, and dynamic NTK remembers
it between passes. Here every token gets what its own document would get alone, in a model that has just been opened.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any
from weakref import WeakSet

import torch
from torch import nn

from babelscope.axes import Int, Tensor
from babelscope.upstream.forward import forward_names, read_inputs
from babelscope.upstream.names import attribute, imported

log = logging.getLogger(__name__)
BY_BATCH = ("dynamic", "longrope")
"""What the names of such rotary types contain in transformers."""
_SAID: WeakSet[nn.Module] = WeakSet()
"""Models for which the log has said it."""


def batch_positions(model: nn.Module) -> tuple[str, ...]:
    """Names of the model's rotary types that look at the whole batch; empty for nearly all models."""
    kinds = [kind for module in _rotary_modules(model) for kind in _kinds(module)]
    return tuple(sorted(set(kinds)))


def positions_note(model: nn.Module) -> dict[str, str]:
    """What a card says of such a model; nothing for others."""
    kinds = batch_positions(model)
    return {"positions": f"{', '.join(kinds)} rotary positions, pinned to each document by itself"} if kinds else {}


@contextmanager
def pinned_positions(model: nn.Module, body: nn.Module | None = None) -> Iterator[None]:
    """While open, rotary frequencies that follow the batch follow each document; other models are left alone.

    body: the module that takes `input_ids` and `attention_mask`; with it, a pass without `position_ids` counts
    positions from each row's first real token.
    The model's own modules keep their state: what they remember of earlier passes neither acts here nor changes.
    Contexts nest.
    """
    modules = [module for module in _rotary_modules(model) if _kinds(module)]
    with ExitStack() as stack:
        for module in modules:
            if isinstance(vars(module).get("forward"), _Pinned):
                continue
            before = vars(module).get("forward")
            object.__setattr__(module, "forward", _Pinned(module))
            stack.callback(_put_back, module, before)
        if modules and body is not None:
            stack.callback(body.register_forward_pre_hook(_count_positions, with_kwargs=True, prepend=True).remove)
        if modules and model not in _SAID:
            _SAID.add(model)
            log.warning(
                "%s positions follow the longest text of a batch; they are pinned to each document by itself",
                ", ".join(batch_positions(model)),
            )
        yield


def _put_back(module: nn.Module, before: Any) -> None:
    if before is None:
        object.__delattr__(module, "forward")
    else:
        object.__setattr__(module, "forward", before)


def _rotary_modules(model: nn.Module) -> list[Any]:
    """Modules whose forward pass is decorated by transformers' `dynamic_rope_update`."""
    return [module for module in model.modules() if _updates(type(module))]


def _updates(kind: type[nn.Module]) -> bool:
    source = imported("transformers.modeling_rope_utils", "transformers.rope.update").__code__.co_filename
    call: Any = kind.forward
    while hasattr(call, "__wrapped__"):
        if call.__code__.co_filename == source:
            return True
        call = call.__wrapped__
    return False


def _kinds(module: Any) -> list[str]:
    """Rotary types of a module that follow the batch; it has one, or one per kind of layer."""
    rope_type = attribute(module, "rope.kind")
    types = rope_type.values() if isinstance(rope_type, dict) else [rope_type]
    return [kind for kind in types if any(part in kind for part in BY_BATCH)]


class _Pinned:
    """The forward pass of one rotary module, worked out for each length of document by a module as new."""

    def __init__(self, module: Any) -> None:
        # Made anew from the config: the module itself may remember another batch.
        self._new: Any = type(module)(config=module.config)

    def __call__(self, x: Tensor, position_ids: Int[Tensor, "row token"], *more: Any, **options: Any) -> Any:
        lengths = document_lengths(position_ids)
        out: tuple[Tensor, ...] | None = None
        for length in lengths.unique().tolist():
            # A first column of its own tells the length; what stands past it is of other documents, or pads.
            edge = torch.full_like(position_ids[:, :1], length - 1)
            columns = torch.cat([edge, position_ids.clamp(max=length - 1)], dim=1)
            module = deepcopy(self._new, {id(self._new.config): self._new.config}).to(x.device)
            rotated = [part[:, 1:] for part in type(module).forward(module, x, columns, *more, **options)]
            same_length = (lengths == length)[..., None]
            out = (
                tuple(rotated)
                if out is None
                else tuple(torch.where(same_length, n, o) for n, o in zip(rotated, out, strict=True))
            )
        return out


def document_lengths(position_ids: Int[Tensor, "row token"]) -> Int[Tensor, "row token"]:
    """Tokens so far of the document that each token is in: its last position here, and one.

    A document goes on where a position is one above the one before; packed rows hold several.
    """
    first = torch.ones_like(position_ids, dtype=torch.bool)
    first[:, 1:] = position_ids.diff(dim=1) != 1
    # The last token of each document, seen from the right: the next one is another's first.
    last = torch.cat([first[:, 1:], torch.ones_like(first[:, :1])], dim=1)
    place = torch.arange(position_ids.shape[1], device=position_ids.device).expand_as(position_ids)
    end = torch.where(last, place, position_ids.shape[1]).flip(1).cummin(dim=1).values.flip(1)
    return position_ids.gather(1, end) + 1


def _count_positions(body: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
    """Positions of a pass that was given none, by its mask; a pass that goes on from a cache brings its own."""
    names = forward_names(body)
    inputs = read_inputs(names, args, kwargs)
    ids_or_vectors, mask = inputs.given, inputs.mask
    if inputs.positions is not None or ids_or_vectors is None or mask is None or mask.shape != ids_or_vectors.shape[:2]:
        return None
    return args, {**kwargs, str(names.positions): (mask.long().cumsum(dim=1) - 1).clamp(min=0)}
