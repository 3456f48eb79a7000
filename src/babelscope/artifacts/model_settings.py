"""The settings of a model's configuration that decide what it computes, in one form for all releases."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

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
            f"the model's configuration has {VOCABULARY_MARK} {short_json(mark)}; expected its settings and two "
            "hashes; take it out of config.json, or apply the vocabulary again"
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


def short_json(value: Any) -> str:
    """A setting in a message: its JSON, cut at 40 letters; "unset" for None."""
    text = "unset" if value is None else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
