"""What each site of a layer must hold, worked out from the sites before it, the weights and the family's table."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from babelscope.axes import Tensor
from babelscope.models.hooks import expert_weights, first_argument
from babelscope.models.layout import Layout
from babelscope.sites import NEURON_SITES, At, Site
from babelscope.upstream.names import attribute

Seen = dict[str, Tensor]
"""Values of one layer, [batch, token, …]: sites by name; the chosen experts as "routes"; and what modules take and give
as "<path>:in" and "<path>:out"."""


class Sum(NamedTuple):
    """What a site must hold."""

    name: str
    at: At
    expected: Tensor
    start: Tensor | None = None
    """What was there before the step, in the sums of the stream."""


def sites_of_layer(layout: Layout, index: int) -> list[At]:
    """The places that a layer has."""
    family, places = layout.family, ["resid_in", "resid_mid", "mlp_gate", "mlp_inner", "mlp_out", "resid_out", "router"]
    lacking = {
        "resid_mid": family.parallel,
        "mlp_gate": not (family.act or family.interleaved),
        "router": not layout.n_experts,
    }
    if index in layout.without_experts:
        lacking |= dict.fromkeys((*NEURON_SITES, "router"), True)
    present: Any = [at for at in places if not lacking.get(at, False)]
    return present if index in layout.without_attention else [*present, "attn_heads", "attn_out"]


def watch_layer(stack: ExitStack, layout: Layout, index: int, values: Seen) -> None:
    """Look at every site of a layer, written back as copies, and at what its sums need beside them."""
    names, layer = layout.family, layout.layer(index)
    for at in sites_of_layer(layout, index):
        stack.enter_context(layout.edit_routed(Site(index, at), partial(_keep, values, at)))
    if index in layout.without_experts:
        return
    inputs = (names.experts or names.up,)
    outputs = (names.experts, names.shared, names.shared_gate, names.mixer if index in layout.without_attention else "")
    for path in dict.fromkeys((*inputs, *outputs)):
        if path:
            hook = partial(_pass, values, path, path == names.experts)
            stack.callback(layer.get_submodule(path).register_forward_hook(hook, with_kwargs=True).remove)


def _keep(values: Seen, at: At, value: Tensor, routes: Tensor | None) -> Tensor:
    values[at] = value.clone()
    if routes is not None:
        values["routes"] = routes
    return value.clone()


def _pass(values: Seen, path: str, routed: bool, _: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
    value = output[0] if isinstance(output, tuple) else output
    values[f"{path}:in"] = first_argument(args, kwargs).clone()
    values[f"{path}:out"] = value.clone()
    if routed:
        values["weights"] = expert_weights(args, kwargs)


def sums(layout: Layout, index: int, values: Seen) -> Iterator[Sum]:
    """The stream's sums, and the attention's output projection."""
    names, layer, factor = layout.family, layout.layer(index), layout.factor()

    lacks = index in layout.without_attention
    if not lacks:
        heads = layer.get_submodule(names.heads_out)(values["attn_heads"].flatten(2))
        yield Sum("attn_out = heads_out(attn_heads)", "attn_out", heads)
    attended = values[f"{names.mixer}:out"] if lacks else through(layer, names.attn_norm, values["attn_out"])
    scale = f"{names.scale} · " if names.scale else ""
    what = scale + _named(names.attn_norm, names.mixer if lacks else "attn_out")
    mlp_term = scale + _named(names.mlp_norm, "mlp_out")
    start, added = values["resid_in"], factor * through(layer, names.mlp_norm, values["mlp_out"])
    if names.parallel:
        name = f"resid_out = resid_in + {what} + {mlp_term}"
        yield Sum(name, "resid_out", start + factor * attended + added, start)
        return
    middle = through(layer, names.mid_after, through(layer, names.attn_base, start) + factor * attended)
    yield Sum(f"resid_mid = resid_in + {what}", "resid_mid", middle, start)
    out = through(layer, names.out_after, through(layer, names.mlp_base, values["resid_mid"]) + added)
    yield Sum(f"resid_out = resid_mid + {mlp_term}", "resid_out", out, values["resid_mid"])


def through(layer: nn.Module, name: str, value: Tensor) -> Tensor:
    """A value through one of a layer's modules; as it is where the name is empty."""
    return layer.get_submodule(name)(value) if name else value


def _named(norm: str, at: str) -> str:
    return f"{norm}({at})" if norm else at


def mlp_values(layout: Layout, index: int, values: Seen) -> Iterator[Sum]:
    """The MLP's neurons and output, from its input and the rows of `Layout.neuron_rows`."""
    if index in layout.without_experts:
        return
    names, layer = layout.family, layout.layer(index)
    rows, biases = layout.neuron_rows(index), layout.neuron_biases(index)
    x = values[f"{names.experts or names.up}:in"]
    shape = values["mlp_out"].shape[:2]
    x = x.reshape(*shape, x.shape[-1])
    routes = values.get("routes")
    up, gate = (_project(x, rows.get(role), biases.get(role), routes) for role in ("up", "gate"))
    before = up if gate is None else gate
    if names.interleaved:
        experts = layer.get_submodule(names.experts)
        limit, slope = attribute(experts, "experts.limit"), attribute(experts, "experts.slope")
        before, up = before.clamp(max=limit), up.clamp(-limit, limit) + 1
        yield Sum("mlp_gate = glu(gate · x)", "mlp_gate", before * torch.sigmoid(before * slope))
    elif names.act:
        yield Sum("mlp_gate = act(gate · x)", "mlp_gate", layout.act(index)(before))
    if "mlp_gate" in values:
        inner = values["mlp_gate"] * up if layout.gated else values["mlp_gate"]
        inner = layer.get_submodule(names.inner_norm)(inner) if names.inner_norm else inner
        yield Sum("mlp_inner = mlp_gate · (up · x)" if layout.gated else "mlp_inner = mlp_gate", "mlp_inner", inner)
    yield Sum("mlp_out = Σ mlp_inner · down", "mlp_out", _output(layout, index, values, rows["down"]))
    if names.router:
        router: Any = layer.get_submodule(names.router)
        bias = router.bias if names.interleaved else None
        yield Sum("router = router · x", "router", F.linear(x, router.weight, bias))


def _project(x: Tensor, rows: Any, bias: Any, routes: Tensor | None) -> Any:
    if rows is None:
        return None
    if routes is None:
        return F.linear(x, rows[0], None if bias is None else bias[0])
    out = torch.einsum("btd,btknd->btkn", x, rows[routes])
    return out if bias is None else out + bias[routes]


def _output(layout: Layout, index: int, values: Seen, down: Tensor) -> Tensor:
    names, layer = layout.family, layout.layer(index)
    module: Any = layer.get_submodule(names.down)
    if not names.experts:
        out = values["mlp_inner"] @ down[0]
        return out if module.bias is None else out + module.bias
    routes = values["routes"]
    by_expert = torch.einsum("btkn,btknd->btkd", values["mlp_inner"], down[routes])
    by_expert = by_expert + module.down_proj_bias[routes] if names.interleaved else by_expert
    out = torch.einsum("btk,btkd->btd", values["weights"].reshape(routes.shape).to(by_expert.dtype), by_expert)
    if not names.shared:
        return out
    shared = values[f"{names.shared}:out"]
    if names.shared_gate:
        shared = torch.sigmoid(values[f"{names.shared_gate}:out"]) * shared
    return out + shared.reshape(out.shape)
