"""Expert use by language, on tiny mixtures with planted routers."""

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from scipy.spatial.distance import jensenshannon

from babelscope import load_corpus, observe
from babelscope.errors import LanguageError, MeasurementError, SiteError
from babelscope.models import layout_of
from babelscope.probes.units.routing import jensen_shannon, routing_divergence, routing_use

ASCII = "".join(map(chr, range(128)))
FAMILIES = ["mixtral", "qwen3_moe", "olmoe"]


@pytest.fixture
def texts():
    return load_corpus("reference", ["en", "id", "ru"], split="valid").head(40)


def plant(model):
    """In layer 1, tokens that are no ASCII letter go to experts 2 and 3, the others to 0 and 1."""
    layout = layout_of(model)
    high = ~torch.isin(torch.arange(300), torch.tensor(tiny_tokenizer()(ASCII)["input_ids"]))
    with torch.no_grad():
        for layer in range(2):
            layout.layer(layer).self_attn.o_proj.weight.zero_()
        layout.experts(0).down_proj.zero_()
        embed = model.get_input_embeddings().weight
        embed[:, 0] = torch.where(high, 9.0, -9.0)
        router = layout.layer(1).get_submodule(layout.family.router).weight
        router.zero_()
        router[:, 0] = torch.tensor([-1.0, -0.9, 0.9, 1.0])
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_a_planted_router_is_found_in_its_layer_and_language(family, texts):
    use = routing_use(plant(tiny_model(family)), tiny_tokenizer(), texts)
    share = use.share
    # A byte of a Cyrillic letter is high; English and Indonesian bytes are low but for a few signs.
    assert share[2, 1, 2:].sum() > 0.7 and share[:2, 1, :2].sum(dim=1).min() > 0.97
    found = routing_divergence(use, draws=99, resamples=50)
    assert found.divergence[2, 1] > 0.4 and found.p[2, 1].item() == pytest.approx(0.01)
    assert found.low[2, 1] > found.null[2, 1] and found.divergence[2, 1] > 10 * found.divergence[1, 1]
    assert found.rows()[-1].language == "ru" and len(found.rows()) == 2 * 3


@pytest.mark.parametrize("family", FAMILIES)
def test_routed_tokens_equal_those_of_an_observation(family, texts):
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    use = routing_use(model, tokenizer, texts, tokens_per_language=500)
    observation = observe(model, tokenizer, texts, tokens_per_language=500)
    routed = observation["mlp_gate"].routed
    assert torch.equal(use.routed.permute(1, 2, 0), routed)
    assert torch.equal(use.routed.sum(dim=2), torch.full((3, 3), 500 * use.top_k))
    assert torch.allclose(use.share.sum(dim=2), torch.ones(3, 3, dtype=torch.float64))


def test_divergence_equals_scipys():
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.rand(20, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    p[:, 0] = 0
    p, q = p / p.sum(dim=1, keepdim=True), q / q.sum(dim=1, keepdim=True)
    witness = jensenshannon(p.numpy(), q.numpy(), base=2, axis=1) ** 2
    assert np.abs(jensen_shannon(p, q).numpy() - witness).max() < 1e-12
    one_hot = torch.eye(8, dtype=torch.float64)
    assert jensen_shannon(one_hot[:1], one_hot[1:2]).item() == 1.0


def test_a_language_read_twice_differs_from_itself_by_chance_only():
    corpus = load_corpus("reference", ["en"], split="train")["en"]
    texts = {"en": [d.text for d in corpus[:100]], "fi": [d.text for d in corpus[100:200]]}
    use = routing_use(tiny_model("mixtral"), tiny_tokenizer(), texts, tokens_per_language=None)
    found = routing_divergence(use, draws=199, resamples=50)
    assert (found.q[1] > 0.05).all()
    assert (found.divergence[1] < 4 * found.null[1]).all()
    assert found.divergence[0].max() == 0 and found.p[0].isnan().all()


def test_what_can_not_be_probed_is_refused(texts):
    tokenizer, model = tiny_tokenizer(), tiny_model("mixtral")
    with pytest.raises(SiteError, match="llama is dense"):
        routing_use(tiny_model("llama"), tokenizer, texts)
    use = routing_use(model, tokenizer, texts.only(["id", "ru"]))
    with pytest.raises(LanguageError, match="expected en and"):
        routing_divergence(use)
    with pytest.raises(MeasurementError, match="shards"):
        routing_divergence(routing_use(model, tokenizer, texts.head(5)), draws=9)
