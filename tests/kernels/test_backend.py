import logging
import os
import subprocess
import sys

import pytest
import torch
from babelscope_kernels import KernelError, backend


@pytest.fixture(autouse=True)
def _untold(monkeypatch):
    monkeypatch.setattr(backend, "_told", set())
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def test_cpu_tensors_run_on_torch():
    assert backend.choose("op", "auto", [torch.zeros(2)]) == "torch"
    assert backend.choose("op", "torch", [torch.zeros(2)]) == "torch"


def test_triton_on_the_cpu_says_what_to_do_in_one_line():
    with pytest.raises(KernelError, match=r"op: .*tensors are on cpu, expected a CUDA device; use backend") as caught:
        backend.choose("op", "triton", [torch.zeros(2)])
    assert "\n" not in str(caught.value)


def test_an_unknown_backend_is_refused():
    with pytest.raises(KernelError, match="'cuda' is unknown; give 'auto', 'torch' or 'triton'"):
        backend.choose("op", "cuda", [torch.zeros(2)])


def test_the_interpreter_takes_cpu_tensors_only_when_asked(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert backend.choose("op", "triton", [torch.zeros(2)]) == "triton"
    assert backend.choose("op", "auto", [torch.zeros(2)]) == "torch"
    with pytest.raises(KernelError, match="dtype torch.float64"):
        backend.choose("op", "triton", [torch.zeros(2, dtype=torch.float64)])


def test_a_kernels_own_objection_decides(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(KernelError, match="rank 17, at most 16"):
        backend.choose("op", "triton", [torch.zeros(2)], objection="rank 17, at most 16")


@pytest.mark.parametrize(("there_is_a_gpu", "level"), [(True, logging.INFO), (False, logging.DEBUG)])
def test_the_choice_is_logged_once_and_shown_where_there_is_a_gpu(caplog, monkeypatch, there_is_a_gpu, level):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there_is_a_gpu)
    with caplog.at_level(logging.DEBUG, logger="babelscope_kernels.backend"):
        for _ in range(3):
            backend.choose("op", "auto", [torch.zeros(2)])
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (level, "op runs on torch: tensors are on cpu, expected a CUDA device")
    ]


@pytest.mark.parametrize("name", ["meta"])
def test_other_devices_run_on_torch(name):
    assert backend.choose("op", "auto", [torch.zeros(2, device=name)]) == "torch"
    with pytest.raises(KernelError, match="one device"):
        backend.choose("op", "triton", [torch.zeros(2, device=name), torch.zeros(2)])


def test_dispatchers_import_without_triton():
    code = (
        "import sys\n"
        "from babelscope_kernels.names import NAMES\n"
        "import importlib\n"
        "for name in NAMES: importlib.import_module(f'babelscope_kernels.{name}')\n"
        "print('triton' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.split() == ["False"], done.stderr
