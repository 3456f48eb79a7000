"""Labels in the style of FLORES-200 (`fin_Latn`: ISO 639-3 and ISO 15924) and our own tags, by one exact rule."""

from babelscope.errors import ToolkitError
from babelscope.languages import Language

STANDARD: dict[str, str] = {
    "als": "sq", "arb": "ar", "ayr": "ay", "azj": "az", "cmn": "zh", "ekk": "et", "gaz": "om",
    "khk": "mn", "lvs": "lv", "npi": "ne", "ory": "or", "pbt": "ps", "pes": "fa", "plt": "mg", "swh": "sw",
    "tgl": "fil", "uzn": "uz", "ydd": "yi", "zsm": "ms",
}  # fmt: skip
"""Individual languages whose tag is that of their macro language, because what is written under it is they.

Left alone are those beside which others are as common: `kmr` and `ckb`, `prs`, `quy`, `knc`, `fuv`, `dik`, the Arabic
dialects, `azb`, `yue`. `nob` and `nno` are `nb` and `nn`; `no` is both.
"""
REGIONAL = {"fa-AF": "prs"}
"""Tags with a region whose language has a code of its own: CLDR writes Dari as the Persian of Afghanistan."""
SCRIPTS: dict[str, tuple[str, ...]] = {
    "zh": ("Hans", "Hant", "Hani"), "yue": ("Hant", "Hani"), "ko": ("Hang", "Kore"), "ja": ("Jpan",),
}  # fmt: skip
"""Scripts of a tag without one, where they are not just the usual script of its language."""
KEEP_SCRIPT = frozenset({"Hans", "Hant"})
"""Scripts that stay in the tag: `zho_Hans` is `zh-Hans`."""


def tag_of(label: str) -> Language | None:
    """The tag of a label, without its script where that is the usual one; None where it is no language.

    `fin_Latn` is `fi`, `arb_Arab` `ar`, `arb_Latn` `ar-Latn`, `zho_Hant` `zh-Hant`, `cmn_Hani` `zh`.
    """
    code, _, script = label.partition("_")
    if code in ("und", "zxx", "mul", "mis"):
        return None
    try:
        base = Language(STANDARD[code]) if code in STANDARD else Language.from_iso639_3(code)
        language, *region = base.split("-")
        tag = Language.parse("-".join([language, script, *region])) if script else base
    except ToolkitError:
        return None
    usual = SCRIPTS.get(base, (base.script,))
    return base if script in usual and not (base == "zh" and script in KEEP_SCRIPT) else tag


def labels_for(language: str) -> frozenset[str]:
    """All labels that mean a tag: its own code and those of `STANDARD`, each with its script.

    `lv` is `lav_Latn` or `lvs_Latn`, `no` `nor_Latn`, `nob_Latn` or `nno_Latn`, `zh` any of the codes and scripts of
    Chinese. A language that CLDR has no script of counts as written in Latin letters: name the script (`acm-Arab`).
    Raises LanguageError for an unknown tag.
    """
    tag = Language.parse(language)
    if tag in REGIONAL:
        return frozenset({f"{REGIONAL[tag]}_{tag.script}"})
    base = Language(tag.split("-")[0])
    codes = {base.iso639_3, *(code for code, name in STANDARD.items() if name == base)}
    codes |= {"nob", "nno"} if base == "no" else set()
    scripts = SCRIPTS[base] if tag == base and base in SCRIPTS else (tag.script,)
    return frozenset(f"{code}_{script}" for code in codes for script in scripts)
