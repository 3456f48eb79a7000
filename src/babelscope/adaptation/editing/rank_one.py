"""A fact written into one layer by the smallest change of its down projection that gives one key a new value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.adaptation.editing.edit_objective import DescentEnd, EditTask, check_editable
from babelscope.axes import Float64, Tensor
from babelscope.corpus import Batch, Corpus, token_windows
from babelscope.errors import MeasurementError
from babelscope.models import Layout, origin_of
from babelscope.models.origin import origin_without
from babelscope.models.text_length import text_length
from babelscope.recording.walk import walk
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.sites import Site
from babelscope.subnetworks import ElementDelta
from babelscope.subnetworks.elements import Elements
from babelscope.upstream.kinds import conv1d

RIDGE = 0.01
"""Of the mean of the second moment's diagonal, added to it: with less text than neurons it has no inverse."""
LONGEST_DOCUMENT = 256
"""Tokens of a document that are read."""


@dataclass(frozen=True, eq=False)
class KeyMoments:
    """Σ a aᵀ of the inner activations of some layers over the counted tokens of a text, in float64."""

    layers: tuple[int, ...]
    sums: dict[int, Float64[Tensor, "neuron neuron"]] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)
    """Of each batch."""

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """The MLP's inner activations."""
        return {Site(layer, "mlp_inner"): products for layer in self.layers}

    def add(self, batch: Batch, values: dict[Site, Float64[Tensor, "neuron neuron"]]) -> None:
        """Add a batch's products."""
        self.tokens.append(int(batch.counted.sum()))
        for site, product in values.items():
            assert site.layer is not None
            self.sums[site.layer] = self.sums[site.layer] + product if site.layer in self.sums else product

    def moment(self, layer: int) -> Float64[Tensor, "neuron neuron"]:
        """C = E[a aᵀ], with RIDGE of its mean diagonal added to the diagonal."""
        moment = self.sums[layer] / sum(self.tokens)
        return moment + RIDGE * moment.diagonal().mean() * torch.eye(len(moment), dtype=torch.float64)


def products(batch: Batch, site_value: SiteValue) -> Float64[Tensor, "neuron neuron"]:
    """Σ a aᵀ of a batch."""
    rows = site_value.rows().double()
    return (rows.T @ rows).cpu()


def key_moments(
    layout: Layout,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    layers: Sequence[int],
    *,
    tokens_per_language: int,
) -> KeyMoments:
    """Second moments of the keys of some layers, over ordinary text of all languages of a corpus."""
    for layer in layers:
        check_editable(layout, layer)
    moments = KeyMoments(tuple(layers))
    length = text_length(layout, None, LONGEST_DOCUMENT)
    windows = token_windows(
        tokenizer, corpus, tokens_per_language=tokens_per_language, max_length=length, name="text of keys"
    )
    walk(layout, windows, [moments])
    if not sum(moments.tokens):
        raise MeasurementError(f"{corpus.name}: no token to read keys from; expected ordinary text; give some")
    return moments


class RankOne(NamedTuple):
    """W' = W + (v - W k) rᵀ with r = C⁻¹k / (kᵀC⁻¹k).

    Of all W' with W' k = v it is the one with the least tr((W' - W) C (W' - W)ᵀ), which is what it changes in the mean.
    """

    left: Float64[Tensor, " hidden"]
    """v - W k."""
    right: Float64[Tensor, " neuron"]
    """r."""

    def matrix(self) -> Float64[Tensor, "hidden neuron"]:
        """The change of the down projection."""
        return torch.outer(self.left, self.right)


def right_of(key: Float64[Tensor, " neuron"], moment: Float64[Tensor, "neuron neuron"]) -> Float64[Tensor, " neuron"]:
    """C⁻¹k / (kᵀC⁻¹k), by Cholesky's factor of C."""
    solved = torch.cholesky_solve(key[:, None], torch.linalg.cholesky(moment))[:, 0]
    return solved / (key @ solved)


def rank_one_edit(task: EditTask, moments: KeyMoments, end: DescentEnd) -> tuple[ElementDelta, RankOne]:
    """The edit of one fact in one layer, in ROME's closed form, as a change of every value of its down projection.

    k: the task's key. end: of `value_at_subject`, v - W k. C: second moment of the keys.
    Source: Meng et al. 2022, arXiv:2202.05262.
    """
    right = right_of(task.key(task.layer), moments.moment(task.layer))
    change = RankOne(end.values.double().cpu(), right)
    facts = {"method": "rank one", **end.facts(), "layer": task.layer}
    return as_delta([task], {task.layer: change.matrix()}, facts), change


def as_delta(
    tasks: Sequence[EditTask], matrices: Mapping[int, Float64[Tensor, "hidden neuron"]], facts: Mapping[str, Any]
) -> ElementDelta:
    """Changes of down projections by layer as an artifact, in the order in which the parameters are stored."""
    task, elements = tasks[0], dict[str, Elements]()
    model = task.layout.model
    for layer, matrix in matrices.items():
        down = task.down(layer)
        name = next(name for name, parameter in model.named_parameters() if parameter is down.weight)
        values = (matrix.float().T if isinstance(down, conv1d()) else matrix.float()).contiguous()
        elements[name] = Elements(tuple(values.shape), torch.arange(values.numel()), values.flatten())
    origin = origin_without(origin_of(model, task.tokenizer), model, elements)
    return ElementDelta(origin, tuple(dict.fromkeys(task.language for task in tasks)), elements, dict(facts))


def random_rank_one(change: RankOne, *, seed: int) -> RankOne:
    """The same key, and a random value of the same length: a change as large, at the same tokens."""
    noise = torch.randn(len(change.left), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return change._replace(left=noise * change.left.norm() / noise.norm())
