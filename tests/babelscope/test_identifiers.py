"""An identifier of your own is asked piece by piece: a mixture fails there too, and what it does not know is said."""

import pytest

from babelscope.errors import LanguageError
from babelscope.evaluation import Guess, Identifier, judge_by, open_identifier

ASTURIAN = {
    "la",
    "casa",
    "ye",
    "bien",
    "grande",
    "y",
    "tien",
    "munches",
    "ventanes",
    "abiertes",
    "hoy",
    "pela",
    "mañana",
}
ENGLISH = {"the", "house", "is", "very", "large", "and", "has", "many", "open", "windows", "this", "morning"}


def two_languages(asked, label_set, labels):
    """A stand-in for GlotLID or OpenLID: it counts words of two languages, and notes what it was asked."""
    own, english = labels

    def guess(texts):
        asked.extend(texts)
        counts = [[sum(w in known for w in t.lower().split()) for known in (ASTURIAN, ENGLISH)] for t in texts]
        return [Guess(own if a >= e else english, max(a, e) / max(1, a + e)) for a, e in counts]

    return Identifier("stand-in", label_set, guess, frozenset(labels))


@pytest.mark.parametrize("label_set", ["glotlid", "nllb", "openlid"])
@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("La casa ye bien grande y tien munches ventanes abiertes hoy pela mañana", "right"),
        ("La casa ye bien grande y tien munches ventanes. The house is very large and has many windows.", "mixed"),
        ("La casa ye bien grande y tien munches the house is very large and has many windows", "mixed"),
        ("The house is very large. La casa ye bien grande y tien munches ventanes abiertes", "mixed"),
        ("The house is very large and has many open windows this morning", "other language"),
        ("La casa ye bien grande y tien munches ventanes. Дом очень большой и старый.", "mixed"),
        ("La casa", "short"),
        ("casa casa casa casa casa casa casa", "broken"),
        (" \n", "empty"),
    ],
)
def test_each_piece_is_asked_about_so_that_a_mixture_fails(answer, verdict, label_set):
    asked = []
    (found,) = judge_by(two_languages(asked, label_set, ("ast_Latn", "eng_Latn")), [answer], "ast")
    assert found.verdict == verdict, found.reason
    assert all(sum(map(str.isalpha, text)) < 40 + 16 + 10 for text in asked), "long sentences are cut"


def test_the_reason_names_the_other_language_by_our_tag():
    identifier = two_languages([], "openlid", ("ast_Latn", "eng_Latn"))
    (found,) = judge_by(identifier, ["La casa ye bien grande y tien munches. The house is very large."], "ast")
    assert set(found.languages) == {"ast", "en"} and found.segments[1][1] == "en"


def test_letters_in_a_script_of_the_tag_are_asked_about_and_others_are_not():
    asked = []
    identifier = two_languages(asked, "openlid", ("ace_Arab", "eng_Latn"))
    (found,) = judge_by(identifier, ["The house is very large and has many windows"], "ace-Arab")
    assert found.verdict == "other language" and not asked


def test_a_target_that_the_identifier_can_not_give_is_one_line():
    identifier = two_languages([], "openlid", ("ast_Latn", "eng_Latn"))
    with pytest.raises(LanguageError, match="^fi cannot be recognised by stand-in; expected one of ast_Latn, eng_Latn"):
        judge_by(identifier, ["Hyvää huomenta kaikille"], "fi")
    many = Identifier("many", "openlid", lambda texts: [], frozenset(f"l{n}_Latn" for n in range(2000)))
    with pytest.raises(LanguageError, match="and 1900 more; name another identifier"):
        many.check("fi")


def test_a_function_may_speak_another_set_of_labels():
    identifier = open_identifier(lambda texts: [Guess("lvs_Latn", 1.0) for _ in texts], labels="openlid")
    (found,) = judge_by(identifier, ["Rīga ir Latvijas galvaspilsēta un lielākā pilsēta"], "lv")
    assert found.verdict == "right"
