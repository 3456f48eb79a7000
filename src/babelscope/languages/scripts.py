"""In which script characters are written: Unicode's Script and Script_Extensions, and which languages use a script.

Sources: Unicode Standard Annex 24, as the library `regex` carries it; ISO 15924 for the codes; the scripts of
languages from CLDR's likely subtags (`langcodes`), with those that write in two scripts named here.
"""

from collections import Counter
from functools import cache
from unicodedata import category

import regex

from babelscope.languages import Language

# fmt: off
# Common scripts first: a character is looked up in this order.
_NAMES = """
Latn Latin|Hani Han|Cyrl Cyrillic|Arab Arabic|Hang Hangul|Hira Hiragana|Kana Katakana|Deva Devanagari|Grek Greek
Hebr Hebrew|Thai Thai|Beng Bengali|Taml Tamil|Telu Telugu|Knda Kannada|Mlym Malayalam|Gujr Gujarati|Guru Gurmukhi
Orya Oriya|Sinh Sinhala|Armn Armenian|Geor Georgian|Ethi Ethiopic|Khmr Khmer|Laoo Lao|Mymr Myanmar|Tibt Tibetan
Mong Mongolian|Thaa Thaana|Syrc Syriac|Cher Cherokee|Cans Canadian_Aboriginal|Bopo Bopomofo|Yiii Yi|Nkoo Nko
Tfng Tifinagh|Olck Ol_Chiki|Mtei Meetei_Mayek|Java Javanese|Bali Balinese|Sund Sundanese|Adlm Adlam|Vaii Vai
Copt Coptic|Goth Gothic|Runr Runic|Ogam Ogham|Glag Glagolitic|Samr Samaritan|Mand Mandaic|Tglg Tagalog
Hano Hanunoo|Buhd Buhid|Tagb Tagbanwa|Limb Limbu|Tale Tai_Le|Talu New_Tai_Lue|Bugi Buginese|Lana Tai_Tham
Batk Batak|Lepc Lepcha|Brai Braille|Lisu Lisu|Bamu Bamum|Sylo Syloti_Nagri|Phag Phags_Pa|Saur Saurashtra
Kali Kayah_Li|Rjng Rejang|Cham Cham|Tavt Tai_Viet|Linb Linear_B|Lyci Lycian|Cari Carian|Ital Old_Italic
Perm Old_Permic|Ugar Ugaritic|Xpeo Old_Persian|Dsrt Deseret|Shaw Shavian|Osma Osmanya|Osge Osage|Elba Elbasan
Aghb Caucasian_Albanian|Vith Vithkuqi|Todr Todhri|Lina Linear_A|Cprt Cypriot|Armi Imperial_Aramaic|Palm Palmyrene
Nbat Nabataean|Hatr Hatran|Phnx Phoenician|Lydi Lydian|Mero Meroitic_Hieroglyphs|Merc Meroitic_Cursive
Khar Kharoshthi|Sarb Old_South_Arabian|Narb Old_North_Arabian|Mani Manichaean|Avst Avestan
Prti Inscriptional_Parthian|Phli Inscriptional_Pahlavi|Phlp Psalter_Pahlavi|Orkh Old_Turkic|Hung Old_Hungarian
Rohg Hanifi_Rohingya|Gara Garay|Yezi Yezidi|Sogo Old_Sogdian|Sogd Sogdian|Ougr Old_Uyghur|Chrs Chorasmian
Elym Elymaic|Brah Brahmi|Kthi Kaithi|Sora Sora_Sompeng|Cakm Chakma|Mahj Mahajani|Shrd Sharada|Khoj Khojki
Mult Multani|Sind Khudawadi|Gran Grantha|Tutg Tulu_Tigalari|Newa Newa|Tirh Tirhuta|Sidd Siddham|Modi Modi
Takr Takri|Ahom Ahom|Dogr Dogra|Wara Warang_Citi|Diak Dives_Akuru|Nand Nandinagari|Zanb Zanabazar_Square
Soyo Soyombo|Pauc Pau_Cin_Hau|Sunu Sunuwar|Bhks Bhaiksuki|Marc Marchen|Gonm Masaram_Gondi|Gong Gunjala_Gondi
Maka Makasar|Kawi Kawi|Xsux Cuneiform|Cpmn Cypro_Minoan|Egyp Egyptian_Hieroglyphs|Hluw Anatolian_Hieroglyphs
Gukh Gurung_Khema|Mroo Mro|Tnsa Tangsa|Bass Bassa_Vah|Hmng Pahawh_Hmong|Krai Kirat_Rai|Medf Medefaidrin|Plrd Miao
Tang Tangut|Nshu Nushu|Kits Khitan_Small_Script|Dupl Duployan|Sgnw SignWriting|Hmnp Nyiakeng_Puachue_Hmong|Toto Toto
Wcho Wancho|Nagm Nag_Mundari|Onao Ol_Onal|Mend Mende_Kikakui
"""
# fmt: on
SCRIPT_NAMES: dict[str, str] = {
    code: name.replace("_", " ")
    for entry in _NAMES.replace("\n", "|").split("|")
    if entry
    for code, name in [entry.split()]
}
"""Unicode's scripts: ISO 15924 code to name, without Common, Inherited and Unknown."""

COMMON = "Zyyy"
"""What belongs to no script: digits, punctuation, and marks and letters that many scripts share."""

PARTS: dict[str, frozenset[str]] = {
    "Jpan": frozenset({"Hani", "Hira", "Kana"}),
    "Hrkt": frozenset({"Hira", "Kana"}),
    "Kore": frozenset({"Hang", "Hani"}),
    "Hans": frozenset({"Hani"}),
    "Hant": frozenset({"Hani"}),
    "Hanb": frozenset({"Hani", "Bopo"}),
}
"""ISO 15924's codes for a way of writing, as the Unicode scripts it is made of."""

TWO_SCRIPTS: dict[str, frozenset[str]] = {
    **dict.fromkeys(("sr", "sh", "bs", "cnr"), frozenset({"Cyrl", "Latn"})),
    **dict.fromkeys(("az", "uz", "tk", "kk"), frozenset({"Latn", "Cyrl", "Arab"})),
    "mn": frozenset({"Cyrl", "Mong"}),
    "pa": frozenset({"Guru", "Arab"}),
    "ku": frozenset({"Latn", "Arab"}),
    "ks": frozenset({"Arab", "Deva"}),
    "sd": frozenset({"Arab", "Deva"}),
    "zh": frozenset({"Hani"}),
}
"""Languages that are read and written in more than one script, where the tag names none."""

UNSPACED = frozenset({"Hans", "Hant", "Hani", "Jpan", "Hrkt", "Thai", "Laoo", "Khmr", "Mymr", "Tibt"})
"""Ways of writing, as `Language.script` names them, that put no space between words."""


@cache
def _pattern(code: str, extensions: bool) -> regex.Pattern:
    return regex.compile(
        rf"\p{{{'Script_Extensions' if extensions else 'Script'}={SCRIPT_NAMES[code].replace(' ', '_')}}}"
    )


@cache
def script_of_character(character: str) -> str:
    """ISO 15924 code of one character's Unicode Script, such as `Latn`; `Zyyy` where it belongs to none."""
    return next((code for code in SCRIPT_NAMES if _pattern(code, False).match(character)), COMMON)


@cache
def scripts_of_character(character: str) -> frozenset[str]:
    """All scripts a character is used with, by Script_Extensions; empty where it is used with any.

    The long mark `ー` has the script Common, and is used with Hiragana and Katakana.
    """
    first = script_of_character(character)
    if first != COMMON:
        return frozenset({first})
    return frozenset(code for code in SCRIPT_NAMES if _pattern(code, True).match(character))


def letters_of(text: str) -> list[str]:
    """The letters of a text in order: Unicode's general categories L…; marks, digits and signs are none."""
    return [character for character in text if category(character)[0] == "L"]


def letters_by_script(text: str) -> Counter[str]:
    """How many letters a text has in each script, by ISO 15924 code; `Zyyy` for letters that belong to none."""
    counts: Counter[str] = Counter()
    for letter, n in Counter(letters_of(text)).items():
        counts[script_of_character(letter)] += n
    return counts


def scripts_of_language(language: str) -> frozenset[str]:
    """The Unicode scripts a language is written in: those its tag names, else all it is usually written in.

    `ja` is Han, Hiragana and Katakana; `sr` Cyrillic and Latin, `sr-Latn` Latin only; `zh-Hant` Han.
    Empty where no script is on record. Raises LanguageError for an unknown tag.
    """
    tag = Language.parse(language)
    subtags = [part for part in tag.split("-")[1:] if len(part) == 4 and part.isalpha()]
    if not subtags and tag.split("-")[0] in TWO_SCRIPTS:
        return TWO_SCRIPTS[tag.split("-")[0]]
    script = subtags[0] if subtags else tag.script
    parts = PARTS.get(script, frozenset({script}))
    return frozenset(part for part in parts if part in SCRIPT_NAMES)
