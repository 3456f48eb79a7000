"""Features of a sparse autoencoder as what steers: folded into a direction, or clamped and scaled at every token."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from babelscope.artifacts import (
    Direction,
    FeatureMap,
    LoadedSAE,
    Observation,
    Operation,
    Origin,
    SteeringRecipe,
)
from babelscope.artifacts.identity import differences
from babelscope.axes import Float, Tensor
from babelscope.errors import SteeringError


def _check_features(sae: LoadedSAE, features: Sequence[int]) -> None:
    if not features or len(set(features)) < len(features):
        raise SteeringError(f"SAE {sae.id!r}: features {list(features)} came; expected one or more, each once")
    out_of_range = [index for index in features if not 0 <= index < sae.n_features]
    if out_of_range:
        raise SteeringError(
            f"SAE {sae.id!r}: feature {out_of_range[0]} came; expected 0–{sae.n_features - 1}; correct it"
        )


def check_sae_model(sae: LoadedSAE, origin: Origin) -> None:
    """Raise SteeringError where an autoencoder names a model, and another one came."""
    difference = (
        differences(Origin(sae.model, "", sae.model_hash, ""), origin, tokenizer=False) if sae.model_hash else ""
    )
    if difference:
        raise SteeringError(
            f"SAE {sae.id!r} was trained on {sae.model!r}, came with {origin.model!r}: {difference}; expected one "
            "model; use its own autoencoder"
        )


def feature_direction(
    obs: Observation,
    sae: LoadedSAE,
    amounts: Mapping[int, float],
    *,
    target: str,
    source: str | Sequence[str] = (),
    method: str = "features added",
) -> Direction:
    """What adding to some features does to the stream: v = Σ_j a_j·d_j, their decoder rows.

    With the reconstruction's error kept, h + a·d_j is exactly what an edit of feature j by +a decodes to, so no
    autoencoder runs while the model does. `obs` gives origin and the stream's mean norm at the autoencoder's site.
    Raises SteeringError for features that it lacks, an autoencoder of another model, or of another width.
    Source: sparse feature steering, arXiv:2507.13410; the folding, CLaS-Bench, arXiv:2601.08331.
    """
    _check_features(sae, list(amounts))
    check_sae_model(sae, obs.origin)
    if sae.scaling != "none":
        raise SteeringError(f"SAE {sae.id!r} scales each token ({sae.scaling}); expected none; choose another")
    width = obs[sae.site.at].sum.shape[1]
    if width != sae.d_hidden:
        raise SteeringError(f"SAE {sae.id!r} reads {sae.d_hidden} values, the model has {width} at '{sae.site}'")
    sources = (source,) if isinstance(source, str) else tuple(source)
    weights = torch.tensor(list(amounts.values()), dtype=torch.float64)
    return Direction(
        vector=(weights @ sae.w_dec[list(amounts)].double()).float(),
        site=sae.site,
        target=target,
        source=sources,
        mean_norm=obs.mean_norm(sae.site.at, sae.site.layer or 0, (target, *sources)),
        origin=obs.origin,
        parameters={
            "method": method,
            "source": "arXiv:2507.13410",
            "sae": {"id": sae.id, "hash": sae.hash},
            "amounts": {str(index): float(amount) for index, amount in amounts.items()},
        },
    )


def feature_difference(
    obs: Observation,
    sae: LoadedSAE,
    features: Sequence[int],
    target_mean: Float[Tensor, " feature"],
    source_mean: Float[Tensor, " feature"],
    *,
    target: str,
    source: str | Sequence[str],
) -> Direction:
    """Move a language's features from their mean on the source to their mean on the target.

    v = Σ_j (mean_target f_j - mean_source f_j)·d_j over the chosen features; the means are over tokens, one value for
    every feature of the autoencoder. With the features of LangFIR, arXiv:2604.03532, whose own weights were not to be
    read: theirs may differ.
    """
    _check_features(sae, features)
    if target_mean.shape != (sae.n_features,) or source_mean.shape != (sae.n_features,):
        raise SteeringError(
            f"means of {len(target_mean)} and {len(source_mean)} features came; SAE {sae.id!r} has {sae.n_features}; "
            "take them with the same autoencoder"
        )
    gap = target_mean.double() - source_mean.double()
    amounts = {index: float(gap[index]) for index in features}
    return feature_direction(obs, sae, amounts, target=target, source=source, method="difference of features")


def feature_map(sae: LoadedSAE, features: Sequence[int]) -> FeatureMap:
    """The part of an autoencoder that an operation on these features needs; all of its encoder under "topk".

    Raises SteeringError for features that it lacks, or one that scales each token.
    """
    _check_features(sae, features)
    if sae.scaling != "none":
        raise SteeringError(f"SAE {sae.id!r} scales each token ({sae.scaling}); expected none; choose another")
    chosen = torch.tensor(list(features))
    encoder_features = torch.arange(sae.n_features) if sae.activation == "topk" else chosen
    return FeatureMap(
        encoder=sae.w_enc[:, encoder_features].T.contiguous(),
        bias=sae.b_enc[encoder_features].clone(),
        threshold=sae.threshold[encoder_features].clone(),
        decoder=sae.w_dec[chosen].clone(),
        chosen=chosen if sae.activation == "topk" else torch.arange(len(chosen)),
        top_k=sae.k if sae.activation == "topk" else None,
    )


def clamp_features(
    sae: LoadedSAE, levels: Mapping[int, float], *, strength: float | int = 1.0, origin: Origin | None = None
) -> SteeringRecipe:
    """Hold features at levels, at every token: h + Σ_j (level_j - f_j)·d_j; the reconstruction's error is kept.

    origin: of the model, as an Observation or `origin_of` has it; the recipe then steers this model alone. None: the
    model is checked for its widths.
    Raises SteeringError for features that the autoencoder lacks, or where it was trained on another model.
    Source: sparse feature steering, arXiv:2507.13410, which changes one feature at one layer; here they may be several.
    """
    return _edited(sae, "clamp_features", levels, strength, origin)


def scale_features(
    sae: LoadedSAE, factors: Mapping[int, float], *, strength: float | int = 1.0, origin: Origin | None = None
) -> SteeringRecipe:
    """Multiply features where they fire: h + Σ_j (factor_j - 1)·f_j·d_j; 0 takes a feature out.

    origin, errors and source: as of `clamp_features`.
    """
    return _edited(sae, "scale_features", factors, strength, origin)


def _edited(
    sae: LoadedSAE,
    kind: Literal["clamp_features", "scale_features"],
    values: Mapping[int, float],
    strength: float | int,
    origin: Origin | None,
) -> SteeringRecipe:
    if origin is not None:
        check_sae_model(sae, origin)
    part = feature_map(sae, list(values))
    vector = torch.tensor([float(value) for value in values.values()])
    operation = Operation(sae.site, kind, vector, strength, features=part, origin=origin)
    word = "clamped" if kind == "clamp_features" else "scaled"
    parameters = {"method": f"features {word}", "source": "arXiv:2507.13410", "sae": {"id": sae.id, "hash": sae.hash}}
    return SteeringRecipe((operation,), origin or Origin(sae.model, "", "", ""), parameters)
