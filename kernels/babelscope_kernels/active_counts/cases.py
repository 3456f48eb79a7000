"""Inputs of counts and sums, for the tests and the benchmark."""

from collections.abc import Iterator

import torch
from torch import Tensor

from babelscope_kernels.active_counts.dispatch import active_counts, column_sums
from babelscope_kernels.active_counts.reference import active_counts_reference, column_sums_reference
from babelscope_kernels.checking import Case
from babelscope_kernels.timing import Timing, compiled, in_graph

KINDS = (torch.float32, torch.float16, torch.bfloat16)
SIZES = [("one", 1, 1, 1), ("odd", 17, 63, 3), ("thousand", 1000, 33, 16), ("no tokens", 0, 63, 3)]
SMALL = {"token": 37, "unit": 63, "language": 20}

CASES = [
    *(Case(name, kind, {"token": t, "unit": n, "language": k}) for kind in KINDS for name, t, n, k in SIZES),
    *(
        Case("documents in turn", kind, {"token": 700, "unit": 33, "language": 150}, {"order": "in turn"})
        for kind in KINDS
    ),
    *(Case("many languages, mixed", kind, {"token": 130, "unit": 33, "language": 150}) for kind in KINDS[:1]),
    *(Case("columns of a wider one", kind, SMALL, {"layout": "slice"}) for kind in KINDS),
    *(Case("transposed", kind, SMALL, {"layout": "transposed"}) for kind in KINDS),
    *(Case("pads hold NaN", kind, SMALL, {"layout": "pads"}) for kind in KINDS),
    *(Case("long", kind, {"token": 300_000, "unit": 40, "language": 3}, large=True) for kind in KINDS[2:]),
    *(Case("llama 8b", kind, {"token": 8192, "unit": 14336, "language": 16}, large=True) for kind in KINDS[2:]),
]


def inputs(case: Case, device: torch.device, generator: torch.Generator) -> dict[str, Tensor]:
    """Normal values with exact zeros among them, and a language or -1 for each token."""
    t, n, k = (case.sizes[name] for name in ("token", "unit", "language"))
    value = torch.randn(t, 2 * n, generator=generator).to(case.dtype)
    value[torch.rand(t, 2 * n, generator=generator) < 0.1] = 0.0
    languages = torch.randint(-1, k, (t,), generator=generator, dtype=torch.int32)
    if case.options.get("order") == "in turn":
        languages = languages.sort().values
    layout = case.options.get("layout", "plain")
    if layout == "pads":
        value[languages == -1] = torch.nan
    value = value.to(device)
    if layout == "slice":
        value = value[:, n:]
    elif layout == "transposed":
        value = value[:, :n].t().contiguous().t()
    else:
        value = value[:, :n].contiguous()
    return {"value": value, "languages": languages.to(device)}


def run(case: Case, inputs: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
    """Counts by language, and sums of columns."""
    value, languages, k = inputs["value"], inputs["languages"], case.sizes["language"]
    if backend == "reference":
        counts = active_counts_reference(value, languages, k)
        total, square = column_sums_reference(value, languages >= 0)
    else:
        counts = active_counts(value, languages, k, backend=backend)  # pyright: ignore[reportArgumentType]
        total, square = column_sums(value, languages >= 0, backend=backend)  # pyright: ignore[reportArgumentType]
    return {"counts": counts, "total": total, "square": square}


def gradients(case: Case) -> tuple[str, ...]:
    """None flows."""
    return ()


def bound(case: Case, name: str) -> float:
    """Counts are exact; sums are added in float32 at most within a part."""
    return 0.0 if name == "counts" else 1e-6


def timings(device: torch.device, generator: torch.Generator, small: bool) -> Iterator[Timing]:
    """Counts, and sums of columns, of one layer of Llama-3.1-8B on 8,192 tokens of 16 languages."""
    t, n, k = (512, 1408, 4) if small else (8192, 14336, 16)
    kind = torch.float32 if small else torch.bfloat16
    value = torch.randn(t, n, generator=generator).to(device=device, dtype=kind)
    languages = (torch.arange(t) * k // t).to(device=device, dtype=torch.int32)
    shape, name, size = f"{t}x{n}x{k}", str(kind).removeprefix("torch."), value.nbytes

    def by_language() -> list[Tensor]:
        return [(value[languages == language].float() > 0).sum(dim=0) for language in range(k)]

    def product() -> Tensor:
        member = torch.arange(k, device=device)[:, None] == languages[None, :]
        return (member.to(kind) @ (value > 0).to(kind)).to(torch.int64)

    yield Timing("counts", shape, name, {
        "ours": lambda: active_counts(value, languages, k), "eager": by_language, "one product": product,
        **compiled(device, product), **in_graph(device, lambda: active_counts(value, languages, k)),
    }, size, 0)  # fmt: skip
    counted = languages >= 0

    def columns() -> tuple[Tensor, Tensor]:
        wide = torch.where(counted[:, None], value, 0.0).double()
        return wide.sum(dim=0), wide.square().sum(dim=0)

    yield Timing("column sums", shape, name, {
        "ours": lambda: column_sums(value, counted), "eager": columns, **compiled(device, columns),
        **in_graph(device, lambda: column_sums(value, counted)),
    }, size, 0)  # fmt: skip
