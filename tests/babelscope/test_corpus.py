import gzip
import hashlib
import json
import lzma
import os
import subprocess
import sys
from collections import Counter
from itertools import combinations

import pytest
import zstandard
from conftest import tiny_tokenizer
from scipy.stats import chi2

from babelscope import Document, load_corpus
from babelscope.corpus import (
    SPLITS,
    as_corpus,
    batch_documents,
    check_unseen,
    limit_tokens,
    load_splits,
    shard_of,
    split_documents,
    tenth_of,
    tokenize_documents,
)
from babelscope.corpus.batches import PASS_SHARE, least_padding
from babelscope.corpus.documents import content_of
from babelscope.corpus.splits import TENTHS
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
        ({"en__txt": b"a\n\xff\xfe"}, None, "line 2: unreadable, is not UTF-8 at byte 0 of the line"),
        ({"en__txt": b"\0" * 200}, None, "line 1: unreadable, holds a NUL"),
        ({"en__txt": "a", "fi__txt": "a\nb \0"}, None, "fi.txt, line 2: unreadable, holds a NUL at byte 2"),
        ({"en__txt__xz": b"not packed"}, None, "unreadable"),
        ({"en__jsonl": '{"words": "a"}'}, None, "line 1: no readable row"),
        ({"en__jsonl": "[1]"}, None, "line 1: no readable row"),
        ({"en__jsonl": '{"id": 1, "content": "a"}'}, None, "fields id, content"),
        ({"en__jsonl": '{"text": 3}'}, None, "text is int"),
        ({"en__jsonl": '{"text": "a \\ud800"}'}, None, "line 1: is no JSON .*half a surrogate pair in"),
        ({"en__jsonl": '{"text": "a"'}, None, "line 1: is no JSON"),
        ({"en__jsonl": '{"text": "a", "id": "\\ud800"}'}, None, "half a surrogate pair in"),
        ({"en__jsonl": '{"text": "a"}\n{"x": ' + "[" * 5000}, None, "line 2: nested too deep"),
        ({"en__jsonl": '{"text": "a", "text": "b"}'}, None, "line 1: is no JSON .* comes twice"),
        ({"en__jsonl": '{"text": "a"}\n\nnull'}, None, "line 3: no readable row .null"),
        ({"en__jsonl": '{"text": null, "id": 3}'}, None, "line 1: no readable row .text is null"),
        ({"en__jsonl": '{"prompt": "a", "answer": null}'}, None, "answer is null"),
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


def test_texts_of_a_generator_are_read_like_those_of_a_list():
    lists = {"en": ["a", "b"], "fi": ["c", "d"]}
    for parallel in (False, True):
        once = {tag: (text for text in texts) for tag, texts in lists.items()}
        assert as_corpus(once, parallel=parallel).hash == as_corpus(lists, parallel=parallel).hash
    with pytest.raises(CorpusError, match="texts of en: a generator came that gives none, or gave them before; .*list"):
        as_corpus(once)
    with pytest.raises(CorpusError, match="expected a list of texts"):
        as_corpus({"en": (number for number in (1, 2))})


def test_languages_of_a_generator_are_read_like_those_of_a_list(tmp_path):
    write(tmp_path, en__txt="a", fi__txt="b", eu__txt="c")
    assert list(load_corpus(tmp_path, (tag for tag in ("fi", "en")))) == ["fi", "en"]
    with pytest.raises(LanguageError, match="languages: one text came, 'en'"):
        load_splits(tmp_path, "en")


def test_blank_texts_are_no_documents_as_in_files(tmp_path):
    lines = ["one", "   ", "\t\t", "", "two"]
    write(tmp_path, en__txt="\n".join(lines) + "\n")
    assert as_corpus({"en": lines})["en"] == load_corpus(tmp_path)["en"] == (Document("0", "one"), Document("4", "two"))
    with pytest.raises(CorpusError, match="'en' has no text; expected at least one line that is not blank"):
        as_corpus({"en": ["   ", "\t\t"]})
    given = as_corpus({"en": [Document("x", "a"), Document("y", " "), Document("z", "", None, "a prompt")]})
    assert [document.id for document in given["en"]] == ["x"]
    parallel = as_corpus({"en": ["a", " ", "", "d"], "fi": ["b", "c", "\t", "e"]}, parallel=True)
    assert [[document.id for document in texts] for texts in parallel.values()] == [["0", "1", "3"]] * 2


def test_equally_many_lines_are_not_parallel_unless_somebody_says_so(tmp_path):
    texts = {"en": ["a", "b"], "fi": ["c", "d"]}
    assert not as_corpus(texts).parallel and as_corpus(texts, parallel=True).parallel
    assert as_corpus(as_corpus(texts), parallel=True).parallel
    write(tmp_path, en__txt="a\nb\n", fi__txt="c\nd\n")
    assert not load_corpus(tmp_path).parallel
    assert load_corpus(tmp_path, parallel=True).parallel and load_corpus(tmp_path, parallel=True).head(1).parallel
    with pytest.raises(CorpusError, match="declared as parallel, but en has 2 documents and fi 1"):
        as_corpus({"en": ["a", "b"], "fi": ["c"]}, parallel=True)
    write(tmp_path, en__txt="a\n\nb\n")
    with pytest.raises(CorpusError, match="en has 2 documents and fi 2, and differ at '2' and '1'"):
        load_corpus(tmp_path, parallel=True)


def test_rows_with_equal_ids_are_parallel_and_rows_without_ids_are_not(tmp_path):
    row = '{{"text": "{}", "id": "{}"}}\n'
    write(
        tmp_path, en__jsonl=row.format("a", 1) + row.format("b", 2), fi__jsonl=row.format("c", 1) + row.format("d", 2)
    )
    assert load_corpus(tmp_path).parallel
    write(tmp_path, fi__jsonl=row.format("c", 2) + row.format("d", 1))
    assert not load_corpus(tmp_path).parallel
    write(tmp_path, en__jsonl='{"text": "a"}\n', fi__jsonl='{"text": "b"}\n')
    assert not load_corpus(tmp_path).parallel
    write(tmp_path, en__jsonl='{"text": "a"}\n' + row.format("b", 1), fi__jsonl='{"text": "c"}\n' + row.format("d", 1))
    assert not load_corpus(tmp_path).parallel


def test_documents_with_ids_of_their_own_are_parallel():
    assert as_corpus({"en": [Document("x", "a")], "fi": [Document("x", "b")]}).parallel
    assert not as_corpus({"en": [Document("x", "a")], "fi": [Document("y", "b")]}).parallel


def test_the_bundled_text_is_parallel_in_every_split():
    assert all(load_corpus("reference", ["en", "fi", "zh"], split=split).parallel for split in SPLITS)


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


def best_by_trying_all(lengths, room):
    """Least padded tokens and passes of any way to cut the documents into batches."""
    if not lengths:
        return 0
    fits = [size for size in range(1, len(lengths) + 1) if size == 1 or size * lengths[0] <= room]
    return min(size * lengths[0] + room // PASS_SHARE + best_by_trying_all(lengths[size:], room) for size in fits)


@pytest.mark.parametrize("room", [12, 64, 640])
@pytest.mark.parametrize(
    "lengths", [[], [700], [5, 5, 5], [9, 8, 8, 3, 1], [30, 30, 29, 9, 9, 8, 8, 2, 2, 1], [60] * 4 + [59] * 4 + [3] * 4]
)
def test_batches_end_where_pads_and_passes_are_fewest(lengths, room):
    sizes = least_padding(lengths, room)
    assert sum(sizes) == len(lengths)
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    padded = sum(lengths[start] * size for start, size in zip(starts, sizes, strict=True))
    assert padded + len(sizes) * (room // PASS_SHARE) == best_by_trying_all(lengths, room)


def test_documents_of_one_length_fill_their_batches():
    assert least_padding([10] * 25, 100) == [10, 10, 5]


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
    found = split_documents(as_corpus(texts, parallel=True))
    assert list(found) == ["train", "valid", "test"] and all(part.parallel for part in found.values())
    ids = {split: {document.id for document in part["en"]} for split, part in found.items()}
    assert sum(map(len, ids.values())) == 200 and set().union(*ids.values()) == {str(i) for i in range(200)}
    assert ids["test"] == {str(i) for i in range(200) if tenth_of(str(i)) in (1, 2)}


@pytest.mark.parametrize("shards", [10, 20, 30, 32, 50])
@pytest.mark.parametrize("split", SPLITS)
def test_a_split_of_dealt_text_fills_every_shard_alike(split, shards):
    """Were shards told by tenths, 3 of 10 shards of train would be empty, and every second of 32 a third fuller."""
    texts = split_documents(as_corpus({"en": [f"sentence {i}" for i in range(20_000)]}))[split]["en"]
    counts = Counter(shard_of(document.id, shards) for document in texts)
    expected = len(texts) / shards
    assert len(counts) == shards
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < chi2.ppf(0.9999, shards - 1)


def test_a_text_that_is_in_train_is_not_in_valid_or_test():
    texts = {
        "en": [f"sentence {i}" if i % 2 else "again" for i in range(200)],
        "fi": [f"lause {i}" for i in range(200)],
    }
    found = split_documents(as_corpus(texts))
    assert "again" in {document.text for document in found["train"]["en"]}
    held = {split: [document.text for document in found[split]["en"]] for split in ("valid", "test")}
    assert all(documents and "again" not in documents for documents in held.values())
    assert len(found["test"]["fi"]) == sum(tenth_of(str(i)) in (1, 2) for i in range(200))


def test_a_text_too_short_to_be_split_is_refused():
    with pytest.raises(CorpusError, match=r"no document is left for valid of fi \(200 documents\)"):
        split_documents(as_corpus({"en": [f"sentence {i}" for i in range(200)], "fi": ["yksi"] * 200}))


def lines_of(count, word="line"):
    return "".join(f"{word} number {i}\n" for i in range(count))


def three(folder, languages=None, **given):
    return {split: load_corpus(folder, languages, split=split, **given) for split in SPLITS}


def test_a_folder_without_splits_is_dealt_out_by_document_alike_in_every_language(tmp_path):
    write(tmp_path, en__txt=lines_of(300), fi__txt=lines_of(300, "rivi"), de__jsonl=rows(300))
    found = three(tmp_path)
    for tag in ("en", "fi", "de"):
        texts = {split: {d.text for d in corpus[tag]} for split, corpus in found.items()}
        assert sum(map(len, texts.values())) == 300 and len(set().union(*texts.values())) == 300
        for split in SPLITS:
            assert len(texts[split]) == sum(tenth_of(str(i)) in TENTHS[split] for i in range(300))
    assert [d.id for d in found["test"]["en"]] == [d.id for d in found["test"]["fi"]]
    assert load_corpus(tmp_path, ["fi"], split="test")["fi"] == found["test"]["fi"]
    assert load_corpus(tmp_path, split="all")["en"] == tuple(Document(str(i), f"line number {i}") for i in range(300))
    facts = found["test"].facts()
    assert facts["split"] == "test" and facts["dealt"] and facts["documents"]["en"] == len(found["test"]["en"])


def rows(count):
    return "".join(json.dumps({"text": f"Zeile {i}", "id": i}) + "\n" for i in range(count))


def test_the_splits_are_the_same_in_every_process(tmp_path):
    write(tmp_path, en__txt=lines_of(100))
    words = "import sys, babelscope; print([d.id for d in babelscope.load_corpus(sys.argv[1], split='test')['en']])"
    for seed in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-c", words, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout.strip() == str([d.id for d in load_corpus(tmp_path, split="test")["en"]])


@pytest.mark.parametrize("parallel", [False, True])
def test_a_text_that_stands_twice_is_in_one_split_only(tmp_path, parallel):
    twice = lines_of(150) + "".join(f"line  number {i} \n" for i in range(150))
    write(tmp_path, en__txt=twice, fi__txt=lines_of(300, "rivi"))
    found = three(tmp_path, parallel=parallel)
    texts = {split: {" ".join(d.text.split()) for d in corpus["en"]} for split, corpus in found.items()}
    assert not any(texts[a] & texts[b] for a, b in combinations(SPLITS, 2))
    assert all(corpus.parallel is parallel for corpus in found.values())
    assert found["test"].source.repeated["en"] > 10 and ("fi" in found["test"].source.repeated) is parallel


def test_a_short_text_is_train_alone_and_nothing_of_it_is_held_out(tmp_path, caplog):
    write(tmp_path, en__txt=lines_of(300), fi__txt=lines_of(19, "rivi"))
    with caplog.at_level("INFO"):
        assert len(load_corpus(tmp_path)["fi"]) == 19
    assert "too short to be dealt out, so nothing of it is held out: fi" in caplog.text
    for split in ("valid", "test"):
        with pytest.raises(CorpusError, match=rf"no document is left for {split} of fi \(19 documents\)"):
            load_corpus(tmp_path, split=split)
    assert len(load_corpus(tmp_path, split="all")["fi"]) == 19


def test_a_split_that_repeats_an_earlier_one_is_counted_and_said(tmp_path, caplog):
    for split, text in (
        ("train", lines_of(50)),
        ("valid", lines_of(3) + "own\n"),
        ("test", "own\nnew\nline  number 7\n"),
    ):
        (tmp_path / split).mkdir()
        write(tmp_path / split, en__txt=text)
    found = three(tmp_path)
    assert [dict(corpus.source.repeated) for corpus in found.values()] == [{}, {"en": 3}, {"en": 2}]
    assert len(found["test"]["en"]) == 3 and "documents of test that are in an earlier split too: en 2" in caplog.text


def test_splits_in_the_files_names_are_counted_too(tmp_path):
    write(tmp_path, en__train__txt=lines_of(50), en__test__txt="line number 1\nnew\n")
    assert load_corpus(tmp_path, split="test").source.repeated == {"en": 1}


def test_languages_with_and_without_splits_stand_together(tmp_path):
    write(tmp_path, en__txt=lines_of(100), fi__train__txt="a\n", fi__valid__txt="b\n", fi__test__txt="c\n")
    found = three(tmp_path)
    assert [corpus["fi"][0].text for corpus in found.values()] == ["a", "b", "c"]
    assert sum(len(corpus["en"]) for corpus in found.values()) == 100
    assert list(load_corpus(tmp_path, ["fi", "en"])) == ["fi", "en"]


@pytest.mark.parametrize(
    ("files", "split", "word"),
    [
        ({"en__txt": "a", "en__train__txt": "b"}, "test", "en.txt and en.train.txt are both 'en'"),
        ({"en__txt": "a", "en__train__txt": "b"}, "train", "both 'en'"),
        ({"en__train__txt": "a"}, "all", "for split 'all'"),
        ({"en__txt": "a"}, "dev", "split 'dev' came; expected one of train, valid, test, all"),
    ],
)
def test_splits_that_can_not_be_told_are_one_line(tmp_path, files, split, word):
    write(tmp_path, **files)
    with pytest.raises(CorpusError, match=word):
        load_corpus(tmp_path, split=split)


def test_a_split_folder_that_is_missing_is_not_replaced_by_the_text_above_it(tmp_path):
    (tmp_path / "train").mkdir()
    write(tmp_path / "train", en__txt="a")
    write(tmp_path, en__txt="a")
    with pytest.raises(CorpusError, match="has folders train and none for test"):
        load_corpus(tmp_path, split="test")


def test_the_same_text_for_two_splits_is_refused_unless_asked_for(tmp_path):
    for split, text in (("train", lines_of(50)), ("valid", "a\nb\n"), ("test", "b\n\na\n")):
        (tmp_path / split).mkdir()
        write(tmp_path / split, en__txt=text)
    with pytest.raises(CorpusError, match=r"the same text came for en valid and test; .*--same-text"):
        load_splits(tmp_path)
    assert list(load_splits(tmp_path, same_text=True)) == list(SPLITS)
    (tmp_path / "plain").mkdir()
    write(tmp_path / "plain", en__txt=lines_of(30))
    found = load_splits(tmp_path / "plain", same_text=True)
    assert all(len(corpus["en"]) == 30 and corpus.facts()["split"] == "all" for corpus in found.values())


def test_scoring_on_the_text_that_something_was_chosen_on_is_refused(tmp_path):
    write(tmp_path, en__txt=lines_of(200))
    found = three(tmp_path)
    check_unseen(found["test"], found["train"].facts(), what="these neurons")
    check_unseen(found["test"], None, what="these neurons")
    whole = load_corpus(tmp_path, split="all")
    for texts, seen in ((found["train"].only(["en"]), found["train"]), (whole, found["train"]), (found["test"], whole)):
        with pytest.raises(CorpusError, match="is the text on which these neurons were chosen"):
            check_unseen(texts, seen.facts(), what="these neurons")
        check_unseen(texts, seen.facts(), what="these neurons", same_text=True)
    handed = as_corpus({"en": ["a", "b"]})
    with pytest.raises(CorpusError, match="texts handed over: is the text"):
        check_unseen(handed, as_corpus({"en": ["a", "b"]}).facts(), what="these neurons")


def test_the_same_text_is_known_again_under_another_name(tmp_path):
    lines = lines_of(600).splitlines()
    for name in ("one", "two", "rows", "other"):
        (tmp_path / name).mkdir()
    write(tmp_path / "one", en__txt="\n".join(lines[:500]), fi__txt=lines_of(40))
    write(tmp_path / "two", en__txt="\n".join(reversed(lines[:500])))
    rows = [json.dumps({"id": f"r{i}", "text": f" {line}"}) for i, line in enumerate(lines[100:200])]
    write(tmp_path / "rows", en__jsonl="\n".join(rows))
    # Every fifth line stands in the other text too, as stock phrases do: it is another text.
    write(tmp_path / "other", en__txt="\n".join(line if i % 5 == 0 else f"{line} too" for i, line in enumerate(lines)))
    seen = json.loads(json.dumps(load_corpus(tmp_path / "one", split="all").facts()))
    for name, split in (("two", "all"), ("two", "test"), ("rows", "all")):
        texts = load_corpus(tmp_path / name, split=split)
        assert texts.hash != seen["hash"]
        with pytest.raises(CorpusError, match="is the text on which these neurons were chosen"):
            check_unseen(texts, seen, what="these neurons")
        check_unseen(texts, seen, what="these neurons", same_text=True)
        with pytest.raises(CorpusError, match="is the text on which these neurons were chosen"):
            check_unseen(load_corpus(tmp_path / "one", ["en"], split="all"), texts.facts(), what="these neurons")
    check_unseen(load_corpus(tmp_path / "other", split="all"), seen, what="these neurons")
    train, test = load_corpus(tmp_path / "one", ["en"]), load_corpus(tmp_path / "two", split="all")
    halves = [as_corpus({"en": [document.text for document in test["en"]][part::2]}) for part in (0, 1)]
    check_unseen(halves[0], halves[1].facts(), what="these neurons")
    with pytest.raises(CorpusError, match="is the text on which"):
        check_unseen(test, train.facts(), what="these neurons")


def test_a_data_set_with_one_split_is_dealt_out_and_one_with_splits_is_not(monkeypatch):
    datasets = pytest.importorskip("datasets")
    there = {"one": ["train"], "many": ["train", "validation"]}
    monkeypatch.setattr("babelscope.corpus.reading.no_data_set", lambda name: "")
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, tag: there[name])
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, tag, split, streaming: [{"text": f"{split} {i}"} for i in range(100)]
    )
    found = {split: load_corpus("one", ["en"], split=split)["en"] for split in SPLITS}
    assert sum(map(len, found.values())) == 100 and len({d.text for part in found.values() for d in part}) == 100
    assert load_corpus("many", ["en"], split="valid")["en"][0].text == "validation 0"
    with pytest.raises(CorpusError, match="has splits train, validation and none for test"):
        load_corpus("many", ["en"], split="test")


def test_the_bundled_text_is_not_dealt_out_and_repeats_nothing():
    found = three("reference")
    for tag in found["train"]:
        texts = [{content_of(d) for d in corpus[tag]} for corpus in found.values()]
        assert [len(part) for part in texts] == [240, 60, 100] and len(set().union(*texts)) == 400
    assert all(corpus.name == "reference" and not corpus.source.dealt for corpus in found.values())
