"""What several verbs do with saved things: a recipe or direction as a recipe, and the rows of a stability."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from babelscope.artifacts import Direction, SteeringRecipe
from babelscope.controls import Stability
from babelscope.errors import ArtifactError
from babelscope.files.folder_kinds import format_of, kind_of_folder
from babelscope.languages import Language


def open_recipe(path: Path, strength: float, unit: Literal["raw", "unit", "relative"]) -> SteeringRecipe:
    """A SteeringRecipe folder as it is, or a Direction folder added with this strength."""
    kind = format_of(path)
    if kind.startswith("babelscope.Direction/"):
        return Direction.load(path).recipe(strength, unit)
    if kind.startswith("babelscope.Delta/"):
        raise ArtifactError(
            f"{path}: a Delta came; expected a Direction or SteeringRecipe; `babelscope steer` lets a trained model "
            "speak, `babelscope export` writes it as a checkpoint"
        )
    if path.is_dir() and not kind.startswith("babelscope.SteeringRecipe/"):
        raise ArtifactError(
            f"{path}: is {kind_of_folder(path) or 'no artifact'}; expected a Direction, SteeringRecipe or, for steer, "
            "a Delta; give the folder of one"
        )
    if not path.is_dir():
        raise ArtifactError(f"{path}: no such folder; expected a Direction, SteeringRecipe or Delta; correct the path")
    return SteeringRecipe.load(path)


def stability_rows(stability: Mapping[Language, Stability]) -> dict[str, dict[str, float]]:
    """What is printed of the agreement of half-splits."""
    return {
        tag: {key: round(getattr(row, key), 3) for key in ("median", "low", "high", "chance")}
        for tag, row in stability.items()
    }
