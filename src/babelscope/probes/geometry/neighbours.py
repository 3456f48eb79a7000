"""What stands nearest to an embedding entry by cosine: others of its script, a word's translation."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float64, Tensor
from babelscope.controls import Interval, percentile_interval, wilson_interval
from babelscope.controls.bootstrap_draws import draw_items
from babelscope.corpus import encode_texts
from babelscope.errors import MeasurementError
from babelscope.languages import parse_languages
from babelscope.probes.geometry.entries import EmbeddingTable, random_part
from babelscope.probes.lens.word_lists import Words

CHUNK = 1024
"""Rows compared with the whole vocabulary at a time."""


class Neighbours(NamedTuple):
    """How often an entry's nearest neighbours are of its own script."""

    table: EmbeddingTable
    script: str
    share: float
    """Of the nearest entries by cosine, those of the same script."""
    interval: Interval
    """95 %, over entries."""
    null: float
    """Share of the script among all lettered entries: what neighbours at random would give."""
    n: int


def same_script_neighbours(
    table: EmbeddingTable,
    weight: Float64[Tensor, "vocab hidden"],
    members: dict[str, list[int]],
    *,
    most: int,
    nearest: int,
    draws: int,
    generator: torch.Generator,
) -> list[Neighbours]:
    """Scripts of each entry's nearest lettered entries by cosine, itself left out."""
    pool = torch.tensor([token for entries in members.values() for token in entries])
    script = torch.cat([torch.full((len(entries),), at) for at, entries in enumerate(members.values())])
    unit = F.normalize(weight[pool].float(), dim=1)
    rows = []
    for at, (name, entries) in enumerate(members.items()):
        queries = random_part((script == at).nonzero()[:, 0].tolist(), most, generator)
        same_script = []
        for part in queries.split(CHUNK):
            similarity = unit[part] @ unit.T
            similarity[torch.arange(len(part)), part] = -2
            same_script.append(
                (script[similarity.topk(min(nearest, len(pool) - 1), dim=1).indices] == at).double().mean(dim=1)
            )
        share = torch.cat(same_script)
        resampled = draw_items(len(share), draws, generator)
        interval = percentile_interval(share[resampled].mean(dim=1))
        rows.append(
            Neighbours(table, name, float(share.mean()), interval, (len(entries) - 1) / (len(pool) - 1), len(queries))
        )
    return rows


class Translations(NamedTuple):
    """How often a word's nearest word in another language is its translation."""

    table: EmbeddingTable
    share: float
    interval: Interval
    """Wilson's, 95 %."""
    null: float
    """One over the words of the other language."""
    n: int
    """Words asked, once for each other language."""


def translation_neighbours(
    table: EmbeddingTable, weight: Float64[Tensor, "vocab hidden"], tokenizer: PreTrainedTokenizerBase, words: Words
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
    for source in range(len(tags)):
        for target in range(len(tags)):
            if source != target:
                best = (unit[source] @ unit[target].T).argmax(dim=1)
                hits += int((best == torch.arange(len(concepts))).sum())
                n += len(concepts)
    return Translations(table, hits / n, wilson_interval(hits, n), 1 / len(concepts), n)


def _word(weight: Tensor, tokenizer: PreTrainedTokenizerBase, word: str) -> Float64[Tensor, " hidden"]:
    (encoded,) = encode_texts(tokenizer, [f" {word}"])
    return weight[torch.tensor(encoded.ids)].mean(dim=0)
