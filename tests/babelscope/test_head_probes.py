"""Heads chosen by probes: scikit-learn's classifier on plain hooks, planted heads, a vision–language model's text."""

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from sklearn.linear_model import LogisticRegression

from babelscope import head_shift, load_corpus, observe, steer, text_part
from babelscope.corpus import Document
from babelscope.errors import CorpusError, SelectionError
from babelscope.models import layout_of
from babelscope.steering.directions.head_probes import fit_logistic, head_probe_accuracy, places_by_id


def texts(lines=30, seed=0):
    """Lower-case English and upper-case Finnish, a byte a letter."""
    rng = np.random.default_rng(seed)
    return {
        tag: ["".join(rng.choice(list(letters), 12)) for _ in range(lines)]
        for tag, letters in {"en": "abcdefgh", "fi": "ABCDEFGH"}.items()
    }


def planted(model=None):
    """Heads 0.1 and 2.3 write what tells capitals from small letters; the others see no language."""
    model, tokenizer = model or tiny_model("llama"), tiny_tokenizer()
    layout, capitals = layout_of(model), tokenizer("ABCDEFGH", add_special_tokens=False)["input_ids"]
    small = tokenizer("abcdefgh", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        embed = model.get_input_embeddings().weight
        embed[small] = embed[capitals]  # But for the case the letters are alike.
        embed[:, 0] = 0
        embed[capitals, 0], embed[small, 0] = 1.0, -1.0
        for number in range(3):
            layer = layout.layer(number)
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
            value = layer.self_attn.v_proj.weight
            width = value.shape[0]
            value[:, 0] = 0
            layer.self_attn.q_proj.weight.zero_()
            for at, head in ((0, 1), (2, 3)):
                if at == number:
                    shared = 4 // (width // 8)
                    value[8 * (head // shared), 0] = 3
    return model, tokenizer


def test_probes_equal_scikit_learns():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(3, 60, 8)), rng.random(60) < 0.4
    x[0, :, 0] += 8 * labels  # Separable.
    weight, bias = fit_logistic(torch.from_numpy(x), torch.from_numpy(labels))
    for head in range(3):
        theirs = LogisticRegression(tol=1e-10, max_iter=10_000).fit(x[head], labels)
        assert np.abs(weight[head].numpy() - theirs.coef_[0]).max() < 1e-4
        assert float(bias[head]) == pytest.approx(theirs.intercept_[0], abs=1e-4)


def test_a_sentence_and_its_translation_are_drawn_together():
    """The interval of parallel text, known by hand; text without ids is drawn by document, as before."""
    model, tokenizer = planted()
    english = texts(20)["en"]
    lines = {"en": english, "fi": [line.upper() for line in english]}
    parallel = {tag: [Document(str(n), line) for n, line in enumerate(part)] for tag, part in lines.items()}
    settings = {"target": "fi", "draws": 2, "resamples": 300}
    pairs, single = (head_probe_accuracy(model, tokenizer, text, **settings) for text in (parallel, lines))
    assert (pairs.pairs, pairs.documents, single.pairs, single.documents) == (20, 40, None, 40)
    assert pairs.rows()[0].n == 20 and "n in pairs" in pairs.rows()[0].note
    assert single.rows()[0].n == 40 and "n in documents" in single.rows()[0].note
    assert [group.tolist() for group in places_by_id(["a", "b", "a", "b", "c"])] == [[0, 2], [1, 3], [4]]
    # A head that sees nothing of the language says the same of a sentence and of its translation: it is right of one
    # and wrong of the other, so that the accuracy of every draw of pairs is one half and the interval has no width.
    blind = (1, 0)
    assert float(pairs.accuracy[blind]) == float(pairs.low[blind]) == float(pairs.high[blind]) == 0.5
    assert float(single.high[blind] - single.low[blind]) > 0.1


def test_planted_heads_are_the_accurate_ones_and_are_shifted():
    model, tokenizer = planted()
    found = head_probe_accuracy(model, tokenizer, texts(), target="fi", resamples=20)
    heads = {divmod(place, 4) for place in (found.accuracy > 0.95).flatten().nonzero()[:, 0].tolist()}
    # Two query heads share a value head, and read the same without a pattern of their own.
    assert {(0, 1), (2, 3)} <= heads <= {(0, 0), (0, 1), (2, 2), (2, 3)}
    assert found.null_best.max() < 0.9 and (found.low <= found.accuracy).all()
    row = found.rows()[1]
    assert row.p == pytest.approx(0.05) and row.claim.startswith("a probe of head 0.1")
    obs = observe(model, tokenizer, texts(seed=1), sites=["attn_heads"], shards=0)
    recipe = head_shift(obs, 4, target="fi", source="en", heads=len(heads), scores=found.likelihood)
    assert set(recipe.parameters["heads"]) == {f"{layer}.{head}" for layer, head in heads}
    assert set(found.best(len(heads))) == heads
    with pytest.raises(SelectionError, match=r"scores \[2, 4\] came"):
        head_shift(obs, 4, target="fi", scores=found.likelihood[:2])


def test_shuffled_languages_give_no_head():
    model, tokenizer = planted()
    lines = texts(60)["en"]
    found = head_probe_accuracy(model, tokenizer, {"en": lines[:30], "fi": lines[30:]}, target="fi", resamples=20)
    assert all(row.p > 0.05 for row in found.rows())
    with pytest.raises(CorpusError, match="fewer than 5 documents"):
        head_probe_accuracy(model, tokenizer, texts(4), target="fi")


def test_heads_of_a_vision_language_models_text_part():
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    torch.manual_seed(0)
    text = {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "head_dim": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "sliding_window": 16,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    model = text_part(
        Gemma3ForConditionalGeneration(
            Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=299)
        ).eval()
    )
    tokenizer, lines = tiny_tokenizer(), load_corpus("reference", ["en", "ru"], split="valid").head(20)
    found = head_probe_accuracy(model, tokenizer, lines, target="ru", draws=5, resamples=5)
    assert found.accuracy.shape == (3, 4) and found.best(1)[0] < (3, 4)
    obs = observe(model, tokenizer, lines, sites=["attn_heads"], shards=0)
    recipe = head_shift(obs, 4, target="ru", heads=2, scores=found.accuracy)
    ids = torch.tensor([tokenizer("abc")["input_ids"]])
    with torch.no_grad():
        plain = model(ids).logits
        with steer(model, recipe):
            assert not torch.equal(model(ids).logits, plain)
