"""Geometry of the input and output embeddings: do scripts and languages of vocabulary entries lie apart?"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.corpus import special_ids
from babelscope.errors import MeasurementError
from babelscope.models.plain import CausalModel
from babelscope.probes.geometry.entries import NO_SCRIPT, embedding_tables, same_script_entries
from babelscope.probes.geometry.neighbours import (
    Neighbours,
    Translations,
    same_script_neighbours,
    translation_neighbours,
)
from babelscope.probes.geometry.separability import Separability, separate
from babelscope.probes.geometry.writing_systems import (
    PAIR_MOST,
    NeighbourScripts,
    PairSeparability,
    neighbour_scripts,
    pair_separability,
)
from babelscope.probes.lens.word_lists import LanguageTokens, Words
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.vocabulary.entry_scripts import script_of


@dataclass(frozen=True, eq=False)
class EmbeddingGeometry:
    """All measures of both tables."""

    __repr__ = shown_by()

    separability: tuple[Separability, ...]
    neighbours: tuple[Neighbours, ...]
    translations: tuple[Translations, ...]
    pairs: tuple[PairSeparability, ...]
    """Scripts two by two, as published."""
    scripts_nearby: tuple[NeighbourScripts, ...]
    """Scripts among the 50 nearest, as published."""
    tied: bool
    """Whether input and output are one table; then only the input is measured."""
    nearest: int
    draws: int
    seed: int

    def rows(self) -> list[SiteEvidence]:
        """One row per measure."""
        sites = {"input": "embed", "output": "logits"}
        draw_settings: dict[str, Any] = {"draws": self.draws, "seed": self.seed}
        rows = [
            SiteEvidence(
                claim=f"{separability.labels}s of entries are linearly separable",
                language="",
                control="labels shuffled, trained anew",
                n=separability.n,
                estimate=separability.accuracy,
                low=separability.interval.low,
                high=separability.interval.high,
                p=separability.p,
                null=separability.null,
                site=sites[separability.table],
                note=f"mean recall of {len(separability.classes)} classes: {', '.join(separability.classes)}",
                **draw_settings,
            )
            for separability in self.separability
        ]
        rows += [
            SiteEvidence(
                claim=f"{self.nearest} nearest entries are of the same script, {neighbours.script}",
                language="",
                control="share of the script among lettered entries",
                n=neighbours.n,
                estimate=neighbours.share,
                low=neighbours.interval.low,
                high=neighbours.interval.high,
                null=neighbours.null,
                site=sites[neighbours.table],
                **draw_settings,
            )
            for neighbours in self.neighbours
        ]
        rows += [
            SiteEvidence(
                claim="the nearest word in another language is the translation",
                language="",
                control="a word at random",
                n=translations.n,
                estimate=translations.share,
                low=translations.interval.low,
                high=translations.interval.high,
                null=translations.null,
                site=sites[translations.table],
            )
            for translations in self.translations
        ]
        rows += [
            SiteEvidence(
                claim="scripts of entries are linearly separable two by two",
                language="",
                control="labels shuffled, trained anew",
                n=pair.n,
                estimate=pair.accuracy,
                low=pair.interval.low,
                high=pair.interval.high,
                p=pair.p,
                null=pair.null,
                site=sites[pair.table],
                note=f"mean accuracy of pairs of {len(pair.scripts)} scripts",
                **draw_settings,
            )
            for pair in self.pairs
        ]
        rows += [
            SiteEvidence(
                claim=f"different scripts among the {nearby.nearest} nearest entries",
                language="",
                control="entries at random",
                n=nearby.n,
                estimate=nearby.mean,
                low=nearby.interval.low,
                high=nearby.interval.high,
                null=nearby.null,
                site=sites[nearby.table],
            )
            for nearby in self.scripts_nearby
        ]
        return rows


def embedding_geometry(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tokens: LanguageTokens | None = None,
    words: Words | None = None,
    fewest: int = 30,
    most: int = 2000,
    nearest: int = 10,
    draws: int = 99,
    seed: int = 0,
    progress: bool = False,
) -> EmbeddingGeometry:
    """Linear separability of scripts and languages in the embeddings, scripts of neighbours, and translations.

    An entry's script is that of its letters; entries without, or with several scripts, are left out. Beside one probe
    of all scripts and the shares of same-script neighbours stand the two figures of arXiv:2311.18034: accuracy of
    pairs of scripts, and how many scripts are among the 50 nearest.
    model: a causal model, or any of transformers with embeddings: XLM-R, BERT, mT5.
    tokens: entries by language, from `indicative_tokens`; None leaves languages out. Languages of different scripts
    are told apart by script alone, so they are compared within the script that has most of them.
    words: {concept: {tag: word}}; a word is the mean of its tokens' vectors. None leaves translations out.
    fewest, most: a class with fewer entries is left out, of one with more a random part is taken.
    Raises MeasurementError where fewer than two scripts have `fewest` entries.
    """
    generator = torch.Generator().manual_seed(seed)
    scripts = [script_of(str(tokenizer.decode([token]))) for token in range(len(tokenizer))]
    special = special_ids(tokenizer)
    scripts = ["special" if token in special else script for token, script in enumerate(scripts)]
    entry_counts = {script: n for script, n in Counter(scripts).items() if n >= fewest and script not in NO_SCRIPT}
    if len(entry_counts) < 2:
        raise MeasurementError(
            f"{len(entry_counts)} script has {fewest} entries or more in this vocabulary; expected two, to tell them "
            "apart; lower fewest"
        )
    by_script = {name: [t for t, script in enumerate(scripts) if script == name] for name in sorted(entry_counts)}
    by_language = {} if tokens is None else same_script_entries(tokens, scripts, fewest)
    tables = embedding_tables(model)
    separability, neighbours, translations, pairs, nearby = [], [], [], [], []
    for table, weight in tables.items():
        separability.append(separate(table, "script", weight, by_script, most=most, draws=draws, generator=generator))
        if len(by_language) > 1:
            separability.append(
                separate(table, "language", weight, by_language, most=most, draws=draws, generator=generator)
            )
        neighbours += same_script_neighbours(
            table, weight, by_script, most=most, nearest=nearest, draws=draws, generator=generator
        )
        pairs.append(
            pair_separability(
                table,
                weight,
                by_script,
                most=min(most, PAIR_MOST),
                draws=draws,
                generator=generator,
                progress=progress,
            )
        )
        nearby.append(neighbour_scripts(table, weight, by_script, most=most, generator=generator))
        if words is not None:
            translations.append(translation_neighbours(table, weight, tokenizer, words))
    return EmbeddingGeometry(
        separability=tuple(separability),
        neighbours=tuple(neighbours),
        translations=tuple(translations),
        pairs=tuple(pairs),
        scripts_nearby=tuple(nearby),
        tied=len(tables) == 1,
        nearest=nearest,
        draws=draws,
        seed=seed,
    )
