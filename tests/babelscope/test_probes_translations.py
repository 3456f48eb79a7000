"""Translation prompts under the lens: their text, their tokens, masses by numpy, the control, and what is refused."""

import re

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from scipy.special import softmax
from scipy.stats import binom

from babelscope.errors import ArtifactError, CorpusError, LanguageError, MeasurementError
from babelscope.languages import parse_languages
from babelscope.models import origin_of
from babelscope.probes.lens.logit_lens import layer_logits
from babelscope.probes.lens.prompt_answers import answer_tokens
from babelscope.probes.lens.translations import dealt_out, latent_translation, translation_prompts
from babelscope.probes.lens.translators import Translators
from babelscope.probes.lens.word_lists import read_words
from babelscope.probes.lens.word_prefixes import PrefixIndex

# Every concept's words begin with letters of their own, for a tokenizer of bytes.
WORDS = {
    str(number): {"en": letters[0] + "et", "de": letters[1] + "om", "fi": letters[2] + "uu"}
    for number, letters in enumerate(["abc", "bca", "def", "efd", "ghi", "hig", "klm", "lmk"])
}
SETTINGS = {"source": "de", "target": "fi", "shots": 2, "draws": 19, "resamples": 20}


def test_a_prompt_shows_other_words_and_leaves_the_asked_one_open():
    words = {
        "flower": {"fr": "fleur", "zh": "花"},
        "book": {"fr": "livre", "zh": "书"},
        "sea": {"fr": "mer"},
        "hand": {"fr": "main", "zh": "手"},
    }
    found = translation_prompts(words, source="fr", target="zh", shots=2)
    assert [prompt.concept for prompt in found] == ["flower", "book", "hand"]
    lines = found[1].text.split("\n")
    assert set(lines[:2]) == {'Français: "fleur" - 中文: "花"', 'Français: "main" - 中文: "手"'}
    assert lines[2:] == ['Français: "livre" - 中文: "']
    assert found == translation_prompts(words, source="fr", target="zh", shots=2)


def test_tokens_of_two_languages_are_nobodys_within_a_concept(reference):
    words = {"day": {"en": "day", "ru": "день", "uk": "день"}, "road": {"en": "road", "ru": "дорога", "uk": "шлях"}}
    entries, member = answer_tokens(reference[1], words, list(words), parse_languages(["en", "ru", "uk"]))
    names = [[[reference[1].decode([i]) for i in entries[own].tolist()] for own in concept] for concept in member]
    assert names[0][1] == names[0][2] == [] and names[0][0]
    assert all(name.strip()[0] == "ш" for name in names[1][2]) and names[1][1]
    assert int(member.sum(dim=1).max()) == 1


def test_masses_equal_numpys_and_are_of_the_right_word():
    model, tokenizer = tiny_model("gemma2"), tiny_tokenizer()
    found = latent_translation(model, tokenizer, WORDS, **SETTINGS)
    total, solved = np.zeros((4, 3)), 0
    for prompt in translation_prompts(WORDS, source="de", target="fi", shots=2):
        ids = torch.tensor([tokenizer(prompt.text)["input_ids"]])
        p = softmax(layer_logits(model, ids).double().numpy()[:, 0, -1], axis=-1)
        begins = [tokenizer(WORDS[prompt.concept][tag][0], add_special_tokens=False)["input_ids"] for tag in
                  ("en", "de", "fi")]  # fmt: skip
        total += np.stack([p[:, one].sum(axis=1) for one in begins], axis=1)
        solved += p[-1].argmax() in begins[2]
    assert found.concepts == tuple(WORDS) and found.languages == ("en", "de", "fi")
    assert np.abs(found.mass.numpy() - total / 8).max() < 1e-6
    assert found.solved == solved / 8
    assert torch.allclose(found.share.sum(dim=1), torch.ones(4, dtype=torch.float64))
    assert (found.low <= found.mass).all() and (found.mass <= found.high).all()
    rows = found.rows()
    assert len(rows) == 12 and rows[-1].against == "fi" and rows[-1].n == 8 and "from de" in rows[0].claim


def test_the_control_never_gives_a_prompt_its_own_word():
    every = torch.eye(6, dtype=torch.float64)[:, :, None, None].expand(6, 6, 2, 3)
    generator = torch.Generator().manual_seed(0)
    assert all(not dealt_out(every, generator).any() for _ in range(50))
    assert torch.allclose(dealt_out(1 - every, generator), torch.ones(2, 3, dtype=torch.float64))


def test_a_random_model_means_no_concept():
    p = [float(latent_translation(tiny_model("llama", seed=seed), tiny_tokenizer(), WORDS, **SETTINGS).p[-1, 2])
         for seed in range(12)]  # fmt: skip
    assert sum(value <= 0.05 for value in p) <= binom.ppf(0.995, 12, 0.05)


def test_a_model_that_names_the_concept_is_found_out():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    prompts = translation_prompts(WORDS, source="de", target="fi", shots=2)
    with torch.no_grad():
        for prompt in prompts:  # the last depth is taught, by its own state, to say the Finnish word
            ids = torch.tensor([tokenizer(prompt.text)["input_ids"]])
            state = model.model(ids).last_hidden_state[0, -1]
            first = tokenizer(WORDS[prompt.concept]["fi"][0], add_special_tokens=False)["input_ids"][0]
            model.lm_head.weight[first] += 3 * state
    found = latent_translation(model, tokenizer, WORDS, **SETTINGS)
    fi = found.index("fi")
    assert found.p[-1, fi] == 0.05 and found.mass[-1, fi] > found.null[-1, fi] and found.p[0, fi] > 0.05


def test_the_same_word_is_asked_for_again():
    (first, *_) = translation_prompts(WORDS, source="fi", target="fi", shots=2)
    shown, open_line = first.text.split("\n")[:2], first.text.split("\n")[2]
    assert all(len(set(re.findall('"(.*?)"', line))) == 1 for line in shown) and open_line == 'Suomi: "cuu" - Suomi: "'
    repetition = {**SETTINGS, "source": "fi"}
    assert latent_translation(tiny_model("llama"), tiny_tokenizer(), WORDS, **repetition).source == "fi"


def test_every_prefix_of_a_word_counts_with_and_without_a_space(reference):
    tokenizer = reference[1]
    prefixes = PrefixIndex(tokenizer).of("water")
    texts = {str(tokenizer.decode([token])) for token in prefixes}
    vocabulary = {str(tokenizer.decode([token])) for token in range(len(tokenizer))}
    expected = {start + "water"[:end] for end in range(1, 6) for start in ("", " ")} & vocabulary
    assert texts == expected and {"w", " w"} < texts
    assert not PrefixIndex(tokenizer).of("") and PrefixIndex(tokenizer).of("вода") >= {
        token for token in range(len(tokenizer)) if str(tokenizer.decode([token])) == "в"
    }


def test_prefixes_hold_the_first_token_and_their_mass_is_numpys(reference):
    model, tokenizer = reference
    words = read_words("reference")
    first, prefixes = (
        latent_translation(model, tokenizer, words, source="fr", target="fi", entries=entries, draws=19, resamples=20)
        for entries in ("first", "prefixes")
    )
    concept = prefixes.concepts[0]
    languages = prefixes.languages
    begins = {tag: PrefixIndex(tokenizer).of(words[concept][tag]) for tag in languages}
    taken = {
        tag: tokens - set().union(*(begins[other] for other in languages if other != tag))
        for tag, tokens in begins.items()
    }
    answers = answer_tokens(tokenizer, words, [concept], languages, "prefixes")
    for at, tag in enumerate(languages):
        assert set(answers.entries[answers.member[0, at]].tolist()) == taken[tag], tag
    assert len(set(first.concepts) | set(prefixes.concepts)) >= 5


def test_words_are_read_from_a_table_with_holes(tmp_path):
    file = tmp_path / "words.tsv"
    file.write_text("en\tfi\tzh\ncat\tkissa\t猫\n\nhouse\t\t房子\n", encoding="utf-8")
    found = read_words(file)
    assert found == {"1 cat": {"en": "cat", "fi": "kissa", "zh": "猫"}, "2 house": {"en": "house", "zh": "房子"}}
    bundled = read_words("reference")
    assert all(len(by_tag) == 15 for by_tag in bundled.values()) and len(bundled) == 42


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", CorpusError, "0 lines, 0 columns"),
        ("en\ncat\n", CorpusError, "2 lines, 1 columns"),
        ("en\tfi\ncat\tkissa\tkatt\n", CorpusError, "word 1 has 3 cells; expected 2"),
        ("en\tnot a tag\ncat\tkissa\n", LanguageError, "not a tag"),
    ],
)
def test_a_table_of_another_form_is_refused_in_one_line(text, error, message, tmp_path):
    (tmp_path / "words.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message) as found:
        read_words(tmp_path / "words.tsv")
    assert "\n" not in str(found.value)
    with pytest.raises(CorpusError, match="unreadable"):
        read_words(tmp_path / "none.tsv")


def test_what_can_not_be_asked_is_refused():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    with pytest.raises(LanguageError, match="no words in 'ru'"):
        latent_translation(model, tokenizer, WORDS, **{**SETTINGS, "target": "ru"})
    with pytest.raises(MeasurementError, match="8 words in de and fi for 8 shots"):
        latent_translation(model, tokenizer, WORDS, **{**SETTINGS, "shots": 8})
    same = {name: {"en": "x", "de": f"x{name}", "fi": "x"} for name in WORDS}
    with pytest.raises(MeasurementError, match="0 of 8 words have a first token of their own in fi and en"):
        latent_translation(model, tokenizer, same, **SETTINGS)
    other = Translators(
        torch.eye(32).expand(3, 32, 32),
        torch.zeros(3, 32),
        1,
        torch.zeros(3).double(),
        origin_of(tiny_model("gpt2"), tiny_tokenizer()),
    )
    with pytest.raises(ArtifactError, match="made for"):
        latent_translation(model, tokenizer, WORDS, **SETTINGS, translators=other)
