"""What several verbs share: their result, a free path, a recipe or direction as a recipe, and a quiet stop."""

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from babelscope.artifacts import Direction, SteeringRecipe
from babelscope.errors import ArtifactError

Result = Mapping[str, Any]
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
Seed = Annotated[int, arg(help="of everything random; the same seed gives the same result.")]


def free(out: Path) -> Path:
    """The path, if nothing is there yet."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ArtifactError(f"{out}: already there; expected a new path; choose another --out or remove it")
    return out


def open_recipe(path: Path, strength: float, unit: Literal["raw", "unit", "relative"]) -> SteeringRecipe:
    """A SteeringRecipe folder as it is, or a Direction folder added with this strength."""
    file = path / "config.json"
    kind = json.loads(file.read_text())["format"] if file.is_file() else ""
    if kind.startswith("babelscope.Direction/"):
        return Direction.load(path).recipe(strength, unit)
    return SteeringRecipe.load(path)


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
