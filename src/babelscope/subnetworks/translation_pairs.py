"""Alignment of translations as a training objective: mean states of one layer, drawn together by a contrastive loss."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.storage import hash_text
from babelscope.axes import Bool, Float, Int64, Tensor
from babelscope.corpus import Corpus, TokenDocument, pad_of, tokenize_documents
from babelscope.errors import CorpusError, MeasurementError
from babelscope.languages import Language
from babelscope.models import Layout
from babelscope.sites import Site
from babelscope.subnetworks.row_steering import RowSteering, rows_with

ContrastDirection = Literal["symmetric", "one-sided"]


class PairBatch(NamedTuple):
    """Translations for one step; row i of both sides means the same."""

    first: "PaddedSentences"
    second: "PaddedSentences"


class PaddedSentences(NamedTuple):
    """Sentences of a batch, padded on the right."""

    input_ids: Int64[Tensor, "row token"]
    counted: Bool[Tensor, "row token"]
    """Tokens of the mean: no pad, and nothing that only begins a text."""
    real: Bool[Tensor, "row token"]
    """False at pads."""
    languages: tuple[Language, ...]
    """Of the rows."""


@dataclass(frozen=True, eq=False)
class ParallelPairs:
    """Sentences that mean the same in several languages, as pairs with one language; a batch is a function of its step.

    Every epoch has each sentence once, in a new order, beside its translation into one of the other languages, which
    take turns: no batch has a sentence twice, or its own translation would be among the wrong ones.
    """

    against: tuple[TokenDocument, ...]
    """Of the language that all others are paired with."""
    translations: tuple[tuple[TokenDocument, ...], ...]
    """By language, in the order of the sentences."""
    languages: tuple[Language, ...]
    """The first of `against`, the others of `translations`."""
    pad: int
    seed: int = 0

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        texts: Corpus,
        *,
        against: str = "en",
        max_length: int = 256,
        seed: int = 0,
    ) -> "ParallelPairs":
        """Tokenize parallel text; raises CorpusError for text that is not, or without `against` or another language."""
        if against not in texts or len(texts) < 2 or not texts.parallel:
            raise CorpusError(
                f"{texts.name}: {', '.join(texts)} came, {'parallel' if texts.parallel else 'not parallel'}; expected "
                f"parallel text of {against} and another language; give such text"
            )
        sides = [tokenize_documents(tokenizer, text, 0, max_length=max_length) for text in texts.values()]
        complete = [place for place in range(len(sides[0])) if all(side[place].n_counted for side in sides)]
        if len(complete) < 2:
            raise CorpusError(
                f"{texts.name}: {len(complete)} sentences have tokens in all languages; expected at least 2"
            )
        by_tag = {tag: tuple(side[place] for place in complete) for tag, side in zip(texts, sides, strict=True)}
        translations = {tag: side for tag, side in by_tag.items() if tag != against}
        base, first = next((tag, side) for tag, side in by_tag.items() if tag == against)
        return cls(first, tuple(translations.values()), (base, *translations), pad_of(tokenizer), seed)

    def shuffled(self, seed: int = 0) -> "ParallelPairs":
        """The same sentences with wrong partners, the same ones in every epoch: the control of alignment."""
        order = torch.randperm(len(self.against), generator=torch.Generator().manual_seed(seed)).tolist()
        # Each takes the partner of the next one in a random circle, so that none keeps its own.
        partner = dict(zip(order, order[1:] + order[:1], strict=True))
        translations = tuple(tuple(side[partner[place]] for place in range(len(side))) for side in self.translations)
        return replace(self, translations=translations)

    def batch(self, number: int, size: int) -> PairBatch:
        """The number-th batch of so many pairs; the pairs that are left over at the end of an epoch are not read."""
        per_epoch = max(1, len(self.against) // size)
        epoch, index = divmod(number, per_epoch)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.against), generator=generator).tolist()[index * size : (index + 1) * size]
        turns = [(place + epoch) % len(self.translations) for place in order]
        second = [self.translations[turn][place] for turn, place in zip(turns, order, strict=True)]
        base, *others = self.languages
        return PairBatch(
            self._side([self.against[place] for place in order], [base] * len(order)),
            self._side(second, [others[turn] for turn in turns]),
        )

    def _side(self, documents: Sequence[TokenDocument], languages: Sequence[Language]) -> PaddedSentences:
        width = max(len(document.tokens) for document in documents)
        ids = torch.full((len(documents), width), self.pad)
        counted = torch.zeros(ids.shape, dtype=torch.bool)
        real = torch.zeros(ids.shape, dtype=torch.bool)
        for row, document in enumerate(documents):
            length = len(document.tokens)
            ids[row, :length] = torch.tensor(document.tokens)
            counted[row, :length] = torch.tensor(document.counted)
            real[row, :length] = True
        return PaddedSentences(ids, counted, real, tuple(languages))


@dataclass(frozen=True)
class Contrast:
    """The contrastive objective: every `spacing`-th step draws translations together and is no step of text.

    Source: Liu and Niehues 2025, arXiv:2502.14830 (temperature 0.1, the middle layer, steps in turn with the task's).
    Differs: symmetric unless asked for one side, and the layer is chosen by retrieval on held-out pairs.
    """

    layer: int
    """Whose outputs are aligned; later layers are not run in these steps."""
    temperature: float = 0.1
    spacing: int = 2
    """1: every step, and no text is trained."""
    size: int = 32
    """Pairs of a step; the other pairs of the batch are the wrong answers of each."""
    direction: ContrastDirection = "symmetric"
    """one-sided: only the first language looks for its translation, and the second one's states are held still."""

    def __post_init__(self) -> None:
        if self.layer < 0 or not self.temperature > 0 or self.spacing < 1 or self.size < 2:
            raise MeasurementError(
                f"{self} came; expected a layer from 0, a temperature above 0, every step or less often, and two pairs "
                "or more; correct it"
            )


@dataclass(frozen=True, eq=False)
class ContrastSteps:
    """The steps of a training that align pairs."""

    contrast: Contrast
    pairs: ParallelPairs

    def check(self, layout: Layout, trained: Sequence[int] = ()) -> None:
        """Raise MeasurementError where the model has no such layer, nothing below is trained, or pairs are too few.

        trained: layers whose MLPs hold trained neurons; empty where parameters themselves are trained.
        """
        if self.contrast.layer >= layout.n_layers:
            raise MeasurementError(
                f"layer {self.contrast.layer} came; the model has layers 0–{layout.n_layers - 1}; take one of them"
            )
        if self.contrast.layer < min(trained, default=0):
            raise MeasurementError(
                f"layer {self.contrast.layer} came, and no neuron of it or below is trained; the lowest trained ones "
                f"are in layer {min(trained)}; take that layer or a later one"
            )
        if len(self.pairs.against) < self.contrast.size:
            raise MeasurementError(
                f"{len(self.pairs.against)} pairs came for steps of {self.contrast.size}; expected as many at least; "
                "add pairs or lower the size"
            )
        sides = (self.pairs.against, *self.pairs.translations)
        layout.check_tokens(torch.tensor([max((document.tokens for side in sides for document in side), key=len)]))

    def due(self, step: int) -> bool:
        """Whether the step-th update, from 0, aligns pairs."""
        return step % self.contrast.spacing == self.contrast.spacing - 1

    def before(self, step: int) -> int:
        """Updates before this one that align pairs."""
        return step // self.contrast.spacing

    def backward(self, layout: Layout, step: int, steering: RowSteering | None = None) -> tuple[float, int]:
        """Loss of the step, whose gradient is added, and the tokens fed; both sides run as their languages do."""
        batch = self.pairs.batch(self.before(step), self.contrast.size)
        means = []
        for side in batch:
            with rows_with(steering, side.languages):
                means.append(mean_states(layout, side, self.contrast.layer))
        loss = contrastive_loss(*means, temperature=self.contrast.temperature, direction=self.contrast.direction)
        loss.backward()
        return float(loss.detach()), sum(int(side.real.sum()) for side in batch)

    def facts(self) -> dict[str, Any]:
        """What decides these steps, as JSON: for fingerprints and cards."""
        sides = (self.pairs.against, *self.pairs.translations)
        tokens = json.dumps([[document.tokens for document in side] for side in sides])
        return {**asdict(self.contrast), "pairs": len(self.pairs.against), "pairs_hash": hash_text(tokens)}


def contrastive_loss(
    first: Float[Tensor, "pair hidden"],
    second: Float[Tensor, "pair hidden"],
    *,
    temperature: float = 0.1,
    direction: ContrastDirection = "symmetric",
) -> Float[Tensor, ""]:
    """−mean_i log softmax_j(cos(first_i, second_j) / temperature) at j = i, in nats: the other pairs are wrong answers.

    symmetric: the mean of this and of the same with both sides changed over; one-sided: this alone, with `second` held
    still. ln(pairs) where all cosines are equal. Source: InfoNCE, van den Oord et al. 2018, arXiv:1807.03748.
    """
    targets = torch.arange(len(first), device=first.device)
    if direction == "one-sided":
        second = second.detach()
    similarity = F.normalize(first, dim=1) @ F.normalize(second.to(first.device), dim=1).T / temperature
    loss = F.cross_entropy(similarity, targets)
    return loss if direction == "one-sided" else (loss + F.cross_entropy(similarity.T, targets)) / 2


class LayerReached(Exception):
    """Ends a forward pass behind the last layer that is wanted; never leaves `stream_after`."""


def stream_after(
    layout: Layout, layer: int, ids: Int64[Tensor, "row token"], mask: Bool[Tensor, "row token"] | None = None
) -> Float[Tensor, "row token hidden"]:
    """The output of a layer, with its gradient; later layers are not run."""
    streams: list[Tensor] = []

    def see(value: Tensor, sign: Tensor, routes: Tensor | None) -> None:
        streams.append(value)
        raise LayerReached

    with layout.watch(Site(layer, "resid_out"), see), suppress(LayerReached):
        layout.run(ids, mask=None if mask is None or bool(mask.all()) else mask.to(torch.int64))
    return streams[0]


def mean_states(layout: Layout, side: PaddedSentences, layer: int) -> Float[Tensor, "row hidden"]:
    """Mean of a layer's output over the counted tokens of each sentence, in float32."""
    stream = stream_after(layout, layer, side.input_ids, side.real).float()
    weights = side.counted.to(stream.device, torch.float32)
    return torch.einsum("rt,rth->rh", weights / weights.sum(dim=1, keepdim=True), stream)
