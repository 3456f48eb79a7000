"""Operations made ready to run: vectors scaled, rows joined, coefficients worked out once per pass."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from babelscope.artifacts import Operation
from babelscope.axes import Float, Float64, Tensor
from babelscope.errors import ArtifactError, SteeringError
from babelscope.interventions import KINDS, Change
from babelscope.sites import NEURON_SITES
from babelscope.steering.frame import Frame
from babelscope.steering.receipt import PassCounts, Receipt, count_masked, count_plain
from babelscope.steering.unit_changes import at_experts, at_units, change_of


@dataclass(eq=False)
class ReadyOperation:
    """One change at one site, for all rows or with each row's own vector and strength."""

    operation: Operation
    """Gives site, kind, indices, gate and schedule."""
    vectors: Float64[Tensor, "row unit"]
    """In raw units; one for all rows, or one per row."""
    strengths: tuple[float, ...] | None
    """One per row, 0 for a row that is left alone; rows past the end are too. None: the operation's own for all."""
    batch_rows: int | None
    """Rows that a batch must have; None where any number will do."""
    width: int
    """Units of the site."""
    _ready: dict[Any, Any] = field(default_factory=dict)
    """Tensors that were moved to a device already, by name, device and precision."""
    _settings: tuple[Any, ...] = ()
    """Gate, schedule and strengths; one object for all operations of a steering that have the same (`share`)."""

    def __post_init__(self) -> None:
        self.share({})

    @classmethod
    def of(cls, operation: Operation, width: int, batch_rows: int | None = None) -> "ReadyOperation":
        """One operation, for a batch of so many rows if that is known."""
        vector = operation.vector.detach().cpu().double() * operation.scale
        gate_rows = operation.gate.rows
        if gate_rows is None:
            return cls(operation, vector[None], None, batch_rows, width)
        if batch_rows is not None and max(gate_rows) >= batch_rows:
            raise ArtifactError(
                f"gate names row {max(gate_rows)}; {batch_rows} rows came, counted from 0; correct the gate"
            )
        strengths = tuple(
            operation.strength if row in gate_rows else 0.0 for row in range(batch_rows or max(gate_rows) + 1)
        )
        return cls(operation, vector[None], strengths, batch_rows, width)

    @property
    def idle(self) -> bool:
        """Whether the operation changes nothing, whatever comes."""
        return not self.operation.strength if self.strengths is None else not any(self.strengths)

    def join(self, other: "ReadyOperation") -> "ReadyOperation | None":
        """Both operations as one, so that one hook serves many rows; None where they cannot be merged.

        They can where both name their rows, no row has a strength in both, and all else but the vectors is the same:
        site, kind, gate, schedule, and the very same matrix and features.
        """
        if self.strengths is None or other.strengths is None or len(self.strengths) != len(other.strengths):
            return None
        if self._form is None or self._form != other._form:
            return None
        pairs = list(zip(self.strengths, other.strengths, strict=True))
        if any(strength and other_strength for strength, other_strength in pairs):
            return None
        size = (len(pairs), self.vectors.shape[1])
        from_self = torch.tensor([bool(strength) for strength, _ in pairs])[:, None]
        vectors = torch.where(from_self, self.vectors.expand(size), other.vectors.expand(size))
        return replace(
            self,
            vectors=vectors,
            strengths=tuple(strength or other_strength for strength, other_strength in pairs),
            _ready={},
        )

    @property
    def _form(self) -> tuple[Any, ...] | None:
        """What two operations must have in common to be merged; None where this one never is."""
        op = self.operation
        # One vector per row is kept for all units of a site: operations on single units, or on the neurons of experts,
        # would need one per row and expert, and stay apart.
        if op.indices is not None or op.site.at in NEURON_SITES:
            return None
        return op.site, op.kind, replace(op.gate, rows=None), op.schedule, self.batch_rows, *self._shared

    @property
    def _shared(self) -> tuple[Any, ...]:
        """What is too large to be kept per row: merged operations must hold the same objects."""
        op = self.operation
        return id(op.matrix), id(op.features), op.clean

    def apply(
        self,
        value: Float[Tensor, "batch token *unit"],
        routes: Tensor | None,
        frame: Frame,
        ordinary: Tensor | None,
        receipt: Receipt | None = None,
    ) -> Tensor:
        """The activation after this operation; the same tensor, not a copy, where no token is open to it."""
        strength, counts = self._in_pass(frame, ordinary, value)
        if receipt is not None:
            receipt.met(id(self), frame, value.shape[1], counts)
        if strength is None:
            return value
        change, indices = self._change_on(value), self.operation.indices
        if routes is not None:
            table = self._ready_on(value, "table", lambda: self._by_expert(self.vectors[0], value.shape[-1]))
            chosen = self._ready_on(value, "chosen", lambda: self._by_expert(True, value.shape[-1]))
            wide = strength[..., None] if isinstance(strength, Tensor) else strength
            return at_experts(change, value, routes, table, chosen, wide)
        flat, vector = value.flatten(2), self._vector(value, frame)
        if self.operation.clean:
            return self._pasted(change, value, vector, strength, frame)
        if indices is None:
            return change(flat, vector, strength).reshape(value.shape)
        if KINDS[self.operation.kind].reads_all:
            # The spread, the edges and the mean are those of the whole site.
            wide = self._ready_on(value, "wide", lambda: self._wide(self.vectors[0]))
            return change(flat, wide, strength).reshape(value.shape)
        where = self._ready_on(value, "indices", lambda: indices)
        return at_units(change, flat, where, vector, strength).reshape(value.shape)

    def _pasted(self, change: Change, value: Tensor, vector: Tensor, strength: float | Tensor, frame: Frame) -> Tensor:
        """The operation applied to the value of the clean pass, put in at tokens whose strength is not 0."""
        if frame.clean is None:
            raise SteeringError(f"site '{self.operation.site}': no clean pass was made; call generate, or the model")
        before = frame.clean.onto(self.operation.site, value, frame.start, frame.repeats).flatten(2)
        flat = value.flatten(2)
        open_ = torch.as_tensor(strength, device=value.device) != 0
        return torch.where(open_, change(before, vector, strength), flat).reshape(value.shape)

    def _change_on(self, value: Tensor) -> Change:
        """The change with its matrix or features on the value's device."""
        op = self.operation
        key = ("change", value.device, _precision(value))
        if key not in self._ready:
            with torch.inference_mode(False):
                matrix = None if op.matrix is None else op.matrix.to(value.device, _precision(value))
                features = None if op.features is None else op.features.to(value.device)
                self._ready[key] = change_of(op.kind, matrix, features)
        return self._ready[key]

    def _ready_on(self, value: Tensor, name: Any, make: Callable[[], Tensor]) -> Tensor:
        """A tensor made once for each device and precision; what is no float keeps its dtype."""
        key = (name, value.device, _precision(value))
        if key not in self._ready:
            # Outside inference mode, or gradients could never flow past it.
            with torch.inference_mode(False):
                tensor = make()
                dtype = _precision(value) if tensor.is_floating_point() else tensor.dtype
                self._ready[key] = tensor.to(dtype).to(value.device)
        return self._ready[key]

    def _vector(self, value: Tensor, frame: Frame) -> Tensor:
        if len(self.vectors) == 1:
            return self._ready_on(value, "vector", lambda: self.vectors[0])
        repeats = frame.repeats
        return self._ready_on(
            value, ("vectors", repeats), lambda: self.vectors.repeat_interleave(repeats, dim=0)[:, None]
        )

    def _by_expert(self, values: Tensor | bool, d_expert: int) -> Tensor:
        """Values at the units touched, zero or False elsewhere, [expert, neuron]."""
        return self._wide(values).view(-1, d_expert)

    def _wide(self, values: Tensor | bool) -> Tensor:
        """Values at the units touched, zero or False elsewhere."""
        table = torch.zeros(self.width, dtype=torch.bool if values is True else torch.float64)
        indices = self.operation.indices
        table[slice(None) if indices is None else indices.cpu()] = values
        return table

    def share(self, settings: dict[Any, Any]) -> None:
        """Take equal settings of an earlier operation of one steering for this one's own: the very same object.

        What a pass works out from them is then found by identity: hashing a gate for every layer and token costs more
        than a step of a small batch.
        """
        operation = self.operation
        equal = (operation.gate, operation.schedule, self.strengths, operation.strength, self.batch_rows)
        self._settings = settings.setdefault(equal, equal)

    def _in_pass(
        self, frame: Frame, ordinary: Tensor | None, value: Tensor
    ) -> tuple[float | Tensor | None, PassCounts]:
        """What a pass works out once for operations of the same settings: strength, and counts for the receipt.

        The strength at each token, [batch, token, 1], or one number for all; None where all is closed.
        """
        key = (id(self._settings), id(ordinary), value.shape[1], value.device, _precision(value))
        if key not in frame.shared:
            strength = self._work_out(frame, ordinary, value)
            frame.shared[key] = strength, self._counts(frame, ordinary, value.shape[1])
        return frame.shared[key]

    def _work_out(self, frame: Frame, ordinary: Tensor | None, value: Tensor) -> float | Tensor | None:
        """Product of strength by row, factor by column, and what is open by token."""
        if frame.rows != (self.batch_rows or frame.rows) or frame.rows < len(self.strengths or ()):
            expected = self.batch_rows or f"at least {len(self.strengths or ())}"
            raise ArtifactError(f"a batch of {frame.rows} rows came; expected {expected}; give one entry per row")
        gate = self.operation.gate
        factors = frame.factors(gate, self.operation.schedule)
        if not any(factors):
            return None
        parts: list[Tensor] = []
        strength = self.operation.strength
        if self.strengths is not None:
            strength = 1.0
            parts.append(self._row_strengths(frame, self.strengths, value))
        if len(factors) > 1:
            parts.append(torch.tensor([factors], dtype=_precision(value), device=value.device))
        else:
            strength *= factors[0]
        selected = frame.selected(gate, ordinary)
        if selected is not None:
            parts.append(selected.to(value.device, _precision(value)))
        if gate.condition is not None:
            parts.append(frame.meeting(gate.condition, ordinary).to(value.device, _precision(value)))
        if not parts:
            return strength
        result = parts[0] * strength
        for part in parts[1:]:
            result = result * part
        # The head may be asked for the last tokens only.
        return result.expand(frame.batch, frame.tokens)[:, -value.shape[1] :, None]

    def _counts(self, frame: Frame, ordinary: Tensor | None, columns: int) -> PassCounts:
        """What the coefficients do in this pass, for the receipt."""
        gate = self.operation.gate
        factors = frame.factors(gate, self.operation.schedule)
        factors = (factors * frame.tokens if len(factors) == 1 else factors)[-columns:]
        phase = frame.open_phase(gate)[-columns:]
        special, positions = frame.ordinary(gate, ordinary), frame.between(gate)
        on = None
        if self.strengths is not None:
            on = [bool(s) for s in self.strengths] + [False] * (frame.rows - len(self.strengths))
        if all(mask is None for mask in (frame.real, special, positions, gate.condition)):
            rows_on = frame.batch if on is None else on.count(True) * frame.repeats
            return count_plain(frame, factors, phase, rows_on)
        rows = None if on is None else torch.tensor(on).repeat_interleave(frame.repeats)[:, None]
        condition_met = None if gate.condition is None else frame.meeting(gate.condition, ordinary)
        return count_masked(
            frame, factors, phase, rows=rows, special=special, positions=positions, condition=condition_met
        )

    def _row_strengths(self, frame: Frame, strengths: tuple[float, ...], value: Tensor) -> Float[Tensor, "batch 1"]:
        rows, repeats = frame.rows, frame.repeats

        def make() -> Tensor:
            batch_strengths = torch.tensor([*strengths, *[0.0] * (rows - len(strengths))], dtype=torch.float64)
            return batch_strengths.repeat_interleave(repeats)[:, None]

        return self._ready_on(value, ("rows", rows, repeats), make)


def _precision(value: Tensor) -> torch.dtype:
    return torch.float64 if value.dtype == torch.float64 else torch.float32
