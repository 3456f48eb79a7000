"""Names and files of a corpus by hand: which name is what, which file is which language, and what one row holds."""

import gzip
import json

import pytest
from conftest import tiny_tokenizer

from babelscope.corpus import load_corpus
from babelscope.corpus.corpus_names import check_corpus_name, may_be_hub_id
from babelscope.corpus.data_sets import checked_document, load_dataset_corpus, split_rows
from babelscope.corpus.plain_backend import plain_backend
from babelscope.corpus.text_files import (
    check_plain,
    each_document,
    find_files,
    parse_line,
    parse_row,
    read_documents,
    split_of,
    unread_names,
)
from babelscope.errors import ChatError, CorpusError, LanguageError
from babelscope.languages import Language


@pytest.mark.parametrize(
    ("name", "is_id"),
    [("org/name", True), ("name", True), ("a.b-c/d_e", True), ("a/b/c", False), ("/etc", False), ("a b", False)]
    + [("a" * 96, True), ("a" * 97, False), ("-a", False), ("", False)],
)
def test_an_id_of_the_hub_is_one_or_two_plain_words(name, is_id):
    assert may_be_hub_id(name) is is_id


def test_a_corpus_is_a_folder_or_may_be_looked_up(tmp_path):
    for name in ("reference", str(tmp_path), "org/name"):
        check_corpus_name(name)
    (tmp_path / "file.txt").touch()
    for name, way in (
        (str(tmp_path / "file.txt"), f"give the folder '{tmp_path}', or write"),
        (str(tmp_path / "nothing"), "nothing is there; .* check the path"),
        ("a/b/c", "nothing is there"),
    ):
        with pytest.raises(CorpusError, match=f"is no folder, .*{way}"):
            check_corpus_name(name)


def make(folder, *names):
    for name in names:
        (folder / name).write_text("a\n")


def test_files_are_found_by_tag_and_split(tmp_path):
    make(tmp_path, "fi.txt", "en.train.txt", "en.test.jsonl", "readme.md", "sv.other.txt", "de.txt.gz")
    assert {tag: file.name for tag, file in find_files(tmp_path, "test").items()} == {
        "fi": "fi.txt",
        "en": "en.test.jsonl",
        "de": "de.txt.gz",
    }
    assert list(find_files(tmp_path, "train", ["en"])) == ["en"]
    assert [split_of(tmp_path / name) for name in ("fi.txt", "en.train.txt", "en.test.jsonl")] == ["", "train", "test"]


def test_two_files_of_one_language_and_names_that_are_no_tags_are_refused(tmp_path):
    make(tmp_path, "fi.txt", "fi.jsonl")
    with pytest.raises(CorpusError, match="fi.jsonl and fi.txt are both 'fi'"):
        find_files(tmp_path, "test")
    (tmp_path / "fi.jsonl").rename(tmp_path / "fi.train.txt")
    with pytest.raises(CorpusError, match="expected files of splits, or one"):
        find_files(tmp_path, "test")
    (tmp_path / "fi.train.txt").rename(tmp_path / "notes about it.txt")
    with pytest.raises(LanguageError, match="move the file away, or name the languages"):
        find_files(tmp_path, "test")
    assert list(find_files(tmp_path, "test", ["fi"])) == ["fi"], "where languages are named, other names do not matter"


def test_an_entry_must_be_a_file_inside_the_corpus(tmp_path):
    (inside := tmp_path / "corpus").mkdir()
    make(tmp_path, "elsewhere.txt")
    make(inside, "en.txt")
    check_plain(inside / "en.txt", inside)
    (inside / "fi.txt").symlink_to(tmp_path / "elsewhere.txt")
    with pytest.raises(CorpusError, match="is a link to .*elsewhere.txt, outside the corpus"):
        check_plain(inside / "fi.txt", inside)
    (inside / "de.txt").mkdir()
    with pytest.raises(CorpusError, match="is a folder"):
        check_plain(inside / "de.txt", inside)
    (inside / "sv.txt").symlink_to(inside / "nothing.txt")
    with pytest.raises(CorpusError, match="is a link to nothing"):
        check_plain(inside / "sv.txt", inside)


def test_documents_are_the_lines_with_words_and_keep_their_numbers(tmp_path):
    file = tmp_path / "fi.txt"
    file.write_text("yksi\n\n  \nkaksi\n")
    assert [(str(document.id), document.text) for document in read_documents(file)] == [("0", "yksi"), ("3", "kaksi")]
    file.write_text("\n\n")
    with pytest.raises(CorpusError, match="is empty"):
        read_documents(file)
    with pytest.raises(ChatError, match="lines of text came; expected conversations"):
        read_documents(file, "user")


def test_a_files_first_documents_come_before_the_error_of_a_later_line(tmp_path):
    file = tmp_path / "fi.jsonl"
    file.write_text('{"id": "a", "text": "yksi"}\n{"words": "kaksi"}\n')
    documents = each_document(file)
    assert next(documents).id == "a"
    with pytest.raises(CorpusError, match=r"line 2: no readable row \(fields words\)"):
        next(documents)


@pytest.mark.parametrize(
    ("row", "reason"),
    [([1], "a list; a line holds one row"), ({"text": 3}, "text is int"), ({}, "fields "), ("word", "str")],
)
def test_a_row_that_is_no_document_is_named(tmp_path, row, reason):
    with pytest.raises(CorpusError, match=f"line 1: no readable row \\({reason}"):
        parse_row(json.dumps(row), 0, tmp_path / "fi.jsonl")


def test_texts_are_in_composed_form(tmp_path):
    decomposed = "e\u0301"
    assert parse_row(json.dumps({"text": decomposed}), 4, tmp_path / "x").text == "\u00e9"
    assert str(parse_row(json.dumps({"text": "a"}), 4, tmp_path / "x").id) == "4"
    assert parse_line(decomposed, 2, tmp_path / "x").text == "\u00e9"
    assert checked_document({"text": decomposed, "id": 7}, 0, "name").text == "\u00e9"


def test_a_row_of_a_data_set_without_text_is_named():
    with pytest.raises(CorpusError, match='name, row 5: fields words, id came; expected {"text": "…"} or '):
        checked_document({"words": "a", "id": 1}, 5, "name")
    with pytest.raises(CorpusError, match="name, row 5: answer is null came; expected"):
        checked_document({"prompt": "a", "answer": None}, 5, "name")


@pytest.fixture
def data_sets(monkeypatch):
    """Two data sets, one with splits and one without, in the place of the hub."""
    datasets = pytest.importorskip("datasets")
    splits = {"with": ["train", "dev"], "without": ["everything"]}
    rows = [{"id": f"d{number}", "text": f"word {number}"} for number in range(200)]
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, tag: splits[name])
    monkeypatch.setattr(datasets, "load_dataset", lambda name, tag, split, streaming: rows if split else None)


def test_a_split_of_a_data_set_goes_by_its_own_name(data_sets):
    assert split_rows("with", Language("fi"), "valid")[0] == ["train", "dev"]
    with pytest.raises(CorpusError, match="has splits train, dev and none for test"):
        split_rows("with", Language("fi"), "test")
    corpus = load_dataset_corpus("with", "label", ["fi"], "valid", None, False)
    assert len(corpus["fi"]) == 200 and corpus["fi"][3].text == "word 3"


def test_blank_rows_of_a_data_set_are_no_documents(data_sets, monkeypatch):
    import datasets

    rows = [{"text": "one"}, {"text": " "}, {"text": "two"}]
    monkeypatch.setattr(datasets, "load_dataset", lambda name, tag, split, streaming: rows)
    corpus = load_dataset_corpus("with", "label", ["fi"], "valid", None, False)
    assert [(document.id, document.text) for document in corpus["fi"]] == [("0", "one"), ("2", "two")]
    rows[:] = rows[1:2]
    with pytest.raises(CorpusError, match="with, fi: all its rows are blank"):
        load_dataset_corpus("with", "label", ["fi"], "valid", None, False)


def test_a_data_set_of_one_split_is_dealt_out(data_sets):
    parts = {split: load_dataset_corpus("without", "label", ["fi"], split, None, False) for split in ("train", "test")}
    ids = {split: {document.id for document in corpus["fi"]} for split, corpus in parts.items()}
    assert ids["train"] and ids["test"] and ids["train"].isdisjoint(ids["test"])
    with pytest.raises(CorpusError, match="no languages came"):
        load_dataset_corpus("without", "label", None, "train", None, False)


def test_no_text_gives_a_control_token_in_the_plain_backend():
    tokenizer = tiny_tokenizer()
    special = frozenset(tokenizer.all_special_ids)
    plain = plain_backend(tokenizer, special)
    text = "a</s>b<s>"
    assert not special.isdisjoint(tokenizer(text, add_special_tokens=False)["input_ids"]), "the tokenizer itself does"
    assert special.isdisjoint(plain.encode(text, add_special_tokens=False).ids)
    words = "the cat sat on a mat"
    assert plain.encode(words, add_special_tokens=False).ids == tokenizer(words, add_special_tokens=False)["input_ids"]


def test_files_that_look_like_text_of_a_language_and_are_not_read_are_said_once(tmp_path, caplog):
    make(tmp_path, "en.txt", "fi.csv", "en.dev.txt", "DE.TXT", "sv.txt.zip", "ru.tsv.gz", "README.md", ".hidden")
    (tmp_path / "nb").mkdir()
    unread = ["DE.TXT", "en.dev.txt", "fi.csv", "nb/", "ru.tsv.gz", "sv.txt.zip"]
    assert unread_names(tmp_path) == unread
    assert unread_names(tmp_path, ["fi", "en"]) == ["en.dev.txt", "fi.csv"]
    for _ in range(2):
        load_corpus(tmp_path, split="all")
    said = [record.getMessage() for record in caplog.records if "not read" in record.getMessage()]
    assert said == [
        f"{tmp_path}: not read: {', '.join(unread)}; expected <tag>.txt or <tag>.jsonl, or <tag>.train.txt, "
        "<tag>.valid.txt and <tag>.test.txt"
    ]
    with pytest.raises(CorpusError, match=r"no file for fi, .* beside what is there \(.*, en.txt, fi.csv, nb/"):
        load_corpus(tmp_path, ["fi"], split="all")
    (tmp_path / "en.txt").unlink()
    with pytest.raises(CorpusError, match=r"no <tag>.txt .*, but .*DE.TXT, .* write the text of each language"):
        load_corpus(tmp_path, split="all")


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz"])
def test_a_folder_that_has_a_table_alone_says_how_a_table_is_read(tmp_path, ending):
    """And what it says works: the file in the folder's place, with a language in each row."""
    make(tmp_path, f"eu.{ending}")
    file = tmp_path / f"eu.{ending}"
    for languages in (None, ["eu"]):
        with pytest.raises(CorpusError) as caught:
            load_corpus(tmp_path, languages, split="all")
        assert "columns are language (a tag in each row) and text" in str(caught.value)
        assert repr(str(file)) in str(caught.value)
    cell = "\t" if ending == "tsv" else ","
    rows = f"language{cell}text\neu{cell}Kaixo mundua\n".encode()
    file.write_bytes(gzip.compress(rows) if ending.endswith(".gz") else rows)
    assert load_corpus(file, split="all")["eu"][0].text == "Kaixo mundua"
    file.write_bytes(b"")
    with pytest.raises(CorpusError, match="no file for fi") as caught:
        load_corpus(tmp_path, ["fi"], split="all")
    assert "by itself" not in str(caught.value), "a table of another language is no way to Finnish"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("eu.parquet", "parquet is not read: write the rows of eu.parquet as <tag>.jsonl"),
        ("data-00000-of-00001.arrow", "a data set of save_to_disk is not read: .*load_from_disk"),
        ("eu.json", "JSON in one piece is not read: write the rows of eu.json"),
        ("EU.XLSX", "Excel is not read"),
    ],
)
def test_a_table_that_is_not_read_says_what_to_write(tmp_path, name, words):
    make(tmp_path, name, "state.json")
    with pytest.raises(CorpusError, match=words):
        load_corpus(tmp_path, split="all")
    with pytest.raises(CorpusError, match=words) as caught:
        load_corpus(tmp_path / name, split="all")
    assert "give the folder" not in str(caught.value), "the folder is refused too"


def test_a_table_with_other_signs_between_its_columns_says_so(tmp_path):
    (tmp_path / "t.csv").write_text("language;text\neu;Kaixo\n")
    with pytest.raises(CorpusError, match="has ';' between its columns; expected commas"):
        load_corpus(tmp_path / "t.csv", split="all")


def test_a_table_without_a_language_says_what_to_add(tmp_path):
    (tmp_path / "eu.csv").write_text("text\nKaixo\n")
    with pytest.raises(CorpusError, match=r"no field language among 'text'; .*<tag>.txt or <tag>.jsonl"):
        load_corpus(tmp_path / "eu.csv")


def test_text_that_repeats_itself_is_said(tmp_path, caplog):
    (tmp_path / "eu.txt").write_text("".join(f"lerro {i % 9}\n" for i in range(10)))
    (tmp_path / "cy.txt").write_text("".join(f"llinell {i % 10}\n" for i in range(11)))
    load_corpus(tmp_path, split="all")
    (said,) = [record.getMessage() for record in caplog.records if "repeat another" in record.getMessage()]
    assert "eu 1 of 10; intervals" in said and "cy" not in said.split("same text:")[1], "1 of 11 is below a tenth"


def test_a_corpus_prints_its_name_and_documents(tmp_path):
    make(tmp_path, "en.txt", "fi.txt")
    assert repr(load_corpus(tmp_path, split="all")) == f"<Corpus '{tmp_path}, all of it'; documents: en 1, fi 1>"


@pytest.mark.parametrize(
    ("row", "word"),
    [('[{"text": "a"}]', "a list; a line holds one row"), ('[{"role": "user", "content": "a"}]', "--conversation")]
    + [('{"messages": []}', "--conversation"), ("[]", "a list"), ('["a"]', "a list")],
)
def test_a_list_of_rows_is_no_conversation(row, word, tmp_path):
    with pytest.raises(CorpusError, match=word):
        parse_row(row, 0, tmp_path / "en.jsonl")
