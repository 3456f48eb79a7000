"""Random deltas, and the sum that a model must hold, worked out in numpy."""

import numpy as np
import torch

from babelscope import layout_of, origin_of
from babelscope.languages import Language
from babelscope.subnetworks.delta import Delta


def random_delta(model, *, share=0.2, seed=0, language="eu", size=0.1):
    """Changes of a random share of every layer's neurons, another number in each layer."""
    layout, generator = layout_of(model), torch.Generator().manual_seed(seed)
    width = layout.width("mlp_gate")
    chosen = torch.rand(layout.n_layers, width, generator=generator) < share
    count = int(chosen.sum())
    rows = {role: size * torch.randn(count, layout.d_hidden, generator=generator) for role in layout.neuron_rows(0)}
    return Delta(
        origin=origin_of(model, None),
        languages=(Language(language),),
        n_neurons=width,
        offsets=torch.cat([torch.zeros(1, dtype=torch.int64), chosen.sum(dim=1).cumsum(0)]),
        indices=chosen.nonzero()[:, 1].to(torch.int32),
        parameters={"steps": 3, "loss": 1.5},
        **rows,
    )


def bits(model):
    """Every parameter of a model, as bits, copied."""
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return {
        name: weight.detach().clone().view(kinds[weight.element_size()]) for name, weight in model.named_parameters()
    }


def same_bits(before, model):
    after = bits(model)
    return all(torch.equal(before[name], after[name]) for name in before)


def to_dtype(values, dtype):
    """float64 numpy → the model's dtype, as torch casts: by way of float32."""
    return torch.from_numpy(values.astype(np.float32)).to(dtype)


def expected_rows(base, deltas, scales=None):
    """{(layer, role): [neuron, hidden]} of cast(base + Σ scale · delta), neuron by neuron in numpy float64.

    base: a model in which nothing is applied. The order of the sum is the order of the deltas' digests.
    """
    layout, found = layout_of(base), {}
    pairs = sorted(zip(deltas, scales or [1.0] * len(deltas), strict=True), key=lambda pair: pair[0].digest)
    for layer in range(layout.n_layers):
        for role, view in layout.neuron_rows(layer).items():
            rows = view.detach().flatten(0, 1)
            total, moved = rows.double().numpy().copy(), np.zeros(len(rows), dtype=bool)
            for delta, scale in pairs:
                start, stop = int(delta.offsets[layer]), int(delta.offsets[layer + 1])
                for place in range(start, stop):
                    total[int(delta.indices[place])] += scale * delta.rows[role][place].double().numpy()
                    moved[int(delta.indices[place])] = True
            mask = torch.from_numpy(moved)[:, None]
            found[layer, role] = torch.where(mask, to_dtype(total, rows.dtype), rows)
    return found


def holds(model, expected):
    """Whether each weight of the MLPs has exactly these bits."""
    layout = layout_of(model)
    return all(
        torch.equal(layout.neuron_rows(layer)[role].detach().flatten(0, 1), rows)
        for (layer, role), rows in expected.items()
    )
