"""The subspace in which languages differ: taken out, put back, or held at one language's place."""

from collections.abc import Sequence

import torch

from babelscope.artifacts import Observation, Operation, SteeringRecipe
from babelscope.artifacts.stream_forms import StreamForm
from babelscope.axes import Float32, Tensor
from babelscope.errors import SteeringError
from babelscope.sites import Site
from babelscope.steering.directions.means import form_at, language_mean
from babelscope.steering.directions.subspaces import language_subspace


def language_basis(
    obs: Observation, layer: int, rank: int | None = None, *, form: StreamForm = "auto"
) -> Float32[Tensor, "rank hidden"]:
    """Orthonormal rows that span the differences of the languages' means at a layer's resid_out: `language_subspace`.

    rank: None is all of them, one less than there are languages.
    form: as of `mean_direction`; the ordinary one leaves first tokens and massive units out.
    """
    site = Site(layer, "resid_out")
    shape = form_at(obs, site, form)
    means = torch.stack([language_mean(obs, tag, site, shape) for tag in obs.languages])
    return language_subspace(means, rank).float()


def ablate_languages(
    obs: Observation,
    *,
    middle: Sequence[int],
    upper: Sequence[int] = (),
    strength: float | int = 0.3,
    upper_strength: float | int = -0.1,
    rank: int | None = None,
    form: StreamForm = "auto",
) -> SteeringRecipe:
    """Take a share of the language subspace out in middle layers, and put some of it back in upper ones.

    h - λ·(hQᵀ)Q, λ = strength in `middle` and `upper_strength`, which is negative, in `upper`, so that the answer keeps
    its language. The published bases are of the last prompt token's means on parallel questions; ours of the means over
    all tokens of any text.
    form: of the bases, as of `language_basis`.
    Source: language–reasoning disentanglement, arXiv:2505.15257.
    """
    bands = [*((layer, strength) for layer in middle), *((layer, upper_strength) for layer in upper)]
    operations = []
    for layer, share in bands:
        basis, site = language_basis(obs, layer, rank, form=form), Site(layer, "resid_out")
        operations.append(
            Operation(
                site,
                "subspace",
                torch.zeros(basis.shape[1]),
                share,
                matrix=basis,
                origin=obs.origin,
            )
        )
    if not operations:
        raise SteeringError("no layer came; expected at least one in the middle; name the layers")
    parameters = {"method": "language subspace taken out", "source": "arXiv:2505.15257", "rank": rank}
    return SteeringRecipe(tuple(operations), obs.origin, {**parameters, "middle": list(middle), "upper": list(upper)})


def hold_coordinates(
    obs: Observation,
    *,
    target: str,
    layer: int,
    strength: float | int = 1.0,
    rank: int | None = None,
    basis: Float32[Tensor, "rank hidden"] | None = None,
    form: StreamForm = "auto",
) -> SteeringRecipe:
    """Hold the stream, within the language subspace, at the place of one language's mean.

    h + s·((μ_target - h)Qᵀ)Q at resid_out: at s = 1 every token has the target's coordinates, whatever language it
    came from, and all that lies outside the subspace is kept; s > 1 goes past them. No source language is named.
    basis: share one over the rows of a batch, and they are steered in one step; None: `language_basis`.
    form: of the basis and of the target's mean, as of `language_basis`.
    Not a published method: the subspace is that of arXiv:2505.15257, the target's mean put in its place.
    """
    site = Site(layer, "resid_out")
    space = language_basis(obs, layer, rank, form=form) if basis is None else basis
    operation = Operation(
        site,
        "subspace",
        language_mean(obs, target, site, form_at(obs, site, form)).float(),
        strength,
        matrix=space,
        origin=obs.origin,
    )
    tag = obs.languages[obs.index(target)]
    parameters = {"method": "language coordinates held", "source": "ours; subspace of arXiv:2505.15257", "target": tag}
    return SteeringRecipe((operation,), obs.origin, {**parameters, "layer": layer, "rank": len(space)})
