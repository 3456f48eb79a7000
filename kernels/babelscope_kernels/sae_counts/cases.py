"""Shapes, inputs and bounds of sae_counts: of the test and of the benchmark."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from babelscope_kernels.checking import Case
from babelscope_kernels.sae_counts.dispatch import sae_counts
from babelscope_kernels.sae_counts.reference import sae_counts_reference
from babelscope_kernels.timing import Timing

SUMS = 1e-6
"""Relative RMS error of the sums. Counts must be equal: the inputs are small whole numbers and halves, so that z is
exact in every order of summation and ties with the threshold are frequent."""


def _case(
    token: int, hidden: int, feature: int, language: int, dtype: torch.dtype = torch.float32,
    *, large: bool = False, **options: Any,
) -> Case:  # fmt: skip
    sizes = {"token": token, "hidden": hidden, "feature": feature, "language": language}
    return Case(f"{token}x{hidden}x{feature}-{options.get('kind', 'relu')}", dtype, sizes, options, large)


_KINDS = (torch.float32, torch.float16, torch.bfloat16)
CASES: Sequence[Case] = [
    *(_case(token, 16, 17, 3) for token in (0, 1, 15, 16, 17)),
    *(_case(40, 15, 63, 8, dtype, kind=kind) for dtype in _KINDS for kind in ("relu", "jump", "number")),
    _case(1000, 1, 1, 2, kind="jump"),
    _case(63, 33, 65, 20, kind="jump", view=True),
    *(_case(8192, 4096, 131072, 16, torch.bfloat16, large=True, kind=kind) for kind in ("relu", "jump")),
]


def inputs(case: Case, device: torch.device, generator: torch.Generator) -> dict[str, Tensor]:
    """Whole numbers and halves between −2 and 2; languages with some −1."""
    token, hidden, feature, language = (case.sizes[axis] for axis in ("token", "hidden", "feature", "language"))

    def halves(*shape: int) -> Tensor:
        return (torch.randint(-4, 5, shape, generator=generator) / 2).to(device=device, dtype=case.dtype)

    found = {"hidden": halves(token, hidden), "w_enc": halves(hidden, feature), "b_enc": halves(feature)}
    found["languages"] = torch.randint(-1, language, (token,), generator=generator).to(device)
    if case.options.get("kind") == "jump":
        found["threshold"] = halves(feature).abs()
    return found


def run(case: Case, inputs: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
    """Counts, sums and active features; counts once more when nothing else is asked for."""
    hidden, w_enc = inputs["hidden"], inputs["w_enc"]
    if case.options.get("view"):
        hidden, w_enc = hidden.T.contiguous().T, w_enc.T.contiguous().T
    threshold = inputs.get("threshold", 1.5 if case.options.get("kind") == "number" else 0.0)
    given = (hidden, w_enc, inputs["b_enc"])
    languages, n_languages = inputs["languages"], case.sizes["language"]
    if backend == "reference":
        found = sae_counts_reference(*given, threshold, languages, n_languages)
        return {**found._asdict(), "counts alone": found.counts}
    options: dict[str, Any] = {"threshold": threshold, "languages": languages, "n_languages": n_languages}
    found = sae_counts(*given, **options, also=("sums", "active"), backend=backend)  # pyright: ignore[reportArgumentType]
    alone = sae_counts(*given, **options, backend=backend)  # pyright: ignore[reportArgumentType]
    return {**found._asdict(), "counts alone": alone.counts}


def gradients(case: Case) -> Sequence[str]:
    """None."""
    return ()


def bound(case: Case, name: str) -> float:
    """Relative RMS error of sums; counts and active features are equal."""
    return SUMS if name == "sums" else 0.0


def timings(device: torch.device, generator: torch.Generator, small: bool) -> Iterator[Timing]:
    """A residual stream of 4,096 into 131,072 features, 8,192 tokens of 16 languages; small: 256 into 4,096."""
    token, hidden, feature, language = (256, 256, 4096, 4) if small else (8192, 4096, 131072, 16)
    kind = torch.float32 if small else torch.bfloat16

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device=device, dtype=kind)

    x, w_enc, b_enc = normal(token, hidden), normal(hidden, feature), normal(feature)
    languages = (torch.arange(token) * language // token).to(device)

    def eager() -> Tensor:
        fired = (x @ w_enc + b_enc).relu().bool().float()
        return torch.stack([fired[languages == number].sum(0) for number in range(language)])

    yield Timing("counts", f"{token}x{hidden}x{feature}", str(kind).removeprefix("torch."), {
        "ours": lambda: sae_counts(x, w_enc, b_enc, languages=languages, n_languages=language),
        "eager": eager,
        "products alone": lambda: x @ w_enc,
    }, x.nbytes + w_enc.nbytes, 2 * token * hidden * feature)  # fmt: skip
