import gzip
import hashlib
import json
import lzma

import pytest
import zstandard
from conftest import tiny_tokenizer

from babelscope import Document, load_corpus
from babelscope.corpus import as_corpus, batch_documents, limit_tokens, shard_of, split_documents, tokenize_documents
from babelscope.errors import CorpusError, LanguageError


def write(folder, **files):
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_every_packing_reads_alike(tmp_path):
    text = b"one\n\ntwo\n"
    write(
        tmp_path,
        en__txt=text,
        fi__txt__xz=lzma.compress(text),
        eu__txt__gz=gzip.compress(text),
        cy__txt__zst=zstandard.compress(text),
        tt__jsonl='{"text": "one", "id": "a"}\n{"text": "two"}\n',
    )
    corpus = load_corpus(tmp_path)
    lines = (Document("0", "one"), Document("2", "two"))
    assert all(corpus[tag] == lines for tag in ("en", "fi", "eu", "cy"))
    assert corpus["tt"] == (Document("a", "one"), Document("1", "two"))


def test_languages_come_in_the_order_asked(tmp_path):
    write(tmp_path, en__txt="a", fi__txt="b", eu__txt="c")
    assert list(load_corpus(tmp_path, languages=["fi", "en"])) == ["fi", "en"]
    assert list(load_corpus(tmp_path)) == ["en", "eu", "fi"]


def test_splits_by_file_name_and_by_folder(tmp_path):
    write(tmp_path, en__train__txt="a", en__valid__txt="b")
    assert load_corpus(tmp_path, split="valid")["en"][0].text == "b"
    (tmp_path / "test").mkdir()
    write(tmp_path / "test", en__txt="c")
    assert load_corpus(tmp_path, split="test")["en"][0].text == "c"


def test_text_is_composed_and_keeps_its_spaces():
    assert as_corpus({"fr": ["e\u0301 \u00a0x\n"]})["fr"][0].text == "\u00e9 \u00a0x"


@pytest.mark.parametrize(
    ("files", "languages", "word"),
    [
        ({"en__txt": "a"}, ["en", "fi"], "no file for fi"),
        ({"en__txt": " \n\n"}, None, "is empty"),
        ({"en__txt": "a", "en__jsonl": '{"text": "b"}'}, None, "both 'en'"),
        ({"zh-Hans__txt": "a", "zh_hans__txt": "b"}, None, "both 'zh-Hans'"),
        ({"en__txt": b"\xff\xfe\x00"}, None, "not UTF-8"),
        ({"en__txt__xz": b"not packed"}, None, "unreadable"),
        ({"en__jsonl": '{"words": "a"}'}, None, "line 1: no readable row"),
        ({"en__jsonl": "[1]"}, None, "line 1: no readable row"),
        ({"en__jsonl": '{"id": 1, "content": "a"}'}, None, "fields id, content"),
        ({"en__jsonl": '{"text": 3}'}, None, "text is int"),
        ({"en__jsonl": '{"text": "a \\ud800"}'}, None, "no readable row .half a surrogate pair at character 2"),
        ({"en__jsonl": '{"text": "a"'}, None, "line 1: no readable row .no JSON"),
        ({"notes__md": "a"}, None, "no <tag>.txt"),
    ],
)
def test_bad_folders_give_one_line(tmp_path, files, languages, word):
    write(tmp_path, **files)
    with pytest.raises(CorpusError, match=word) as caught:
        load_corpus(tmp_path, languages=languages)
    assert "\n" not in str(caught.value)


def test_an_unknown_tag_is_refused(tmp_path):
    write(tmp_path, klingonese__txt="a")
    with pytest.raises(LanguageError, match="klingonese"):
        load_corpus(tmp_path)


def test_a_text_file_that_is_no_language_is_named_and_passed_over_where_languages_are_asked_for(tmp_path):
    write(tmp_path, en__txt="a", README__txt="about this text")
    with pytest.raises(LanguageError, match=r"README.txt: .*move the file away, or name the languages"):
        load_corpus(tmp_path)
    assert list(load_corpus(tmp_path, languages=["en"])) == ["en"]


def test_a_path_that_is_not_there_is_not_called_a_data_set():
    with pytest.raises(CorpusError, match="no folder here.*check the path"):
        load_corpus("texts-of-mine")


def test_a_missing_folder_is_not_looked_up_elsewhere(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CorpusError, match="is no folder"):
        load_corpus(tmp_path / "nothing")
    with pytest.raises(CorpusError, match="is no folder"):
        load_corpus(tmp_path / "file")


def test_a_language_without_text_is_refused():
    with pytest.raises(CorpusError, match="'fi' has no text"):
        as_corpus({"en": ["a"], "fi": [""]})


def test_parallel_means_equal_ids():
    assert as_corpus({"en": ["a", "b"], "fi": ["c", "d"]}).parallel
    assert not as_corpus({"en": ["a", "b"], "fi": ["c"]}).parallel


def test_hash_sees_text_tag_and_order():
    texts = [{"en": ["a", "b"]}, {"en": ["b", "a"]}, {"fi": ["a", "b"]}, {"en": ["a", "b", "c"]}]
    assert len({as_corpus(text).hash for text in texts}) == 4
    assert as_corpus(texts[0]).hash == as_corpus({"en": ["a", "b"]}).hash


def test_shard_is_blake2b_of_the_id():
    want = int.from_bytes(hashlib.blake2b(b"17", digest_size=8).digest(), "big") % 32
    assert shard_of("17", 32) == want


def documents(texts, tokenizer=None, max_length=64):
    return tokenize_documents(
        tokenizer or tiny_tokenizer(), list(as_corpus({"en": texts})["en"]), 0, max_length=max_length
    )


def test_bos_comes_once_and_is_not_counted():
    (document,) = documents(["abc"])
    assert document.tokens[0] == 1 and document.tokens.count(1) == 1
    assert document.counted == (False, True, True, True)
    assert document.n_bytes == 3


def test_a_tokenizer_without_bos_gets_none():
    (document,) = documents(["abc"], tiny_tokenizer(bos=False))
    assert document.counted == (True, True, True)


def test_control_tokens_spelt_in_a_text_stay_text_and_are_counted():
    (document,) = documents(["a</s>b"])
    assert document.tokens[0] == 1 and not {0, 1, 2} & set(document.tokens[1:])
    assert document.counted == (False, *[True] * 6) and document.controls == 1


def test_control_tokens_of_a_rendered_text_are_meant_and_do_not_count():
    tokenizer, texts = tiny_tokenizer(), [Document("0", "<s>a</s>b")]
    (document,) = tokenize_documents(tokenizer, texts, 0, max_length=64, rendered=True)
    assert document.tokens == (1, *tokenizer("a", add_special_tokens=False)["input_ids"], 2, document.tokens[3])
    assert document.counted == (False, True, False, True) and document.controls == 0


def test_truncation_is_counted():
    (document,) = documents(["abcdefgh"], max_length=4)
    assert (document.n_counted, document.truncated) == (3, 5)


@pytest.mark.parametrize("limit", [1, 3, 4, 7, 9, 50])
def test_the_budget_is_met_exactly_or_all_is_taken(limit):
    kept = limit_tokens(documents(["abc", "de", "fghi"]), limit)
    assert sum(document.n_counted for document in kept) == min(limit, 9)


def test_batches_hold_every_document_once_and_pads_are_marked():
    texts = ["a" * n for n in (3, 9, 1, 5, 5, 2)]
    batches = batch_documents(documents(texts), batch_tokens=12, pad=0)
    assert sorted(d.id for batch in batches for d in batch.documents) == list("012345")
    for batch in batches:
        assert batch.input_ids.numel() <= 12
        assert batch.attention_mask.sum() == sum(len(d.tokens) for d in batch.documents)
        assert batch.counted.sum() == sum(d.n_counted for d in batch.documents)
        assert not batch.counted[batch.attention_mask == 0].any()


def test_a_batch_halves_down_to_one_document_and_no_further():
    (batch,) = batch_documents(documents(["abc", "de", "f"]), batch_tokens=64, pad=0)
    first, second = batch.halves()
    assert [d.id for d in (*first.documents, *second.documents)] == ["0", "1", "2"]
    with pytest.raises(CorpusError, match="does not fit"):
        first.halves()


def test_jsonl_from_the_data_sets_library_loads(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"id": "x1", "text": "bat"}, {"id": "x2", "text": "bi"}]
    (tmp_path / "eu").mkdir()
    (tmp_path / "eu" / "train.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert datasets.load_dataset(str(tmp_path / "eu"), split="train").num_rows == 2


def test_documents_are_dealt_out_by_id_so_that_parallel_sentences_stay_together():
    texts = {tag: [f"{tag} sentence {i}" for i in range(200)] for tag in ("en", "fi")}
    found = split_documents(as_corpus(texts))
    assert list(found) == ["train", "valid", "test"] and all(part.parallel for part in found.values())
    ids = {split: {document.id for document in part["en"]} for split, part in found.items()}
    assert sum(map(len, ids.values())) == 200 and set().union(*ids.values()) == {str(i) for i in range(200)}
    assert ids["test"] == {str(i) for i in range(200) if shard_of(str(i), 10) in (1, 2)}


def test_a_text_that_is_in_train_is_not_in_valid_or_test():
    texts = {
        "en": [f"sentence {i}" if i % 2 else "again" for i in range(200)],
        "fi": [f"lause {i}" for i in range(200)],
    }
    found = split_documents(as_corpus(texts))
    assert "again" in {document.text for document in found["train"]["en"]}
    held = {split: [document.text for document in found[split]["en"]] for split in ("valid", "test")}
    assert all(documents and "again" not in documents for documents in held.values())
    assert len(found["test"]["fi"]) == sum(shard_of(str(i), 10) in (1, 2) for i in range(200))


def test_a_text_too_short_to_be_split_is_refused():
    with pytest.raises(CorpusError, match="no document is left for fi valid, fi test"):
        split_documents(as_corpus({"en": [f"sentence {i}" for i in range(200)], "fi": ["yksi"] * 200}))
