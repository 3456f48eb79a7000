"""One small artifact of every kind, how it is opened, and whether two are the same."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from conftest import tiny_model, tiny_tokenizer
from delta_cases import random_delta
from feature_cases import planted
from safetensors.torch import save_file
from training_cases import some_neurons
from transformers import PreTrainedTokenizerBase
from vocabulary_cases import lines, model_for, tokenizer_of

from babelscope import VocabularyPack, extend_vocabulary, observe
from babelscope.adapters.gguf import export_control_vector, import_control_vector
from babelscope.adapters.masks import import_mask
from babelscope.artifacts import Condition, Direction, Gate, NeuronSet, Observation, Operation, SteeringRecipe
from babelscope.artifacts.feature_observation import FeatureObservation
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.features import load_sae
from babelscope.features.arrays import read_arrays
from babelscope.files.state_folder import RunState, read_sealed, state_folder, write_sealed
from babelscope.files.tensor_files import write_sums
from babelscope.files.work_log import piece_of_work, work_log
from babelscope.models import origin_of
from babelscope.probes.lens.translators import Translators
from babelscope.sites import Site
from babelscope.subnetworks.delta import Delta
from babelscope.subnetworks.elements import ElementDelta, Elements
from babelscope.vocabulary.merge_lists import backend_of

WEIGHTS = "sae_weights.safetensors"
TEXTS = {"en": ["the cat sat", "on a mat"], "fi": ["kissa istui", "matolla", "hiljaa"]}


class Kind(NamedTuple):
    """A kind of thing on the disk."""

    save: Callable[[Path, int], object]
    """Writes one into a path; the number makes it another one."""
    load: Callable[[Path], Any]
    hashes: bool = True
    """Whether config.json holds hashes that can be made right again after a change."""


def _seeded(number: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(number))


def _origin(number: int) -> Any:
    return origin_of(tiny_model("llama", seed=number), tiny_tokenizer())


def _observation(path: Path, number: int) -> object:
    texts = {tag: [f"{line} {number}" for line in lines] for tag, lines in TEXTS.items()}
    sites = ["mlp_gate", "mlp_inner", "1.resid_out"]
    return observe(tiny_model("llama"), tiny_tokenizer(), texts, sites=sites, shards=4).save(path)


def _direction(number: int) -> Direction:
    vector = _seeded(number, 32)
    return Direction(
        vector, Site(1, "resid_out"), "fi", ("en", "de"), 3.5, _origin(0), {"method": "mean"}, median_norm=2.0
    )


def _recipe(path: Path, number: int) -> object:
    direction = _direction(number)
    gate = Gate(
        phase="prompt", positions=(0, 4), rows=(0, 1), condition=Condition(Site(1, "resid_out"), _seeded(3, 32), 0.2)
    )
    some = Operation(
        Site(0, "mlp_gate"), "replace", _seeded(number, 3), indices=torch.tensor([5, 0, 4]), origin=_origin(0)
    )
    matrix = Operation(
        Site(2, "resid_out"), "affine", _seeded(number, 32), matrix=_seeded(number, 32, 32), origin=_origin(0)
    )
    operations = (direction.add(0.5, gate=gate), some, matrix)
    return SteeringRecipe(operations, direction.origin, {"method": "mean", "source": "x"}).save(path)


def _feature_set(path: Path, number: int) -> object:
    generator = torch.Generator().manual_seed(number)
    return FeatureSet.from_mask(
        torch.rand(2, 30, generator=generator) < 0.3,
        torch.rand(2, 30, generator=generator),
        origin=_origin(0),
        languages=planted().languages[:2],
        site=Site(1, "resid_out"),
        sae_id="made",
        sae_hash="0" * 16,
        method="langfir",
        parameters={"tau": 0.5},
    ).save(path)


def _translators(path: Path, number: int) -> object:
    nats = (0.5, 0.25, 0.125)
    parts = _seeded(number, 3, 8, 8), _seeded(number, 3, 8), 400, torch.tensor([0.5, 0.75, 0.9], dtype=torch.float64)
    return Translators(*parts, _origin(0), "kl", nats, nats).save(path)


def _elements(path: Path, number: int) -> object:
    part = Elements((4, 5), torch.tensor([1, 7, 19]), _seeded(number, 3))
    return ElementDelta(_origin(0), planted().languages[:1], {"a": part, "b": part}, {"steps": 3}).save(path)


def _state(path: Path, number: int) -> None:
    with state_folder(path, "print") as folder:
        folder.write(RunState(3, {"x": _seeded(number, 40), "y": torch.arange(number + 5)}, {"tokens": number}))


def _read_state(path: Path) -> Any:
    with state_folder(path, "print") as folder:
        state = folder.read(most=10)
    # A run begins anew, and says so, where nothing is.
    return "nothing was saved yet" if state is None else state


def _stage(path: Path, number: int) -> None:
    write_sealed(path / "stage.json", {"seconds": 1.5, "found": {"en": [number, 0.25]}}, f"stage {number}")


def _log(path: Path, number: int) -> None:
    with work_log(path, "print", seconds=0.0):
        for place in range(3):
            piece_of_work(lambda p=place: str(p), lambda p=place: (_seeded(number + p, 5), {"place": p}))


class NotLogged(Exception):
    """A piece of work that was computed anew."""


def _read_log(path: Path) -> Any:
    """All pieces of a log; a log without pieces is one of a run that has done nothing."""

    def compute() -> Any:
        raise NotLogged

    with work_log(path, "print"):
        try:
            return [piece_of_work(lambda p=place: str(p), compute) for place in range(3)]
        except NotLogged:
            return "nothing was saved yet"


def _autoencoder(path: Path, number: int) -> None:
    path.mkdir(parents=True)
    shapes = {"W_enc": (4, 6), "b_enc": (6,), "W_dec": (6, 4), "b_dec": (4,)}
    save_file({name: _seeded(number + len(name), *shape) for name, shape in shapes.items()}, path / WEIGHTS)
    metadata = {"sae_lens_version": "6.54.12", "hook_name": "blocks.1.hook_resid_post", "model_name": "made"}
    settings = {"d_in": 4, "d_sae": 6, "dtype": "float32", "device": "cpu", "architecture": "standard"}
    settings |= {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"}
    (path / "cfg.json").write_text(json.dumps({**settings, "metadata": metadata}))
    write_sums(path, ("cfg.json", WEIGHTS))


def _read_autoencoder(path: Path) -> Any:
    # By name: its id is the folder's.
    found = load_sae(path)
    return {entry.name: getattr(found, entry.name) for entry in fields(found) if entry.name != "id"}


def _arrays(path: Path, number: int) -> None:
    path.mkdir(parents=True)
    shapes = {"W_enc": (4, 6), "b_enc": (6,), "W_dec": (6, 4), "b_dec": (4,), "threshold": (6,)}
    draw = np.random.default_rng(number)
    np.savez(path / "params.npz", **{name: draw.random(shape, dtype=np.float32) for name, shape in shapes.items()})


def _mask(path: Path, number: int) -> None:
    path.mkdir(parents=True)
    torch.save([[torch.tensor([1 + number, 4]), torch.tensor([0])] for _ in range(2)], path / "mask.pth")


def _control_vector(path: Path, number: int) -> None:
    path.mkdir(parents=True)
    operations = tuple(Operation(Site(layer, "resid_out"), "add", _seeded(number + layer, 8)) for layer in (1, 2))
    recipe = SteeringRecipe(operations, _origin(0))
    export_control_vector(recipe, path / "vector.gguf", model_hint="llama")


def _vocabulary(path: Path, number: int) -> object:
    tokenizer = tokenizer_of("byte-level")
    texts = {"cy": [f"{line} {number}" for line in lines("cy", count=30)["cy"]]}
    return extend_vocabulary(model_for(tokenizer, seed=number), tokenizer, texts, size=3).save(path)


KINDS: dict[str, Kind] = {
    "Observation": Kind(_observation, Observation.load),
    "FeatureObservation": Kind(lambda path, number: planted(seed=number).save(path), FeatureObservation.load),
    "NeuronSet": Kind(lambda path, number: some_neurons(tiny_model("llama"), seed=number).save(path), NeuronSet.load),
    "FeatureSet": Kind(_feature_set, FeatureSet.load),
    "Direction": Kind(lambda path, number: _direction(number).save(path), Direction.load),
    "SteeringRecipe": Kind(_recipe, SteeringRecipe.load),
    "Delta": Kind(lambda path, number: random_delta(tiny_model("llama"), seed=number).save(path), Delta.load),
    "ElementDelta": Kind(_elements, ElementDelta.load),
    "Translators": Kind(_translators, Translators.load),
    "VocabularyPack": Kind(_vocabulary, VocabularyPack.load),
    "state of a run": Kind(_state, _read_state, hashes=False),
    "work of a run": Kind(_log, _read_log, hashes=False),
    "SAE folder": Kind(_autoencoder, _read_autoencoder, hashes=False),
    "params.npz": Kind(_arrays, lambda path: read_arrays(path / "params.npz"), hashes=False),
    "published mask": Kind(
        _mask, lambda path: import_mask(path / "mask.pth", languages=("en", "fi"), n_neurons=9), hashes=False
    ),
    "control vector": Kind(_control_vector, lambda path: import_control_vector(path / "vector.gguf"), hashes=False),
    "stage of a study": Kind(_stage, lambda path: read_sealed(path / "stage.json", "stage 0"), hashes=False),
}


def same(a: Any, b: Any) -> bool:
    """Whether two loaded things are equal, bit for bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, PreTrainedTokenizerBase):
        return backend_of(a).to_str() == backend_of(b).to_str() and a.chat_template == b.chat_template
    if is_dataclass(a):
        return all(same(getattr(a, entry.name), getattr(b, entry.name)) for entry in fields(a))
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b
