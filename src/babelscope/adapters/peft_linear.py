"""A projection of which some outputs' rows, or some inputs' columns, are trained, as a layer of the `peft` library."""

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from babelscope.adapters.neuron_projections import NeuronProjection
from babelscope.axes import Float, Int64, Tensor
from babelscope.errors import MeasurementError
from babelscope.models.plain import plain_weight
from babelscope.upstream.kinds import conv1d
from babelscope.upstream.tuners import tuner_layer_class

log = logging.getLogger(__name__)
PREFIX = "NEURONS_"
"""In capitals: peft warns of an adapter whose name is a part of this, and `eu` is one of `neurons`."""
_Layer: Any = tuner_layer_class()


class NeuronLinear(nn.Module, _Layer):
    """x ↦ W x, and what the neurons' rows or columns of each adapter's change add; only `merge` writes to W.

    A merge casts W + change, summed in float64, once; `unmerge` puts the weights of before back bit for bit.
    """

    adapter_layer_names = (f"{PREFIX}change",)
    other_param_names = ("parts", "replaced")

    in_features: int
    out_features: int

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.NEURONS_change = nn.ParameterDict()
        self.parts: dict[str, NeuronProjection] = {}
        self.replaced: dict[str, tuple[Tensor, Tensor]] = {}
        """Rows of a merged adapter's neurons before the merge, and after it."""
        self._disable_adapters, self.merged_adapters = False, []
        linear: Any = self.get_base_layer()
        sizes: Any = linear.weight.shape if isinstance(linear, conv1d()) else (linear.in_features, linear.out_features)
        self.in_features, self.out_features = int(sizes[0]), int(sizes[1])

    @property
    def changes(self) -> nn.ParameterDict:
        """The change of each adapter's neurons, a row per neuron, in float32."""
        return self.NEURONS_change

    def add_adapter(self, name: str, part: NeuronProjection, *, trained: bool) -> None:
        """Give the projection another adapter, whose change is zero."""
        hidden: int = self.out_features if part.at_inputs else self.in_features
        change = torch.zeros(len(part.places), hidden, dtype=torch.float32, device=self.weight.device)
        self.changes[name], self.parts[name] = nn.Parameter(change), part
        self.set_adapter(self.active_adapters, inference_mode=not trained)

    def forward(
        self, x: Float[Tensor, "*rows inner"], *positional: Any, **keywords: Any
    ) -> Float[Tensor, "*rows outer"]:
        """The projection with the active adapters in it."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        out = self.base_layer(x, *positional, **keywords)
        if self.disable_adapters or self.merged:
            return out
        for name in self.active_adapters:
            if name in self.changes:
                part, rows = self.parts[name], self.changes[name].to(x.dtype)
                places = part.places.to(x.device)
                if part.at_inputs:
                    out = out + x.index_select(-1, places) @ rows
                else:
                    out = out.index_add(-1, places, F.linear(x, rows).to(out.dtype))
        return out

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add adapters to the weight, each cast(weight + change) summed in float64; those merged already are left out.

        adapter_names: none means the active ones. Raises MeasurementError where a weight would not be finite, whether
        `safe_merge` asks for that or not; PrerequisiteError for packed weights.
        """
        for name in self.active_adapters if adapter_names is None else adapter_names:
            if name not in self.changes or name in self.merged_adapters:
                continue
            rows, places = self._rows(name)
            before = rows[places].clone()
            after = (before.double() + self.changes[name].to(rows.device).double()).to(rows.dtype)
            if not bool(torch.isfinite(after).all()):
                raise MeasurementError(
                    f"adapter {name!r}: merged, weights of {self.parts[name].module} leave the range of {rows.dtype}; "
                    "expected finite ones; open the model in float32"
                )
            rows[places] = after
            self.replaced[name] = before, after
            self.merged_adapters.append(name)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take merged adapters out again, the last first: the weights of before, bit for bit.

        Where something else was added to these rows since, the change is subtracted instead, which rounds, and the log
        says so.
        """
        while self.merged_adapters:
            name = self.merged_adapters.pop()
            rows, places = self._rows(name)
            before, after = (part.to(rows.device, rows.dtype) for part in self.replaced.pop(name))
            live = rows[places]
            if not torch.equal(live, after):
                log.warning(
                    "%s was changed since adapter %r was merged: its change is subtracted, so that weights may differ "
                    "from those before in their last bits",
                    self.parts[name].module,
                    name,
                )
                before = (live.double() - (after.double() - before.double())).to(rows.dtype)
            rows[places] = before

    def _rows(self, name: str) -> tuple[Float[Tensor, "row hidden"], Int64[Tensor, " place"]]:
        """A view of the weight with a row an output, or an input, and which of its rows belong to the neurons."""
        base, part = self.get_base_layer(), self.parts[name]
        weight = plain_weight(base, what=part.module).detach()
        outputs_first = weight.T if isinstance(base, conv1d()) else weight
        return outputs_first.T if part.at_inputs else outputs_first, part.places.to(weight.device)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """No: `babelscope.adapters.peft.export_adapter` writes an exact LoRA."""
        return False
