"""Subspaces of the residual stream: where languages differ, how many dimensions that takes, how two of them lie."""

import torch

from babelscope.axes import Float64, Tensor
from babelscope.errors import MeasurementError


def language_subspace(
    means: Float64[Tensor, "language hidden"], rank: int | None = None
) -> Float64[Tensor, "rank hidden"]:
    """Orthonormal basis of the directions in which languages' means differ, the widest first.

    The `rank` leading left singular vectors of M - μ 1ᵀ, M having a language's mean in each column. This is the span
    that the common-specific split of Piratla et al. 2020 (arXiv:2003.12815) finds, as LSAR (Xie et al. 2022) and the
    language–reasoning split (arXiv:2505.15257) use it; their common vector only chooses another basis in it. What lies
    outside is what all languages share.
    rank: None means all directions that are not rounding, at most n_language - 1. Each vector's largest entry is
    positive.
    Raises MeasurementError for fewer than two languages, values that are not finite, or a rank that is not there.
    """
    if len(means) < 2:
        raise MeasurementError(f"{len(means)} language came; expected at least two, for a difference; add text")
    if not bool(torch.isfinite(means).all()):
        raise MeasurementError("a language's mean is NaN or infinite; expected numbers; check the weights")
    _, singular, basis = torch.linalg.svd(means - means.mean(dim=0), full_matrices=False)
    available = int((singular > singular[0] * max(means.shape) * torch.finfo(torch.float64).eps).sum())
    kept_rank = available if rank is None else rank
    if not 1 <= kept_rank <= available:
        raise MeasurementError(
            f"rank {kept_rank} was asked for; {len(means)} languages differ in {available} directions; expected 1 to "
            f"{max(1, available)}; ask for less, or add languages"
        )
    return _with_sign(basis[:kept_rank])


def principal_components(
    rows: Float64[Tensor, "row hidden"], rank: int | None = None
) -> tuple[Float64[Tensor, "rank hidden"], Float64[Tensor, " component"]]:
    """Leading directions of some rows about their mean, and the variance along every component."""
    _, singular, basis = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False)
    return _with_sign(basis[:rank]), singular.square() / max(1, len(rows) - 1)


def components_for(variance: Float64[Tensor, " component"], share: float = 0.9) -> int:
    """The fewest leading components that hold a share of the variance; 0 where there is none."""
    total = variance.sum()
    return 0 if total == 0 else int((variance.cumsum(dim=0) < share * total * (1 - 1e-12)).sum()) + 1


def principal_angles(
    wider: Float64[Tensor, "rank hidden"], narrower: Float64[Tensor, "rank2 hidden"]
) -> Float64[Tensor, " angle"]:
    """Angles in radians between two subspaces given by orthonormal rows, the smallest first: arccos of σ(A Bᵀ).

    Small ones come from the sine, which the cosine would round away (Björck & Golub 1973).
    """
    wider, narrower = (wider, narrower) if len(wider) >= len(narrower) else (narrower, wider)
    cosine = torch.linalg.svdvals(narrower @ wider.T).clamp(max=1)
    residual = narrower - narrower @ wider.T @ wider
    sine = torch.linalg.svdvals(residual).clamp(max=1).flip(0)[: len(cosine)]
    return torch.where(cosine.square() < 0.5, cosine.arccos(), sine.arcsin())


def without_subspace(
    rows: Float64[Tensor, "*rows hidden"], basis: Float64[Tensor, "rank hidden"]
) -> Float64[Tensor, "*rows hidden"]:
    """Rows without their part in a subspace: h - (h Bᵀ) B, B orthonormal rows."""
    return rows - rows @ basis.T @ basis


def random_subspace(rank: int, hidden: int, *, seed: int) -> Float64[Tensor, "rank hidden"]:
    """A uniformly random subspace, as orthonormal rows: the control."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(hidden, rank, generator=generator, dtype=torch.float64))[0].T.contiguous()


def _with_sign(basis: Float64[Tensor, "rank hidden"]) -> Float64[Tensor, "rank hidden"]:
    largest = basis.gather(1, basis.abs().argmax(dim=1, keepdim=True))
    return basis * largest.sign()


def covariance_distance(
    x: Float64[Tensor, "sentence hidden"], y: Float64[Tensor, "sentence2 hidden"], *, shrinkage: float = 0.1
) -> float:
    """Distance of two languages' subspaces about their means: √Σ ln² λ, λ the eigenvalues of K_x⁻¹ K_y.

    K is the covariance, of which a share `shrinkage` is replaced by the same variance in every direction, so that it
    has an inverse with fewer sentences than dimensions. 0 for equal covariances; the same for both orders, and for any
    invertible linear map of both without shrinkage. Source: Chang et al. 2022, arXiv:2205.10964, whose covariances are
    of half a million tokens and are not shrunk.
    Raises MeasurementError for fewer than two sentences, no variance, or a shrinkage outside 0–1.
    """
    if min(len(x), len(y)) < 2 or not 0 <= shrinkage <= 1:
        raise MeasurementError(
            f"{len(x)} and {len(y)} sentences with shrinkage {shrinkage} came; expected two or more of each, and a "
            "share; correct them"
        )
    factors = []
    for rows in (x, y):
        centred = rows - rows.mean(dim=0)
        covariance = centred.T @ centred / (len(rows) - 1)
        even = covariance.diagonal().mean() * torch.eye(rows.shape[1], dtype=rows.dtype)
        factor, failed = torch.linalg.cholesky_ex((1 - shrinkage) * covariance + shrinkage * even)
        if int(failed):
            raise MeasurementError("a covariance has no inverse; expected one; raise the shrinkage or add sentences")
        factors.append(factor)
    # K_x = A Aᵀ and K_y = B Bᵀ: the eigenvalues are the squared singular values of A⁻¹ B.
    singular = torch.linalg.svdvals(torch.linalg.solve_triangular(factors[0], factors[1], upper=False))
    return float((2 * singular.log()).norm())


def nearest_layers(distances: Float64[Tensor, " depth"]) -> range:
    """The run of neighbouring depths about the smallest distance that lie below the middle of smallest and largest."""
    middle, start = (float(distances.min()) + float(distances.max())) / 2, int(distances.argmin())
    end = start + 1
    while start > 0 and float(distances[start - 1]) < middle:
        start -= 1
    while end < len(distances) and float(distances[end]) < middle:
        end += 1
    return range(start, end)
