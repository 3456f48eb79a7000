"""What each neuron adds to its MLP's output on a document, and which neurons matter to most documents of a language.

The idea of PLND, with the exact effect in place of a projection's size, and a vote in place of an intersection.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import NeuronSet, Origin
from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float, Float64, Int, Int64, Tensor
from babelscope.controls import Evidence, ShardSums, rank_p
from babelscope.corpus import Batch, Corpus, Texts, as_corpus, pad_of, token_windows
from babelscope.errors import LanguageError, SelectionError
from babelscope.languages import Language
from babelscope.models import Layout, layout_of, origin_of
from babelscope.models.expert_hooks import weights_given
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.probes.shard_sums import UnitSums, add_rows, zero_sums
from babelscope.recording.walk import walk
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.sites import Site


@dataclass(frozen=True, eq=False)
class RemovalVotes:
    """In how many documents each neuron was among the most effective of its layer."""

    __repr__ = shown_by()

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

    __repr__ = shown_by()

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


def routed_effects(
    value: Float[Tensor, "batch token k neuron"],
    routes: Int[Tensor, "batch token k"],
    weights: Float[Tensor, "batch token k"],
    norm: Float64[Tensor, " unit"],
    counted: Bool[Tensor, "batch token"],
) -> Float64[Tensor, "batch unit"]:
    """The same of experts' neurons, expert-major: e_xj = sqrt(mean_t (g_tx h_txj)²) · ‖W_down,x[:, j]‖.

    g_tx is the router's weight of expert x at token t, as its experts get it, and 0 where the token goes elsewhere; the
    mean is over all counted tokens, so that a neuron of an expert that few tokens meet has a small effect.
    """
    batch, neurons = value.shape[0], value.shape[3]
    experts = len(norm) // neurons
    wide = torch.float64 if value.dtype == torch.float64 else torch.float32
    weighed = value.to(wide) * (weights.to(wide) * counted[..., None])[..., None]
    place = torch.arange(batch, device=value.device)[:, None, None] * experts + routes
    squares = torch.zeros(batch * experts, neurons, dtype=torch.float64, device=value.device)
    squares.index_add_(0, place.flatten(), weighed.square().flatten(0, 2).double())
    return (squares.view(batch, -1) / counted.sum(dim=1, keepdim=True)).sqrt() * norm


def removal_votes(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    top_rate: float = 0.1,
    tokens_per_language: int | None = None,
    shards: int = 16,
    max_length: int | None = None,
) -> RemovalVotes:
    """Let every document vote for the `top_rate` neurons of each layer whose removal changes the MLP's output most.

    Source of the idea: Zhao et al. 2024, arXiv:2402.18815.  Its code scores |up·x| without the gate and W_down and
    needs a neuron in the top list of every document; here the effect is exact (`document_effects`) and documents vote.
    Of a mixture of experts the neurons are those of all experts, expert-major, and one adds what the router's weight
    lets it (`routed_effects`); those of an expert that every token shares are left out.
    Raises SelectionError for a rate outside (0, 1).
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    max_length = text_length(layout, max_length)
    if not 0 < top_rate < 1:
        raise SelectionError(f"top_rate {top_rate} came; expected a share of the neurons between 0 and 1; correct it")
    text = token_windows(tokenizer, corpus, tokens_per_language=tokens_per_language, max_length=max_length)
    with effect_hooks(layout) as hooks:
        watcher = vote_sums(layout, hooks, corpus, top_rate=top_rate, shards=shards)
        walk(layout, text, [watcher], pad=pad_of(tokenizer))
    effect = watcher.effect / watcher.sums.whole().tokens[:, None, None]
    return RemovalVotes(origin_of(model, tokenizer), watcher.sums, effect, top_rate)


@contextmanager
def effect_hooks(layout: Layout) -> Iterator[dict[Site, ReadSite]]:
    """What reads `document_effects`, or `routed_effects`, of every layer, on the CPU; usable while open."""
    layers = range(layout.n_layers)
    with weights_given([layout.experts(layer) for layer in layers] if layout.n_experts else []) as expert_weights:
        yield {
            Site(layer, "mlp_inner"): effect_reader(layout.down_norm(layer), expert_weights, layer) for layer in layers
        }


def effect_reader(norm: Float64[Tensor, " unit"], expert_weights: Sequence[Tensor | None], layer: int) -> ReadSite:
    """What reads the effects of one layer; expert_weights: by layer, the weights of each token's experts."""

    def read(batch: Batch, site_value: SiteValue) -> Float64[Tensor, "batch unit"]:
        if site_value.routes is None:
            return document_effects(site_value.value, norm, site_value.counted).cpu()
        weights = expert_weights[layer]
        assert weights is not None
        return routed_effects(
            site_value.value, site_value.routes, weights.view(site_value.routes.shape), norm, site_value.counted
        ).cpu()

    return read


def vote_sums(
    layout: Layout, hooks: Mapping[Site, ReadSite], corpus: Corpus, *, top_rate: float, shards: int
) -> "VoteSums":
    """Nothing added yet."""
    units = layout.width("mlp_inner")
    effect = torch.zeros(len(corpus), layout.n_layers, units, dtype=torch.float64)
    return VoteSums(hooks, top_rate, zero_sums(corpus, shards, layout.n_layers * units), effect)


class VoteSums:
    """Votes of documents, and the neurons' effects summed over them."""

    def __init__(
        self,
        hooks: Mapping[Site, ReadSite],
        top_rate: float,
        sums: ShardSums[UnitSums],
        effect: Float64[Tensor, "language layer neuron"],
    ) -> None:
        self.hooks, self.top_rate, self.sums, self.effect = hooks, top_rate, sums, effect

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
