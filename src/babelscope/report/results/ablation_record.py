"""What switching sets off harms: `ablation` of results.json, and ablation.json of the command ablate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from babelscope.report.results.value_kinds import BoundedEstimate, ByLanguage, LanguageSquare, Measure, Number


@dataclass(frozen=True, kw_only=True)
class HarmInUnit:
    """The verdict on own text in one unit of harm."""

    specificity: ByLanguage[BoundedEstimate | None] | None = None
    """[estimate, low, high]: own-language harm less the largest harm to another language, with its interval."""
    own_hurt_most: ByLanguage[bool] | None = None
    """Whether the own text is hurt most."""
    pairing_p: Measure | None = None
    """As pairing_p of the ablation, in this unit."""


@dataclass(frozen=True, kw_only=True)
class HarmInUnits:
    """The verdict on own text in each unit of harm."""

    relative: HarmInUnit | None = None
    """Share of the untouched loss."""
    nats_per_token: HarmInUnit | None = None
    """Nats per token."""
    bits_per_byte: HarmInUnit | None = None
    """Bits per byte of text."""


@dataclass(frozen=True, kw_only=True)
class AblatedPart:
    """One part of every language's set, switched off; a language without a neuron in it has no numbers of its own."""

    neurons: ByLanguage[Number]
    """Neurons of the part."""
    relative_harm: LanguageSquare
    """As relative_harm of the ablation, with the part off."""
    own_harm: ByLanguage[BoundedEstimate | None] | None = None
    """[harm, low, high]: on the own text. Share."""
    layer_matched: ByLanguage[Measure] | None = None
    """Mean own harm of random sets of the part's size in each layer. Share."""
    p: ByLanguage[Measure] | None = None
    """Rank p among them."""
    p_adjusted: ByLanguage[Measure] | None = None
    """The same, corrected over the languages."""
    by_unit: HarmInUnits | None = None
    """The verdict on own text in each unit of harm."""
    tokens: ByLanguage[Measure] | None = None
    """Tokens that were scored."""


@dataclass(frozen=True, kw_only=True)
class SetParts:
    """Parts of the sets, by the languages that a neuron belongs to, each switched off by itself."""

    exclusive: AblatedPart | None = None
    """Neurons that no other language has."""
    script_and_family: AblatedPart | None = None
    """All others that have the neuron share script and family with the language."""
    script: AblatedPart | None = None
    """All others share the script, but not all the family."""
    family: AblatedPart | None = None
    """All others share the family, but not all the script."""
    further: AblatedPart | None = None
    """Some other language shares neither."""
    romanised: Mapping[str, ByLanguage[BoundedEstimate | None]] | None = None
    """[harm, low, high] on the own text in Latin letters, by part, and `whole` for the undivided set. Share."""
    romanised_bits_per_byte: ByLanguage[Measure] | None = None
    """Of the text in Latin letters, with nothing off."""


@dataclass(frozen=True, kw_only=True)
class EachControl:
    """A p-value against each of the two kinds of random sets."""

    layer_matched: ByLanguage[Measure]
    """Against layer-matched draws."""
    contribution_matched: ByLanguage[Measure]
    """Against contribution-matched draws."""


@dataclass(frozen=True, kw_only=True)
class SomeControls:
    """A corrected p-value against each of the two kinds of random sets, where there is one."""

    layer_matched: ByLanguage[Measure] | None = None
    """Against layer-matched draws."""
    contribution_matched: ByLanguage[Measure] | None = None
    """Against contribution-matched draws."""


@dataclass(frozen=True, kw_only=True)
class TriedRate:
    """One value of top_rate that was tried on development text."""

    method: str | None = None
    """Rule of selection."""
    top_rate: Number
    """Share tried."""
    own_hurt_most: Measure | None = None
    """Languages that their own set harms most."""
    mean_gap: Measure | None = None
    """Mean over languages of own-language harm less the largest harm to another language. Share."""
    mean_own_harm: Measure | None = None
    """Mean own-language relative harm. Share."""
    languages_measured: Measure | None = None
    """Languages after which it could not win any more, and was left; absent where all were measured."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Switching off each language's set on held-out text of every language."""

    relative_harm: LanguageSquare
    """Row: language whose set is held at 0. Column: language of the text. Rise of the summed negative log-likelihood
    over that with nothing off, as a share (0.01 is 1 %)."""
    bits_per_byte: LanguageSquare
    """Rows and columns as in relative_harm. Rise of the loss. Unit: bits per byte of text."""
    nats_per_token: LanguageSquare | None = None
    """Rows and columns as in relative_harm. Rise of the loss. Unit: nats per token."""
    layer_matched: ByLanguage[Sequence[Measure] | None]
    """Own-language relative harm of each random set of as many unselected neurons in each layer; a share per draw."""
    contribution_matched: ByLanguage[Sequence[Measure] | None]
    """Own-language relative harm of each random set of unselected neurons of the same layer with nearly the same
    contribution to the residual stream; a share per draw."""
    p: ByLanguage[Number | tuple[Measure, Measure] | None]
    """Rank p-value (1 + draws at least as harmful) / (draws + 1): [against layer-matched draws, against
    contribution-matched draws], or one number, the larger of the two."""
    p_by_control: EachControl | None = None
    """p apart, where `p` holds the larger of the two."""
    p_adjusted: SomeControls | None = None
    """The same by control, corrected over the languages: step-down maximum on shared draws (Westfall and Young)."""
    pairing_p: Measure | None = None
    """p of the mean harm of sets on their own language's text among random pairings of sets with texts."""
    specificity: ByLanguage[BoundedEstimate | None] | None = None
    """[estimate, low, high]: own-language harm less the largest harm to another language, with its 95 % bootstrap
    interval over documents. Share."""
    own_hurt_most: ByLanguage[bool] | None = None
    """Whether the own text is hurt more than every other; no interval is asked here."""
    by_unit: HarmInUnits | None = None
    """The verdict on own text in each unit of harm."""
    ratio_layer_matched: ByLanguage[BoundedEstimate | None] | None = None
    """[ratio, low, high]: own-language harm over the mean absolute harm of the layer-matched draws."""
    ratio_contribution_matched: ByLanguage[BoundedEstimate | None] | None = None
    """[ratio, low, high]: own-language harm over the mean absolute harm of the contribution-matched draws."""
    achieved_contribution: ByLanguage[Measure] | None = None
    """Contribution of the contribution-matched sets over the set's own, mean over draws; 1 is a perfect match."""
    base_nats_per_token: ByLanguage[Measure] | None = None
    """Loss of the text with nothing off. Unit: nats per token."""
    base_bits_per_byte: ByLanguage[Measure] | None = None
    """Loss of the text with nothing off. Unit: bits per byte of text."""
    documents: ByLanguage[Measure] | None = None
    """Held-out documents of each language."""
    tokens: ByLanguage[Measure] | None = None
    """Held-out tokens of each language that were scored."""
    draws: Measure | None = None
    """Random sets for each language and control."""
    resamples: Measure | None = None
    """Resamples of documents behind the intervals."""
    seed: Measure | None = None
    """Seed of the draws."""
    relative_harm_to_mean: LanguageSquare | None = None
    """As relative_harm, with the neurons held at their mean on text of the column's language instead of 0."""
    specificity_to_mean: ByLanguage[BoundedEstimate | None] | None = None
    """As specificity, with the neurons held at that mean."""
    choice: Sequence[TriedRate] | None = None
    """How top_rate was chosen: a row per value that was tried."""
    parts: SetParts | None = None
    """The sets in parts, by the languages that a neuron belongs to."""


NOT_ABLATED = Ablation(relative_harm=(), bits_per_byte=(), layer_matched={}, contribution_matched={}, p={})
"""Stands in results of which only other parts were measured."""
