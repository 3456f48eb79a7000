"""What is said of the sets without switching them off: stability and the controls of results.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from babelscope.report.results.value_kinds import ByLanguage, LanguageRows, LanguageSquare, Mark, Measure, Number, Tag


class HalfSplits(NamedTuple):
    """[median, low, high, chance, size]: agreement of the sets found in two random halves of the shards."""

    median: Measure
    low: Measure
    high: Measure
    chance: Measure
    size: Measure


@dataclass(frozen=True, kw_only=True)
class SetLayers:
    """Where the selected neurons lie."""

    counts: LanguageRows
    """Selected neurons, a row per language, a column per layer. Unit: neurons."""


@dataclass(frozen=True, kw_only=True)
class LabelledShare:
    """One language's set under shuffled labels."""

    share_q05: Measure
    """Share of the set's neurons with q ≤ 0.05."""
    n: Measure | None = None
    """Neurons of the set that were tested."""


@dataclass(frozen=True, kw_only=True)
class ShuffledLabelShares:
    """Labels of whole shards permuted; guards against rare neurons, is no evidence of specificity."""

    by_language: Annotated[ByLanguage[LabelledShare | None], Mark.OTHER_KEYS]
    """By tag, each a key of this object."""
    set_fdr: Measure | ByLanguage[Measure] | None = None
    """False discovery rate of the whole set, or of each language's. Share."""
    draws: Measure | None = None
    """Permutations."""


@dataclass(frozen=True, kw_only=True)
class CorpusShare:
    """Agreement of one language's set with the full one when less text is used."""

    share: Number
    """Share of the text that was used."""
    language: Tag
    """Whose set."""
    jaccard: Measure
    """Jaccard index with the set from all text, median over draws."""
    low: Measure | None = None
    """Lower end of its 95 % range over draws."""
    high: Measure | None = None
    """Upper end of that range."""
    chance: Measure | None = None
    """The index by chance."""


@dataclass(frozen=True, kw_only=True)
class ParallelAgreement:
    """Agreement of one language's set with that from text with the same content in every language."""

    jaccard: Measure
    """Jaccard index of the set from line-parallel text with the set of the run."""
    chance: Measure | None = None
    """The index by chance."""
    lift: Measure | None = None
    """Shared neurons over those expected by chance."""


@dataclass(frozen=True, kw_only=True)
class NotApplicable:
    """A language without a script control."""

    not_applicable: str
    """Why there is nothing to romanise."""


@dataclass(frozen=True, kw_only=True)
class ScriptRetention:
    """Share of one language's set that stays active on versions of a text, and how much of it is script."""

    native: Measure
    """Share of the set active on native held-out text."""
    romanised: Measure
    """On the same text in Latin letters."""
    shuffled_words: Measure | None = None
    """On the same text with its words shuffled."""
    english: Measure | None = None
    """On English text."""
    layer_matched: Measure | None = None
    """Random neurons of the same layers, on native text."""
    share: Measure
    """(native − romanised) / (native − english), clipped to [0, 1]: the part that goes with the script."""
    low: Measure | None = None
    """Lower end of its 95 % interval over sentences."""
    high: Measure | None = None
    """Upper end."""
    romanised_bits_per_byte: Measure | None = None
    """Bits per byte of the romanised text: how far from the usual it is."""


@dataclass(frozen=True, kw_only=True)
class SharedNeurons:
    """Neurons shared by pairs of languages; rows and columns are languages."""

    shared: LanguageSquare
    """Neurons that both languages have; on the diagonal the size of the set."""
    lift_by_margins: LanguageSquare | None = None
    """shared over its mean in tables with the same margins: every neuron has as many languages, every language as many
    neurons in each layer; null on the diagonal."""
    p_by_margins: LanguageSquare | None = None
    """One-sided p among those tables, corrected over all pairs (step-down maximum). It takes neurons as independent and
    is no evidence of a language by itself."""
    draws: Measure | None = None
    """Tables drawn."""
    lead: LanguageSquare | None = None
    """Jaccard index of the one language's set from half of the text with the other's from the other half, beyond what
    both share with two other languages (median of tetrads); median over half-splits. null on the diagonal and for fewer
    than four languages."""
    lead_low: LanguageSquare | None = None
    """Lower end of its 2.5–97.5 % range over half-splits."""
    lead_high: LanguageSquare | None = None
    """Upper end of that range."""


@dataclass(frozen=True, kw_only=True)
class SelectionControls:
    """Controls of the selection."""

    shuffled_labels: Annotated[ShuffledLabelShares | None, Mark.NULL_IS_WRITTEN] = None
    """What remains of the sets against shuffled labels."""
    corpus_size: Sequence[CorpusShare] | None = None
    """Agreement with the full set when less text is used."""
    parallel: Annotated[ByLanguage[ParallelAgreement | None] | None, Mark.NULL_IS_WRITTEN] = None
    """Sets from text with the same content in every language."""
    script: ByLanguage[NotApplicable | ScriptRetention | None] | None = None
    """How much of a set's response goes with the script."""
    overlap: SharedNeurons | None = None
    """Neurons shared by pairs of languages."""
    seed: Measure | None = None
    """Seed of the resamples and draws."""
