"""The judge of answers: mixtures fail within a line, every script has its length, and reasons are given."""

import inspect

import pytest

import babelscope as bs
from babelscope.corpus import as_corpus, load_corpus
from babelscope.errors import LanguageError, MeasurementError
from babelscope.evaluation import detect_languages, han, judge_answer, known_languages
from babelscope.evaluation.known_scripts import OWN_SCRIPT, letter_weight
from babelscope.evaluation.language_switches import small_words_of_names
from babelscope.evaluation.list_spelling import folded, listed_forms
from babelscope.evaluation.prose import words_of
from babelscope.evaluation.word_evidence import evidence
from babelscope.steering.sweeps import judge_errors


def verdict(answer, target):
    return judge_answer(answer, target).verdict


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("Helsinki on Suomen pääkaupunki. It is also the largest city of Finland and very nice.", "fi"),
        ("Das Wetter ist heute schön. The weather is nice and I am going to the beach", "de"),
        ("Hyvää huomenta, what are you doing here, mitä teille kuuluu tänään?", "fi"),
        ('国国。。 أنا ذهبتهم.了木材料。: "Brammer")。 Keuangan" (101', "zh"),
        ("आज मौसम बहुत अच्छा है। আজ আবহাওয়া খুব ভালো।", "hi"),
        ("今天天气很好，我们去公园散步吧。明日は雨が降るでしょう。", "zh"),
        ("Me gusta mucho este libro. Ontem à noite eu não consegui dormir muito bem.", "es"),
        ("Сегодня очень хорошая погода. Ми йдемо до лісу збирати гриби та ягоди.", "ru"),
        ("ירושלים היא בירת ישראל. The weather is very nice today.", "he"),
        ("오늘은 날씨가 아주 좋습니다. 今天天气很好，我们去公园散步吧。", "ko"),
        ("오늘 회의에서 一方、明日の会議は午後三時からです 라고 말했습니다.", "ko"),
        ("Jeg vet ikke hva jeg skal gjøre. Jag tycker inte om att vakna så tidigt på morgonen.", "nb"),
    ],
)
def test_a_mixture_within_one_line_is_mixed(answer, target):
    assert verdict(answer, target) == "mixed"


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("巴黎是法国的首都，也是著名的城市。", "zh"),
        ("パリはフランスの首都です。", "ja"),
        ("経済産業省労働基準監督署自動販売機設置許可申請書類提出期限", "ja"),
        ("人参はβ−カロテン含有量が高く栄養豊富な野菜の一つです", "ja"),
        ("二〇二五年七月二十五日金曜日午後三時東京都千代田区霞が関", "ja"),
        ("労働組合\n日本経済新聞社編集局長\nこれは普通の文章です。今日は天気がいいですね。", "ja"),
        ("中華人民共和國憲法規定公民有言論出版集會結社遊行示威的自由", "zh"),
        ("中華人民共和國憲法規定公民有言論出版集會結社遊行示威的自由", "zh-Hant"),
        ("Saya tidak tahu apa yang harus saya lakukan sekarang", "id"),
        ("Jeg vet ikke hva jeg skal gjøre i dag", "nb"),
        ("Jeg vet ikke hva jeg skal gjøre i dag", "no"),
        ("Ово је добар дан за све нас овде.", "sr"),
        ("Ovo je dobar dan za sve nas ovde.", "sr"),
        ("나는 大學에서 공부합니다. 오늘은 날씨가 좋네요.", "ko"),
        ("형가(荊軻)는 노구천(魯句踐)의 성격을 파악하게 된다.", "ko"),
        ("京都大学大学院人間環境学研究科教授の山田さんが講演する。", "ja"),
        (
            "国立大学（北海道大学・東北大学・東京大学・名古屋大学・京都大学・大阪大学・九州大学）への進学者が多い。",
            "ja",
        ),
        ("ירושלים היא בירת ישראל והעיר הגדולה בה", "he"),
        ("இன்று வானிலை மிகவும் நன்றாக உள்ளது", "ta"),
        ("আজ আবহাওয়া খুব ভালো এবং আমি বাইরে যাচ্ছি", "bn"),
        ("วันนี้อากาศดีมากเลยนะครับ", "th"),
        ("დღეს ძალიან კარგი ამინდია", "ka"),
        ("Я купил Windows 10 и iPhone в Helsinki вчера вечером.", "ru"),
        ("Pariisissa asuva Jean-Pierre Dubois tapasi eilen presidentin ja kertoi hänelle kaiken.", "fi"),
        ("Käytä tätä:\n```python\nfor x in range(10): print(x)  # the weather is nice\n```\nSe tulostaa luvut.", "fi"),
        ("Lue lisää: https://example.org/the-weather-is-nice-today ja kerro sitten muille 🙂", "fi"),
        ("Hyvää huomenta, mitä teille kuuluu tänää�", "fi"),
    ],
)
def test_a_right_answer_with_names_code_or_its_own_mixture_of_scripts_is_right(answer, target):
    found = judge_answer(answer, target)
    assert found.verdict == "right", found.reason


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        ("中華人民共和國憲法規定公民有言論出版集會結社遊行示威的自由", "zh-Hans", "other language"),
        ("中華人民共和國憲法規定公民有言論出版集會", "ko", "other language"),
        ("臺北市是首都！", "ko", "other language"),
        ("The weather is very nice today in the garden.", "he", "other language"),
        ("Idag är det mycket fint väder och vi går till stranden.", "da", "other language"),
        ("巴黎很美", "zh", "short"),
        ("ok", "he", "short"),
        ("talo talo talo talo talo talo talo", "fi", "broken"),
        ("ааааааааааааааааааааааааааааа", "ru", "broken"),
        ("Hyvää \x00huo\x07menta, mitä teille kuuluu tänään?", "fi", "broken"),
        ("```\nprint('the weather is nice today')\n```", "en", "short"),
    ],
)
def test_what_is_not_right_has_its_name(answer, target, expected):
    assert verdict(answer, target) == expected


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("My brother was the instigator.", "en"),
        ("El agua circunvala y circunvala, y tu padre circunvala", "es"),
        ("Hän tapasi eilen Jean-Pierre Dubois ravintolassa.", "fi"),
    ],
)
def test_the_last_word_a_repeated_word_and_a_name_make_no_mixture(answer, target):
    """A path pays for its end where the text ends; the second time a rare word says nothing new."""
    assert verdict(answer, target) == "right"


@pytest.mark.parametrize(
    ("answer", "target", "other"),
    [
        ("Ostin eilen Tegnap vettem uuden polkupyörän kaupasta.", "fi", "hu"),
        ("Nous avons mangé Wczoraj wieczorem dans le jardin.", "fr", "pl"),
        ("Nous avons vu Gestern abend un bon film.", "fr", "de"),
    ],
)
def test_a_capital_that_opens_a_run_of_another_language_is_no_name(answer, target, other):
    found = judge_answer(answer, target)
    assert found.verdict == "mixed" and other in found.languages


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("Sie studierte an der Glasgow School of Art.", "de"),
        ("Dort arbeitet die New York City Health and Hospitals Corporation.", "de"),
        ("Rozprawa odbyła się w siedzibie Glasgow School of Art.", "pl"),
        ("Valituksen teki European Chemical Industry Council (CEFIC) asetuksen mukaisesti.", "fi"),
        ("TCP (Transmission Control Protocol) y UDP (User Datagram Protocol) son dos protocolos de transporte.", "es"),
    ],
)
def test_the_small_words_of_a_name_and_its_capitals_make_no_mixture(answer, target):
    found = judge_answer(answer, target)
    assert found.verdict == "right", found.segments


def test_only_a_few_small_words_between_capitals_are_a_part_of_the_name():
    words = ["School", "of", "the", "Art", "and", "ran", "Home", "of", "the", "and", "Of"]
    capitals = [word[0].isupper() for word in words]
    assert small_words_of_names(words, capitals) == [False, True, True] + [False] * 8


@pytest.mark.parametrize(
    ("word", "tag", "forms"),
    [
        ("Daß", "de", (("dass",),)),
        ("M’appelle", "fr", (("m'appelle",), ("appelle",))),
        ("c'est", "fr", (("c'est",), ("est",))),
        ("Işık", "tr", (("işık",), ("ışık",))),
        ("فَأَوحى", "ar", (("فأوحى",),)),
    ],
)
def test_a_word_is_looked_up_as_the_lists_write_it(word, tag, forms):
    assert listed_forms(folded(word), tag) == forms


def test_words_that_lists_spell_in_another_way_are_no_longer_words_that_they_lack():
    """`ß`, elisions and Arabic vowel signs: each of these words is common, and none stands in its list as written."""
    words = {"de": ("Latn", "heißt"), "fr": ("Latn", "m'appelle"), "ar": ("Arab", "اللَّه")}
    for tag, (script, word) in words.items():
        source = evidence(script)
        source.learn([folded(word)])
        assert source.commonest(folded(word)) > -10, tag


def test_a_run_of_han_that_speaks_for_the_other_language_as_a_whole_is_that():
    """Its ends are common to both: most characters of the path are the target's."""
    runs = ["この", "人民大学是教育部备案的国家重点普通高等学校", "です"]
    assert han.label_runs(runs, "ja") == ["ja", "zh", "ja"]


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("На снiгу напiвлежав дядько, снiгом мочив собi нiс.", "uk"),
        ("Bu kitapta pаrаsız bir аdаm vаr ve evi yоk", "tr"),
    ],
)
def test_a_letter_of_the_same_shape_in_the_other_script_is_the_letter_it_looks_like(answer, target):
    found = judge_answer(answer, target)
    assert found.verdict == "right" and len(found.scripts) == 1
    assert "".join(word.text for word in words_of("нiс 東京 Kö iPhone")) == "ніс東京KöiPhone"


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        ("Let ε > 0 and choose δ such that |x − a| < δ.", "en", "right"),
        ("Der Winkel α ist gleich β, und γ ist 90°.", "de", "right"),
        ("Скорость равна v = s/t, где s — путь.", "ru", "right"),
        ("Докажите, что max(a, b) ≥ min(a, b) для любых чисел a и b.", "ru", "right"),
        ("Масса тела равна 5 kg, длина 3 cm, а энергия E = mc².", "ru", "right"),
        ("已知 sin α = 0.6，求 cos α 的值。", "zh", "short"),
        ("已知 sin α = 0.6，其中 α 是锐角，求 cos α 的值。", "zh", "right"),
        ("関数 f(x) = x^2 + 2x + 1 の最小値を求めなさい。", "ja", "right"),
        ("الدالة f(x) = sin x دورية ودورها 2π.", "ar", "right"),
        ("Η γωνία α είναι ίση με τη γωνία β και το μήκος είναι x.", "el", "right"),
        ("Скорость the speed is равна v = s/t, где s — путь.", "ru", "mixed"),
        ("we choose ε > 0, тогда существует такое δ, что |x − a| < δ.", "ru", "mixed"),
        ("已知 sin α = 0.6，find the value of cos α。", "zh", "mixed"),
        ("Let ε > 0 and choose δ such that |x − a| < δ.", "ru", "other language"),
    ],
)
def test_letters_and_functions_of_formulas_are_signs_and_make_no_mixture(answer, target, expected):
    found = judge_answer(answer, target)
    assert found.verdict == expected, found.reason


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        ("Вставьте команду pip install numpy и нажмите клавишу ввода.", "ru", "right"),
        ("まず pip install --upgrade numpy を実行してください。", "ja", "right"),
        ("설정하려면 git commit -m 을 실행하고 저장하세요.", "ko", "right"),
        ("먼저 pip install the package that you need 를 실행하세요.", "ko", "mixed"),
        ("Вставьте команду install the package и нажмите клавишу ввода.", "ru", "mixed"),
    ],
)
def test_a_command_line_is_code_as_far_as_its_first_argument(answer, target, expected):
    assert verdict(answer, target) == expected


def test_what_is_a_sign_hangs_on_its_neighbours():
    """A word of one letter in its own script is a word; beside an operator, or in another script, it is none."""
    texts = {
        "TCP (Protocol) y UDP": "TCP Protocol y UDP",
        "2x + y = z and a dog": "and a dog",
        "log(x) und sin 30, tan war": "und tan war",
        "日の本と": "日 の 本 と",
        "и я, где t мал": "и я где мал",
        "a a a a": "a a a a",
        "5 km по the дороге": "по the дороге",
    }
    assert {text: " ".join(word.text for word in words_of(text)) for text in texts} == texts


def test_reasons_are_shares_by_script_and_language_and_runs_of_words():
    (found,) = bs.judge_answers(["Сегодня хорошая погода. Bonjour les amis, il fait très beau."], ["ru"])
    assert found.verdict == "mixed" and list(found.languages) == ["fr", "ru"]
    assert found.scripts["Latn"] == found.languages["fr"] == pytest.approx(28 / 48)
    assert [tag for _, tag in found.segments] == ["ru", "fr"]
    assert found.segments[0][0] == "Сегодня хорошая погода." and "58%" in found.reason


def test_letters_count_by_what_they_say():
    assert judge_answer("巴黎很美", "zh").letters == pytest.approx(4 * letter_weight("巴")) == pytest.approx(12.4)
    assert judge_answer("Kiitos", "fi").letters == 6


def test_every_language_whose_script_is_its_own_is_known():
    assert {tag for tags in OWN_SCRIPT.values() for tag in tags} <= known_languages()
    assert known_languages() >= {"he", "ta", "bn", "th", "el", "ka", "nb", "sk", "ms", "zh-Hant", "sr-Latn"}


@pytest.mark.parametrize("target", ["en", "it", "fi"])
def test_a_list_of_names_counts_as_the_target(target):
    """Names have no language: nothing in them speaks against the target by enough."""
    assert verdict("Paris, Madrid, Berlin, Roma, Wien, Lisboa, Warszawa, Praha, Budapest", target) == "right"


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        ("Kumusta ka na ngayong umaga kaibigan", "tl", "right"),
        ("Kumusta ka na ngayong umaga kaibigan", "fil", "right"),
        ("Бу сәһәр һава чох јахшыдыр вә ҝөзәлдир", "az", "other language"),
        ("Мен бүгін кітапханаға бардым және кітап оқыдым", "kk", "right"),
        ("The weather is very nice today", "kk", "other language"),
    ],
)
def test_a_language_of_two_scripts_is_judged_in_the_one_with_words(answer, target, expected):
    assert verdict(answer, target) == expected


def test_a_whole_text_of_a_neighbour_is_told_by_the_full_models():
    texts = ["Anakanak pergi ke sekolah pagipagi sekali bersama temanteman mereka"]
    assert detect_languages(texts) == ["id"]


def test_bad_input_is_one_line():
    with pytest.raises(MeasurementError, match="1 targets came for 2 answers"):
        bs.judge_answers(["a", "b"], ["fi"])
    with pytest.raises(LanguageError, match="mt, tt cannot be recognised"):
        bs.judge_answers(["a", "b"], ["tt", "mt"])
    for answer, fault in ((None, "NoneType None"), (b"ja", "bytes b'ja'"), (7, "int 7")):
        with pytest.raises(MeasurementError, match=rf"^answers\[1\] is {fault}; expected a text;"):
            inspect.unwrap(bs.judge_answers)(["hyvin", answer], ["fi", "fi"])
    with pytest.raises(MeasurementError, match="one text came, 'hyvin'"):
        bs.judge_answers("hyvin", ["fi"] * 5)
    with pytest.raises(MeasurementError, match=r"^texts\[0\] is NoneType"):
        inspect.unwrap(detect_languages)([None])


def test_a_variant_is_refused_with_the_language_that_it_is_of():
    """A region says nothing of words: `pt-BR` is not told from `pt`, and another script is another matter."""
    wanted = {"pt-BR": "pt", "en-GB": "en", "zh-TW": "zh-Hant", "zh-CN": "zh-Hans", "sr-Cyrl-RS": "sr-Cyrl"}
    for tag, known in wanted.items():
        with pytest.raises(LanguageError, match=f"^{tag} cannot be recognised: .*; write '{known}' for '{tag}'$"):
            bs.judge_answers(["a"], [tag])
    with pytest.raises(LanguageError, match="^en-GB cannot .* for 'en-GB'; az-Cyrl, tt cannot .* one of af"):
        bs.judge_answers(["a"] * 4, ["tt", "en-GB", "az-Cyrl", "en"])


@pytest.mark.parametrize("answer", ["", " \n", "\u200b\u200b", "\ufeff", " \u2060\u00ad\t"])
def test_signs_that_are_not_seen_are_an_empty_answer(answer):
    assert verdict(answer, "en") == "empty"


def test_the_judges_error_on_labelled_text_is_counted_and_a_large_one_is_said(caplog):
    english, finnish = (load_corpus("reference", [tag], split="valid")[tag] for tag in ("en", "fi"))
    lines = [document.text for document in finnish][:17] + [document.text for document in english][:3]
    errors = judge_errors(as_corpus({"fi": [*lines, "ei"], "tt": lines}))
    assert list(errors) == ["fi"], "Tatar cannot be judged"
    assert errors["fi"].n == 20 and errors["fi"].errors == pytest.approx(3 / 20) and errors["fi"].taken_for == "en"
    assert errors["fi"].low < 0.15 < errors["fi"].high
    assert "errs on 15 % of 20 lines labelled fi (mostly taken for en)" in caplog.text
