"""Where a text changes language: words of another language, told from names and from chance.

For each other language the likeliest path of two states is taken (Viterbi): in the target, or in that language. A path
pays for each change of state, and counts only where it is likelier by more than a first threshold than the text being
all in the target; else with forty languages one of them would fit some word better by chance.
"""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Bool, Float64

from babelscope.evaluation.list_spelling import folded
from babelscope.evaluation.word_evidence import (
    COMMON_LANGUAGES,
    NEIGHBOURS,
    WordEvidence,
    evidence,
    evidence_of_neighbours,
)

ENTER, LEAVE = 2.5, 2.0
"""Nats a path pays for each change into the other language and back, and at the end of a text that ends there."""
FIRST, RARE = 4.5, 2.0
"""Nats by which a path must be likelier than no change; and more for a language of which there is little text."""
WHOLE = 8.0
"""Nats by which a mixture must be likelier than the text being all in the other language."""
NAME_SHARE, NAME_LIMIT = 0.15, -6.5
"""How much a capital in mid-sentence counts, unless some language has the word more often than e^-6.5."""
OPENS = 2.0
"""Nats from which the word behind a capital speaks for a language, so that the capital opens a run of it: no name."""
NAME_JOINERS = (
    "a an the of and or for to in on at by if with from de du des d la le les l et del della di da do dos "
    "das e el los las y en der die den dem von van und zu im am vom i w z na og och av"
)
SMALL_WORDS = frozenset(NAME_JOINERS.split())
MOST_SMALL = 2
"""Words that stand between the capitals of names and titles, and how many after each other at most."""
CAPITALISED = frozenset({"de"})
"""Languages that write common nouns with a capital."""
MOST_LANGUAGES = 3
"""Other languages of one answer at most."""

TWINS: dict[str, tuple[str, ...]] = {
    "af": ("nl",), "az": ("tr",), "be": ("ru", "uk"), "hi": ("mr",), "la": ("it", "es"), "lg": ("sw",), "mr": ("hi",),
    "nb": ("nn",), "nl": ("af",), "nn": ("nb", "da", "sv"), "sn": ("sw",), "st": ("tn",), "tn": ("st",), "xh": ("zu",),
    "zu": ("xh",),
}  # fmt: skip
"""Languages of which a short sentence may differ from a target's in a word or two, too few for a path of two states."""
TWIN, RARE_TWINS = 1.5, frozenset({"af", "mr"})
"""Nats from which all words together say that a text is in a target's twin, and twins that need more (`RARE`)."""
ALIKE: tuple[frozenset[str], ...] = (frozenset({"bs", "hr", "sr"}),)
"""Languages that are not told apart within one script; `no` is `nb` and `nn`."""


def counts_as(target: str) -> frozenset[str]:
    """The candidates that count as a target."""
    if target == "no":
        return frozenset({"nb", "nn"})
    return frozenset({target}).union(*(group for group in ALIKE if target in group))


def label_words(
    words: list[str], names: list[bool], script: str, target: str, target_tags: frozenset[str]
) -> list[str]:
    """For each word its language: the target, or another of its script.

    target: a candidate of the script; target_tags: the candidates that count as it.
    names: which words have a capital in mid-sentence.
    """
    source = evidence(script)
    lower = [folded(word) for word in words]
    nats = source.beside(lower, target)
    # A text repeats its rare words: the second time a word says nothing that it did not say the first time.
    nats /= np.array([[Counter(lower)[word]] for word in lower])
    rare = [source.commonest(word) < NAME_LIMIT for word in lower]
    shares = _name_shares(nats, words, names, rare)
    # A common noun of German has a capital too: what it says for the target counts.
    nats *= np.where((nats < 0) & (target in CAPITALISED), 1.0, shares)
    score, paths = two_state_paths(nats)
    need = [FIRST + (0 if tag in COMMON_LANGUAGES else RARE) for tag in source.languages]
    order = [k for k in np.argsort(-score) if score[k] > need[k] and source.languages[k] not in target_tags]
    labels = [target] * len(words)
    for k in order[:MOST_LANGUAGES]:
        tag = source.languages[k]
        if score[k] - nats[:, k].sum() < WHOLE and paths[:, k].mean() > 0.5:
            return [tag] * len(words) if k == order[0] and not _target_after_all(lower, script, target, tag) else labels
        for place in np.flatnonzero(paths[:, k]):
            if labels[place] == target:
                labels[place] = tag
    twin = _twin(nats, source.languages, target, target_tags) if set(labels) == {target} else None
    return [twin or tag for tag in labels]


def _twin(
    nats: Float64[np.ndarray, "word language"], languages: Sequence[str], target: str, target_tags: frozenset[str]
) -> str | None:
    """The twin of the target that all words together speak for; None where none is, or too little."""
    excess: dict[str, float] = {}
    for tag in set(TWINS.get(target, ())) - target_tags:
        excess[tag] = float(nats[:, languages.index(tag)].sum()) - TWIN - RARE * (tag in RARE_TWINS)
    top = max(excess, key=excess.__getitem__, default=target)
    return top if excess.get(top, 0.0) > 0 else None


def _target_after_all(lower: list[str], script: str, target: str, tag: str) -> bool:
    """Whether a whole text that its words give to a neighbour is likelier the target's by their full models."""
    group = next((group for group in NEIGHBOURS if {target, tag} <= group), None)
    if group is None:
        return False
    shares = _shares(evidence_of_neighbours(script, group), lower)
    return shares[target] > shares[tag]


def small_words_of_names(words: Sequence[str], capitals: Sequence[bool]) -> list[bool]:
    """Which words join the capitals of a name of several (`Glasgow School of Art`): at most two after each other."""
    joins = [False] * len(words)
    last: int | None = None
    for place, word in enumerate(words):
        if capitals[place]:
            if last is not None:
                joins[last + 1 : place] = [True] * (place - last - 1)
            last = place
        elif word not in SMALL_WORDS or (last is not None and place - last > MOST_SMALL):
            last = None
    return joins


def _name_shares(
    nats: Float64[np.ndarray, "word language"], words: Sequence[str], names: Sequence[bool], rare: Sequence[bool]
) -> Float64[np.ndarray, "word language"]:
    """How much each word counts for each language: words with a capital in mid-sentence may be names.

    A sentence of another language inside the text opens with a capital too: one that a word without a capital follows,
    which speaks for that language, counts in full there, unless the word only joins it to another capital.
    """
    joins = small_words_of_names(words, [word[0].isupper() and few for word, few in zip(words, rare, strict=True)])
    named = [name or join for name, join in zip(names, joins, strict=True)]
    share = np.ones(nats.shape)
    for place in (n for n, name in enumerate(names) if joins[n] or (name and rare[n])):
        # What a small word says for the target (`y` between two English names) counts in full.
        share[place] = np.where(joins[place] & (nats[place] < 0), 1.0, NAME_SHARE)
        if place + 1 < len(named) and not named[place + 1]:
            share[place, nats[place + 1] >= OPENS] = 1.0
    return share


def two_state_paths(
    nats: Float64[np.ndarray, "word language"],
) -> tuple[Float64[np.ndarray, " language"], Bool[np.ndarray, "word language"]]:
    """Score of the likeliest path of each language against the target, and which words it gives to that language."""
    in_target, in_other = np.zeros(nats.shape[1]), nats[0] - ENTER
    switched: list[tuple[np.ndarray, np.ndarray]] = []
    for row in nats[1:]:
        switched.append((in_other - LEAVE > in_target, in_target - ENTER > in_other))
        in_target, in_other = np.maximum(in_target, in_other - LEAVE), np.maximum(in_other, in_target - ENTER) + row
    in_other = in_other - LEAVE
    state = in_other > in_target
    path = np.zeros(nats.shape, dtype=bool)
    path[-1] = state
    for place in range(len(switched) - 1, -1, -1):
        leaves, entered = switched[place]
        state = np.where(state, ~entered, leaves)
        path[place] = state
    return np.maximum(in_target, in_other), path


def likeliest(words: Sequence[str], script: str, tags: Collection[str]) -> str:
    """Of languages that count as one target (`nb` and `nn` as `no`) the one that the words speak for."""
    if len(tags) == 1:
        return next(iter(tags))
    shares = _shares(evidence(script), [folded(word) for word in words])
    return max(sorted(tags), key=shares.__getitem__)


def probabilities(words: list[str], script: str) -> dict[str, float]:
    """Probability of each language of a script for all words together; those of little text are taken for rarer.

    Where the two likeliest are neighbours, their group is told apart once more by its full models.
    """
    lower = [folded(word) for word in words]
    shares = _shares(evidence(script), lower)
    first, second = sorted(shares, key=shares.__getitem__)[:-3:-1]
    group = next((group for group in NEIGHBOURS if {first, second} <= group), None)
    if group is None:
        return shares
    total = sum(shares[tag] for tag in group)
    lower_shares = _shares(evidence_of_neighbours(script, group), lower)
    return shares | {tag: total * share for tag, share in lower_shares.items()}


def _shares(source: WordEvidence, lower: list[str]) -> dict[str, float]:
    nats = source.beside(lower, source.languages[0]).sum(axis=0)
    nats = nats - [0.0 if tag in COMMON_LANGUAGES else RARE for tag in source.languages]
    shares = np.exp(nats - nats.max())
    return dict(zip(source.languages, (shares / shares.sum()).tolist(), strict=True))
