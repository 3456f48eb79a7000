"""A tuned lens: one affine map a depth, from the stream there to the stream before the final norm."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from babelscope.axes import Float, Float32, Float64, Tensor
from babelscope.corpus import Texts, as_corpus
from babelscope.errors import MeasurementError
from babelscope.models import layout_of
from babelscope.probes.shard_sums import stream_batches
from babelscope.probes.streams import read_streams


@dataclass(frozen=True, eq=False)
class Translators:
    """Affine maps h ↦ A_d h + b_d, one a depth but the last, which needs none."""

    weight: Float32[Tensor, "depth hidden hidden2"]
    bias: Float32[Tensor, "depth hidden"]
    tokens: int
    """Positions they were fitted on."""
    explained: Float64[Tensor, " depth"]
    """Share of the last stream's variance that each map explains on the fitted text."""

    def apply(self, hidden: Float[Tensor, "*rows hidden"], depth: int) -> Float[Tensor, "*rows hidden"]:
        """Rows of the stream at a depth, moved to where the final norm reads; the last depth is left alone."""
        if depth == len(self.weight):
            return hidden
        weight, bias = self.weight[depth].to(hidden), self.bias[depth].to(hidden)
        return hidden @ weight.T + bias


@torch.no_grad()
def fit_translators(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    tokens_per_language: int | None = 5000,
    penalty: float = 1e-3,
    max_length: int = 512,
) -> Translators:
    """Fit a tuned lens by least squares in one streamed pass: what the last stream will be, given the one here.

    min over A, b of Σ ‖A h + b - h_last‖² + λ ‖A - I‖², λ = `penalty` times the mean over dimensions of Σ h²;
    a depth that tells nothing keeps the identity. Sums are float64: 16 · layers · hidden² bytes. Belrose et al. 2023
    (arXiv:2303.08112) train the same maps by gradient steps on the divergence of the outputs instead.
    Raises MeasurementError for fewer tokens than dimensions. Take other text than the one that is measured.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    hidden, depths = layout.d_hidden, layout.n_layers
    # The column of ones carries the bias.
    square = torch.zeros(depths, hidden + 1, hidden + 1, dtype=torch.float64)
    cross = torch.zeros(depths, hidden + 1, hidden, dtype=torch.float64)
    energy, moved, tokens = torch.zeros(hidden, dtype=torch.float64), torch.zeros(depths, dtype=torch.float64), 0
    total = torch.zeros(hidden, dtype=torch.float64)
    for batch in stream_batches(tokenizer, corpus, tokens_per_language=tokens_per_language, max_length=max_length):
        states = [state[batch.counted.to(state.device)].double().cpu() for state in read_streams(layout, batch)]
        last, tokens = states[-1], tokens + len(states[-1])
        energy += last.square().sum(dim=0)
        total += last.sum(dim=0)
        for depth, state in enumerate(states[:-1]):
            wide = torch.cat([state, torch.ones(len(state), 1, dtype=torch.float64)], dim=1)
            square[depth] += wide.T @ wide
            cross[depth] += wide.T @ (last - state)
            moved[depth] += (last - state).square().sum()
    if tokens <= hidden:
        raise MeasurementError(f"{tokens} tokens came for {hidden} dimensions; expected more tokens; give more text")
    variance = (energy - total.square() / tokens).sum()
    weights, biases, explained = [], [], []
    for depth in range(depths):
        ridge = torch.eye(hidden + 1, dtype=torch.float64) * penalty * square[depth].diagonal()[:-1].mean()
        ridge[-1, -1] = 0
        move = torch.linalg.solve(square[depth] + ridge, cross[depth])
        residual = moved[depth] - 2 * (move * cross[depth]).sum() + (move * (square[depth] @ move)).sum()
        weights.append(torch.eye(hidden, dtype=torch.float64) + move[:-1].T)
        biases.append(move[-1])
        explained.append(1 - residual / variance)
    return Translators(torch.stack(weights).float(), torch.stack(biases).float(), tokens, torch.stack(explained))
