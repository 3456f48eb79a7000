"""Whether a checkpoint's settings are those of a model that can be opened, decided before its weights are read."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from babelscope.errors import PrerequisiteError, SiteError, first_line
from babelscope.models.checkpoints import ADAPTER, NO_OWN_CODE, Checkpoint, adapter_error
from babelscope.models.families import FAMILIES
from babelscope.models.family_advice import refuse_unknown_family
from babelscope.models.wrappers import WRAPPERS, text_model_of
from babelscope.upstream.config import config_value
from babelscope.upstream.hub_answers import config_is_cached, no_answer_of_hub
from babelscope.upstream.names import imported

OTHER_HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice", "RewardModel")
UNPACKED = ("mxfp4", "fp8")
"""Quantised forms that transformers turns into plain numbers while it reads them."""
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, NotImplementedError, ImportError)
"""What transformers raises for settings that it cannot read, or make a model of."""


def read_settings(checkpoint: Checkpoint, revision: str | None) -> PretrainedConfig:
    """The configuration of a causal language model of a known family.

    Raises PrerequisiteError where it cannot be read or needs code of its own, SiteError for another kind of model.
    """
    options: dict[str, Any] = {"revision": revision, **NO_OWN_CODE}
    if checkpoint.gguf:
        options["gguf_file"] = checkpoint.gguf.name
    else:
        _check_own_code(checkpoint, _raw_settings(checkpoint, revision))
    try:
        config = AutoConfig.from_pretrained(checkpoint.source, **options)
    except (*UNREADABLE, StrictDataclassError) as err:
        way = "take the same model as safetensors" if checkpoint.gguf else "update transformers, or check config.json"
        # A field that does not fit is named in the first line, what is wrong with it in the second.
        reason = " ".join(str(err).split())[:200] if isinstance(err, StrictDataclassError) else first_line(err)
        raise PrerequisiteError(
            f"model {checkpoint.name!r}: its configuration could not be read ({reason}); expected a model "
            f"that transformers has in its own code; {way}"
        ) from err
    _check_type(checkpoint.name, config)
    return config


def refuse_unbuildable(checkpoint: Checkpoint, config: PretrainedConfig) -> None:
    """Raise PrerequisiteError where no model can be made of the settings, whatever the weights are."""
    try:
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (*UNREADABLE, AttributeError, StrictDataclassError) as err:
        raise PrerequisiteError(
            f"model {checkpoint.name!r}: no model can be made of its configuration ({type(err).__name__}: "
            f"{first_line(err)}); expected values that transformers knows; check config.json, such as hidden_act"
        ) from err


def _raw_settings(checkpoint: Checkpoint, revision: str | None) -> Mapping[str, Any]:
    """config.json as it was written; nothing of it is run."""
    if checkpoint.local is None and (reason := no_answer_of_hub(config_is_cached(checkpoint.source, revision))):
        raise PrerequisiteError(
            f"model {checkpoint.name!r}: no such folder or file, and the hub cannot be asked ({reason}); expected "
            "'reference', a folder, a .gguf file or a hub id; check the name, and the network for a hub id"
        )
    try:
        return PretrainedConfig.get_config_dict(checkpoint.source, revision=revision)[0]
    except (OSError, ValueError, RuntimeError) as err:
        if checkpoint.local is None and "config.json" in str(err):
            _check_hub_adapter(checkpoint, revision)
        raise PrerequisiteError(
            f"model {checkpoint.name!r}: config.json could not be read ({first_line(err)}); expected 'reference', a "
            "folder, a .gguf file or a hub id with config.json, safetensors and a tokenizer; check the name, and the "
            "network for a hub id"
        ) from err


def _check_hub_adapter(checkpoint: Checkpoint, revision: str | None) -> None:
    adapter_file = imported("transformers.utils.hub", "transformers.files")(
        checkpoint.source,
        ADAPTER,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if adapter_file is not None:
        raise PrerequisiteError(adapter_error(checkpoint.name, {}))


def _check_own_code(checkpoint: Checkpoint, raw: Mapping[str, Any]) -> None:
    """Raise PrerequisiteError for a model that only runs by code in its own folder."""
    kind = str(raw.get("model_type", ""))
    if not kind and not raw.get("auto_map"):
        raise PrerequisiteError(
            f"model {checkpoint.name!r}: config.json has no model_type; expected a checkpoint of transformers; check "
            "the folder"
        )
    if raw.get("auto_map") and not _in_transformers(kind):
        raise PrerequisiteError(
            f"model {checkpoint.name!r}: type {kind!r} runs by code of its own (auto_map in config.json: "
            f"{str(raw['auto_map'])[:200]}), which is never run here; expected a model that transformers has; read "
            "that code, open the model with transformers yourself, and describe its modules with babelscope.add_family"
        )
    if kernel := hub_kernel(raw):
        raise PrerequisiteError(
            f"model {checkpoint.name!r}: config.json names {kernel!r}, code of the hub, for its passes, which is never "
            "run here; expected none; take the line out of config.json"
        )


def hub_kernel(settings: Mapping[str, Any]) -> str | None:
    """A repository of compiled code that settings, or a part of them, name for attention or experts; None for none.

    transformers fetches and runs what stands there, where its kernels package is installed, and asks nobody.
    """
    for key, value in settings.items():
        entries = list(value.values()) if isinstance(value, Mapping) else [value]
        names = [entry for entry in entries if isinstance(entry, str) and "/" in entry]
        if "_implementation" in key and names:
            return names[0]
        if isinstance(value, Mapping) and (name := hub_kernel(value)):
            return name
    return None


def _in_transformers(kind: str) -> bool:
    try:
        AutoConfig.for_model(kind)
    except ValueError:
        return False
    return True


def _check_type(name: str, config: PretrainedConfig) -> None:
    """Raise SiteError unless the model writes text from left to right and its family has a table."""
    kind = config_value(config, "type")
    if kind not in (*FAMILIES, *WRAPPERS) and config_value(config, "encoder_decoder"):
        raise SiteError(
            f"model {name!r} is of type {kind!r}, an encoder–decoder; expected a decoder alone, that writes text from "
            "left to right; take such a model, as sites of two stacks have no names here"
        )
    text = text_model_of(config)
    if text is not None:
        return
    if kind in FAMILIES:
        heads = [head for head in config_value(config, "architectures") or () if head.endswith(OTHER_HEADS)]
        if heads:
            raise SiteError(
                f"model {name!r} is a {heads[0]}, which has no head over the vocabulary; expected a causal language "
                "model; open the one that it was trained from"
            )
        return
    if kind in imported("transformers.models.auto.modeling_auto", "transformers.encoders"):
        raise SiteError(
            f"model {name!r} is of type {kind!r}, an encoder, which fills gaps and writes no text; expected a decoder, "
            "that writes text from left to right; take such a model"
        )
    refuse_unknown_family(name, config)


def quantisation_options(name: str, config: PretrainedConfig, fewer_bits: bool) -> dict[str, Any]:
    """What `from_pretrained` is given for a checkpoint that is stored quantised; nothing for a plain one.

    fewer_bits: fewer bits were asked for by dtype.
    Raises PrerequisiteError for a form that stays packed, whose weights could be neither read nor changed.
    """
    stored = vars(config).get("quantization_config")
    if stored is None:
        return {}
    settings = stored if isinstance(stored, dict) else stored.to_dict()
    method = str(settings.get("quant_method", "") or "bitsandbytes").rsplit(".", 1)[-1].lower()
    if fewer_bits:
        raise PrerequisiteError(
            f"model {name!r}: is stored quantised by {method!r}, and dtype asks for fewer bits once more; expected one "
            "of the two; open it with dtype='auto'"
        )
    if method in UNPACKED:
        return {"quantization_config": imported("transformers", f"transformers.{method}")(dequantize=True)}
    if method == "bitsandbytes":
        if find_spec("bitsandbytes") is None:
            raise PrerequisiteError(
                f"model {name!r}: is stored quantised by bitsandbytes, which is not installed; pip install "
                "bitsandbytes, or open the unquantised checkpoint"
            )
        return {}
    raise PrerequisiteError(
        f"model {name!r}: is stored quantised by {method!r}, whose packed weights can be neither read nor changed; "
        f"expected plain weights, GGUF, bitsandbytes, {' or '.join(UNPACKED)}; open the unquantised checkpoint that it "
        "was made from"
    )
