"""What each neuron adds to its MLP's output on a document, and which neurons matter to most documents of a language.

The idea of PLND, with the exact effect in place of a projection's size, and a vote in place of an intersection.
"""

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import NeuronSet, Origin
from babelscope.axes import Bool, Float, Float64, Int64, Tensor
from babelscope.controls import Evidence, ShardSums, rank_p
from babelscope.corpus import Batch, Texts, as_corpus, pad_of, token_windows
from babelscope.errors import LanguageError, SelectionError, SiteError
from babelscope.languages import Language
from babelscope.models import Layout, layout_of, origin_of
from babelscope.models.plain import CausalModel
from babelscope.probes.shard_sums import UnitSums, add_rows, zero_sums
from babelscope.recording.walk import walk
from babelscope.recording.watchers import ReadSite
from babelscope.sites import Site


@dataclass(frozen=True, eq=False)
class RemovalVotes:
    """In how many documents each neuron was among the most effective of its layer."""

    origin: Origin
    votes: ShardSums[UnitSums]
    """Units are (layer, neuron), `tokens` are documents."""
    effect: Float64[Tensor, "language layer neuron"]
    """Mean over documents of a neuron's effect."""
    top_rate: float
    """Share of a layer's neurons that a document votes for."""

    @property
    def languages(self) -> tuple[Language, ...]:
        """Order of the language axes."""
        return self.votes.languages

    @property
    def share(self) -> Float64[Tensor, "language layer neuron"]:
        """Share of a language's documents that vote for each neuron."""
        return rearrange(self.votes.whole().mean(), "k (l j) -> k l j", l=self.effect.shape[1]).contiguous()


@dataclass(frozen=True, eq=False)
class RemovalSets:
    """Neurons that matter to a language, without those that matter to all."""

    specific: NeuronSet
    """Voted in by the language, and by no more than `at_most` languages; the score is the share of votes."""
    core: Bool[Tensor, "layer neuron"]
    """Voted in by more than `at_most` languages."""
    null: Float64[Tensor, "draw language"]
    """Sizes of the specific sets where languages are permuted by shard."""
    documents: Int64[Tensor, " language"]
    seed: int

    def rows(self) -> list[Evidence]:
        """One row per language."""
        return [
            Evidence(
                claim="neurons voted for by this language's documents and not by all languages'",
                language=tag,
                control="language labels permuted by shard",
                n=int(self.documents[k]),
                estimate=size,
                p=rank_p(float(size), self.null[:, k]),
                draws=len(self.null),
                seed=self.seed,
                note=f"n in documents; {float(self.null[:, k].mean()):.1f} neurons on average with permuted labels; "
                f"core {int(self.core.sum())}",
            )
            for k, (tag, size) in enumerate(self.specific.sizes.items())
        ]


def document_effects(
    value: Float[Tensor, "batch token neuron"],
    norm: Float64[Tensor, " neuron"],
    counted: Bool[Tensor, "batch token"],
) -> Float64[Tensor, "batch neuron"]:
    """Exact change of the MLP's output on each document when a neuron is removed, in units of the residual stream.

    e_j = sqrt(mean_t ‖MLP(x_t) - MLP without j (x_t)‖²) = sqrt(mean_t h_tj²) · ‖W_down[:, j]‖, t over counted tokens.
    """
    wide = value if value.dtype == torch.float64 else value.float()
    squares = (wide.square() * counted[..., None]).sum(dim=1, dtype=torch.float64)
    return (squares / counted.sum(dim=1, keepdim=True)).sqrt() * norm


def removal_votes(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    top_rate: float = 0.1,
    tokens_per_language: int | None = None,
    shards: int = 16,
    max_length: int = 512,
) -> RemovalVotes:
    """Let every document vote for the `top_rate` neurons of each layer whose removal changes the MLP's output most.

    Source of the idea: Zhao et al. 2024, arXiv:2402.18815.  Its code scores |up·x| without the gate and W_down and
    needs a neuron in the top list of every document; here the effect is exact (`document_effects`) and documents vote.
    Raises SiteError for a mixture of experts, SelectionError for a rate outside (0, 1).
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    if layout.n_experts:
        raise SiteError(
            f"{model.config.model_type} is a mixture of experts; expected a dense model: what an expert's neuron adds "
            "depends on the router's weight; use routing_use or select_lape"
        )
    if not 0 < top_rate < 1:
        raise SelectionError(f"top_rate {top_rate} came; expected a share of the neurons between 0 and 1; correct it")
    watcher = VoteSums(
        layout=layout,
        top_rate=top_rate,
        sums=zero_sums(corpus, shards, layout.n_layers * layout.d_neuron),
        effect=torch.zeros(len(corpus), layout.n_layers, layout.d_neuron, dtype=torch.float64),
    )
    text = token_windows(tokenizer, corpus, tokens_per_language=tokens_per_language, max_length=max_length)
    walk(layout, text, [watcher], pad=pad_of(tokenizer))
    effect = watcher.effect / watcher.sums.whole().tokens[:, None, None]
    return RemovalVotes(origin_of(model, tokenizer), watcher.sums, effect, top_rate)


def effect_hooks(layout: Layout) -> dict[Site, ReadSite]:
    """What reads `document_effects` of every layer, on the CPU."""

    def reader(norm: Float64[Tensor, " neuron"]) -> ReadSite:
        return lambda batch, at: document_effects(at.value, norm, at.counted).cpu()

    return {Site(layer, "mlp_inner"): reader(layout.down_norm(layer)) for layer in range(layout.n_layers)}


class VoteSums:
    """Votes of documents, and the neurons' effects summed over them."""

    def __init__(
        self,
        layout: Layout,
        top_rate: float,
        sums: ShardSums[UnitSums],
        effect: Float64[Tensor, "language layer neuron"],
    ) -> None:
        self.hooks, self.top_rate, self.sums, self.effect = effect_hooks(layout), top_rate, sums, effect

    def add(self, batch: Batch, values: dict[Site, Float64[Tensor, "batch neuron"]]) -> None:
        """Add a batch of one language."""
        for site, effect in values.items():
            layer = site.layer or 0
            self.effect[batch.documents[0].language, layer] += effect.sum(dim=0)
            add_rows(self.sums, batch, top_of(effect, self.top_rate).double(), layer * effect.shape[1])
        no_values = torch.zeros(len(batch.documents), 0, dtype=torch.float64)
        add_rows(self.sums, batch, no_values, tokens=torch.ones(len(batch.documents)))


def top_of(effect: Float64[Tensor, "batch neuron"], top_rate: float) -> Bool[Tensor, "batch neuron"]:
    """The `top_rate` largest of each row, one at least; never one without an effect, such as a dead neuron."""
    chosen = torch.zeros(effect.shape, dtype=torch.bool)
    places = effect.topk(max(1, round(top_rate * effect.shape[1])), dim=1).indices
    return chosen.scatter_(1, places, torch.ones_like(places, dtype=torch.bool)) & (effect > 0)


def removal_sets(
    votes: RemovalVotes, *, vote: float = 0.9, at_most: int | None = None, draws: int = 19, seed: int = 0
) -> RemovalSets:
    """Neurons that the documents of a language vote for, less those that more than `at_most` languages vote for.

    vote: share of the documents that must agree; 1 is the intersection, which one odd document can empty.
    at_most: None takes out only what all languages share, as in the paper.
    Control: the same with language labels permuted by shard.
    Raises LanguageError for fewer than two languages.
    """
    k = len(votes.languages)
    if k < 2:
        raise LanguageError("one language came; what is specific shows against others only; give another language")
    most = k - 1 if at_most is None else at_most
    chosen = votes.share >= vote
    core = chosen.sum(dim=0) > most
    sizes = []
    for sums in votes.votes.permuted(draws, seed):
        voted_for = sums.mean() >= vote
        sizes.append((voted_for & (voted_for.sum(dim=0) <= most)).sum(dim=1).double())
    return RemovalSets(
        specific=NeuronSet.from_mask(
            chosen & ~repeat(core, "l j -> k l j", k=k),
            votes.share,
            origin=votes.origin,
            languages=votes.languages,
            at="mlp_inner",
            method="removal-vote",
            parameters={"top_rate": votes.top_rate, "vote": vote, "at_most": most, "core": int(core.sum())},
        ),
        core=core,
        null=torch.stack(sizes),
        documents=votes.votes.whole().tokens.long(),
        seed=seed,
    )
