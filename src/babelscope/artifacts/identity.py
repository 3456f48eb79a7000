"""Which model an artifact was made with, and what two models differ in.

Three things say it. `model_hash` is of the settings that decide the computation, whatever release wrote them; those
settings are kept, so that a refusal names what differs. `weights` is a sample of the weights, a few values of every
parameter in bfloat16, taken in milliseconds and compared within a rounding, so that the same model in another dtype is
the same model. It tells a fine-tuned, merged or otherwise trained model; it can miss a change of few values, such as
one edited row. `weights_hash`, of every byte, misses nothing, and is there where it was asked for.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from babelscope.artifacts.model_settings import SCHEME, short_json
from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float32, Tensor
from babelscope.errors import ArtifactError

OTHER_KIND = "another kind of model"
"""Begins the difference of two models that no artifact can be moved between."""


def pack_sample(values: Float32[Tensor, " value"]) -> str:
    """A sample of weights as text: bfloat16, base64; NaN is a value that could not be read."""
    return base64.b64encode(values.to(torch.bfloat16).view(torch.uint8).cpu().numpy().tobytes()).decode()


def unpack_sample(text: str) -> Float32[Tensor, " value"]:
    """The values of `pack_sample`; raises ArtifactError for another text."""
    try:
        data = bytearray(base64.b64decode(text, validate=True))
        return torch.frombuffer(data, dtype=torch.bfloat16).float() if data else torch.zeros(0)
    except (binascii.Error, ValueError) as err:
        raise ArtifactError(f"a sample of weights is no base64 of bfloat16 ({err}); the artifact is damaged") from err


def compare_samples(first: str, second: str) -> str:
    """What two samples of weights differ in, empty where they are of the same weights.

    Values count as equal within one step of bfloat16, and 1e-7 for float16's smallest; unread ones are left out.
    """
    a, b = unpack_sample(first), unpack_sample(second)
    if len(a) != len(b):
        return f"other parameters ({len(a)} sampled values against {len(b)})"
    # Infinity less infinity is no number, so equal values are asked for by themselves.
    near = (a == b) | ((a - b).abs() <= torch.maximum(a.abs(), b.abs()) * 2**-7 + 1e-7)
    read = ~(a.isnan() | b.isnan())
    n_differ = int((read & ~near).sum())
    return f"other weights ({n_differ} of {int(read.sum())} sampled values differ)" if n_differ else ""


@dataclass(frozen=True)
class Origin:
    """What an artifact was made from; two artifacts combine only when these agree."""

    __repr__ = shown_by("model", "revision", "model_hash", "tokenizer_hash")

    model: str
    """Name or path the model was opened by; for people, never compared."""
    revision: str
    """Revision of the model where known, else empty."""
    model_hash: str
    """blake2b of the settings that decide the model's computation; empty where the model is not known."""
    tokenizer_hash: str
    """blake2b of the tokenizer's serialised form."""
    config: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The settings that decide, to name those that differ."""
    tokenizer: Mapping[str, str] = field(default_factory=dict, compare=False)
    """blake2b of the tokenizer's parts, to name those that differ."""
    weights: str = ""
    """Sample of the weights; empty where it was not taken."""
    weights_hash: str = ""
    """blake2b of every byte of the weights in their dtype; empty unless it was asked for."""

    @property
    def hashes(self) -> dict[str, str]:
        """All that is compared, by name; equal for equal models in one dtype."""
        names = ("model_hash", "tokenizer_hash", "weights", "weights_hash")
        return {name: getattr(self, name) for name in names}

    @property
    def names(self) -> dict[str, str]:
        """Name, revision and the two short hashes, for a card."""
        return {name: getattr(self, name) for name in ("model", "revision", "model_hash", "tokenizer_hash")}

    def check_same(self, other: "Origin", what: str) -> None:
        """Raise ArtifactError unless both come from the same model and tokenizer."""
        difference = differences(self, other)
        if difference:
            raise ArtifactError(
                f"{what}: made for {self.model!r}, came with {other.model!r}: {difference}; expected the same model "
                "and tokenizer; use the model it was made with"
            )


def read_origin(values: Any) -> Origin:
    """An Origin from JSON; those of earlier versions have four texts. Raises ArtifactError for anything else."""
    if not isinstance(values, Mapping):
        raise ArtifactError(f"an origin of {type(values).__name__} came; expected names and hashes")
    try:
        origin = Origin(**values)
    except TypeError as err:
        raise ArtifactError(f"an origin with other fields came ({err})") from err
    texts = (origin.model, origin.revision, *origin.hashes.values())
    if not all(isinstance(text, str) for text in texts) or not all(
        isinstance(table, Mapping) for table in (origin.config, origin.tokenizer)
    ):
        raise ArtifactError("an origin with fields of another kind came; expected texts and two tables")
    unpack_sample(origin.weights)
    return origin


def differences(a: Origin, b: Origin, tokenizer: bool = True) -> str:
    """What two origins differ in, in words; empty where they are of the same model.

    tokenizer: whether the tokenizers are compared.
    """
    if a.model_hash != b.model_hash:
        return _settings_apart(a, b)
    if tokenizer and a.tokenizer_hash != b.tokenizer_hash:
        parts = [part for part in a.tokenizer if b.tokenizer.get(part) != a.tokenizer[part]] if b.tokenizer else []
        which = f" in its {', '.join(parts)}" if parts else ""
        hashes = f"{a.tokenizer_hash or 'none'} against {b.tokenizer_hash or 'none'}"
        return f"another tokenizer{which} (tokenizer_hash {hashes})"
    if a.weights_hash and b.weights_hash and a.weights_hash != b.weights_hash:
        return f"other weights, or the same in another dtype (weights_hash {a.weights_hash} against {b.weights_hash})"
    return compare_samples(a.weights, b.weights) if a.weights and b.weights else ""


def _settings_apart(a: Origin, b: Origin) -> str:
    hashes = f"(model_hash {a.model_hash or 'none'} against {b.model_hash or 'none'})"
    if not a.model_hash or not b.model_hash:
        return f"one of them is of an unknown model {hashes}"
    if not a.model_hash.startswith(SCHEME) or not b.model_hash.startswith(SCHEME):
        return (
            f"a hash of the whole configuration, as earlier versions made it {hashes}: any setting of it may differ, "
            "one without effect too; make the artifact again where the model is the same"
        )
    kinds = [origin.config.get("model_type") for origin in (a, b)]
    if all(kinds) and kinds[0] != kinds[1]:
        return f"{OTHER_KIND}: {kinds[0]} against {kinds[1]} {hashes}"
    differing = list(_apart(a.config, b.config))
    return f"settings differ: {', '.join(differing[:6])}{' …' if len(differing) > 6 else ''} {hashes}"


def _apart(a: Mapping[str, Any], b: Mapping[str, Any], place: str = "") -> list[str]:
    """The settings that differ, as "name (value against value)"."""
    differing = []
    for name in sorted({*a, *b}):
        first, second = a.get(name), b.get(name)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            differing += _apart(first, second, f"{place}{name}.")
        elif first != second:
            differing.append(f"{place}{name} ({short_json(first)} against {short_json(second)})")
    return differing
