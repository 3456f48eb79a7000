"""The one exception of the kernel package; standard library only."""


class KernelError(RuntimeError):
    """A kernel cannot run on what it was given: device, dtype or shape."""
