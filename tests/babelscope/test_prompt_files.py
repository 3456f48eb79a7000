"""Files of prompts as a person has them: tables, capitals in an ending, and kinds that are not read."""

import json
import os

import pytest
from chat_cases import system, user

from babelscope.cli.asking import read_lines, read_prompts
from babelscope.errors import ChatError, CorpusError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", 'id,question\n1,"one, and\nmore"\n2,two\n'),
        ("p.TSV", "text\tid\none, and more\t1\ntwo\t2\n"),
        ("p.JSONL", '{"prompt": "one, and more"}\n{"text": "two"}\n'),
    ],
)
def test_a_table_of_prompts_is_its_rows(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert [prompt.text.replace("\n", " ") for prompt in read_prompts([str(tmp_path / name)])] == [
        "one, and more",
        "two",
    ]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.json", '["one"]', "is a json file; expected a .txt file of one text a line"),
        ("p.csv", "", "holds no row"),
        ("p.csv", "frage\neins\n", "line 2: fields frage came; .*a column prompt, text or question"),
        ("p.jsonl", '{"prompt": null}\n', "line 1: prompt as null came; expected"),
        ("p.csv", 'prompt\n" "\n', "line 2: an empty prompt came"),
    ],
)
def test_a_table_without_prompts_is_one_line(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(CorpusError, match=words):
        read_prompts([str(tmp_path / name)])


def test_a_table_is_no_file_of_references(tmp_path):
    (tmp_path / "r.csv").write_text("text\none\n")
    with pytest.raises(CorpusError, match="is a csv file; expected a .txt file"):
        read_lines(tmp_path / "r.csv", "references")


def test_a_rows_system_prompt_is_asked_with_it_or_refused(tmp_path):
    rows = tmp_path / "p.jsonl"
    rows.write_text(json.dumps({"prompt": "one", "system": "Be brief."}) + "\n" + json.dumps({"prompt": "two"}) + "\n")
    first, second = read_prompts([str(rows)], chat=True)
    assert [turn.as_dict() for turn in first.messages] == [system("Be brief."), user("one")]
    assert [turn.as_dict() for turn in second.messages] == [user("two")]
    with pytest.raises(ChatError, match="p.jsonl, line 1: .*leave one of them out"):
        read_prompts([str(rows)], chat=True, system="Be long.")
    with pytest.raises(ChatError, match="p.jsonl, line 1: a system prompt came; .*add --chat"):
        read_prompts([str(rows)])
    rows.write_text(json.dumps({"prompt": "one", "tools": [{"name": "f"}]}) + "\n")
    with pytest.raises(ChatError, match="line 1: tools came"):
        read_prompts([str(rows)], chat=True)


def test_blank_lines_are_no_prompts_as_in_a_corpus_and_keep_their_numbers(tmp_path):
    (tmp_path / "p.txt").write_text("one\n\n  \ntwo\n\n")
    assert [prompt.text for prompt in read_prompts([str(tmp_path / "p.txt")])] == ["one", "two"]
    (tmp_path / "p.jsonl").write_text('"one"\n\n{"prompt": " "}\n')
    with pytest.raises(CorpusError, match="p.jsonl, line 3: an empty prompt came"):
        read_prompts([str(tmp_path / "p.jsonl")])
    (tmp_path / "p.txt").write_text("\n \n")
    with pytest.raises(CorpusError, match="p.txt: is empty; expected one text a line; write some"):
        read_prompts([str(tmp_path / "p.txt")])


def test_references_stand_beside_their_prompts(tmp_path):
    (tmp_path / "r.txt").write_text("one\ntwo\n\n")
    assert read_lines(tmp_path / "r.txt", "references") == ["one", "two"]
    (tmp_path / "r.txt").write_text("one\n\ntwo\n")
    with pytest.raises(CorpusError, match="line 2 is blank; .* write it, or take the line and its prompt out"):
        read_lines(tmp_path / "r.txt", "references")


def test_a_word_that_is_no_file_and_no_text_is_one_line(tmp_path):
    with pytest.raises(CorpusError, match="is a folder; expected a file of prompts, or a text; name a file in it"):
        read_prompts([str(tmp_path)])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CorpusError, match="pipe: is no plain file"):
        read_prompts([str(tmp_path / "pipe")])
    assert [prompt.text for prompt in read_prompts(["a text", "x" * 9_000])] == ["a text", "x" * 9_000]
