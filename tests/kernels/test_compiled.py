"""What the library launches compiles as the runtime would compile it, without a GPU."""

import pytest
import torch
from babelscope_kernels import compiling, launching
from babelscope_kernels.names import NAMES
from kernel_runs import python


@pytest.mark.parametrize("name", NAMES)
def test_every_launch_of_a_large_model_compiles_for_sm90_within_its_bounds(name):
    rows = python("babelscope_kernels.compiling", name, "--dtypes", "bf16", "--models", "llama-3.1-8b")
    assert rows and [row for row in rows if row["fault"]] == []


@pytest.mark.parametrize(
    ("words", "kernels"),
    [
        (["--capability", *(str(capability) for capability in compiling.SHARED if capability != 90)], 9),
        (["--dtypes", "fp16", "fp32"], 9),
        (["--models", "odd", "qwen2.5-0.5b", "gemma-3-270m", "--dtypes", "bf16"], 9),
    ],
)
def test_one_launch_of_nine_compiles_for_other_cards_dtypes_and_models(words, kernels):
    words = [*words, *(["--models", "llama-3.1-8b"] if "--models" not in words else [])]
    words += ["--dtypes", "bf16"] if "--dtypes" not in words else []
    rows = python("babelscope_kernels.compiling", *NAMES, *words, "--every", "9")
    assert [row for row in rows if row["fault"]] == [] and len({row["kernel"] for row in rows}) >= kernels
    assert all(row["shared_bytes"] <= compiling.SHARED[row["capability"]] for row in rows)


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
