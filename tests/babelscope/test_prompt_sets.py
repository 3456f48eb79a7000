"""Prompt sets and answers in the layouts that are about, made small."""

import json
import lzma

import pytest

from babelscope.corpus import Message, load_corpus
from babelscope.errors import ChatError, CorpusError
from babelscope.evaluation import english_words, load_answers, load_prompts
from babelscope.runs import Run


def write_rows(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(file, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_language_confusion_as_packed_rows(tmp_path):
    write_rows(
        tmp_path / "monolingual.jsonl.xz",
        [
            {"set": "aya", "i": 0, "lang": "ar", "prompt": "اشرح ما هي"},
            {"set": "aya", "i": 1, "lang": "en", "prompt": "Why?\nSay."},
        ],
    )
    row = {"set": "sharegpt", "i": 7, "lang": "fr", "prompt": "In French.", "location": "End", "phrasing": "in {x}"}
    write_rows(tmp_path / "crosslingual.jsonl.xz", [row])
    found = load_prompts(tmp_path, kind="language_confusion")
    assert [tuple(prompt) for prompt in found] == [
        ("sharegpt", "7", "fr", "In French.", "crosslingual", ()),
        ("aya", "0", "ar", "اشرح ما هي", "monolingual", ()),
        ("aya", "1", "en", "Why?\nSay.", "monolingual", ()),
    ]
    assert len(load_prompts(tmp_path, kind="language_confusion", languages=["ar", "fr"], sets=["aya"])) == 1


def test_language_confusion_as_in_its_repository(tmp_path):
    folder = tmp_path / "test_sets" / "crosslingual" / "okapi"
    folder.mkdir(parents=True)
    head = "prompt,location,phrasing,language,source\n"
    (folder / "fr.csv").write_text(f'{head}"Say ""oui"",\nplease",End,in X,fr,okapi\nHello,Start,in X,fr,okapi\n')
    (folder / "zh.csv").write_text("prompt\n你好\n")
    found = load_prompts(tmp_path, kind="language_confusion")
    assert [tuple(prompt) for prompt in found] == [
        ("okapi", "0", "fr", 'Say "oui",\nplease', "crosslingual", ()),
        ("okapi", "1", "fr", "Hello", "crosslingual", ()),
        ("okapi", "0", "zh", "你好", "crosslingual", ()),
    ]


def test_clas_has_one_question_a_line(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "de.txt").write_text("Warum?\n\nWas ist das?\n")
    (folder / "sw.txt").write_text("Kwa nini?\nHii ni nini?\n")
    (folder / "notes.txt").write_text("not a language\n")
    found = load_prompts(folder, kind="clas")
    assert [tuple(prompt) for prompt in found] == [
        ("data", "0", "de", "Warum?", "", ()),
        ("data", "1", "de", "Was ist das?", "", ()),
        ("data", "0", "sw", "Kwa nini?", "", ()),
        ("data", "1", "sw", "Hii ni nini?", "", ()),
    ]


def test_answers_keep_their_blank_lines_and_their_sets(tmp_path):
    (tmp_path / "fi.txt").write_text("Hei vaan\n\nMoi\n")
    (tmp_path / "outputs.csv").write_text('source,language,completion\naya,de,"Ja,\nnein"\naya,de,\n')
    found = load_answers(tmp_path)
    assert [(a.set, a.language, a.text) for a in found] == [
        ("", "fi", "Hei vaan"),
        ("", "fi", ""),
        ("", "fi", "Moi"),
        ("aya", "de", "Ja,\nnein"),
        ("aya", "de", ""),
    ]


def test_bad_prompt_sets_are_one_clear_line(tmp_path):
    with pytest.raises(CorpusError, match="no such file or folder"):
        load_prompts(tmp_path / "nothing", kind="clas")
    with pytest.raises(CorpusError, match="no prompt was found"):
        load_prompts(tmp_path, kind="language_confusion")
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(CorpusError, match="columns a came; expected a language"):
        load_prompts(tmp_path, kind="language_confusion")
    (tmp_path / "rows.jsonl").write_text("{no json\n")
    with pytest.raises(CorpusError, match="line 1: is no JSON"):
        load_prompts(tmp_path, kind="clas")
    for row, said in (
        ({"language": "fi", "answer": None}, 'line 1: answer came as null; expected text; write it, or ""'),
        ({"language": None, "answer": "a"}, "line 1: language came as null"),
        ({"language": "fi", "prompt": "a"}, "columns language, prompt came; expected a language"),
    ):
        (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
        with pytest.raises(CorpusError, match=said):
            load_answers(tmp_path / "rows.jsonl")
    with pytest.raises(CorpusError, match="no answer was found"):
        load_answers(tmp_path / "empty")


def test_a_rows_system_prompt_goes_before_what_it_asks(tmp_path):
    row = {"language": "fi", "prompt": "Hi", "system": "Be brief."}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (prompt,) = load_prompts(tmp_path, kind="language_confusion")
    assert (prompt.text, prompt.messages) == ("Hi", (Message("system", "Be brief."), Message("user", "Hi")))
    (tmp_path / "rows.jsonl").write_text(json.dumps({**row, "tools": [1]}) + "\n")
    with pytest.raises(ChatError, match="line 1: tools came"):
        load_prompts(tmp_path, kind="language_confusion")


def test_only_line_ends_end_a_line(tmp_path):
    whole = "one\u2028still one\u0085and on\x0cto its end"
    (tmp_path / "fi.txt").write_bytes(f"{whole}\r\ntwo\r\n".encode())
    assert [answer.text for answer in load_answers(tmp_path)] == [whole, "two"]
    assert [prompt.text for prompt in load_prompts(tmp_path, kind="clas")] == [whole, "two"]
    words = tmp_path / "words"
    words.write_text("house\u2028boat\ngarden\n", encoding="utf-8")
    assert english_words(words) == {"house\u2028boat", "garden"}
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    run.log([{"answer": whole}, {"answer": ""}])
    assert [row["answer"] for row in run.results()] == [whole, ""]
    assert [document.text.split()[0] for document in load_corpus(tmp_path, ["fi"], split="all")["fi"]] == ["one", "two"]
