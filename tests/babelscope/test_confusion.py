"""Line and word pass rates by the published rule on hand-made answers in its fifteen languages, and corrected."""

import math
import struct

import pytest

from babelscope.errors import CorpusError, LanguageError, MeasurementError, PrerequisiteError
from babelscope.evaluation import (
    BENCHMARK,
    Guess,
    average_confusion,
    corrected_confusion,
    english_words,
    open_identifier,
    published_confusion,
)

RIGHT = {
    "ar": "ذهب الأطفال إلى المدرسة في الصباح الباكر مع أصدقائهم",
    "de": "Die Kinder gingen am frühen Morgen mit ihren Freunden zur Schule",
    "en": "The children went to school early in the morning with their friends",
    "es": "Los niños fueron a la escuela temprano por la mañana con sus amigos",
    "fr": "Les enfants sont allés à l'école tôt le matin avec leurs amis",
    "hi": "बच्चे सुबह जल्दी अपने दोस्तों के साथ स्कूल गए",
    "id": "Anak-anak pergi ke sekolah pagi-pagi sekali bersama teman-teman mereka",
    "it": "I bambini sono andati a scuola la mattina presto con i loro amici",
    "ja": "子供たちは朝早く友達と一緒に学校へ行きました",
    "ko": "아이들은 아침 일찍 친구들과 함께 학교에 갔습니다",
    "pt": "As crianças foram para a escola de manhã cedo com os seus amigos",
    "ru": "Дети рано утром пошли в школу вместе со своими друзьями",
    "tr": "Çocuklar sabah erkenden arkadaşlarıyla birlikte okula gittiler ve orada oynadılar",
    "vi": "Trẻ em đi học từ sáng sớm cùng với bạn bè của mình",
    "zh": "孩子们一大早就和朋友们一起去学校上课了",
}
WORDED = {"ar", "hi", "ja", "ko", "ru", "zh"}
SEGMENT = {"ja": lambda line: line.split() if " " in line else list(line), "zh": list}
ENGLISH = frozenset({"weather"})


def by_letter(texts):
    """Language by the first letter: f is fi, q is nothing, e is en with no confidence."""
    table = {"f": Guess("fi", 0.9), "e": Guess("en", 0.9), "q": Guess(None, 0.0), "u": Guess("fi", 0.3)}
    return [table[text[0]] for text in texts]


def rates(tag, answers, **more):
    return published_confusion(answers, tag, english=ENGLISH, segment=SEGMENT, **more)


def made_answers(tag):
    """Right; right with a wrong line; too short; empty; right with a wrong line after the next question."""
    wrong = RIGHT["fr" if tag == "en" else "en"]
    short = "1234" if tag in ("ja", "zh") else "1 2 3 4"
    return [RIGHT[tag], f"{RIGHT[tag]}\n{wrong}", short, "", f"{RIGHT[tag]}\nQ: {wrong}"]


@pytest.mark.parametrize("tag", BENCHMARK)
def test_the_published_rule_by_hand_in_every_language_of_the_benchmark(tag):
    found = rates(tag, made_answers(tag))
    assert (found.n, found.scored, found.coverage) == (5, 3, 0.6)
    assert found.lpr == pytest.approx(2 / 3)
    assert found.line_accuracy == pytest.approx((1 + 0.5 + 1) / 3)
    assert found.wpr == (1.0 if tag in WORDED else None)
    assert found.failures == {"mixed": 1, "short": 1, "empty": 1}


@pytest.mark.parametrize("tag", sorted(WORDED))
def test_an_english_word_in_a_right_line_counts_against_words_only(tag):
    spoiled = f"{RIGHT[tag]} {RIGHT[tag]} weather"
    segment = {one: str.split for one in ("ja", "zh")}
    long = " ".join([RIGHT[tag]] * 5)
    found = published_confusion([spoiled + " 。 ，", long], tag, english=ENGLISH, segment=segment)
    assert (found.lpr, found.wpr) == (1, 0.5)
    named = published_confusion([f"{long} Weather"], tag, english=ENGLISH, segment=segment)
    assert named.wpr == 1


@pytest.mark.parametrize(("tag", "package"), [("zh", "jieba"), ("ja", "fugashi")])
def test_the_published_word_cutters_give_the_hand_made_rates(tag, package):
    pytest.importorskip(package, reason=f"{package} is not installed")
    found = published_confusion(made_answers(tag), tag, english=ENGLISH)
    assert (found.scored, found.lpr) == (3, pytest.approx(2 / 3))


def test_punctuation_goes_before_words_are_counted():
    assert rates("fi", ["f — a, b: c d!"], identifier=by_letter).scored == 1
    assert rates("fi", ["f - a , b : c"], identifier=by_letter).scored == 0
    assert rates("ar", [f"{RIGHT['ar']}، weather,"]).wpr == 0


def test_an_unsure_guess_is_a_wrong_line():
    assert rates("fi", ["u a b c d"], identifier=by_letter).lpr == 0
    assert rates("fi", ["q a b c d"], identifier=by_letter).lpr == 0


def test_all_skipped_is_one_in_the_published_form_with_coverage_0_and_0_in_the_corrected_one():
    silent = ["", "f a", "  \n "]
    found = rates("ru", silent, identifier=lambda texts: [])
    assert (found.lpr, found.wpr, found.line_accuracy, found.coverage) == (1, 1, 1, 0)
    assert not found.measured
    better = corrected_confusion(silent, "ru", english=ENGLISH)
    assert (better.lpr, better.wpr, better.line_accuracy, better.scored) == (0, 0, 0, 3)
    assert better.failures == {"empty": 2, "short": 1} and not any(better.passed)


def test_order_does_not_matter():
    answers = made_answers("de")
    one, other = (rates("de", group) for group in (answers, answers[::-1]))
    assert one[1:-1] == other[1:-1] and one.passed == other.passed[::-1]


def test_the_corrected_form_counts_all_answers_and_names_their_faults():
    answers = ["f a b c d", "f a b c d\ne a b c d", "e a b c d", "f a", "", "f a b c d\nshort"]
    found = corrected_confusion(answers, "fi", identifier=by_letter)
    assert found.lpr == pytest.approx(2 / 6) and found.coverage == pytest.approx(4 / 6)
    assert found.failures == {"mixed": 1, "other language": 1, "short": 1, "empty": 1}
    assert found.line_accuracy == pytest.approx((1 + 0.5 + 0 + 1) / 6)
    assert found.passed == (True, False, False, False, False, True)


@pytest.mark.parametrize("tag", ["zh", "ja"])
def test_the_corrected_form_cuts_unspaced_scripts_by_characters(tag):
    found = corrected_confusion([RIGHT[tag], RIGHT[tag][:4], f"{RIGHT[tag]}weather{RIGHT[tag]}"], tag, english=ENGLISH)
    assert found.coverage == pytest.approx(2 / 3)
    assert found.lpr == pytest.approx(2 / 3) and found.wpr == pytest.approx(1 / 3)


def test_thai_is_scored_by_characters_where_the_published_rule_skips_it():
    thai = "เด็กๆไปโรงเรียนแต่เช้ากับเพื่อนๆของพวกเขา"
    always = lambda texts: [Guess("th", 1.0) for _ in texts]  # noqa: E731
    assert published_confusion([thai], "th", identifier=always).coverage == 0
    assert corrected_confusion([thai], "th", identifier=always).coverage == 1


def test_averages_are_over_sets_then_languages():
    def score(tag, passes):
        return rates(tag, [RIGHT[tag]] * passes + [RIGHT["en"]] * (4 - passes))

    found = average_confusion(
        {("aya", "ru"): score("ru", 4), ("native", "ru"): score("ru", 2), ("aya", "de"): score("de", 1)}
    )
    assert found.lpr == pytest.approx(((1 + 0.5) / 2 + 0.25) / 2) and found.wpr == 1 and found.coverage == 1


def test_english_words_are_small_letters_and_more_than_three(tmp_path):
    (tmp_path / "words").write_text("weather\nParis\ncat\nrain's\ntree\n")
    assert english_words(tmp_path / "words") == {"weather", "rain's", "tree"}
    bundled = english_words()
    assert {"visit", "parents", "honey"} <= bundled and all(w.islower() and len(w) > 3 for w in bundled)
    with pytest.raises(CorpusError, match="is not there; expected a text file"):
        english_words(tmp_path / "nothing")


def test_missing_things_are_one_clear_line(tmp_path, monkeypatch):
    with pytest.raises(MeasurementError, match="no answers came"):
        published_confusion([], "fi")
    with pytest.raises(LanguageError, match="tt cannot be recognised by lingua"):
        corrected_confusion(["a"], "tt")
    with pytest.raises(PrerequisiteError, match="label set"):
        open_identifier(tmp_path / "lid.bin")
    with pytest.raises(PrerequisiteError, match="no such file"):
        open_identifier(tmp_path / "lid.bin", labels="lid176")
    (tmp_path / "lid.bin").write_bytes(b"no model")
    monkeypatch.setitem(__import__("sys").modules, "fasttext", None)
    with pytest.raises(PrerequisiteError, match="is not installed; install babelscope"):
        open_identifier(tmp_path / "lid.bin", labels="lid176")
    monkeypatch.setitem(__import__("sys").modules, "jieba", None)
    with pytest.raises(PrerequisiteError, match="jieba, which is not installed"):
        published_confusion([RIGHT["zh"]], "zh")


def fasttext_file(path):
    """A supervised fastText model of two words and two labels, written byte by byte: the weights are known."""
    words, labels = [b"</s>", b"talo", b"house"], [b"__label__fin_Latn", b"__label__eng_Latn"]
    head = struct.pack("<ii", 793712314, 12)
    sizes = (2, 5, 1, 1, 5, 1, 3, 3, 0, 0, 0, 100)
    arguments = struct.pack("<12i", *sizes) + struct.pack("<d", 1e-4)
    entries = b"".join(w + b"\0" + struct.pack("<qb", 1, 0) for w in words)
    entries += b"".join(w + b"\0" + struct.pack("<qb", 1, 1) for w in labels)
    dictionary = struct.pack("<iiiqq", 5, 3, 2, 5, -1) + entries
    inputs = struct.pack("<?qq6f", False, 3, 2, 0, 0, 3, 0, 0, 3)
    outputs = struct.pack("<?qq4f", False, 2, 2, 2, 0, 0, 2)
    path.write_bytes(head + arguments + dictionary + inputs + outputs)


def test_a_fasttext_model_speaks_its_labels(tmp_path):
    pytest.importorskip("fasttext", reason="fasttext is not installed")
    fasttext_file(tmp_path / "two.bin")
    identifier = open_identifier(tmp_path / "two.bin", labels="glotlid")
    guesses = identifier.guess(["talo talo", "house", "talo house talo"])
    assert [guess.label for guess in guesses] == ["fin_Latn", "eng_Latn", "fin_Latn"]
    # The mean of the words' rows and of the end mark's row of zeros, times the output rows: a softmax of 2 · 3 · 2/3.
    assert guesses[0].score == pytest.approx(1 / (1 + math.exp(-4)), rel=1e-4)
    assert identifier.languages(["talo", "house"], "fi") == ["fi", "en"]
    found = corrected_confusion(
        ["talo talo talo talo talo", "house house house house house"], "fi", identifier=identifier
    )
    assert found.lpr == 0.5
