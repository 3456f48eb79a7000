"""Every way of adapting a model that is compared here, as a student of one training loop."""

import math
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import torch

from babelscope.adaptation.lottery_ticket import ticket_names
from babelscope.adaptation.source_shield import SourceShield
from babelscope.artifacts import NeuronSet
from babelscope.axes import Bool, Tensor
from babelscope.controls import layer_matched
from babelscope.errors import ArtifactError, PrerequisiteError, SelectionError, SiteError
from babelscope.models import Layout
from babelscope.subnetworks import RATE, Bank, Dense, Student, Subnetwork, ffn_names, parameter_names
from babelscope.subnetworks.forms import Form
from babelscope.subnetworks.frozen_mlp import Recompute

Method = Literal[
    "subnetwork", "random", "full", "ffn", "lora", "lora-attention", "shira", "lt-sft", "ssu", "sparse-forward"
]
METHODS: tuple[Method, ...] = get_args(Method)
OF_NEURONS = ("subnetwork", "random")
"""Methods that train a NeuronSet's weights."""
OF_PARAMETERS = ("full", "ffn", "lt-sft", "ssu", "sparse-forward")
"""Methods that move the model's own parameters, which must be float32 or more for it."""
OF_PEFT = ("lora", "lora-attention", "shira")
"""Methods that train an adapter of the peft library."""
RATE_SHARES: dict[Method, float] = {"full": 0.1, "ffn": 0.1, "ssu": 0.1}
"""Of the usual learning rate of neurons, for methods that move most values at once; 1 for the others.

In the study of every method (docs/measurements.md) the best rate of neurons broke the bundled model where all
parameters were trained by it, a third of it halved what Gemma 3 270M gains, and a tenth gained on both.
"""


def usual_rate_of(weights: Iterable[Tensor], method: Method | None = None) -> float:
    """The learning rate where none is given: RATE times the root mean square of `weights`, by the method's share."""
    values = [weight.detach().double() for weight in weights]
    squares = sum(float(weight.square().sum()) for weight in values)
    share = 1.0 if method is None else RATE_SHARES.get(method, 1.0)
    return share * RATE * math.sqrt(squares / sum(weight.numel() for weight in values))


def build_student(
    method: Method,
    layout: Layout,
    *,
    neurons: NeuronSet | None = None,
    rank: int = 8,
    masks: Mapping[str, Bool[Tensor, "..."]] | None = None,
    shield: SourceShield | None = None,
    decay: float = 0.0,
    form: Form = "auto",
    recompute: Recompute = "nothing",
    seed: int = 0,
) -> Student:
    """A student of this method.

    subnetwork: the weights of `neurons`. random: those of as many other neurons in each layer, drawn with `seed`.
    full: all parameters. ffn: the weights of all MLPs. lora, lora-attention, shira: peft's, of this rank, on the MLPs
    or the attention. sparse-forward: the MLP weights of `neurons`, all other MLP neurons being 0 in every pass, in
    training and measurement alike, as neuron specialization trains (arXiv:2404.11201). lt-sft: the candidates of
    `ticket_names` where `masks` says so; without masks its first, dense phase. ssu: the matrices, and the tables of
    tokens, but for what `shield` holds still.
    decay: towards the base weights, of all methods but peft's. form, recompute: of the methods of neurons, as in
    `train_subnetwork`.
    Raises SelectionError where a method of neurons came without them, PrerequisiteError where peft is wanted and not
    installed, and for a setting that the method does not have.
    """
    check_settings(method, decay=decay, form=form, recompute=recompute, shield=shield)
    if method in OF_NEURONS:
        if neurons is None:
            raise SelectionError(f"method {method!r} came without neurons; expected a set of one language; give one")
        chosen = neurons if method == "subnetwork" else random_like(neurons, seed=seed)
        return Subnetwork(Bank.of(layout, chosen), form=form, recompute=recompute, decay=decay)
    match method:
        case "full":
            return Dense(layout, parameter_names(layout), decay=decay)
        case "ffn":
            return Dense(layout, ffn_names(layout), decay=decay)
        case "sparse-forward":
            return Dense(layout, ffn_names(layout), decay=decay, silenced=other_neurons_of(layout, neurons))
        case "lt-sft":
            return Dense(layout, ticket_names(layout), masks=masks, decay=decay)
        case "ssu":
            assert shield is not None
            masks = shield.masks(layout)
            return Dense(layout, tuple(masks), masks=masks, decay=decay)
        case _:
            return build_adapter(method, layout, rank=rank, seed=seed)


def other_neurons_of(layout: Layout, neurons: NeuronSet | None) -> Bool[Tensor, "layer neuron"]:
    """All neurons but those of a set of one language; raises SelectionError for another set, SiteError for experts."""
    if neurons is None or len(neurons.languages) != 1 or not len(neurons.indices):
        what = (
            "no set"
            if neurons is None
            else f"a set of {len(neurons.languages)} languages, {len(neurons.indices)} neurons"
        )
        raise SelectionError(f"sparse-forward came with {what}; expected a set of one language; give sets[language]")
    if layout.n_experts:
        raise SiteError("sparse-forward came for a mixture of experts; expected a dense model; take the subnetwork")
    if (neurons.n_layers, neurons.n_neurons) != (layout.n_layers, layout.d_neuron):
        raise ArtifactError(
            f"neurons of {neurons.n_layers} layers of {neurons.n_neurons} came; expected {layout.n_layers} of "
            f"{layout.d_neuron}; the set is of another model"
        )
    return ~neurons.mask()[0]


def check_settings(
    method: Method, *, decay: float, form: Form, recompute: Recompute, shield: SourceShield | None
) -> None:
    """Raise PrerequisiteError for a setting that a method does not have, so that none is passed over."""
    if (method == "ssu") != (shield is not None):
        raise PrerequisiteError(
            f"method {method!r} came {'without' if shield is None else 'with'} a SourceShield; expected one for ssu "
            "alone; make it by SourceShield.of(model, tokenizer, source), or leave it out"
        )
    if method not in OF_NEURONS and (form, recompute) != ("auto", "nothing"):
        raise PrerequisiteError(
            f"method {method!r} came with form {form} and recompute {recompute}; expected them for "
            f"{' and '.join(OF_NEURONS)} only; leave them out"
        )
    if method in OF_PEFT and decay:
        raise PrerequisiteError(f"method {method!r} came with decay {decay}; peft's adapters have none; leave it out")


def build_adapter(method: Method, layout: Layout, *, rank: int, seed: int) -> Student:
    """One of peft's adapters; raises PrerequisiteError where peft is not installed."""
    try:
        from babelscope.adapters.peft_training import PeftStudent
    except ImportError as err:
        raise PrerequisiteError(
            f"method {method!r} needs the peft library, which is not installed; pip install 'babelscope[peft]'"
        ) from err
    if rank < 1:
        raise PrerequisiteError(f"rank {rank} came for {method!r}; expected 1 or more; correct it")
    if method == "shira":
        return PeftStudent.shira(layout, rank=rank, where="mlp", seed=seed)
    return PeftStudent.lora(layout, rank=rank, where="attention" if method == "lora-attention" else "mlp", seed=seed)


def random_like(neurons: NeuronSet, *, seed: int) -> NeuronSet:
    """As many neurons in each layer, drawn from those that are not in the set."""
    mask = layer_matched(neurons, draws=1, seed=seed)[0]
    return NeuronSet.from_mask(
        mask,
        torch.zeros(mask.shape),
        origin=neurons.origin,
        languages=neurons.languages,
        at=neurons.at,
        method="layer-matched random",
        parameters={"like": neurons.method, "seed": seed},
    )


def strongest(sets: NeuronSet, language: str, count: int, *, lowest: bool = True) -> NeuronSet:
    """The `count` neurons of a language with the lowest score (or highest), ties by layer and index.

    Raises SelectionError where the language has fewer.
    """
    subset = sets[language]
    if count < 1 or len(subset.indices) < count:
        raise SelectionError(
            f"{language}: {len(subset.indices)} neurons in the set; expected at least {max(1, count)} to take {count} "
            "of; select with a larger top_rate"
        )
    order = torch.argsort(subset.score if lowest else -subset.score, stable=True)[:count]
    is_kept = torch.zeros(len(subset.indices), dtype=torch.bool)
    is_kept[order] = True
    score = torch.zeros(1, subset.n_layers, subset.n_neurons)
    mask = subset.mask()
    score[mask] = subset.score
    mask[mask.clone()] = is_kept
    return NeuronSet.from_mask(
        mask,
        score,
        origin=subset.origin,
        languages=subset.languages,
        at=subset.at,
        method=subset.method,
        parameters={**subset.parameters, "strongest": count},
    )
