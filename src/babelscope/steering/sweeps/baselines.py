"""Random directions of the residual stream's own covariance."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Direction
from babelscope.artifacts.stream import without_units
from babelscope.axes import Float32, Float64, Tensor
from babelscope.corpus import Batch, Texts, as_corpus, token_windows
from babelscope.errors import MeasurementError
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.recording.site_sums import first_tokens
from babelscope.recording.walk import walk
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.sites import Site


def random_directions(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    site: Site,
    *,
    draws: int = 10,
    tokens_per_language: int = 500,
    seed: int = 0,
    like: Direction | None = None,
) -> Float32[Tensor, "draw hidden"]:
    """Unit vectors drawn from N(0, Σ), Σ the covariance of the site's values over the text.

    Each draw is Σ_i g_i (h_i − mean) over tokens i with standard normal g_i, which has covariance Σ without Σ being
    built. Isotropic directions would be too easy a control: most of them leave the subspace that the model uses.
    like: the direction that the draws stand beside. Of an ordinary one, first tokens are not read and the massive units
    it leaves out are zero, so that both lie in the same subspace; None, and a whole one, take all tokens and units.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    ordinary = like is not None and like.form == "ordinary"
    mixed = MixedTokens.zeros(site, draws, layout.width(site.at), ordinary, seed)
    length = text_length(layout, None)
    windows = token_windows(tokenizer, corpus, tokens_per_language=tokens_per_language, max_length=length)
    walk(layout, windows, [mixed])
    if not mixed.count:
        raise MeasurementError(f"'{site}': first tokens only; expected longer documents; hand over some")
    vectors = mixed.weighted - mixed.weights[:, None] * (mixed.total / mixed.count)
    vectors = without_units(vectors, like.left_out if like is not None and ordinary else ())
    return (vectors / vectors.norm(dim=1, keepdim=True)).float()


@dataclass(eq=False)
class MixedTokens:
    """Tokens of one site mixed by standard normal numbers, which are drawn as the batches come."""

    site: Site
    ordinary: bool
    """Whether first tokens are left out."""
    generator: torch.Generator
    weighted: Float64[Tensor, "draw hidden"]
    """Σ_i g_i h_i."""
    weights: Float64[Tensor, " draw"]
    """Σ_i g_i."""
    total: Float64[Tensor, " hidden"]
    """Σ_i h_i."""
    count: int = 0

    @classmethod
    def zeros(cls, site: Site, draws: int, width: int, ordinary: bool, seed: int) -> "MixedTokens":
        """Nothing read yet."""
        return cls(
            site=site,
            ordinary=ordinary,
            generator=torch.Generator().manual_seed(seed),
            weighted=torch.zeros(draws, width, dtype=torch.float64),
            weights=torch.zeros(draws, dtype=torch.float64),
            total=torch.zeros(width, dtype=torch.float64),
        )

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """The tokens that are mixed."""
        return {self.site: self.read}

    def read(self, batch: Batch, site_value: SiteValue) -> Float64[Tensor, "row hidden"]:
        """The counted tokens, or the ordinary ones of them."""
        counted = site_value.counted & ~first_tokens(site_value.counted) if self.ordinary else site_value.counted
        return site_value._replace(counted=counted).rows().cpu().double()

    def add(self, batch: Batch, values: dict[Site, Float64[Tensor, "row hidden"]]) -> None:
        """Mix in a batch."""
        rows = values[self.site]
        gauss = torch.randn(len(self.weights), len(rows), generator=self.generator, dtype=torch.float64)
        self.weighted += gauss @ rows
        self.total += rows.sum(dim=0)
        self.weights += gauss.sum(dim=1)
        self.count += len(rows)
