"""Whether an Observation holds what an ablation takes from it: found before any text is read."""

from collections.abc import Sequence
from typing import Literal

from babelscope.artifacts import NeuronSet, Observation
from babelscope.errors import SiteError

MatchedControl = Literal["layer_matched", "contribution_matched"]
CONTROLS: tuple[MatchedControl, ...] = ("layer_matched", "contribution_matched")


def sites_taken(sets: NeuronSet, controls: Sequence[MatchedControl], to: str) -> list[str]:
    """The sites that are read of an Observation: for the controls' contributions, and for means of the neurons."""
    taken = (("mlp_inner", "contribution_matched" in controls), (sets.at, to == "mean"))
    return list(dict.fromkeys(site for site, used in taken if used))


def check_observation(
    observation: Observation,
    sets: NeuronSet,
    languages: Sequence[str],
    *,
    controls: Sequence[MatchedControl] = CONTROLS,
    to: str = "zero",
) -> None:
    """Refuse an Observation that lacks something the ablation of these sets takes from it.

    languages: of the texts, on which means are taken.
    Raises ArtifactError for one of another model, SiteError for one without a site that is read, LanguageError for one
    without a language of the sets, or of the texts where means are taken.
    """
    sets.origin.check_same(observation.origin, "ablation with an observation")
    sites = sites_taken(sets, controls, to)
    lacking = [site for site in sites if site not in observation.records]
    if lacking:
        raise SiteError(
            f"the observation has {', '.join(observation.records)}; expected {' and '.join(lacking)} too, for what a "
            f"neuron gives; observe again with --sites {' '.join([*observation.records, *lacking])}, or leave the "
            "observation out"
        )
    for tag in [*(sets.languages if "contribution_matched" in controls else ()), *(languages if to == "mean" else ())]:
        observation.index(tag)
