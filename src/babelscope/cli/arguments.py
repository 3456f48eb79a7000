"""What several verbs share: the types of their flags, their result, a free path, a quiet stop. It loads no library."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from tyro.conf import Positional, arg

from babelscope.errors import ArtifactError, PrerequisiteError
from babelscope.files.strict_json import read_json
from babelscope.files.writing import locked

Result = Mapping[str, Any]
P = ParamSpec("P")
R = TypeVar("R")


class FailedResult(dict[str, Any]):
    """A result that is printed like any other, of a verb that exits 1."""


Model = Annotated[Positional[str], arg(metavar="MODEL", help='folder, hub id, or "reference".')]
Text = Annotated[Positional[str], arg(metavar="CORPUS")]
Neurons = Annotated[Positional[Path], arg(metavar="NEURONS")]
Observed = Annotated[Positional[Path], arg(metavar="OBSERVATION")]
"""What comes first on the command line, by the name that usage lines give it."""
Device = Annotated[
    str, arg(help='"auto" (a GPU if there is one), "cpu", "cuda", one such as "cuda:1", or "map" (over all devices).')
]
Dtype = Annotated[
    str,
    arg(help='"auto" (float32 on the CPU, as stored elsewhere), float32, bfloat16, float16, float64, int8 or int4.'),
]
SameText = Annotated[
    bool, arg(help="allow scoring on the text that was chosen on, all of a corpus without splits; the result says so.")
]
Parallel = Annotated[bool, arg(help="line i of the files is the same content in every language.")]
Chat = Annotated[
    bool,
    arg(
        help="prompts are messages for the model's own chat template: a text is the user's, a .jsonl row may have more."
    ),
]
System = Annotated[str, arg(help="with --chat, a system prompt before each; none leaves it to the template.")]
Talk = Annotated[
    Literal["none", "all", "user", "answer"],
    arg(
        help="the corpus's rows are conversations for the model's own chat template, and these words of them count: "
        "all, the user's, or the answers'; none reads plain text."
    ),
]
Seed = Annotated[int, arg(help="of everything random; the same seed gives the same result.")]


def counted_of(conversation: str) -> Any:
    """What `load_corpus` takes: None for plain text."""
    return None if conversation == "none" else conversation


def free(out: Path) -> Path:
    """The path, if nothing is there yet and something can be: found before the work, not after it."""
    check_writable(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ArtifactError(f"{out}: already there; expected a new path; choose another --out or remove it")
    return out


def alone(verb: Callable[P, R]) -> Callable[P, R]:
    """The verb with its `out` kept for it while it runs: a second run with the same one is told at once."""

    @wraps(verb)
    def run(*args: P.args, **given: P.kwargs) -> R:
        out = given.get("out")
        if not isinstance(out, Path):
            return verb(*args, **given)
        check_writable(out)
        with locked(out):
            return verb(*args, **given)

    return run


def check_writable(out: Path) -> None:
    """Raise PrerequisiteError for a path at which nothing can be written."""
    near = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if near != out.absolute() and not (near.is_dir() and os.access(near, os.W_OK | os.X_OK)):
        raise PrerequisiteError(f"{out}: nothing can be written in {near}; expected a folder; choose another --out")


def checkpoint_of(out: Path, *, resume: bool) -> Path:
    """The folder beside `out` in which an interrupted run is kept.

    Raises PrerequisiteError, at once, if another run is using it, ArtifactError if an interrupted run is there and was
    not asked for.
    """
    check_writable(out)
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    with locked(checkpoint):
        pass
    if checkpoint.exists() and not resume:
        raise ArtifactError(f"{checkpoint}: an interrupted run is there; expected none; use --resume or remove it")
    return checkpoint


def format_of(path: Path) -> str:
    """What kind of artifact a folder says it is; empty where it says nothing."""
    file = path / "config.json"
    config = read_json(file, advice="expected a Direction or SteeringRecipe") if file.is_file() else {}
    kind = config.get("format") if isinstance(config, dict) else None
    return "" if kind is None else str(kind)


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM end the pass between two batches, with its checkpoint written."""
    asked = []
    earlier = {name: signal.signal(name, lambda *_: asked.append(1)) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for name, handler in earlier.items():
            signal.signal(name, handler)
