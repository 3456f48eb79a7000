"""Which changes a model holds now: base cells are kept once, and cells are always cast(base + Σ changes).

The sum is taken in float64, in the order of the changes' digests, so it does not depend on the order of apply and
revert. What no change touches any more is written back bit for bit, and forgotten.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple, NoReturn, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn

from babelscope.axes import Float, Int64, Tensor
from babelscope.errors import ArtifactError, MeasurementError
from babelscope.models.origin import EDITORS
from babelscope.models.plain import CausalModel
from babelscope.subnetworks.cell_sums import (
    Active,
    BaseCells,
    WeightChange,
    all_finite,
    among_keys,
    base_at,
    ordered_changes,
    summed_cells,
    touched_cells,
    with_new_base,
)
from babelscope.subnetworks.places import Cells, WeightPlace
from babelscope.subnetworks.rounding import CastLoss, rounded

log = logging.getLogger(__name__)


class CellEdit(NamedTuple):
    """What one place goes through in an apply or revert; nothing is written while it is worked out."""

    place: WeightPlace
    keys: Int64[Tensor, " cell"]
    before: Float[Tensor, "cell ..."]
    after: Float[Tensor, "cell ..."]
    base: BaseCells


@dataclass
class _State:
    active: dict[str, Active] = field(default_factory=dict)
    base: dict[str, BaseCells] = field(default_factory=dict)


_STATES: WeakKeyDictionary[nn.Module, _State] = WeakKeyDictionary()


def changed_storages(model: nn.Module) -> set[int]:
    """Addresses of the parameters in which a model holds a change now."""
    state = _STATES.get(model)
    active = state.active.values() if state else ()
    return set().union(*(change.storages(cast(Any, model)) for change, _ in active))


EDITORS.append(changed_storages)


def active_changes(model: CausalModel) -> tuple[Active, ...]:
    """The changes that a model holds now, in the order of their digests."""
    state = _STATES.get(model)
    return ordered_changes(state.active.values()) if state else ()


@torch.no_grad()
def base_cells(model: CausalModel, change: WeightChange) -> dict[str, Tensor]:
    """The weights that a change is added to, by place, in the order of its keys: without it where it is applied.

    Other changes that the model holds count as a part of the base.
    """
    state = _STATES.get(model) or _State()
    places = change.places(model, applied=change.digest in state.active)
    if change.digest not in state.active:
        return {name: places[name].read(cells.keys.to(places[name].device)) for name, cells in change.cells().items()}
    other_changes = [active for digest, active in state.active.items() if digest != change.digest]
    base_values = {}
    for name, cells in change.cells().items():
        base, keys, _ = _opened(state, name, places[name], cells)
        change_cells = cells.keys.to(keys.device)
        values, still = base_at(base, change_cells), touched_cells(change_cells, name, other_changes)
        base_values[name] = (
            values.index_put((still,), summed_cells(base, change_cells[still], name, other_changes))
            if bool(still.any())
            else values
        )
    return base_values


@torch.no_grad()
def cast_loss(
    model: CausalModel, change: WeightChange, scale: float | int = 1.0, dtype: torch.dtype | None = None
) -> tuple[CastLoss, dict[str, Tensor]]:
    """What is lost of scale · change when it is added to the model's weights in a dtype; None: the model's own.

    Also what the weights move by, by place. Nothing is written.
    """
    parts, moves, kind = [], {}, dtype
    for name, base in base_cells(model, change).items():
        kind = dtype or base.dtype
        moves[name], sums = rounded(base, change.cells()[name].values.to(base.device).double() * scale, kind)
        parts.append(sums)
    return CastLoss.over(kind or torch.float32, parts), moves


@torch.no_grad()
def apply_change(model: CausalModel, change: WeightChange, scale: float | int = 1.0) -> int:
    """Add scale · change to a model in place, all or nothing; returns the bytes written.

    Raises ArtifactError if it is applied already, for another model, or overlaps a change of the other kind;
    PrerequisiteError for weights that cannot be written; MeasurementError where weights are not finite before or
    after, or were changed by someone else since the last apply or revert.
    """
    state = _STATES.get(model) or _State()
    if change.digest in state.active:
        earlier = state.active[change.digest].scale
        raise ArtifactError(
            f"{change.title} is applied already, with scale {earlier:g}; expected once; revert it first"
        )
    if not isfinite(scale):
        raise ArtifactError(f"{change.title}: scale {scale} came; expected a finite number")
    places, after = change.places(model), [*state.active.values(), Active(change, scale)]
    _check_kinds(model, state, change)
    steps = {}
    for name, cells in change.cells().items():
        base, keys, live = _opened(state, name, places[name], cells)
        base = with_new_base(base, keys, live)
        values = summed_cells(base, keys, name, after)
        if not all_finite(values):
            _refuse(change, scale, name, live)
        steps[name] = CellEdit(places[name], keys, live, values, base)
    lossy = any(step.place.dtype.itemsize < 4 for step in steps.values())
    loss = cast_loss(model, change, scale)[0] if lossy else None
    _write(steps)
    if loss is not None and not loss.exact:
        log.warning("%s: %s; open the model in float32 to keep all of it", change.title, loss.line())
    state.active[change.digest] = Active(change, scale)
    state.base.update({name: step.base for name, step in steps.items()})
    _STATES[model] = state
    return _bytes(steps)


@torch.no_grad()
def revert_change(model: CausalModel, change: WeightChange) -> int:
    """Take a change out again, all or nothing; returns the bytes written.

    Raises ArtifactError if the model does not hold it, MeasurementError where someone else changed the weights since.
    """
    state = _STATES.get(model) or _State()
    if change.digest not in state.active:
        raise ArtifactError(
            f"{change.title} is not applied to this model; expected an applied one; apply it first (a copy of a model, "
            "or a saved one, knows nothing of what was applied)"
        )
    other_changes = [active for digest, active in state.active.items() if digest != change.digest]
    places, steps = change.places(model, applied=True), {}
    for name, cells in change.cells().items():
        base, keys, live = _opened(state, name, places[name], cells)
        values, still = base_at(base, keys), touched_cells(keys, name, other_changes)
        if bool(still.any()):
            values = values.index_put((still,), summed_cells(base, keys[still], name, other_changes))
        still_touched = touched_cells(base.keys, name, other_changes)
        steps[name] = CellEdit(
            places[name], keys, live, values, BaseCells(base.keys[still_touched], base.values[still_touched])
        )
    _write(steps)
    del state.active[change.digest]
    for name, step in steps.items():
        state.base[name] = step.base
        if not len(step.base.keys):
            del state.base[name]
    if not state.active:
        del _STATES[model]
    return _bytes(steps)


@contextmanager
def applied_change(model: CausalModel, change: WeightChange, scale: float | int = 1.0) -> Iterator[None]:
    """While open the model holds the change."""
    apply_change(model, change, scale)
    try:
        yield
    finally:
        revert_change(model, change)


def _check_kinds(model: CausalModel, state: _State, change: WeightChange) -> None:
    """Rows and elements of one parameter cannot be held side by side: each kind would keep its own base."""
    for earlier in state.active.values():
        if type(earlier.change) is not type(change) and earlier.change.storages(model) & change.storages(model):
            raise ArtifactError(
                f"{change.title}: {earlier.change.title} changes the same parameters by other cells; expected changes "
                "of one kind; revert it first"
            )


def _opened(state: _State, name: str, place: WeightPlace, cells: Cells) -> tuple[BaseCells, Tensor, Tensor]:
    """Base cells of a place, on its device and in its dtype; the keys to write, and their live values."""
    keys = cells.keys.to(place.device)
    base = state.base.get(name)
    if base is None:
        live = place.read(keys)
        return BaseCells(keys[:0], live[:0]), keys, live
    base = BaseCells(base.keys.to(place.device), base.values.to(place.device))
    if base.values.dtype != place.dtype:
        # The model was converted while it held changes: each cell is then written anew, from the converted base.
        keys = torch.cat([base.keys, keys]).unique()
    live, has_base = place.read(keys), among_keys(keys, base.keys)
    all_have_base = bool(has_base.all())
    expected = summed_cells(base, keys if all_have_base else keys[has_base], name, state.active.values()).to(
        place.dtype
    )
    _check_untouched(live if all_have_base else live[has_base], expected, name)
    return BaseCells(base.keys, base.values.to(place.dtype)), keys, live


def _check_untouched(live: Tensor, expected: Tensor, name: str) -> None:
    if not torch.equal(live, expected):
        cells = int((live != expected).reshape(len(live), -1).any(dim=1).sum())
        raise MeasurementError(
            f"weights of {name} were changed in {cells} places since a change was applied there; expected base plus "
            "changes; revert before training, loading or converting, or load the model again"
        )


def _refuse(change: WeightChange, scale: float | int, name: str, live: Tensor) -> NoReturn:
    if not all_finite(live):
        raise MeasurementError(f"weights of {name} hold NaN or infinity; expected finite ones; load the model again")
    raise MeasurementError(
        f"{change.title} at scale {scale:g}: weights of {name} leave the range of {live.dtype}; expected finite ones; "
        "lower the scale, or open the model in float32"
    )


def _write(steps: Mapping[str, CellEdit]) -> None:
    """Write every place; an interruption puts all of them back."""
    complete = False
    try:
        for step in steps.values():
            step.place.write(step.keys, step.after)
        complete = True
    finally:
        if not complete:
            for step in steps.values():
                step.place.write(step.keys, step.before)


def _bytes(steps: Mapping[str, CellEdit]) -> int:
    return sum(step.after.numel() * step.after.element_size() for step in steps.values())
