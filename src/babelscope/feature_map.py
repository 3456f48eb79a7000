"""The part of a sparse autoencoder that an edit of some of its features needs."""

from dataclasses import dataclass, replace

import torch

from babelscope.axes import Float32, Int64, Tensor
from babelscope.errors import SteeringError


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """What an operation on a few features of a sparse autoencoder needs of it.

    pre = encoder·x + bias; f = pre where pre > threshold, else 0; with `top_k`, also 0 outside the k largest of pre.
    Rows of the encoder are the chosen features alone, or with `top_k` all features. Biases and scalings of the
    autoencoder's input belong in `encoder`, `bias` and `decoder`: x is the model's own activation.
    Raises SteeringError for shapes that do not fit, values that are not finite, or a negative threshold.
    """

    encoder: Float32[Tensor, "feature unit"]
    bias: Float32[Tensor, " feature"]
    threshold: Float32[Tensor, " feature"]
    """0 for ReLU."""
    decoder: Float32[Tensor, "chosen unit"]
    chosen: Int64[Tensor, " chosen"]
    """Row of the encoder of each decoder row."""
    top_k: int | None = None

    def __post_init__(self) -> None:
        n, width = self.encoder.shape
        shapes = (tuple(self.bias.shape), tuple(self.threshold.shape), tuple(self.decoder.shape))
        if shapes != ((n,), (n,), (len(self.chosen), width)) or not len(self.chosen):
            raise SteeringError(
                f"features: encoder {[n, width]} came with bias, threshold, decoder {[list(s) for s in shapes]}; "
                f"expected {[n]}, {[n]}, {[len(self.chosen), width]}; use one autoencoder"
            )
        floats = (self.encoder, self.bias, self.threshold, self.decoder)
        if not all(part.dtype == torch.float32 and bool(torch.isfinite(part).all()) for part in floats):
            raise SteeringError("features: a tensor is not finite float32; expected finite weights; load them again")
        if bool((self.threshold < 0).any()) or not 0 <= int(self.chosen.min()) <= int(self.chosen.max()) < n:
            raise SteeringError(f"features: a threshold below 0 or a feature outside 0–{n - 1}; expected neither")
        if self.top_k is not None and not 0 < self.top_k <= n:
            raise SteeringError(f"features: top_k {self.top_k} came; expected 1–{n}; hand over the whole encoder")

    def to(self, device: torch.device) -> "FeatureMap":
        """The same on another device."""
        names = ("encoder", "bias", "threshold", "decoder", "chosen")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})
