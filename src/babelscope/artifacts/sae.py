"""A sparse autoencoder in one plain form, whatever library or release it came from."""

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Literal

import torch

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float, Float32, Int64, Tensor
from babelscope.errors import ArtifactError
from babelscope.sites import Site

Activation = Literal["relu", "jumprelu", "topk"]
Scaling = Literal["none", "constant_norm", "layer_norm"]
"""What is done to each token before encoding, and undone after decoding; a fixed factor is folded into the weights."""
EPS = 1e-5
"""Added to the standard deviation under "layer_norm", as sae-lens does."""


@dataclass(frozen=True, eq=False)
class LoadedSAE:
    """Encoder and decoder in the units of the residual stream as the model has it.

    pre = x W_enc + b_enc, f = act(pre), reconstruction = f W_dec + b_dec.
    The bias that some autoencoders subtract from their input and the factor by which some scale it are folded into
    these weights, and so are decoder norms by which some rescale: a feature's value times its row of `w_dec` is what it
    adds to the stream.  "jumprelu" keeps pre where it is above the feature's threshold, "relu" where it is above 0,
    "topk" the k largest of a token where they are above 0.  float32.
    Raises ArtifactError for weights that are not finite, and for a k that does not fit.
    """

    __repr__ = shown_by("id", "site", "activation", "n_features")

    id: str
    """"reference", "release/sae_id", or the folder's name."""
    site: Site
    w_enc: Float32[Tensor, "hidden feature"]
    b_enc: Float32[Tensor, " feature"]
    w_dec: Float32[Tensor, "feature hidden"]
    b_dec: Float32[Tensor, " hidden"]
    activation: Activation
    threshold: Float32[Tensor, " feature"]
    """In units of pre; all 0 unless "jumprelu"."""
    k: int = 0
    """Features a token, "topk" only."""
    scaling: Scaling = "none"
    model: str = ""
    """Name of the model in the autoencoder's own config; for people."""
    model_hash: str = ""
    """Hash of the model's configuration where the autoencoder's config has one, else empty."""

    def __post_init__(self) -> None:
        for name in ("w_enc", "b_enc", "w_dec", "b_dec", "threshold"):
            if not bool(torch.isfinite(getattr(self, name)).all()):
                raise ArtifactError(f"SAE {self.id!r}: {name} holds NaN or infinity; expected finite weights")
        if (self.activation == "topk") != (0 < self.k <= self.n_features):
            raise ArtifactError(
                f"SAE {self.id!r}: {self.activation} came with k {self.k} of {self.n_features} features"
            )

    @property
    def d_hidden(self) -> int:
        """Width of the residual stream."""
        return self.w_enc.shape[0]

    @property
    def n_features(self) -> int:
        """Features."""
        return self.w_enc.shape[1]

    @property
    def decoder_norm(self) -> Float32[Tensor, " feature"]:
        """Euclidean length of each feature's row of the decoder."""
        return self.w_dec.norm(dim=1)

    @property
    def hash(self) -> str:
        """blake2b over site, form and weights: equal autoencoders have equal hashes."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(f"{self.site} {self.activation} {self.k} {self.scaling}".encode())
        for name in ("w_enc", "b_enc", "w_dec", "b_dec", "threshold"):
            digest.update(getattr(self, name).detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> "LoadedSAE":
        """The same autoencoder with its weights on a device."""
        names = ("w_enc", "b_enc", "w_dec", "b_dec", "threshold")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def scaled(self, x: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows hidden"]:
        """What the encoder reads: x in float32 under "none", else each token brought to one scale."""
        value = x.to(self.w_enc.dtype)
        if self.scaling == "constant_norm":
            return value * (math.sqrt(self.d_hidden) / value.norm(dim=-1, keepdim=True))
        if self.scaling == "layer_norm":
            centred = value - value.mean(dim=-1, keepdim=True)
            return centred / (centred.std(dim=-1, keepdim=True) + EPS)
        return value

    def encode(self, x: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows feature"]:
        """Value of every feature, 0 where it does not fire."""
        return self.fire(self.scaled(x) @ self.w_enc + self.b_enc)

    def encode_some(
        self, x: Float[Tensor, "*rows hidden"], features: Int64[Tensor, " chosen"]
    ) -> Float[Tensor, "*rows chosen"]:
        """Value of some features; only their columns are computed, except under "topk", which needs all to rank."""
        if self.activation == "topk":
            return self.encode(x)[..., features]
        pre = self.scaled(x) @ self.w_enc[:, features] + self.b_enc[features]
        return torch.where(pre > self.threshold[features], pre, 0)

    def fire(self, pre: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows feature"]:
        """The activation function, on pre-activations of all features."""
        if self.activation == "topk":
            top = pre.topk(self.k, dim=-1, sorted=False)
            return torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())
        return torch.where(pre > self.threshold, pre, 0)

    def decode(
        self, features: Float[Tensor, "*rows feature"], like: Float[Tensor, "*rows hidden"] | None = None
    ) -> Float[Tensor, "*rows hidden"]:
        """Activation that these feature values stand for.

        like: the activation that was encoded, needed where each token has its own scale, to undo it.
        """
        value = features @ self.w_dec + self.b_dec
        if self.scaling == "none":
            return value
        if like is None:
            raise ArtifactError(
                f"SAE {self.id!r} scales each token ({self.scaling}); expected the encoded activation to undo it; "
                "call decode(features, like=x)"
            )
        x = like.to(value.dtype)
        if self.scaling == "constant_norm":
            return value * (x.norm(dim=-1, keepdim=True) / math.sqrt(self.d_hidden))
        return value * x.std(dim=-1, keepdim=True) + x.mean(dim=-1, keepdim=True)

    def reconstruct(self, x: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows hidden"]:
        """decode(encode(x)), in the dtype of x."""
        return self.decode(self.encode(x), like=x).to(x.dtype)
