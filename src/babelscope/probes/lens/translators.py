"""A tuned lens's maps: one affine map per depth, from the stream there to the stream before the final norm."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from babelscope.artifacts import Origin
from babelscope.artifacts.hub import HubArtifact
from babelscope.artifacts.json_entries import as_list, as_number
from babelscope.artifacts.shown import shown_by
from babelscope.artifacts.storage import open_folder, origin_config, save_folder, write_card
from babelscope.axes import Float, Float32, Float64, Tensor
from babelscope.errors import ArtifactError

NOUN = "Translators"
Fitted = Literal["ridge", "kl"]
"""Least squares on the last stream, or descent on the divergence of the outputs."""


@dataclass(frozen=True, eq=False)
class Translators(HubArtifact):
    """Affine maps h ↦ A_d h + b_d, one per depth but the last, which needs none.

    Raises ArtifactError where the shapes disagree.
    """

    __repr__ = shown_by()

    weight: Float32[Tensor, "depth hidden hidden2"]
    bias: Float32[Tensor, "depth hidden"]
    tokens: int
    """Positions they were fitted on."""
    explained: Float64[Tensor, " depth"]
    """Share of the last stream's variance that each map explains on the fitted text."""
    origin: Origin
    fit: Fitted = "ridge"
    kl_nats: tuple[float, ...] = ()
    """By depth: mean divergence of the model's output from the lens's on documents held out; empty for "ridge"."""
    start_nats: tuple[float, ...] = ()
    """The same before the descent: the better of least squares and the identity."""

    def __post_init__(self) -> None:
        depths, hidden = self.bias.shape
        if self.weight.shape != (depths, hidden, hidden) or self.explained.shape != (depths,):
            raise ArtifactError(
                f"translators: weight {list(self.weight.shape)}, bias {list(self.bias.shape)} and explained "
                f"{list(self.explained.shape)} came; expected one square map, one row and one share a depth"
            )
        expected = depths if self.fit == "kl" else 0
        if len(self.kl_nats) != expected or len(self.start_nats) != expected or min(self.kl_nats, default=0) < 0:
            raise ArtifactError(
                f"translators: {len(self.kl_nats)} and {len(self.start_nats)} divergences came with fit {self.fit!r} "
                f"of {depths} depths; expected {expected} of each, 0 or more"
            )
        if bool((self.explained > 1 + 1e-6).any()):
            raise ArtifactError(f"translators: a share explained of {float(self.explained.max())}; expected at most 1")

    def apply(self, hidden: Float[Tensor, "*rows hidden"], depth: int) -> Float[Tensor, "*rows hidden"]:
        """Rows of the stream at a depth, moved to where the final norm reads; the last depth is left alone."""
        if depth == len(self.weight):
            return hidden
        weight, bias = self.weight[depth].to(hidden), self.bias[depth].to(hidden)
        return hidden @ weight.T + bias

    def save(self, path: str | Path) -> Path:
        """Write the folder atomically; raises ArtifactError if the path is taken."""
        config = {
            "origin": origin_config(self.origin),
            "tokens": self.tokens,
            "fit": self.fit,
            "kl_nats": list(self.kl_nats),
            "start_nats": list(self.start_nats),
        }
        tensors = {"weight": self.weight, "bias": self.bias, "explained": self.explained}
        line = f"A tuned lens of {len(self.weight)} maps, fitted by {self.fit} on {self.tokens} tokens."
        return save_folder(path, NOUN, config, tensors, write_card(NOUN, config, [line]))

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> "Translators":
        """Read a folder; raises ArtifactError for anything damaged or of another kind.

        verify: compare the tensors' bytes with their hash; False saves reading a huge file once more, and is logged.
        """
        with open_folder(path, NOUN, verify=verify) as saved:
            if saved.text("fit") not in get_args(Fitted):
                raise saved.fault(f"fit is {saved.text('fit')!r}, and none of {', '.join(get_args(Fitted))}")
            courses = [
                tuple(as_number(value, name) for value in as_list(saved.entry(name), name))
                for name in ("kl_nats", "start_nats")
            ]
            depths, hidden = saved.tensor("bias", torch.float32, None, None).shape
            return cls(
                weight=saved.tensor("weight", torch.float32, depths, hidden, hidden),
                bias=saved.tensor("bias", torch.float32, depths, hidden),
                tokens=saved.whole("tokens", 1),
                explained=saved.tensor("explained", torch.float64, depths),
                origin=saved.origin(),
                fit=saved.text("fit"),  # pyright: ignore[reportArgumentType]
                kl_nats=courses[0],
                start_nats=courses[1],
            )
