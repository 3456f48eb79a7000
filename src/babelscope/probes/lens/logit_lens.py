"""The logit lens: what the stream would say at each depth, and in which language."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float, Float64, Int, Int64, Tensor
from babelscope.controls.bootstrap_draws import draw_items
from babelscope.corpus import Batch, Texts, as_corpus, pad_of, token_windows
from babelscope.errors import LanguageError, MeasurementError
from babelscope.languages import Language
from babelscope.models import Layout, check_made_for, eval_mode, layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.probes.lens.translators import Translators
from babelscope.probes.lens.word_lists import LanguageTokens
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.probes.streams import counted_rows, depth_sites, read_streams
from babelscope.recording.walk import walk
from babelscope.recording.watchers import ReadSite
from babelscope.sites import Site

LENS_ROWS = 256
"""Rows of logits held at a time."""
SLACK = 1e-12
"""Shares nearer than this are ties: short lists are often dealt out as they were, and then added in another order."""
CONTROL = "tokens dealt out to languages at random"


@dataclass(frozen=True, eq=False)
class LatentLanguage:
    """Probability that the lens gives to each language's tokens, by language of the text and depth."""

    __repr__ = shown_by()

    languages: tuple[Language, ...]
    """Of the text."""
    tokens: LanguageTokens
    sites: tuple[Site, ...]
    mass: Float64[Tensor, "language depth set"]
    """Mean probability of each language's tokens; what is missing to 1 is on tokens of no one language."""
    low: Float64[Tensor, "language depth set"]
    """Ends of the 95 % bootstrap interval of `share`, over documents."""
    high: Float64[Tensor, "language depth set"]
    null: Float64[Tensor, "language depth set"]
    """Mean share where tokens are dealt out to languages at random: what the sizes of the sets alone give."""
    p: Float64[Tensor, "language depth set"]
    """Rank of the share among those; NaN where the lens gives all listed tokens no probability at all."""
    entropy_nats: Float64[Tensor, "language depth"]
    """Mean entropy of the lens's distribution."""
    kl_nats: Float64[Tensor, "language depth"]
    """Mean divergence of the model's own distribution from the lens's: 0 at the last depth."""
    positions: Int64[Tensor, " language"]
    """Tokens read."""
    tuned: bool
    """Whether translators stood before the norm."""
    draws: int
    seed: int

    @property
    def share(self) -> Float64[Tensor, "language depth set"]:
        """Mass over the mass on all listed tokens; sums to 1."""
        return self.mass / self.mass.sum(dim=2, keepdim=True)

    def leading(self, *, but_own: bool = True) -> list[list[Language]]:
        """The language with the largest share, by text and depth; the text's own left out unless asked."""
        share = self.share.clone()
        if but_own:
            for k, tag in enumerate(self.languages):
                if tag in self.tokens.languages:
                    share[k, :, self.tokens.index(tag)] = -1
        return [[self.tokens.languages[at] for at in row] for row in share.argmax(dim=2).tolist()]

    def rows(self) -> list[SiteEvidence]:
        """One row per text, depth and language of tokens, and one per text and depth for entropy and divergence."""
        lens = "tuned lens" if self.tuned else "logit lens"
        share, rows = self.share, []
        for k, tag in enumerate(self.languages):
            for depth, site in enumerate(self.sites):
                place: dict[str, Any] = {"language": tag, "n": int(self.positions[k]), "site": str(site)}
                for row, token_language in enumerate(self.tokens.languages):
                    rows.append(
                        SiteEvidence(
                            claim=f"{lens}, share of tokens",
                            control=CONTROL,
                            against=token_language,
                            estimate=float(share[k, depth, row]),
                            low=float(self.low[k, depth, row]),
                            high=float(self.high[k, depth, row]),
                            null=float(self.null[k, depth, row]),
                            p=float(self.p[k, depth, row]),
                            draws=self.draws,
                            seed=self.seed,
                            note=f"mass {float(self.mass[k, depth, row]):.4g}; n in positions",
                            **place,
                        )
                    )
                for name, values in (("entropy", self.entropy_nats), ("divergence from the output", self.kl_nats)):
                    claim = f"{lens}, {name}, nats"
                    row = SiteEvidence(claim=claim, control="none", estimate=float(values[k, depth]), **place)
                    rows.append(row)
        return rows


def lens_logits(
    layout: Layout, hidden: Float[Tensor, "*rows hidden"], translators: Translators | None = None, depth: int = 0
) -> Float[Tensor, "*rows vocab"]:
    """The head's logits for rows of the stream: final norm once, head, the model's scale and soft cap.

    At the last depth these are the model's own logits, bit for bit where the rows come in the same shape.
    translators: a tuned lens; applied before the norm at `depth`.
    """
    translated = hidden if translators is None else translators.apply(hidden, depth)
    with eval_mode(layout.model):
        return layout.logits(layout.final(translated))


@torch.no_grad()
def layer_logits(
    model: CausalModel, input_ids: Int[Tensor, "batch token"], *, attention_mask: Tensor | None = None
) -> Float[Tensor, "depth batch token vocab"]:
    """What each depth would say of these tokens, for looking: depth 0 before the first layer, i + 1 after layer i."""
    layout = layout_of(model)
    return torch.stack([lens_logits(layout, state) for state in read_streams(layout, input_ids, attention_mask)])


def logit_lens(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    tokens: LanguageTokens,
    translators: Translators | None = None,
    tokens_per_language: int | None = 600,
    max_length: int | None = None,
    draws: int = 99,
    resamples: int = 200,
    seed: int = 0,
) -> LatentLanguage:
    """In which language the stream would speak, at each depth, for text of each language.

    At every counted token the lens gives a distribution over the next one; its probability is added up over each
    language's tokens. The control deals the same tokens out to languages at random.
    tokens: from `indicative_tokens` on other text, or `word_tokens`.
    translators: from `fit_translators` on other text; without them this is the plain lens.
    Raises LanguageError for text of one language, MeasurementError where the lens gives NaN, ArtifactError for
    translators of another model.
    Source: nostalgebraist 2020; Wendler et al. 2024, arXiv:2402.10588; tuned lens Belrose et al. 2023,
    arXiv:2303.08112.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    max_length = text_length(layout, max_length)
    if len(corpus) < 2:
        raise LanguageError(f"{', '.join(corpus)} came alone; expected text of at least two languages; add some")
    if translators is not None:
        check_made_for(translators.origin, model, tokenizer, "translators")
    reading = LensReading.zeros(layout, len(corpus), tokens, translators)
    text = token_windows(tokenizer, corpus, tokens_per_language=tokens_per_language, max_length=max_length)
    walk(layout, text, [reading], pad=pad_of(tokenizer))
    return reading.finish(tuple(corpus), draws=draws, resamples=resamples, seed=seed)


class LensAddend(NamedTuple):
    """What one batch of one language adds."""

    sums: Float64[Tensor, "document depth measure"]
    """Mass by set, entropy and divergence, summed over positions."""
    probability: Float64[Tensor, "depth vocab"]


@dataclass(frozen=True, eq=False)
class LensReading:
    """Sums of one pass: by document what intervals need, by language what the control needs."""

    layout: Layout
    tokens: LanguageTokens
    translators: Translators | None
    probability: Float64[Tensor, "language depth vocab"]
    """Sum over positions, for the listed tokens only."""
    documents: list[tuple[int, int, Tensor]]
    """Language, positions, and sums [depth, set + 2] of mass, entropy and divergence."""

    @classmethod
    def zeros(
        cls, layout: Layout, languages: int, tokens: LanguageTokens, translators: Translators | None
    ) -> "LensReading":
        """Nothing read yet; raises MeasurementError where the lists are of another vocabulary."""
        vocabulary = layout.width("logits")
        if tokens.member.shape[1] != vocabulary:
            raise MeasurementError(
                f"token lists are over {tokens.member.shape[1]} entries, the model gives {vocabulary} logits; expected "
                "the same; make them with vocabulary=model.config.vocab_size"
            )
        n_listed = int(tokens.member.any(dim=0).sum())
        sums = torch.zeros(languages, layout.n_layers + 1, n_listed, dtype=torch.float64)
        return cls(layout, tokens, translators, sums, [])

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """The stream's counted rows at every depth."""
        return counted_rows(self.layout)

    def measure(self, batch: Batch, values: dict[Site, Tensor], hidden: Tensor) -> LensAddend:
        """The lens on every counted position of a batch."""
        states, owner = list(values.values()), batch.counted.nonzero()[:, 0]
        sums = torch.zeros(len(batch.documents), len(states), len(self.tokens.languages) + 2, dtype=torch.float64)
        probability = torch.zeros(self.probability.shape[1:], dtype=torch.float64)
        for start in range(0, len(owner), LENS_ROWS):
            rows = slice(start, start + LENS_ROWS)
            for depth, (probabilities, measures) in enumerate(self.read([state[rows] for state in states])):
                sums[:, depth].index_add_(0, owner[rows], measures)
                probability[depth] += probabilities
        return LensAddend(sums, probability)

    def add(self, batch: Batch, values: LensAddend) -> None:
        """Add a batch, whose documents are of one language."""
        language, positions = batch.documents[0].language, batch.counted.sum(dim=1).tolist()
        self.probability[language] += values.probability
        self.documents.extend((language, n, row) for n, row in zip(positions, values.sums, strict=True))

    def read(
        self, states: list[Float[Tensor, "row hidden"]]
    ) -> Iterator[tuple[Float64[Tensor, " vocab"], Float64[Tensor, "row measure"]]]:
        """Of some rows, at each depth: the listed tokens' probability summed, and mass by set, entropy, divergence."""
        in_a_list = self.tokens.member.any(dim=0)
        member = self.tokens.member[:, in_a_list].double()
        output_log_p = torch.log_softmax(lens_logits(self.layout, states[-1]).float(), dim=-1)
        for depth, state in enumerate(states):
            last = depth == len(states) - 1
            log_p = output_log_p if last else torch.log_softmax(
                lens_logits(self.layout, state, self.translators, depth).float(), dim=-1
            ).to(output_log_p.device)  # fmt: skip
            p = log_p.exp()
            chosen = p[:, in_a_list.to(p.device)].double().cpu()
            entropy = -(p * log_p).sum(dim=1).double().cpu()
            divergence = (
                torch.zeros_like(entropy)
                if last
                else (output_log_p.exp() * (output_log_p - log_p)).sum(dim=1).double().cpu()
            )
            yield chosen.sum(dim=0), torch.cat([chosen @ member.T, entropy[:, None], divergence[:, None]], dim=1)

    def finish(self, languages: tuple[Language, ...], *, draws: int, resamples: int, seed: int) -> LatentLanguage:
        """Means, intervals and the control."""
        generator, k = torch.Generator().manual_seed(seed), len(languages)
        n_sets = len(self.tokens.languages)
        positions = torch.tensor([sum(n for at, n, _ in self.documents if at == row) for row in range(k)])
        means, low, high = [], [], []
        for row in range(k):
            sums = torch.stack([document_sums for at, _, document_sums in self.documents if at == row])
            means.append(sums.sum(dim=0) / positions[row])
            resampled = draw_items(len(sums), resamples, generator)
            weight = torch.zeros(resamples, len(sums), dtype=torch.float64)
            weight.scatter_add_(1, resampled, torch.ones(resampled.shape, dtype=torch.float64))
            mass = torch.einsum("rd,dls->rls", weight, sums[..., :n_sets])
            share = mass / mass.sum(dim=2, keepdim=True)
            ends = torch.quantile(share, torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
            low.append(ends[0])
            high.append(ends[1])
        mean = torch.stack(means)
        if not bool(torch.isfinite(mean).all()):
            raise MeasurementError("the lens gave NaN or infinity; expected numbers; check the weights and dtype")
        mass = mean[..., :n_sets]
        null_share = self.control(draws, generator)
        share = mass / mass.sum(dim=2, keepdim=True)
        p = ((1 + (null_share >= share - SLACK).sum(dim=0)).double() / (draws + 1)).masked_fill(share.isnan(), math.nan)
        return LatentLanguage(
            languages=languages,
            tokens=self.tokens,
            sites=depth_sites(self.layout),
            mass=mass,
            low=torch.stack(low),
            high=torch.stack(high),
            null=null_share.mean(dim=0),
            p=p,
            entropy_nats=mean[..., n_sets],
            kl_nats=mean[..., n_sets + 1],
            positions=positions,
            tuned=self.translators is not None,
            draws=draws,
            seed=seed,
        )

    def control(self, draws: int, generator: torch.Generator) -> Float64[Tensor, "draw language depth set"]:
        """Shares under random assignments of the listed tokens."""
        in_a_list = self.tokens.member.any(dim=0)
        total = self.probability.sum(dim=2, keepdim=True)
        shuffled_share = [
            self.probability @ self.tokens.shuffled(generator)[:, in_a_list].double().T / total for _ in range(draws)
        ]
        return torch.stack(shuffled_share)
