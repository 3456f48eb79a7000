"""Shapes, inputs and bounds of attention_stats: of the test and of the benchmark."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from babelscope_kernels.attention_stats.dispatch import attention_stats
from babelscope_kernels.attention_stats.reference import attention_stats_reference
from babelscope_kernels.attention_stats.statistics import bounds_of
from babelscope_kernels.checking import Case
from babelscope_kernels.timing import Timing

BOUND = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Relative RMS error of the output and of the gradients."""
STATISTIC = {torch.float32: 2e-6, torch.float16: 2e-6, torch.bfloat16: 2e-6}
"""Of the statistics: scores of 16-bit inputs are summed in float32, so one bound."""


def _case(name: str, token: int, dtype: torch.dtype = torch.float32, *, large: bool = False, **options: Any) -> Case:
    sizes = {"batch": 2, "head": 4, "kv": 2, "token": token, "dim": 8} | options.pop("sizes", {})
    return Case(f"{name}-{token}", dtype, sizes, options, large)


_SHORT = {"batch": 1, "head": 2, "kv": 1}
_REAL = {"batch": 1, "head": 32, "kv": 8, "dim": 128}
CASES: Sequence[Case] = [
    *(_case("causal", token, sizes=_SHORT) for token in (0, 1, 15, 16, 63)),
    _case("causal", 17),
    _case("thousand", 1000, sizes={"batch": 1, "head": 1, "kv": 1}),
    *(_case("causal", 33, dtype, sizes=_SHORT) for dtype in (torch.float16, torch.bfloat16)),
    _case("both ways", 17, causal=False, sizes=_SHORT),
    _case("padded", 35, segments="padded", sizes={"head": 1, "kv": 1}),
    _case("packed", 40, segments="packed", sizes=_SHORT),
    _case("packed both ways", 20, segments="packed", causal=False, sizes=_SHORT),
    _case("window", 40, window=20, sizes=_SHORT),
    _case("window of one", 5, window=1, sizes=_SHORT),
    _case("packed window", 40, window=9, segments="packed", sizes=_SHORT),
    _case("capped", 20, softcap=3.0, sizes=_SHORT),
    _case("capped window", 35, softcap=3.0, window=9, segments="padded", sizes=_SHORT),
    _case("gated", 5, gates="row"),
    _case("gated to means", 12, gates="head", means=True, segments="padded"),
    _case("scaled", 5, scale=0.7),
    _case("other width", 17, sizes={**_SHORT, "value": 24}),
    *(
        _case("causal", token, torch.bfloat16, sizes={**_REAL, "dim": dim}, large=True)
        for token in (2048, 8192)
        for dim in (64, 128)
    ),
    # Rows of the batch times heads: more than CUDA's 65,535 programs along a second axis.
    _case("many short", 16, torch.bfloat16, sizes={**_REAL, "batch": 2100, "dim": 16}, large=True),
    _case("gemma", 2048, torch.bfloat16, sizes={**_REAL, "dim": 256}, softcap=50.0, window=1024, large=True),
]


def inputs(case: Case, device: torch.device, generator: torch.Generator) -> dict[str, Tensor]:
    """Queries, keys and values as a model has them before its transpose; gates 0, 1 and between; documents, padding."""
    batch, head, kv, token, dim = (case.sizes[axis] for axis in ("batch", "head", "kv", "token", "dim"))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device=device, dtype=case.dtype)

    found = {"q": 2 * normal(batch, token, head, dim), "k": normal(batch, token, kv, dim)}
    found["v"] = normal(batch, token, kv, case.sizes.get("value", dim))
    if kind := case.options.get("gates"):
        gates = torch.rand((batch, head) if kind == "row" else (head,), generator=generator)
        gates.view(-1)[:2] = torch.tensor([0.0, 1.0])
        found["gates"] = gates.to(device)
    if case.options.get("means"):
        found["means"] = normal(head, case.sizes.get("value", dim))
    if kind := case.options.get("segments"):
        place = torch.arange(token, device=device).expand(batch, token)
        cut = torch.arange(batch, device=device)[:, None] * 5 + min(token // 3, 12)
        found["segments"] = (
            (place >= cut) if kind == "padded" else (place >= cut).int() - (place >= token - 4).int() * 2
        )
    return found


def run(case: Case, inputs: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
    """Output with and without gradients, and statistics; lse of padding is set to 0, since infinity has no error."""
    given: dict[str, Any] = {name: inputs.get(name) for name in ("gates", "means")}
    given |= {name: case.options.get(name) for name in ("window", "softcap", "scale")}
    given["causal"] = case.options.get("causal", True)
    tensors = tuple(inputs[name].transpose(1, 2) for name in "qkv")
    segments = inputs.get("segments")
    if backend == "reference":
        bounds = (
            bounds_of(torch.zeros(tensors[0].shape[::2], device=tensors[0].device).int())
            if segments is None
            else bounds_of(segments)
        )
        found = attention_stats_reference(tensors[0], tensors[1], tensors[2], bounds, **given)
        evaluated = found.output.detach()
    else:
        given |= {"segments": segments, "backend": backend}
        found = attention_stats(*tensors, **given)
        with torch.no_grad():
            evaluated = attention_stats(*tensors, **given).output
    padding = found.lse == float("-inf")
    lse = found.lse.masked_fill(padding, 0.0)
    return {**found._asdict(), "lse": lse, "padding": padding, "evaluated": evaluated}


def gradients(case: Case) -> Sequence[str]:
    """Queries, keys, values, and gates and means where there are any."""
    if case.large or not case.sizes["token"]:
        return ()
    return ("q", "k", "v", *(name for name in ("gates", "means") if case.options.get(name)))


def bound(case: Case, name: str) -> float:
    """Relative RMS error."""
    return (
        STATISTIC[case.dtype]
        if name in ("entropy_nats", "sink_mass", "previous_mass", "lse", "padding")
        else BOUND[case.dtype]
    )


def timings(device: torch.device, generator: torch.Generator, small: bool) -> Iterator[Timing]:
    """32 heads of 128 over 8 key heads, causal, 2,048 and 8,192 tokens; on a GPU also our kernel without statistics."""
    heads, kv, dim = (4, 2, 32) if small else (32, 8, 128)
    kind = torch.float32 if small else torch.bfloat16
    for token in (256,) if small else (2048, 8192):
        q, k, v = (
            torch.randn(1, token, count, dim, generator=generator).to(device=device, dtype=kind).transpose(1, 2)
            for count in (heads, kv, kv)
        )
        whole = bounds_of(torch.zeros(1, token, dtype=torch.int32, device=device))

        def fused(q: Tensor = q, k: Tensor = k, v: Tensor = v) -> Tensor:
            return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

        forms = {
            "ours": lambda q=q, k=k, v=v: attention_stats(q, k, v),
            "fused attention without statistics": fused,
        }
        if token <= 2048:
            forms["eager"] = lambda q=q, k=k, v=v, whole=whole: attention_stats_reference(q, k, v, whole)
        if device.type == "cuda":
            from babelscope_kernels.attention_stats.kernel import attention_stats_triton

            forms["ours without statistics"] = lambda q=q, k=k, v=v: attention_stats_triton(
                q, k, v, None, None, None, True, None, None, dim**-0.5, True, False
            )
        size = 2 * q.nbytes + k.nbytes + v.nbytes
        name = str(kind).removeprefix("torch.")
        yield Timing("causal", f"{heads}x{token}x{dim}", name, forms, size, 2 * heads * token**2 * dim)
