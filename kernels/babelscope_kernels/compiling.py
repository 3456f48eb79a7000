"""Compile what the library launches, as the runtime would, for GPUs that are not here, and read what the compiler says.

`python -m babelscope_kernels.compiling swiglu --capability 90` prints one JSON list. The launches are those of
`calls.py`, on real shapes of four models, written down in place of being made: each argument is specialized as Triton
does it at a launch (1 is a constant, multiples of 16 are known, pointers are aligned or not). It must run in a process
where TRITON_INTERPRET is not set: Triton reads that flag when a kernel is decorated, that is at import.
"""

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from babelscope_kernels.calls import MODELS, calls_of
from babelscope_kernels.errors import KernelError
from babelscope_kernels.launching import Launch, recorded
from babelscope_kernels.names import NAMES

SHARED = {80: 166_912, 89: 101_376, 90: 232_448, 100: 232_448, 120: 101_376}
"""Bytes of shared memory that one program may have, by compute capability times ten."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
STACK = {
    "_attention_stats_fwd_kernel": 1280,
    "_rows_wgrad_kernel": 1368,
    "_active_counts_fwd_kernel": 8,
    "_sae_counts_fwd_kernel": 136,
    "_steer_fwd_kernel": 16,
}
"""Bytes of stack of a thread of a kernel in 16 bits on capability 9.0, with Triton 3.4 to 3.9; others use none.

Attention's widest blocks spill up to 192 and were measured faster than narrower ones that do not; a head of 72, padded
to 128, spills the rest. The rows' own kernel is not the one that "auto" takes."""
WGMMA = ("_attention_stats_fwd_kernel", "_rows_wgrad_kernel", "_sae_counts_fwd_kernel")
"""Kernels whose 16-bit products must reach Hopper's own matrix instruction."""


@dataclass(frozen=True)
class Resources:
    """What one compiled launch takes."""

    call: str
    kernel: str
    capability: int
    shared_bytes: int
    registers: int
    """Of a thread."""
    stack_bytes: int
    """Of a thread; above 0 means registers were spilled to memory, or an array is indexed at run time."""
    uses_wgmma: bool
    fault: str
    """Why it may not be shipped; "" if it may."""


class ImaginedDriver:
    """What Triton asks a driver for before it compiles; its device is a compute capability, and nothing can run."""

    def __init__(self, capability: int):
        compiler = importlib.import_module("triton.backends.compiler")
        self.target = compiler.GPUTarget("cuda", capability, 32)
        self.capability = capability

    def get_current_device(self) -> int:
        """A number for each capability, by which Triton keeps what it compiled apart."""
        return self.capability

    def get_current_stream(self, device: int) -> int:
        """None is ever used."""
        return 0

    def get_current_target(self) -> Any:
        """What is compiled for."""
        return self.target


@dataclass(frozen=True)
class Pointer:
    """Stands for a tensor at a launch: Triton asks for its dtype, and whether its address is a multiple of 16."""

    dtype: torch.dtype
    offset: int

    def data_ptr(self) -> int:
        """An address that is aligned as the tensor's would be: what torch allocates begins at a multiple of 512."""
        return self.offset

    @staticmethod
    def ptr_range() -> int:
        """Asked by AMD's compiler."""
        return 0


def resources_of(launch: Launch, call: str, capability: int) -> Resources:
    """Compile one launch; a compiler's error is a fault like any other. Triton's driver stays the imagined one."""
    triton, driver = importlib.import_module("triton"), importlib.import_module("triton.runtime.driver").driver
    errors = importlib.import_module("triton.errors")
    arguments = [
        Pointer(one.dtype, int(one.storage_offset()) * one.element_size()) if isinstance(one, Tensor) else one
        for one in launch.arguments
    ]
    name = launch.kernel.fn.__name__
    driver.set_active(ImaginedDriver(capability))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Triton 3.9 tells of a default of 3.10
            built = launch.kernel.run(*arguments, grid=launch.grid, warmup=True, **launch.constants)
    except errors.TritonError as fault:
        return Resources(call, name, capability, 0, 0, 0, False, f"{type(fault).__name__}: {fault}"[:300])
    registers, stack = usage_of(built, Path(str(triton.__file__)).parent)
    wgmma = "wgmma.mma_async" in built.asm["ptx"]
    low = any(isinstance(one, Tensor) and one.dtype in (torch.bfloat16, torch.float16) for one in launch.arguments)
    faults = []
    if built.metadata.shared > SHARED[capability]:
        faults.append(f"{built.metadata.shared} B of shared memory, at most {SHARED[capability]}")
    if capability == 90 and low and stack > STACK.get(name, 0):
        faults.append(f"{stack} B of stack, at most {STACK.get(name, 0)}")
    if capability == 90 and low and name in WGMMA and not wgmma:
        faults.append("no wgmma instruction")
    return Resources(call, name, capability, built.metadata.shared, registers, stack, wgmma, "; ".join(faults))


def usage_of(built: Any, triton: Path) -> tuple[int, int]:
    """Registers and bytes of stack of a thread, as NVIDIA's own tool reads them from what was compiled."""
    with tempfile.TemporaryDirectory() as work:
        cubin = Path(work) / "kernel.cubin"
        cubin.write_bytes(built.asm["cubin"])
        tool = triton / "backends" / "nvidia" / "bin" / "cuobjdump"
        text = subprocess.run([tool, "--dump-resource-usage", cubin], capture_output=True, text=True, check=True).stdout
    usage = {key: int(value) for key, value in re.findall(r"\b(REG|STACK):(\d+)", text)}
    return usage["REG"], usage["STACK"]


def launches_of(kernel: str, capability: int, dtypes: list[str], models: list[str]) -> Iterator[tuple[str, Launch]]:
    """Every launch of a kernel's calls, those that compile to the same only once."""
    seen = set()
    for kind in dtypes:
        for model in models:
            for call in calls_of(kernel, MODELS[model], DTYPES[kind]):
                with recorded(SHARED[capability]) as recording:
                    call.run()
                for launch in recording.launches:
                    key = specialization_of(launch)
                    if key not in seen:
                        seen.add(key)
                        yield f"{kernel} {call.name}, {model}, {kind}", launch


def specialization_of(launch: Launch) -> tuple[object, ...]:
    """What tells two launches apart for the compiler."""

    def kind(one: object) -> object:
        if isinstance(one, Tensor):
            return one.dtype, one.storage_offset() * one.element_size() % 16 == 0
        if isinstance(one, int) and not isinstance(one, bool):
            return "one" if one == 1 else (one % 16 == 0, one.bit_length() > 31)
        return type(one)

    return (
        launch.kernel,
        *map(kind, launch.arguments),
        *sorted((name, str(c)) for name, c in launch.constants.items()),
    )


def main(words: list[str]) -> int:
    """Compile all that the named kernels launch; one JSON list on stdout, 1 if anything may not ship."""
    parser = argparse.ArgumentParser(prog="babelscope_kernels.compiling", description="Compile without a GPU.")
    parser.add_argument("kernels", nargs="*", choices=[*NAMES, []], help="all, if none is named")
    parser.add_argument("--capability", type=int, nargs="+", choices=list(SHARED), default=[90])
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--every", type=int, default=1, help="compile one launch of so many, for a quick look")
    options = parser.parse_args(words)
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise KernelError("TRITON_INTERPRET=1 is set; compiling needs a process without it")
    rows = [
        resources_of(launch, call, capability)
        for kernel in options.kernels or NAMES
        for capability in options.capability
        for call, launch in list(launches_of(kernel, capability, options.dtypes, options.models))[:: options.every]
    ]
    sys.stdout.write(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return int(any(row.fault for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
