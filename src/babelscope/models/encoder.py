"""Models that read and do not write, as XLM-R does, or as the encoder of mT5 or NLLB: what each layer gives."""

from dataclasses import dataclass

import torch
from torch import nn

from babelscope.axes import Float, Int, Tensor
from babelscope.models.device_placement import device_of
from babelscope.models.modes import eval_mode
from babelscope.sites import Site
from babelscope.upstream.encoders import reading_part, run_encoder


@dataclass(frozen=True, eq=False)
class Encoder:
    """An encoder, read by its layers' outputs alone; nothing in it is written to.

    Its states are those that transformers hands out: what the embeddings give, after a norm in BERT and its kin, and
    then each layer; in T5 and mT5 the last one is after the final norm.
    """

    model: nn.Module
    n_layers: int
    d_hidden: int

    @property
    def sites(self) -> tuple[Site, ...]:
        """Of the states: before the first layer, and after every layer."""
        return (Site(0, "resid_in"), *(Site(layer, "resid_out") for layer in range(self.n_layers)))

    def device_of(self, site: Site) -> torch.device:
        """Device of its weights; it must be on one."""
        return device_of(self.model)

    def run(
        self, ids: Int[Tensor, "batch token"], mask: Int[Tensor, "batch token"]
    ) -> tuple[Float[Tensor, "batch token hidden"], ...]:
        """The states of one pass, by site; pads are where the mask is 0."""
        device = device_of(self.model)
        return run_encoder(self.model, ids.to(device), mask.to(device))


def encoder_of(model: nn.Module) -> Encoder:
    """The part of a model that reads, measured by a pass of one token; raises SiteError for a model without one."""
    part = reading_part(model)
    token = torch.zeros(1, 1, dtype=torch.int64, device=device_of(part))
    with torch.no_grad(), eval_mode(part):
        states = run_encoder(part, token, torch.ones_like(token))
    return Encoder(part, len(states) - 1, states[0].shape[-1])
