"""Language-specific, related and general neurons by depth, and how they come about during training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from babelscope.artifacts import NeuronSet, Observation
from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.controls import FEWEST_SHARDS, Evidence, neuron_shards
from babelscope.controls.agreement import compare_masks
from babelscope.corpus import Texts
from babelscope.errors import SelectionError
from babelscope.languages import Language
from babelscope.neurons.rules.entropy_lambda import CLASSES
from babelscope.probes.units.model_parts import ModelParts, class_profile, cut_profile, model_parts
from babelscope.recording import observe


@runtime_checkable
class Classified(Protocol):
    """What a classifier returns; `babelscope.neurons.ClassifiedNeurons` is one."""

    @property
    def sets(self) -> NeuronSet:
        """Neurons by language."""
        ...

    @property
    def classes(self) -> Int64[Tensor, "layer neuron"]:
        """Of the selected neurons: 0 none, 1 specific, 2 related, 3 general."""
        ...

    @property
    def above(self) -> Int64[Tensor, "layer neuron"]:
        """Of every neuron above the bar somewhere, selected or not."""
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
    above: int
    """Neurons of this class among all above the bar, selected or not."""
    above_share: float
    """Of the block's neurons."""
    above_null: float
    """As `null`, among all above the bar."""
    above_null_high: float
    forbidden: bool
    """Whether the rule selects none of this class whatever the counts, as a searched penalty does general neurons."""

    def rows(self, claim: str = "") -> list[Evidence]:
        """As evidence, of the selected neurons and of all above the bar; `claim` is put before."""
        place = f"neurons in layers {self.layers[0]}–{self.layers[-1]}"
        shared = {
            "language": "",
            "control": "language labels permuted by shard",
            "draws": self.draws,
            "seed": self.seed,
        }
        unit = "share of the block's neurons, n of this class"
        selected = Evidence(
            claim=f"{claim}{self.role} {place}, of those selected",
            n=self.neurons,
            estimate=self.share,
            note=f"{unit}; null {self.null:.4f}, at most {self.null_high:.4f}"
            + ("; 0 by construction: the penalty is chosen so that none is selected" if self.forbidden else ""),
            **shared,
        )
        all_neurons = Evidence(
            claim=f"{claim}{self.role} {place}, of all above the bar",
            n=self.above,
            estimate=self.above_share,
            note=f"{unit}, selected or not; null {self.above_null:.4f}, at most {self.above_null_high:.4f}",
            **shared,
        )
        return [selected, all_neurons]


class TrackedRoles(NamedTuple):
    """Roles at one checkpoint, and what its sets share with those of the last."""

    checkpoint: str
    shares: list[RoleShare]
    kept: dict[Language, float]
    """Jaccard index with the last checkpoint's set, corrected for chance: 0 chance … 1 equal; NaN for empty sets."""


@dataclass(frozen=True, eq=False)
class RoleHistory:
    """Roles over the checkpoints of a training run, in the order given."""

    __repr__ = shown_by()

    steps: tuple[TrackedRoles, ...]

    def rows(self) -> list[Evidence]:
        """Two rows per checkpoint, block and class, and one per checkpoint and language."""
        shares = [row for step in self.steps for share in step.shares for row in share.rows(f"{step.checkpoint}: ")]
        return shares + [
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


def role_parts(
    observation: Observation,
    classify: Classify,
    *,
    parts: int = 4,
    parallel: bool = True,
    draws: int = 199,
    resamples: int = 19,
    at: str = "mlp_gate",
    seed: int = 0,
) -> ModelParts:
    """The parts of a model: layers cut where the shares of specific, related and general neurons change most.

    All neurons above the bar are counted, selected or not. Inputs as of `role_shares`; the cut as of `cut_profile`.
    Control: the layers in random order, cut anew. Intervals: document shards drawn anew, `resamples` times, where every
    language has text in 20 shards or more.
    Source of the idea: arXiv:2505.21505, which draws the four parts by eye.
    """
    profile = class_profile(classify(observation).above)
    shards = neuron_shards(observation, at, parallel=parallel)
    resampled = None
    if resamples and int((shards.by_shard.tokens > 0).sum(dim=0).min()) >= FEWEST_SHARDS:
        samples = shards.bootstrap(resamples, seed)
        resampled = torch.stack(
            [class_profile(classify(*sums.by_unit(), observation.languages).above) for sums in samples]
        )
    return model_parts(profile, parts, resampled=resampled, draws=draws, seed=seed)


def role_shares(
    observation: Observation,
    classify: Classify,
    *,
    blocks: int | Sequence[Sequence[int]] = 4,
    parallel: bool = True,
    draws: int = 9,
    at: str = "mlp_gate",
    seed: int = 0,
) -> list[RoleShare]:
    """Count specific, related and general neurons in each block of layers, bottom to top.

    Both of the selected neurons and of all above the bar: the selection takes neurons of few languages, and its
    penalty, where it is searched, is the largest that selects no general one.

    classify: `babelscope.select_entropy_lambda`, or that with other parameters by functools.partial.
    blocks: layers are cut into so many parts where the profiles of the classes change (`role_parts`), or the layers of
    each block.
    parallel: whether shards hold the same sentences in every language; see `babelscope.controls.shuffled_labels`.
    Control: the same classifier on counts whose language labels are permuted by shard. It takes as many neurons by
    its score, so what changes is how they fall on classes and layers; among all above the bar also how many there are.
    Raises SelectionError for more blocks than layers, or layers that the model does not have; MeasurementError for an
    observation without shards.
    """
    classified = classify(observation)
    parts = block_layers(class_profile(classified.above), blocks)
    shards = neuron_shards(observation, at, parallel=parallel)
    shards.check(fewest=2)
    nulls = [
        both_shares(classify(*sums.by_unit(), observation.languages), parts) for sums in shards.permuted(draws, seed)
    ]
    null = torch.stack(nulls) if nulls else torch.full((1, 2, len(parts), 3), float("nan"), dtype=torch.float64)
    share = both_shares(classified, parts)
    searched = classified.sets.parameters.get("penalty_given", 0.0) is None
    return [
        RoleShare(
            block=block,
            layers=tuple(layers.tolist()),
            role=role,
            neurons=int((classified.classes[layers] == number + 1).sum()),
            share=float(share[0, block, number]),
            null=float(null[:, 0, block, number].mean()),
            null_high=float(null[:, 0, block, number].max()),
            draws=draws,
            seed=seed,
            above=int((classified.above[layers] == number + 1).sum()),
            above_share=float(share[1, block, number]),
            above_null=float(null[:, 1, block, number].mean()),
            above_null_high=float(null[:, 1, block, number].max()),
            forbidden=searched and role == "general",
        )
        for block, layers in enumerate(parts)
        for number, role in enumerate(CLASSES)
    ]


def block_layers(
    profile: Float64[Tensor, "layer role"], blocks: int | Sequence[Sequence[int]]
) -> tuple[Int64[Tensor, " block_layer"], ...]:
    """The layers of each block: those that were given, or cut where the profiles change."""
    layers = cut_profile(profile, blocks)[0] if isinstance(blocks, int) else tuple(map(tuple, blocks))
    if not layers or not all(layers) or not {layer for block in layers for layer in block} <= set(range(len(profile))):
        raise SelectionError(
            f"blocks {layers} came; expected layers from 0 to {len(profile) - 1} in each; correct them"
        )
    return tuple(torch.tensor(block) for block in layers)


def both_shares(classified: Classified, parts: tuple[Tensor, ...]) -> Float64[Tensor, "which block role"]:
    """Shares among the selected neurons, then among all above the bar."""
    return torch.stack([block_shares(classes, parts) for classes in (classified.classes, classified.above)])


def block_shares(classes: Int64[Tensor, "layer neuron"], parts: tuple[Tensor, ...]) -> Float64[Tensor, "block role"]:
    """Share of each block's neurons in each class."""
    profile = class_profile(classes)
    return torch.stack([profile[layers].mean(dim=0) for layers in parts])


def track_roles(
    checkpoints: Mapping[str, Open],
    texts: Texts,
    classify: Classify,
    *,
    blocks: int | Sequence[Sequence[int]] = 4,
    tokens_per_language: int | None = 10_000,
    shards: int = 32,
    parallel: bool = True,
    draws: int = 9,
    seed: int = 0,
) -> RoleHistory:
    """The same roles at every checkpoint of a training run, from the same text.

    checkpoints: name → a call that opens it, in order of training; each is opened once and let go, the last one first.
    blocks: as of `role_shares`; a number of parts is cut by the last checkpoint's profiles, and all have the same.
    kept: agreement of every language's set with that of the last checkpoint. The names are the run's own.
    Raises SelectionError for fewer than two checkpoints.
    """
    if len(checkpoints) < 2:
        raise SelectionError(f"{len(checkpoints)} checkpoint came; expected at least two, in order; name more")
    by_checkpoint: list[tuple[str, list[RoleShare], NeuronSet]] = []
    for name, open_checkpoint in reversed(list(checkpoints.items())):
        model, tokenizer = open_checkpoint()
        observation = observe(
            model, tokenizer, texts, sites=["mlp_gate"], tokens_per_language=tokens_per_language, shards=shards
        )
        roles = role_shares(observation, classify, blocks=blocks, parallel=parallel, draws=draws, seed=seed)
        blocks = [role.layers for role in roles[:: len(CLASSES)]]
        by_checkpoint.insert(0, (name, roles, classify(observation).sets))
    last: Bool[Tensor, "language layer neuron"] = by_checkpoint[-1][2].mask()
    return RoleHistory(
        tuple(
            TrackedRoles(
                name, roles, dict(zip(sets.languages, compare_masks(sets.mask(), last).corrected.tolist(), strict=True))
            )
            for name, roles, sets in by_checkpoint
        )
    )
