"""What a study will take, before its work begins: tokens of every stage, and hours by a few batches that are timed."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from babelscope.ablation import RATES, ScoredText
from babelscope.corpus import ROMANISABLE, expected_tokens
from babelscope.evaluation import known_languages
from babelscope.neurons import scoring_rules
from babelscope.recording import observe
from babelscope.runs import duration, peak_mib
from babelscope.steering.sweeps import Answer, Decoding, generate_answers, make_prompts, score_answers
from babelscope.steering.sweeps.answer_scores import fluency_by_target
from babelscope.steering.sweeps.curve import WIDENINGS
from babelscope.steering.sweeps.sweep_grid import ARITHMETIC
from babelscope.study.job import StudyInputs

log = logging.getLogger(__name__)
TIMED_LANGUAGES, TIMED_TOKENS, TIMED_ANSWERS = 4, 250, 64
"""Languages, scored tokens of each, and answers in all, that are timed."""
READ_TOKENS = 2_000
"""Tokens read that are timed: in fewer, a batch is smaller than those of a pass, and slower."""
REPEATS, LONG_SECONDS = 3, 2.0
"""Runs of one timing, and seconds from which it is not repeated."""
USUAL_PARTS = 3
"""Of the five parts of a set, those that most languages have a neuron in."""
LONGEST = 512
"""Tokens of a document that are read at most."""
WORDS = 1.5
"""Tokens of a romanised text over those of the text itself, about."""


class StageCost(NamedTuple):
    """One stage before it begins."""

    stage: str
    read: int
    """Tokens that pass the model's body alone."""
    scored: int
    """Tokens that pass its head too."""
    answers: int


class Pace(NamedTuple):
    """Seconds on this machine."""

    read: float
    """A token of the body, watched as `observe` does it."""
    scored: float
    """A scored token."""
    answer: float
    """An answer, drawn, judged and scored."""

    def seconds(self, cost: StageCost) -> float:
        """What a stage takes."""
        return cost.read * self.read + cost.scored * self.scored + cost.answers * self.answer


def stage_costs(job: StudyInputs, steering: bool) -> list[StageCost]:
    """Tokens and answers of each stage, by the budget and by the text that there is."""
    budget, texts, tags = job.budget, job.texts, [*job.texts["train"]]
    n, draws = len(tags), job.budget.draws
    have = {split: expected_tokens(job.tokenizer, texts[split], max_length=LONGEST) for split in texts}

    def tokens(split: str, most: int) -> float:
        return math.fsum(min(most, have[split][tag]) for tag in tags if tag in have[split])

    latin = [tag for tag in tags if tag.script in ROMANISABLE and tag in texts["valid"]]
    documents = texts["valid"].head(budget.script_documents)
    per_document = {tag: have["valid"][tag] / max(1, len(texts["valid"][tag])) for tag in texts["valid"]}
    romanised = sum((2 + WORDS) * per_document[tag] * len(documents[tag]) for tag in latin) if "en" in documents else 0
    candidates = len(scoring_rules()) * len(RATES)
    choose, test, part = (
        tokens("valid", budget.choose_tokens),
        tokens("test", budget.ablate_tokens),
        tokens("test", budget.part_tokens),
    )
    cells = n + 2 * draws + n + 1
    parts = USUAL_PARTS * (n + draws) + 1
    costs = [
        StageCost("observe", int(tokens("train", budget.observe_tokens)), 0, 0),
        StageCost("identify", 0, int(choose * (candidates * n + 1)), 0),
        StageCost("control", int(romanised), 0, 0),
        StageCost("ablate", 0, int(test * cells + part * parts), 0),
    ]
    if steering:
        costs.append(StageCost("steer", 0, 0, planned_answers(job)))
    return costs


def planned_answers(job: StudyInputs) -> int:
    """Answers that the steering stage draws: native ones, the sweep, the final score, its controls, and arithmetic.

    Two strengths of arithmetic, a grid whose ends are all of it, are always widened.
    """
    budget = job.budget
    targets = sum(tag in known_languages() for tag in job.texts["train"])
    sweep = len(budget.layers) * len(budget.strengths) * budget.dev_prompts
    arithmetic = (len(ARITHMETIC) + WIDENINGS) * 4 + budget.test_prompts // 2
    per_target = max(16, budget.dev_prompts) + sweep + 2 * budget.test_prompts + 3 * budget.random_prompts + arithmetic
    return targets * per_target


def least_seconds(work: Callable[[], object]) -> float:
    """Seconds of some work: the least of up to three runs, of one alone where it is long.

    A burst of another program in the one short run made an estimate of five minutes one of 77.
    """
    seconds: list[float] = []
    while not seconds or (len(seconds) < REPEATS and math.fsum(seconds) < LONG_SECONDS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def measured_pace(job: StudyInputs, sites: tuple[str, ...], steering: bool) -> Pace:
    """Seconds of a token read, a token scored and an answer, by a few batches of the study's own text."""
    train, valid = job.texts["train"], job.texts["valid"]
    few, one = valid.only([*valid][:TIMED_LANGUAGES]), train.only([*train][:1])
    tokens_read = min(READ_TOKENS, job.budget.observe_tokens)

    def read() -> None:
        observed.append(observe(job.model, job.tokenizer, one, sites=sites, tokens_per_language=tokens_read, shards=0))

    def score(tokens: int = TIMED_TOKENS) -> None:
        scored.append(ScoredText.prepare(job.model, job.tokenizer, few, max_tokens=tokens))

    observed, scored = [], []
    score(tokens=1)  # The first pass of a process is slower than all that follow.
    reading, scoring, answer = least_seconds(read), least_seconds(score), 0.0
    tokens = sum(observed[0].tokens.values()), sum(int(losses.tokens.sum()) for losses in scored[-1].base)
    if steering:
        targets = [tag for tag in few if tag in known_languages()] or [*few]
        prompts = make_prompts(few, per_language=TIMED_ANSWERS, start=0)
        requests = [(prompt, targets[0]) for prompt in prompts][:TIMED_ANSWERS]

        def draw() -> None:
            decoding = Decoding(seed=job.seed)
            answers.append(generate_answers(job.model, job.tokenizer, requests, decoding=decoding))

        answers: list[list[Answer]] = []
        drawing = least_seconds(draw)
        native = fluency_by_target(job.model, job.tokenizer, answers[0])
        judging = least_seconds(lambda: score_answers(job.model, job.tokenizer, answers[0], native))
        answer = (drawing + judging) / len(requests)
    return Pace(reading / tokens[0], scoring / tokens[1], answer)


def cost_lines(costs: list[StageCost], pace: Pace) -> Iterator[str]:
    """The stages one per line, then all of them with the memory that the process has reached."""
    for cost in costs:
        parts = ((cost.read, "tokens read"), (cost.scored, "tokens scored"), (cost.answers, "answers drawn"))
        said = ", ".join(f"{count:,} {name}" for count, name in parts if count)
        yield f"{cost.stage}: about {duration(pace.seconds(cost))}" + (f" ({said})" if said else "")
    total = sum(map(pace.seconds, costs))
    yield f"all stages: about {duration(total)}; memory so far {peak_mib():,} MiB; every amount is a flag"


def say_costs(job: StudyInputs, sites: tuple[str, ...], steering: bool, known: Pace | None = None) -> dict[str, float]:
    """Log what the study will take, and give the seconds of each stage; a pace that is not known yet is timed."""
    pace, costs = known or measured_pace(job, sites, steering), stage_costs(job, steering)
    for line in cost_lines(costs, pace):
        log.info("%s", line)
    return {cost.stage: round(pace.seconds(cost), 1) for cost in costs}
