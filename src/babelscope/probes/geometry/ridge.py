"""A linear classifier in closed form, so that hundreds of refits on shuffled labels cost one factorisation."""

import torch
import torch.nn.functional as F

from babelscope.axes import Float64, Int64, Tensor

PENALTY = 0.1
"""Ridge added to each eigenvalue of the correlation matrix."""


class RidgeProbe:
    """Least squares on one-hot labels with a ridge; the largest output is the class.

    Features are standardised on the training rows. W = (XᵀX + λ n I)⁻¹ Xᵀ Y, Y centred; scikit-learn's
    RidgeClassifier with alpha = λ n gives the same outputs, times two. Solved on the smaller side of X.
    """

    def __init__(
        self, train: Float64[Tensor, "row hidden"], test: Float64[Tensor, "row2 hidden"], *, penalty: float = PENALTY
    ) -> None:
        centre, spread = train.mean(dim=0), train.std(dim=0, correction=0)
        spread = torch.where(spread > 0, spread, torch.ones_like(spread))
        fitted, held_out = (train - centre) / spread, (test - centre) / spread
        n, hidden = fitted.shape
        # `smoother` takes centred targets of the training rows to outputs on the test rows.
        if hidden <= n:
            factor = torch.linalg.cholesky(fitted.T @ fitted + penalty * n * torch.eye(hidden, dtype=torch.float64))
            self.smoother = held_out @ torch.cholesky_solve(fitted.T.contiguous(), factor)
        else:
            factor = torch.linalg.cholesky(fitted @ fitted.T + penalty * n * torch.eye(n, dtype=torch.float64))
            self.smoother = torch.cholesky_solve(fitted @ held_out.T, factor).T

    def outputs(self, labels: Int64[Tensor, " row"], classes: int) -> Float64[Tensor, "row2 class"]:
        """Outputs on the test rows of the classifier trained on these labels."""
        target = F.one_hot(labels, classes).double()
        return self.smoother @ (target - target.mean(dim=0)) + target.mean(dim=0)

    def predict(self, labels: Int64[Tensor, " row"], classes: int) -> Int64[Tensor, " row2"]:
        """Classes of the test rows; the first of several equal ones."""
        return self.outputs(labels, classes).argmax(dim=1)
