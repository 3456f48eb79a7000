"""Counts to select from, out of an Observation or out of arrays; checked, with their languages."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from einops import repeat

from babelscope.artifacts import NeuronSet, Observation, Origin, SiteRecord
from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.errors import LanguageError, SelectionError, SiteError
from babelscope.languages import Language, parse_languages
from babelscope.neurons.rates import CountTensor, TokenTensor, UnitCounts
from babelscope.sites import NEURON_SITES

log = logging.getLogger(__name__)
Source = Observation | Tensor | np.ndarray
Tokens = Tensor | np.ndarray | Mapping[str, int] | Sequence[int]
TIES = "lowest (layer, neuron)"
TEXT = ("name", "hash", "corpus", "split", "sample")
"""What a set says of the text it was chosen on, so that it is not scored on that."""


@runtime_checkable
class NeuronChoice(Protocol):
    """What a rule selected."""

    @property
    def mask(self) -> Bool[Tensor, "language layer neuron"]:
        """True where a neuron belongs to a language."""
        ...

    @property
    def score(self) -> Float64[Tensor, "language layer neuron"]:
        """The score that is kept for each neuron of a set."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """What was found, such as thresholds; saved with the set."""
        ...


@runtime_checkable
class NeuronRule(Protocol):
    """A frozen dataclass in a file of `babelscope.neurons.rules`, whose fields are the rule's parameters.

    A rule that has `score(counts) → Scored` too is tested with shuffled labels, and tried by `study`.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]

    def select(self, counts: UnitCounts) -> NeuronChoice:
        """Which neurons belong to which language, by these counts alone: thresholds are found anew."""
        ...


class NamedCounts(NamedTuple):
    """Counts to select from, and what they came from."""

    active: CountTensor
    """Tokens on which each neuron was active."""
    tokens: TokenTensor
    """Tokens counted."""
    languages: tuple[Language, ...]
    """Order of the language axes."""
    denominator: Int64[Tensor, "layer neuron language"] | None
    """In an MoE, the tokens routed to each neuron's expert."""
    origin: Origin
    """Model and tokenizer; empty for arrays."""
    at: str
    """`mlp_gate` or `mlp_inner`."""
    text: Mapping[str, Any] | None = None
    """What the observation says of its text; None for arrays, and for observations of earlier versions."""

    @property
    def units(self) -> UnitCounts:
        """What rules read."""
        return UnitCounts(self.active, self.tokens, self.denominator)

    def pack(self, rule: NeuronRule, choice: NeuronChoice) -> NeuronSet:
        """The NeuronSet of a choice: the rule with what it found, tokens, tie rule and denominator are parameters."""
        warn_duplicates(self)
        shared = {
            "ties": TIES,
            "denominator": "tokens" if self.denominator is None else "tokens routed to the expert",
            "tokens": dict(zip(self.languages, self.tokens.tolist(), strict=True)),
            **({} if self.text is None else {"text": {key: self.text[key] for key in TEXT if key in self.text}}),
        }
        return NeuronSet.from_mask(
            choice.mask,
            choice.score,
            origin=self.origin,
            languages=self.languages,
            at=self.at,
            method=rule.name,
            parameters={**asdict(rule), **choice.facts, "selected": int(choice.mask.any(dim=0).sum()), **shared},
        )


def choose_neurons(
    rule: NeuronRule,
    source: Source,
    tokens: Tokens | None = None,
    languages: Sequence[str] | None = None,
    *,
    at: str = "mlp_gate",
) -> NeuronSet:
    """The set of each language by a rule: the method `choose` of every rule of neurons.

    Inputs, errors and warnings as of `babelscope.select_lape`.
    """
    counts = read_counts(source, tokens, languages, at)
    return counts.pack(rule, rule.select(counts.units))


def read_counts(source: Source, tokens: Tokens | None, languages: Sequence[str] | None, at: str) -> NamedCounts:
    """Counts from an Observation, or from arrays with their languages; raises SelectionError where they do not fit."""
    if isinstance(source, str | PathLike):
        raise SelectionError(f"{source}: a path came; expected an Observation; open it with Observation.load")
    if isinstance(source, Mapping) and not isinstance(source, Observation):
        raise SelectionError(
            f"a {type(source).__name__} came; expected an Observation; make one of texts by observe(…)"
        )
    if at not in NEURON_SITES:
        raise SiteError(f"site {at!r} has no neurons; expected one of {', '.join(NEURON_SITES)}; choose one")
    if isinstance(source, Observation):
        if tokens is not None or languages is not None:
            raise SelectionError("an observation came with tokens or languages; expected it alone; leave them out")
        record = source[at]
        check_layers(record, at)
        counts = NamedCounts(
            record.active,
            source.token_counts,
            source.languages,
            routed_tokens(record),
            source.origin,
            at,
            source.settings.get("text"),
        )
    else:
        counts = named_counts(torch.as_tensor(source), tokens, languages, at)
    empty = [tag for tag, count in zip(counts.languages, counts.tokens.tolist(), strict=True) if count <= 0]
    if empty:
        raise SelectionError(
            f"no tokens of {', '.join(empty)}; expected some of every language; observe text of it, or leave it out"
        )
    return counts


def named_counts(active: Tensor, tokens: Tokens | None, languages: Sequence[str] | None, at: str) -> NamedCounts:
    """Counts from arrays; raises LanguageError or SelectionError where languages, tokens and axes do not fit."""
    if tokens is None or (languages is None and not isinstance(tokens, Mapping)):
        raise LanguageError("counts came without tokens or languages; expected both, in one order; name the languages")
    tags = parse_languages(tokens if languages is None and isinstance(tokens, Mapping) else languages or ())
    if isinstance(tokens, Mapping):
        missing = [tag for tag in tags if tag not in tokens]
        if missing:
            raise LanguageError(f"no tokens for {', '.join(missing)}; expected one number per language; add it")
        tokens = [tokens[tag] for tag in tags]
    amounts = torch.as_tensor(tokens)
    if active.ndim != 3 or active.shape[-1] != len(tags) or amounts.shape != (len(tags),):
        raise SelectionError(
            f"counts {list(active.shape)} and tokens {list(amounts.shape)} for {len(tags)} languages; "
            "expected [layer, neuron, language] and [language]; check the order of the axes"
        )
    return NamedCounts(active, amounts, tags, None, Origin("", "", "", ""), at)


def check_layers(record: SiteRecord, at: str) -> None:
    """Raise SelectionError unless the layers are 0, 1, 2, …: thresholds are global, and sets count layers from 0."""
    if record.layers != tuple(range(len(record.layers))):
        raise SelectionError(
            f"{at} was observed at layers {', '.join(map(str, record.layers))} only; expected all from 0; "
            f"observe it with sites=[{at!r}]"
        )


def routed_tokens(record: SiteRecord) -> Int64[Tensor, "layer neuron language"] | None:
    """Tokens routed to each neuron's expert; None in a model without experts."""
    if record.routed is None:
        return None
    width = record.active.shape[1] // record.routed.shape[1]
    return repeat(record.routed, "l e k -> l (e d) k", d=width)


def warn_duplicates(counts: NamedCounts) -> None:
    """Log languages with the same counts: each takes the other's neurons, and raises the entropy of both."""
    tag_by_counts: dict[tuple[int, bytes], Language] = {}
    for k, tag in enumerate(counts.languages):
        column = (int(counts.tokens[k]), counts.active[..., k].contiguous().numpy().tobytes())
        if column in tag_by_counts:
            log.warning(
                "%s and %s have identical counts; expected different text; drop one", tag_by_counts[column], tag
            )
        tag_by_counts.setdefault(column, tag)
