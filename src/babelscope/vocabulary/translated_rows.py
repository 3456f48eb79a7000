"""Trans-tokenization: a new row is a mixture of the rows of the tokens of its word's translations."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import lcm
from typing import Any, NamedTuple

import torch

from babelscope.corpus import Corpus, Texts, as_parallel
from babelscope.errors import CorpusError, LanguageError, MeasurementError
from babelscope.languages import Language
from babelscope.vocabulary.cut_words import cut_sentences
from babelscope.vocabulary.initial_rows import TRANSLATED, NewEntries, RowMixture, mixture_of, subword_rows
from babelscope.vocabulary.premium import check_parallel
from babelscope.vocabulary.word_alignment import word_links

LONGEST = 200
"""Words of a sentence above which its pair is left out: a candidate is kept for each pair of places."""

FEWEST = 2
"""Links of a word and its translation: one alone is chance. The paper, with millions of sentences, takes ten."""


class PairedText(NamedTuple):
    """Parallel text by which new rows begin."""

    corpus: Corpus
    against: Language
    """The language whose tokens the model knows."""
    languages: tuple[Language, ...]
    """Those of the new entries, which are aligned with it."""


def check_pairs(init: str, pairs: Texts | None, against: str, corpus: Corpus) -> PairedText | None:
    """The translations that a way to begin needs, or None for one that needs none.

    Raises MeasurementError where parallel text is absent, or came for another way to begin; CorpusError for text that
    is not parallel; LanguageError where it lacks `against` or a language of the text, or where nothing is translated.
    """
    if init not in TRANSLATED:
        if pairs is not None:
            raise MeasurementError(
                f"pairs came with init {init!r}; only {' and '.join(TRANSLATED)} use them; drop them"
            )
        return None
    base = Language.parse(against)
    targets = tuple(tag for tag in corpus if tag != base)
    if not targets:
        raise LanguageError(
            f"text in {base!r} alone came, which pairs are read against; expected text of another language with init "
            f"{init!r}; add it, or name another language against which it is translated"
        )
    if pairs is None:
        raise MeasurementError(
            f"init {init!r} came without pairs; expected parallel text of {', '.join(map(repr, (base, *targets)))}; "
            "give pairs, or another init"
        )
    parallel = as_parallel(pairs)
    check_parallel(parallel, base)
    lacking = [tag for tag in targets if tag not in parallel]
    if lacking:
        raise LanguageError(
            f"no {', '.join(lacking)} among {', '.join(parallel)} of the pairs came; expected pairs of {base!r} and "
            "each other language of the text; add them"
        )
    return PairedText(parallel.only([base, *targets]), base, targets)


def translated_rows(
    new: NewEntries, translations: PairedText, *, shuffled: bool = False, seed: int = 0
) -> tuple[list[RowMixture], dict[str, Any]]:
    """Mixtures of the rows that an entry's words are translated by, and an account of the alignment.

    Words are aligned by `word_alignment.word_links`; in a script without spaces each token is a word. A link of a word
    of m tokens and its translation of n spreads half of itself over all their pairs, and half in order: place k of
    lcm(m, n) joins token k·m / lcm and token k·n / lcm. p(s | t) = c(s, t) / Σ_s c(s, t), and a new entry's row is
    e_t = Σ_s p(s | t) · e_s. Words that are linked once only do not count. Entries without a link have the mean of
    their sub-words.
    shuffled: the control; each aligned entry has the mixture of another one, drawn with the seed.
    Raises CorpusError where no new entry is aligned, and for a control of one.
    Source: Remy et al. 2024, arXiv:2408.04303, which aligns with another model and lets pairs of ten links or more
    count.
    """
    counts: dict[int, dict[int, float]] = {index: defaultdict(float) for index in new.ids}
    sentences = links = 0
    for language in translations.languages:
        sides = [
            cut_sentences(tokenizer, tag, translations.corpus[tag])
            for tokenizer, tag in ((new.tokenizer, translations.against), (new.successor, language))
        ]
        pairs = [pair for pair in zip(*sides, strict=True) if all(0 < len(side.words) <= LONGEST for side in pair)]
        words = [[pair[side].words for pair in pairs] for side in (0, 1)]
        tokens = [[part for pair in pairs for part in pair[side].tokens] for side in (0, 1)]
        flat = [[word for sentence in side for word in sentence] for side in words]
        linked = word_links(words[0], words[1]).tolist()
        frequency = Counter((flat[0][first], flat[1][second]) for first, second in linked)
        for first, second in linked:
            if frequency[flat[0][first], flat[1][second]] >= FEWEST:
                add_link(counts, tokens[0][first], tokens[1][second])
        sentences, links = sentences + len(pairs), links + len(linked)
    aligned = [number for number, index in enumerate(new.ids) if counts[index]]
    if new.ids and len(aligned) < 1 + shuffled:
        raise CorpusError(
            f"{translations.corpus.name}: {len(aligned)} of {len(new.ids)} new entries stand in an aligned word of "
            f"{sentences} pairs of sentences; expected {1 + shuffled} or more; add parallel text, or take another init"
        )
    mixtures = {number: mixture_of(counts[new.ids[number]]) for number in aligned}
    if shuffled:
        order = torch.randperm(len(aligned), generator=torch.Generator().manual_seed(seed)).tolist()
        # Each takes the mixture of the next one in a random circle, so that none keeps its own.
        circle = [aligned[place] for place in order]
        mixtures = {number: mixtures[other] for number, other in pairwise([*circle, *circle[:1]])}
    rows = [mixtures.get(number, leaves) for number, leaves in enumerate(subword_rows(new))]
    account = {
        "against": translations.against,
        "text": translations.corpus.hash,
        "sentences": sentences,
        "links": links,
        "aligned": len(aligned),
    }
    return rows, account


def add_link(counts: Mapping[int, dict[int, float]], source: Sequence[int], target: Sequence[int]) -> None:
    """Count one link of two words for the new entries among the target's tokens."""
    together, m, n = lcm(len(source), len(target)), len(source), len(target)
    in_order = Counter((k * m // together, k * n // together) for k in range(together))
    for j, index in enumerate(target):
        if index in counts:
            for i, part in enumerate(source):
                counts[index][part] += 0.5 / (m * n) + 0.5 * in_order[i, j] / together
