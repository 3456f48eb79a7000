import subprocess
import sys

from babelscope_kernels import KernelError

from babelscope.errors import KernelError as Again


def test_one_error_for_both_packages():
    assert KernelError is Again and issubclass(KernelError, RuntimeError)


def test_the_package_imports_without_torch_and_triton():
    code = "import sys, babelscope_kernels; print('torch' in sys.modules, 'triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]
