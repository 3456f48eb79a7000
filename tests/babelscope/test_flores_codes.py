"""Labels such as `fin_Latn` and our tags: all 204 of FLORES-200, and what other label sets write for the same."""

import pytest

from babelscope.errors import LanguageError
from babelscope.evaluation import LABELS, labels_of, language_of
from babelscope.evaluation.flores_codes import labels_for, tag_of

# fmt: off
FLORES_200 = """
ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn als_Latn amh_Ethi apc_Arab arb_Arab arb_Latn
ars_Arab ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab azj_Latn bak_Cyrl bam_Latn ban_Latn bel_Cyrl
bem_Latn ben_Beng bho_Deva bjn_Arab bjn_Latn bod_Tibt bos_Latn bug_Latn bul_Cyrl cat_Latn ceb_Latn ces_Latn cjk_Latn
ckb_Arab crh_Latn cym_Latn dan_Latn deu_Latn dik_Latn dyu_Latn dzo_Tibt ell_Grek eng_Latn epo_Latn est_Latn eus_Latn
ewe_Latn fao_Latn fij_Latn fin_Latn fon_Latn fra_Latn fur_Latn fuv_Latn gaz_Latn gla_Latn gle_Latn glg_Latn grn_Latn
guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hne_Deva hrv_Latn hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn
ita_Latn jav_Latn jpn_Jpan kab_Latn kac_Latn kam_Latn kan_Knda kas_Arab kas_Deva kat_Geor kaz_Cyrl kbp_Latn kea_Latn
khk_Cyrl khm_Khmr kik_Latn kin_Latn kir_Cyrl kmb_Latn kmr_Latn knc_Arab knc_Latn kon_Latn kor_Hang lao_Laoo lij_Latn
lim_Latn lin_Latn lit_Latn lmo_Latn ltg_Latn ltz_Latn lua_Latn lug_Latn luo_Latn lus_Latn lvs_Latn mag_Deva mai_Deva
mal_Mlym mar_Deva min_Arab min_Latn mkd_Cyrl mlt_Latn mni_Beng mos_Latn mri_Latn mya_Mymr nld_Latn nno_Latn nob_Latn
npi_Deva nso_Latn nus_Latn nya_Latn oci_Latn ory_Orya pag_Latn pan_Guru pap_Latn pbt_Arab pes_Arab plt_Latn pol_Latn
por_Latn prs_Arab quy_Latn ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva sat_Beng scn_Latn shn_Mymr sin_Sinh slk_Latn
slv_Latn smo_Latn sna_Latn snd_Arab som_Latn sot_Latn spa_Latn srd_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn
szl_Latn tam_Taml taq_Latn taq_Tfng tat_Cyrl tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi tpi_Latn tsn_Latn tso_Latn
tuk_Latn tum_Latn tur_Latn twi_Latn tzm_Tfng uig_Arab ukr_Cyrl umb_Latn urd_Arab uzn_Latn vec_Latn vie_Latn war_Latn
wol_Latn xho_Latn ydd_Hebr yor_Latn yue_Hant zho_Hans zho_Hant zsm_Latn zul_Latn
""".split()  # noqa: SIM905
MACRO = {
    "als_Latn": "sq", "arb_Arab": "ar", "ayr_Latn": "ay", "azj_Latn": "az", "gaz_Latn": "om", "khk_Cyrl": "mn",
    "lvs_Latn": "lv", "npi_Deva": "ne", "ory_Orya": "or", "pbt_Arab": "ps", "pes_Arab": "fa", "plt_Latn": "mg",
    "prs_Arab": "fa-AF",
    "swh_Latn": "sw", "tgl_Latn": "fil", "uzn_Latn": "uz", "ydd_Hebr": "yi", "zsm_Latn": "ms",
}
WITH_SCRIPT = {
    "acm_Arab": "acm-Arab", "acq_Arab": "acq-Arab", "ajp_Arab": "ajp-Arab", "azb_Arab": "azb-Arab",
    "crh_Latn": "crh-Latn",
    "ace_Arab": "ace-Arab", "arb_Latn": "ar-Latn", "bjn_Arab": "bjn-Arab", "kas_Deva": "ks-Deva", "knc_Arab":
    "knc-Arab", "min_Arab": "min-Arab", "sat_Beng": "sat-Beng", "taq_Tfng": "taq-Tfng", "tzm_Tfng": "tzm-Tfng",
    "zho_Hans": "zh-Hans", "zho_Hant": "zh-Hant",
}
# fmt: on


def test_there_are_204_labels():
    assert len(FLORES_200) == len(set(FLORES_200)) == 204


@pytest.mark.parametrize("label_set", ["nllb", "openlid"])
def test_every_label_has_its_tag_and_every_tag_its_label(label_set):
    tags = {label: language_of(label, label_set) for label in FLORES_200}
    assert len(set(tags.values())) == 204 and None not in tags.values()
    for label, tag in tags.items():
        assert tag is not None and label in labels_of(tag, label_set)
        assert tag == MACRO.get(label) or tag == WITH_SCRIPT.get(label) or tag.iso639_3 == label[:3]
        assert ("-" in tag) == (label in WITH_SCRIPT or label == "prs_Arab")
    assert {label: tags[label] for label in MACRO} == MACRO
    assert {label: tags[label] for label in WITH_SCRIPT} == WITH_SCRIPT


def test_no_label_counts_for_two_languages():
    tags = [language_of(label, "openlid") for label in FLORES_200]
    labels = [label for tag in tags if tag is not None for label in labels_of(tag, "openlid")]
    assert len(labels) == len(set(labels))


def test_newer_and_older_codes_mean_the_same_tag():
    same = {
        "zh": ("cmn_Hani",), "zh-Hans": ("cmn_Hans", "zho_Hans"), "et": ("ekk_Latn", "est_Latn"), "no": ("nor_Latn",),
        "lv": ("lav_Latn", "lvs_Latn"), "fa": ("fas_Arab", "pes_Arab"), "mn": ("mon_Cyrl", "khk_Cyrl"),
        "mg": ("mlg_Latn",), "ms": ("msa_Latn",), "sw": ("swa_Latn",), "uz": ("uzb_Latn",), "ne": ("nep_Deva",),
        "or": ("ori_Orya",), "az": ("aze_Latn",), "sq": ("sqi_Latn",), "nb": ("nob_Latn",), "ar": ("ara_Arab",),
        "fil": ("fil_Latn", "tgl_Latn"), "ko": ("kor_Hang",), "ja": ("jpn_Jpan",), "yue": ("yue_Hant", "yue_Hani"),
    }  # fmt: skip
    for tag, labels in same.items():
        assert {tag_of(label) for label in labels} == {tag} and set(labels) <= labels_for(tag)


def test_chinese_and_norwegian_as_a_whole_are_any_of_their_labels():
    assert {"zho_Hans", "zho_Hant", "cmn_Hani"} <= labels_for("zh") and "yue_Hant" not in labels_for("zh")
    assert labels_for("no") == {"nor_Latn", "nob_Latn", "nno_Latn"}


def test_dialects_and_neighbours_stay_apart():
    apart = {"arz_Arab", "prs_Arab", "ckb_Arab", "azb_Arab", "yue_Hant", "ind_Latn", "hrv_Latn"}
    whole = [labels_for(tag) for tag in ("ar", "fa", "ku", "az", "zh", "ms", "sr", "sh")]
    assert not apart & frozenset().union(*whole)


@pytest.mark.parametrize("label_set", ["nllb", "glotlid"])
def test_the_table_and_the_rule_agree(label_set):
    for tag, labels in LABELS[label_set].items():
        assert labels <= labels_for(tag)
        assert {tag_of(label) for label in labels} <= {tag, "nb", "nn", "zh-Hans", "zh-Hant", "zh"}


def test_what_is_no_label_is_no_language_and_an_unknown_tag_is_refused():
    assert [tag_of(label) for label in ("und_Latn", "zxx_Zzzz", "qqqq_Latn", "fin_Qqqq", "", "_")] == [None] * 6
    with pytest.raises(LanguageError, match="'qqqq' is unknown"):
        labels_for("qqqq")
