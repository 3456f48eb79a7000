"""Prove on a model that its family's table is right: every site adds up to the next, and looking changes no bit."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple
from weakref import WeakSet

import torch
from torch import nn

from babelscope.axes import Int, Tensor
from babelscope.errors import SiteError
from babelscope.models.families import ADDED, PAGE
from babelscope.models.family_sums import Seen, mlp_values, sums, watch_layer
from babelscope.models.finding import find_layout
from babelscope.models.layout import Layout
from babelscope.models.modes import eval_mode
from babelscope.models.plain import CausalModel, check_model
from babelscope.sites import Site
from babelscope.upstream.config import config_value
from babelscope.upstream.forward import run_model
from babelscope.upstream.names import attribute

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""Share of what a step adds by which its sum may be off, by dtype; a wrong table is off by about 1."""


class Identity(NamedTuple):
    """One sum that must hold at one layer, or at the model's end."""

    name: str
    """Such as "resid_mid = resid_in + attn_out"."""
    layer: int | None
    """None for the logits."""
    difference: float
    """Root mean square of what came minus what was expected."""
    allowed: float
    """Root mean square that rounding explains."""

    @property
    def holds(self) -> bool:
        """Whether the two sides are equal but for rounding; never true of NaN."""
        return self.difference <= self.allowed


def check_family(model: CausalModel) -> tuple[Identity, ...]:
    """Every identity of a model's table, in every layer, on fourteen random tokens.

    resid_in = the layer before's resid_out; attn_out = heads_out(attn_heads); resid_mid = resid_in + attn_out, and
    resid_out = resid_mid + mlp_out, with the norms and factors of the table (side by side: resid_out = resid_in +
    attn_out + mlp_out, and mlp_out does not see attn_out); mlp_gate and mlp_inner from the MLP's input and
    `neuron_rows`; mlp_out = Σ mlp_inner · down, over the chosen experts where there are some; logits from the last
    resid_out; logits equal bit for bit while every site is looked at and written back.
    Costs three forward passes. Returns the identities, all of which hold.
    Raises SiteError that names those that fail and by how much, or if a site is missing.
    """
    layout = find_layout(model)
    with torch.no_grad(), eval_mode(model):
        identities = tuple(_identities(layout))
    failed = [identity for identity in identities if not identity.holds]
    if failed:
        worst = {identity.name: identity for identity in sorted(failed, key=lambda entry: entry.difference)}
        text = "; ".join(
            f"{name} fails{'' if failure.layer is None else f' in layer {failure.layer}'} by {failure.difference:.3g} "
            f"(rounding explains {failure.allowed:.1g})"
            for name, failure in worst.items()
        )
        raise SiteError(
            f"the table of model type {model.config.model_type!r} does not fit: {text}; expected every identity to "
            f"hold; change the fields of the modules named, see {PAGE}"
        )
    return identities


def _identities(layout: Layout) -> Iterator[Identity]:
    model: Any = layout.model
    rows = min(attribute(model, "model.embedding")().weight.shape[0], layout.width("logits"))
    ids = torch.randint(rows, (2, 7), generator=torch.Generator().manual_seed(0)).to(
        layout.device_of(Site(None, "embed"))
    )
    plain = run_model(model, ids)
    layers: list[Seen] = [{} for _ in range(layout.n_layers)]
    with ExitStack() as stack:
        for index in range(layout.n_layers):
            watch_layer(stack, layout, index, layers[index])
        for site in (Site(None, "embed"), Site(None, "logits")):
            stack.enter_context(layout.edit(site, torch.clone))
        looked = run_model(model, ids)
    changed = float((looked != plain).double().mean())
    yield Identity("logits while every site is looked at = logits", None, changed, 0.0)
    for index, values in enumerate(layers):
        before = layers[index - 1]["resid_out"].to(values["resid_in"].device) if index else values["resid_in"]
        yield _identity("resid_in = resid_out of the layer before", index, values["resid_in"], before)
        for name, at, expected, start in (*sums(layout, index, values), *mlp_values(layout, index, values)):
            yield _identity(name, index, values[at], expected, start)
    yield _identity("logits from the last resid_out", None, plain, layout.logits(layout.final(layers[-1]["resid_out"])))
    if layout.family.parallel:
        yield from _blind(layout, ids, layers)


def _blind(layout: Layout, ids: Int[Tensor, "batch token"], layers: list[Seen]) -> Iterator[Identity]:
    """Side by side, the MLP of the first layer with attention must not see what that attention gives."""
    index = next(index for index in range(layout.n_layers) if index not in layout.without_attention)
    mlp_outputs: list[Tensor] = []
    with (
        layout.edit(Site(index, "attn_out"), lambda value: value + 1),
        layout.watch(Site(index, "mlp_out"), lambda value, *_: mlp_outputs.append(value.clone())),
    ):
        run_model(layout.model, ids)
    yield _identity("mlp_out does not see attn_out", index, mlp_outputs[-1], layers[index]["mlp_out"])


def _identity(name: str, layer: int | None, value: Tensor, expected: Tensor, start: Tensor | None = None) -> Identity:
    """start: what was there before the step, whose rounding is the stream's and not the step's."""
    wide, expected_value = value.double(), expected.to(value.device).double()
    step = expected_value if start is None else expected_value - start.to(value.device).double()
    allowed = TOLERANCE[value.dtype] * rms(step) + 8 * torch.finfo(value.dtype).eps * rms(expected_value)
    return Identity(name, layer, rms(wide - expected_value), allowed)


def rms(value: Tensor) -> float:
    """Root mean square."""
    return float(value.pow(2).mean().sqrt())


_PROVEN: WeakSet[nn.Module] = WeakSet()
"""Models of added families whose tables were tried."""


def layout_of(model: CausalModel) -> Layout:
    """Find a model's sites, and prove that each exists.

    The table of a family from `add_family` is tried by `check_family` on each of its models, once.
    Raises SiteError for a family without a table, naming the way to give it one; for a multimodal wrapper, whose text
    part `text_part` gives; and for a body without its head. PrerequisiteError for a compiled or wrapped model.
    """
    check_model(model)
    if config_value(model.config, "type") in ADDED and model not in _PROVEN:
        check_family(model)
        _PROVEN.add(model)
    return find_layout(model)
