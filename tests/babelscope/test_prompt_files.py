"""Files of prompts as a person has them: tables, capitals in an ending, and kinds that are not read."""

import json

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
