"""`--chat` as a user meets it: steer, its sweep, evaluate and study, on a tiny model with a template."""

import json
import logging
import shutil

import pytest
import torch
from chat_cases import CHATML, REFUSES_SYSTEM, assistant, chat_tokenizer, system, user
from conftest import tiny_model
from delta_cases import random_delta

from babelscope import Direction, Language, Site, load_corpus, open_model, origin_of
from babelscope.cli import main
from babelscope.cli.readable import number_of
from babelscope.cli.telling_answers import pair_lines, repeated_share
from babelscope.errors import ChatError, CorpusError
from babelscope.steering.sweeps import AnswerPair, ask_as_chat
from babelscope.steering.sweeps.steered_answers import Answer
from babelscope.steering.sweeps.steering_prompts import Prompt
from babelscope.study import Budget
from babelscope.study.job import StudyInputs
from babelscope.study.plan import plan_of
from babelscope.study.run import check_chat

WORDS = {"en": "the cat sat on a mat {}", "fi": "kissa istui matolla {}"}
QUESTIONS = {"en": "Where is the {}?", "fi": "Missä on {}?"}


def saved(place, template=CHATML):
    tiny_model("llama").save_pretrained(place)
    chat_tokenizer(template).save_pretrained(place)
    return place


@pytest.fixture
def folder(tmp_path):
    """A model with a template, a direction and a delta for it, and a corpus of three splits."""
    model, tokenizer = open_model(str(saved(tmp_path / "model")), device="cpu")
    vector = 30 * torch.randn(32, generator=torch.Generator().manual_seed(0))
    Direction(vector, Site(1, "resid_out"), "fi", ("en",), 1.0, origin_of(model, tokenizer)).save(tmp_path / "dir")
    random_delta(model, share=0.5, size=1.0, language="fi").save(tmp_path / "delta")
    for split, lines, letters in (("train", 60, "abcdefgh"), ("valid", 6, "ijklmnop"), ("test", 6, "qrstuvwx")):
        (tmp_path / "corpus" / split).mkdir(parents=True)
        for tag, line in WORDS.items():
            text = "".join(line.format(letters[i % 8] * (1 + i // 8)) + "\n" for i in range(lines))
            (tmp_path / "corpus" / split / f"{tag}.txt").write_text(text)
    (tmp_path / "questions").mkdir()
    for tag, line in QUESTIONS.items():
        rows = [{"messages": [user(line.format(i))]} for i in range(12)]
        (tmp_path / "questions" / f"{tag}.txt").write_text(
            "".join(f"{row['messages'][0]['content']}\n" for row in rows)
        )
    return tmp_path


def call(capsys, *words, form="--json"):
    capsys.readouterr()
    code = main([*map(str, words), *([form] if form else [])])
    out, err = capsys.readouterr()
    return code, json.loads(out) if form and out.strip() else out, err


def refused(capsys, *words, code=1):
    came, _, err = call(capsys, *words)
    assert came == code and "Traceback" not in err, err
    return err.splitlines()[-1]


def test_steer_shows_plain_and_steered_answers_to_messages(capsys, folder, caplog):
    caplog.set_level(logging.INFO)
    (folder / "asked.jsonl").write_text(
        json.dumps({"messages": [user("one\n\ntwo"), assistant("ok"), user("and\nthree?")]})
        + "\n" + json.dumps([user("four")]) + "\n" + json.dumps({"prompt": "five\nsix"}) + "\n"
    )  # fmt: skip
    code, result, err = call(
        capsys, "steer", folder / "model", folder / "dir", folder / "asked.jsonl", "seven",
        "--chat", "--system", "Be brief.", "--new-tokens", 6,
    )  # fmt: skip
    assert code == 0, err
    assert [row["prompt"] for row in result["answers"]] == ["and\nthree?", "four", "five\nsix", "seven"]
    assert [turn["role"] for turn in result["answers"][0]["messages"]] == ["system", "user", "assistant", "user"]
    assert result["target"] == "fi" and result["decoding"] == "greedy"
    assert (
        {"text", "language", "ended", "repeated"}
        == set(result["answers"][0]["plain"])
        == set(result["answers"][0]["steered"])
    )
    assert any(row["plain"]["text"] != row["steered"]["text"] for row in result["answers"])
    assert "asked.jsonl: 3 prompts, one per row" in caplog.text


def test_a_person_reads_the_answers_with_their_languages(capsys, folder):
    model, direction = folder / "model", folder / "dir"
    code, out, _ = call(capsys, "steer", model, direction, "the cat", "--chat", "--new-tokens", 6, form="")
    lines = out.splitlines()
    assert code == 0 and lines[0] == "greedy, at most 6 new tokens; asked for Finnish (fi)"
    assert lines[2].split() == ["prompt", "the", "cat"]
    assert [line.split()[0] for line in lines[3:] if line and not line.startswith(" ")] == ["plain", "steered"]
    assert "not in Finnish (fi)" in lines[-1]
    _, out, _ = call(capsys, "steer", model, direction, "the cat", "--temperature", 0.7, "--seed", 3, form="")
    assert out.splitlines()[0].startswith("sampled at temperature 0.7, seed 3, 64 new tokens")


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        ("Lapset kävelivät", "the plain one does not; a smaller --strength may help"),
        ("ab" * 50, "so does the plain one"),
    ],
)
def test_a_person_is_told_of_an_answer_that_repeats_itself(plain, said):
    fi = Language.parse("fi")
    prompt = Prompt("1", fi, "p")
    answer, steered = Answer(prompt, fi, (), plain), Answer(prompt, fi, (), "Katu " * 20)
    line = list(pair_lines(AnswerPair(prompt, answer, steered, fi, fi, "right"), fi))[-1]
    assert line.startswith("  94% of the steered answer says again what it said") and said in line
    ordinary = AnswerPair(prompt, answer, Answer(prompt, fi, (), "Lapset kävelivät"), fi, fi, "right")
    assert not any("says again" in line for line in pair_lines(ordinary, fi))
    short = AnswerPair(prompt, answer, Answer(prompt, fi, (), "Katu"), fi, fi, "short")
    assert "not in Finnish (fi) alone: short, too short to tell its language" in list(pair_lines(short, fi))[-1]
    assert [number_of(n, "prompt") for n in (0, 1, 2000)] == ["0 prompts", "1 prompt", "2,000 prompts"]
    assert repeated_share("abcdefghijklm") == repeated_share("") == 0 and repeated_share("a" * 21) == 0.9


def test_a_trained_delta_speaks(capsys, folder):
    code, result, err = call(capsys, "steer", folder / "model", folder / "delta", "the cat", "--new-tokens", 6)
    assert code == 0, err
    (row,) = result["answers"]
    assert row["plain"]["text"] != row["steered"]["text"] and result["target"] == "fi"
    line = refused(
        capsys, "evaluate", "steering", folder / "model", folder / "delta", folder / "questions" / "en.txt",
        "--target", "fi", "--out", folder / "o",
    )  # fmt: skip
    assert "is a babelscope Delta; expected" in line and "babelscope steer" in line


def test_lines_are_split_at_line_ends_alone_and_counted(capsys, folder, caplog):
    caplog.set_level(logging.INFO)
    file = folder / "prompts.txt"
    file.write_bytes("one\u2028still one\r\ntwo\x85\x0c\n".encode())
    code, result, err = call(capsys, "steer", folder / "model", folder / "dir", file, "--new-tokens", 2)
    assert code == 0 and [row["prompt"] for row in result["answers"]] == ["one\u2028still one", "two\x85\x0c"]
    assert "prompts.txt: 2 prompts, one per line" in caplog.text


def test_what_can_not_be_asked_is_one_line(capsys, folder):
    steer = ("steer", folder / "model", folder / "dir")
    rows = folder / "rows.jsonl"
    rows.write_text(json.dumps({"messages": [user("a")]}) + "\n")
    assert "rows.jsonl, line 1: messages came" in refused(capsys, *steer, rows)
    assert "only with --chat" in refused(capsys, *steer, "a", "--system", "b", code=2)
    assert "missing.jsonl: no such file" in refused(capsys, *steer, "missing.jsonl", "--chat")
    assert "write 'fi'" in refused(capsys, *steer, "a", "--target", "Finnish")
    assert "--questions" in refused(capsys, *steer, "a", "--chat", "--questions", "q", code=2)
    rows.write_text('{"messages": [{"role": "user"}]}\n')
    assert "rows.jsonl, line 1: prompt" in refused(capsys, *steer, rows, "--chat")
    rows.write_text("{\n")
    assert "line 1: is no JSON" in refused(capsys, *steer, rows, "--chat")
    rows.write_text('{"words": 1}\n')
    assert 'fields words came; expected {"prompt"' in refused(capsys, *steer, rows, "--chat")
    rows.write_text(json.dumps([system("a"), user("b")]) + "\n")
    assert "leave one of them out" in refused(capsys, *steer, rows, "--chat", "--system", "c")


def test_a_model_without_a_template_and_one_that_refuses_are_one_line(capsys, folder, tokenizer):
    tokenizer.save_pretrained(folder / "plain")
    tiny_model("llama").save_pretrained(folder / "plain")
    assert "no chat template" in refused(capsys, "steer", folder / "plain", folder / "dir", "a", "--chat")
    gemma = saved(folder / "gemma", REFUSES_SYSTEM)
    line = refused(capsys, "steer", gemma, folder / "dir", "a", "--chat", "--system", "b")
    assert "System role not supported" in line and "first user message" in line


def test_evaluate_asks_messages(capsys, folder):
    rows = folder / "asked.jsonl"
    rows.write_text(
        "".join(json.dumps({"messages": [user(f"q {i}\nmore")], "language": "en"}) + "\n" for i in range(3))
    )
    evaluate = ("evaluate", "steering", folder / "model", folder / "dir")
    small = ("--target", "fi", "--new-tokens", 4, "--resamples", 5)
    code, _, err = call(
        capsys, *evaluate, rows, *small, "--chat", "--native", folder / "questions" / "fi.txt", "--out", folder / "a"
    )
    assert code == 0, err
    written = json.loads((folder / "a" / "steering.json").read_text())
    assert written["n"] == 3 and written["chat"] == {"system": None} and written["fluency_beside"] == "native"
    assert written["untouched"]["beside"] == 1 and written["untouched"]["steered_difference"] > 0
    assert "messages came" in refused(capsys, *evaluate, rows, *small, "--out", folder / "b")
    sets = folder / "set" / "native"
    sets.mkdir(parents=True)
    (sets / "fi.jsonl").write_text(json.dumps({"messages": [user("Missä?")]}) + "\n")
    confusion = ("evaluate", "confusion", folder / "model", folder / "set", "--new-tokens", 4, "--no-published")
    code, result, err = call(capsys, *confusion, "--chat", "--system", "Be brief.")
    assert code == 0 and sum(result["verdicts"]["fi"].values()) == 1, err
    assert "add --chat" in refused(capsys, *confusion)
    assert "--chat is no flag" in refused(capsys, "evaluate", "perplexity", folder / "model", folder, "--chat", code=2)
    assert "only with --chat" in refused(
        capsys, *evaluate, rows, *small, "--system", "b", "--out", folder / "c", code=2
    )


def observed(capsys, folder):
    sites = ("--sites", "resid_out", "--no-check-language")
    assert call(capsys, "observe", folder / "model", folder / "corpus", "--out", folder / "obs", *sites)[0] == 0
    return folder / "obs"


def test_a_sweep_asks_in_the_source_language_and_its_ceiling_in_the_target(capsys, folder, monkeypatch):
    import babelscope.steering.sweeps.steering_runs as study

    asked = []
    write = study.generate_answers

    def watched(model, tokenizer, requests, steerer=None, **options):
        asked.append([(prompt.source, target, prompt.messages, steerer is not None) for prompt, target in requests])
        return write(model, tokenizer, requests, steerer, **options)

    monkeypatch.setattr(study, "generate_answers", watched)
    sweep = ("steer", folder / "model", observed(capsys, folder), "--sweep", "--corpus", folder / "corpus")
    small = ("--layers", 1, "--strengths", 1.0, "--new-tokens", 4)
    code, result, err = call(
        capsys, *sweep, *small, "--chat", "--system", "s", "--questions", folder / "questions", "--out", folder / "out"
    )
    assert code == 0, err
    rows = [row for group in asked for row in group]
    assert all([turn.role for turn in turns] == ["system", "user"] for _, _, turns, _ in rows)
    starts = {"en": "Where is the ", "fi": "Missä on "}
    assert all(turns[1].content.startswith(starts[source]) for source, _, turns, _ in rows)
    native = [row for group in asked for row in group if all(source == target for source, target, *_ in group)]
    assert native and all(not steered for *_, steered in native)
    assert any(source != target for source, target, *_ in rows)
    written = json.loads((folder / "out" / "steering.json").read_text())
    assert written["text"]["same_text"] is False and written["text"]["test"]["split"] == "test"
    assert written["chat"]["system"] == "s" and set(written["chat"]["questions"]) == {"dev", "test"}
    assert "--questions came, which is used only with --chat" in refused(
        capsys, *sweep, *small, "--questions", "q", "--out", folder / "p", code=2
    )


def test_a_sweep_on_one_text_for_both_is_refused_unless_asked_for(capsys, folder):
    for tag in WORDS:
        shutil.copy(folder / "corpus" / "valid" / f"{tag}.txt", folder / "corpus" / "test" / f"{tag}.txt")
    sweep = ("steer", folder / "model", observed(capsys, folder), "--sweep", "--corpus", folder / "corpus")
    small = ("--layers", 1, "--strengths", 1.0, "--new-tokens", 4, "--out", folder / "out")
    assert "the same text came for en valid and test, fi valid and test" in refused(capsys, *sweep, *small)
    code, _, err = call(capsys, *sweep, *small, "--same-text")
    assert code == 0, err
    assert json.loads((folder / "out" / "steering.json").read_text())["text"]["same_text"] is True
    line = refused(capsys, "steer", folder / "model", folder / "dir", "hei", "--same-text", code=2)
    assert "--same-text came, which is used only with --sweep" in line


def test_questions_to_choose_on_are_not_those_of_the_score(folder):
    chat = ask_as_chat(questions=str(folder / "questions"))
    for tag in ("en", "fi"):
        dev, test = ({d.id for d in chat.questions[part][tag]} for part in ("dev", "test"))
        assert len(dev) == 4 and not dev & test and len(dev | test) == 12


def test_study_asks_a_chat_model(capsys, folder, monkeypatch):
    import babelscope.cli.studying as studying

    given = {}
    monkeypatch.setattr("babelscope.study.run_study", lambda *words, **options: given.update(options) or {})
    monkeypatch.setattr(studying, "study_summary", lambda out, results: {})
    study = ("study", folder / "model", folder / "corpus", "--out", folder / "study")
    code, _, err = call(capsys, *study, "--chat", "--system", "s", "--questions", folder / "questions")
    assert code == 0 and given["chat"].system == "s" and len(given["chat"].questions["dev"]["fi"]) == 4, err
    assert "only with --chat" in refused(capsys, *study, "--questions", folder / "questions", code=2)
    assert "only with --chat" in refused(capsys, *study, "--system", "s", code=2)


def test_a_study_is_known_by_how_it_asks_and_refuses_before_the_work(folder, tokenizer):
    model, loaded = open_model(str(folder / "model"), device="cpu")
    texts = {split: load_corpus(folder / "corpus", split=split) for split in ("train", "valid", "test")}
    chat = ask_as_chat(questions=str(folder / "questions"))
    job = StudyInputs(model, loaded, texts, Budget().for_model(2, 1_000), folder, 0, False, chat=chat)
    assert plan_of(job, True)["chat"] == chat.card() and "chat" not in plan_of(job._replace(chat=None), True)
    check_chat(model, loaded, chat, texts)
    with pytest.raises(ChatError, match="no chat template"):
        check_chat(model, tokenizer, chat, texts)
    with pytest.raises(ChatError, match="System role not supported"):
        check_chat(model, chat_tokenizer(REFUSES_SYSTEM), ask_as_chat(system="s"), texts)
    (folder / "questions" / "fi.txt").unlink()
    with pytest.raises(CorpusError, match="no prompt in fi, a target"):
        check_chat(model, loaded, ask_as_chat(questions=str(folder / "questions")), texts)
