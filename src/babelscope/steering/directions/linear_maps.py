"""A linear map from one language's representations to another's."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch

from babelscope.artifacts import Gate, Operation, SteeringRecipe
from babelscope.artifacts.stream import form_used, without_units
from babelscope.artifacts.stream_forms import StreamForm
from babelscope.axes import Float64, Tensor
from babelscope.errors import SteeringError
from babelscope.sites import Site
from babelscope.steering.directions.document_samples import DocumentMeans

LAST_PROMPT_TOKEN = Gate("prompt", positions=(-1, None))
Combination = Literal["sum", "blend"]


class LinearMap(NamedTuple):
    """x W + b."""

    matrix: Float64[Tensor, "unit unit"]
    bias: Float64[Tensor, " unit"]


def fit_map(
    samples: DocumentMeans,
    *,
    target: str,
    source: str,
    ridge: float | int = 0.0,
    intercept: bool = False,
    form: StreamForm = "auto",
) -> LinearMap:
    """Least squares from the source's documents X to the parallel ones of the target Y.

    W = argmin |XW - Y|² + λ|W|², λ = ridge · trace(XᵀX)/units; without ridge the solution of least norm, for there may
    be fewer pairs than units. intercept: X and Y are centred first, and b = mean(Y) - mean(X) W; else b = 0.
    form: of X and Y, as of `mean_direction`; in the ordinary one the image is zero at massive units and does not depend
    on them.
    Raises CorpusError without parallel documents, SteeringError for a ridge that is not a number of 0 or more.
    """
    if not 0 <= ridge < float("inf"):
        raise SteeringError(f"ridge {ridge} came; expected a number of 0 or more; correct it")
    samples = samples.in_form(form)
    y, x = samples.pairs(target, source)
    means = (x.mean(dim=0), y.mean(dim=0)) if intercept else (torch.zeros_like(x[0]), torch.zeros_like(y[0]))
    x, y = x - means[0], y - means[1]
    if ridge:
        gram = x.T @ x
        weight = ridge * gram.trace() / len(gram)
        w = torch.linalg.solve(gram + weight * torch.eye(len(gram), dtype=torch.float64), x.T @ y)
    else:
        w = torch.linalg.pinv(x) @ y
    # Units without values come out of a fit as rounding, not as 0.
    left_out = massive_at(samples, form)
    w = without_units(without_units(w, left_out).T, left_out).T
    return LinearMap(w, means[1] - means[0] @ w)


def massive_at(samples: DocumentMeans, form: StreamForm) -> tuple[int, ...]:
    """Units that a form leaves out of some documents' means."""
    return samples.left_out if form_used(samples.stream, form, samples.site) == "ordinary" else ()


def incline(
    samples: Mapping[Site, DocumentMeans],
    *,
    target: str,
    source: str,
    strength: float | int = 0.3,
    ridge: float | int = 0.0,
    form: Combination = "sum",
    clean: bool = True,
    intercept: bool = False,
    stream_form: StreamForm = "auto",
) -> SteeringRecipe:
    """Move the last prompt token at every given site by its image under a map between the languages.

    form: "sum" x + σ·xW, as published; "blend" x + σ·(xW - x), the image itself at σ = 1.
    clean: x and its image are those of a pass that nothing steers, pasted at every layer, as published; False: each
    layer maps what the layers before it left, at any gate: `recipe.with_(gate=Gate())` maps every token.
    stream_form: of the documents' means, as of `fit_map`; in the ordinary form massive units are left as they are.
    The published map has no intercept and no ridge, and its text mixes in pairs joined in two languages: `join_pairs`.
    Source: INCLINE, arXiv:2410.12462.
    """
    operations: list[Operation] = []
    units_left_out: dict[str, list[int]] = {}
    for site, means in samples.items():
        fitted = fit_map(means, target=target, source=source, ridge=ridge, intercept=intercept, form=stream_form)
        left_out = massive_at(means, stream_form)
        # The part that the image takes the place of.
        identity = (
            without_units(torch.eye(len(fitted.matrix), dtype=torch.float64), left_out) if form == "blend" else 0.0
        )
        units_left_out[str(site)] = list(left_out)
        matrix = (fitted.matrix - identity).float()
        operations.append(
            Operation(
                site,
                "affine",
                fitted.bias.float(),
                strength,
                matrix=matrix,
                gate=LAST_PROMPT_TOKEN,
                origin=means.origin,
                clean=clean,
            )
        )
    if not operations:
        raise SteeringError("no site came; expected documents' means at one or more; read them with document_means")
    settings = {"ridge": float(ridge), "form": form, "clean": clean, "intercept": intercept}
    settings |= {"stream_form": stream_form, "left_out": units_left_out}
    provenance = {
        "method": "least-squares map",
        "source": "INCLINE, arXiv:2410.12462",
        "target": target,
        "from": [source],
    }
    return SteeringRecipe(tuple(operations), next(iter(samples.values())).origin, {**provenance, **settings})
