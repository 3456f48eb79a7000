"""Classes of transformers that a module is told by."""

from torch import nn

from babelscope.upstream.names import imported


def conv1d() -> type[nn.Module]:
    """GPT-2's projection, whose weight is [in, out]."""
    return imported("transformers.pytorch_utils", "transformers.conv1d")
