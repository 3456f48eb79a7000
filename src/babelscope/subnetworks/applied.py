"""Which changes a model holds now: base cells are kept once, and cells are always cast(base + Σ changes).

The sum is taken in float64, in the order of the changes' digests, so it does not depend on the order of apply and
revert. What no change touches any more is written back bit for bit, and forgotten.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple, NoReturn, Protocol, cast, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from torch import nn

from babelscope.axes import Bool, Float, Int64, Tensor
from babelscope.errors import ArtifactError, MeasurementError
from babelscope.models.origin import EDITORS
from babelscope.models.plain import CausalModel
from babelscope.subnetworks.places import Cells, WeightPlace
from babelscope.subnetworks.rounding import CastLoss, rounded

log = logging.getLogger(__name__)


@runtime_checkable
class WeightChange(Protocol):
    """Anything that is added to cells of a model."""

    @property
    def digest(self) -> str:
        """Hash of the content; equal content is the same change."""
        ...

    @property
    def title(self) -> str:
        """For messages."""
        ...

    def cells(self) -> Mapping[str, Cells]:
        """What is added, by place."""
        ...

    def places(self, model: CausalModel, *, held: bool = False) -> Mapping[str, WeightPlace]:
        """Its places in a model; raises PrerequisiteError where it can not be written.

        held: the model holds the change, and is not asked for its hash: its config may have been edited since, and
        the way back must stay open. Else raises ArtifactError where the model is another one.
        """
        ...

    def storages(self, model: CausalModel) -> set[int]:
        """Addresses of the parameters that it touches."""
        ...


class Active(NamedTuple):
    """A change that a model holds now."""

    change: WeightChange
    scale: float | int


class Held(NamedTuple):
    """Base cells of one place, those that some active change touches."""

    keys: Int64[Tensor, " cell"]
    base: Float[Tensor, "cell ..."]


class CellEdit(NamedTuple):
    """What one place goes through in an apply or revert; nothing is written while it is worked out."""

    place: WeightPlace
    keys: Int64[Tensor, " cell"]
    before: Float[Tensor, "cell ..."]
    after: Float[Tensor, "cell ..."]
    held: Held


@dataclass
class _State:
    active: dict[str, Active] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)


_STATES: WeakKeyDictionary[nn.Module, _State] = WeakKeyDictionary()


def changed_storages(model: nn.Module) -> set[int]:
    """Addresses of the parameters in which a model holds a change now."""
    state = _STATES.get(model)
    active = state.active.values() if state else ()
    return set().union(*(held.change.storages(cast(Any, model)) for held in active))


EDITORS.append(changed_storages)


def active_changes(model: CausalModel) -> tuple[Active, ...]:
    """The changes that a model holds now, in the order of their digests."""
    state = _STATES.get(model)
    return _ordered(state.active.values()) if state else ()


@torch.no_grad()
def base_cells(model: CausalModel, change: WeightChange) -> dict[str, Tensor]:
    """The weights that a change is added to, by place, in the order of its keys: without it where it is applied.

    Other changes that the model holds count as a part of the base.
    """
    state = _STATES.get(model) or _State()
    places = change.places(model, held=change.digest in state.active)
    if change.digest not in state.active:
        return {name: places[name].read(cells.keys.to(places[name].device)) for name, cells in change.cells().items()}
    left = [active for digest, active in state.active.items() if digest != change.digest]
    found = {}
    for name, cells in change.cells().items():
        held, keys, _ = _opened(state, name, places[name], cells)
        own = cells.keys.to(keys.device)
        values, still = _base(held, own), _touched(own, name, left)
        found[name] = values.index_put((still,), _summed(held, own[still], name, left)) if bool(still.any()) else values
    return found


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
    PrerequisiteError for weights that can not be written; MeasurementError where weights are not finite before or
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
        held, keys, now = _opened(state, name, places[name], cells)
        held = _merged(held, keys, now)
        values = _summed(held, keys, name, after)
        if not _finite(values):
            _refuse(change, scale, name, now)
        steps[name] = CellEdit(places[name], keys, now, values, held)
    lossy = any(step.place.dtype.itemsize < 4 for step in steps.values())
    loss = cast_loss(model, change, scale)[0] if lossy else None
    _write(steps)
    if loss is not None and not loss.exact:
        log.warning("%s: %s; open the model in float32 to keep all of it", change.title, loss.line())
    state.active[change.digest] = Active(change, scale)
    state.held.update({name: step.held for name, step in steps.items()})
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
    left = [active for digest, active in state.active.items() if digest != change.digest]
    places, steps = change.places(model, held=True), {}
    for name, cells in change.cells().items():
        held, keys, now = _opened(state, name, places[name], cells)
        values, still = _base(held, keys), _touched(keys, name, left)
        if bool(still.any()):
            values = values.index_put((still,), _summed(held, keys[still], name, left))
        kept = _touched(held.keys, name, left)
        steps[name] = CellEdit(places[name], keys, now, values, Held(held.keys[kept], held.base[kept]))
    _write(steps)
    del state.active[change.digest]
    for name, step in steps.items():
        state.held[name] = step.held
        if not len(step.held.keys):
            del state.held[name]
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


def _ordered(active: Iterable[Active]) -> tuple[Active, ...]:
    return tuple(sorted(active, key=lambda one: one.change.digest))


def _check_kinds(model: CausalModel, state: _State, change: WeightChange) -> None:
    """Rows and elements of one parameter can not be held side by side: each kind would keep its own base."""
    for other in state.active.values():
        if type(other.change) is not type(change) and other.change.storages(model) & change.storages(model):
            raise ArtifactError(
                f"{change.title}: {other.change.title} changes the same parameters by other cells; expected changes of "
                "one kind; revert it first"
            )


def _opened(state: _State, name: str, place: WeightPlace, cells: Cells) -> tuple[Held, Tensor, Tensor]:
    """Base cells held at a place, on its device and in its dtype; the keys to write, and their live values."""
    keys = cells.keys.to(place.device)
    held = state.held.get(name)
    if held is None:
        now = place.read(keys)
        return Held(keys[:0], now[:0]), keys, now
    held = Held(held.keys.to(place.device), held.base.to(place.device))
    if held.base.dtype != place.dtype:
        # The model was converted while it held changes: each cell is then written anew, from the converted base.
        keys = torch.cat([held.keys, keys]).unique()
    now, known = place.read(keys), _member(keys, held.keys)
    whole = bool(known.all())
    live = _summed(held, keys if whole else keys[known], name, state.active.values()).to(place.dtype)
    _check_untouched(now if whole else now[known], live, name)
    return Held(held.keys, held.base.to(place.dtype)), keys, now


def _check_untouched(live: Tensor, expected: Tensor, name: str) -> None:
    if not torch.equal(live, expected):
        cells = int((live != expected).reshape(len(live), -1).any(dim=1).sum())
        raise MeasurementError(
            f"weights of {name} were changed in {cells} places since a change was applied there; expected base plus "
            "changes; revert before training, loading or converting, or load the model again"
        )


def _refuse(change: WeightChange, scale: float | int, name: str, now: Tensor) -> NoReturn:
    if not _finite(now):
        raise MeasurementError(f"weights of {name} hold NaN or infinity; expected finite ones; load the model again")
    raise MeasurementError(
        f"{change.title} at scale {scale:g}: weights of {name} leave the range of {now.dtype}; expected finite ones; "
        "lower the scale, or open the model in float32"
    )


def _finite(values: Tensor) -> bool:
    # One pass: 20 µs where isfinite().all() took 200 µs (144,000 float32 on the CPU). NaN goes through both ends.
    return not values.numel() or bool(torch.isfinite(torch.stack(torch.aminmax(values))).all())


def _merged(held: Held, keys: Tensor, now: Tensor) -> Held:
    """Base cells, with those of the keys that no change touched yet: their live values are the base."""
    if not len(held.keys):
        return Held(keys, now)
    new = ~_member(keys, held.keys)
    merged, order = torch.cat([held.keys, keys[new]]).sort()
    return Held(merged, torch.cat([held.base, now[new]])[order])


def _base(held: Held, keys: Tensor) -> Tensor:
    """Base cells of held keys; not a copy where all are asked for."""
    return held.base if len(keys) == len(held.keys) else held.base[torch.searchsorted(held.keys, keys)]


def _summed(held: Held, keys: Tensor, name: str, active: Iterable[Active]) -> Tensor:
    """cast(base + Σ scale · change), summed in float64 in the order of the digests."""
    base = _base(held, keys)
    parts = [(change.cells()[name], scale) for change, scale in _ordered(active) if name in change.cells()]
    if len(parts) == 1 and parts[0][1] == 1 and base.dtype != torch.float64 and len(parts[0][0].keys) == len(keys):
        # Two float32 added in float64 and cast are the same bits as added in float32 (53 ≥ 2 · 24 + 2); half the time.
        return (base.float() + parts[0][0].values.to(base.device)).to(base.dtype)
    total = base.to(torch.float64, copy=True)
    for cells, scale in parts:
        theirs, values = cells.keys.to(keys.device), cells.values.to(keys.device).double()
        if scale != 1:
            values = values * scale
        known = _member(theirs, keys)
        if not bool(known.all()):
            theirs, values = theirs[known], values[known]
        # Keys are unique within a change: each cell is added to once, so the result does not depend on any order.
        total.index_add_(0, torch.searchsorted(keys, theirs), values)
    return total.to(held.base.dtype)


def _touched(keys: Tensor, name: str, active: Iterable[Active]) -> Bool[Tensor, " cell"]:
    """Which keys some change touches."""
    touched = torch.zeros(len(keys), dtype=torch.bool, device=keys.device)
    for change, _ in active:
        cells = change.cells().get(name)
        if cells is not None:
            touched |= _member(keys, cells.keys.to(keys.device))
    return touched


def _member(keys: Tensor, among: Tensor) -> Bool[Tensor, " cell"]:
    """Which keys are among other, ascending ones."""
    if not len(among):
        return torch.zeros(len(keys), dtype=torch.bool, device=keys.device)
    return among[torch.searchsorted(among, keys).clamp(max=len(among) - 1)] == keys


def _write(steps: Mapping[str, CellEdit]) -> None:
    """Write every place; an interruption puts all of them back."""
    whole = False
    try:
        for step in steps.values():
            step.place.write(step.keys, step.after)
        whole = True
    finally:
        if not whole:
            for step in steps.values():
                step.place.write(step.keys, step.before)


def _bytes(steps: Mapping[str, CellEdit]) -> int:
    return sum(step.after.numel() * step.after.element_size() for step in steps.values())
