"""Compile kernels for an H200 on a machine without one, and read what the compiler says of them.

`python -m babelscope_kernels.sm90 swiglu` prints one JSON list. It must run in a process where TRITON_INTERPRET is not
set: Triton reads that flag when a kernel is decorated, that is at import.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from babelscope_kernels.errors import KernelError
from babelscope_kernels.names import NAMES
from babelscope_kernels.shipped import Shipped

SHARED_LIMIT = 232_448
"""Bytes of shared memory that one block may have on compute capability 9.0."""


@dataclass(frozen=True)
class Resources:
    """What one compiled configuration takes on sm_90."""

    name: str
    shared_bytes: int
    registers: int
    """Per thread."""
    stack_bytes: int
    """Per thread; above 0 means registers were spilled to memory, or an array is indexed at run time."""
    local_bytes: int
    """Per thread."""
    widest_load_bits: int
    """Of one global load by one thread: 128 is the most; a masked load narrows it where the mask may cut anywhere."""
    uses_wgmma: bool

    def faults(self, shipped: Shipped) -> list[str]:
        """Why this configuration may not ship; empty if it may."""
        found = []
        if self.shared_bytes > SHARED_LIMIT:
            found.append(f"{self.name}: {self.shared_bytes} B of shared memory, at most {SHARED_LIMIT}")
        if self.stack_bytes > shipped.stack or self.local_bytes:
            found.append(f"{self.name}: spills ({self.stack_bytes} B stack, {self.local_bytes} B local)")
        if shipped.wgmma and not self.uses_wgmma:
            found.append(f"{self.name}: no wgmma instruction")
        return found


def compile_for_sm90(shipped: Shipped) -> Resources:
    """Compile one configuration for compute capability 9.0; no GPU or driver is needed."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise KernelError("TRITON_INTERPRET=1 is set; compiling needs a process without it")
    triton = importlib.import_module("triton")
    compiler = importlib.import_module("triton.compiler")
    target = importlib.import_module("triton.backends.compiler").GPUTarget("cuda", 90, 32)
    order = list(shipped.kernel.arg_names)
    source = compiler.ASTSource(
        fn=shipped.kernel,
        signature={name: shipped.signature.get(name, "constexpr") for name in order},
        constexprs=dict(shipped.constants),
        attrs={(order.index(name),): [["tt.divisibility", 16]] for name in shipped.aligned},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Triton 3.9 tells of a default of 3.10
        built = triton.compile(
            source, target=target, options={"num_warps": shipped.num_warps, "num_stages": shipped.num_stages}
        )
    return _read(shipped.name, built, Path(str(triton.__file__)).parent)


def _read(name: str, built: Any, folder: Path) -> Resources:
    with tempfile.TemporaryDirectory() as work:
        cubin = Path(work) / "kernel.cubin"
        cubin.write_bytes(built.asm["cubin"])
        tool = folder / "backends" / "nvidia" / "bin" / "cuobjdump"
        usage = subprocess.run(
            [tool, "--dump-resource-usage", cubin], capture_output=True, text=True, check=True
        ).stdout
    found = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
    ptx = built.asm["ptx"]
    loads = re.findall(
        r"(?:ld\.global\S*?(?:\.v(\d))?\.b(\d+)|cp\.async\S*\.shared\.global\s*\[[^\]]*\],\s*\[[^\]]*\],\s*0x(\w+))",
        ptx,
    )
    widths = [int(size, 16) * 8 if size else int(count or 1) * int(bits) for count, bits, size in loads]
    return Resources(
        name=name,
        shared_bytes=built.metadata.shared,
        registers=found["REG"],
        stack_bytes=found["STACK"],
        local_bytes=found["LOCAL"],
        widest_load_bits=max(widths, default=0),
        uses_wgmma="wgmma.mma_async" in ptx,
    )


def main(names: list[str]) -> int:
    """Compile all that the named kernels ship; one JSON list on stdout, 1 if anything may not ship."""
    rows, red = [], False
    for name in names or NAMES:
        for shipped in importlib.import_module(f"babelscope_kernels.{name}.kernel").SHIPPED:
            resources = compile_for_sm90(shipped)
            faults = resources.faults(shipped)
            red = red or bool(faults)
            rows.append({"kernel": name, **asdict(resources), "faults": faults})
    sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    return int(red)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
