"""Check kernels in Triton's interpreter, in a process of its own: `python -m babelscope_kernels.interpret swiglu`.

Triton reads TRITON_INTERPRET when a kernel is decorated, so one process can either interpret or compile. This one sets
the flag before anything else, checks every case of the named kernels against float64, runs a call of both
backends under torch.compile, and prints one JSON list.
"""

import json
import os
import sys
from dataclasses import asdict


def main(names: list[str]) -> int:
    """Check the named kernels; one JSON list on stdout, 1 if any outcome is bad."""
    os.environ["TRITON_INTERPRET"] = "1"
    from babelscope_kernels.checking import check, check_compiled
    from babelscope_kernels.names import NAMES

    outcomes = []
    for name in names or NAMES:
        outcomes += check(name, "triton") + check_compiled(name, "triton") + check_compiled(name, "torch")
    sys.stdout.write(json.dumps([asdict(outcome) | {"good": outcome.good} for outcome in outcomes]) + "\n")
    return int(not all(outcome.good for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
