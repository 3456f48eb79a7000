"""`babelscope evaluate` as a user meets it, on a tiny model saved to disk."""

import json
import math

import pytest
import torch
from conftest import tiny_model

from babelscope import Direction, Operation, Site, SteeringRecipe, open_model, origin_of
from babelscope.cli import main
from babelscope.cli.asking import read_lines
from babelscope.cli.prompt_sets import prompts_of
from babelscope.cli.telling_scores import perplexity_lines
from babelscope.languages import Language


@pytest.fixture
def folder(tmp_path, tokenizer):
    """A model, a recipe for it, prompts, references and a corpus."""
    tiny_model("llama").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    model, loaded = open_model(str(tmp_path / "model"), device="cpu")
    origin = origin_of(model, loaded)
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    SteeringRecipe((Operation(Site(1, "resid_out"), "add", vector, strength=4.0, origin=origin),), origin).save(
        tmp_path / "recipe"
    )
    (tmp_path / "prompts.txt").write_text("the cat sat\nrain at 5\n")
    (tmp_path / "references.txt").write_text("kissa istui\nsade kello 5\n")
    (tmp_path / "corpus" / "test").mkdir(parents=True)
    for tag, text in (("en", "the cat sat\nrain\n"), ("fi", "kissa istui\nsade\n")):
        (tmp_path / "corpus" / "test" / f"{tag}.txt").write_text(text)
    return tmp_path


def call(capsys, *words):
    capsys.readouterr()
    code = main([*map(str, words), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out.strip() else None, err


def test_steering_writes_its_score_and_rows(capsys, folder):
    code, result, err = call(
        capsys,
        *("evaluate", "steering", folder / "model", folder / "recipe", folder / "prompts.txt", "--target", "fi"),
        *("--references", folder / "references.txt", "--corpus", folder / "corpus", "--out", folder / "out"),
        *("--new-tokens", 12, "--resamples", 20),
    )
    assert code == 0, err
    written = json.loads((folder / "out" / "steering.json").read_text())
    assert result["success"] == written["success"] and written["n"] == 2
    assert set(written["other_languages"]) == {"en", "fi"} and written["untouched"]["beside"] == 1
    assert written["language"]["corrected"]["n"] == 2 and written["kept"]["number"]["n"] == 1
    assert written["content"]["tokenizer"] == "13a" and "pairs" in written["similarity"]
    rows = [json.loads(line) for line in (folder / "out" / "rows.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["the cat sat", "rain at 5"]
    code, _, err = call(capsys, "evaluate", "steering", folder / "model", folder / "recipe", folder / "prompts.txt",
                        "--target", "fi", "--out", folder / "out")  # fmt: skip
    assert code == 1 and "already there" in err


def test_prompt_sets_of_the_benchmarks_are_answered_under_the_recipe(capsys, folder):
    crossed = folder / "confusion" / "crosslingual" / "okapi"
    crossed.mkdir(parents=True)
    for tag in ("fi", "de"):
        (crossed / f"{tag}.csv").write_text(f"prompt,language,source\nAnswer in {tag}.,{tag},okapi\n")
    (folder / "clas").mkdir()
    for tag, lines in (("en", "Why?\nWho?\n"), ("fi", "Miksi?\nKuka?\n"), ("de", "Warum?\nWer?\n")):
        (folder / "clas" / f"{tag}.txt").write_text(lines)
    forms = {
        "confusion": (("--prompt-set", "language_confusion"), {"crosslingual/okapi/0": "Answer in fi."}),
        "clas": (
            ("--prompt-set", "clas"),
            {"de/0": "Warum?", "de/1": "Wer?", "en/0": "Why?", "en/1": "Who?"},
        ),
        "one": (("--prompt-set", "clas", "--sources", "en"), {"en/0": "Why?", "en/1": "Who?"}),
    }
    small = ("--target", "fi", "--new-tokens", 4, "--resamples", 5)
    for name, (options, expected) in forms.items():
        place, out = folder / ("clas" if name == "one" else name), folder / f"out-{name}"
        given = ("evaluate", "steering", folder / "model", folder / "recipe", place, *small, *options, "--out", out)
        code, _, err = call(capsys, *given)
        assert code == 0, err
        rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
        assert {row["id"]: row["prompt"] for row in rows} == expected
    (folder / "own").mkdir()
    (folder / "own" / "fi.txt").write_text("Miksi?\n")
    given = ("evaluate", "steering", folder / "model", folder / "recipe", folder / "own", *small)
    code, _, err = call(capsys, *given, "--prompt-set", "clas", "--out", folder / "none")
    assert code == 1 and "all questions are in fi, the target" in err and not (folder / "none").exists()


def test_a_direction_is_taken_for_a_recipe_of_the_strength_asked_for(capsys, folder):
    model, tokenizer = open_model(str(folder / "model"), device="cpu")
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    direction = Direction(vector, Site(1, "resid_out"), "fi", ("en",), 1.0, origin_of(model, tokenizer))
    direction.save(folder / "direction")
    scores = []
    for number, words in enumerate((("recipe",), ("direction", "--strength", 4.0), ("direction", "--strength", 0.0))):
        name, *options = words
        given = ("evaluate", "steering", folder / "model", folder / name, folder / "prompts.txt", "--target", "fi")
        small = ("--new-tokens", 8, "--resamples", 5, "--out", folder / f"out{number}")
        assert call(capsys, *given, *options, *small)[0] == 0
        rows = (folder / f"out{number}" / "rows.jsonl").read_text().splitlines()
        scores.append([json.loads(row)["answer"] for row in rows])
    assert scores[0] == scores[1] != scores[2]


def test_confusion_of_answer_files_counts_every_answer(capsys, tmp_path):
    right = "Lapset menivät aamulla aikaisin kouluun ystäviensä kanssa"
    wrong = "The children went to school early in the morning with their friends"
    (tmp_path / "fi.txt").write_text(f"{right}\n\n{wrong}\n{right}\n")
    code, result, err = call(capsys, "evaluate", "confusion", "-", tmp_path, "--out", tmp_path / "out")
    assert code == 0, err
    assert result["verdicts"] == {"fi": {"right": 2, "empty": 1, "other language": 1}}
    (published,), (corrected,) = result["published"], result["corrected"]
    assert (published["lpr"], published["coverage"]) == (pytest.approx(2 / 3), 0.75)
    assert (corrected["lpr"], corrected["failures"]) == (0.5, {"empty": 1, "other language": 1})
    assert result["averages"]["corrected"]["lpr"] == 0.5 and result["english_words"] > 300
    assert json.loads((tmp_path / "out" / "confusion.json").read_text()) == result


def test_a_set_of_two_tasks_is_scored_and_averaged_as_two_as_the_benchmark_does(capsys, tmp_path):
    right = "Die Kinder gingen am frühen Morgen mit ihren Freunden zur Schule"
    wrong = "The children went to school early in the morning with their friends"
    cells = [("monolingual", right), ("monolingual", right), ("crosslingual", wrong), ("crosslingual", right)]
    rows = "".join(f"okapi,de,{text},{task}\n" for task, text in [*cells, ("crosslingual", wrong)])
    (tmp_path / "outputs.csv").write_text(f"source,language,completion,task\n{rows}")
    code, result, err = call(capsys, "evaluate", "confusion", "-", tmp_path / "outputs.csv")
    assert code == 0, err
    found = {(row["task"], row["set"]): (row["n"], row["lpr"]) for row in result["published"]}
    assert found == {("monolingual", "okapi"): (2, 1.0), ("crosslingual", "okapi"): (3, pytest.approx(1 / 3))}
    lprs = {task: forms["published"]["lpr"] for task, forms in result["tasks"].items()}
    assert lprs == {"monolingual": 1.0, "crosslingual": pytest.approx(1 / 3)}
    assert result["averages"]["published"]["lpr"] == pytest.approx((1 + 1 / 3) / 2)


def test_confusion_of_a_models_own_answers(capsys, folder):
    rows = [{"set": "aya", "i": i, "lang": tag, "prompt": "Hei vaan"} for i, tag in enumerate(("fi", "de"))]
    (folder / "set").mkdir()
    (folder / "set" / "monolingual.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, result, err = call(capsys, "evaluate", "confusion", folder / "model", folder / "set", "--new-tokens", 5)
    assert code == 0, err
    assert [(row["set"], row["language"], row["n"]) for row in result["published"]] == [
        ("aya", "fi", 1),
        ("aya", "de", 1),
    ]


def test_perplexity_says_how_sure_it_is_and_of_how_much_text(capsys, folder):
    code, result, err = call(capsys, "evaluate", "perplexity", folder / "model", folder / "corpus")
    assert code == 0, err
    assert set(result["bits_per_byte"]) == {"en", "fi"} and min(result["bits_per_byte"].values()) > 0
    for tag, bits in result["bits_per_byte"].items():
        nats = result["nats_per_token"][tag] * result["tokens"][tag]
        assert bits == pytest.approx(nats / math.log(2) / result["bytes"][tag])
        low, high = result["interval"][tag]
        assert low < bits < high and result["documents"][tag] >= 2


def test_perplexity_is_a_table_for_a_person(capsys, folder):
    assert main(["evaluate", "perplexity", str(folder / "model"), str(folder / "corpus")]) == 0
    heading, english, finnish, *_ = capsys.readouterr().out.splitlines()
    assert heading.split("  ")[0] == "language" and "bits a byte" in heading and "documents" in heading
    assert english.startswith("en ") and finnish.startswith("fi ") and " to " in finnish


def test_one_document_has_no_interval():
    fields = {name: {"fi": 1} for name in ("documents", "tokens", "bytes")}
    lines = perplexity_lines({**fields, "bits_per_byte": {"fi": 1.5}, "interval": {"fi": [None, None]},
                              "nats_per_token": {"fi": 3.0}})  # fmt: skip
    assert "– to –" in lines[1]


def test_bad_input_is_one_line(capsys, folder):
    steering = ["evaluate", "steering", folder / "model", folder / "recipe"]
    (folder / "blank.txt").write_text("a\n\nb\n")
    (folder / "empty.txt").write_text("\n")
    (folder / "one.txt").write_text("a\n")
    asked = ["--target", "fi", "--out", folder / "x"]
    cases = [
        ([*steering, folder / "prompts.txt"], 2, "--target and --out did not come"),
        ([*steering, *asked], 2, "PROMPTS"),
        ([*steering, folder / "empty.txt", *asked], 1, "empty.txt: is empty"),
        (
            [*steering, folder / "prompts.txt", *asked, "--references", folder / "blank.txt"],
            1,
            "line 2 is blank; expected one of the references in each line",
        ),
        (
            [*steering, folder / "prompts.txt", "--target", "tt", "--out", folder / "x"],
            1,
            "tt cannot be recognised by lingua; expected one of",
        ),
        (
            [*steering, folder / "prompts.txt", *asked, "--references", folder / "one.txt"],
            1,
            "1 references came for 2 prompts",
        ),
        (["evaluate", "confusion", "-", folder / "nothing"], 1, "no such file or folder"),
        (["evaluate", "confusion", "-", folder, "--identifier", folder / "lid.bin"], 1, "label set"),
    ]
    for words, fail, text in cases:
        code, _, err = call(capsys, *words)
        assert code == fail and text in err and "Traceback" not in err
        assert not (folder / "x").exists()


def test_every_file_of_prompts_says_how_many_were_read(tmp_path, caplog):
    caplog.set_level("INFO", "babelscope")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "de.txt").write_text("Warum?\nWas ist das?\n")
    (tmp_path / "lines.txt").write_text("one\ntwo\nthree\n")
    assert len(prompts_of(str(tmp_path / "set"), "clas", Language("fi"), ())) == 2
    assert len(prompts_of(str(tmp_path / "lines.txt"), "lines", Language("fi"), ())) == 3
    assert read_lines(tmp_path / "lines.txt", "references")[2] == "three"
    for said in ("set: 2 prompts", "lines.txt: 3 prompts, one per line", "lines.txt: 3 references, one per line"):
        assert said in caplog.text
