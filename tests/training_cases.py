"""Text, sets and rows for the tests of training."""

import torch
from conftest import tiny_tokenizer

from babelscope import NeuronSet, layout_of, origin_of
from babelscope.adaptation import Material
from babelscope.languages import Language
from babelscope.subnetworks import Rows

TEXT = [f"etxe {i} handia da eta {'mendi ' * (i % 5)}berdea" for i in range(40)]
OTHERS = {"en": [f"the house {i} is big and green" for i in range(30)], "fi": [f"talo {i} on iso" for i in range(30)]}


def some_neurons(model, counts=(2, 0, 5), language="eu", seed=0):
    """Uneven counts per layer; experts' neurons where there are experts."""
    layout = layout_of(model)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(1, layout.n_layers, layout.width("mlp_gate"), dtype=torch.bool)
    for layer, count in enumerate(counts):
        mask[0, layer, torch.randperm(mask.shape[2], generator=generator)[:count]] = True
    return NeuronSet.from_mask(
        mask,
        torch.zeros(mask.shape),
        origin=origin_of(model, None),
        languages=(Language(language),),
        at="mlp_gate",
        method="random",
        parameters={},
    )


def random_rows(seed=0, batch=3, length=24):
    ids = torch.randint(3, 300, (batch, length), generator=torch.Generator().manual_seed(seed))
    scored = torch.ones_like(ids, dtype=torch.bool)
    scored[:, 0] = False
    return Rows(ids, torch.arange(length).expand_as(ids), scored, torch.ones_like(scored))


def relative(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


def material(model, **options):
    settings = {
        "language": "eu",
        "documents": TEXT[10:],
        "dev": TEXT[:5],
        "test": {"eu": TEXT[5:10], **{tag: lines[:5] for tag, lines in OTHERS.items()}},
        "max_length": 32,
    }
    return Material.prepare(model, tiny_tokenizer(), **{**settings, **options})


def state_of(model):
    """A copy of every tensor of a model."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
