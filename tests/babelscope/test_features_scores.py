"""Thresholds of features where counts lie exactly on them, and sums of activations that are no numbers."""

import math

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from babelscope import Site, layout_of
from babelscope.artifacts.sae import LoadedSAE
from babelscope.errors import MeasurementError
from babelscope.features import FeatureCounts, LangFIR
from babelscope.features.passes import observe_features


def langfir(fired, tokens, present, documents, random_fired, random_tokens, **given):
    value = torch.zeros(fired.shape, dtype=torch.float64)
    silent = torch.zeros_like(fired), torch.ones_like(tokens)
    counts = FeatureCounts(fired, tokens, present, documents, value, random_fired, random_tokens, *silent)
    return LangFIR(**given, min_count=0, cap=None).select(counts)


@pytest.mark.parametrize("ratio", [3, 7, 1.1])
def test_a_rate_of_exactly_the_ratio_times_the_random_rate_is_enough(ratio):
    for random_fired in range(1, 40):
        fired = round(10 * ratio * random_fired)
        counts = [torch.tensor([[fired], [fired - 1]]), torch.tensor([3000]), torch.full((2, 1), 5), torch.tensor([5])]
        noise = torch.full((2, 1), random_fired), torch.tensor([300])
        choice = langfir(*counts, *noise, tau=1, ratio=ratio)
        assert choice.mask.tolist() == [[True, False]], random_fired


def test_a_share_of_exactly_tau_of_the_documents_is_enough():
    for documents in range(10, 2000, 10):
        for tau in (0.1, 0.3, 0.7, 0.9):
            present = round(tau * documents)
            seen = torch.tensor([[present], [present - 1]])
            counts = torch.ones_like(seen), torch.tensor([10]), seen, torch.tensor([documents])
            choice = langfir(*counts, torch.zeros_like(seen), torch.tensor([10]), tau=tau, ratio=math.inf)
            assert choice.counted["consistent"].tolist() == [[True, False]]


@pytest.mark.parametrize("activation", ["relu", "jumprelu", "topk"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_activation_that_is_no_number_stops_the_pass(activation, bad):
    model, k = tiny_model("llama"), 4 if activation == "topk" else 0
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator) for shape in ((32, 20), (20,), (20, 32), (32,))]
    sae = LoadedSAE("made", Site(1, "resid_out"), *weights, activation, torch.zeros(20), k)

    def spoil(module, args, output):
        return output.index_fill(1, torch.tensor([3]), bad)

    hook = layout_of(model).layer(1).register_forward_hook(spoil)
    with pytest.raises(MeasurementError, match="NaN or infinity"):
        observe_features(model, tiny_tokenizer(), {"en": ["one two three"], "fi": ["yksi kaksi"]}, sae, shards=0)
    hook.remove()
