"""What is installed here, and whether the library does a known sum right."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from babelscope_kernels.backend import why_torch
from babelscope_kernels.names import NAMES

from babelscope.models import open_model
from babelscope.recording import observe
from babelscope.runs import environment

EXTRAS = ("sae-lens", "transformer-lens", "nnsight", "peft", "gguf", "lm-eval", "jieba", "fugashi", "fasttext-predict")


def run_doctor() -> dict[str, Any]:
    """List versions, devices and the kernels' backends, and check a pass of the bundled model in two batch sizes."""
    extras = {}
    for name in EXTRAS:
        try:
            extras[name] = version(name)
        except PackageNotFoundError:
            extras[name] = "not installed"
    model, tokenizer = open_model("reference", device="cpu", dtype="float64")
    texts = {"en": ["the door is open", "rain again"], "fi": ["ovi on auki", "taas sataa"]}
    one, all_of_them = (observe(model, tokenizer, texts, batch_size=size).active for size in (1, 4))
    return {
        **environment(),
        "extras": extras,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "device_auto": "cuda" if torch.cuda.is_available() else "cpu",
        "kernels": list(NAMES),
        "kernels_run_on": kernel_backend(),
        "self_test": "passed" if torch.equal(one, all_of_them) else "FAILED: counts depend on the batch",
    }


def kernel_backend() -> str:
    """What the kernels run on where models are opened by default, and why."""
    here = torch.zeros(1, device="cuda" if torch.cuda.is_available() else "cpu")
    why = why_torch([here])
    return f"torch: {why}" if why else f"triton on {torch.cuda.get_device_name()}, where shapes and dtypes allow it"
