"""What several verbs share: their result, a free path, a recipe or direction as a recipe, and a quiet stop."""

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from babelscope.artifacts import Direction, SteeringRecipe
from babelscope.controls import Stability
from babelscope.errors import ArtifactError, CorpusError, PrerequisiteError
from babelscope.languages import Language

Result = Mapping[str, Any]


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
Seed = Annotated[int, arg(help="of everything random; the same seed gives the same result.")]


def free(out: Path) -> Path:
    """The path, if nothing is there yet and something can be: found before the work, not after it."""
    near = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if near != out.absolute() and not (near.is_dir() and os.access(near, os.W_OK | os.X_OK)):
        raise PrerequisiteError(f"{out}: nothing can be written in {near}; expected a folder; choose another --out")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ArtifactError(f"{out}: already there; expected a new path; choose another --out or remove it")
    return out


def open_recipe(path: Path, strength: float, unit: Literal["raw", "unit", "relative"]) -> SteeringRecipe:
    """A SteeringRecipe folder as it is, or a Direction folder added with this strength."""
    file = path / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as err:
        raise ArtifactError(f"{file}: is no JSON ({err}); expected a Direction or SteeringRecipe") from err
    kind = config.get("format") if isinstance(config, dict) else None
    if str(kind).startswith("babelscope.Direction/"):
        return Direction.load(path).recipe(strength, unit)
    if path.is_dir() and not str(kind).startswith("babelscope.SteeringRecipe/"):
        raise ArtifactError(f"{path}: format {kind!r}; expected a Direction or SteeringRecipe; open it as what it is")
    return SteeringRecipe.load(path)


def lines_of(file: Path) -> list[str]:
    """The lines of a file, one text each; a blank one is an error, for lines must stay side by side."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise CorpusError(f"{file}: unreadable ({err}); expected one text a line; correct the path") from err
    blank = [number for number, line in enumerate(lines, start=1) if not line.strip()]
    if blank or not lines:
        raise CorpusError(f"{file}: {f'line {blank[0]} is blank' if blank else 'is empty'}; expected one text a line")
    return lines


def texts_of(word: str) -> list[str]:
    """A text from the command line, or the lines of the file it names; a text may be too long to be a name."""
    return lines_of(Path(word)) if os.path.isfile(word) else [word]


def stability_rows(stability: Mapping[Language, Stability]) -> dict[str, dict[str, float]]:
    """What is printed of the agreement of half-splits."""
    return {
        tag: {key: round(getattr(row, key), 3) for key in ("median", "low", "high", "chance")}
        for tag, row in stability.items()
    }


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
