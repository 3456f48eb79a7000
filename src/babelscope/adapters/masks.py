"""Published LAPE masks: `list[language][layer]` of index tensors in a torch file, read without running any of it."""

import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from babelscope.artifacts import NeuronSet, Origin
from babelscope.errors import ArtifactError
from babelscope.languages import parse_languages


def import_mask(
    path: str | Path, *, languages: Sequence[str], n_neurons: int, origin: Origin | None = None
) -> NeuronSet:
    """Read a published mask as a NeuronSet.

    languages: required, in the file's order: the file names none, and one whose last languages are empty is shorter
    than its list, which is refused rather than guessed at.
    n_neurons: neurons per layer of the model it was made for.
    Only tensors and lists are read (`weights_only=True`); anything else in the file is refused.
    Raises ArtifactError for another form, another number of languages, or an index out of range.
    """
    tags, file = parse_languages(languages), Path(path)
    lists = read_torch_file(file)
    check_form(file, lists)
    if len(lists) != len(tags):
        raise ArtifactError(
            f"{file}: {len(lists)} languages in it, {len(tags)} named ({', '.join(tags)}); expected as many; published "
            "files drop trailing languages without neurons: name exactly those it has, in its order"
        )
    n_layers = len(lists[0])
    mask = torch.zeros(len(tags), n_layers, n_neurons, dtype=torch.bool)
    for k, layers in enumerate(lists):
        for layer, indices in enumerate(layers):
            if indices.numel() and not (int(indices.min()) >= 0 and int(indices.max()) < n_neurons):
                raise ArtifactError(
                    f"{file}: neuron {int(indices.max())} in layer {layer}; expected 0–{n_neurons - 1}; "
                    "the mask is for another model"
                )
            mask[k, layer, indices.long()] = True
    return NeuronSet.from_mask(
        mask,
        torch.zeros(mask.shape),
        origin=origin or Origin("unknown", "", "", ""),
        languages=tags,
        at="mlp_gate",
        method="imported LAPE mask",
        parameters={"file": file.name, "union": int(mask.any(dim=0).sum())},
    )


def read_torch_file(file: Path) -> Any:
    """What torch wrote into a file, of tensors, lists and other plain values, without running any of it.

    The checksums of the zip archive that such files are since torch 1.6 are compared first: torch itself reads past a
    wrong one. Older files have none. Raises ArtifactError for anything that is damaged or holds more than that.
    """
    if not os.path.isfile(file):  # a device has no end
        raise ArtifactError(f"{file}: no safe torch file (it is no file); expected a published mask; check the path")
    try:
        if zipfile.is_zipfile(file):
            check_archive(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except ArtifactError:
        raise
    except Exception as err:  # A damaged pickle ends in whatever error its bytes happen to lead to.
        # torch's own message advises to run the file's code.
        unsupported = re.search(r"Unsupported (?:global: GLOBAL|class|operand) (\S+)", str(err))
        reason = f"it names {unsupported[1]!r}, which is no tensor or list" if unsupported else type(err).__name__
        raise ArtifactError(
            f"{file}: no safe torch file ({reason}); expected lists of index tensors; fetch it again"
        ) from err


def check_archive(file: Path) -> None:
    """Raise ArtifactError for an archive with a wrong checksum, or with compressed parts, which torch never writes."""
    with zipfile.ZipFile(file) as archive:
        packed = [part.filename for part in archive.infolist() if part.compress_type != zipfile.ZIP_STORED]
        damaged = None if packed else archive.testzip()
    if packed or damaged:
        fault = f"{packed[0]!r} is compressed" if packed else f"the checksum of {damaged!r} differs"
        raise ArtifactError(f"{file}: no safe torch file ({fault}); expected it as torch wrote it; fetch it again")


def check_form(file: Path, lists: Any) -> None:
    """Raise ArtifactError unless this is list[language][layer] of 1-D integer tensors with equally many layers."""
    good = isinstance(lists, list | tuple) and bool(lists)
    good = good and all(isinstance(layers, list | tuple) and len(layers) == len(lists[0]) > 0 for layers in lists)
    good = good and all(
        isinstance(entry, torch.Tensor) and entry.ndim == 1 and not entry.is_floating_point()
        for layers in lists
        for entry in layers
    )
    if not good:
        raise ArtifactError(f"{file}: not list[language][layer] of 1-D index tensors; expected a published LAPE mask")
