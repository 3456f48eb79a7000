"""Weights as an autoencoder's maker stored them → one plain form, in the units of the residual stream."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from babelscope.artifacts.sae import Activation, LoadedSAE, Scaling
from babelscope.axes import Tensor
from babelscope.errors import ArtifactError
from babelscope.sites import Site

ACTIVATIONS: dict[str, Activation] = {"standard": "relu", "jumprelu": "jumprelu", "topk": "topk"}
"""Architectures of sae-lens that encode at one place and decode there, one linear map each way."""
SCALINGS: dict[str, Scaling] = {
    "none": "none",
    "expected_average_only_in": "none",
    "constant_norm_rescale": "constant_norm",
    "layer_norm": "layer_norm",
}
AVERAGE = "expected_average_only_in"
TYPES: dict[str, tuple[type, ...]] = {
    "metadata": (dict,),
    "activation_fn_kwargs": (dict,),
    "normalize_activations": (str, bool),
    "apply_b_dec_to_input": (bool,),
    "rescale_acts_by_decoder_norm": (bool,),
    **dict.fromkeys(("architecture", "activation_fn", "activation_fn_str"), (str,)),
    **dict.fromkeys(("hook_name", "hook_point", "model_name", "model_hash"), (str,)),
}
"""What the settings that are read here may be, beside null."""
NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")


class Stored(NamedTuple):
    """What was read: tensors by sae-lens's names, and the settings that say what they mean."""

    id: str
    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    """In sae-lens's words, such as architecture, k, apply_b_dec_to_input and normalize_activations."""


def plain_form(stored: Stored, site: Site, *, average_norm: float | None = None) -> LoadedSAE:
    """Fold input bias, input factor and decoder norms into the weights; float64 inside, float32 out.

    apply_b_dec_to_input: b = b_enc - b_dec W_enc, so that the encoder reads x itself.
    expected_average_only_in: s = √d / average_norm; W_enc·s, W_dec/s, b_dec/s; the threshold, in units of pre, stays.
    rescale_acts_by_decoder_norm (topk): n = |W_dec|; W_enc·n, b·n, W_dec/n.
    average_norm: mean length of the activations it was trained on, where its files do not have the factor folded in.
    Raises ArtifactError for an architecture, a scaling or a tensor that this form cannot hold.
    """
    settings, tensors = sae_settings(stored), check_tensors(stored)
    w_enc, b_enc, w_dec, b_dec = (tensors[name].double() for name in NAMES)
    if settings.get("apply_b_dec_to_input", True):
        b_enc = b_enc - b_dec @ w_enc
    if settings.get("rescale_acts_by_decoder_norm", False):
        norm = w_dec.norm(dim=1)
        w_enc, b_enc, w_dec = w_enc * norm, b_enc * norm, w_dec / norm[:, None]
    if settings["normalize_activations"] == AVERAGE:
        factor = math.sqrt(w_enc.shape[0]) / check_average(stored, average_norm)
        w_enc, w_dec, b_dec = w_enc * factor, w_dec / factor, b_dec / factor
    elif average_norm is not None:
        raise ArtifactError(
            f"SAE {stored.id!r} was not trained on inputs scaled by their average length, came with average_norm "
            f"{average_norm}; expected none; leave it out"
        )
    threshold = tensors.get("threshold", torch.zeros_like(b_enc))
    metadata = settings.get("metadata") or {}
    return LoadedSAE(
        id=stored.id,
        site=site,
        w_enc=w_enc.float().contiguous(),
        b_enc=b_enc.float(),
        w_dec=w_dec.float().contiguous(),
        b_dec=b_dec.float(),
        activation=ACTIVATIONS[settings["architecture"]],
        threshold=threshold.float().clamp(min=0) if settings["architecture"] == "jumprelu" else threshold.float() * 0,
        k=int(settings["k"]) if settings["architecture"] == "topk" else 0,
        scaling=SCALINGS[settings["normalize_activations"]],
        model=str(metadata.get("model_name") or settings.get("model_name") or ""),
        model_hash=str(metadata.get("model_hash") or ""),
    )


def check_types(name: str, settings: Mapping[str, Any]) -> None:
    """Raise ArtifactError for a setting, or one in its metadata, of another type than sae-lens writes."""
    for key, types in TYPES.items():
        for table in (settings, settings.get("metadata") or {}):
            value = table.get(key) if isinstance(table, Mapping) else table
            if value is not None and not isinstance(value, types):
                expected = " or ".join(kind.__name__ for kind in types)
                raise ArtifactError(
                    f"SAE {name!r}: {key} is {str(value)[:80]!r}; expected {expected}; fetch its settings again"
                )


def sae_settings(stored: Stored) -> dict[str, Any]:
    """Settings in the words of sae-lens 6, with its defaults; raises ArtifactError for what this form cannot hold.

    Before version 6 a TopK was a standard one whose activation was called topk, and its k stood beside that.
    """
    settings = {"architecture": "standard", "normalize_activations": "none", **stored.settings}
    if not settings["normalize_activations"] or settings["normalize_activations"] is True:
        settings["normalize_activations"] = AVERAGE if settings["normalize_activations"] else "none"
    activation = settings.get("activation_fn") or settings.get("activation_fn_str") or "relu"
    if activation == "topk":
        k = (settings.get("activation_fn_kwargs") or {}).get("k", settings.get("k"))
        settings |= {"architecture": "topk", "k": k}
    faults = []
    if settings["architecture"] not in ACTIVATIONS:
        faults.append(f"architecture {settings['architecture']!r} (expected one of {', '.join(ACTIVATIONS)})")
    if settings["normalize_activations"] not in SCALINGS:
        faults.append(f"scaling {settings['normalize_activations']!r} (expected one of {', '.join(SCALINGS)})")
    if settings.get("finetuning_scaling_factor"):
        faults.append("a fine-tuned scaling factor (expected none)")
    if activation not in ("relu", "topk"):
        faults.append(f"activation {activation!r} (expected relu or topk)")
    if settings["architecture"] == "topk" and type(settings.get("k")) is not int:
        faults.append(f"k {settings.get('k')!r} (expected the number of features a token)")
    if faults:
        raise ArtifactError(f"SAE {stored.id!r}: {'; '.join(faults)}; save it for inference, or choose another")
    return settings


def check_tensors(stored: Stored) -> Mapping[str, Tensor]:
    """The tensors, if they are those of the architecture and no other."""
    expected = {*NAMES, *(["threshold"] if stored.settings.get("architecture") == "jumprelu" else [])}
    if set(stored.tensors) != expected:
        raise ArtifactError(
            f"SAE {stored.id!r}: tensors {', '.join(sorted(stored.tensors))}; expected {', '.join(sorted(expected))}; "
            "save it for inference, or choose another"
        )
    if stored.tensors["W_enc"].ndim != 2:
        raise ArtifactError(
            f"SAE {stored.id!r}: W_enc is {list(stored.tensors['W_enc'].shape)}, expected [hidden, features]; "
            "fetch the files again"
        )
    hidden, features = stored.tensors["W_enc"].shape
    shapes = {"b_enc": [features], "W_dec": [features, hidden], "b_dec": [hidden], "threshold": [features]}
    for name in expected - {"W_enc"}:
        if list(stored.tensors[name].shape) != shapes[name]:
            raise ArtifactError(
                f"SAE {stored.id!r}: {name} is {list(stored.tensors[name].shape)}, expected {shapes[name]} for an "
                f"encoder of {hidden} to {features}; the files do not belong together"
            )
    return stored.tensors


def check_average(stored: Stored, average_norm: float | None) -> float:
    """The mean input length; raises ArtifactError where none is known, for features would then be in unknown units."""
    if average_norm is None or not 0 < average_norm < math.inf:
        raise ArtifactError(
            f"SAE {stored.id!r} was trained on inputs scaled by their average length, and average_norm is "
            f"{average_norm}; expected that length, above 0; pass average_norm=…, or save it with the factor folded in"
        )
    return float(average_norm)
