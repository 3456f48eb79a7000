"""The table between the labels of identifiers and our tags: total on the languages in question, nothing merged."""

from collections import Counter

import pytest

from babelscope.errors import LanguageError
from babelscope.evaluation import BENCHMARK, LABELS, known_languages, labels_of, language_of

# fmt: off
LID176 = set(
    """af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy
da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id ie ilo
io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl
my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh si
sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf yi yo yue
zh""".split()  # noqa: SIM905
)
CLAS = """en ar bo da de es fr hi it ja ko mt nl no pl pt ru sv tr zh sk el kk sw ka uk fa th id vi cs ro""".split()  # noqa: SIM905
# fmt: on


@pytest.mark.parametrize("label_set", ["lid176", "glotlid", "nllb"])
def test_every_language_in_question_has_a_label(label_set):
    for tag in {*BENCHMARK, "mt", "tt", *CLAS}:
        assert labels_of(tag, label_set)


def test_the_judge_itself_knows_every_language_of_its_table():
    assert set(LABELS["lingua"]) <= known_languages()


def test_labels_of_lid176_are_of_its_published_list():
    assert {label for labels in LABELS["lid176"].values() for label in labels} <= LID176


@pytest.mark.parametrize("label_set", ["lingua", "lid176", "glotlid", "nllb"])
def test_only_the_macro_languages_share_a_label(label_set):
    uses = Counter(label for labels in LABELS[label_set].values() for label in labels)
    shared = {label for label, count in uses.items() if count > 1}
    macro = labels_of("no", label_set) | labels_of("zh", label_set)
    assert shared <= macro


def test_neighbours_are_not_merged():
    assert language_of("arz", "lid176") == "arz" and "arz" not in labels_of("ar", "lid176")
    assert "yue_Hani" not in labels_of("zh", "glotlid")
    assert labels_of("zh", "nllb") == {"zho_Hans", "zho_Hant"} and language_of("zho_Hans", "nllb") == "zh-Hans"
    assert language_of("zsm_Latn", "glotlid") == "ms" and language_of("ms", "lid176") == "ms"
    assert labels_of("nb", "nllb") == {"nob_Latn"} and language_of("nob_Latn", "nllb") == "nb"


def test_labels_outside_the_table_keep_their_own_name_and_no_language_is_none():
    assert language_of("kmr_Latn", "glotlid") == "kmr" and language_of("ace_Arab", "openlid") == "ace-Arab"
    assert [language_of(label, "glotlid") for label in (None, "und_Xsux", "zxx_Latn", "not a label")] == [None] * 4


def test_every_label_of_the_table_names_its_row():
    for label_set, rows in LABELS.items():
        for tag, labels in rows.items():
            for label in labels:
                assert language_of(label, label_set) == tag or tag in ("no", "zh")


def test_a_language_without_a_label_is_refused():
    with pytest.raises(LanguageError, match="'tt' has no label of lingua"):
        labels_of("tt", "lingua")
    assert labels_of("quc", "bcp47") == {"quc"}
