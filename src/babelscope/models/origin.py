"""What a model is, as names and hashes that travel with every artifact."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.storage import Origin, hash_config
from babelscope.errors import ArtifactError
from babelscope.models.plain import CausalModel
from babelscope.reference import MODEL as REFERENCE_MODEL
from babelscope.upstream.config import config_value, revision_of
from babelscope.upstream.tokenizers import backend_of


def origin_of(model: CausalModel, tokenizer: PreTrainedTokenizerBase | None) -> Origin:
    """Names and hashes that every artifact made from this model carries; without a tokenizer its hash is empty."""
    name = str(config_value(model.config, "name")) or type(model).__name__
    if Path(name) == REFERENCE_MODEL:
        name = "reference"
    return Origin(
        model=name,
        revision=revision_of(model.config),
        model_hash=hash_config(model.config.to_dict()),
        tokenizer_hash="" if tokenizer is None else _hash_json(_tokenizer_state(tokenizer)),
    )


def weights_hash(model: nn.Module) -> str:
    """blake2b over names, dtypes and bytes of all parameters: the hash of an Origin is of the configuration alone.

    Every byte is read, so a copy in which one row was trained has another.  Parameters that are on the disk ("map")
    count by name and shape.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        if not parameter.is_meta:
            digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> Any:
    backend = backend_of(tokenizer)
    if backend is None:
        return tokenizer.get_vocab()
    state = json.loads(backend.to_str())
    return {key: value for key, value in state.items() if key not in ("padding", "truncation")}


def _hash_json(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def check_made_for(origin: Origin, model: CausalModel, tokenizer: PreTrainedTokenizerBase | None, what: str) -> None:
    """Raise ArtifactError unless an artifact was made with this model, and with this tokenizer where one is given."""
    mine = origin_of(model, tokenizer)
    for field in ("model_hash",) if tokenizer is None else ("model_hash", "tokenizer_hash"):
        if getattr(origin, field) != getattr(mine, field):
            raise ArtifactError(
                f"{what}: made for {origin.model!r} ({field} {getattr(origin, field)}), came with {mine.model!r} "
                f"({getattr(mine, field)}); expected the same model and tokenizer; open the one it was made with"
            )
