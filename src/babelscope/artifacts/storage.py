"""Artifact folders on disk: config.json, safetensors and a card; written whole or not at all, read only as written.

config.json holds the sha256 of tensors.safetensors, as `sha256sum` prints it, and of its own other entries, whatever
their order and the blanks between them.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from babelscope.artifacts.identity import Origin, read_origin
from babelscope.artifacts.json_entries import as_list, as_number, as_table, as_text, as_whole
from babelscope.axes import Tensor
from babelscope.errors import ArtifactError, SteeringError, ToolkitError
from babelscope.files.folder_kinds import kind_of_folder
from babelscope.files.state_folder import hash_json
from babelscope.files.strict_json import parse_json, read_json
from babelscope.files.tensor_files import read_tensors, write_tensors
from babelscope.files.writing import new_folder, write_text
from babelscope.languages import Language, parse_languages

log = logging.getLogger(__name__)
CONFIG, TENSORS, CARD = "config.json", "tensors.safetensors", "README.md"
HASHES = "sha256"
CONFIG_LIMIT = 1_000_000
"""Bytes of config.json; more is refused."""
ADVICE = "make the artifact again"
EVERY_ARTIFACT = ("format", "library", HASHES)


def library_version() -> str:
    """Version of babelscope that writes an artifact."""
    try:
        return version("babelscope")
    except PackageNotFoundError:
        return "0+unknown"


def hash_text(text: str) -> str:
    """Short blake2b of a text, for comparing what artifacts were made from."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def save_folder(
    path: str | Path, noun: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], card: str
) -> Path:
    """Write an artifact whole or not at all, with the hashes that `open_folder` asks for.

    Raises ArtifactError if the path is taken, a tensor is not finite, or the config could not be read back;
    PrerequisiteError if the disk refuses.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(f"{path}: tensor {name!r} holds NaN or infinity; expected finite values")
    described = {"format": f"babelscope.{noun}/2", "library": library_version(), **config}
    advice = "correct what the artifact was made with"
    with new_folder(path) as partial:
        digest = write_tensors(partial / TENSORS, tensors)
        # As it is read back: tuples are lists there, and keys are strings.
        described = parse_json(as_json(path, described), f"{path}: {CONFIG}", advice=advice)
        hashes = {"tensors": digest, "description": hash_json(described)}
        text = as_json(path, {**described, HASHES: hashes})
        if len(text.encode()) > CONFIG_LIMIT:
            raise ArtifactError(f"{path}: a config of {len(text.encode())} bytes; expected at most {CONFIG_LIMIT}")
        write_text(partial / CARD, card)
        write_text(partial / CONFIG, text)
    return Path(path)


def as_json(path: str | Path, value: Mapping[str, Any]) -> str:
    """The text of a config; raises ArtifactError for what JSON cannot say."""
    try:
        return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as err:
        raise ArtifactError(f"{path}: settings that are no JSON ({err}); expected texts and finite numbers") from err


@dataclass
class SavedFolder:
    """A saved artifact being read: every entry is asked for with its kind, and what nobody asks for is refused."""

    path: Path
    noun: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    read_entries: set[str] = field(default_factory=lambda: {*EVERY_ARTIFACT})
    read_names: set[str] = field(default_factory=set)

    def fault(self, what: str) -> ArtifactError:
        """The error for something that does not fit."""
        return ArtifactError(f"{self.path}: {what}; expected a whole {self.noun}; {ADVICE}")

    def entry(self, name: str) -> Any:
        """An entry of config.json of any kind."""
        self.read_entries.add(name)
        if name not in self.config:
            raise self.fault(f"config.json has no {name!r}")
        return self.config[name]

    def text(self, name: str) -> str:
        """A text."""
        return as_text(self.entry(name), name)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(as_text(value, name) for value in as_list(self.entry(name), name))

    def whole(self, name: str, least: int = 0) -> int:
        """A whole number."""
        return as_whole(self.entry(name), name, least)

    def number(self, name: str) -> float:
        """A finite number."""
        return as_number(self.entry(name), name)

    def table(self, name: str) -> dict[str, Any]:
        """An object."""
        return as_table(self.entry(name), name)

    def languages(self) -> tuple[Language, ...]:
        """The languages, at least one, each once."""
        return parse_languages(self.texts("languages"))

    def origin(self, *, refuse_unknown: bool = True) -> Origin:
        """The model that it was made from; `refuse_unknown` refuses one without a hash, which no model could be "
        "checked by."""
        try:
            origin = read_origin(self.entry("origin"))
        except ArtifactError as err:
            raise self.fault(f"config.json has no readable origin ({err})") from err
        if refuse_unknown and not origin.model_hash:
            raise self.fault("its origin has no model_hash")
        return origin

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return name in self.tensors

    def tensor(self, name: str, dtype: torch.dtype, *shape: int | None) -> Tensor:
        """A tensor of this dtype and shape; None means any size."""
        self.read_names.add(name)
        if name not in self.tensors:
            raise self.fault(f"tensor {name!r} is missing")
        tensor = self.tensors[name]
        fits = len(tensor.shape) == len(shape) and all(
            want is None or size == want for size, want in zip(tensor.shape, shape, strict=True)
        )
        if tensor.dtype != dtype or not fits:
            raise self.fault(
                f"tensor {name!r} is {tensor.dtype} {list(tensor.shape)} and not {dtype} "
                f"{['any' if size is None else size for size in shape]}"
            )
        return tensor

    def check_all_read(self) -> None:
        """Raise ArtifactError for a tensor, or an entry of config.json, that belongs to no such artifact."""
        for what, names in (
            ("entry", set(self.config) - self.read_entries),
            ("tensor", set(self.tensors) - self.read_names),
        ):
            if names:
                raise self.fault(f"{what} {sorted(names)[0]!r} belongs to no {self.noun}")


@contextmanager
def open_folder(path: str | Path, noun: str, *, verify: bool = True) -> Iterator[SavedFolder]:
    """Read an artifact; raises ArtifactError, in one line with its path, for anything damaged, foreign or unsafe.

    verify: compare the sha256 of the tensors' bytes, which reads the file once more; False leaves it out, and logs it.
    Artifacts of releases before hashes are read, with a logged line, if what is in them is possible.
    """
    path = Path(path)
    if not path.is_dir():
        raise ArtifactError(f"{path}: is no folder; expected a babelscope {noun}; check the path")
    config = _read_config(path, noun)
    expected = config.get(HASHES, {}).get("tensors")
    if expected is None:
        log.warning("%s: of an earlier release, without hashes, so that damage may go unseen; save it anew", path)
    elif not verify:
        log.warning("%s: the bytes of its tensors are not compared with their hash, as asked", path)
    tensors = read_tensors(_plain_file(path, TENSORS), expected if verify else None, advice=ADVICE)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(f"{path}: tensor {name!r} holds NaN or infinity; expected finite values; {ADVICE}")
    saved = SavedFolder(path, noun, config, tensors)
    try:
        yield saved
        saved.check_all_read()
    except ToolkitError as err:
        if str(err).startswith(str(path)):
            raise
        kind = SteeringError if isinstance(err, SteeringError) else ArtifactError
        raise kind(f"{path}: {err}; expected a whole {noun}; {ADVICE}") from err


def _plain_file(path: Path, name: str) -> Path:
    """A file of an artifact that is really inside it."""
    file = path / name
    if file.is_symlink() or not file.is_file():
        raise ArtifactError(f"{file}: missing, or a link; expected a plain file; {ADVICE}")
    return file


def _read_config(path: Path, noun: str) -> dict[str, Any]:
    """config.json of an artifact, its size, form, format and hash checked."""
    config = read_json(_plain_file(path, CONFIG), most_bytes=CONFIG_LIMIT, advice=ADVICE)
    format_name = config.get("format") if isinstance(config, dict) else None
    if format_name not in (f"babelscope.{noun}/1", f"babelscope.{noun}/2"):
        kind = kind_of_folder(path)
        what = f"is {kind}" if kind and kind != f"a babelscope {noun}" else f"format {format_name!r}"
        raise ArtifactError(f"{path}: {what}; expected 'babelscope.{noun}/2'; give the folder of one")
    hashes = config.get(HASHES)
    if (format_name == f"babelscope.{noun}/1") != (hashes is None):
        raise ArtifactError(
            f"{path / CONFIG}: format {format_name!r} came with {HASHES} {hashes!r}; it is damaged; {ADVICE}"
        )
    if hashes is not None:
        described = {name: value for name, value in config.items() if name != HASHES}
        well_formed = isinstance(hashes, dict) and set(hashes) == {"tensors", "description"}
        if not well_formed or hashes["description"] != hash_json(described) or not isinstance(hashes["tensors"], str):
            raise ArtifactError(f"{path / CONFIG}: was changed, its hash differs; expected it as saved; {ADVICE}")
    return config


def origin_config(origin: Origin) -> dict[str, Any]:
    """An Origin as JSON."""
    return asdict(origin)


HOMES = {
    "ElementDelta": "subnetworks",
    "FeatureObservation": "artifacts.feature_observation",
    "Translators": "probes.lens.translators",
}
"""Where a kind is imported from, of those that are not in the package itself."""


def write_card(noun: str, config: Mapping[str, Any], lines: list[str]) -> str:
    """A README.md with Hugging Face front matter, and how to use it; no sample text is ever in it."""
    model = config["origin"]["model"]
    front = ["---", "library_name: babelscope", f"base_model: {json.dumps(model)}", "tags:", "- babelscope"]
    front += [f"- {noun}"]
    if config.get("languages"):
        front += ["language:", *(f"- {tag}" for tag in config["languages"])]
    home = f"babelscope.{HOMES[noun]}" if noun in HOMES else "babelscope"
    use = ["", "```python", f"from {home} import {noun}", "", f'artifact = {noun}.from_pretrained("USER/NAME")', "```"]
    return "\n".join([*front, "---", "", f"# {noun} of {model}", "", *lines, *use, ""])
