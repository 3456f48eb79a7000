"""Rows by vectors of words from a file: reading by hand, FOCUS and matching pursuit by numpy and scikit-learn."""

import gzip
import json
import re

import numpy as np
import pytest
import torch
from conftest import tiny_tokenizer
from sklearn.linear_model import orthogonal_mp
from vocabulary_cases import lines, model_for, tokenizer_of

from babelscope import extend_vocabulary
from babelscope.cli import main
from babelscope.corpus import as_corpus
from babelscope.errors import CorpusError, MeasurementError
from babelscope.vocabulary.word_vectors import VectorHeader, check_vectors, entry_vectors, read_word_vectors

SMALL = "4 2\nAb 9 9\nab 1 0 \nba 0 1\nBA 5 5\n"


def written(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def vectors_of(tmp_path, *tags, width=20, name="cy.vec.gz"):
    """A file with a random vector for each word of some text but every fifth."""
    words = sorted({word for found in lines(*tags, count=150).values() for line in found for word in words_of(line)})
    words = [word for place, word in enumerate(words) if place % 5]
    values = np.random.default_rng(0).normal(size=(len(words), width)).round(4)
    rows = "".join(f"{word} {' '.join(map(str, row))}\n" for word, row in zip(words, values.tolist(), strict=True))
    path = written(tmp_path / name, f"{len(words)} {width}\n{rows}")
    return path, dict(zip(words, values, strict=True))


def words_of(line):
    return [word.lower() for word in re.findall(r"[^\W\d_]+", line)]


@pytest.mark.parametrize("name", ["small.vec", "small.vec.gz"])
def test_a_file_is_read_as_it_is_written(tmp_path, name):
    path = written(tmp_path / name, SMALL)
    found = read_word_vectors(path, {"ab", "ba", "c"})
    assert {word: vector.tolist() for word, vector in found.items()} == {"ab": [1, 0], "ba": [0, 1]}
    assert list(read_word_vectors(path, {"c"})) == []
    capital = written(tmp_path / "capital.vec", "2 1\nBilbo 3\nBILBO 4\n")
    assert read_word_vectors(capital, {"bilbo"})["bilbo"].tolist() == [3]
    assert check_vectors("omp", str(path)) == path and check_vectors("subword", None) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: ''; expected a first line with the number of words"),
        ("ab 1 0\nba 0 1\n", "line 1: 'ab 1 0'; expected a first line"),
        ("2 0\nab\nba\n", "line 1: '2 0'; expected a first line"),
        ("2 99999\nab 1\n", "at most 10,000 dimensions"),
        ("2 2\nab 1 0\n", "ends after 1 words; expected 2"),
        ("2 2\nab 1 0\nba 0 1\nc 1 1\n", "line 4: more than 2 words; expected 2 words with 2 numbers"),
        ("2 2\nab 1 0\nba 0\n", "line 3: 1 numbers after a word; expected 2 words with 2 numbers"),
        ("2 2\nab 1 0\nba 0 x\n", "line 3: could not convert string to float: 'x'; expected numbers"),
        ("2 2\nab 1 0\nba 0 nan\n", "line 3: a number is infinite or none"),
        ("2 2\nab 1 0\nb\0a 0 1\n", "line 3: unreadable, holds a NUL"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, text, says):
    path = written(tmp_path / "bad.vec", text)
    with pytest.raises(CorpusError) as error:
        read_word_vectors(path, {"ab", "ba"})
    assert says in str(error.value) and "\n" not in str(error.value) and str(path) in str(error.value)
    whole = written(tmp_path / "cut.vec.gz", SMALL * 500)
    whole.write_bytes(whole.read_bytes()[:-9])
    with pytest.raises(CorpusError, match="fetch it again|fetch the file again"):
        read_word_vectors(whole, {"ab"})


def test_a_file_larger_than_the_text_that_may_be_kept_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("BABELSCOPE_MAX_TEXT_MIB", "1")
    rows = "".join(f"w{number} {' '.join(['0.25'] * 50)}\n" for number in range(8000))
    path = written(tmp_path / "large.vec.gz", f"8000 50\n{rows}")
    assert len(gzip.decompress(path.read_bytes())) > 2**20
    assert list(read_word_vectors(path, {"w7", "w7999"})) == ["w7", "w7999"]


def test_an_entry_has_the_sum_of_the_words_that_it_stands_in(tmp_path):
    # One token a letter. "a" stands in "ab" twice and in "ba" once; "b" also in "b", which has a vector; "c" has none.
    path = written(tmp_path / "small.vec", "3 2\nab 1 0\nba 0 1\nb 0 3\n")
    tokenizer, text = tiny_tokenizer(), as_corpus({"en": ["ab AB ba b", "c"]})
    found = entry_vectors(tokenizer, text, path)
    by_letter = {
        tokenizer.decode([index]): v.tolist() for index, v in zip(found.ids.tolist(), found.values, strict=True)
    }
    folded = {letter: np.array(value) for letter, value in by_letter.items()}
    np.testing.assert_allclose(folded["a"], np.array([1, 1]) / 2**0.5)
    np.testing.assert_allclose(folded["A"], [1, 0])
    np.testing.assert_allclose(folded["b"], np.array([1, 4]) / 17**0.5)
    assert "c" not in folded and VectorHeader(3, 2).width == found.values.shape[1]
    with pytest.raises(CorpusError, match="has none of the 1 words of .*; expected vectors of its language"):
        entry_vectors(tokenizer, as_corpus({"en": ["zz"]}), path)


def simplex_by_bisection(scores):
    low, high = scores.min() - 1, scores.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(scores - middle, 0, None).sum() > 1 else (low, middle)
    return np.clip(scores - low, 0, None)


@pytest.mark.parametrize("init", ["focus", "omp"])
def test_rows_by_a_file_are_those_of_numpy_and_scikit_learn(tmp_path, init):
    path, by_word = vectors_of(tmp_path, "cy")
    tokenizer = tokenizer_of("byte-level")
    model, text = model_for(tokenizer, "phi"), lines("cy", count=150)
    pack = extend_vocabulary(model, tokenizer, text, size=25, init=init, vectors=path)
    sums = {}
    for line in text["cy"]:
        cut = pack.tokenizer(line, return_offsets_mapping=True, add_special_tokens=False)
        for match in re.finditer(r"[^\W\d_]+", line):
            if match[0].lower() in by_word:
                for index, (start, end) in zip(cut.input_ids, cut.offset_mapping, strict=True):
                    if start < match.end() and match.start() < end:
                        sums[index] = sums.get(index, 0) + by_word[match[0].lower()]
    unit = {index: value / np.linalg.norm(value) for index, value in sums.items()}
    new = (pack.source < 0).nonzero()[:, 0].tolist()
    known = sorted(unit.keys() - set(new))
    others = np.stack([unit[index] for index in known])
    for table, rows in zip(
        (model.get_input_embeddings(), model.get_output_embeddings()), (pack.rows, pack.head_rows), strict=True
    ):
        assert rows is not None
        weight = table.weight.detach().double().numpy()
        for place, index in enumerate(new):
            if index in unit:
                scores = others @ unit[index]
                weights = (
                    simplex_by_bisection(scores)
                    if init == "focus"
                    else orthogonal_mp(others.T, unit[index], n_nonzero_coefs=8)
                )
                np.testing.assert_allclose(rows[place].numpy(), weights @ weight[known], atol=1e-4)
    with_vector = len(unit.keys() & set(new))
    assert with_vector > 10
    said = pack.parameters["vectors"]
    assert said == {
        "file": "cy.vec.gz",
        "bytes": path.stat().st_size,
        "dimensions": 20,
        "new": with_vector,
        "own": len(known),
    }
    from_text = extend_vocabulary(model, tokenizer, text, size=25, init=init)
    assert not torch.allclose(pack.rows, from_text.rows) and "vectors" not in from_text.parameters


def test_entries_without_a_vector_begin_with_their_sub_words(tmp_path):
    tokenizer, text = tokenizer_of("byte-level"), lines("cy", count=150)
    model = model_for(tokenizer)
    path = written(tmp_path / "few.vec", "2 2\nyn 1 0\na 0 1\n")
    pack, leaves = (
        extend_vocabulary(model, tokenizer, text, size=25, init=init, vectors=vectors)
        for init, vectors in (("focus", path), ("subword", None))
    )
    moved = int((pack.rows != leaves.rows).any(1).sum())
    assert 0 < moved <= pack.parameters["vectors"]["new"] < 25


@pytest.mark.parametrize(
    ("init", "name", "error", "says"),
    [
        ("subword", "few.vec", MeasurementError, "vectors came with init 'subword'; only focus and omp use them"),
        ("focus", "absent.vec", CorpusError, "is not there"),
        ("omp", "few.vec", CorpusError, "has none of the"),
    ],
)
def test_vectors_that_cannot_be_used_are_refused(tmp_path, init, name, error, says):
    tokenizer = tokenizer_of("byte-level")
    written(tmp_path / "few.vec", "1 2\nqqqq 1 0\n")
    with pytest.raises(error, match=says) as raised:
        extend_vocabulary(
            model_for(tokenizer), tokenizer, lines("cy", count=60), size=5, init=init, vectors=tmp_path / name
        )
    assert "\n" not in str(raised.value)


def test_vectors_are_taken_from_the_shell(tmp_path, capsys):
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "cy.txt").write_text("\n".join(lines("cy", count=150)["cy"]))
    path, _ = vectors_of(tmp_path, "cy")
    call = ["vocabulary", "extend", "reference", str(folder), "--init", "omp", "--size", "10"]
    assert main(["--json", *call, "--vectors", str(path), "--out", str(tmp_path / "pack")]) == 0
    assert 0 < json.loads(capsys.readouterr().out)["with_vector"] <= 10
    bad = written(tmp_path / "bad.vec", "hello\n")
    assert main([*call, "--vectors", str(bad), "--out", str(tmp_path / "none")]) == 1
    said = capsys.readouterr().err
    assert "expected a first line" in said and len(said.strip().splitlines()) == 1 and not (tmp_path / "none").exists()
