"""The verbs that are killed, as they are called on a tiny model, and what they are given."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from conftest import tiny_model, tiny_tokenizer
from delta_cases import random_delta
from knowledge_cases import LINES as FACTS
from robustness.forked_runs import run
from training_cases import OTHERS, TEXT, some_neurons

from babelscope import extend_vocabulary, origin_of

LINES = {"en": "the cat {0} sat on a mat\n", "fi": "kissa {0} istui matolla hiljaa\n"}
MORE = {"de": "die katze {0} auf der matte\n", "fr": "le chat {0} sur le tapis\n"}
WORDS = [letter * (1 + times) for times in range(8) for letter in "abcdefgh"]
SPLITS = {"train": WORDS[:60], "valid": WORDS[:6], "test": WORDS[2:8]}
"""What the lines of each split are made with."""


class Verb(NamedTuple):
    """One verb of the command line."""

    words: tuple[str, ...]
    resumes: bool = False
    """Whether --resume is added when it is repeated; otherwise it is simply repeated."""


def make_inputs(folder: Path) -> None:
    """A model, texts, neurons, changes, questions and counts for all verbs."""
    torch.set_num_threads(1)
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    replace(some_neurons(model), origin=origin_of(model, tokenizer)).save(folder / "neurons")
    for number, name in enumerate(("delta", "general")):
        random_delta(model, seed=number).save(folder / name)
    pack = extend_vocabulary(model, tokenizer, {"eu": TEXT[10:40]}, size=3)
    pack.save(folder / "pack")
    write_texts(folder / "corpus", LINES)
    write_texts(folder / "four", {**LINES, **MORE})
    for split, cut in (("train", slice(10, 40)), ("valid", slice(0, 5)), ("test", slice(5, 10))):
        (folder / "basque" / split).mkdir(parents=True)
        for tag, lines in {"eu": TEXT, **OTHERS}.items():
            (folder / "basque" / split / f"{tag}.txt").write_text("\n".join(lines[cut]) + "\n")
    write_questions(folder)
    counts = ("observe", str(folder / "model"), str(folder / "corpus"), "--no-check-language", "--sites", "mlp_gate")
    for split, out in (("train", "counts"), ("test", "other counts")):
        end = run((*counts, "resid_out", "--split", split, "--out", str(folder / out)), folder)
        assert end.code == 0, end
    identified = run((*identify(folder), "--out", str(folder / "sets")), folder)
    assert identified.code == 0, identified


def identify(folder: Path) -> tuple[str, ...]:
    """The words of `identify`."""
    return "identify", str(folder / "counts"), "--method", "top-rate", "--top-rate", "0.1", "--draws", "5"


def write_texts(folder: Path, lines: dict[str, str]) -> None:
    """A corpus of lines in three splits; valid and test of each have other words."""
    for split, letters in SPLITS.items():
        (folder / split).mkdir(parents=True)
        for tag, line in lines.items():
            text = "".join(line.format(word) for word in letters)
            (folder / split / f"{tag}.txt").write_text(text)


def write_questions(folder: Path) -> None:
    """Facts, questions, prompts, and passages that are asked about."""
    (folder / "facts.tsv").write_text("\n".join(FACTS) + "\n", encoding="utf-8")
    asked = [{"id": n, "language": tag, "question": f"{tag} {n}?", "answer": n} for n in (1, 2) for tag in LINES]
    said = [{"language": tag, "completion": line.format("abc").strip()} for tag, line in LINES.items()]
    for name, rows in (("asked", asked), ("said", said)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "prompts.txt").write_text("the cat\na mat\n")
    prompts = "".join(f"{json.dumps({'language': tag, 'prompt': line.format('a')})}\n" for tag, line in LINES.items())
    (folder / "prompts.jsonl").write_text(prompts)


def verbs(folder: Path) -> dict[str, Verb]:
    """The verbs that are tried, without --out."""
    model, corpus, counts = str(folder / "model"), str(folder / "corpus"), str(folder / "counts")
    few = ("--tokens-per-language", "300", "--no-check-language")
    batches = ("--sites", "mlp_gate", "resid_out", "--batch-size", "4")
    text = (str(folder / "neurons"), str(folder / "basque"), "--language", "eu", "--no-check-language")
    steps = ("--tokens-per-step", "128", "--max-length", "32", "--evaluate-every", "2", "--steps", "4")
    features = ("features", "reference", "reference", "reference", "--languages", "en", "fi", "--tau", "0.3")
    less = ("--tokens-per-language", "300", "--random-sequences", "4", "--min-count", "5", "--draws", "5")
    sweep = ("--sweep", "--layers", "1", "--strengths", "0.5", "1.0", "--new-tokens", "4", "--same-text")
    budget = ("--tokens-per-language", "2000", "--ablate-tokens", "100", "--draws", "2", "--resamples", "20")
    return {
        "observe": Verb(("observe", model, corpus, *few, *batches), True),
        "adapt": Verb(("adapt", model, *text, *steps), True),
        "features": Verb((*features, *less), True),
        "study": Verb(("study", model, corpus, *budget, "--no-steering", "--no-check-language", "--same-text"), True),
        "identify": Verb(identify(folder)),
        "sweep": Verb(("steer", model, counts, *sweep, "--corpus", corpus), True),
        "probe": Verb(("probe", model, corpus, "--probe", "all", "--parallel", "--sentences", "6"), True),
        **long_verbs(folder),
        **short_verbs(folder),
    }


def long_verbs(folder: Path) -> dict[str, Verb]:
    """Others that train or ask for long; some of them go on where they stopped."""
    model, basque, four = str(folder / "model"), str(folder / "basque"), str(folder / "four")
    rows = ("--tokens-per-step", "128", "--max-length", "32")
    facts = ("--facts", str(folder / "facts.tsv"), "--languages", "en", "fi")
    answers = ("--no-chat", "--new-tokens", "3", "--draws", "9", "--batch-size", "2")
    edit = ("--edits", "1", "--held-out", "1", "--layers", "1", "--neurons", "4", "--key-tokens", "40", "--steps", "2")
    less = ("--contexts", "0", "--asked-after", "1", "--new-tokens", "2", "--resamples", "9")
    queries = ("--queries", str(folder / "said.jsonl"), "--passages", "3", "--top", "2", "--draws", "9")
    pack = (str(folder / "pack"), basque, "--language", "eu", "--neurons", str(folder / "neurons"))
    trained = ("--steps", "4", "--evaluate-every", "2", "--no-check-language")
    transfer = ("--steps", "2", "--seeds", "1", "--draws", "9", "--learning-rate", "1e-3")
    return {
        "transfer": Verb(("transfer", model, four, *transfer, *rows), True),
        "vocabulary train": Verb(("vocabulary", "train", model, *pack, *rows, *trained), True),
        "consistency": Verb(("consistency", model, str(folder / "asked.jsonl"), *answers), True),
        "experts": Verb(("experts", model, four, "--layers", "1", "--steps", "2", *rows)),
        "knowledge": Verb(("knowledge", model, *facts, "--clusters", "0", "--barrier", "0")),
        "edit": Verb(("edit", model, *facts, *edit, *less)),
        "influence": Verb(("influence", model, str(folder / "corpus"), *queries, "--resamples", "9")),
        "priming": Verb(("priming", model, "--directions", "en:de", "--count", "2", "--resamples", "9")),
    }


def short_verbs(folder: Path) -> dict[str, Verb]:
    """Those that only write a folder, each in another form."""
    model, corpus, counts, neurons = (str(folder / name) for name in ("model", "corpus", "counts", "neurons"))
    delta, basque = str(folder / "delta"), str(folder / "basque")
    prompts, rows, pack = (str(folder / name) for name in ("prompts.txt", "prompts.jsonl", "pack"))
    off = ("--draws", "2", "--max-tokens", "60", "--same-text")
    answers = ("--order", "eu", "--first", "eu", "--draws", "2", "--new-tokens", "2")
    return {
        "merge": Verb(("merge", counts, str(folder / "other counts"))),
        "direct": Verb(("direct", counts, "--target", "fi", "--layer", "1")),
        "subtract": Verb(("subtract", delta, "--general", str(folder / "general"))),
        "ablate": Verb(("ablate", model, str(folder / "sets"), corpus, *off)),
        "fallback": Verb(("fallback", model, neurons, prompts, *answers)),
        "export merged": Verb(("export", delta, model)),
        "export peft": Verb(("export", delta, model, "--format", "peft")),
        "vocabulary extend": Verb(("vocabulary", "extend", model, basque, "--languages", "eu", "--size", "3")),
        "vocabulary trim": Verb(("vocabulary", "trim", model, corpus, "--min-count", "1")),
        "vocabulary apply": Verb(("vocabulary", "apply", model, pack)),
        "evaluate confusion": Verb(("evaluate", "confusion", model, rows, "--new-tokens", "4")),
    }
