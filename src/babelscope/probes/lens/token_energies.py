"""Token energy: how much of a latent lies where the output entries are, by depth (arXiv:2402.10588)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64, Tensor
from babelscope.controls import percentile_interval
from babelscope.controls.bootstrap_draws import draw_items
from babelscope.corpus import Document, tokenize_documents
from babelscope.errors import MeasurementError, refuse_one_text
from babelscope.models import Layout, layout_of
from babelscope.models.modes import eval_mode
from babelscope.models.plain import CausalModel
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.probes.streams import depth_sites, read_streams
from babelscope.sites import Site


@dataclass(frozen=True, eq=False)
class TokenEnergy:
    """Energy of the last token's latent by depth, over prompts."""

    __repr__ = shown_by()

    sites: tuple[Site, ...]
    energy: Float64[Tensor, "prompt depth"]
    null: float
    """Of a random direction: what a latent has that knows nothing of the head."""
    seed: int

    def rows(self, *, resamples: int = 200) -> list[SiteEvidence]:
        """One row per depth; intervals by bootstrap over prompts."""
        n = len(self.energy)
        resampled = draw_items(n, resamples, torch.Generator().manual_seed(self.seed))
        ends = [percentile_interval(self.energy[resampled, depth].mean(dim=1)) for depth in range(len(self.sites))]
        return [
            SiteEvidence(
                claim="token energy",
                language="",
                control="a random direction",
                n=n,
                estimate=float(self.energy[:, depth].mean()),
                low=interval.low,
                high=interval.high,
                draws=resamples,
                seed=self.seed,
                note="n in prompts",
                site=str(site),
                null=self.null,
            )
            for depth, (site, interval) in enumerate(zip(self.sites, ends, strict=True))
        ]


@torch.no_grad()
def token_energy(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], *, seed: int = 0
) -> TokenEnergy:
    """E(h) = √(mean_v cos²(u_v, h)) / √(mean_{v,w} cos²(u_v, u_w)) of the last token's latent h after each prompt.

    u_v: rows of the head times the gain of the final norm; h: the stream, about its mean where the norm takes that off.
    Near 1 a latent lies where the entries lie; a random direction has 1 / (√hidden · √mean cos²), given as `null`.
    Raises MeasurementError without a prompt.
    Source: Wendler et al. 2024, arXiv:2402.10588.
    """
    refuse_one_text(prompts, "prompts", MeasurementError)
    if not prompts:
        raise MeasurementError("no prompt came; expected at least one; give prompts")
    layout = layout_of(model)
    gain, centred = norm_gain(layout)
    rows = layout.head.weight.detach().double().cpu() * gain
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
    spread = rows.T @ rows / len(rows)
    scale = float(spread.norm())
    energies = []
    texts = [Document(str(number), text) for number, text in enumerate(prompts)]
    for document in tokenize_documents(tokenizer, texts, 0, max_length=100_000):
        ids = torch.tensor([document.tokens], device=next(model.parameters()).device)
        latents = torch.stack([state[0, -1].double().cpu() for state in read_streams(layout, ids)])
        if centred:
            latents = latents - latents.mean(dim=1, keepdim=True)
        latents = latents / latents.norm(dim=1, keepdim=True)
        energies.append(torch.einsum("dh,hk,dk->d", latents, spread, latents).sqrt() / scale)
    null = float((spread.trace() / len(spread)).sqrt() / scale)
    return TokenEnergy(depth_sites(layout), torch.stack(energies), null, seed)


def norm_gain(layout: Layout) -> tuple[Float64[Tensor, " hidden"], bool]:
    """What the final norm multiplies each unit by, up to one factor, and whether it takes the mean off first."""
    weight = layout.head.weight
    signs = torch.ones(weight.shape[1], dtype=weight.dtype, device=weight.device)
    signs[1::2] = -1  # of mean 0, so that a norm about the mean leaves it
    with eval_mode(layout.model):
        above, below, level = (
            layout.final(row[None])[0].double().cpu() for row in (signs, -signs, torch.ones_like(signs))
        )
    bias = (above + below) / 2
    return (above - below) / 2 * signs.double().cpu(), bool(torch.allclose(level, bias, atol=1e-4))
