"""How much of a model's stream an autoencoder keeps, and what the model loses where it takes the stream's place."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from babelscope_kernels.sae_counts import sae_counts, sae_topk_counts
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.sae import LoadedSAE
from babelscope.axes import Float, Float64, Int64, Tensor
from babelscope.corpus import Batch, Texts, prefix_of, row_start
from babelscope.errors import MeasurementError
from babelscope.evaluation import HeldOut, document_losses
from babelscope.features.loading import check_fits
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.recording.site_sums import first_tokens
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.sites import Site


@dataclass(frozen=True, eq=False)
class SaeQuality:
    """An autoencoder on held-out text; every figure is over counted tokens, BOS out."""

    tokens: int
    """Tokens whose activations were read, of all languages."""
    explained_variance: float
    """1 - Σ|x - x̂|² / Σ|x - mean|², sums over all tokens."""
    l0: float
    """Features that fire on a token, on average."""
    dead_share: float
    """Share of features that fire on none of these tokens."""
    loss: dict[Language, float]
    """Nats a token of the model as it is."""
    spliced: dict[Language, float]
    """The same with the reconstruction in the place of the activation, what begins a row left as it is."""
    averaged: dict[Language, float]
    """The same with the mean activation of all tokens in its place: what is lost where nothing is kept."""

    @property
    def loss_change(self) -> float:
        """Mean over languages of nats per token added by the splice."""
        return sum(self.spliced[tag] - self.loss[tag] for tag in self.loss) / len(self.loss)

    @property
    def recovered(self) -> float:
        """1 - Σ(spliced - loss) / Σ(averaged - loss) over languages: 1 is no loss, 0 as bad as the mean."""
        worst = sum(self.averaged[tag] - self.loss[tag] for tag in self.loss)
        return 1 - sum(self.spliced[tag] - self.loss[tag] for tag in self.loss) / worst


def firing_counts(
    sae: LoadedSAE, rows: Float[Tensor, "row hidden"], label: Int64[Tensor, " row"], n_labels: int
) -> tuple[Int64[Tensor, "label feature"], Int64[Tensor, " row"]]:
    """On how many rows of each label each feature fires, and how many fire on each row, by the kernel `sae_counts`."""
    label_settings = {"languages": label, "n_languages": n_labels}
    scaled = sae.scaled(rows)
    if sae.activation == "topk":
        firing = sae_topk_counts(scaled, sae.w_enc, sae.b_enc, k=sae.k, **label_settings)
    else:
        firing = sae_counts(scaled, sae.w_enc, sae.b_enc, threshold=sae.threshold, also=("active",), **label_settings)
    if firing.active is None:
        raise MeasurementError("sae_counts gave no count by token; expected it; reinstall babelscope")
    return firing.counts, firing.active


def measure_sae(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    sae: LoadedSAE,
    texts: Texts,
    *,
    max_tokens: int | None = None,
    max_length: int | None = None,
) -> SaeQuality:
    """Explained variance, L0, dead share, and the loss with the reconstruction spliced in.

    max_tokens: scored tokens per language at most, whole documents. The tokens that count are the scored ones: all but
    BOS and other special ones. What begins a row (`row_start`: BOS, or where the tokenizer puts none the first token)
    is left as it is; that first token is in the losses, and in no sum over activations.
    Raises MeasurementError for one token, which has no variance to explain.
    """
    layout = layout_of(model)
    max_length = text_length(layout, max_length)
    check_fits(sae, layout)
    sae = sae.to(layout.device_of(sae.site))
    held_out = HeldOut.prepare(tokenizer, texts, max_length=max_length, max_tokens=max_tokens)
    spare = row_start(tokenizer)
    sums = KeptSums.zeros(sae, first_counts=spare == len(prefix_of(tokenizer)))
    loss = {part.language: document_losses(layout, part, watchers=[sums]).nats_per_token for part in held_out}
    if sums.tokens < 2:
        raise MeasurementError("one token was read; expected two or more, for a variance to explain; add text")
    mean = sums.total / sums.tokens

    def replaced(new: Callable[[Tensor], Tensor]) -> dict[Language, float]:
        with in_place(layout, sae.site, new, spare):
            return {part.language: document_losses(layout, part).nats_per_token for part in held_out}

    return SaeQuality(
        tokens=sums.tokens,
        explained_variance=1 - sums.missed / float(sums.square - mean @ mean * sums.tokens),
        l0=sums.active / sums.tokens,
        dead_share=float((sums.fired == 0).double().mean()),
        loss=loss,
        spliced=replaced(sae.reconstruct),
        averaged=replaced(lambda x: mean.to(x).expand_as(x)),
    )


class TokenSums(NamedTuple):
    """What some tokens add."""

    fired: Int64[Tensor, " feature"]
    total: Float64[Tensor, " hidden"]
    square: float
    missed: float
    active: int
    tokens: int


@dataclass(eq=False)
class KeptSums:
    """Running sums over tokens."""

    sae: LoadedSAE
    fired: Int64[Tensor, " feature"]
    total: Float64[Tensor, " hidden"]
    square: float = 0.0
    """Σ|x|²."""
    missed: float = 0.0
    """Σ|x - x̂|²."""
    active: int = 0
    tokens: int = 0
    first_counts: bool = True
    """Whether a document's first counted token is read; not so where it begins its row."""

    @classmethod
    def zeros(cls, sae: LoadedSAE, first_counts: bool = True) -> "KeptSums":
        """Nothing read yet."""
        device = sae.w_enc.device
        fired = torch.zeros(sae.n_features, dtype=torch.int64, device=device)
        total = torch.zeros(sae.d_hidden, dtype=torch.float64, device=device)
        return cls(sae, fired, total, first_counts=first_counts)

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """The autoencoder's own site."""
        return {self.sae.site: self.read}

    def read(self, batch: Batch, site_value: SiteValue) -> TokenSums:
        """What a batch's counted tokens add."""
        rows = site_value.rows().float()
        if not self.first_counts:
            rows = rows[(~first_tokens(batch.counted))[batch.counted].to(rows.device)]
        label = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        counts, active = firing_counts(self.sae, rows, label, 1)
        x = rows.double()
        return TokenSums(
            fired=counts[0],
            total=x.sum(dim=0),
            square=float((x * x).sum()),
            missed=float((x - self.sae.reconstruct(rows).double()).square().sum()),
            active=int(active.sum()),
            tokens=len(rows),
        )

    def add(self, batch: Batch, values: dict[Site, TokenSums]) -> None:
        """Add a batch."""
        sums = values[self.sae.site]
        self.fired += sums.fired
        self.total += sums.total
        self.square += sums.square
        self.missed += sums.missed
        self.active += sums.active
        self.tokens += sums.tokens


@contextmanager
def in_place(layout: Layout, site: Site, new: Callable[[Tensor], Tensor], spare_first: int) -> Iterator[None]:
    """While open, `new(x)` takes the place of the activation at a site, but at the first tokens that are spared."""

    def change(value: Tensor) -> Tensor:
        replacement = new(value.flatten(2)).reshape(value.shape)
        return torch.cat([value[:, :spare_first], replacement[:, spare_first:]], dim=1)

    with layout.edit(site, change):
        yield
