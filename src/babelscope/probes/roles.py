"""Language-specific, related and general neurons by depth, and how they come about during training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from babelscope.artifacts import NeuronSet, Observation
from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.controls import Evidence
from babelscope.controls.agreement import compare_masks
from babelscope.controls.labels import permuted_labels
from babelscope.controls.shards import Shards, generator_of
from babelscope.corpus import Texts
from babelscope.errors import SelectionError
from babelscope.languages import Language
from babelscope.recording import observe

CLASSES = ("specific", "related", "general")
"""Classes 1, 2 and 3: active in one language, in some, in all."""


class Classified(Protocol):
    """What a classifier returns; `babelscope.neurons.ClassifiedNeurons` is one."""

    @property
    def sets(self) -> NeuronSet:
        """Neurons by language."""
        ...

    @property
    def classes(self) -> Int64[Tensor, "layer neuron"]:
        """0 none, 1 specific, 2 related, 3 general."""
        ...


Classify = Callable[..., Classified]
"""Called with an Observation, or with (active, tokens, languages); `babelscope.select_entropy_lambda` is one."""
Open = Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]
"""Opens one checkpoint; called once, so that one model is in memory at a time."""


class RoleShare(NamedTuple):
    """Neurons of one class in one block of layers."""

    block: int
    """From 0, the bottom."""
    layers: tuple[int, ...]
    role: str
    """Of CLASSES."""
    neurons: int
    share: float
    """Of the block's neurons."""
    null: float
    """Mean share with language labels permuted by shard."""
    null_high: float
    """Largest of those."""
    draws: int
    seed: int

    def row(self, claim: str = "") -> Evidence:
        """As evidence; `claim` is put before."""
        return Evidence(
            claim=f"{claim}{self.role} neurons in layers {self.layers[0]}–{self.layers[-1]}",
            language="",
            control="language labels permuted by shard",
            n=self.neurons,
            estimate=self.share,
            draws=self.draws,
            seed=self.seed,
            note=f"share of the block's neurons, n of this class; null {self.null:.4f}, at most {self.null_high:.4f}",
        )


class TrackedRoles(NamedTuple):
    """Roles at one checkpoint, and what its sets share with those of the last."""

    checkpoint: str
    shares: list[RoleShare]
    kept: dict[Language, float]
    """Jaccard index with the last checkpoint's set, corrected for chance: 0 chance … 1 equal; NaN for empty sets."""


@dataclass(frozen=True, eq=False)
class RoleHistory:
    """Roles over the checkpoints of a training run, in the order given."""

    steps: tuple[TrackedRoles, ...]

    def rows(self) -> list[Evidence]:
        """One row a checkpoint, block and class, and one a checkpoint and language."""
        found = [share.row(f"{step.checkpoint}: ") for step in self.steps for share in step.shares]
        return found + [
            Evidence(
                claim=f"{step.checkpoint}: neurons shared with the last checkpoint",
                language=tag,
                control="sets of the same sizes drawn by layer",
                n=len(self.steps),
                estimate=value,
                note="Jaccard index corrected for chance; n in checkpoints",
            )
            for step in self.steps
            for tag, value in step.kept.items()
        ]


def role_shares(
    observation: Observation,
    classify: Classify,
    *,
    blocks: int = 4,
    parallel: bool = True,
    draws: int = 9,
    at: str = "mlp_gate",
    seed: int = 0,
) -> list[RoleShare]:
    """Count specific, related and general neurons in each block of layers, bottom to top.

    classify: `babelscope.select_entropy_lambda`, or that with other parameters by functools.partial.
    blocks: layers are cut into so many parts of nearly equal size.
    parallel: whether shards hold the same sentences in every language; see `babelscope.controls.shuffled_labels`.
    Control: the same classifier on counts whose language labels are permuted by shard. It takes as many neurons by
    its score, so what changes is how they fall on classes and layers.
    Raises SelectionError for more blocks than layers, MeasurementError for an observation without shards.
    """
    classes = classify(observation).classes
    n_layers = classes.shape[0]
    if not 1 <= blocks <= n_layers:
        raise SelectionError(f"{blocks} blocks for {n_layers} layers; expected 1 to {n_layers}; correct it")
    parts = torch.tensor_split(torch.arange(n_layers), blocks)
    shards, generator, drawn = Shards.read(observation, at, fewest=2), generator_of(seed), []
    for _ in range(draws):
        active, tokens = shards.relabelled(permuted_labels(shards, generator, parallel))
        drawn.append(block_shares(classify(active, tokens, observation.languages).classes, parts))
    null = torch.stack(drawn) if drawn else torch.full((1, blocks, 3), float("nan"), dtype=torch.float64)
    share = block_shares(classes, parts)
    return [
        RoleShare(
            block=block,
            layers=tuple(layers.tolist()),
            role=role,
            neurons=int((classes[layers] == number + 1).sum()),
            share=float(share[block, number]),
            null=float(null[:, block, number].mean()),
            null_high=float(null[:, block, number].max()),
            draws=draws,
            seed=seed,
        )
        for block, layers in enumerate(parts)
        for number, role in enumerate(CLASSES)
    ]


def block_shares(classes: Int64[Tensor, "layer neuron"], parts: tuple[Tensor, ...]) -> Float64[Tensor, "block role"]:
    """Share of each block's neurons in each class."""
    return torch.stack(
        [torch.stack([(classes[layers] == number).double().mean() for number in (1, 2, 3)]) for layers in parts]
    )


def track_roles(
    checkpoints: Mapping[str, Open],
    texts: Texts,
    classify: Classify,
    *,
    blocks: int = 4,
    tokens_per_language: int | None = 10_000,
    shards: int = 32,
    parallel: bool = True,
    draws: int = 9,
    seed: int = 0,
) -> RoleHistory:
    """The same roles at every checkpoint of a training run, from the same text.

    checkpoints: name → a call that opens it, in order of training; each is opened once and let go.
    kept: agreement of every language's set with that of the last checkpoint. The names are the run's own.
    Raises SelectionError for fewer than two checkpoints.
    """
    if len(checkpoints) < 2:
        raise SelectionError(f"{len(checkpoints)} checkpoint came; expected at least two, in order; name more")
    found: list[tuple[str, list[RoleShare], NeuronSet]] = []
    for name, open_one in checkpoints.items():
        model, tokenizer = open_one()
        observation = observe(model, tokenizer, texts, tokens_per_language=tokens_per_language, shards=shards)
        roles = role_shares(observation, classify, blocks=blocks, parallel=parallel, draws=draws, seed=seed)
        found.append((name, roles, classify(observation).sets))
    last: Bool[Tensor, "language layer neuron"] = found[-1][2].mask()
    return RoleHistory(
        tuple(
            TrackedRoles(
                name, roles, dict(zip(sets.languages, compare_masks(sets.mask(), last).corrected.tolist(), strict=True))
            )
            for name, roles, sets in found
        )
    )
