"""Similarity of two sets of representations beside CKA: CCA, PWCCA, neuron-wise correlation, and matching.

None of these knows languages; `similarity_indices` measures them over depths and pairs.
"""

import torch

from babelscope.axes import Float64, Int64, Tensor
from babelscope.errors import MeasurementError
from babelscope.probes.geometry.alignment import cosine_matrix


def principal_scores(x: Float64[Tensor, "sentence hidden"], directions: int) -> Float64[Tensor, "sentence direction"]:
    """Coordinates of centred rows along their first principal directions; fewer where the rank is lower."""
    u, s, _ = thin_svd(about_mean(x))
    return u[:, :directions] * s[:directions]


def canonical_similarity(x: Float64[Tensor, "sentence hidden"], y: Float64[Tensor, "sentence hidden2"]) -> float:
    """Mean canonical correlation: Σ ρ_i / min(rank X, rank Y), ρ the singular values of QₓᵀQᵧ, Q orthonormal bases.

    CCA of whole vectors; SVCCA where both sides come through `principal_scores`.
    Raises MeasurementError where sentences are so few that directions coincide by force.
    Source: Raghu et al. 2017, arXiv:1706.05806.
    """
    first, second = orthonormal_bases(x, y)
    return float(canonical_means(first.T @ second))


def pwcca(x: Float64[Tensor, "sentence hidden"], y: Float64[Tensor, "sentence hidden2"]) -> float:
    """Canonical correlations weighted by what their variates explain of x: Σ α_i ρ_i / Σ α_i, α_i = Σ_j |⟨h_i, x_j⟩|.

    h_i: unit canonical variates of x; x_j: its centred columns. Not symmetric.
    Raises MeasurementError where sentences are so few that directions coincide by force.
    Source: Morcos et al. 2018, arXiv:1806.05759.
    """
    first, second = orthonormal_bases(x, y)
    return float(canonical_means(first.T @ second, first.T @ about_mean(x)))


def neuron_correlation(x: Float64[Tensor, "sentence hidden"], y: Float64[Tensor, "sentence hidden"]) -> float:
    """Average neuron-wise correlation: mean over neurons of Pearson's correlation over sentences; 0 where one is still.

    Source: Del & Fishel 2022, arXiv:2212.01924.
    """
    return float(cosine_columns(about_mean(x), about_mean(y)).mean())


def cosine_columns(
    x: Float64[Tensor, "sentence hidden"], y: Float64[Tensor, "sentence hidden"]
) -> Float64[Tensor, " hidden"]:
    """Cosine of each column of x with the same column of y; 0 where one of them is 0."""
    lengths = x.norm(dim=0) * y.norm(dim=0)
    return (x * y).sum(dim=0) / lengths.where(lengths > 0, 1.0)


def matching_accuracy(
    x: Float64[Tensor, "sentence hidden"],
    y: Float64[Tensor, "sentence hidden"],
    *,
    centred: bool = False,
    rotated: bool = False,
) -> float:
    """Share of sentences of x whose nearest of y, by cosine, is the translation.

    centred: each side about its own mean.
    rotated: x about its mean is turned by the orthogonal map that fits y best (Procrustes) on the other half of the
    sentences, within what those span; a map that is fitted on the sentences it is tested on matches them by force.
    """
    if rotated:
        nearest = nearest_rotated(x, y)
    else:
        nearest = nearest_in(about_mean(x), about_mean(y)) if centred else nearest_in(x, y)
    return float((nearest == torch.arange(len(x))).double().mean())


def nearest_in(
    x: Float64[Tensor, "sentence hidden"], y: Float64[Tensor, "sentence hidden"]
) -> Int64[Tensor, " sentence"]:
    """Of each row of x, the place of the nearest row of y by cosine."""
    return cosine_matrix(x, y).argmax(dim=1)


def nearest_rotated(
    x: Float64[Tensor, "sentence hidden"], y: Float64[Tensor, "sentence hidden"]
) -> Int64[Tensor, " sentence"]:
    """The same after a rotation fitted on the other half: even places are fitted on odd ones, and odd on even."""
    nearest = torch.empty(len(x), dtype=torch.int64)
    for start in (0, 1):
        fitted = slice(1 - start, None, 2)
        centres = x[fitted].mean(dim=0), y[fitted].mean(dim=0)
        rotation = procrustes_map(x[fitted] - centres[0], y[fitted] - centres[1])
        similarity = cosine_matrix((x[start::2] - centres[0]) @ rotation, y - centres[1])
        nearest[start::2] = similarity.argmax(dim=1)
    return nearest


def procrustes_map(
    x: Float64[Tensor, "sentence hidden"], y: Float64[Tensor, "sentence hidden"]
) -> Float64[Tensor, "hidden hidden"]:
    """R = U Vᵀ from XᵀY = U S Vᵀ, which makes ‖X R - Y‖ least among orthogonal maps; 0 outside the span of the rows.

    Solved on the rows' own span: with fewer sentences than dimensions the rest of the map is not determined.
    """
    (left, left_size, left_rows), (right, right_size, right_rows) = (thin_svd(side) for side in (x, y))
    u, _, v = torch.linalg.svd((left_size[:, None] * left.T) @ (right * right_size), full_matrices=False)
    return (left_rows.T @ u) @ (v @ right_rows)


def thin_svd(
    x: Float64[Tensor, "sentence hidden"],
) -> tuple[Float64[Tensor, "sentence direction"], Float64[Tensor, " direction"], Float64[Tensor, "direction hidden"]]:
    """Singular vectors and values of x, without directions that only rounding has; rows about their mean have one."""
    u, s, rows = torch.linalg.svd(x, full_matrices=False)
    rank = int((s > s.amax() * max(x.shape) * torch.finfo(s.dtype).eps).sum())
    return u[:, :rank], s[:rank], rows[:rank]


def canonical_means(
    product: Float64[Tensor, "... direction direction2"],
    loadings: Float64[Tensor, "... direction hidden"] | None = None,
) -> Float64[Tensor, "..."]:
    """Mean canonical correlation of QₓᵀQᵧ; with loadings QₓᵀX weighted by Σ_j |⟨h_i, x_j⟩|, the variates h = Qₓ U."""
    left, correlations, _ = torch.linalg.svd(product, full_matrices=False)
    correlations = correlations.clamp(max=1)
    if loadings is None:
        return correlations.mean(dim=-1)
    weights = (left.transpose(-1, -2) @ loadings).abs().sum(dim=-1)
    return (weights * correlations).sum(dim=-1) / weights.sum(dim=-1)


def orthonormal_bases(
    x: Tensor, y: Tensor
) -> tuple[Float64[Tensor, "sentence direction"], Float64[Tensor, "sentence direction2"]]:
    """Orthonormal bases of the centred columns; raises MeasurementError where they meet by force."""
    first, second = (thin_svd(about_mean(side))[0] for side in (x, y))
    if len(x) - 1 < first.shape[1] + second.shape[1]:
        raise MeasurementError(
            f"{len(x)} sentences came for spaces of {first.shape[1]} and {second.shape[1]} dimensions, which then "
            f"share directions by force; expected {first.shape[1] + second.shape[1] + 1} or more; give more text, or "
            "take principal_scores"
        )
    return first, second


def about_mean(x: Float64[Tensor, "sentence hidden"]) -> Float64[Tensor, "sentence hidden"]:
    """Rows without their mean."""
    return x - x.mean(dim=0)
