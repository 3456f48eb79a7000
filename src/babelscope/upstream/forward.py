"""Calling a model's forward, and reading how others call it: arguments, cache and outputs by their names upstream."""

import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import nn

from babelscope.axes import Float, Int, Int64, Tensor
from babelscope.upstream.names import NAMES, attribute, missing_name, parameter_name

WITHOUT_POSITIONS = frozenset({"bloom", "mpt"})
"""Model types whose forward takes no positions; in every other one a missing name is an error."""


class ForwardNames(NamedTuple):
    """What the arguments of one model's forward are called."""

    all: tuple[str, ...]
    """Every argument, in order; those that come without a name are read by it."""
    ids: str
    embeds: str
    mask: str
    positions: str | None
    """None where the family has no such argument."""
    cache: str
    use_cache: str


class ForwardInputs(NamedTuple):
    """What one call of a forward was given."""

    ids: Int[Tensor, "batch token"] | None
    embeds: Float[Tensor, "batch token hidden"] | None
    mask: Any
    """[batch, column] where it says which tokens are pads; else already shaped for attention."""
    positions: Tensor | None
    cache: Any

    @property
    def given(self) -> Tensor | None:
        """Ids, or the embeddings that came in their place."""
        return self.ids if self.embeds is None else self.embeds

    @property
    def cached(self) -> int:
        """Columns that the cache holds already."""
        return 0 if self.cache is None else int(attribute(self.cache, "cache.length")())


def forward_names(module: nn.Module) -> ForwardNames:
    """Names of a model's, or its body's, forward arguments; raises PrerequisiteError for one that is not there."""
    # Of the class: nnsight leaves a forward without names on the object.
    return _names_of(type(module), attribute(attribute_of_model(module), "config.type") in WITHOUT_POSITIONS, _state())


def attribute_of_model(module: nn.Module) -> Any:
    """The configuration of a model or of its body."""
    config: Any = module.config
    return config


def _state() -> tuple[tuple[str, ...], ...]:
    """The names looked for; a part of the memo's key, so that a test which renames one is not answered from it."""
    return tuple(NAMES[key] for key in sorted(NAMES) if key.startswith("forward."))


@lru_cache(maxsize=256)
def _names_of(kind: type, without_positions: bool, _: tuple[tuple[str, ...], ...]) -> ForwardNames:
    parameters = tuple(inspect.signature(kind.forward).parameters)[1:]  # pyright: ignore[reportAttributeAccessIssue]
    owner = f"{kind.__name__}.forward"
    names = {key: parameter_name(parameters, f"forward.{key}", owner) for key in ("ids", "embeds", "mask", "cache")}
    positions = None if without_positions else parameter_name(parameters, "forward.positions", owner)
    use_cache = parameter_name(parameters, "forward.use_cache", owner)
    return ForwardNames(all=parameters, positions=positions, use_cache=use_cache, **names)


def read_inputs(names: ForwardNames, args: tuple, kwargs: Mapping[str, Any]) -> ForwardInputs:
    """What a call was given, from its arguments with and without names.

    A cache is also known by its former names, which releases map to the new one inside the model.
    """
    arguments = {**dict(zip(names.all, args, strict=False)), **kwargs}
    caches = [arguments[name] for name in NAMES["forward.cache"] if arguments.get(name) is not None]
    return ForwardInputs(
        ids=arguments.get(names.ids),
        embeds=arguments.get(names.embeds),
        mask=arguments.get(names.mask),
        positions=None if names.positions is None else arguments.get(names.positions),
        cache=caches[0] if caches else None,
    )


def arguments(
    names: ForwardNames,
    ids: Tensor | None,
    *,
    embeds: Tensor | None = None,
    mask: Tensor | None = None,
    positions: Tensor | None = None,
) -> dict[str, Any]:
    """Keyword arguments of a forward pass without cache; what is None is left out.

    Where rows begin with pads, positions count from each row's first real token: families with learned positions would
    count the pads too. Raises PrerequisiteError for positions that the family does not take.
    """
    chosen: dict[str, Any] = {names.ids: ids} if embeds is None else {names.embeds: embeds}
    if mask is not None:
        chosen[names.mask] = mask
    if positions is None and names.positions is not None and mask is not None and mask.ndim == 2:
        positions = positions_after_pads(mask)
    if positions is not None:
        if names.positions is None:
            raise missing_name("forward.positions", "this family's forward")
        chosen[names.positions] = positions
    return {**chosen, names.use_cache: False}


def positions_after_pads(mask: Int[Tensor, "batch token"]) -> Int64[Tensor, "batch token"] | None:
    """Place of each token among its row's real ones, 0 at pads before them; None where no row begins with a pad."""
    if not mask.shape[1] or bool(mask[:, 0].all()):
        return None
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


def run_body(
    body: nn.Module,
    ids: Int[Tensor, "batch token"] | None = None,
    *,
    embeds: Float[Tensor, "batch token hidden"] | None = None,
    mask: Tensor | None = None,
    positions: Int[Tensor, "#batch token"] | None = None,
) -> Float[Tensor, "batch token hidden"]:
    """One pass of a model without its head and without a cache; the stream after the final norm."""
    names = forward_names(body)
    return attribute(body(**arguments(names, ids, embeds=embeds, mask=mask, positions=positions)), "output.hidden")


class CachedPass(NamedTuple):
    """What one pass with a cache gives."""

    hidden: Float[Tensor, "batch token hidden"]
    """The stream after the final norm."""
    cache: Any
    """What the tokens so far left for those after them; a later pass changes it."""


def run_body_cached(body: nn.Module, ids: Int[Tensor, "batch token"], *, cache: Any = None) -> CachedPass:
    """One pass of a model without its head that leaves a cache, or goes on from one; rows without pads before them.

    cache: of an earlier pass; with as many rows as `ids`, after `select_cache_rows` where they are others now.
    """
    names = forward_names(body)
    inputs = ForwardInputs(ids, None, None, None, cache)
    chosen: dict[str, Any] = {names.ids: ids, names.use_cache: True}
    if cache is not None:
        chosen[names.cache] = cache
    if names.positions is not None:
        places = torch.arange(inputs.cached, inputs.cached + ids.shape[1], device=ids.device)
        chosen[names.positions] = places.expand(ids.shape)
    output = body(**chosen)
    return CachedPass(attribute(output, "output.hidden"), attribute(output, "output.cache"))


def select_cache_rows(cache: Any, rows: Int64[Tensor, " row"]) -> None:
    """Take these rows of a cache, in place; a row may come several times."""
    attribute(cache, "cache.select")(rows)


def run_model(
    model: nn.Module,
    ids: Int[Tensor, "batch token"],
    *,
    mask: Tensor | None = None,
    positions: Int[Tensor, "#batch token"] | None = None,
) -> Float[Tensor, "batch token vocab"]:
    """One pass of a whole model without a cache; its logits."""
    return attribute(model(**arguments(forward_names(model), ids, mask=mask, positions=positions)), "output.logits")
