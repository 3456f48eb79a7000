"""What each language identifier calls a language, as one explicit table."""

from typing import Any, Literal, get_args

from babelscope.errors import LanguageError
from babelscope.evaluation.flores_codes import labels_for, tag_of
from babelscope.languages import Language

LabelSet = Literal["lingua", "lid176", "glotlid", "nllb", "openlid", "bcp47"]
"""lingua; fastText's lid.176; GlotLID version 3; NLLB's lid218e, which has the labels of FLORES-200; OpenLID, any
version; our own tags."""
FLORES_STYLE = frozenset({"glotlid", "nllb", "openlid"})
"""Label sets that write `fin_Latn`: what their column lacks goes by the rule of `flores_codes`."""

_TABLE = """
tag     lingua  lid176  glotlid            nllb
af      af      af      afr_Latn           afr_Latn
ar      ar      ar      arb_Arab           arb_Arab
arz     -       arz     arz_Arab           arz_Arab
bg      bg      bg      bul_Cyrl           bul_Cyrl
bn      bn      bn      ben_Beng           ben_Beng
bo      -       bo      bod_Tibt           bod_Tibt
bs      bs      bs      bos_Latn           bos_Latn
ca      ca      ca      cat_Latn           cat_Latn
cs      cs      cs      ces_Latn           ces_Latn
cy      cy      cy      cym_Latn           cym_Latn
da      da      da      dan_Latn           dan_Latn
de      de      de      deu_Latn           deu_Latn
el      el      el      ell_Grek           ell_Grek
en      en      en      eng_Latn           eng_Latn
eo      eo      eo      epo_Latn           epo_Latn
es      es      es      spa_Latn           spa_Latn
et      et      et      ekk_Latn           est_Latn
eu      eu      eu      eus_Latn           eus_Latn
fa      fa      fa      fas_Arab           pes_Arab
fi      fi      fi      fin_Latn           fin_Latn
fr      fr      fr      fra_Latn           fra_Latn
hi      hi      hi      hin_Deva           hin_Deva
hr      hr      hr      hrv_Latn           hrv_Latn
hu      hu      hu      hun_Latn           hun_Latn
id      id      id      ind_Latn           ind_Latn
it      it      it      ita_Latn           ita_Latn
ja      ja      ja      jpn_Jpan           jpn_Jpan
ka      ka      ka      kat_Geor           kat_Geor
kk      kk      kk      kaz_Cyrl           kaz_Cyrl
ko      ko      ko      kor_Hang           kor_Hang
ms      ms      ms      zsm_Latn           zsm_Latn
mt      -       mt      mlt_Latn           mlt_Latn
nb      nb      -       nob_Latn           nob_Latn
nl      nl      nl      nld_Latn           nld_Latn
nn      nn      nn      nno_Latn           nno_Latn
no      nb+nn   no+nn   nob_Latn+nno_Latn  nob_Latn+nno_Latn
pl      pl      pl      pol_Latn           pol_Latn
pt      pt      pt      por_Latn           por_Latn
ro      ro      ro      ron_Latn           ron_Latn
ru      ru      ru      rus_Cyrl           rus_Cyrl
sk      sk      sk      slk_Latn           slk_Latn
sr      sr      sr      srp_Cyrl           srp_Cyrl
sv      sv      sv      swe_Latn           swe_Latn
sw      sw      sw      swh_Latn           swh_Latn
th      th      th      tha_Thai           tha_Thai
tl      fil     tl      fil_Latn           tgl_Latn
tr      tr      tr      tur_Latn           tur_Latn
tt      -       tt      tat_Cyrl           tat_Cyrl
uk      uk      uk      ukr_Cyrl           ukr_Cyrl
ur      ur      ur      urd_Arab           urd_Arab
vi      vi      vi      vie_Latn           vie_Latn
yue     -       yue     yue_Hani           yue_Hant
zh      zh      zh      cmn_Hani           zho_Hans+zho_Hant
zh-Hans -       -       -                  zho_Hans
zh-Hant -       -       -                  zho_Hant
"""


def _read_table() -> dict[LabelSet, dict[Language, frozenset[str]]]:
    head, *rows = [[str(word) for word in line.split()] for line in _TABLE.strip().splitlines()]
    tables: dict[LabelSet, dict[Language, frozenset[str]]] = {}
    names: tuple[Any, ...] = get_args(LabelSet)
    for name in (label_set for label_set in names if label_set in head):
        column = head.index(name)
        tables[name] = {Language.parse(r[0]): frozenset(r[column].split("+")) for r in rows if r[column] != "-"}
    return tables


LABELS = _read_table()
"""By label set, then tag: the labels that count as that language.

Labels count for a second tag only for the macro languages `no` and `zh`, where the table says so. Dialects and
neighbours (`arz`, `yue`, `ms`, `hr`) never count for `ar`, `zh`, `id` or `sr`. lid.176's `no` is written mostly as
Bokmål, but its makers do not say that it is only that: `nb` has no label there. GlotLID's `fas_Arab` holds Dari too.
Sources: label lists of lid.176, GlotLID v3 (languages-v3.md) and FLORES-200.
"""


def labels_of(language: str, label_set: LabelSet) -> frozenset[str]:
    """The labels that count as a language: those of the table, else of the rule for labels like `fin_Latn`.

    Raises LanguageError where that set has none for it.
    """
    tag = Language.parse(language)
    if label_set == "bcp47":
        return frozenset({tag})
    if tag in LABELS.get(label_set, {}):
        return LABELS[label_set][tag]
    if label_set in FLORES_STYLE:
        return labels_for(tag)
    raise LanguageError(
        f"language {tag!r} has no label of {label_set}; expected one of {', '.join(LABELS[label_set])}; "
        "name another identifier"
    )


def language_of(label: str | None, label_set: LabelSet) -> Language | None:
    """The language a label names, for reports; None for no label, or one that is no language (`und_…`, `zxx_…`).

    Of two tags that share a label it is the one that has no other (`zho_Hans` is `zh-Hans`). A label outside the table
    is its code's tag, with the script where it is not the usual one (`kmr_Latn` is `kmr`, `ace_Arab` is `ace-Arab`).
    """
    if label is None:
        return None
    languages = [tag for tag, labels in LABELS.get(label_set, {}).items() if label in labels]
    if languages:
        return min(languages, key=lambda tag: len(LABELS[label_set][tag]))
    return tag_of(label if label_set in FLORES_STYLE else label.replace("_", "-"))
