"""Describe the units of a language one by one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import NeuronSet
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.artifacts.sae import LoadedSAE
from babelscope.corpus import Texts, TokenDocument, as_corpus, row_start
from babelscope.errors import ArtifactError, LanguageError, SelectionError
from babelscope.evaluation import HeldOut, document_losses
from babelscope.evaluation.losses import PART
from babelscope.features import check_fits
from babelscope.languages import Language
from babelscope.models import Layout, check_made_for, layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.progress import progress_bar
from babelscope.report.dashboards.unit_dashboard import FiringContext, UnitDashboard, UnitDescription
from babelscope.report.dashboards.unit_firing import UnitFiring
from babelscope.report.dashboards.unit_sources import FeatureSource, NeuronSource, Unit, UnitSource

BEFORE, AFTER = 14, 6
"""Tokens shown before and after the one on which a unit fires."""


def describe_units(
    sets: NeuronSet | FeatureSet,
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts | None = None,
    *,
    language: str,
    sae: LoadedSAE | None = None,
    top: int = 20,
    contexts: int = 3,
    tokens: int = 8,
    effects: bool = True,
    max_tokens: int | None = 2_000,
    max_length: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> UnitDashboard:
    """What the neurons or features of one language do, one by one: a dashboard as data.

    texts: labelled text of the language, and of others to compare it with. In one pass over each, units are counted
    where they are active, and the places where each fires most are kept. Without text only the units and what they
    write are given.
    language: whose units; a tag, which the artifact and the text must have.
    sae: the autoencoder that a FeatureSet was selected from.
    top: units that are described, by falling lead of their rate in the language over the largest other.
    contexts, tokens: places of the text and tokens written, of each unit.
    effects: switch each unit off alone, and beside it a unit of the same layer (autoencoder) that belongs to no
    language, and score the language's own text again: two passes over it for each unit. A neuron is held at 0, a
    feature's direction is projected out. Harm is Σ δ / Σ NLL over the text's documents, as in `ablation_matrix`.
    What a unit writes (its column of the down projection, or its row of the decoder) is read through the last norm
    and the head, as the logit lens does: nothing of what later layers make of it is in there. A neuron's column is
    taken with the sign of a positive activation.
    max_tokens: scored tokens of each language at most, whole documents.
    Raises LanguageError for a language that is not there, SelectionError where it has no unit or its layer none to
    compare with, ArtifactError for another model or autoencoder.
    """
    layout = layout_of(model)
    max_length = text_length(layout, max_length)
    check_made_for(sets.origin, model, tokenizer, "units to show")
    source = source_of(sets, layout, tokenizer, Language.parse(language), sae)
    if not source.scores:
        raise SelectionError(f"no {source.kind} was selected for {language!r}; expected one or more; name another")
    corpus = {} if texts is None else as_corpus(texts)
    if texts is not None and Language.parse(language) not in corpus:
        raise LanguageError(f"no text of {language!r} came; expected some, to see its units fire; add it")
    held = HeldOut.prepare(tokenizer, texts, max_length=max_length, max_tokens=max_tokens) if texts is not None else []
    firing = {part.language: UnitFiring.empty(source, list(source.scores), len(part.documents)) for part in held}
    base = {part.language: document_losses(layout, part, watchers=[firing[part.language]]) for part in held}
    counted = {part.language: sum(document.n_counted for document in part.documents) for part in held}
    rates = {tag: (counts.active.double() / counted[tag]).tolist() for tag, counts in firing.items()}
    described = [
        UnitDescription(
            unit=str(unit),
            layer=unit.site.layer or 0,
            index=unit.index,
            score=score,
            rates={tag: row[at] for tag, row in rates.items()},
            harm=None,
            control="",
            control_harm=None,
            contexts=tuple(contexts_of(at, held, firing, tokenizer, contexts)),
            writes=(),
        )
        for at, (unit, score) in enumerate(source.scores.items())
    ]
    order = list(range(len(described)))
    if held:
        order.sort(key=lambda at: -described[at].lead(Language.parse(language)))
    units = list(source.scores)
    chosen = [(units[at], replace(described[at], writes=written_tokens(source, layout, tokenizer, units[at], tokens)))
              for at in order[:top]]  # fmt: skip
    if effects and held:
        language_text = next(part for part in held if part.language == Language.parse(language))
        harms = measured_harm(
            source, layout, language_text, float(base[language_text.language].nats.sum()), chosen, seed, progress
        )
        chosen = [(unit, replace(row, **harm)) for (unit, row), harm in zip(chosen, harms, strict=True)]
    return UnitDashboard(
        kind=source.kind,
        language=Language.parse(language),
        model=sets.origin.model,
        method=sets.method,
        total=len(described),
        tokens=counted,
        seed=seed,
        units=tuple(row for _, row in chosen),
    )


def source_of(
    sets: NeuronSet | FeatureSet,
    layout: Layout,
    tokenizer: PreTrainedTokenizerBase,
    language: Language,
    sae: LoadedSAE | None,
) -> UnitSource:
    """The units of a language; raises ArtifactError where the autoencoder is missing or another one."""
    if isinstance(sets, NeuronSet):
        if sae is not None:
            raise ArtifactError("an autoencoder came with a NeuronSet; expected one with a FeatureSet; leave it out")
        sets.index(language)
        return NeuronSource(layout, sets, language)
    if sae is None or sae.hash != sets.sae_hash:
        autoencoder = "no autoencoder" if sae is None else f"SAE {sae.id!r} ({sae.hash})"
        raise ArtifactError(
            f"{autoencoder} came with features of SAE {sets.sae_id!r} ({sets.sae_hash}); expected that one; open it"
        )
    check_fits(sae, layout)
    sets.index(language)
    return FeatureSource(layout, sets, language, sae, spare_first=row_start(tokenizer))


def contexts_of(
    at: int,
    held: Sequence[HeldOut],
    firing: Mapping[Language, UnitFiring],
    tokenizer: PreTrainedTokenizerBase,
    most: int,
) -> Iterator[FiringContext]:
    """The places over all texts where a unit fires most, the greatest first."""
    places = [
        (value, part, document, int(firing[part.language].token[document, at]))
        for part in held
        for document, value in enumerate(firing[part.language].greatest[:, at].tolist())
        if value > -torch.inf
    ]
    places.sort(key=lambda place: -place[0])
    for value, part, document, token in places[:most]:
        yield context_at(part.language, part.documents[document], token, value, tokenizer)


def context_at(
    language: Language, document: TokenDocument, token: int, value: float, tokenizer: PreTrainedTokenizerBase
) -> FiringContext:
    """The words around one token; what begins a text is left out."""
    first = document.counted.index(True)
    ids = document.tokens

    def words(start: int, end: int) -> str:
        return str(tokenizer.decode(list(ids[max(first, start) : end]), clean_up_tokenization_spaces=False))

    through = words(token - BEFORE, token + 1)
    before = words(token - BEFORE, token)
    # The token's own words are what it adds: on its own it may lose the space before it.
    token_text = through[len(before) :] if through.startswith(before) else words(token, token + 1)
    passage = words(token - BEFORE, token + 1 + AFTER)
    after = passage[len(through) :] if passage.startswith(through) else words(token + 1, token + 1 + AFTER)
    # The ends may cut a character of several tokens in two.
    return FiringContext(language, before.lstrip(PART), token_text, after.rstrip(PART), value)


@torch.no_grad()
def written_tokens(
    source: UnitSource, layout: Layout, tokenizer: PreTrainedTokenizerBase, unit: Unit, most: int
) -> tuple[str, ...]:
    """Tokens of the largest logits of what a unit writes; equal ones by id."""
    weight = layout.embedding.weight
    row = source.written(unit).to(weight.device, weight.dtype)
    logits = layout.logits(layout.final(row[None, None])).flatten().float()
    ids = torch.sort(logits, descending=True, stable=True).indices[:most].tolist()
    return tuple(str(tokenizer.decode([token])) for token in ids)


def measured_harm(
    source: UnitSource,
    layout: Layout,
    own: HeldOut,
    base: float,
    chosen: Sequence[tuple[Unit, UnitDescription]],
    seed: int,
    progress: bool,
) -> Iterator[dict[str, Any]]:
    """Harm of each unit alone, and of a unit that belongs to no language."""
    generator = torch.Generator().manual_seed(seed)
    with progress_bar(total=2 * len(chosen), unit="unit", desc="one off at a time", shown=progress) as bar:

        def harm(unit: Unit) -> float:
            with source.without(unit):
                loss = float(document_losses(layout, own).nats.sum())
            bar.update()
            return (loss - base) / base

        for unit, _ in chosen:
            pool = source.others(unit.site)
            if not len(pool):
                raise SelectionError(
                    f"{unit.site}: every {source.kind} belongs to a language; expected one to compare with; "
                    "select fewer, or measure without effects"
                )
            control = Unit(unit.site, int(pool[int(torch.randint(len(pool), (1,), generator=generator))]))
            yield {"harm": harm(unit), "control": str(control), "control_harm": harm(control)}
