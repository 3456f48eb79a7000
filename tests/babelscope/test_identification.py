import pytest
import torch
from conftest import tiny_model

from babelscope import observe, select_lape, select_top_rate
from babelscope.corpus import as_corpus, romanise, shuffle_words
from babelscope.errors import CorpusError, LanguageError, MeasurementError
from babelscope.neurons import check_sets, evidence_rows, romanised_control

LINES = {
    "en": [f"the cat {n} sat on a mat" for n in range(60)],
    "ru": [f"кошка {n} сидела на ковре" for n in range(60)],
    "fi": [f"kissa {n} istui matolla" for n in range(60)],
}


@pytest.fixture
def observed(tokenizer):
    model = tiny_model("llama")
    return model, observe(model, tokenizer, LINES, shards=24)


def test_all_controls_of_a_selection_in_one_call(observed):
    _, observation = observed
    sets = select_lape(observation, top_rate=0.2)
    checks = check_sets(observation, sets, parallel=True, other=observation, draws=20)
    assert checks.other is not None and checks.content is not None and checks.labels is not None
    full = [tag for tag, size in sets.sizes.items() if size]
    for k, tag in enumerate(sets.languages):
        low, high = checks.bootstrap.interval[tag]
        assert low <= high
        if tag in full:
            assert float(checks.other.jaccard[k]) == 1
            assert 0 <= float(checks.content.jaccard[k]) <= 1
    rows = evidence_rows(checks)
    assert {row.language for row in rows} == set(sets.languages)
    assert {row.control for row in rows} >= {
        "bootstrap over shards",
        "half-splits of shards",
        "shuffled labels",
        "content",
    }


def test_another_observation_may_hold_its_languages_in_another_order(observed, tokenizer):
    model, observation = observed
    turned = observe(model, tokenizer, dict(reversed(LINES.items())), shards=24)
    sets = select_top_rate(observation, top_rate=0.1)
    checks = check_sets(observation, sets, parallel=False, other=turned, draws=5)
    assert checks.other is not None and checks.other.jaccard.tolist() == [1, 1, 1]
    fewer = observe(model, tokenizer, {"en": LINES["en"], "ru": LINES["ru"]}, shards=24)
    with pytest.raises(LanguageError, match="'fi' was not observed"):
        check_sets(observation, sets, parallel=False, other=fewer, draws=5)


def test_a_method_without_scores_has_no_shuffled_labels(observed):
    _, observation = observed
    checks = check_sets(observation, select_top_rate(observation, top_rate=0.1), parallel=False, draws=5)
    assert checks.labels is None and checks.content is None


def test_too_few_shards_are_refused(observed, tokenizer):
    model, _ = observed
    few = observe(model, tokenizer, LINES, shards=8)
    with pytest.raises(MeasurementError, match="20"):
        check_sets(few, select_lape(few, top_rate=0.2), parallel=True, draws=5)


def test_romanised_text_is_in_ascii_and_latin_languages_are_left_out():
    latin = romanise(as_corpus({tag: lines[:2] for tag, lines in LINES.items()}))
    assert list(latin) == ["ru"] and all(document.text.isascii() for document in latin["ru"])
    assert latin["ru"][0].text == "koshka 0 sidela na kovre"
    with pytest.raises(CorpusError, match="can be romanised"):
        romanise(as_corpus({"fi": ["kissa"]}))


def test_shuffled_words_are_the_same_words():
    before = as_corpus({"en": LINES["en"], "zh": ["今天下雨了明天晴"]})
    after = shuffle_words(before, seed=3)
    assert all(sorted(a.text.split()) == sorted(b.text.split()) for a, b in zip(before["en"], after["en"], strict=True))
    assert sorted(after["zh"][0].text) == sorted("今天下雨了明天晴") and after["zh"][0].text != "今天下雨了明天晴"
    assert after["en"] == shuffle_words(before, seed=3)["en"]


def test_the_script_of_a_script_neuron_is_found(observed, tokenizer):
    model, observation = observed
    sets = select_lape(observation, top_rate=0.2)
    control = romanised_control(model, tokenizer, sets, as_corpus({tag: lines[:40] for tag, lines in LINES.items()}))
    assert list(control.shares) == ["ru"] and set(control.not_applicable) == {"en", "fi"}
    share = control.shares["ru"]
    assert share.native >= share.romanised and control.bits_per_byte["ru"] > 0
    assert torch.tensor([share.native, share.romanised, share.english]).isfinite().all()


def test_the_romanised_control_needs_english(observed, tokenizer):
    model, observation = observed
    sets = select_lape(observation, top_rate=0.2)
    with pytest.raises(LanguageError, match="English"):
        romanised_control(model, tokenizer, sets, as_corpus({"ru": LINES["ru"]}))
