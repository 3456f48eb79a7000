"""Lineage: the table against Glottolog, and languages outside the table."""

import pytest

from babelscope.errors import LanguageError, PrerequisiteError
from babelscope.languages import Language, lineage, uriel
from babelscope.languages.lineage import glottolog_lineage
from babelscope.probes import LINEAGE, Lineage, lineage_of

MAP = "iso_code,glottocode\nsco,scot1243\nakz,alab1237\nain,ainu1240\n"
TREE = (
    "language_id,language_name,latitude,longitude,lineage\n"
    'scot1243,Scots,56.5,-4.3,"Indo-European, Classical Indo-European, Germanic, Northwest Germanic"\n'
    'alab1237,Alabama,30.6,-94.7,"Muskogean, Alabaman-Koasati"\n'
    "ainu1240,Ainu,,,\n"
)


@pytest.fixture
def small_glottolog(tmp_path, monkeypatch):
    """Three languages in the package's form."""
    folder = tmp_path / "urielplus_csvs"
    folder.mkdir()
    (folder / "uriel_glottocode_map.csv").write_text(MAP, encoding="utf-8")
    (folder / "lang_fam_geo.csv").write_text(TREE, encoding="utf-8")
    monkeypatch.setattr(uriel, "_folder", lambda: tmp_path)
    monkeypatch.setattr(lineage, "uriel_there", lambda: True)
    for cached in (uriel._glottocodes, uriel._languoids):
        cached.cache_clear()
        monkeypatch.setattr(uriel, cached.__name__, cached.__wrapped__)
    yield


def test_the_languages_of_the_papers_have_a_lineage():
    found = lineage_of(["lt", "lv", "et", "sk", "sl", "mk", "af", "ka", "ne", "en"])
    assert found["lt"] == found["lv"] == Lineage("Indo-European", "Baltic")
    assert found["af"] == found["en"] == Lineage("Indo-European", "Germanic")
    assert found["ka"].family == "Kartvelian" and found["ne"].branch == "Indo-Iranian"
    assert {found[tag].branch for tag in ("sk", "sl", "mk")} == {"Slavic"}


def test_no_language_stands_twice_in_the_table():
    codes = [Language(tag).iso639_3 for tag in LINEAGE]
    assert len(codes) == len(set(codes)) > 100


def test_a_language_outside_the_table_is_told_in_the_tables_names(small_glottolog):
    found = lineage_of(["sco", "akz", "ain", "en"])
    assert found["sco"] == found["en"] and found["akz"] == Lineage("Muskogean", "Alabaman-Koasati")
    assert found["ain"] == Lineage("Ainu", "Ainu")
    with pytest.raises(LanguageError, match="no lineage is known for nv; expected some of af"):
        lineage_of(["sco", "nv"])


def test_without_the_data_the_advice_is_to_install_it(monkeypatch):
    monkeypatch.setattr(lineage, "uriel_there", lambda: False)
    with pytest.raises(LanguageError, match=r"pip install 'babelscope\[uriel\]' for all of Glottolog"):
        lineage_of(["sco"])


def test_a_package_without_its_files_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(uriel, "_folder", lambda: tmp_path)
    with pytest.raises(PrerequisiteError, match="urielplus has no urielplus_csvs/lang_fam_geo.csv"):
        uriel._languoids.__wrapped__()


def test_the_table_is_glottologs_in_other_names():
    pytest.importorskip("urielplus")
    assert {tag: glottolog_lineage(Language(tag)) for tag in LINEAGE} == LINEAGE
