"""Verbs that are killed before a file event, run on a full disk, or run twice at once; and what is there afterwards.

Each run is a forked process: the libraries are loaded once.
"""

import contextlib
import io
import json
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from conftest import tiny_model, tiny_tokenizer
from training_cases import OTHERS, TEXT, some_neurons

FORK = multiprocessing.get_context("fork")
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree")
TIMES = ("seconds", "processor_seconds", "peak_mib", "environment", "out")
"""What differs from run to run in the JSON of results: times, and where they were written."""
PAGES = (".html", ".js")
LINES = {"en": "the cat {0} sat on a mat\n", "fi": "kissa {0} istui matolla hiljaa\n"}


class End(NamedTuple):
    """How a run ended."""

    code: int
    """Exit code; -9 for a killed one."""
    message: str
    """Last line on stderr."""
    events: int
    """File events under the folder that were seen."""
    torn: bool
    """Whether there was a traceback."""


class Verb(NamedTuple):
    """One verb of the command line."""

    words: tuple[str, ...]
    resumes: bool
    """Whether --resume is added when it is repeated; otherwise it is simply repeated."""


def make_inputs(folder: Path) -> None:
    """A model, texts, neurons and counts for all verbs."""
    torch.set_num_threads(1)
    model = tiny_model("llama")
    model.save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    some_neurons(model).save(folder / "neurons")
    for split, lines in (("train", 60), ("valid", 6), ("test", 6)):
        (folder / "corpus" / split).mkdir(parents=True)
        for tag, line in LINES.items():
            text = "".join(line.format("abcdefgh"[i % 8] * (1 + i // 8)) for i in range(lines))
            (folder / "corpus" / split / f"{tag}.txt").write_text(text)
    for split, cut in (("train", slice(10, 40)), ("valid", slice(0, 5)), ("test", slice(5, 10))):
        (folder / "basque" / split).mkdir(parents=True)
        for tag, lines in {"eu": TEXT, **OTHERS}.items():
            (folder / "basque" / split / f"{tag}.txt").write_text("\n".join(lines[cut]) + "\n")
    counts = ("observe", str(folder / "model"), str(folder / "corpus"), "--out", str(folder / "counts"))
    end = run((*counts, "--no-check-language", "--sites", "mlp_gate", "resid_out"), folder / "counts")
    assert end.code == 0, end


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
        "identify": Verb(("identify", counts, "--method", "top-rate", "--top-rate", "0.1", "--draws", "5"), False),
        "sweep": Verb(("steer", model, counts, *sweep, "--corpus", corpus), True),
        "probe": Verb(("probe", model, corpus, "--probe", "all", "--parallel", "--sentences", "6"), True),
    }


class Shot(NamedTuple):
    """A signal that a run gets."""

    event: int
    """Before which file event; 0 never."""
    number: int = signal.SIGKILL


NO_SHOT = Shot(0)


class Started(NamedTuple):
    """A run under way."""

    process: Any
    pipe: Any
    shot: Shot

    def end(self) -> End:
        """Wait for it."""
        try:
            code, err, events = self.pipe.recv()
        except EOFError:
            code, err, events = -signal.SIGKILL, "", self.shot.event
        self.process.join()
        lines = err.strip().splitlines()
        return End(code, lines[-1] if code and lines else "", events, "Traceback" in err)


def start(words: Sequence[str], under: Path, *, shot: Shot = NO_SHOT, file_size: int = 0) -> Started:
    """Run a verb in a process of its own.

    under: file events count at this path, beside it and in it. shot: a signal before one of them. file_size: bytes a
    file may have at most, as on a full disk.
    """
    ours, theirs = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_child, args=(theirs, tuple(words), under.parent, under.name, shot, file_size))
    process.start()
    theirs.close()
    return Started(process, ours, shot)


def run(words: Sequence[str], under: Path, *, shot: Shot = NO_SHOT, file_size: int = 0) -> End:
    """`start`, and wait for the end."""
    return start(words, under, shot=shot, file_size=file_size).end()


def _child(pipe: Any, words: tuple[str, ...], parent: Path, name: str, shot: Shot, file_size: int) -> None:
    import babelscope.features.passes as passes
    import babelscope.files.work_log as work_log
    import babelscope.recording.observe_pass as observing
    import babelscope.subnetworks.running as running
    from babelscope.cli import main

    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    logging.disable(logging.CRITICAL)
    # A checkpoint after every batch, step and piece of work, in the place of one in 20 or 30 seconds.
    walk, train = observing.walk, running.Training.run
    observing.walk = passes.walk = lambda *text, **given: walk(*text, **{**given, "checkpoint_seconds": 0.0})
    running.Training.run = lambda self, **given: train(self, **{**given, "checkpoint_seconds": 0.0})
    work_log.SECONDS = 0.0
    seen = _count_events(parent, name, shot)
    if file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*words, "--json"])
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001 - what is looked for
        code, _ = 1, err.write(traceback.format_exc())
    pipe.send((code, err.getvalue(), len(seen)))
    pipe.close()
    os._exit(0)


def _count_events(parent: Path, name: str, shot: Shot) -> list[int]:
    """Count file events that change something at or beside a path, and send the process a signal before one of them."""
    seen: list[int] = []
    place = str(parent)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            writes = args[2] is not None and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not writes:
                return
        elif event not in CHANGES:
            return
        path = os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else ""
        # A name alone is one inside a folder that is being removed.
        ours = "/" not in path or (path.startswith(place) and (".babelscope-partial" in path or name in path))
        if ours:
            seen.append(1)
            if len(seen) == shot.event:
                os.kill(os.getpid(), shot.number)

    sys.addaudithook(hook)
    return seen


def contents(folder: Path) -> dict[str, Any]:
    """All files of a folder by name; JSON without times, pages left out, the paths of the run left out."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix in PAGES:
            continue
        content: Any = path.read_bytes()
        if path.name in ("results.json", "summary.json"):
            tree = json.loads(content)
            content = {key: value for key, value in tree.items() if key not in TIMES}
        found[str(path.relative_to(folder))] = content
    return found


class Killed(NamedTuple):
    """One run that was killed and repeated."""

    verb: str
    event: int
    outcome: str
    """equal, differs, refused, traceback, or left: something stayed beside the result."""
    message: str


def kill_and_repeat(folder: Path, name: str, event: int, whole: dict[str, Any]) -> Killed:
    """Kill a verb before a file event, repeat it, and compare with what an uninterrupted run wrote."""
    return _shoot_and_repeat(folder, name, Shot(event), whole)


def interrupt_and_repeat(folder: Path, name: str, event: int, whole: dict[str, Any]) -> Killed:
    """The same by Ctrl-C."""
    return _shoot_and_repeat(folder, name, Shot(event, signal.SIGINT), whole)


def terminate_and_repeat(folder: Path, name: str, event: int, whole: dict[str, Any]) -> Killed:
    """The same by SIGTERM."""
    return _shoot_and_repeat(folder, name, Shot(event, signal.SIGTERM), whole)


def _shoot_and_repeat(folder: Path, name: str, shot: Shot, whole: dict[str, Any]) -> Killed:
    out, words = _place(folder, f"{name}-{shot.number}-{shot.event}", name)
    first = run(words, out, shot=shot)
    end = run(_again(folder, name, words), out)
    torn = "traceback" if first.torn else judge(out, end, whole)
    shutil.rmtree(out.parent)
    return Killed(name, shot.event, torn, end.message)


def judge(out: Path, end: End, whole: dict[str, Any]) -> str:
    """What came of a run, beside what an uninterrupted one wrote."""
    if end.torn:
        return "traceback"
    # A run that was killed after its result had its name is told that it is there.
    if end.code and not ("already there" in end.message and out.is_dir()):
        return "refused"
    if contents(out) != whole:
        return "differs"
    return "equal" if [path.name for path in out.parent.iterdir()] == ["out"] else "left"


def uninterrupted(folder: Path, name: str) -> tuple[dict[str, Any], int]:
    """What a verb writes, and how many file events it has."""
    out, words = _place(folder, f"{name}-whole", name)
    end = run(words, out)
    assert end.code == 0, end
    return contents(out), end.events


def on_a_full_disk(folder: Path, name: str, size: int, whole: dict[str, Any]) -> Killed:
    """Run a verb where no file may be larger than a size, then with room."""
    out, words = _place(folder, f"{name}-full-{size}", name)
    first = run(words, out, file_size=size)
    if first.torn:
        return Killed(name, size, "traceback", first.message)
    if first.code == 0:
        return Killed(name, size, judge(out, first, whole), first.message)
    end = run(_again(folder, name, words), out)
    return Killed(name, size, judge(out, end, whole), f"{first.message} / {end.message}")


def two_at_once(folder: Path, name: str, number: int, whole: dict[str, Any]) -> Killed:
    """Two runs of one verb with one --out: one ends well, the other with one line, and the result is whole."""
    out, words = _place(folder, f"{name}-two-{number}", name)
    ends = [started.end() for started in (start(words, out), start(words, out))]
    won, lost = ([end for end in ends if bool(end.code) is failed] for failed in (False, True))
    if any(end.torn for end in ends):
        return Killed(name, number, "traceback", str(ends))
    if len(won) != 1:
        return Killed(name, number, "differs", str(ends))
    return Killed(name, number, judge(out, won[0], whole), lost[0].message)


def _place(folder: Path, title: str, name: str) -> tuple[Path, tuple[str, ...]]:
    """A new folder for one trial: its --out, and the command with it."""
    out = folder / title / "out"
    out.parent.mkdir()
    return out, (*verbs(folder)[name].words, "--out", str(out))


def _again(folder: Path, name: str, words: tuple[str, ...]) -> tuple[str, ...]:
    return (*words, "--resume") if verbs(folder)[name].resumes else words
