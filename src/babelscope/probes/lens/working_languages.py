"""Which language each layer works in along a training run, and which neurons change their language."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import NeuronSet
from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Tensor
from babelscope.controls import percentile_interval, rank_p
from babelscope.controls.bootstrap_draws import draw_counts
from babelscope.corpus import Texts, as_corpus
from babelscope.errors import SelectionError
from babelscope.evaluation import HeldOut, document_losses
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.probes.concepts.concept_neurons import permute_within
from babelscope.probes.lens.logit_lens import LatentLanguage, logit_lens
from babelscope.probes.lens.word_lists import LanguageTokens
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.probes.units.roles import Classify, Open
from babelscope.recording import observe

RESAMPLES = 1000


class BitsEstimate(NamedTuple):
    """Held-out bits per UTF-8 byte of one language."""

    estimate: float
    low: float
    """Ends of the 95 % interval, over resampled documents."""
    high: float
    documents: int


class WorkingStep(NamedTuple):
    """One checkpoint."""

    checkpoint: str
    lens: LatentLanguage
    """By text and depth, the share of each language's tokens."""
    bits: dict[Language, BitsEstimate]
    sets: NeuronSet


class Transfer(NamedTuple):
    """Neurons of one language that were another's at the checkpoint before."""

    checkpoint: str
    source: Language
    target: Language
    neurons: int
    share: float
    """Of the target's neurons at this checkpoint."""
    null: float
    """Mean share with the source's earlier neurons permuted within layers."""
    p: float
    """Rank among those; NaN where one of the sets is empty."""


@dataclass(frozen=True, eq=False)
class WorkingHistory:
    """Checkpoints in the order given."""

    __repr__ = shown_by()

    steps: tuple[WorkingStep, ...]
    draws: int
    seed: int

    def working(self) -> list[list[list[Language]]]:
        """The language with the largest share by checkpoint, text and depth; the text's own counts."""
        return [step.lens.leading(but_own=False) for step in self.steps]

    def transfers(self) -> list[Transfer]:
        """Between checkpoints that follow each other, for every ordered pair of languages."""
        rng = np.random.default_rng(self.seed)
        moves = []
        for before, after in pairwise(self.steps):
            masks = before.sets.mask(), after.sets.mask()
            tags = after.sets.languages
            for source, target in permutations(range(len(tags)), 2):
                old, new = masks[0][before.sets.languages.index(tags[source])], masks[1][target]
                moves.append(transfer_of(after.checkpoint, tags[source], tags[target], old, new, self.draws, rng))
        return moves

    def rows(self) -> list[SiteEvidence]:
        """Working language by checkpoint, text and depth; bits per byte; neurons that change their language."""
        rows = []
        for step, working in zip(self.steps, self.working(), strict=True):
            lens = step.lens
            for k, text in enumerate(lens.languages):
                for depth, (site, leader) in enumerate(zip(lens.sites, working[k], strict=True)):
                    at = (k, depth, lens.tokens.index(leader))
                    rows.append(
                        SiteEvidence(
                            claim=f"{step.checkpoint}: working language by the lens",
                            language=text,
                            against=leader,
                            control="tokens dealt out to languages at random",
                            n=int(lens.positions[k]),
                            estimate=float(lens.share[at]),
                            low=float(lens.low[at]),
                            high=float(lens.high[at]),
                            p=float(lens.p[at]),
                            null=float(lens.null[at]),
                            draws=lens.draws,
                            seed=lens.seed,
                            note="against is the language with the largest share of listed tokens; n in positions",
                            site=str(site),
                        )
                    )
            for tag, bits in step.bits.items():
                rows.append(
                    SiteEvidence(
                        claim=f"{step.checkpoint}: held-out bits per byte",
                        language=tag,
                        control="none",
                        n=bits.documents,
                        estimate=bits.estimate,
                        low=bits.low,
                        high=bits.high,
                        draws=RESAMPLES,
                        seed=self.seed,
                        note="n in documents",
                    )
                )
        rows += [
            SiteEvidence(
                claim=f"{move.checkpoint}: neurons that were the other language's at the checkpoint before",
                language=move.target,
                against=move.source,
                control="the other language's neurons permuted within layers",
                n=move.neurons,
                estimate=move.share,
                p=move.p,
                null=move.null,
                draws=self.draws,
                seed=self.seed,
                note="share of the language's neurons; n in neurons that changed",
            )
            for move in self.transfers()
        ]
        return rows


def track_working_languages(
    checkpoints: Mapping[str, Open],
    texts: Texts,
    others: Texts,
    classify: Classify,
    *,
    tokens: LanguageTokens,
    tokens_per_language: int | None = 5000,
    lens_tokens: int | None = 600,
    max_tokens: int | None = 2000,
    draws: int = 99,
    seed: int = 0,
) -> WorkingHistory:
    """The working language of each layer, language neurons and held-out bits per byte at every checkpoint.

    Working language of a layer: of the languages' listed tokens, those that the logit lens gives the largest share of
    probability there; against tokens dealt out at random, and with an interval over documents.
    A transferred neuron from A to B: in B's set at a checkpoint, and in A's at the one before; their share of B's set
    stands against A's neurons permuted within layers.
    texts: what the lens and bits per byte are measured on. others: of the same languages, for neurons.
    tokens: each language's, from `indicative_tokens` or `word_tokens`.
    checkpoints: name → a call that opens it, in order of training; each is opened once and let go.
    Raises SelectionError for fewer than two checkpoints.
    Source: Chen et al. 2024, arXiv:2412.07298, for programming languages; the rule for transferred neurons is ours.
    """
    if len(checkpoints) < 2:
        raise SelectionError(f"{len(checkpoints)} checkpoint came; expected at least two, in order; name more")
    steps = []
    for name, open_checkpoint in checkpoints.items():
        model, tokenizer = open_checkpoint()
        lens = logit_lens(
            model, tokenizer, texts, tokens=tokens, tokens_per_language=lens_tokens, draws=draws, seed=seed
        )
        observation = observe(model, tokenizer, others, sites=["mlp_gate"], tokens_per_language=tokens_per_language)
        steps.append(
            WorkingStep(
                name, lens, held_out_bits(model, tokenizer, texts, max_tokens, seed), classify(observation).sets
            )
        )
    return WorkingHistory(tuple(steps), draws, seed)


def held_out_bits(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, texts: Texts, max_tokens: int | None, seed: int
) -> dict[Language, BitsEstimate]:
    """Bits per byte of each language, with intervals over documents."""
    layout, estimates = layout_of(model), dict[Language, BitsEstimate]()
    for held_out in HeldOut.prepare(
        tokenizer, as_corpus(texts), max_length=text_length(layout, None), max_tokens=max_tokens
    ):
        losses = document_losses(layout, held_out)
        n, bits = len(losses.nats), losses.nats / np.log(2)
        weight = torch.from_numpy(draw_counts(n, RESAMPLES, np.random.default_rng(seed))).double()
        low, high = percentile_interval((weight @ bits) / (weight @ losses.n_bytes.double()))
        estimates[held_out.language] = BitsEstimate(losses.bits_per_byte, low, high, n)
    return estimates


def transfer_of(
    checkpoint: str,
    source: Language,
    target: Language,
    old: Bool[Tensor, "layer neuron"],
    new: Bool[Tensor, "layer neuron"],
    draws: int,
    rng: np.random.Generator,
) -> Transfer:
    """Neurons of `new` that were in `old`, against the neurons of `old` permuted within layers."""
    before, after = old.reshape(-1).numpy(), new.reshape(-1).numpy()
    size, layers = int(after.sum()), np.repeat(np.arange(old.shape[0]), old.shape[1])
    if not size or not before.any():
        return Transfer(checkpoint, source, target, 0, float("nan"), float("nan"), float("nan"))
    count = int((before & after).sum())
    null = [int((before[permute_within(layers, rng)] & after).sum()) for _ in range(draws)]
    return Transfer(
        checkpoint=checkpoint,
        source=source,
        target=target,
        neurons=count,
        share=count / size,
        null=float(np.mean(null)) / size,
        p=rank_p(float(count), null),
    )
