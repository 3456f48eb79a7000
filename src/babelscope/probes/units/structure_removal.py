"""Neurons of every structure of a model, MLPs and attentions, by the effect of removing them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float64, Tensor
from babelscope.controls import ShardSums
from babelscope.corpus import Texts, as_corpus, pad_of, token_windows
from babelscope.errors import LanguageError, SelectionError, SiteError
from babelscope.languages import Language
from babelscope.models import Layout, layout_of, run_pass
from babelscope.models.attention import AttentionInputs, attention_by
from babelscope.models.plain import CausalModel
from babelscope.probes.shard_sums import UnitSums, zero_sums
from babelscope.probes.units.attention_removal import AttentionVotes, attend_plainly, structure_widths
from babelscope.probes.units.removal import effect_hooks, vote_sums
from babelscope.recording.walk import walk


@dataclass(frozen=True, eq=False)
class StructureVotes:
    """In how many documents each neuron was among the most effective of its layer and structure."""

    __repr__ = shown_by()

    languages: tuple[Language, ...]
    votes: Mapping[str, ShardSums[UnitSums]]
    """By structure; units are (layer, unit), `tokens` are documents."""
    effect: Mapping[str, Float64[Tensor, "language layer unit"]]
    """Mean over documents of a neuron's exact effect."""
    top_rate: float

    def share(self, structure: str) -> Float64[Tensor, "language layer unit"]:
        """Share of a language's documents that vote for each neuron."""
        return self.votes[structure].whole().mean().unflatten(1, self.effect[structure].shape[1:])

    def specific(
        self, *, vote: float = 0.9, at_most: int | None = None
    ) -> dict[str, Bool[Tensor, "language layer unit"]]:
        """Neurons that so many documents of a language vote for, less those that more than `at_most` languages do.

        at_most: None takes out only what all languages share. Raises LanguageError for one language.
        """
        most = len(self.languages) - 1 if at_most is None else at_most
        if len(self.languages) < 2:
            raise LanguageError("one language came; what is specific shows against others only; give another language")
        chosen = {name: self.share(name) >= vote for name in self.votes}
        return {name: mask & (mask.sum(dim=0) <= most) for name, mask in chosen.items()}


def structure_votes(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    top_rate: float = 0.1,
    parallel: bool = False,
    tokens_per_language: int | None = 400,
    shards: int = 16,
    max_length: int = 64,
) -> StructureVotes:
    """Let every document vote for the `top_rate` neurons of each layer and structure that matter most to it.

    FFN neurons by `removal.document_effects`, those of attention by `attention_removal.attention_effects`; `output` is
    a coordinate of what the attention writes. parallel: queries and keys are voted for by the paper's parallel form,
    the change of the attention weights alone.
    max_length: tokens of a document; the work grows with its square, and with the width of a head.
    Of a mixture of experts, FFN neurons are those of all experts, expert-major (`removal.routed_effects`).
    Raises SiteError for layers without attention, and for a family that does not use transformers' table of
    attentions; SelectionError for a rate outside (0, 1).
    Source: Zhao et al. 2024, arXiv:2402.18815 (PLND).
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    if layout.without_attention:
        raise SiteError(
            f"{model.config.model_type} has layers without attention; expected an attention in every layer; use "
            "removal_votes"
        )
    if not 0 < top_rate < 1:
        raise SelectionError(f"top_rate {top_rate} came; expected a share of the neurons between 0 and 1; correct it")
    widths = structure_widths(layout, key_heads(layout))
    attention = AttentionVotes(
        layout,
        top_rate,
        parallel,
        {name: zero_sums(corpus, shards, layout.n_layers * width) for name, width in widths.items()},
    )
    text = token_windows(tokenizer, corpus, tokens_per_language=tokens_per_language, max_length=max_length)
    with effect_hooks(layout) as hooks:
        ffn = vote_sums(layout, hooks, corpus, top_rate=top_rate, shards=shards)
        walk(layout, text, [ffn, attention], pad=pad_of(tokenizer))
    documents = ffn.sums.whole().tokens[:, None, None]
    effect = {name: total / documents for name, total in {"ffn": ffn.effect, **attention.effect}.items()}
    return StructureVotes(tuple(corpus), {"ffn": ffn.sums, **attention.sums}, effect, top_rate)


@torch.no_grad()
def key_heads(layout: Layout) -> int:
    """Heads of keys and values in every layer, seen in a pass of one token; raises SiteError where layers differ."""
    counts: set[int] = set()

    def attend(inputs: AttentionInputs) -> Tensor:
        counts.add(inputs.key.shape[1])
        return attend_plainly(inputs)

    with attention_by(layout.model, attend):
        run_pass(layout, torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.int64))
    if len(counts) != 1:
        raise SiteError(f"layers have {sorted(counts)} key-value heads; expected the same number in all")
    return counts.pop()
