"""Geometry of the input and output embeddings: do scripts and languages of vocabulary entries lie apart?"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.controls import Interval, percentile_interval, rank_p, wilson_interval
from babelscope.errors import MeasurementError
from babelscope.languages import parse_languages
from babelscope.probes.evidence import SiteEvidence
from babelscope.probes.ridge import RidgeProbe
from babelscope.probes.word_lists import LanguageTokens, Words
from babelscope.vocabulary.scripts import script_of

Table = Literal["input", "output"]
NO_SCRIPT = ("mixed", "no letter", "part of a character", "special")
CHUNK = 1024
"""Rows compared with the whole vocabulary at a time."""


class Separability(NamedTuple):
    """Whether a line tells classes of entries apart, on entries it was not trained on."""

    table: Table
    labels: Literal["script", "language"]
    classes: tuple[str, ...]
    accuracy: float
    """Mean over classes of the share recognised, so that large classes count no more than small ones."""
    interval: Interval
    """95 %, over test entries resampled within their class."""
    null: float
    """Mean with labels shuffled, trained anew."""
    p: float
    n: int
    """Test entries."""


class Neighbours(NamedTuple):
    """How often an entry's nearest neighbours are of its own script."""

    table: Table
    script: str
    share: float
    """Of the nearest entries by cosine, those of the same script."""
    interval: Interval
    """95 %, over entries."""
    null: float
    """Share of the script among all lettered entries: what neighbours at random would give."""
    n: int


class Translations(NamedTuple):
    """How often a word's nearest word in another language is its translation."""

    table: Table
    share: float
    interval: Interval
    """Wilson's, 95 %."""
    null: float
    """One over the words of the other language."""
    n: int
    """Words asked, once for each other language."""


@dataclass(frozen=True, eq=False)
class EmbeddingGeometry:
    """All measures of both tables."""

    separability: tuple[Separability, ...]
    neighbours: tuple[Neighbours, ...]
    translations: tuple[Translations, ...]
    tied: bool
    """Whether input and output are one table; then only the input is measured."""
    nearest: int
    draws: int
    seed: int

    def rows(self) -> list[SiteEvidence]:
        """One row a measure."""
        sites = {"input": "embed", "output": "logits"}
        drawn: dict[str, Any] = {"draws": self.draws, "seed": self.seed}
        found = [
            SiteEvidence(
                claim=f"{one.labels}s of entries are linearly separable",
                language="",
                control="labels shuffled, trained anew",
                n=one.n,
                estimate=one.accuracy,
                low=one.interval.low,
                high=one.interval.high,
                p=one.p,
                null=one.null,
                site=sites[one.table],
                note=f"mean recall of {len(one.classes)} classes: {', '.join(one.classes)}",
                **drawn,
            )
            for one in self.separability
        ]
        found += [
            SiteEvidence(
                claim=f"{self.nearest} nearest entries are of the same script, {one.script}",
                language="",
                control="share of the script among lettered entries",
                n=one.n,
                estimate=one.share,
                low=one.interval.low,
                high=one.interval.high,
                null=one.null,
                site=sites[one.table],
                **drawn,
            )
            for one in self.neighbours
        ]
        found += [
            SiteEvidence(
                claim="the nearest word in another language is the translation",
                language="",
                control="a word at random",
                n=one.n,
                estimate=one.share,
                low=one.interval.low,
                high=one.interval.high,
                null=one.null,
                site=sites[one.table],
            )
            for one in self.translations
        ]
        return found


def embedding_geometry(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tokens: LanguageTokens | None = None,
    words: Words | None = None,
    fewest: int = 30,
    most: int = 2000,
    nearest: int = 10,
    draws: int = 99,
    seed: int = 0,
) -> EmbeddingGeometry:
    """Linear separability of scripts and languages in the embeddings, scripts of neighbours, and translations.

    An entry's script is that of its letters; entries without, or with several scripts, are left out.
    tokens: entries by language, from `indicative_tokens`; None leaves languages out. Languages of different scripts
    are told apart by script alone, so they are compared within the script that has most of them.
    words: {concept: {tag: word}}; a word is the mean of its tokens' vectors. None leaves translations out.
    fewest, most: a class with fewer entries is left out, of one with more a random part is taken.
    Raises MeasurementError where fewer than two scripts have `fewest` entries.
    """
    generator = torch.Generator().manual_seed(seed)
    scripts = [script_of(str(tokenizer.decode([token]))) for token in range(len(tokenizer))]
    special = set(tokenizer.all_special_ids)
    scripts = ["special" if token in special else script for token, script in enumerate(scripts)]
    named = {script: n for script, n in Counter(scripts).items() if n >= fewest and script not in NO_SCRIPT}
    if len(named) < 2:
        raise MeasurementError(
            f"{len(named)} script has {fewest} entries or more in this vocabulary; expected two, to tell them apart; "
            "lower fewest"
        )
    by_script = {name: [t for t, script in enumerate(scripts) if script == name] for name in sorted(named)}
    by_language = {} if tokens is None else _same_script(tokens, scripts, fewest)
    tables = _tables(model)
    separability, neighbours, translations = [], [], []
    for table, weight in tables.items():
        separability.append(separate(table, "script", weight, by_script, most=most, draws=draws, generator=generator))
        if len(by_language) > 1:
            separability.append(
                separate(table, "language", weight, by_language, most=most, draws=draws, generator=generator)
            )
        neighbours += same_script_neighbours(
            table, weight, by_script, most=most, nearest=nearest, draws=draws, generator=generator
        )
        if words is not None:
            translations.append(translation_neighbours(table, weight, tokenizer, words))
    return EmbeddingGeometry(
        tuple(separability), tuple(neighbours), tuple(translations), len(tables) == 1, nearest, draws, seed
    )


def separate(
    table: Table,
    labels: Literal["script", "language"],
    weight: Float64[Tensor, "vocab hidden"],
    members: dict[str, list[int]],
    *,
    most: int,
    draws: int,
    generator: torch.Generator,
) -> Separability:
    """Train on seven of ten entries of each class and test on the rest; the control shuffles all labels."""
    chosen = [_some(own, most, generator) for own in members.values()]
    entries, label = torch.cat(chosen), torch.cat([torch.full((len(own),), at) for at, own in enumerate(chosen)])
    test = torch.zeros(len(entries), dtype=torch.bool)
    for at in range(len(chosen)):
        own = (label == at).nonzero()[:, 0]
        test[own[torch.randperm(len(own), generator=generator)[: max(1, round(0.3 * len(own)))]]] = True
    probe = RidgeProbe(weight[entries[~test]], weight[entries[test]])

    def right(own: Tensor) -> Bool[Tensor, " entry"]:
        return probe.predict(own[~test], len(chosen)) == own[test]

    shuffled = [label[torch.randperm(len(label), generator=generator)] for _ in range(draws)]
    null = torch.stack([mean_recall(right(own), own[test], len(chosen)) for own in shuffled])
    hits, truth = right(label), label[test]
    resampled = []
    for _ in range(200):
        picked = [own[torch.randint(len(own), (len(own),), generator=generator)] for own in _places(truth, len(chosen))]
        resampled.append(torch.stack([hits[own].double().mean() for own in picked]).mean())
    accuracy = float(mean_recall(hits, truth, len(chosen)))
    return Separability(
        table,
        labels,
        tuple(str(name) for name in members),
        accuracy,
        percentile_interval(torch.stack(resampled)),
        float(null.mean()),
        rank_p(accuracy, null),
        int(test.sum()),
    )


def mean_recall(right: Bool[Tensor, " entry"], truth: Int64[Tensor, " entry"], classes: int) -> Float64[Tensor, ""]:
    """Mean over classes of the share recognised; classes without an entry are left out."""
    shares = [right[own].double().mean() for own in _places(truth, classes) if len(own)]
    return torch.stack(shares).mean()


def same_script_neighbours(
    table: Table,
    weight: Float64[Tensor, "vocab hidden"],
    members: dict[str, list[int]],
    *,
    most: int,
    nearest: int,
    draws: int,
    generator: torch.Generator,
) -> list[Neighbours]:
    """Scripts of each entry's nearest lettered entries by cosine, itself left out."""
    pool = torch.tensor([token for own in members.values() for token in own])
    script = torch.cat([torch.full((len(own),), at) for at, own in enumerate(members.values())])
    unit = F.normalize(weight[pool].float(), dim=1)
    found = []
    for at, (name, own) in enumerate(members.items()):
        asked = _some((script == at).nonzero()[:, 0].tolist(), most, generator)
        same = []
        for part in asked.split(CHUNK):
            similarity = unit[part] @ unit.T
            similarity[torch.arange(len(part)), part] = -2
            same.append(
                (script[similarity.topk(min(nearest, len(pool) - 1), dim=1).indices] == at).double().mean(dim=1)
            )
        share = torch.cat(same)
        picked = torch.randint(len(share), (draws, len(share)), generator=generator)
        interval = percentile_interval(share[picked].mean(dim=1))
        found.append(
            Neighbours(table, name, float(share.mean()), interval, (len(own) - 1) / (len(pool) - 1), len(asked))
        )
    return found


def translation_neighbours(
    table: Table, weight: Float64[Tensor, "vocab hidden"], tokenizer: PreTrainedTokenizerBase, words: Words
) -> Translations:
    """For each word and other language: is the nearest of that language's words, by cosine, its translation?"""
    tags = parse_languages(dict.fromkeys(tag for by_tag in words.values() for tag in by_tag))
    concepts = [concept for concept, by_tag in words.items() if len(by_tag) == len(tags)]
    if len(tags) < 2 or len(concepts) < 2:
        raise MeasurementError(
            f"{len(concepts)} concepts have words in all of {len(tags)} languages; expected two of each; add words"
        )
    vectors = torch.stack(
        [torch.stack([_word(weight, tokenizer, words[concept][tag]) for concept in concepts]) for tag in tags]
    )
    unit = F.normalize(vectors, dim=2)
    hits = n = 0
    for one in range(len(tags)):
        for other in range(len(tags)):
            if one != other:
                best = (unit[one] @ unit[other].T).argmax(dim=1)
                hits += int((best == torch.arange(len(concepts))).sum())
                n += len(concepts)
    return Translations(table, hits / n, wilson_interval(hits, n), 1 / len(concepts), n)


def _word(weight: Tensor, tokenizer: PreTrainedTokenizerBase, word: str) -> Float64[Tensor, " hidden"]:
    ids = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
    return weight[torch.tensor(ids)].mean(dim=0)


def _tables(model: PreTrainedModel) -> dict[Table, Float64[Tensor, "vocab hidden"]]:
    """Both tables, or one where they are the same tensor."""
    modules = (model.get_input_embeddings(), model.get_output_embeddings())
    inside, outside = (module.get_parameter("weight").detach() for module in modules if module is not None)
    tables: dict[Table, Tensor] = {"input": inside.double().cpu()}
    if outside.data_ptr() != inside.data_ptr():
        tables["output"] = outside.double().cpu()
    return tables


def _same_script(tokens: LanguageTokens, scripts: list[str], fewest: int) -> dict[str, list[int]]:
    """Entries by language within the script in which most languages have enough of them."""
    by_script: dict[str, dict[str, list[int]]] = {}
    for tag, own in zip(tokens.languages, tokens.member, strict=True):
        for token in own.nonzero()[:, 0].tolist():
            if token < len(scripts) and scripts[token] not in NO_SCRIPT:
                by_script.setdefault(scripts[token], {}).setdefault(tag, []).append(token)
    enough = [{tag: own for tag, own in found.items() if len(own) >= fewest} for found in by_script.values()]
    return max(enough, key=len, default={})


def _some(members: list[int], most: int, generator: torch.Generator) -> Int64[Tensor, " entry"]:
    """All, or a random part where there are more."""
    return torch.tensor(members)[torch.randperm(len(members), generator=generator)[:most]]


def _places(labels: Tensor, classes: int) -> list[Int64[Tensor, " entry"]]:
    return [(labels == at).nonzero()[:, 0] for at in range(classes)]
