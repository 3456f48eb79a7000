"""What a model is, as names, settings, hashes and a sample of weights that travel with every artifact."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.identity import OTHER_KIND, Origin, differences, pack_sample, unpack_sample
from babelscope.artifacts.model_settings import (
    SCHEME,
    body_settings,
    hash_settings,
    settings_of,
    vocabulary_mark,
    whole_config_hash,
)
from babelscope.axes import Float32, Tensor
from babelscope.errors import ArtifactError
from babelscope.models.modes import steering_name
from babelscope.models.plain import (
    CausalModel,
    adapter_settings,
    check_default_dtype,
    check_model,
    hook_settings,
    refuse_cut,
)
from babelscope.reference import MODEL as REFERENCE_MODEL
from babelscope.upstream.config import config_value, revision_of
from babelscope.upstream.names import attribute
from babelscope.upstream.tokenizers import fast_backend

SAMPLED = 4
"""Values of each parameter in the sample of weights."""
HASHES: dict[bytes, tuple[str, dict[str, str]]] = {}
"""Of tokenizers met in this process, by the bytes of their whole state."""
EDITORS: list[Callable[[nn.Module], set[int]]] = []
"""Each tells the addresses of a model's parameters that hold a change now which can be taken out again; the sample of
weights leaves them out, since what was made for the model is for the model with the change as well."""


def origin_of(model: CausalModel, tokenizer: PreTrainedTokenizerBase | None, *, every_byte: bool = False) -> Origin:
    """What every artifact made from this model carries; without a tokenizer its hash is empty.

    every_byte: also hash all of the weights, a second for each gigabyte; an artifact with such an origin is then only
    taken with the same bytes in the same dtype. The sample that is always there can miss a change of few values.
    While the model is steered the settings say so: what is made then is of another model than the plain one.
    Raises PrerequisiteError for weights that are cut over processes.
    """
    check_default_dtype()
    if not isinstance(model, nn.Module):
        check_model(model)
    plain, steering = _plain_origin(model, tokenizer, every_byte), steering_name(model)
    if not steering:
        return plain
    settings = {**plain.config, "steered": steering}
    return replace(plain, config=settings, model_hash=hash_settings(settings))


def _plain_origin(model: CausalModel, tokenizer: PreTrainedTokenizerBase | None, every_byte: bool) -> Origin:
    """The same of the model without what steers it now, which was made for it so."""
    refuse_cut(model)
    name = str(config_value(model.config, "name")) or type(model).__name__
    if Path(name) == REFERENCE_MODEL:
        name = "reference"
    elif Path(name).is_absolute():
        # Artifacts, their cards and pages are handed on: where a folder lies on this machine is nobody else's business.
        name = Path(name).name
    adapters = adapter_settings(model)
    settings = settings_of(model.config) | ({"adapters": adapters} if adapters else {}) | hook_settings(model)
    whole, parts = ("", {}) if tokenizer is None else tokenizer_hashes(tokenizer)
    return Origin(
        model=name,
        revision=revision_of(model.config),
        model_hash=hash_settings(settings),
        tokenizer_hash=whole,
        config=settings,
        tokenizer=parts,
        weights=pack_sample(weights_sample(model)),
        weights_hash=weights_hash(model) if every_byte else "",
    )


@torch.no_grad()
def weights_sample(model: nn.Module) -> Float32[Tensor, " value"]:
    """A few values of every parameter, parameters in the order of their names, on the CPU.

    NaN stands for what cannot be compared: weights that are quantised, on the disk ("map"),
    shared by layers, or hold an applied change.
    """
    edited = {address for editor in EDITORS for address in editor(model)}
    parameters = {
        name.replace("_orig_mod.", ""): value for name, value in model.named_parameters(remove_duplicate=False)
    }
    edited |= _shared_by_layers(parameters)
    rows = [_values_of(parameters[name], edited) for name in sorted(parameters)]
    devices: dict[torch.device, list[int]] = {}
    for number, row in enumerate(rows):
        devices.setdefault(row.device, []).append(number)
    sample = torch.full((len(rows), SAMPLED), torch.nan)
    for numbers in devices.values():  # one transfer for each device
        sample[numbers] = torch.stack([rows[number] for number in numbers]).cpu()
    return sample.flatten()


def origin_without(origin: Origin, model: nn.Module, names: Iterable[str]) -> Origin:
    """The same origin, whose sample of weights leaves out some parameters by name, and what is tied to them."""
    if not origin.weights:
        return origin
    parameters, sample = dict(model.named_parameters(remove_duplicate=False)), unpack_sample(origin.weights)
    left_out = {id(parameters[name]) for name in names if name in parameters}
    rows = [number for number, name in enumerate(sorted(parameters)) if id(parameters[name]) in left_out]
    if len(sample) == SAMPLED * len(parameters):
        sample.view(-1, SAMPLED)[rows] = torch.nan
    return replace(origin, weights=pack_sample(sample))


def _shared_by_layers(parameters: Mapping[str, Tensor]) -> set[int]:
    """Addresses of weights that several modules of one role share; a head tied to its embeddings is not such a one."""
    roles: dict[int, set[str]] = {}
    names: dict[int, int] = {}
    for name, weights in parameters.items():
        if not weights.is_meta:
            address = weights.untyped_storage().data_ptr()
            roles.setdefault(address, set()).add(".".join(name.split(".")[-2:]))
            names[address] = names.get(address, 0) + 1
    return {address for address, role in roles.items() if len(role) == 1 and names[address] > 1}


def _values_of(weights: Tensor, edited: set[int]) -> Tensor:
    """Values at even distances, in float32 on the weights' device; NaN for each that is not there."""
    plain = weights.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    if not plain or weights.is_meta or weights.untyped_storage().data_ptr() in edited:
        return torch.full((SAMPLED,), torch.nan)
    flat, step = weights.detach().reshape(-1), max(weights.numel() // SAMPLED, 1)
    values = flat[step // 2 :: step][:SAMPLED].float()
    return nn.functional.pad(values, (0, SAMPLED - len(values)), value=torch.nan) if len(values) < SAMPLED else values


def weights_hash(model: nn.Module) -> str:
    """blake2b over names, dtypes and bytes of all parameters, and of the rest of the state that a checkpoint keeps.

    Every byte is read, so a copy in which one row was trained has another. The rest is what packed weights need
    beside them (integer buffers, scales) and what decides of adapters: which are active, merged, and how strong.
    Parameters that are on the disk ("map") count by name and shape.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in model.named_parameters():
        _digest_value(digest, name, parameter)
    parameter_names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, value in model.state_dict().items():
        if name not in parameter_names:
            _digest_value(digest, name, value)
    adapters = adapter_settings(model)
    if adapters:
        digest.update(json.dumps(adapters, sort_keys=True).encode())
    return digest.hexdigest()


def _digest_value(digest: Any, name: str, value: Any) -> None:
    """Name, dtype, shape and bytes of a tensor, or of the plain tensors inside one of a kind of its own."""
    if not isinstance(value, torch.Tensor):
        digest.update(f"{name} {value!r}".encode())
        return
    digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
    data: Any = value.data
    if type(data) is not torch.Tensor and is_traceable_wrapper_subclass(data):
        for part in data.__tensor_flatten__()[0]:
            _digest_value(digest, f"{name}.{part}", getattr(data, part))
    elif not value.is_meta:
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A tokenizer's parts, without padding and truncation, which belong to a call."""
    backend = fast_backend(tokenizer)
    if backend is None:
        return tokenizer.get_vocab()
    state = json.loads(backend.to_str())
    return {key: value for key, value in state.items() if key not in ("padding", "truncation")}


def tokenizer_hashes(tokenizer: PreTrainedTokenizerBase) -> tuple[str, dict[str, str]]:
    """Hash of a tokenizer, and of each of its parts.

    Putting 262,144 entries in order takes seconds, so that a state whose bytes were met before is not hashed again.
    """
    backend = fast_backend(tokenizer)
    text = json.dumps(tokenizer.get_vocab()) if backend is None else backend.to_str()
    key = hashlib.blake2b(text.encode(), digest_size=32).digest()
    if key not in HASHES:
        state = tokenizer_state(tokenizer)
        HASHES[key] = hash_tokenizer(state), {part: _hash_json(value) for part, value in state.items()}
    whole, parts = HASHES[key]
    return whole, dict(parts)


def hash_tokenizer(state: Mapping[str, Any]) -> str:
    """Hash of a tokenizer by its parts, as `tokenizer_state` gives them."""
    return _hash_json(state)


def _hash_json(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def check_made_for(origin: Origin, model: CausalModel, tokenizer: PreTrainedTokenizerBase | None, what: str) -> None:
    """Raise ArtifactError unless an artifact was made with this model, and with this tokenizer where one is given.

    An artifact of an earlier version has a hash of the whole configuration, which is worked out for this model too.
    """
    difference, name = model_difference(origin, model, tokenizer)
    if difference:
        by_force = (
            ""
            if difference.startswith(OTHER_KIND)
            else ", or, to use it here on purpose, give it this origin: "
            "dataclasses.replace(…, origin=babelscope.origin_of(model, tokenizer))"
        )
        raise ArtifactError(
            f"{what}: made for {origin.model!r}, came with {name!r}: {difference}; expected the same model and "
            f"tokenizer; open the one it was made with{by_force}"
        )


def model_difference(origin: Origin, model: CausalModel, tokenizer: PreTrainedTokenizerBase | None) -> tuple[str, str]:
    """What a model differs in from the one an artifact was made with, empty where in nothing; and the model's name."""
    live = _plain_origin(model, tokenizer, bool(origin.weights_hash))
    if origin.model_hash and not origin.model_hash.startswith(SCHEME):
        live = replace(live, model_hash=whole_config_hash(model.config.to_dict()))
    found = differences(origin, live, tokenizer is not None)
    mark = vocabulary_mark(model.config)
    if found and mark and not origin.weights_hash:
        found = differences(origin, _body_of(live, model, mark), tokenizer is not None)
    return found, live.model


def _body_of(live: Origin, model: CausalModel, mark: Mapping[str, Any]) -> Origin:
    """The origin of a model whose vocabulary was changed, as it would be of the same body with the earlier one.

    The body is all but the table of embeddings and the head. Neurons, directions and deltas are of the body, so that
    what was made before the vocabulary was changed stays of use. The tokenizer may be the new one or the earlier one.
    """
    embedding, head = (attribute(model, f"model.{part}")() for part in ("embedding", "head"))
    tables = {id(parameter) for module in (embedding, head) for parameter in module.parameters()}
    names = [name for name, value in model.named_parameters(remove_duplicate=False) if id(value) in tables]
    settings = {**live.config, **body_settings(model.config)}
    return replace(
        origin_without(live, model, names),
        model_hash=hash_settings(settings),
        config=settings,
        tokenizer_hash=mark["before"] if live.tokenizer_hash == mark["after"] else live.tokenizer_hash,
    )


def plan_of_model(model: CausalModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A model and all of its weights, for the plan of a run that may go on later; not its path, which may move."""
    return {
        "model": {**origin_of(model, tokenizer).names, "model": ""},
        "weights": weights_hash(model),
        "dtype": str(model.dtype),
    }
