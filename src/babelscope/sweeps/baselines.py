"""Random directions of the residual stream's own covariance."""

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Direction
from babelscope.artifacts.stream import without_units
from babelscope.axes import Float32, Tensor
from babelscope.corpus import Texts, as_corpus, batch_documents, limit_tokens, tokenize_documents
from babelscope.errors import MeasurementError
from babelscope.models import layout_of
from babelscope.models.measuring import run_pass
from babelscope.models.plain import CausalModel
from babelscope.recording.sums import first_tokens
from babelscope.sites import Site


@torch.no_grad()
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
    layout, generator = layout_of(model), torch.Generator().manual_seed(seed)
    ordinary = like is not None and like.form == "ordinary"
    width = layout.width(site.at)
    weighted = torch.zeros(draws, width, dtype=torch.float64)
    total, weights, count = torch.zeros(width, dtype=torch.float64), torch.zeros(draws, dtype=torch.float64), 0
    for k, documents in enumerate(as_corpus(texts).values()):
        tokens = tokenize_documents(tokenizer, documents[:tokens_per_language], k, max_length=512)
        for batch in batch_documents(limit_tokens(tokens, tokens_per_language), batch_tokens=4096, pad=0):
            seen: list[Tensor] = []
            with layout.watch(site, lambda value, sign, routes, seen=seen: seen.append(value)):
                run_pass(layout, batch.input_ids, batch.attention_mask)
            read = batch.counted & ~first_tokens(batch.counted) if ordinary else batch.counted
            rows = seen[0].cpu().flatten(2).double()[read]
            gauss = torch.randn(draws, len(rows), generator=generator, dtype=torch.float64)
            weighted += gauss @ rows
            total += rows.sum(dim=0)
            weights += gauss.sum(dim=1)
            count += len(rows)
    if not count:
        raise MeasurementError(f"'{site}': first tokens only; expected longer documents; hand over some")
    vectors = weighted - weights[:, None] * (total / count)
    vectors = without_units(vectors, like.left_out if like is not None and ordinary else ())
    return (vectors / vectors.norm(dim=1, keepdim=True)).float()
