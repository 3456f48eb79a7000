"""Which model an artifact was made with, and what two models differ in.

Three things say it. `model_hash` is of the settings that decide the computation, whatever release wrote them; those
settings are kept, so that a refusal names what differs. `weights` is a sample of the weights, a few values of every
parameter in bfloat16, taken in milliseconds and compared within a rounding, so that the same model in another dtype is
the same model. It tells a fine-tuned, merged or otherwise trained model; it can miss a change of few values, such as
one edited row. `weights_hash`, of every byte, misses nothing, and is there where it was asked for.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float32, Tensor
from babelscope.errors import ArtifactError

SCHEME = "c2-"
"""Begins a hash of the settings that decide; one without it is of the whole configuration, as it was made before."""
WITHOUT_EFFECT = re.compile(
    r"_.*|.*_token_ids?|.*(dropout|pdrop|layerdrop|drop_path_rate).*|.*jitter_noise|.*(loss_coef|loss_weight|z_loss)|"
    r"init_\w+|initializer_\w+|output_\w+|summary_\w+|classifier_\w+|num_labels|id2label|label2id|problem_type|"
    r"finetuning_task|task_specific_params|architectures|auto_map|name_or_path|tokenizer_class|prefix|"
    r"transformers_version|dtype|torch_dtype|quantization_config|attn_implementation|experts_implementation|"
    r"use_cache|cache_implementation|return_dict|torchscript|use_bfloat16|gradient_checkpointing|"
    r"chunk_size_feed_forward|is_decoder|is_encoder_decoder|add_cross_attention|cross_attention_hidden_size|"
    r"tie_word_embeddings|tie_encoder_decoder|ignore_keys_at_rope_validation|full_attn_idxs|"
    r"max_length|min_length|max_new_tokens|do_sample|early_stopping|num_beams|num_beam_groups|diversity_penalty|"
    r"temperature|top_k|top_p|typical_p|repetition_penalty|length_penalty|no_repeat_ngram_size|"
    r"encoder_no_repeat_ngram_size|bad_words_ids|num_return_sequences|remove_invalid_values|"
    r"exponential_decay_length_penalty|suppress_tokens|begin_suppress_tokens"
)
"""Settings that change no hidden state of a pass in eval mode: of the tokens, of training, output, storage, generation.
Whether the head is tied to the embeddings is told by the weights, not by the switch."""
OTHER_KIND = "another kind of model"
"""Begins the difference of two models that no artifact can be moved between."""
VOCABULARY_MARK = "babelscope_vocabulary"
"""Name in the configuration of a model whose vocabulary was changed, for what it was before: "settings", such as the
number of entries, and the hashes of the tokenizers "before" and "after"."""
RENAMED = {"num_local_experts": "num_experts"}
"""Names of later releases for what earlier ones called otherwise."""
CODED = {"swiglu_alpha": 1.702, "swiglu_limit": 7.0, "pretraining_tp": 1, "partial_rotary_factor": 1.0}
"""Values that releases without the setting had in their code."""
BY_LENGTH = ("dynamic", "yarn", "longrope")
"""Kinds of rotary positions that depend on the longest text the model is meant for."""
LAYER_RULES = ("sliding_window_pattern", "max_window_layers", "no_rope_layer_interval")
"""What the list of layers' types was worked out from; left out where that list is there."""


def deciding_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model's configuration that decide what it computes, in one form for all releases.

    config: the whole, as `model.config.to_dict()` gives it; parts of a larger model inside it are treated alike.
    What is absent, None, False or empty counts as one, since a release that adds a setting gives it such a value.
    """
    rope = config.get("rope_parameters")
    settings = {}
    for name, value in config.items():
        if WITHOUT_EFFECT.fullmatch(name) or CODED.get(name) == value:
            continue
        if name in LAYER_RULES and config.get("layer_types"):
            continue
        if name == "partial_rotary_factor" and isinstance(rope, Mapping) and rope.get(name) == value:
            continue
        if name in ("max_position_embeddings", "original_max_position_embeddings") and not _length_decides(rope):
            continue
        if isinstance(value, Mapping) and "model_type" in value:
            value = deciding_settings(value)
        elif name == "rope_parameters":
            value = _rope(value)
        value = _plain(value)
        if value not in (None, False, [], {}):
            settings[RENAMED.get(name, name)] = value
    return settings


def _length_decides(rope: Any) -> bool:
    """Whether the longest text is a setting of the positions; without rotary ones it is the size of their table."""
    return not isinstance(rope, Mapping) or any(kind in json.dumps(rope, default=str) for kind in BY_LENGTH)


def _rope(value: Any) -> Any:
    """Rotary positions, of each type of layer where there are several; some releases leave empty entries beside."""
    if not isinstance(value, Mapping):
        return value
    parts = {name: part for name, part in value.items() if isinstance(part, Mapping)}
    if parts:
        return {name: _rope(part) for name, part in parts.items()}
    return {name: part for name, part in value.items() if part is not None and (name, part) != _WHOLE}


_WHOLE = ("partial_rotary_factor", 1.0)


def _plain(value: Any) -> Any:
    """A value as JSON has it; a whole number with a point is the whole number."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def settings_of(config: Any) -> dict[str, Any]:
    """The settings that decide, of a live configuration, without what its class does not know."""
    known_names = _settings_known(type(config))
    return deciding_settings({name: value for name, value in config.to_dict().items() if name in known_names})


def vocabulary_mark(config: Any) -> dict[str, Any] | None:
    """What a live configuration says of its vocabulary before it was changed; None where nothing is said.

    Raises ArtifactError for a mark that no release of this library writes.
    """
    mark = vars(config).get(VOCABULARY_MARK)
    if mark is None:
        return None
    kinds = {"settings": Mapping, "before": str, "after": str}
    if not isinstance(mark, Mapping) or not all(isinstance(mark.get(name), kind) for name, kind in kinds.items()):
        raise ArtifactError(
            f"the model's configuration has {VOCABULARY_MARK} {_short(mark)}; expected its settings and two hashes; "
            "take it out of config.json, or apply the vocabulary again"
        )
    return dict(mark)


def body_settings(config: Any) -> dict[str, Any]:
    """The settings that decide, as they were before the vocabulary was changed."""
    mark = vocabulary_mark(config)
    return settings_of(config) | (dict(mark["settings"]) if mark else {})


@cache
def _settings_known(kind: Any) -> frozenset[str]:
    return frozenset(kind().to_dict())


def hash_settings(settings: Mapping[str, Any]) -> str:
    """Short blake2b of the settings that decide."""
    text = json.dumps(settings, sort_keys=True)
    return SCHEME + hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def whole_config_hash(config: Mapping[str, Any]) -> str:
    """The hash that artifacts were given before: of the whole configuration without its name, dtype and release."""
    precision = ("dtype", "torch_dtype", "quantization_config")
    volatile = ("_name_or_path", "transformers_version", "_attn_implementation", *precision)
    lasting = {key: value for key, value in config.items() if key not in volatile}
    return hashlib.blake2b(json.dumps(lasting, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


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
            differing.append(f"{place}{name} ({_short(first)} against {_short(second)})")
    return differing


def _short(value: Any) -> str:
    text = "unset" if value is None else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
