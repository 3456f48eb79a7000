"""Which errors mean that memory ran out."""

import torch

OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED")
"""Words of errors without a class: of the CPU's allocator, CUDA's driver, cuBLAS and MPS."""


def is_out_of_memory(err: RuntimeError | MemoryError) -> bool:
    """Whether an error means that memory ran out: some allocators have a class for it, others words."""
    return isinstance(err, torch.OutOfMemoryError | MemoryError) or any(word in str(err) for word in OUT_OF_MEMORY)
