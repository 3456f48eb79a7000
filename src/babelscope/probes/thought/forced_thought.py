"""What makes a model reason in a language: the first words of its answer, or steering; and as much of nothing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Direction, Operation, SteeringRecipe
from babelscope.corpus import Texts, clean_text
from babelscope.corpus.table_rows import file_rows
from babelscope.errors import CorpusError, LanguageError
from babelscope.interventions import KINDS
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.steering.directions.subspaces import random_subspace
from babelscope.steering.sweeps import meant_language, random_directions

PREFIXES: Mapping[str, str] = {
    "bn": "আসুন ধাপে ধাপে চিন্তা করি।",
    "de": "Denken wir Schritt für Schritt nach.",
    "en": "Let us think step by step.",
    "es": "Pensemos paso a paso.",
    "fi": "Mietitään asiaa vaihe vaiheelta.",
    "fr": "Réfléchissons étape par étape.",
    "hi": "आइए क़दम दर क़दम सोचते हैं।",
    "id": "Mari kita pikirkan langkah demi langkah.",
    "it": "Ragioniamo passo dopo passo.",
    "ja": "順を追って考えましょう。",
    "ko": "차근차근 생각해 봅시다.",
    "pt": "Vamos pensar passo a passo.",
    "ru": "Давайте подумаем шаг за шагом.",
    "sw": "Hebu tufikirie hatua kwa hatua.",
    "te": "దశలవారీగా ఆలోచిద్దాం.",
    "th": "มาคิดทีละขั้นตอนกัน",
    "tr": "Adım adım düşünelim.",
    "vi": "Hãy suy nghĩ từng bước một.",
    "zh": "让我们一步一步地思考。",
}
"""First words of an answer, which say nothing of the question. Not reviewed by native speakers."""
PLAIN = "as it is"
OWN = "own"
"""Stands for the question's own language."""


class ThoughtCondition(NamedTuple):
    """One way to have the questions answered."""

    name: str
    control: str = ""
    """Name of the condition that is its control; "" without one."""
    wanted: Language | None = None
    """The language that steps should be in; None means the question's, where the condition begins answers in it."""
    begun: Mapping[Language, str] = {}
    """First words of the answer, by language of the question."""
    recipe: SteeringRecipe | None = None

    def target(self, asked_in: Language) -> Language:
        """The language that the steps of an answer should be in."""
        return asked_in if self.wanted is None else self.wanted


def read_prefixes(path: str | Path) -> dict[str, str]:
    """First words of answers by language: rows (.jsonl, .csv, .tsv) with `language` and `text`.

    Raises CorpusError for rows without them, LanguageError for no language.
    """
    prefixes = {}
    for where, row in file_rows(Path(path)):
        text = clean_text(str(row.get("text") or "")).strip()
        if not text or "language" not in row:
            raise CorpusError(f"{where}: columns {', '.join(row)} came; expected language and text; rename them")
        prefixes[str(Language.parse(str(row["language"])))] = text
    return prefixes


def prefix_conditions(
    wanted: Sequence[str], languages: Sequence[Language], prefixes: Mapping[str, str]
) -> Iterator[ThoughtCondition]:
    """Answers begun in a language, and as the control of each, begun in one that is neither that nor the question's.

    wanted: tags, or "own" for the language of each question. Raises LanguageError where there is no text for one.
    """
    for word in wanted:
        tag = None if word == OWN else Language.parse(word)
        lacking = [name for name in (languages if tag is None else [tag]) if name not in prefixes]
        if lacking:
            raise LanguageError(
                f"{', '.join(lacking)}: there is no first sentence of an answer; expected one of "
                f"{', '.join(sorted(prefixes))}; write it into a file of prefixes"
            )
        ring = [name for name in (*languages, *map(Language.parse, prefixes)) if name in prefixes]
        third = {}
        for place, asked_in in enumerate(languages):
            start = languages.index(tag) if tag in languages else place
            candidates = [*ring[start:], *ring[:start]]
            third[asked_in] = next((name for name in candidates if name not in (asked_in, tag)), None)
        words = "the question's language" if tag is None else str(tag)
        name, control = f"begun in {words}", f"begun in another language than {words}"
        complete = all(third.values())
        target = {asked_in: asked_in if tag is None else tag for asked_in in languages}
        yield ThoughtCondition(name, control if complete else "", tag, {q: prefixes[t] for q, t in target.items()})
        if complete:
            yield ThoughtCondition(control, "", tag, {q: prefixes[str(t)] for q, t in third.items()})


def steering_conditions(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, recipe: SteeringRecipe, texts: Texts, *, seed: int
) -> Iterator[ThoughtCondition]:
    """Answers under a recipe, and under random operations of the same size where there is a form of them."""
    wanted = meant_language(recipe)
    random = random_recipe(model, tokenizer, recipe, texts, seed=seed)
    control = "random steering of the same size" if random is not None else ""
    yield ThoughtCondition("steered", control, wanted, recipe=recipe)
    if random is not None:
        yield ThoughtCondition(control, "", wanted, recipe=random)


def random_recipe(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, recipe: SteeringRecipe, texts: Texts, *, seed: int
) -> SteeringRecipe | None:
    """The same operations with nothing in them: random directions, subspaces or units of the same number and size.

    A direction is drawn from the covariance of the texts' activations at its site and has the same length; of neurons
    as many third of the site are taken, with the same values. None where an operation has no such form: sparse
    features, affine maps, and more than half of a site's units.
    """
    operations = []
    for number, operation in enumerate(recipe.operations):
        changed = random_operation(model, tokenizer, recipe, operation, texts, seed=seed + number)
        if changed is None:
            return None
        operations.append(changed)
    return SteeringRecipe(tuple(operations), recipe.origin, {"method": "random", "seed": seed})


def random_operation(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    recipe: SteeringRecipe,
    operation: Operation,
    texts: Texts,
    *,
    seed: int,
) -> Operation | None:
    """One operation of `random_recipe`."""
    kind, layout = KINDS[operation.kind], layout_of(model)
    if operation.indices is not None:
        # Not those of another operation either: where one switches a language's neurons on and one another's off, a
        # control of either may hold none of both.
        meant = [part.indices for part in recipe.operations if part.site == operation.site and part.indices is not None]
        free = np.setdiff1d(np.arange(layout.width(operation.site.at)), torch.cat(meant).numpy())
        if len(free) < len(operation.indices):
            return None
        units = np.sort(np.random.default_rng(seed).choice(free, len(operation.indices), replace=False))
        return replace(operation, indices=torch.from_numpy(units))
    if operation.matrix is not None and operation.kind == "subspace":
        rank, hidden = operation.matrix.shape
        return replace(operation, matrix=random_subspace(rank, hidden, seed=seed).float())
    if kind.needs or not bool(operation.vector.any()):
        return None
    zeros = tuple((operation.vector == 0).nonzero().flatten().tolist())
    like = None
    if zeros:
        # A direction in the ordinary form: zero at massive units, and of tokens after the first. Its tag is not read.
        words: Any = {"target": "en", "source": (), "mean_norm": 1.0, "origin": recipe.origin}
        like = Direction(operation.vector, operation.site, form="ordinary", median_norm=1.0, left_out=zeros, **words)
    random = random_directions(model, tokenizer, texts, operation.site, draws=1, seed=seed, like=like)[0]
    return replace(operation, vector=random * operation.vector.norm())
