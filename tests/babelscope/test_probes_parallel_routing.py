"""Routing of translations, on a tiny mixture: outer layers read the language, the middle one reads the content."""

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from scipy.spatial.distance import jensenshannon

from babelscope import load_corpus
from babelscope.errors import CorpusError, MeasurementError, SiteError
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.probes import ProbeJob, probe_findings
from babelscope.probes.units.parallel_routing import middle_layers, shared_routing
from babelscope.probes.units.sentence_routes import ParallelRouting, record_routing

LETTERS = {"en": ("abcdef", "uvwxyz"), "ru": ("ABCDEF", "UVWXYZ")}
"""Of the two contents in both languages; one byte each."""


def planted(sentences=24, length=12):
    """A model and parallel text."""
    model, tokenizer = tiny_model("qwen3_moe"), tiny_tokenizer()
    layout, rng = layout_of(model), np.random.default_rng(0)
    with torch.no_grad():
        embed = model.get_input_embeddings().weight
        embed.zero_()
        for language, contents in enumerate(LETTERS.values()):
            for content, letters in enumerate(contents):
                ids = tokenizer(letters, add_special_tokens=False)["input_ids"]
                embed[ids, 0], embed[ids, 1] = 2.0 * language - 1, 2.0 * content - 1
        for layer in range(3):
            layout.layer(layer).self_attn.o_proj.weight.zero_()
            layout.experts(layer).down_proj.zero_()
            router = layout.layer(layer).get_submodule(layout.family.router).weight
            router.zero_()
            router[:, int(layer == 1)] = torch.tensor([-1.0, -0.9, 0.9, 1.0])
    content = rng.integers(0, 2, sentences)
    texts = {
        tag: ["".join(rng.choice(list(contents[kind]), length)) for kind in content]
        for tag, contents in LETTERS.items()
    }
    return model, tokenizer, texts


def test_the_middle_that_translations_share_is_told_from_layers_that_split_languages():
    shared = shared_routing(record_routing(*planted()), draws=99, resamples=50)
    divergence, overlap = shared.mean["divergence"][1], shared.mean["overlap"][1]
    assert divergence[1] < 1e-6 < 0.4 < divergence[0] and divergence[2] > 0.4
    assert overlap.tolist() == [0, 1, 0]
    assert shared.p["divergence"][1, 1] == pytest.approx(0.01) and shared.p["overlap"][1, 1] == pytest.approx(0.01)
    # In the outer layers a translation is no nearer than any other sentence.
    assert shared.p["overlap"][1, 0] == 1 and shared.null["overlap"][1, 1] < 0.7
    contrast = shared.contrasts["ru"]
    assert contrast.estimate > 0.4 and contrast.p_pairs == pytest.approx(0.01) and contrast.low > contrast.null_pairs
    # Three layers have three orders: no p below a third, and none is claimed.
    assert 0.2 < contrast.p_layers < 0.5
    rows = shared.rows()
    assert [row.control for row in rows[:2]] == ["layers in random order", "sentences paired at random"]
    assert len(rows) == 2 + 2 * 3 + 2 * 2 * 3


def test_what_routers_do_with_a_sentence_equals_plain_transformers():
    model, tokenizer = tiny_model("mixtral"), tiny_tokenizer()
    texts = load_corpus("reference", ["en", "ru"], split="valid").head(4)
    record = record_routing(model, tokenizer, texts)
    for k, documents in enumerate(texts.values()):
        for i, document in enumerate(documents):
            ids = torch.tensor([tokenizer(document.text)["input_ids"]])
            with torch.no_grad():
                scores = model(ids, output_router_logits=True).router_logits
            for layer in range(3):
                score = scores[layer].double().numpy()[1:]  # without BOS
                share = np.exp(score - score.max(1, keepdims=True))
                share /= share.sum(1, keepdims=True)
                sets = [set(np.argsort(-row)[:2].tolist()) for row in score]
                pairs = [len(a & b) / 2 for x, a in enumerate(sets) for y, b in enumerate(sets) if x != y]
                picks = np.bincount([e for chosen in sets for e in chosen], minlength=4) / (2 * len(sets))
                entropy = -(share * np.log(share)).sum(1).mean() / np.log(4)
                assert np.abs(record.weights[k, layer, i].numpy() - share.mean(0)).max() < 1e-6
                assert np.abs(record.picks[k, layer, i].numpy() - picks).max() < 1e-12
                assert record.entropy[k, layer, i].item() == pytest.approx(entropy, abs=1e-6)
                assert record.consistency[k, layer, i].item() == pytest.approx(np.mean(pairs), abs=1e-12)


def test_divergence_and_overlap_of_pairs_equal_scipys_and_intervals_hold_them():
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(2, 2, 5, 6, 8, generator=generator, dtype=torch.float64)
    shares /= shares.sum(dim=-1, keepdim=True)
    blank = torch.zeros(2, 5, 6, dtype=torch.float64)
    record = ParallelRouting((Language("en"), Language("fi")), shares[0], shares[1], blank, blank)
    shared = shared_routing(record, draws=19, resamples=99)
    witness = jensenshannon(shares[0, 0].numpy(), shares[0, 1].numpy(), base=2, axis=2) ** 2
    assert np.abs(shared.mean["divergence"][1].numpy() - witness.mean(1)).max() < 1e-12
    overlap = np.minimum(shares[1, 0].numpy(), shares[1, 1].numpy()).sum(2)
    assert np.abs(shared.mean["overlap"][1].numpy() - overlap.mean(1)).max() < 1e-12
    for name in ("divergence", "overlap"):
        assert (shared.low[name][1] < shared.mean[name][1]).all() and (
            shared.mean[name][1] < shared.high[name][1]
        ).all()
    by_hand = witness.mean(1)[[0, 4]].mean() - witness.mean(1)[1:4].mean()
    assert shared.contrasts["fi"].estimate == pytest.approx(by_hand, abs=1e-12)


def test_the_probe_adds_translations_for_parallel_text_alone(tmp_path):
    model, tokenizer, _ = planted()
    texts = load_corpus("reference", ["en", "ru"], split="valid").head(40)
    job = ProbeJob(model, tokenizer, texts, texts, "en", 8, 0)
    parallel = probe_findings("routing", job)
    assert {"divergence", "translations", "entropy", "consistency"} == set(parallel.figures)
    assert any(row.claim.startswith("translations are routed") for row in parallel.rows)
    lines = {tag: [document._replace(id=f"{tag}{document.id}") for document in part] for tag, part in texts.items()}
    other = ProbeJob(model, tokenizer, texts.derived({t: tuple(d) for t, d in lines.items()}, "x"), texts, "en", 8, 0)
    assert set(probe_findings("routing", other).figures) == {"divergence"}


def test_what_has_no_experts_no_translations_or_no_middle_is_refused():
    model, tokenizer, texts = planted(4)
    with pytest.raises(SiteError, match="llama is dense"):
        record_routing(tiny_model("llama"), tokenizer, texts)
    with pytest.raises(CorpusError, match="documents"):
        record_routing(model, tokenizer, {"en": texts["en"], "ru": texts["ru"][:2]})
    with pytest.raises(MeasurementError, match="2 layers"):
        middle_layers(2)
    with pytest.raises(MeasurementError, match="3 parallel sentences"):
        shared_routing(record_routing(model, tokenizer, {tag: lines[:3] for tag, lines in texts.items()}))
