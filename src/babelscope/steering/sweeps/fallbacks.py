"""Which language comes out when the neurons of more and more languages are off."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import NeuronSet
from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float64, Tensor
from babelscope.controls import Evidence, layer_matched
from babelscope.controls.joint import paired_successes_p
from babelscope.errors import LanguageError, MeasurementError
from babelscope.evaluation import detect_languages
from babelscope.evaluation.content import bootstrap_mean
from babelscope.languages import Language, parse_languages
from babelscope.models.plain import CausalModel
from babelscope.steering.directions.neurons import Deactivate, deactivate_neurons
from babelscope.steering.sweeps.beside import GREEDY
from babelscope.steering.sweeps.decoding import Decoding
from babelscope.steering.sweeps.steered_answers import Steerer, generate_answers
from babelscope.steering.sweeps.steering_prompts import Prompt

MANY = Language("mul")
"""Tag of a set that is of several languages."""
UNKNOWN = ""
"""Language of an answer in which none is recognised."""


class FallbackStep(NamedTuple):
    """The answers with the neurons of some languages off."""

    off: tuple[Language, ...]
    """In the order in which they were switched off; none at the first step."""
    neurons: int
    outputs: tuple[str, ...]
    """Language of the answer to each prompt; "" where none is recognised."""
    controls: tuple[tuple[str, ...], ...]
    """The same with as many neurons off in each layer that no language has, one row a random set."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Answers by language, most first."""
        return dict(Counter(self.outputs).most_common())

    @property
    def control_counts(self) -> Mapping[str, int]:
        """Answers by language over all random sets."""
        return dict(Counter(tag for row in self.controls for tag in row).most_common())

    def row(self, first: Language, *, seed: int) -> Evidence:
        """As evidence: the share of answers outside the language of the prompts, against the random sets."""
        left = [tag != first for tag in self.outputs]
        controls = [[tag != first for tag in row] for row in self.controls]
        shares = [float(np.mean(row)) for row in controls]
        share = bootstrap_mean(left, seed=seed)
        names = ", ".join(f"{tag or 'none'} {count}" for tag, count in self.counts.items())
        return Evidence(
            claim=f"answers leave {first} with the neurons of {', '.join(self.off) or 'no language'} off",
            language=self.off[-1] if self.off else first,
            control="random sets of as many neurons in each layer",
            n=len(left),
            estimate=share.estimate,
            low=share.low,
            high=share.high,
            p=paired_successes_p(left, controls),
            draws=len(self.controls),
            seed=seed,
            note=f"share of answers; {self.neurons} neurons; answers in {names}; "
            f"control {np.mean(shares) if shares else float('nan'):.3f}, most of one set "
            f"{max(shares, default=float('nan')):.3f}; p by the sign test over prompts against each set, the largest",
        )


@dataclass(frozen=True, eq=False)
class Fallbacks:
    """Every step, and what was asked."""

    __repr__ = shown_by()

    steps: tuple[FallbackStep, ...]
    first: Language
    """Language of the prompts."""
    by: str
    """The way of deactivation."""
    texts: tuple[tuple[str, ...], ...]
    """The answers of each step, in the order of the prompts."""
    seed: int

    def rows(self) -> list[Evidence]:
        """One row per step."""
        return [step.row(self.first, seed=self.seed) for step in self.steps]

    def shares(self) -> tuple[list[str], Float64[np.ndarray, "step language"], Float64[np.ndarray, "step language"]]:
        """Languages of answers, most first, and each step's share of answers in them: of the sets, and of the control.

        The control's shares are NaN where it was not drawn.
        """
        return answer_shares([step.counts for step in self.steps], [step.control_counts for step in self.steps])

    def summary(self) -> dict[str, Any]:
        """Numbers of answers by language at each step: what `fallback.json` holds."""
        return {
            "languages": list(dict.fromkeys([self.first, *self.steps[-1].off])),
            "first": self.first,
            "by": self.by,
            "seed": self.seed,
            "draws": len(self.steps[-1].controls),
            "steps": [
                {"off": list(step.off), "neurons": step.neurons, "answers": step.counts,
                 "random_sets": step.control_counts}
                for step in self.steps
            ],
        }  # fmt: skip


def answer_shares(
    answers: Sequence[Mapping[str, int | float]], controls: Sequence[Mapping[str, int | float]]
) -> tuple[list[str], Float64[np.ndarray, "step language"], Float64[np.ndarray, "step language"]]:
    """Languages, most first, and the share of each in the answers of every step and of its random sets, from counts.

    Shares are NaN where there are no answers.
    """
    total = Counter[str]()
    for counts in (*answers, *controls):
        total.update(counts)  # pyright: ignore[reportCallIssue, reportArgumentType]
    tags = [tag for tag, _ in total.most_common()]
    shares = [
        [[counts.get(tag, 0) / (sum(counts.values()) or float("nan")) for tag in tags] for counts in by_step]
        for by_step in (answers, controls)
    ]
    return tags, np.array(shares[0], dtype=float), np.array(shares[1], dtype=float)


def fallback_languages(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    sets: NeuronSet,
    prompts: Sequence[Prompt],
    *,
    order: Sequence[str],
    first: str = "en",
    by: Deactivate | str = "zero",
    draws: int = 3,
    decoding: Decoding = GREEDY,
    seed: int = 0,
) -> Fallbacks:
    """Switch off the neurons of one language after the other, and name the language of every answer.

    At step i the neurons of the first i languages of `order` are off together, as by `deactivate_neurons`; at step 0
    none. first: language of the prompts.
    Control: `draws` random sets with as many neurons in each layer, of neurons that no language has, off in the same
    way. Answers leave for another language where the sets make more prompts' answers do so than each of those, by the
    sign test over prompts: answers to the same prompt are no independent ones (`paired_successes_p`). That is said of
    the sets that were drawn; that a random set seldom does it takes 19 draws or more.
    Raises LanguageError where a language has no set or comes twice, MeasurementError without prompts and for a prompt
    that comes twice, SelectionError for another `by` and where too few neurons are left for a control: all before the
    first answer.
    Source: arXiv:2507.22608, fallback languages; its script has no control and recognises by fastText.
    """
    tags, begun = parse_languages(order), Language.parse(first)
    if empty := [tag for tag in tags if not sets.sizes[sets.languages[sets.index(tag)]]]:
        raise LanguageError(f"no neuron is selected for {', '.join(empty)}; expected some; leave it out of the order")
    if not prompts:
        raise MeasurementError("no prompt came; expected texts to continue; add some")
    if len({prompt.text for prompt in prompts}) < len(prompts):
        text = Counter(prompt.text for prompt in prompts).most_common(1)[0][0]
        raise MeasurementError(f"the prompt {text!r} came twice; expected each once, it is one unit; leave one out")
    planned = []
    for count in range(1, len(tags) + 1):
        union = union_of(sets, tags[:count])
        masks = layer_matched(union, draws=draws, seed=seed + count, barred=sets)
        random_sets = [with_mask(union, mask) for mask in masks]
        off = [deactivate_neurons(each, MANY, by, seed=seed + n) for n, each in enumerate([union, *random_sets])]
        planned.append((len(union.indices), off))

    def answers(steerer: Steerer | None) -> tuple[str, ...]:
        requests = [(prompt, Language("und")) for prompt in prompts]
        return tuple(answer.text for answer in generate_answers(model, tokenizer, requests, steerer, decoding=decoding))

    plain = answers(None)
    steps, texts = [FallbackStep((), 0, recognised(plain), ())], [plain]
    for count, (neurons, off) in enumerate(planned, start=1):
        steered, *controls = (answers(lambda target, source, recipe=recipe: recipe) for recipe in off)
        steps.append(FallbackStep(tags[:count], neurons, recognised(steered), tuple(map(recognised, controls))))
        texts.append(steered)
    return Fallbacks(tuple(steps), begun, by, tuple(texts), seed)


def recognised(texts: Sequence[str]) -> tuple[str, ...]:
    """The language of most letters of each text; "" where none is known."""
    return tuple(UNKNOWN if tag is None else str(tag) for tag in detect_languages(texts))


def union_of(sets: NeuronSet, tags: Sequence[str]) -> NeuronSet:
    """The neurons of several languages as one set."""
    rows = [sets.index(tag) for tag in tags]
    return with_mask(sets, sets.mask()[rows].any(dim=0, keepdim=True))


def with_mask(sets: NeuronSet, mask: Bool[Tensor, "1 layer neuron"]) -> NeuronSet:
    """A set of one row with other neurons, of the same model and site."""
    return NeuronSet.from_mask(
        mask,
        torch.zeros(mask.shape),
        origin=sets.origin,
        languages=(MANY,),
        at=sets.at,
        method=sets.method,
        parameters=sets.parameters,
    )
