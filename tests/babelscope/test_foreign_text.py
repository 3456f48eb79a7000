"""Corpora, prompts and answers by strangers: one line with file and line number, never a traceback or less text."""

import json
import os
import random

import pytest

from babelscope import open_model
from babelscope.adapters.gguf import import_control_vector
from babelscope.adapters.masks import import_mask
from babelscope.cli.asking import read_prompts
from babelscope.corpus import load_corpus
from babelscope.errors import ChatError, CorpusError, LanguageError, ToolkitError
from babelscope.evaluation import english_words, load_answers, load_prompts
from babelscope.features import load_sae

ROWS = [{"lang": "fi", "set": "s", "i": i, "prompt": f"mikä {i}?", "answer": f"se, on\n{i}"} for i in range(20)]


@pytest.fixture
def corpus(tmp_path):
    for tag in ("en", "fi"):
        (tmp_path / f"{tag}.txt").write_text(f"text of {tag}\n")
    return tmp_path


def test_a_folder_a_pipe_or_a_dead_link_in_place_of_a_file_is_said(corpus, tmp_path):
    makers = {"is a folder": lambda file: file.mkdir(), "is no plain file": os.mkfifo}
    makers["is a link to nothing"] = lambda file: file.symlink_to(file.with_name("none"))
    makers["link to"] = lambda file: file.symlink_to(file.name)
    for tag, (word, make) in zip(("eu", "sv", "et", "lv"), makers.items(), strict=True):
        file = corpus / f"{tag}.txt"
        make(file)
        with pytest.raises(CorpusError, match=word):
            load_corpus(corpus, split="all")
        assert list(load_corpus(corpus, ["en", "fi"], split="all")) == ["en", "fi"]
        with pytest.raises(CorpusError, match=word):
            load_corpus(corpus, [file.stem], split="all")
        file.rmdir() if file.is_dir() else file.unlink()


def test_a_link_out_of_the_corpus_is_said_and_one_within_or_in_the_hubs_cache_is_read(corpus, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret"
    outside.write_text("private\n")
    (corpus / "eu.txt").symlink_to(outside)
    with pytest.raises(CorpusError, match=f"eu.txt: is a link to {outside}, outside the corpus"):
        load_corpus(corpus, split="all")
    for load in (load_answers, lambda path: load_prompts(path, kind="clas")):
        with pytest.raises(CorpusError, match="outside the corpus"):
            load(corpus)
    (corpus / "eu.txt").unlink()
    (outside.parent / "train").mkdir(), (outside.parent / "train" / "en.txt").write_text("private\n")
    (corpus / "train").symlink_to(outside.parent / "train")
    with pytest.raises(CorpusError, match="train/en.txt: is a link to .*outside the corpus"):
        load_corpus(corpus)
    (corpus / "train").unlink()
    (corpus / "eu.txt").symlink_to("fi.txt")
    assert load_corpus(corpus, split="all")["eu"][0].text == "text of fi"
    hub = outside.parent / "datasets--a--b"
    (hub / "blobs").mkdir(parents=True), (hub / "snapshots" / "1a").mkdir(parents=True)
    (hub / "blobs" / "0f").write_text("a blob\n")
    (hub / "snapshots" / "1a" / "en.txt").symlink_to("../../blobs/0f")
    assert load_corpus(hub / "snapshots" / "1a", split="all")["en"][0].text == "a blob"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("[1]", "a list came"),
        ("null", "a NoneType came"),
        ("3", "a int came"),
        ("[" * 5000, "nested too deep"),
        ("{", "no JSON"),
        ('{"lang": "fi", "answer": "\\ud800", "prompt": "\\ud800"}', "half a surrogate pair"),
        ('{"lang": "fi", "answer": ["a"], "prompt": ["a"]}', "is a list; expected text"),
        ('{"lang": "fi", "answer": true, "prompt": true}', "is a bool; expected text"),
        ('{"lang": "fi", "answer": {}, "prompt": {}}', "is a dict; expected text"),
        ('{"lang": "klingonese", "answer": "a", "prompt": "a"}', "klingonese"),
        ('{"lang": ["fi"], "answer": "a", "prompt": "a"}', "lang is a list"),
        ('{"a\\n\\u001b[2J": 1}', r"columns a\\n\\x1b\[2J came"),
    ],
)
def test_a_bad_row_is_one_line_with_its_number(tmp_path, line, word):
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(ROWS[0])}\n\n{line}\n")
    for load in (load_answers, lambda path: load_prompts(path, kind="language_confusion")):
        with pytest.raises((CorpusError, LanguageError), match=word) as caught:
            load(tmp_path)
        assert f"{file}, line 3: " in str(caught.value) and "\n" not in str(caught.value)


HEAD = "language,completion,prompt\n"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (f"{HEAD}fi,{'a' * 131_073},b\n", "line 2: is no CSV .field larger than field limit.*as jsonl"),
        (f'{HEAD}fi,a,b\nfi,"a,b\n', "is no CSV .unexpected end of data"),
        (f"{HEAD}fi,a,b\nfi,a\n", "line 3: 2 cells came; expected 3"),
        (f"{HEAD}fi,a,b\nfi,a,b,c\n", "line 3: 4 cells came; expected 3"),
        ("language,completion,completion\nfi,a,b\n", "two columns have one name"),
        (f"{HEAD}fi,a\0,b\n", "line 2: unreadable, holds a NUL"),
        (f"{HEAD}fi,a\rb,c\n", "line 2: 2 cells came"),
        (f'{HEAD}fi,"a\nb",b\nfi,a\n', "line 4: 2 cells came"),
    ],
)
def test_a_bad_csv_is_one_line_with_its_number(tmp_path, text, word):
    (tmp_path / "rows.csv").write_text(text, newline="")
    for load in (load_answers, lambda path: load_prompts(path, kind="language_confusion")):
        with pytest.raises(CorpusError, match=word) as caught:
            load(tmp_path)
        assert "rows.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_an_undecodable_byte_is_one_line_everywhere(tmp_path):
    (tmp_path / "fi.txt").write_bytes(b"hyv\xc3\xa4\nhyv\xe4\n")
    (tmp_path / "x.csv").write_bytes(b"language,completion\nfi,hyv\xe4\n")
    for name in ("fi.txt", "x.csv"):
        with pytest.raises(CorpusError, match=f"{name}, line 2: unreadable, is not UTF-8 at byte "):
            load_answers(tmp_path / name)
    with pytest.raises(CorpusError, match=r"fi.txt, line 2: unreadable, is not UTF-8 at byte 3"):
        read_prompts([str(tmp_path / "fi.txt")])
    for empty in ("", " \n"):
        with pytest.raises(CorpusError, match="an empty prompt came"):
            read_prompts(["a text", empty])
    with pytest.raises(CorpusError, match="half a surrogate pair"):
        read_prompts([b"hyv\xe4".decode("utf-8", "surrogateescape")])
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\n{"x": ' + "[" * 5000)
    with pytest.raises(CorpusError, match="line 2: nested too deep"):
        read_prompts([str(tmp_path / "rows.jsonl")])


def test_conversations_that_are_none_are_one_line(tmp_path):
    good = '{"messages": [{"role": "user", "content": "a"}]}'
    for bad in ("[" * 5000, "{", '[{"role": "\\ud800", "content": "a"}]', '{"messages": {"a": 1}}', "7"):
        (tmp_path / "en.jsonl").write_text(f"{good}\n{bad}\n")
        with pytest.raises(ChatError, match="line 2") as caught:
            load_corpus(tmp_path, split="all", conversation="user")
        assert "\n" not in str(caught.value)


def mutated(content, draw):
    """A cut, a flipped bit, or bytes put in or left out."""
    place = draw.randrange(len(content))
    return draw.choice(
        [
            content[:place],
            content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :],
            content[:place] + draw.randbytes(4) + content[place:],
            content[:place] + content[place + 3 :],
        ]
    )


def test_rows_and_cells_that_were_cut_or_changed_load_or_are_one_line(tmp_path):
    """Plain text has no checksum: what still is rows is read; a row that was cut is never read as a shorter one."""
    import csv
    import io

    table = io.StringIO()
    writer = csv.DictWriter(table, list(ROWS[0]), quoting=csv.QUOTE_ALL)
    writer.writeheader(), writer.writerows(ROWS)
    whole = {
        "rows.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
        "rows.csv": table.getvalue().encode(),
    }
    draw, refused = random.Random(5), 0
    for name, content in whole.items():
        file = tmp_path / name
        for place in random.Random(6).sample(range(1, len(content)), 200):
            file.write_bytes(content[:place])
            try:
                texts = [answer.text for answer in load_answers(file)]
            except ToolkitError as err:
                refused += 1
                assert "\n" not in str(err) and name in str(err)
            else:
                expected = [row["answer"] for row in ROWS][: len(texts)]
                assert texts in (expected, [*expected[:-1], ""])  # a row that ends in a comma has an empty cell
        for _ in range(300):
            file.write_bytes(mutated(content, draw))
            try:
                load_answers(file)
            except ToolkitError as err:
                assert "\n" not in str(err) and name in str(err)
    assert refused > 300


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "a\udc80b", "/dev/zero", "nowhere/at/all.txt"])
def test_a_name_that_is_no_file_is_one_line_for_every_reader(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    calls = [
        lambda: load_corpus(name, split="all"),
        lambda: load_answers(name),
        lambda: open_model(name, device="cpu"),
        lambda: import_control_vector(name),
        lambda: import_mask(name, languages=["en"], n_neurons=8),
        lambda: load_sae(name),
        lambda: english_words(name),
    ]
    for call in calls:
        with pytest.raises(ToolkitError) as caught:
            call()
        assert "expected" in str(caught.value) and str(caught.value).isprintable()
