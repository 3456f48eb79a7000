"""Detectors of a concept: scikit-learn's average precision, planted neurons, their overlap and clamping."""

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from sklearn.metrics import average_precision_score

from babelscope.corpus import as_corpus
from babelscope.errors import CorpusError, SelectionError, SiteError
from babelscope.models import layout_of
from babelscope.probes import ProbeJob, clamp_experts, concept_experts, track_concepts
from babelscope.probes.concepts.concept_findings import probe_concepts
from babelscope.probes.concepts.detector_ranking import Ranked

LETTERS = {"en": "abcdefgh", "fi": "klmnopqr"}


def texts(n=30, seed=0):
    """A question in every third sentence, the same places in both languages."""
    rng = np.random.default_rng(seed)
    return {
        tag: ["".join(rng.choice(list(letters), 9)) + ("?" if i % 3 == 0 else ".") for i in range(n)]
        for tag, letters in LETTERS.items()
    }


def planted():
    """In layer 1 neuron 5 answers to the question mark, and writes it; nothing else writes."""
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    layout = layout_of(model)
    mark = tokenizer("?", add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        embed = model.get_input_embeddings().weight
        embed[:, 0] = 0
        embed[mark] = 0
        embed[mark, 0] = 3
        head = model.get_output_embeddings().weight
        head[:, 1] = 0
        head[mark, 1] = 3
        for number in range(3):
            layer = layout.layer(number)
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
            layer.mlp.gate_proj.weight[:, 0] = layer.mlp.up_proj.weight[:, 0] = 0
        mlp = layout.layer(1).mlp
        for weight in (mlp.gate_proj.weight, mlp.up_proj.weight):
            weight[5] = 0
            weight[5, 0] = 1
        mlp.down_proj.weight[1, 5] = 5
    return model, tokenizer


@pytest.mark.parametrize("values", [3, 1000, 1])
def test_average_precision_equals_scikit_learns_ties_included(values):
    rng = np.random.default_rng(values)
    scores, labels = rng.integers(0, values, (40, 30)).astype(np.float32), rng.random(40) < 0.3
    witness = [average_precision_score(labels, scores[:, unit]) for unit in range(30)]
    found = Ranked(torch.from_numpy(scores)).precision(torch.from_numpy(labels))
    assert np.abs(found.numpy() - witness).max() < 1e-14


def test_a_planted_detector_is_the_best_expert_and_shared():
    model, tokenizer = planted()
    found = concept_experts(model, tokenizer, texts(), number=1, draws=39)
    assert found.experts("en") == found.experts("fi") == ((1, 5),)
    assert found.precision[:, 1, 5].tolist() == [1, 1] and found.documents["en"] == (10, 20)
    (overlap,) = found.overlaps
    assert overlap.share == 1 and overlap.p <= 0.05 and overlap.null < 0.3
    detectors = [row.estimate for row in found.rows() if row.claim.startswith("neurons that detect")]
    assert min(detectors) >= 1 and (found.bar() < 1).all()
    steps = track_concepts({"one": planted, "two": lambda: (tiny_model("llama"), tokenizer)}, texts(), number=1)
    assert steps["one"].experts("en") == ((1, 5),) and steps["two"].overlaps[0].share < 1
    assert steps["two"].rows("two")[0].claim.startswith("two: ")


def test_labels_of_one_language_hold_for_translations():
    model, tokenizer = planted()
    rows = texts()
    parallel = {tag: [f"{line}" for line in lines] for tag, lines in rows.items()}
    corpus = as_corpus(parallel, parallel=True)
    marked = {line for i, line in enumerate(rows["en"]) if i < 6}
    found = concept_experts(
        model, tokenizer, corpus, concept=lambda text: text in marked, labels_from="en", number=3, draws=5
    )
    assert found.documents == {"en": (6, 24), "fi": (6, 24)}
    with pytest.raises(CorpusError, match="not parallel"):
        concept_experts(model, tokenizer, rows, labels_from="en")


def test_a_clamped_detector_raises_its_tokens_in_the_other_languages_text():
    model, tokenizer = planted()
    found = concept_experts(model, tokenizer, texts(), number=1, draws=5)
    clamp = clamp_experts(model, tokenizer, found, texts(seed=1), draws=19)
    assert (clamp.rise > 0.2).all() and (clamp.null.abs() < 0.05).all()
    assert clamp.p(0, 1) == pytest.approx(0.05) and len(clamp.rows()) == 4
    few = {"en": texts(seed=1)["en"], "fi": [line for line in texts(seed=1)["fi"] if not line.endswith("?")][:3]}
    tokenizer.add_tokens([f"?{number}?" for number in range(50)])  # more entries than the head has rows
    less = clamp_experts(model, tokenizer, found, few, draws=1)
    assert len(tokenizer) > model.config.vocab_size and [row.n for row in less.rows()][:2] == [20, 3]
    # By plain transformers: the neuron's product held at its mean maximum.
    mark, held = tokenizer("?", add_special_tokens=False)["input_ids"][0], float(found.maximum[0, 1, 5])

    def hold(module, args):
        value = args[0].clone()
        value[..., 5] = held
        return (value,)

    lines = [line for line in texts(seed=1)["fi"] if not line.endswith("?")][:20]
    total, positions = np.zeros(2), 0
    for line in lines:
        ids = torch.tensor([tokenizer(line)["input_ids"]])
        with torch.no_grad():
            plain = model(ids).logits.double().softmax(-1)[0, 1:, mark].sum()
            handle = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(hold)
            total += [float(plain), float(model(ids).logits.double().softmax(-1)[0, 1:, mark].sum())]
            handle.remove()
        positions += ids.shape[1] - 1
    assert float(clamp.base[1]) == pytest.approx(total[0] / positions, rel=1e-5)
    assert float(clamp.rise[0, 1]) == pytest.approx((total[1] - total[0]) / positions, rel=1e-5)


def test_the_probe_gives_detectors_overlap_and_clamping():
    model, tokenizer = planted()
    job = ProbeJob(model, tokenizer, as_corpus(texts(seed=1)), as_corpus(texts()), "en", 8, 0)
    found = probe_concepts(job)
    assert set(found.figures) == {"detectors", "overlap"}
    assert {row.claim.split(" of questions")[0] for row in found.rows} >= {"best detector", "probability of tokens"}


def test_what_cannot_be_detected_is_refused():
    model, tokenizer = planted()
    with pytest.raises(SiteError, match="mixture of experts"):
        concept_experts(tiny_model("mixtral"), tokenizer, texts())
    with pytest.raises(CorpusError, match="2 with and 4 without"):
        concept_experts(model, tokenizer, texts(6))
    with pytest.raises(SelectionError, match="0 experts"):
        concept_experts(model, tokenizer, texts(), number=0)
    found = concept_experts(model, tokenizer, texts(), number=1, draws=1)
    with pytest.raises(SelectionError, match="no token"):
        clamp_experts(model, tokenizer, found, texts(), token_test=lambda text: False)
    with pytest.raises(CorpusError, match="no text without"):
        clamp_experts(model, tokenizer, found, {"en": ["a?"]})
