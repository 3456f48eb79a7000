"""The curvature of the loss in the weights of a linear map, as a Kronecker product with corrected eigenvalues."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from babelscope.axes import Float, Tensor
from babelscope.errors import MeasurementError


class LinearRecord(NamedTuple):
    """What one pass leaves at a linear map y = W x: the gradient of W for one text is Σ_t (∂/∂y_t) x_tᵀ."""

    inputs: Float[Tensor, "text token into"]
    """x_t, with a 1 at the end where the map has a bias."""
    gradients: Float[Tensor, "text token out"]
    """∂ ln P(text) / ∂ y_t; 0 at padding."""

    def weight_gradients(self) -> Float[Tensor, "text out into"]:
        """Gradient of each text's ln P in W."""
        return self.gradients.mT @ self.inputs

    def products(self, other: "LinearRecord") -> Float[Tensor, "text other"]:
        """Inner product of the gradients of W of each text here (rows) and each text of another record (columns)."""
        left = torch.einsum("qto,bso->qbts", self.gradients, other.gradients)
        return (left * torch.einsum("qti,bsi->qbts", self.inputs, other.inputs)).sum(dim=(2, 3))


@dataclass(eq=False)
class KroneckerCurvature:
    """EK-FAC of one linear map: G ≈ (Q_S ⊗ Q_A) diag(Λ) (Q_S ⊗ Q_A)ᵀ, the Gauss–Newton matrix of the mean loss.

    A = Σ x xᵀ and S = Σ δ δᵀ over tokens, Q_A and Q_S their eigenvectors, δ the gradient at the output for targets that
    the model itself draws; Λ_oi = Σ_texts (Q_Sᵀ D Q_A)²_oi / predicted tokens, D being a text's gradient of W.
    It is exact where G is a Kronecker product, such as A ⊗ S.
    Fill it in two passes over the same text and the same drawn targets: `add_moments`, then `decompose`, then
    `add_squares`.
    Source: George et al. 2018, arXiv:1806.03884; Grosse et al. 2023, arXiv:2308.03296.
    """

    inputs: Float[Tensor, "into into"] | None = None
    """A; its eigenvectors after `decompose`."""
    outputs: Float[Tensor, "out out"] | None = None
    """S; its eigenvectors after `decompose`."""
    squares: Float[Tensor, "out into"] | None = None
    """Σ_texts (Q_Sᵀ D Q_A)²."""
    predicted: int = 0
    """Tokens whose targets were drawn."""

    def add_moments(self, record: LinearRecord) -> None:
        """Add a batch to A and S; a token without a gradient is no part of either."""
        used = record.gradients.abs().amax(dim=-1) > 0
        x, delta = record.inputs[used], record.gradients[used]
        self.inputs = x.mT @ x if self.inputs is None else self.inputs + x.mT @ x
        self.outputs = delta.mT @ delta if self.outputs is None else self.outputs + delta.mT @ delta

    def decompose(self) -> None:
        """Eigenvectors in the place of A and S."""
        assert self.inputs is not None and self.outputs is not None
        self.inputs, self.outputs = (torch.linalg.eigh(moment).eigenvectors for moment in (self.inputs, self.outputs))

    def add_squares(self, record: LinearRecord, predicted: int) -> None:
        """Add a batch with so many predicted tokens to Λ."""
        assert self.inputs is not None and self.outputs is not None
        rotated = LinearRecord(record.inputs @ self.inputs, record.gradients @ self.outputs).weight_gradients()
        added = rotated.square().sum(dim=0)
        self.squares = added if self.squares is None else self.squares + added
        self.predicted += predicted

    def solve(self, gradients: Float[Tensor, "text out into"], *, damping: float) -> Float[Tensor, "text out into"]:
        """(G + λI)⁻¹ of gradients of W, with λ = damping · the mean of Λ.

        Raises MeasurementError where Λ is 0 everywhere or no number: no drawn target has a gradient here.
        """
        assert self.inputs is not None and self.outputs is not None and self.squares is not None
        eigenvalues = self.squares / self.predicted
        shift = damping * float(eigenvalues.mean())
        if not 0 < shift < float("inf"):
            raise MeasurementError(
                f"the curvature of a projection has the mean {float(eigenvalues.mean())}; expected a number above 0; "
                "open the model in float32, or name layers whose MLP acts"
            )
        rotated = self.outputs.mT @ gradients @ self.inputs
        return self.outputs @ (rotated / (eigenvalues + shift)) @ self.inputs.mT
