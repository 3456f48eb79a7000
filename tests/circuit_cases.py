"""Minimal pairs of a toy task, and a model whose one head carries it."""

import torch
from conftest import tiny_model

from babelscope.languages import Language
from babelscope.probes.circuits.task_prompts import TaskLine

ROLES = ("start", "noun", "end")


def lines_of(nouns, language="en", answer="x", foil="y"):
    return [
        TaskLine("toy", Language(language), ROLES, ("the ", a, " is"), ("the ", b, " is"), answer, foil)
        for a, b in nouns
    ]


EN = lines_of([("cat", "cats"), ("cow", "cows"), ("bee", "bees"), ("hen", "hens"), ("ant", "ants"), ("dog", "dogs")])
FI = lines_of(
    [
        ("kissa", "koirat"),
        ("lehma", "hevot"),
        ("sika", "kanat"),
        ("orava", "ketut"),
        ("hylje", "karhut"),
        ("ahma", "ilvet"),
    ],
    "fi",
)


def planted(head=(1, 2), neuron=None):
    """A model that moves anything from token to token in one head only; its MLPs act in one neuron, or not at all."""
    model = tiny_model("llama", dtype=torch.float64)
    with torch.no_grad():
        model.lm_head.weight.mul_(50)
        for number, layer in enumerate(model.model.layers):
            heads = layer.self_attn.o_proj.weight.view(32, 4, 8)
            heads[:, [at for at in range(4) if (number, at) != head]] = 0
            layer.self_attn.q_proj.weight.zero_()  # it looks at all tokens alike
            down = layer.mlp.down_proj.weight
            down[:, [at for at in range(48) if (number, at) != neuron]] = 0
    return model
