"""What is installed here, and whether counting, steering and training are right with it."""

from importlib.metadata import PackageNotFoundError, version

from babelscope_kernels.names import NAMES

from babelscope.cli.arguments import Device, FailedResult, ModelName, Result
from babelscope.runs import environment

EXTRAS = (
    "sae-lens",
    "transformer-lens",
    "nnsight",
    "peft",
    "gguf",
    "lm-eval",
    "gradio",
    "jieba",
    "fugashi",
    "fasttext-predict",
)


def run_doctor(*, model: ModelName = "reference", device: Device = "cpu") -> Result:
    """List versions, devices and the kernels' backends, and try counting, steering and training against plain torch.

    Each of the three is "passed" or what went wrong; where one fails, the exit code is 1.

    Args:
        model: folder, hub id, or "reference" for the bundled one, which takes seconds.
    """
    import torch

    from babelscope.cli.doctor_checks import CHECKS, outcome
    from babelscope.models import open_model

    extras = {}
    for name in EXTRAS:
        try:
            extras[name] = version(name)
        except PackageNotFoundError:
            extras[name] = "not installed"
    model_and_tokenizer = open_model(model, device=device, dtype="float32")
    checks = {name: outcome(check, *model_and_tokenizer) for name, check in CHECKS.items()}
    failed = [name for name, result in checks.items() if result != "passed"]
    facts = {
        **environment(),
        "extras": extras,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "device_auto": "cuda" if torch.cuda.is_available() else "cpu",
        "kernels": list(NAMES),
        "kernels_run_on": kernel_backend(),
        **checks,
        "self_test": f"FAILED: {', '.join(failed)}" if failed else "passed",
    }
    return FailedResult(facts) if failed else facts


def kernel_backend() -> str:
    """What the kernels run on where models are opened by default, and why."""
    import torch
    from babelscope_kernels.backend import why_torch

    on_device = torch.zeros(1, device="cuda" if torch.cuda.is_available() else "cpu")
    why = why_torch([on_device])
    return f"torch: {why}" if why else f"triton on {torch.cuda.get_device_name()}, where shapes and dtypes allow it"
