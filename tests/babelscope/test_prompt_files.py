"""Files of prompts as a person has them: tables, capitals in an ending, and kinds that are not read."""

import pytest

from babelscope.cli.asking import read_lines, read_prompts
from babelscope.errors import CorpusError


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
