"""Which language a word, a line and a set of answers is in, against paths and rates worked out by brute force."""

from itertools import product

import numpy as np
import pytest

from babelscope.evaluation import open_identifier
from babelscope.evaluation.answer_confusion import Cell, confusion_of_answers, rates_of
from babelscope.evaluation.labelled_words import accepted, guess_text, label_by_script, label_outside
from babelscope.evaluation.language_switches import (
    ENTER,
    LEAVE,
    counts_as,
    label_words,
    probabilities,
    two_state_paths,
)
from babelscope.evaluation.prompts import SetAnswer
from babelscope.evaluation.prose import words_of
from babelscope.evaluation.segmentation import corrected_tokens, latin_runs, normalize_completion, published_tokens
from babelscope.languages import Language


def best_path(nats):
    """Every path of two states over one language's column, scored one by one."""
    best = (-np.inf, None)
    for path in product((False, True), repeat=len(nats)):
        score = sum(nats[place] for place, other in enumerate(path) if other)
        score -= ENTER * sum(now and not before for before, now in zip((False, *path), path, strict=False))
        score -= LEAVE * sum(before and not now for before, now in zip(path, (*path[1:], False), strict=True))
        best = max(best, (score, path), key=lambda pair: pair[0])
    return best


def test_the_likeliest_path_is_that_of_a_search_over_all_paths():
    nats = np.random.default_rng(0).normal(0, 4, (9, 5))
    score, paths = two_state_paths(nats)
    for column in range(5):
        expected, path = best_path(nats[:, column])
        assert score[column] == pytest.approx(expected)
        assert paths[:, column].tolist() == list(path)


def test_languages_that_are_not_told_apart_count_as_each_other():
    assert counts_as("no") == {"nb", "nn"}
    assert counts_as("hr") == {"bs", "hr", "sr"} and counts_as("fi") == {"fi"}
    assert {"sr", "hr", "bs"} <= accepted(Language("hr")) and "en" not in accepted(Language("hr"))


def test_a_passage_of_another_language_is_found_and_a_single_word_is_not():
    finnish = ["tämä", "on", "suomenkielinen", "lause", "joka", "jatkuu", "ja", "jatkuu", "vielä"]
    english = ["this", "is", "what", "they", "would", "have", "said", "about", "the", "other", "people"]
    words = finnish + english
    labels = label_words(words, [False] * len(words), "Latn", "fi", counts_as("fi"))
    assert labels[: len(finnish) - 1] == ["fi"] * (len(finnish) - 1) and labels[-8:] == ["en"] * 8
    assert set(label_words([*finnish, "the"], [False] * (len(finnish) + 1), "Latn", "fi", counts_as("fi"))) == {"fi"}


def test_probabilities_of_a_script_sum_to_one_and_name_the_language():
    shares = probabilities(["el", "perro", "come", "en", "la", "casa", "de", "mi", "hermana"], "Latn")
    assert sum(shares.values()) == pytest.approx(1) and max(shares, key=shares.get) == "es"


def test_words_outside_the_targets_script_are_labelled_by_their_script():
    words = words_of("кошка спит today дома")
    labels, inside = label_outside(words, Language("ru"))
    texts = [word.text for word in words]
    assert [texts[place] for place in inside] == ["кошка", "спит", "дома"]
    assert labels[texts.index("today")] not in (None, "ru")
    labelled = label_by_script(words, "кошка спит today дома", Language("ru"))
    assert [word.language for word in labelled if word.script == "Cyrl"] == ["ru"] * 3


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("내일 학교에 갑니다", "ko"),
        ("昨日、市場へ行きました", "ja"),
        ("我昨天去了市场", "zh"),
        ("Η γάτα κοιμάται", "el"),
    ],
)
def test_a_text_without_a_target_is_named_by_its_script(text, tag):
    language, probability = guess_text(words_of(text))
    assert language == tag and 0.5 < probability <= 1


def test_digits_alone_are_in_no_language():
    assert guess_text(words_of("12 345")) == (None, 0.0)


def test_a_completion_is_cut_and_cleaned_as_the_benchmark_does():
    assert normalize_completion(" Hello, world! \nQ: next") == "Hello world"
    assert normalize_completion("one—two، three") == "one two three"


def test_words_are_cut_by_whitespace_or_by_character():
    assert corrected_tokens("a bc  d", "fi") == ["a", "bc", "d"]
    assert corrected_tokens("我 去", "zh") == ["我", "去"]
    assert published_tokens("我去", "zh", {"zh": lambda line: [line]}) == ["我去"]
    assert published_tokens("a bc", "fi") == ["a", "bc"]
    assert latin_runs("去abc市d1e") == ["abc", "d", "e"]


def test_a_set_of_answers_is_scored_by_cell_and_averaged_over_languages():
    right = "tämä on suomenkielinen lause ja se jatkuu vielä vähän"
    wrong = "this is an english sentence and it goes on for a while"
    answers = [
        SetAnswer("a", "1", Language("fi"), right, "mono"),
        SetAnswer("a", "2", Language("fi"), wrong, "mono"),
        SetAnswer("a", "1", Language("en"), wrong, "mono"),
    ]
    scored = confusion_of_answers(answers, identifier=open_identifier(), english={"this", "sentence", "while"})
    cell = Cell("mono", "a", Language("fi"))
    assert scored.forms["corrected"][cell].lpr == 0.5 and scored.forms["published"][cell].lpr == 0.5
    assert scored.verdicts == {"fi": {"right": 1, "other language": 1}, "en": {"right": 1}}
    assert scored.averages("corrected", "mono")["lpr"] == pytest.approx((0.5 + 1) / 2)
    assert [row["set"] for row in scored.rows("corrected")] == ["a", "a"]
    assert "passed" not in rates_of(scored.forms["corrected"][cell]) and scored.as_dict()["tasks"].keys() == {"mono"}
