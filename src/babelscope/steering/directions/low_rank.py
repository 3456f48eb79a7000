"""Low-rank control of the language: singular directions of the way to it, and features that raise its tokens."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch

from babelscope.artifacts import Operation, SteeringRecipe
from babelscope.artifacts.stream import form_used, without_units
from babelscope.artifacts.stream_forms import StreamForm
from babelscope.axes import Float64, Tensor
from babelscope.errors import LanguageError, SteeringError
from babelscope.languages import Language
from babelscope.sites import Site
from babelscope.steering.directions.document_samples import DocumentMeans
from babelscope.steering.directions.lifted_features import LiftedFeatures
from babelscope.steering.directions.means import compared_languages
from babelscope.steering.directions.saes import check_sae_model
from babelscope.steering.directions.shift_spectra import (
    Pairing,
    ShiftSpectrum,
    eigengap_window,
    language_differences,
    shift_spectrum,
)
from babelscope.steering.directions.subspaces import random_subspace

RandomControl = Literal["none", "random"]


class _Shift(NamedTuple):
    """What is added at one layer, and how it came about."""

    vector: Float64[Tensor, " hidden"]
    facts: dict[str, Any]


def low_rank_control(
    samples: Mapping[Site, DocumentMeans],
    *,
    target: str,
    source: str = "en",
    features: Sequence[LiftedFeatures] = (),
    k: int = 10,
    rank: int | None = None,
    window: Sequence[int] | None = None,
    compensation: float | int = 0.5,
    strength: float | int = 1.0,
    pairing: Pairing = "parallel",
    form: StreamForm = "auto",
    control: RandomControl = "none",
    seed: int = 0,
) -> SteeringRecipe:
    """Raise a language and lower another in the few directions, or by the few features, that tell them apart.

    At each layer of a window, D = the documents' differences target - source, and P = V_rᵀ V_r of its leading right
    singular vectors (`shift_spectrum`). What is added there, over the number of layers W of the window:

        in the stream       v = P ((μ_target - μ) - c (μ_source - μ)) / W, μ the mean of all languages' means;
        by features         v = Σ_j a_j d_j / W over the best k of the target and of the source (`LiftedFeatures`):
                            a = P m in these features' values, m the mean of D; a_j above 0 for the target's, below 0
                            and times c for the source's; others of them stay as they are.

    c = `compensation`, the share of the source's part that is taken away: 0 only raises the target.
    samples: means of documents by site, as `document_means` gives them; those of the layers to choose a window from.
    features: at most one for each site, of the same two languages; its layer is steered by them, not in the stream.
    window: layers; None is `eigengap_window` over the layers of `samples`, by their streams.
    rank: of every layer, by features no more than these are; None lets each eigengap say.
    pairing: as of `language_differences`. form: of the stream's documents, as of `mean_direction`.
    control: "random" keeps each layer's length and rank, in a random subspace; by features, it puts the same amounts
    on as many others that fire in both languages' text; both drawn by `seed`.
    Raises SteeringError for layers or features that do not fit, LanguageError where source or target is not there,
    CorpusError or MeasurementError where there are no differences to decompose.
    Source: after Neural FOXP2, arXiv:2602.00945. Published: autoencoders at every layer; differences of their values
    decomposed; λ P μ_target less β of the source's own part, at the last token. Ours: the stream where no autoencoder
    is, the window by the eigengap alone, constant shifts at every token, c in place of β/λ.
    """
    if not samples:
        raise SteeringError("no documents' means came; expected those of one layer or more; see document_means")
    if not 0 <= compensation < float("inf"):
        raise SteeringError(f"compensation {compensation} came; expected a share of 0 or more; correct it")
    ordered = sorted(samples, key=lambda site: site.layer or 0)
    first = samples[ordered[0]]
    (away,) = compared_languages(first, target, source)
    tag = first.languages[first.index(target)]
    by_site = _features_by_site(features, ordered, tag, away)
    shaped = {site: samples[site].in_form(form) for site in ordered}
    spectra = {site: shift_spectrum(language_differences(shaped[site], tag, away, pairing), rank) for site in ordered}
    places = _window(ordered, spectra, window)
    if outside := [str(site) for site in by_site if site not in places]:
        raise SteeringError(
            f"features at {', '.join(outside)} came, the window is {', '.join(map(str, places))}; expected them in it; "
            "pass window=, or samples of their layers alone"
        )
    operations, layers = [], {}
    for site in places:
        if site in by_site:
            shift = _by_features(by_site[site], k, rank, compensation, pairing, control, seed)
        else:
            massive = samples[site].left_out if form_used(samples[site].stream, form, site) == "ordinary" else ()
            shift = _in_stream(shaped[site], spectra[site], (tag, away), compensation, control, seed, massive)
        vector = (shift.vector / len(places)).float()
        operations.append(Operation(site, "add", vector, strength, origin=samples[site].origin))
        layers[str(site)] = shift.facts
    parameters = {
        "method": "low-rank control of the language",
        "source": "after Neural FOXP2, arXiv:2602.00945",
        "target": tag,
        "from": [away],
        "compensation": float(compensation),
        "control": control,
        "seed": seed,
        "gaps": {str(site): spectrum.gap for site, spectrum in spectra.items()},
        "layers": layers,
    }
    return SteeringRecipe(tuple(operations), first.origin, parameters)


def _features_by_site(
    features: Sequence[LiftedFeatures], sites: Sequence[Site], target: Language, source: Language
) -> dict[Site, LiftedFeatures]:
    """The features at their sites; raises where they are of other languages or sites, or two share one."""
    by_site: dict[Site, LiftedFeatures] = {}
    for part in features:
        if (part.target, part.source) != (target, source):
            raise LanguageError(
                f"features of {part.target} against {part.source} came with {target} against {source}; score them anew"
            )
        if part.sae.site not in sites or part.sae.site in by_site:
            raise SteeringError(
                f"features at '{part.sae.site}' came; expected one each at {', '.join(map(str, sites))}; give the "
                "documents' means of their layer as well"
            )
        check_sae_model(part.sae, part.codes.origin)
        by_site[part.sae.site] = part
    return by_site


def _window(
    sites: Sequence[Site], spectra: Mapping[Site, ShiftSpectrum], window: Sequence[int] | None
) -> tuple[Site, ...]:
    if window is None:
        gaps = torch.tensor([spectra[site].gap for site in sites], dtype=torch.float64)
        return tuple(sites[place] for place in eigengap_window(gaps))
    chosen = tuple(site for site in sites if site.layer in window)
    if not chosen or len({site.layer for site in chosen}) < len(set(window)):
        raise SteeringError(
            f"window {list(window)} came; expected layers among {', '.join(map(str, sites))}; read those as well"
        )
    return chosen


def _in_stream(
    samples: DocumentMeans,
    spectrum: ShiftSpectrum,
    tags: tuple[Language, Language],
    compensation: float | int,
    control: RandomControl,
    seed: int,
    massive: tuple[int, ...],
) -> _Shift:
    """P ((μ_target - μ) - c (μ_source - μ)), or as long a vector in a random subspace of the same rank.

    massive: units that are 0 in both.
    """
    means = {tag: samples.mean(tag) for tag in samples.languages}
    centre = torch.stack(list(means.values())).mean(dim=0)
    wanted_shift = (means[tags[0]] - centre) - compensation * (means[tags[1]] - centre)
    # Massive units come out of a decomposition as rounding, and out of a random subspace as values: they are taken out
    # before the lengths are made the same.
    vector = without_units(wanted_shift @ spectrum.basis.T @ spectrum.basis, massive)
    if control == "random":
        basis = random_subspace(spectrum.rank, len(vector), seed=seed + (samples.site.layer or 0))
        vector = _as_long(without_units(wanted_shift @ basis.T @ basis, massive), vector)
    return _Shift(vector, _facts(spectrum))


def _by_features(
    features: LiftedFeatures,
    k: int,
    rank: int | None,
    compensation: float | int,
    pairing: Pairing,
    control: RandomControl,
    seed: int,
) -> _Shift:
    """Σ a_j d_j, or the same amounts on features drawn among the others that fire."""
    raised, lowered = features.best(k)
    support = [*raised, *lowered]
    rows = language_differences(features.codes, features.target, features.source, pairing)[:, support]
    spectrum = shift_spectrum(rows, None if rank is None else min(rank, *rows.shape))
    amounts = rows.mean(dim=0) @ spectrum.basis.T @ spectrum.basis
    to, away = amounts[: len(raised)].clamp(min=0), amounts[len(raised) :].clamp(max=0) * compensation
    amounts = torch.cat([to, away])
    if not bool(to.any()):
        raise SteeringError(
            f"none of {len(raised)} features of SAE {features.sae.id!r} rises from {features.source} to "
            f"{features.target} in {spectrum.rank} directions; expected one or more; raise the rank or k"
        )
    vector = amounts @ features.sae.w_dec[support].double()
    if control == "random":
        support = _drawn_features(features, support, seed)
        vector = _as_long(amounts @ features.sae.w_dec[support].double(), vector)
    listed = {str(index): float(amount) for index, amount in zip(support, amounts.tolist(), strict=True)}
    sae = {"id": features.sae.id, "hash": features.sae.hash}
    return _Shift(vector, {**_facts(spectrum), "sae": sae, "amounts": listed})


def _drawn_features(features: LiftedFeatures, support: Sequence[int], seed: int) -> list[int]:
    """As many other features that fire in both languages' text; raises SteeringError for too few."""
    fires = torch.stack([features.codes.mean(tag) > 0 for tag in (features.target, features.source)]).all(dim=0)
    fires[list(support)] = False
    candidates = fires.nonzero()[:, 0]
    if len(candidates) < len(support):
        raise SteeringError(
            f"{len(candidates)} other features of SAE {features.sae.id!r} fire; expected {len(support)}; lower k"
        )
    order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed))
    return candidates[order[: len(support)]].tolist()


def _as_long(vector: Float64[Tensor, " hidden"], like: Float64[Tensor, " hidden"]) -> Float64[Tensor, " hidden"]:
    return vector * (like.norm() / vector.norm())


def _facts(spectrum: ShiftSpectrum) -> dict[str, Any]:
    return {
        "rank": spectrum.rank,
        "gap": spectrum.gap,
        "mass": spectrum.mass,
        "stability": None if math.isnan(spectrum.stability) else spectrum.stability,
        "documents": spectrum.rows,
    }
