"""One adaptation by one method: what the target gains, what the other languages lose, where the weights moved."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from babelscope.adaptation.alignment_account import AlignmentAccount, alignment_account
from babelscope.adaptation.language_shift import LanguageShift
from babelscope.adaptation.lottery_ticket import LotteryTicket, ticket_student
from babelscope.adaptation.material import Material
from babelscope.adaptation.methods import Method, build_student
from babelscope.adaptation.ruler import Reading, Ruler
from babelscope.adaptation.source_shield import SourceShield
from babelscope.adaptation.trained_change import Trained, trained_change
from babelscope.adapters.lora_adapter import LoraAdapter
from babelscope.artifacts import NeuronSet
from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64, Tensor
from babelscope.corpus import Corpus
from babelscope.errors import PrerequisiteError
from babelscope.files.work_log import hash_of, piece_of_work
from babelscope.languages import Language
from babelscope.models import layout_of, origin_of
from babelscope.models.modes import gradients_on
from babelscope.progress import never
from babelscope.subnetworks import (
    ContrastSteps,
    Delta,
    ElementDelta,
    LearningRate,
    Plan,
    Point,
    Training,
    train,
)
from babelscope.subnetworks.forms import Form
from babelscope.subnetworks.frozen_mlp import Recompute
from babelscope.subnetworks.row_steering import RowSteering


class BeforeAfter(NamedTuple):
    """Test bits per byte by language, of a model as it was and as it is adapted."""

    before: dict[Language, float]
    after: dict[Language, float]

    def gain(self, language: str) -> float:
        """Bits per byte that the language's test text lost: above 0 is better."""
        return self.before[Language(language)] - self.after[Language(language)]

    def harm(self, language: str) -> float:
        """Mean rise of bits per byte over the other languages: above 0 is worse; NaN where there is no other."""
        rises = [self.after[tag] - self.before[tag] for tag in self.before if tag != language]
        return math.fsum(rises) / len(rises) if rises else math.nan


@dataclass(frozen=True, eq=False)
class Adaptation:
    """What one run gave."""

    __repr__ = shown_by()

    method: Method
    trained: int
    """Trained values."""
    share: float
    """Of the model's parameters."""
    learning_rate: float
    history: tuple[Point, ...]
    dev: float
    """Bits per byte of the target's dev text at the end."""
    before: dict[Language, float]
    """Test bits per byte of the model as it was."""
    after: dict[Language, float]
    trail: tuple[tuple[int, dict[Language, float]], ...]
    """(tokens fed, test bits per byte) at each measurement on the way: gain against harm as a course, not one point."""
    moved: dict[str, Float64[Tensor, " layer"]] | None
    """Euclidean length of the change, by role and layer of the MLPs; None where the weights themselves stay (peft)."""
    similarity: dict[Language, Float64[Tensor, " layer"]]
    """Mean cosine of sentence means before and after, by layer, of every test language's first `WATCHED` sentences."""
    delta: Delta | ElementDelta | None
    """The change as an artifact, of nothing where no step was better than the model as it was; None for LoRA."""
    adapter: LoraAdapter | None
    """The adapter that LoRA trained; None for other methods."""

    aligned_before: AlignmentAccount | None
    """How well translations found each other; None where no held-out ones came."""
    aligned_after: AlignmentAccount | None

    @property
    def scores(self) -> "BeforeAfter":
        """Test bits per byte, from which gain and harm are."""
        return BeforeAfter(self.before, self.after)

    def gain(self, language: str) -> float:
        """See `BeforeAfter.gain`."""
        return self.scores.gain(language)

    def harm(self, language: str) -> float:
        """See `BeforeAfter.harm`."""
        return self.scores.harm(language)


@gradients_on()
def adapt(
    material: Material,
    method: Method,
    *,
    steps: int,
    learning_rate: float,
    neurons: NeuronSet | None = None,
    tokens_per_step: int = 2048,
    evaluate_every: int = 20,
    trail_every: int = 20,
    rank: int = 8,
    ticket: LotteryTicket | None = None,
    shield: SourceShield | None = None,
    accumulation: int = 1,
    patience: int | None = None,
    decay: float = 0.0,
    form: Form = "auto",
    recompute: Recompute = "nothing",
    ruler: Ruler | None = None,
    pairs: ContrastSteps | None = None,
    translations: Corpus | None = None,
    shift: LanguageShift | None = None,
    seed: int = 0,
    progress: bool = False,
    stop: Callable[[], bool] = never,
) -> Adaptation:
    """Train by one method, measure on every test language, and leave the model as it was.

    trail_every: steps between two points of the trail, where they are measured too. rank: of peft's adapters.
    ticket: of lt-sft, how its values are chosen; None: as `LotteryTicket()` says. With several iterations the best
    step is one of the last sparse phase, whose step 0 is where the earlier ones ended. shield: of ssu, what it holds
    still.
    accumulation, patience, decay, form, recompute: as in `train_subnetwork`; peft's adapters have no decay, and only
    the methods of neurons have the last two.
    Where no step is better on the dev text than the model as it was, the log says so and the gain is 0. Gradients are
    worked out also where the caller has switched them off.
    pairs: steps that align translations, in turn with those of text, for any method; then the last step is the result,
    and there is no patience. translations: held-out parallel text, on which alignment is measured before and after.
    shift: text of other languages goes through an area of layers in the space of one, in all steps and in all that is
    measured after; it must act where the result is used. Step 0 of the history is the untouched model with the shift,
    `before` and `aligned_before` are without it.
    ruler: measurements of the model as it is, for many runs with one test text; None takes them anew.
    """
    layout = layout_of(material.model)
    if ticket is not None and method != "lt-sft":
        raise PrerequisiteError(
            f"method {method!r} came with a LotteryTicket; expected it for lt-sft only; leave it out"
        )
    if pairs is not None and patience is not None:
        raise PrerequisiteError(
            f"patience {patience} came with pairs; text does not say when translations are aligned; leave it out"
        )
    plan = Plan(
        rate=LearningRate(learning_rate, steps),
        rows_per_step=max(1, tokens_per_step // material.mixture.target.length),
        accumulation=accumulation,
        evaluate_every=evaluate_every,
        patience=patience,
    )
    student = build_student(
        method,
        layout,
        neurons=neurons,
        rank=rank,
        shield=shield,
        decay=decay,
        form=form,
        recompute=recompute,
        seed=seed,
    )
    if pairs is not None:
        pairs.check(layout, student.layers)
    if shift is not None:
        shift.check(material.language, shift.layers[0] if pairs is None else pairs.contrast.layer)
    if method == "lt-sft":
        ticket = ticket or LotteryTicket()
        student = ticket_student(
            material, layout, plan, ticket, decay=decay, pairs=pairs, steering=shift, progress=progress, stop=stop
        )
    ruler, origin = ruler or Ruler.at(material, progress=progress), origin_of(material.model, material.tokenizer)
    trail: list[tuple[int, dict[Language, float]]] = []

    def watch(point: Point) -> None:
        if point.step % trail_every == 0:
            trail.append((point.tokens, material.scores(layout, shift)))

    run = Training(
        layout, student, material.mixture, plan, held_out=material.dev, watch=watch, pairs=pairs, steering=shift
    )

    def account(steering: RowSteering | None = None) -> AlignmentAccount | None:
        if translations is None:
            return None
        return alignment_account(material.model, material.tokenizer, translations, steering=steering)

    aligned_before = account()

    def final() -> dict[Language, float]:
        # Where neurons are silenced or text is shifted, step 0 is no longer the model as it was.
        as_it_was = method != "sparse-forward" and shift is None and (ticket is None or ticket.iterations == 1)
        if not run.best_step and as_it_was:
            return ruler.before
        at_end = trail and run.best_step == run.done and trail[-1][0] == run.history[-1].tokens
        return trail[-1][1] if at_end else material.scores(layout, shift, progress=progress)

    readings: list[Reading] = []
    changes: list[Trained] = []
    aligned_after: list[AlignmentAccount | None] = []

    def at_end() -> None:
        readings.append(ruler.read(student, final(), shift))
        facts = {"method": method, "steps": steps, "best_step": run.best_step}
        facts |= {} if shift is None else {"steering": shift.facts()}
        facts |= {} if shield is None else {"shield": shield.facts()}
        changes.append(trained_change(student, material, origin, facts))
        aligned_after.append(account(shift))

    train(material.model, run, progress=progress, stop=stop, at_end=at_end)
    return Adaptation(
        method=method,
        trained=student.trained,
        share=student.trained / sum(parameter.numel() for parameter in material.model.parameters()),
        learning_rate=learning_rate,
        history=tuple(run.history),
        dev=run.best[0],
        trail=tuple(trail),
        before=ruler.before,
        aligned_before=aligned_before,
        aligned_after=aligned_after[0],
        **changes[0]._asdict(),
        **readings[0]._asdict(),
    )


def choose_rate(
    material: Material, method: Method, rates: Sequence[float], **options: Any
) -> tuple[float, dict[float, float]]:
    """The learning rate of the lowest dev bits per byte, and those of all; the same budget for each."""

    def dev_of(rate: float) -> float:
        return piece_of_work(
            lambda: hash_of(f"{method} {rate}"), lambda: adapt(material, method, learning_rate=rate, **options).dev
        )

    scores = {rate: dev_of(rate) for rate in rates}
    return min(scores, key=lambda rate: scores[rate]), scores
