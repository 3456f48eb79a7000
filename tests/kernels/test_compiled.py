"""What the library launches compiles as the runtime would compile it, without a GPU."""

import pytest
import torch
from babelscope_kernels import calls, compiling, launching
from babelscope_kernels.names import NAMES
from kernel_runs import python


@pytest.mark.parametrize("name", NAMES)
def test_every_launch_compiles_for_sm90_within_its_bounds(name):
    rows = python("babelscope_kernels.compiling", name, "--dtypes", "bf16")
    assert rows and [row for row in rows if row["fault"]] == []
    models = {row["call"].split(", ")[-2] for row in rows}
    assert models == set(calls.MODELS)


@pytest.mark.parametrize("capability", [capability for capability in compiling.SHARED if capability != 90])
def test_every_kernel_compiles_for_other_capabilities(capability):
    words = ["--capability", str(capability), "--dtypes", "bf16", "--models", "llama-3.1-8b"]
    rows = python("babelscope_kernels.compiling", *NAMES, *words)
    assert [row for row in rows if row["fault"]] == [] and {row["capability"] for row in rows} == {capability}
    assert max(row["shared_bytes"] for row in rows) <= compiling.SHARED[capability]


@pytest.mark.parametrize("kind", ["fp16", "fp32"])
def test_every_kernel_compiles_for_other_dtypes(kind):
    rows = python("babelscope_kernels.compiling", *NAMES, "--dtypes", kind, "--models", "llama-3.1-8b")
    assert [row for row in rows if row["fault"]] == [] and len({row["kernel"] for row in rows}) == 10


def test_recorded_launches_are_not_made_and_are_those_of_the_call():
    value = torch.empty(8192, 40, dtype=torch.bfloat16, device="meta")
    assert not launching.on_gpu(value)
    with launching.recorded(shared=1) as recording:
        assert launching.on_gpu(value) and launching.shared_memory(value.device) == 1
        launching.launch("a kernel", (3,), value, 1, BLOCK=4)
    (launch,) = recording.launches
    assert launch == launching.Launch("a kernel", (3,), (value, 1), {"BLOCK": 4})
    assert not launching.on_gpu(value)


def test_launches_are_told_apart_as_triton_does():
    wide = torch.empty(4, 64, dtype=torch.bfloat16, device="meta")

    def of(*arguments, **constants):
        return compiling.specialization_of(launching.Launch(None, (1,), arguments, constants))

    assert of(wide, 16) == of(wide, 32) != of(wide, 17) != of(wide, 1)
    assert of(wide[:, 8:], 16) == of(wide, 16) != of(wide[:, 1:], 16)
    assert of(wide.float()) != of(wide) and of(wide, BLOCK=4) != of(wide, BLOCK=8)
    assert of(wide, 0.5) == of(wide, 0.25) and of(2**31 + 1) != of(2**30 + 1)
