"""What a steering is, in sixteen hexadecimal digits: for caches, for the name of what was merged, and for origins."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, replace

import torch

from babelscope.artifacts.operation import Operation
from babelscope.artifacts.recipe import SteeringRecipe
from babelscope.axes import Tensor


def recipe_hash(recipe: SteeringRecipe) -> str:
    """blake2b over the model's hash, and every operation's tensors and settings, in order."""
    return operations_hash(recipe, recipe.origin.model_hash)


def operations_hash(operations: Iterable[Operation], beside: str) -> str:
    """blake2b over a text, and every operation's tensors and settings, in order."""
    digest = hashlib.blake2b(beside.encode(), digest_size=8)
    for operation in operations:
        for tensor in _tensors(operation):
            digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode() + tensor.detach().cpu().numpy().tobytes())
        condition = operation.gate.condition
        words = {
            "site": str(operation.site),
            **{name: getattr(operation, name) for name in ("kind", "unit", "mean_norm", "clean")},
            # A whole number is written as one with a point, and comes back so.
            "strength": float(operation.strength),
            "gate": asdict(replace(operation.gate, condition=None)),
            "schedule": asdict(operation.schedule),
            "top_k": None if operation.features is None else operation.features.top_k,
            "condition": None
            if condition is None
            else [str(condition.site), condition.threshold, condition.above, condition.pool]
            + ([condition.form, list(condition.left_out)] if condition.form != "whole" else []),
        }
        digest.update(json.dumps(words, sort_keys=True).encode())
    return digest.hexdigest()


def _tensors(operation: Operation) -> list[Tensor]:
    features, condition = operation.features, operation.gate.condition
    parts = [operation.vector, operation.indices, operation.matrix]
    if features is not None:
        parts += [features.encoder, features.bias, features.threshold, features.decoder, features.chosen]
    parts.append(None if condition is None else condition.vector)
    # A missing tensor is an empty one, so that two recipes cannot agree by moving one from a place to the next.
    return [torch.empty(0) if part is None else part for part in parts]
