"""Whether a sentence in one language makes its structure likelier in another: shared grammar, by priming."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import regex
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float
from babelscope.controls import benjamini_hochberg
from babelscope.controls.bootstrap_draws import mean_interval
from babelscope.corpus import encode_texts, tokenize_prompt, tokenize_prompts
from babelscope.errors import CorpusError, MeasurementError
from babelscope.evaluation.continuations import Continuations, continuation_log_probabilities, split_continuations
from babelscope.evaluation.segmentation import UNSPACED
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.priming.stimuli import PrimedPair, Stimuli
from babelscope.progress import with_progress

PrimeCondition = Literal["structure", "shuffled words", "unrelated", "language"]
CONDITIONS: dict[PrimeCondition, str] = {
    "structure": "a prime of structure X against one of Y",
    "shuffled words": "the same primes with their words in random order: what the words alone do",
    "unrelated": "two sentences of neither structure: no effect but of two contexts",
    "language": "one sentence of neither structure in the prime's language against its translation into the target's",
}


class PrimingEffect(NamedTuple):
    """P_N(target of X | first context) - P_N(target of X | second context), over items."""

    prime: Language
    target: Language
    condition: PrimeCondition
    items: int
    effect: float
    low: float
    """Ends of the 95 % bootstrap interval, over items."""
    high: float
    d: float
    """Cohen's d of the differences: mean over standard deviation."""
    t: float
    """t of the paired differences. With one value per item and context this is the test of the fixed effect in the
    mixed model with random intercepts and slopes of items."""
    p: float
    """By random signs of the differences, two-sided."""
    q: float
    """Benjamini and Hochberg's, over all effects that were measured together."""
    first: float
    """Mean P_N(X) after the first context."""
    second: float
    overlap: float
    """Mean Jaccard index of the tokens of the first context and of target X."""
    overlap_other: float
    """The same of the second context and target X."""


@dataclass(frozen=True, kw_only=True)
class PrimingPlan:
    """What is measured, and how sentences are put together."""

    separator: str = " "
    """Between prime and target."""
    controls: bool = True
    """Whether the other conditions are measured beside the structure's."""
    items: int | None = None
    """Pairs of prime and target per direction at most; at least two."""
    resamples: int = 2_000
    signs: int = 9_999
    """Random signs behind p."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.items is not None and self.items < 2:
            raise MeasurementError(f"{self.items} pair came; expected at least two, for an interval; ask for more")


def structural_priming(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    stimuli: Stimuli,
    *,
    directions: Sequence[tuple[str, str]] | None = None,
    plan: PrimingPlan | None = None,
    progress: bool = False,
) -> list[PrimingEffect]:
    """The effect of a prime's structure on the structure of a target of other words, by pair of languages.

    s(t | c) = Σ_j ln P(t_j | BOS, c, separator, t_<j); P_N(X | c) = exp s(t_X | c) / (exp s(t_X | c) + exp s(t_Y | c));
    effect of an item = P_N(X | p_X) - P_N(X | p_Y), X and Y two structures of one target sentence. Since P_N of X and
    Y sum to 1, the effect on Y is the same number.
    directions: (prime, target) languages; None: `usual_directions`.
    Controls: see CONDITIONS. Where the words in random order prime as much, it was the words.
    Raises LanguageError and CorpusError for what the table does not have.
    Source: Arnett et al. 2025, arXiv:2503.03962, after Michaelov et al. 2023, arXiv:2311.09194.
    """
    plan, layout = plan or PrimingPlan(), layout_of(model)
    rng = np.random.default_rng(plan.seed)
    by_direction = [
        ((Language.parse(prime), Language.parse(target)), stimuli.pairs(prime, target, seed=plan.seed)[: plan.items])
        for prime, target in directions or usual_directions(stimuli)
    ]
    conditions: list[tuple[PrimeCondition, tuple[Language, Language], list[PrimedTrial]]] = [
        (condition, languages, trials)
        for languages, pairs in by_direction
        for condition, trials in trials_of(stimuli, pairs, languages, plan.controls, rng).items()
    ]
    effects = [
        effect_of(layout, tokenizer, condition, languages, trials, plan)
        for condition, languages, trials in with_progress(conditions, unit="effect", desc="priming", shown=progress)
    ]
    q = benjamini_hochberg([effect.p for effect in effects]).tolist()
    return [effect._replace(q=value) for effect, value in zip(effects, q, strict=True)]


def usual_directions(stimuli: Stimuli) -> list[tuple[Language, Language]]:
    """The table's first language with each other one in both directions, and every language with itself, which is the
    ceiling; of these the ones for which the table has sentences.

    Raises CorpusError where it has them for none.
    """
    tags = stimuli.languages
    both_ways = [pair for tag in tags[1:] for pair in ((tags[0], tag), (tag, tags[0]))]
    possible = [pair for pair in (*both_ways, *((tag, tag) for tag in tags)) if stimuli.has_pairs(*pair)]
    if not possible:
        raise CorpusError(f"{stimuli.name}: no language has items for primes and targets; expected some; add sentences")
    return possible


class PrimedTrial(NamedTuple):
    """Two contexts before one target in two structures."""

    first: str
    second: str
    target_x: str
    target_y: str


def trials_of(
    stimuli: Stimuli,
    pairs: Sequence[PrimedPair],
    languages: tuple[Language, Language],
    controls: bool,
    rng: np.random.Generator,
) -> dict[PrimeCondition, list[PrimedTrial]]:
    """The trials of each condition that the table allows."""
    prime, target = languages
    contexts: dict[PrimeCondition, list[tuple[str, str]]] = {
        "structure": [
            (stimuli.sentences[pair.prime][stimuli.structures[0]][prime],
             stimuli.sentences[pair.prime][stimuli.structures[1]][prime])
            for pair in pairs
        ]
    }  # fmt: skip
    neutral = [sentence for sentence in stimuli.neutral if prime in sentence and target in sentence]
    if controls:
        contexts["shuffled words"] = [
            (reorder_words(first, prime, rng), reorder_words(second, prime, rng))
            for first, second in contexts["structure"]
        ]
    if controls and len(neutral) >= 2:
        choices = [rng.choice(len(neutral), size=2, replace=False).tolist() for _ in pairs]
        contexts["unrelated"] = [(neutral[at][prime], neutral[next_at][prime]) for at, next_at in choices]
        if prime != target:
            contexts["language"] = [(neutral[at][prime], neutral[at][target]) for at, _ in choices]
    targets = [
        [stimuli.sentences[pair.target][structure][target] for structure in stimuli.structures] for pair in pairs
    ]
    return {
        condition: [
            PrimedTrial(*context_pair, *sentences) for context_pair, sentences in zip(rows, targets, strict=True)
        ]
        for condition, rows in contexts.items()
    }


def reorder_words(sentence: str, language: Language, rng: np.random.Generator) -> str:
    """The words in random order; what ends the sentence stays at its end.

    Characters stand for words in a language whose script has no spaces.
    """
    body = sentence.rstrip(".!?。！？।")
    spaced = language.script not in UNSPACED
    words = body.split() if spaced else regex.findall(r"\X", body)
    return (" " if spaced else "").join(rng.permutation(words)) + sentence[len(body) :]


def effect_of(
    layout: Layout,
    tokenizer: PreTrainedTokenizerBase,
    condition: PrimeCondition,
    languages: tuple[Language, Language],
    trials: Sequence[PrimedTrial],
    plan: PrimingPlan,
) -> PrimingEffect:
    """One effect with its interval and tests; q is not known yet."""
    contexts = [(getattr(trial, place), trial) for place in ("first", "second") for trial in trials]
    items = [
        primed_target(tokenizer, context, (trial.target_x, trial.target_y), plan.separator)
        for context, trial in contexts
    ]
    scores = [values.tolist() for values in continuation_log_probabilities(layout, items)]
    share = np.array([1 / (1 + math.exp(min(700.0, y - x))) for x, y in scores]).reshape(2, len(trials))
    difference, rng = share[0] - share[1], np.random.default_rng(plan.seed)
    interval = mean_interval(difference, plan.resamples, rng)
    spread = float(difference.std(ddof=1))
    d = float(difference.mean()) / spread if spread else math.nan
    overlaps = [
        float(np.mean([token_overlap(tokenizer, getattr(trial, place), trial.target_x) for trial in trials]))
        for place in ("first", "second")
    ]
    return PrimingEffect(
        *languages,
        condition,
        len(trials),
        float(difference.mean()),
        *interval,
        d,
        d * math.sqrt(len(trials)),
        sign_flip_p(difference, plan.signs, rng),
        math.nan,
        float(share[0].mean()),
        float(share[1].mean()),
        *overlaps,
    )


def primed_target(
    tokenizer: PreTrainedTokenizerBase, context: str, targets: tuple[str, str], separator: str
) -> Continuations:
    """A context, and both structures of a target after it."""
    begin = tokenize_prompt(tokenizer, context)
    return split_continuations(begin, tokenize_prompts(tokenizer, [f"{context}{separator}{text}" for text in targets]))


def sign_flip_p(differences: Float[np.ndarray, " item"], draws: int, rng: np.random.Generator) -> float:
    """Two-sided p that differences have no sign: (1 + #{|mean of random signs| >= |mean|}) / (draws + 1)."""
    signs = rng.choice([-1.0, 1.0], size=(draws, len(differences)))
    reached = np.abs(signs @ differences) >= abs(differences.sum()) * (1 - 1e-12)
    return (1 + int(reached.sum())) / (draws + 1)


def token_overlap(tokenizer: PreTrainedTokenizerBase, first: str, second: str) -> float:
    """Jaccard index of the tokens of two texts."""
    tokens = [{*encoding.ids} for encoding in encode_texts(tokenizer, [first, second])]
    return len(tokens[0] & tokens[1]) / len(tokens[0] | tokens[1])


def track_priming(
    checkpoints: Sequence[str],
    open_checkpoint: Callable[[str], tuple[CausalModel, PreTrainedTokenizerBase]],
    stimuli: Stimuli,
    *,
    directions: Sequence[tuple[str, str]] | None = None,
    plan: PrimingPlan | None = None,
    progress: bool = False,
) -> dict[str, list[PrimingEffect]]:
    """The effects at each checkpoint of a training run, in order; one checkpoint is in memory at a time."""
    plan = replace(plan or PrimingPlan(), controls=False)
    return {
        checkpoint: structural_priming(
            *open_checkpoint(checkpoint), stimuli, directions=directions, plan=plan, progress=progress
        )
        for checkpoint in checkpoints
    }
