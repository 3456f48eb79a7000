"""Open a Hugging Face model and its tokenizer."""

from importlib.util import find_spec
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from babelscope.errors import PrerequisiteError, SiteError
from babelscope.models.families import FAMILIES
from babelscope.reference import MODEL as REFERENCE_MODEL
from babelscope.upstream.names import parameter_name


def open_model(
    name: str, *, device: str = "auto", dtype: str = "auto", revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a causal language model and its tokenizer, ready for evaluation.

    name: folder, Hugging Face id, or "reference" for the bundled model.
    device: "auto" (a GPU if there is one, else the CPU), "map" (spread over all devices by accelerate), or a device.
    dtype: "auto" (float32 on the CPU, the stored dtype elsewhere), or "float32", "bfloat16", "float16", "float64";
    "int8" and "int4" (NF4) store the projections in fewer bits with bitsandbytes, for reading and steering only.
    Weights are read from safetensors only, and no code of the model's own is run.
    Raises PrerequisiteError if a file or a weight is missing, or the machine lacks the device, SiteError if the family
    is unknown.
    """
    path = str(REFERENCE_MODEL) if name == "reference" else name
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    few_bits = dtype in ("int8", "int4")
    kind = ("float32" if where == "cpu" else "auto") if dtype == "auto" or few_bits else dtype
    if kind not in ("auto", "float32", "bfloat16", "float16", "float64"):
        raise PrerequisiteError(
            f"dtype {dtype!r} is unknown; expected auto, float32, bfloat16, float16, float64, int8 or int4"
        )
    if where != "map":
        check_device(where)
    quantised = {"quantization_config": _bits(dtype, where)} if few_bits else {}
    try:
        config = AutoConfig.from_pretrained(path, revision=revision)
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
    except (OSError, ValueError, KeyError) as err:
        reason = str(err).strip().splitlines()[0]
        raise PrerequisiteError(
            f"model {name!r}: config or tokenizer could not be read ({reason}); expected a folder or hub id with "
            "config.json, safetensors and a tokenizer; check the name, or save the tokenizer beside the model"
        ) from err
    if config.model_type not in FAMILIES:
        raise SiteError(f"model {name!r} is of type {config.model_type!r}; expected one of {', '.join(FAMILIES)}")
    try:
        opened: Any = AutoModelForCausalLM.from_pretrained(
            path,
            output_loading_info=True,
            revision=revision,
            dtype=kind if kind == "auto" else getattr(torch, kind),
            use_safetensors=True,
            **({"device_map": "auto" if where == "map" else {"": where}} if few_bits or where == "map" else {}),
            **quantised,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as err:
        reason = str(err).strip().splitlines()[0]
        raise PrerequisiteError(
            f"model {name!r}: weights could not be read ({reason}); expected whole safetensors of the shapes in "
            "config.json; fetch them again"
        ) from err
    model, loading = opened
    lacking = loading[parameter_name(loading, "loading.missing", "what from_pretrained tells of its loading")]
    if lacking:
        raise PrerequisiteError(
            f"model {name!r}: no weights came for {', '.join(sorted(lacking)[:5])}; expected all of "
            "them, random ones would take their place; fetch the checkpoint again"
        )
    if where != "map" and not few_bits:
        model.to(torch.device(where))
    return model.eval(), tokenizer


def check_device(name: str) -> None:
    """Raise PrerequisiteError unless torch can put a tensor there."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as err:
        reason = str(err).strip().splitlines()[0]
        raise PrerequisiteError(
            f"device {name!r} can not be used here ({reason}); expected auto, map, cpu, cuda or one such as cuda:1"
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
