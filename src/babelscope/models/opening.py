"""Open a Hugging Face model and its tokenizer."""

import logging
import re
from collections.abc import Mapping
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from babelscope.errors import PrerequisiteError, first_line
from babelscope.models.checkpoints import (
    NO_OWN_CODE,
    Checkpoint,
    adapter_error,
    check_weight_files,
    find_checkpoint,
    first_dtype,
    own_code,
)
from babelscope.models.families import family_of
from babelscope.models.gguf_files import forget_packing, gguf_options, half_precision_of, read_gguf_tokenizer
from babelscope.models.model_kind import quantisation_options, read_settings, refuse_unbuildable
from babelscope.models.wrappers import forget_renamings, quiet_loading, text_model_of
from babelscope.upstream.config import config_value
from babelscope.upstream.names import attribute, parameter_name

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")
BUFFERS = re.compile(r"(rotary_emb\.inv_freq|\b(attn|attention)\.(masked_)?bias)$")
"""Tables that old checkpoints carry and every model works out for itself."""

_log = logging.getLogger(__name__)


def open_model(
    name: str | PathLike[str], *, device: str = "auto", dtype: str = "auto", revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a causal language model and its tokenizer, ready for evaluation.

    name: folder, .gguf file or folder with one, Hugging Face id, or "reference" for the bundled model. Of a GGUF file
    the weights come as plain numbers, with the tokenizer and chat template that the file carries.
    device: "auto" (a GPU if there is one, else the CPU), "map" (spread over all devices by accelerate), or a device.
    dtype: "auto" (float32 on the CPU, the stored dtype elsewhere, bfloat16 for a quantised GGUF file), or "float32",
    "bfloat16", "float16", "float64"; "int8" and "int4" (NF4) store the projections in fewer bits with bitsandbytes, for
    reading and steering only.
    Weights are read from safetensors and GGUF only, and no code of the model's own is run. One line of the log at INFO,
    which every command prints, says what is opened, how large its files are, and where to: a large model takes minutes.
    Raises PrerequisiteError if a file or a weight is missing or too many, or the machine lacks the device, SiteError if
    the family is unknown or the model is no decoder.
    """
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    few_bits = dtype in ("int8", "int4")
    if not few_bits and dtype not in DTYPES:
        raise PrerequisiteError(f"dtype {dtype!r} is unknown; expected {', '.join(DTYPES)}, int8 or int4")
    if where != "map":
        check_device(where)
    checkpoint = find_checkpoint(name)
    config = read_settings(checkpoint, revision)
    check_weight_files(checkpoint)
    options = quantisation_options(checkpoint.name, config, few_bits)
    if few_bits:
        options["quantization_config"] = _bits(dtype, where)
    if few_bits or where == "map":
        options["device_map"] = "auto" if where == "map" else {"": where}
    _say_opening(checkpoint, where, dtype)
    tokenizer = _read_tokenizer(checkpoint, config, revision)
    model = _read_weights(checkpoint, config, _kind(checkpoint, dtype, where), {"revision": revision, **options})
    if where != "map" and not few_bits:
        model.to(torch.device(where))
    _tell_surplus_tokens(checkpoint.name, model, tokenizer)
    return model.eval(), tokenizer


def _say_opening(checkpoint: Checkpoint, where: str, dtype: str) -> None:
    """One line before the weights are read; files of the hub may not be here yet, so their size is not said."""
    files = [checkpoint.gguf] if checkpoint.gguf else list((checkpoint.local or Path()).glob("*.safetensors"))
    size = f", {sum(file.stat().st_size for file in files) / 1e9:.2f} GB" if files and checkpoint.local else ""
    place = "over all devices" if where == "map" else f"on {where}"
    _log.info("opening model %r%s, %s, dtype %s", checkpoint.name, size, place, dtype)


def stored_dtype(name: str | PathLike[str], revision: str | None = None) -> torch.dtype:
    """What a checkpoint's weights are stored as; of blocks of a GGUF file, what they are opened as.

    By its settings; where these do not say it, by the first weight of a folder, and float32 for an id on the hub.
    """
    checkpoint = find_checkpoint(name)
    if checkpoint.gguf:
        return half_precision_of(checkpoint.gguf)
    config = read_settings(checkpoint, revision)
    texts = attribute(config, "config.text")()
    stored = config_value(config, "dtype") or config_value(texts, "dtype")
    return (first_dtype(checkpoint) or torch.float32) if stored is None else stored


def _kind(checkpoint: Checkpoint, dtype: str, where: str) -> torch.dtype | str:
    """What weights are read as."""
    if dtype not in ("auto", "int8", "int4"):
        return getattr(torch, dtype)
    if where == "cpu":
        return torch.float32
    return half_precision_of(checkpoint.gguf) if checkpoint.gguf else "auto"


def _read_tokenizer(checkpoint: Checkpoint, config: PretrainedConfig, revision: str | None) -> PreTrainedTokenizerBase:
    try:
        if checkpoint.gguf:
            return read_gguf_tokenizer(checkpoint.gguf, config)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.source, revision=revision, **NO_OWN_CODE)
        if not set(tokenizer.get_vocab()) - {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}:
            # What transformers makes of a folder without the files of one.
            raise ValueError("its files are missing: it has special tokens and no other ones")
        return tokenizer
    except PrerequisiteError:
        raise
    except Exception as err:  # The tokenizers library raises plain Exception for whatever is damaged.
        if "trust_remote_code" in str(err):
            raise PrerequisiteError(
                f"model {checkpoint.name!r}: its tokenizer could not be read, as it runs by code of its own"
                f"{own_code(checkpoint)}, which is never run here; expected one that the tokenizers library runs; "
                "read that code, convert the tokenizer to tokenizer.json, and save that beside the weights"
            ) from err
        raise PrerequisiteError(
            f"model {checkpoint.name!r}: its tokenizer could not be read ({first_line(err)}); expected tokenizer.json "
            "and tokenizer_config.json beside the weights, or a GGUF file that has one; save it there: "
            "transformers.AutoTokenizer.from_pretrained(<the base model>).save_pretrained(<this folder>)"
        ) from err


def _read_weights(
    checkpoint: Checkpoint, config: PretrainedConfig, dtype: torch.dtype | str, options: Mapping[str, Any]
) -> Any:
    """The model with every weight of the checkpoint in its place and none besides."""
    form = gguf_options(checkpoint.gguf) if checkpoint.gguf else {"use_safetensors": True}
    if checkpoint.gguf and "quantization_config" in options:
        raise PrerequisiteError(
            f"model {checkpoint.name!r}: a GGUF file came with int8 or int4; expected a plain dtype for it; leave "
            "dtype out, as the file's own numbers are read"
        )
    text = text_model_of(config)
    if text is not None:
        config, form = text.config, {**form, "config": text.config, "key_mapping": dict(text.names)}
    try:
        with quiet_loading(text is not None):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                checkpoint.source, output_loading_info=True, dtype=dtype, **options, **form, **NO_OWN_CODE
            )
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError, ImportError, SafetensorError) as err:
        refuse_unbuildable(checkpoint, config)
        raise PrerequisiteError(
            f"model {checkpoint.name!r}: weights could not be read ({first_line(err)}); expected whole safetensors of "
            "the shapes in config.json, or a whole GGUF file; fetch them again"
        ) from err
    model, loading = loaded
    if any(type(module).__module__.split(".")[0] == "peft" for module in model.modules()):
        raise PrerequisiteError(adapter_error(checkpoint.name, {}))
    source = "what from_pretrained tells of its loading"
    lacking = loading[parameter_name(loading, "loading.missing", source)]
    if lacking:
        raise PrerequisiteError(
            f"model {checkpoint.name!r}: no weights came for {_few(lacking)}; expected all of "
            "them, random ones would take their place; fetch the checkpoint again"
        )
    surplus = loading[parameter_name(loading, "loading.surplus", source)]
    if text is not None:
        forget_renamings(model)
        # The rest is the wrapper's, of images.
        surplus = [key for key in surplus if key.startswith(f"{family_of(config).layers}.")]
    _check_surplus(checkpoint.name, config, surplus)
    if checkpoint.gguf:
        forget_packing(model, checkpoint.gguf)
    return model


def _check_surplus(name: str, config: PretrainedConfig, keys: set[str] | list[str]) -> None:
    """Refuse weights inside the layers that the model has no place for, and say those outside.

    Inside, the checkpoint computes something else than the model that was built: more layers, biases, an adapter.
    """
    surplus = [key for key in keys if not BUFFERS.search(key)]
    layers = family_of(config).layers.rsplit(".", 1)[-1]
    layer_keys = [key for key in surplus if re.search(rf"(^|\.){layers}\.\d+\.", key)]
    if layer_keys:
        raise PrerequisiteError(
            f"model {name!r}: the checkpoint has {len(layer_keys)} weights in its layers that its config has no place "
            f"for ({_few(layer_keys)}); expected none, the model would compute without them; correct config.json, or "
            "merge the adapter they belong to"
        )
    if surplus:
        _log.warning("model %r: %d weights of the checkpoint are not used (%s)", name, len(surplus), _few(surplus))


def _tell_surplus_tokens(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Say that some tokens have no row in the embeddings; text that holds one is refused before its pass."""
    rows = attribute(model, "model.embedding")().weight.shape[0]
    without = [token for token, index in tokenizer.get_vocab().items() if index >= rows]
    if without:
        _log.warning(
            "model %r: %d tokens of the tokenizer have no row in its %d embeddings (%s); text with one is refused",
            name, len(without), rows, _few(without),
        )  # fmt: skip


def _few(names: Any) -> str:
    return ", ".join(sorted(names)[:5])


def check_device(name: str) -> None:
    """Raise PrerequisiteError unless torch can put a tensor there."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as err:
        raise PrerequisiteError(
            f"device {name!r} cannot be used here ({first_line(err)}); expected auto, map, cpu, cuda or one such "
            "as cuda:1"
        ) from err


def _bits(dtype: str, where: str) -> BitsAndBytesConfig:
    """Settings of bitsandbytes; raises PrerequisiteError where it is not installed."""
    if find_spec("bitsandbytes") is None:
        raise PrerequisiteError(
            f"dtype {dtype!r} came; expected bitsandbytes to be installed for it; "
            "pip install bitsandbytes, or open in bfloat16"
        )
    if dtype == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = torch.float32 if where == "cpu" else torch.bfloat16
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)
