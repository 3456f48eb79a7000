"""Open a Hugging Face model and its tokenizer."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from babelscope.errors import PrerequisiteError, SiteError
from babelscope.models.families import FAMILIES
from babelscope.reference import MODEL as REFERENCE_MODEL


def open_model(
    name: str, *, device: str = "auto", dtype: str = "auto", revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a causal language model and its tokenizer, ready for evaluation.

    name: folder, Hugging Face id, or "reference" for the bundled model.
    device: "auto" (a GPU if there is one, else the CPU), "map" (spread over all devices by accelerate), or a device.
    dtype: "auto" (float32 on the CPU, the stored dtype elsewhere), or "float32", "bfloat16", "float16", "float64".
    Weights are read from safetensors only, and no code of the model's own is run.
    Raises PrerequisiteError if a file is missing, SiteError if the family is unknown.
    """
    path = str(REFERENCE_MODEL) if name == "reference" else name
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    kind = ("float32" if where == "cpu" else "auto") if dtype == "auto" else dtype
    if kind != "auto" and not isinstance(getattr(torch, kind, None), torch.dtype):
        raise PrerequisiteError(f"dtype {dtype!r} is unknown; expected auto, float32, bfloat16, float16 or float64")
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
        model = AutoModelForCausalLM.from_pretrained(
            path,
            revision=revision,
            dtype=kind if kind == "auto" else getattr(torch, kind),
            use_safetensors=True,
            **({"device_map": "auto"} if where == "map" else {}),
        )
    except (OSError, ValueError) as err:
        reason = str(err).strip().splitlines()[0]
        raise PrerequisiteError(f"model {name!r}: weights could not be read ({reason}); expected safetensors") from err
    if where != "map":
        model = model.to(torch.device(where))
    return model.eval(), tokenizer
