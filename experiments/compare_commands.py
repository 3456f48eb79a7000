"""Does every command say on a GPU what it says on the CPU?

Every verb of the command line, and every probe and baseline of `probe` and `adapt`, small, on the bundled model in
float32 and its corpus: a command for each, in a process of its own, on both devices. The figures of what it prints for
machines and of its results.jsonl are laid side by side; one that stands on one side only is not alike. The control is
the CPU beside itself with another number of threads, which differs by rounding only, and by what rounding decides: a
greedy token, a neuron at the edge of a set. What a command that fails told people is printed. The sides may be run on
several machines, into one file; a call that was cut goes on with the commands that the file lacks.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

import babelscope as bs
from babelscope.adaptation import METHODS
from babelscope.files.writing import append_lines, write_text
from babelscope.probes.catalogue import PROBES
from babelscope.runs import Run, run_experiment

LANGUAGES = "en es fi ru"
OBSERVED = "observe reference reference --tokens-per-language 3000 --sites mlp_gate mlp_inner resid_out"
ABLATE = "ablate reference {identify} reference --observation {observe} --max-tokens 300 --draws 2"
ADAPT = "adapt reference {identify} reference --language fi --steps 4 --tokens-per-step 512 --evaluate-every 2"
PROBE = f"probe reference reference --languages {LANGUAGES} --probe"
COMMANDS = {
    "doctor": "doctor",
    "observe": OBSERVED,
    "observe, a shard": f"{OBSERVED} --shard 0/2",
    "observe, the other": f"{OBSERVED} --shard 1/2",
    "merge": "merge {observe, a shard} {observe, the other}",
    "identify": "identify {observe}",
    "direct": "direct {observe} --target fi --source en --layer 3",
    "ablate": ABLATE,
    "ablate to mean": f"{ABLATE} --to mean",
    "fallback": "fallback reference {identify} {prompts} --order en fi --draws 1 --new-tokens 8",
    "show": "show {identify} reference reference --language fi --top 3 --effects --max-tokens 500",
    "knowledge": f"knowledge reference --languages {LANGUAGES} --barrier 4 --clusters 2 --neurons {{identify}} "
    "--draws 2",
    "consistency": "consistency reference {questions} --no-chat --new-tokens 12 --think-in own en --steer {direct} "
    "--strength 1",
    "edit": f"edit reference --languages {LANGUAGES} --edits 2 --held-out 2 --key-tokens 300 --steps 4",
    "priming": "priming reference --directions en:de de:en --count 20",
    "features": f"features reference reference reference --languages {LANGUAGES} --tokens-per-language 2000 "
    "--random-sequences 8 --draws 50",
    "features, lape": f"features reference reference reference --languages {LANGUAGES} --tokens-per-language 2000 "
    "--method lape --draws 50",
    "steer": "steer reference {direct} Children --new-tokens 12 --temperature 0",
    "steer --sweep": "steer reference {observe} --sweep --targets fi --layers 2 3 --strengths 1 2 --side-effects 1 "
    "--new-tokens 12",
    "transfer": f"transfer reference reference --languages {LANGUAGES} --steps 2 --seeds 1 --train-documents 40",
    "experts": f"experts reference reference --languages {LANGUAGES} --layers 2 --steps 2 --test-documents 8",
    "influence": f"influence reference reference --queries {{queries}} --languages {LANGUAGES} --passages 4",
    "subtract": "subtract {adapt} --general {adapt, random}",
    "export, merged": "export {adapt} reference --format merged",
    "export, steering": "export {direct} reference --strength 1 --format merged",
    "vocabulary trim": "vocabulary trim reference reference --languages en fi",
    "vocabulary extend": "vocabulary extend reference reference --languages fi --size 16",
    "vocabulary extend, distill": "vocabulary extend reference reference --languages fi --size 8 --init distill",
    "vocabulary carry": "vocabulary carry {vocabulary extend} reference reference",
    "vocabulary replace": "vocabulary replace reference reference --languages fi --size 600",
    "vocabulary train": "vocabulary train reference {vocabulary extend} reference --language fi --neurons {identify} "
    "--steps 4 --tokens-per-step 512 --evaluate-every 2",
    "vocabulary apply": "vocabulary apply reference {vocabulary extend}",
    "evaluate perplexity": "evaluate perplexity reference reference",
    "evaluate confusion": "evaluate confusion reference {asked} --new-tokens 12",
    "evaluate steering": "evaluate steering reference {direct} {prompts} --target fi --strength 1 --new-tokens 12",
    "study": f"study reference reference --languages {LANGUAGES} --tokens-per-language 3000 --choose-tokens 100 "
    "--ablate-tokens 200 --part-tokens 100 --script-documents 4 --layers 2 3 --strengths 1 2 --dev-prompts 2 "
    "--test-prompts 4 --random-prompts 2 --resamples 50",
    "adapt": ADAPT,
    "adapt, recompute": f"{ADAPT} --recompute mlp",
    "adapt, split": f"{ADAPT} --form split",
    "adapt, mix": f"{ADAPT} --replay en es --replay-share 0.5 --mix words --mix-lines 2",
    "adapt, align": f"{ADAPT} --objective align --pairs reference --align-pairs 8",
    **{f"adapt, {name}": f"{ADAPT} --baseline {name}" for name in METHODS if name != "subnetwork"},
    # The bundled model has no experts to route.
    **{f"probe {name}": f"{PROBE} {name}" for name in PROBES if name not in ("routing", "checkpoints")},
    "probe checkpoints": f"{PROBE} checkpoints --checkpoints reference {{export, merged}}",
}
"""By name, in the order in which they stand in the table; {name} is the folder of that command's own output."""
PRINTED = ("doctor", "show", "steer", "evaluate perplexity", "evaluate confusion")
"""Those that have no output folder."""
NEEDS = re.compile(r"\{([^}]+)\}")
TIMES = re.compile(
    r"second|time|peak|memory|path|file|folder|date|version|threads|processors|device|backend", re.IGNORECASE
)
"""Names of figures that are no statement about the model."""
WRITING = threading.Lock()
CLOSE = 0.01
"""Figures are alike if they differ by so large a share of the larger, or of a hundredth of the largest of the kind."""


@dataclass(frozen=True)
class Config:
    answers: str
    """A .jsonl file of what each command said on each side; what it holds already is not run again. What the commands
    write goes into a folder of that name without its ending, which later commands read."""
    sides: tuple[str, ...] = ("cpu:1", "cpu:2", "cuda:1")
    """Device and threads, to be run here; the first of the file's is what the others are compared with."""
    dtype: str = "float32"
    """Of the model on every side."""
    only: tuple[str, ...] = ()
    """Names of commands; what they need runs too. Empty: all."""
    rows: str = ""
    """A .jsonl file for what the comparison gives; empty: the run's own only."""
    at_once: int = 12
    """Processes."""
    most: int = 150
    """Seconds for one command."""


class Done(NamedTuple):
    """How one command ended on one side."""

    side: str
    command: str
    torch: str
    status: int | None
    """None if it was ended for time."""
    seconds: float
    said: Any
    """What it printed for machines, none if that cannot be read, and the rows of its results.jsonl."""
    last: str
    """Of one that failed, the last lines of what it told people."""


def wanted(config: Config) -> list[str]:
    """Names of the commands to run, each after those that it needs."""
    order: list[str] = []

    def add(name: str) -> None:
        for need in NEEDS.findall(COMMANDS[name]):
            if need in COMMANDS:
                add(need)
        if name not in order:
            order.append(name)

    for name in config.only or COMMANDS:
        add(name)
    return order


def run_all(names: list[str], side: str, config: Config) -> None:
    """The commands that the file lacks on one side, so many at once, each begun when what it needs is there."""
    answers = Path(config.answers)
    folder = answers.with_suffix("") / side.replace(":", "-")
    places = {name: folder / re.sub(r"\W+", "-", name) for name in names}
    files = write_inputs(folder)
    there = {done.command for done in read_answers(answers) if done.side == side}
    ended = {name: threading.Event() for name in names if name not in there}

    def one(name: str) -> None:
        for need in NEEDS.findall(COMMANDS[name]):
            if need in ended:
                ended[need].wait()
        whole = {**files, **places}
        words = [NEEDS.sub(lambda match: str(whole[match[1]]), word) for word in split_words(COMMANDS[name])]
        words += [] if name in PRINTED else ["--out", str(places[name])]
        shutil.rmtree(places[name], ignore_errors=True)  # Of a call that was cut.
        done = call(name, words, side, config)
        with WRITING:
            append_lines(answers, [json.dumps(done._asdict(), ensure_ascii=False)])
        ended[name].set()

    with ThreadPoolExecutor(config.at_once) as pool:
        list(pool.map(one, ended))


def split_words(command: str) -> list[str]:
    """Words at blanks, but for those inside braces."""
    return re.findall(r"(?:\{[^}]*\}|\S)+", command)


def call(name: str, words: list[str], side: str, config: Config) -> Done:
    device, threads = side.rsplit(":", 1)
    offers = words[0] not in ("merge", "identify", "direct", "subtract")
    command = [sys.executable, "-m", "babelscope", *words, "--json"]
    command += ["--device", device] if offers else []
    command += ["--dtype", config.dtype] if offers and words[0] != "doctor" else []
    environ = {**os.environ, "OMP_NUM_THREADS": threads, "TQDM_DISABLE": "1"}
    began = time.monotonic()
    try:
        ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=config.most)
        status, out, told = ran.returncode, ran.stdout, ran.stderr
    except subprocess.TimeoutExpired:
        status, out, told = None, "", f"ended after {config.most} s"
    lines = [line for line in told.splitlines() if line.strip()]
    last = "\n".join(lines[-30:]) if status else ""
    said = {"printed": read_json(out), "results": results_of(words)}
    return Done(side, name, torch.__version__, status, time.monotonic() - began, said, last)


def results_of(words: list[str]) -> list[Any]:
    """Rows of every results.jsonl in a command's output folder, in order."""
    folder = Path(words[words.index("--out") + 1]) if "--out" in words else None
    files = sorted(folder.rglob("results.jsonl")) if folder and folder.is_dir() else []
    return [read_json(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def write_inputs(folder: Path) -> dict[str, Path]:
    """Prompts, queries and questions: the beginnings of bundled texts."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = bs.load_corpus("reference", LANGUAGES.split(), split="valid")
    prompts, queries = folder / "prompts.txt", folder / "queries.jsonl"
    write_text(prompts, "\n".join(texts["en"][index].text[:60] for index in range(4)) + "\n")
    rows = [{"language": tag, "completion": documents[0].text[:80]} for tag, documents in texts.items()]
    write_text(queries, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n")
    asked = folder / "asked.jsonl"
    rows = [{"language": tag, "prompt": documents[1].text[:60]} for tag, documents in texts.items()]
    write_text(asked, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n")
    questions = folder / "questions.jsonl"
    rows = [
        {"id": str(at), "language": tag, "question": texts[tag][at].text[:60], "answer": at}
        for tag in texts
        for at in range(3)
    ]
    write_text(questions, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n")
    return {"prompts": prompts, "queries": queries, "asked": asked, "questions": questions}


def leaves(said: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no list and no record, with where it stands."""
    if isinstance(said, dict):
        for name, value in said.items():
            if not TIMES.search(str(name)):
                yield from leaves(value, f"{path}.{name}")
    elif isinstance(said, list):
        for index, value in enumerate(said):
            yield from leaves(value, f"{path}[{index}]")
    else:
        yield path, said


def compare(ours: Any, theirs: Any) -> dict[str, Any]:
    """How many figures stand in either answer, how many are alike, and which of those in both are farthest apart.

    A figure that one answer lacks, or that is no number there, is not alike.
    """
    one, two = ({path: value for path, value in leaves(said)} for said in (ours, theirs))
    sizes: dict[str, float] = {}
    for path, value in one.items():
        if is_number(value):
            sizes[kind_of(path)] = max(sizes.get(kind_of(path), 0.0), abs(value))
    figures = [path for path in {**one, **two} if is_number(one.get(path)) or is_number(two.get(path))]
    both = [path for path in figures if is_number(one.get(path)) and is_number(two.get(path))]
    gaps = {}
    for path in both:
        room = max(abs(one[path]), abs(two[path]), 0.01 * sizes[kind_of(path)])
        gaps[path] = abs(one[path] - two[path]) / room if room else 0.0
    words = [path for path, value in one.items() if isinstance(value, str)]
    worst = max(gaps, key=gaps.__getitem__) if any(gaps.values()) else None
    return {
        "figures": len(figures),
        "alike": sum(gap <= CLOSE for gap in gaps.values()),
        "on one side": len(figures) - len(both),
        "words": len(words),
        "same words": sum(one[path] == two.get(path) for path in words),
        "farthest": "" if worst is None else f"{worst}: {one[worst]:.6g}, {two[worst]:.6g}",
    }


def kind_of(path: str) -> str:
    """The place of a figure without its numbers in lists."""
    return re.sub(r"\[\d+\]", "[]", path)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def run(config: Config, run: Run) -> None:
    names, file = wanted(config), Path(config.answers)
    for side in config.sides:
        run_all(names, side, config)
    answers = {(done.side, done.command): done for done in read_answers(file)}
    base, *others = dict.fromkeys(side for side, _ in answers)
    for side in others:
        for name in names:
            ours, theirs = answers.get((base, name)), answers.get((side, name))
            if ours is None or theirs is None:
                run.log([{"command": name, "side": side, "status": "not run"}])
                continue
            row = {"command": name, "side": side, "torch": theirs.torch, "status": theirs.status}
            row |= {"beside": base, "beside_torch": ours.torch, "beside_status": ours.status}
            run.log([{**row, **compare(ours.said, theirs.said)}])
    if config.rows:
        write_text(Path(config.rows), (run.folder / "results.jsonl").read_text(encoding="utf-8"))
    for (side, name), done in answers.items():
        if done.status != 0:
            print(f"== {side}: {name}: {done.status}\n{done.last}")


def read_answers(file: Path) -> list[Done]:
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
    return [Done(**json.loads(line)) for line in lines]


if __name__ == "__main__":
    run_experiment(Config, run)
