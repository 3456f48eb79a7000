"""A corpus in one file, whose rows name their language, is the corpus of the same text in a folder of files."""

import csv
import gzip
import json

import pytest

from babelscope import load_corpus
from babelscope.cli import main
from babelscope.corpus import load_splits
from babelscope.corpus.corpus_names import check_corpus_name
from babelscope.corpus.labelled_file import read_labelled_file
from babelscope.corpus.table_rows import file_kind, file_rows
from babelscope.errors import ChatError, CorpusError, LanguageError

TEXTS = {tag: [f"{tag} text number {i}, which is its own" for i in range(60)] for tag in ("en", "fi", "ru")}
ROWS = [{"language": tag, "text": texts[i]} for i in range(60) for tag, texts in TEXTS.items()]


def folder_of(path):
    path.mkdir()
    for tag, texts in TEXTS.items():
        (path / f"{tag}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def jsonl(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def table(path, rows=ROWS, delimiter=","):
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("split", ["train", "valid", "test", "all"])
def test_every_form_of_file_gives_the_documents_of_the_folder(tmp_path, split):
    expected = dict(load_corpus(folder_of(tmp_path / "folder"), split=split))
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(jsonl(tmp_path / "a.jsonl").read_bytes()))
    for file in (tmp_path / "a.jsonl", packed, table(tmp_path / "a.csv"), table(tmp_path / "a.tsv", delimiter="\t")):
        assert dict(load_corpus(file, split=split)) == expected, file


def test_the_name_of_the_field_may_be_short_and_languages_choose_and_order(tmp_path):
    file = jsonl(tmp_path / "a.jsonl", [{"lang": row["language"], "text": row["text"]} for row in ROWS])
    assert list(load_corpus(file)) == ["en", "fi", "ru"]
    assert list(load_corpus(file, ["ru", "en"])) == ["ru", "en"]


def test_a_quoted_cell_keeps_its_line_ends_and_commas_and_a_quote_in_tsv_is_a_letter(tmp_path):
    text = 'first, "second"\nthird'
    file = table(tmp_path / "a.csv", [{"language": "en", "text": text}])
    assert load_corpus(file, split="all")["en"][0].text == text
    (tmp_path / "a.tsv").write_text('language\ttext\nen\t"open\n', encoding="utf-8")
    assert load_corpus(tmp_path / "a.tsv", split="all")["en"][0].text == '"open'


def test_rows_of_equal_number_are_parallel_where_the_user_says_so(tmp_path):
    file = jsonl(tmp_path / "a.jsonl")
    assert not load_corpus(file).parallel
    corpus = load_corpus(file, parallel=True)
    assert corpus.parallel and len({tuple(document.id for document in corpus[tag]) for tag in corpus}) == 1
    with pytest.raises(CorpusError, match="parallel"):
        load_corpus(jsonl(tmp_path / "b.jsonl", ROWS[:-1]), parallel=True)


def test_rows_come_with_their_place_and_documents_with_their_number_in_the_language(tmp_path):
    file = table(tmp_path / "a.csv", ROWS[:4])
    assert [place.rpartition(", ")[2] for place, _ in file_rows(file)] == ["line 2", "line 3", "line 4", "line 5"]
    assert [row for _, row in file_rows(file)] == ROWS[:4]
    assert [document.id for document in read_labelled_file(file, ["en"], None)["en"]] == ["0", "1"]
    assert [file_kind(tmp_path / name) for name in ("a.csv", "a.tsv.gz", "gz")] == ["csv", "tsv", "gz"]


def test_no_document_is_in_two_splits(tmp_path):
    texts = load_splits(jsonl(tmp_path / "a.jsonl"))
    for tag in TEXTS:
        split_texts = [{document.text for document in texts[split][tag]} for split in texts]
        assert set().union(*split_texts) == set(TEXTS[tag]) and sum(map(len, split_texts)) == len(TEXTS[tag])


def test_conversations_name_their_language_too(tmp_path):
    messages = [{"role": "user", "content": "Mikä on kuu?"}, {"role": "assistant", "content": "Kiertolainen."}]
    file = jsonl(tmp_path / "a.jsonl", [{"language": "fi", "messages": messages}])
    assert (
        load_corpus(file, split="all", conversation="answer")["fi"][0].conversation.messages[0].content
        == "Mikä on kuu?"
    )
    with pytest.raises(CorpusError, match="say --conversation"):
        load_corpus(file, split="all")
    alone = jsonl(tmp_path / "b.jsonl", [{"language": "fi", "messages": messages[:1]}])
    with pytest.raises(ChatError, match="b.jsonl, line 1: no message of the"):
        load_corpus(alone, split="all", conversation="answer")


WRONG = [
    ([{"text": "no language"}], CorpusError, "line 1: no field language among 'text'; expected rows with language"),
    ([{"language": "en", "lang": "en", "text": "x"}], CorpusError, "both language and lang"),
    ([{"language": "en", "split": "train", "text": "x"}], CorpusError, "a field split came, which is not read"),
    ([{"language": 3, "text": "x"}], CorpusError, "language is int; expected a tag"),
    ([{"language": "klingonese", "text": "x"}], LanguageError, "line 1: .*klingonese"),
    ([{"language": "en", "content": "x"}], CorpusError, "line 1: no text in the fields 'language', 'content'"),
    ([{"language": "en", "id": "a", "content": "x"}], CorpusError, "rename the field 'content' to text"),
    ([{"language": "en", "title": "t", "content": "x"}], CorpusError, "with prompt and answer; correct it"),
    (
        [{"language": "en", "text": None}],
        CorpusError,
        r"no text in the fields .* \(text is null\); expected",
    ),
    ([{"language": "en", "text": "  "}], CorpusError, "all rows of en are blank"),
    ([], CorpusError, "holds no row"),
    (["a text"], CorpusError, "a str came"),
]


@pytest.mark.parametrize(("rows", "error", "said"), WRONG)
def test_rows_that_say_too_little_are_refused_with_their_place(tmp_path, rows, error, said):
    with pytest.raises(error, match=said):
        load_corpus(jsonl(tmp_path / "a.jsonl", rows), split="all")


def test_a_language_without_a_row_is_named_beside_those_that_have_some(tmp_path):
    with pytest.raises(CorpusError, match="no row of de; expected rows of it beside those of en, fi, ru"):
        load_corpus(jsonl(tmp_path / "a.jsonl"), ["en", "de"])


def test_rows_of_languages_that_are_not_asked_for_are_passed_over_whatever_they_hold(tmp_path):
    rows = [*ROWS, {"language": "klingonese", "text": "x"}, {"language": "de", "content": "no text"}]
    assert dict(load_corpus(jsonl(tmp_path / "a.jsonl", rows), ["fi"])) == dict(
        load_corpus(jsonl(tmp_path / "b.jsonl"), ["fi"])
    )
    with pytest.raises(CorpusError, match="no row of et; .* beside those of de, en, fi, klingonese, ru"):
        load_corpus(tmp_path / "a.jsonl", ["fi", "et"])


def test_a_file_of_rows_is_a_corpus_and_other_files_are_none(tmp_path):
    check_corpus_name(str(jsonl(tmp_path / "a.jsonl")))
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(CorpusError, match=r"expected a folder .* or a .jsonl, .csv or .tsv file whose rows name"):
        check_corpus_name(str(tmp_path / "a.pdf"))


def test_a_verb_reads_it(tmp_path, capsys):
    words = ["--json", "evaluate", "perplexity", "reference", str(table(tmp_path / "a.csv")), "--languages", "en", "fi"]
    assert main(words) == 0
    assert set(json.loads(capsys.readouterr().out)["bits_per_byte"]) == {"en", "fi"}
