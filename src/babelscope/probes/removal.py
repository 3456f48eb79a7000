"""What each neuron adds to its MLP's output on a document, and which neurons matter to most documents of a language.

The idea of PLND, with the exact effect in place of a projection's size, and a vote in place of an intersection.
"""

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import NeuronSet, Origin
from babelscope.axes import Bool, Float, Float64, Int64, Tensor
from babelscope.controls import Evidence, ShardSums, rank_p
from babelscope.corpus import Batch, Texts, as_corpus
from babelscope.errors import LanguageError, SelectionError, SiteError
from babelscope.languages import Language
from babelscope.models import Layout, See, layout_of, origin_of
from babelscope.models.measuring import run_pass
from babelscope.models.plain import CausalModel
from babelscope.probes.shard_sums import UnitSums, add_rows, stream_batches, zero_sums
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
        """One row a language."""
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
    value: Float[Tensor, "batch token neuron"], norm: Float64[Tensor, " neuron"], batch: Batch
) -> Float64[Tensor, "batch neuron"]:
    """Exact change of the MLP's output on each document when a neuron is removed, in units of the residual stream.

    e_j = sqrt(mean_t ‖MLP(x_t) - MLP without j (x_t)‖²) = sqrt(mean_t h_tj²) · ‖W_down[:, j]‖, t over counted tokens.
    """
    counted = batch.counted.to(value.device)
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
    sums = zero_sums(corpus, shards, layout.n_layers * layout.d_neuron)
    effect = torch.zeros(len(corpus), layout.n_layers, layout.d_neuron, dtype=torch.float64)
    norms = [layout.down_norm(layer) for layer in range(layout.n_layers)]
    for batch in stream_batches(tokenizer, corpus, tokens_per_language=tokens_per_language, max_length=max_length):
        language = batch.documents[0].language
        for layer, found in enumerate(effects_by_layer(layout, batch, norms)):
            effect[language, layer] += found.sum(dim=0)
            add_rows(sums, batch, top_of(found, top_rate).double(), layer * layout.d_neuron)
        nothing = torch.zeros(len(batch.documents), 0, dtype=torch.float64)
        add_rows(sums, batch, nothing, tokens=torch.ones(len(batch.documents)))
    documents = sums.whole().tokens
    return RemovalVotes(origin_of(model, tokenizer), sums, effect / documents[:, None, None], top_rate)


def effects_by_layer(
    layout: Layout, batch: Batch, norms: list[Float64[Tensor, " neuron"]]
) -> list[Float64[Tensor, "batch neuron"]]:
    """`document_effects` of every layer in one pass."""
    found: list[Tensor] = []

    def watcher(layer: int) -> See:
        def see(value: Tensor, sign: Tensor, routes: Tensor | None) -> None:
            found.append(document_effects(value, norms[layer], batch).cpu())

        return see

    with ExitStack() as stack:
        for layer in range(layout.n_layers):
            stack.enter_context(layout.watch(Site(layer, "mlp_inner"), watcher(layer)))
        run_pass(layout, batch.input_ids, batch.attention_mask)
    return found


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
        drawn = sums.mean() >= vote
        sizes.append((drawn & (drawn.sum(dim=0) <= most)).sum(dim=1).double())
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
