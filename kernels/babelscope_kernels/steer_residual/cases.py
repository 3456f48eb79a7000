"""Inputs of the edits, for the tests and the benchmark."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from babelscope_kernels.checking import Case
from babelscope_kernels.steer_residual.dispatch import steer_residual
from babelscope_kernels.steer_residual.reference import steer_reference
from babelscope_kernels.timing import Timing, compiled, in_graph

KINDS = (torch.float32, torch.float16, torch.bfloat16)
BOUND = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 5e-3}
PARAMETERS = 2e-6
"""Bound of the gradients of vector and strength, which are added over tokens in float32."""


def _size(row: int, token: int, hidden: int) -> dict[str, int]:
    return {"row": row, "token": token, "hidden": hidden}


CASES = [
    *(Case("one", kind, _size(1, 1, 1)) for kind in KINDS),
    *(Case("odd", kind, _size(3, 5, 63)) for kind in KINDS),
    *(Case("thousand", kind, _size(2, 9, 1000)) for kind in KINDS),
    *(Case("no tokens", kind, _size(2, 0, 63)) for kind in KINDS),
    *(Case("transposed", kind, _size(2, 5, 63), {"layout": "transposed"}) for kind in KINDS),
    *(Case("a part of a longer text", kind, _size(2, 5, 63), {"layout": "slice"}) for kind in KINDS),
    *(Case("llama 8b", kind, _size(4, 2048, 4096), large=True) for kind in KINDS[2:]),
]


def inputs(case: Case, device: torch.device, generator: torch.Generator) -> dict[str, Tensor]:
    """Normal activations; a strength for each token, a quarter of them 0; a vector for each row."""
    b, t, d = (case.sizes[name] for name in ("row", "token", "hidden"))

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    hidden = draw(b, 2 * t, d).to(case.dtype).to(device)
    layout = case.options.get("layout", "plain")
    if layout == "slice":
        hidden = hidden[:, t:]
    elif layout == "transposed":
        hidden = hidden[:, :t].mT.contiguous().mT
    else:
        hidden = hidden[:, :t].contiguous()
    strength = draw(b, t, 1)
    strength[torch.rand(b, t, 1, generator=generator) < (0.25 if t > 1 else 0)] = 0.0
    rest = {
        "vector": draw(d) + 0.1,
        "each": draw(b, 1, d) + 0.1,
        "strength": strength,
    }
    return {"hidden": hidden, **{name: tensor.to(device) for name, tensor in rest.items()}}


def run(case: Case, inputs: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
    """The two edits, with a shared vector, with one for each row, with a strength that is one number, with gradients
    and "at once" without; and what a vector of NaN leaves of the tokens of strength 0."""
    hidden, strength = inputs["hidden"], inputs["strength"]
    found = {}
    for kind in ("add", "project_out"):
        for name in ("vector", "each"):
            if backend == "reference":
                found[f"{kind} {name}"] = steer_reference(hidden, inputs[name], strength, kind)
            else:
                found[f"{kind} {name}"] = steer_residual(
                    hidden,
                    inputs[name],
                    strength,
                    kind=kind,
                    backend=backend,  # pyright: ignore[reportArgumentType]
                )
    if backend == "reference":
        whole = torch.full((1, 1, 1), 0.5, dtype=strength.dtype, device=hidden.device)
        found["add number"] = steer_reference(hidden, inputs["vector"], whole, "add")
        for kind in ("add", "project_out"):
            for name, given in (("number", whole), ("token", strength)):
                found[f"{kind} at once, {name}"] = steer_reference(
                    hidden.detach(), inputs["each"].detach(), given.detach(), kind
                )
        found["untouched"] = torch.where(strength == 0, hidden.detach(), 0)
        return found
    found["add number"] = steer_residual(
        hidden,
        inputs["vector"],
        0.5,
        kind="add",
        backend=backend,  # pyright: ignore[reportArgumentType]
    )
    for kind in ("add", "project_out"):
        for name, given in (("number", 0.5), ("token", strength.detach())):
            found[f"{kind} at once, {name}"] = steer_residual(
                hidden.detach(),
                inputs["each"].detach(),
                given,
                kind=kind,
                backend=backend,  # pyright: ignore[reportArgumentType]
            )
    nothing = torch.full_like(inputs["vector"], torch.nan).detach()
    spoilt = steer_residual(hidden.detach(), nothing, strength.detach(), kind="project_out", backend=backend)  # pyright: ignore[reportArgumentType]
    found["untouched"] = torch.where(strength == 0, spoilt, 0)
    return found


def gradients(case: Case) -> tuple[str, ...]:
    """All inputs."""
    return ("hidden", "vector", "each", "strength")


def bound(case: Case, name: str) -> float:
    """One rounding to the dtype of the activation, whose gradient adds five such; a single bfloat16 value may be one
    whole unit off (2⁻⁷): the interpreter cuts where a GPU rounds."""
    single = case.sizes["hidden"] == 1 and case.dtype == torch.bfloat16
    if name == "d_hidden":
        return 2 * BOUND[case.dtype] if not single else 2**-5
    if name.startswith("d_"):
        return PARAMETERS
    if name == "untouched":
        return 0.0
    return 2**-7 if single else BOUND[case.dtype]


def timings(device: torch.device, generator: torch.Generator, small: bool) -> Iterator[Timing]:
    """The two edits on 4 × 2,048 tokens of Llama-3.1-8B's residual stream, and one step of decoding 8 rows."""
    for b, t in ((2, 256), (2, 1)) if small else ((4, 2048), (8, 1)):
        d = 512 if small else 4096
        kind = torch.float32 if small else torch.bfloat16
        case = Case("timing", kind, _size(b, t, d))
        given = inputs(case, device, generator)
        hidden, each, strength = given["hidden"], given["each"], given["strength"]
        shape, name = f"{b}x{t}x{d}", str(kind).removeprefix("torch.")
        for edit in ("add", "project_out"):
            arguments = (hidden, each, strength, edit)
            ours = partial(steer_residual, hidden, each, strength, kind=edit)
            yield Timing(f"{edit}{' decoding' if t == 1 else ''}", shape, name, {
                "ours": ours,
                "eager": partial(steer_reference, *arguments),
                "a copy": hidden.clone,
                **compiled(device, steer_reference, *arguments),
                **in_graph(device, ours),
            }, 2 * hidden.nbytes, 0)  # fmt: skip
