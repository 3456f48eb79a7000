"""Train a language's subnetwork: neurons' weights move, every other weight stays bit for bit."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import NeuronSet
from babelscope.artifacts.storage import hash_text
from babelscope.axes import Tensor
from babelscope.corpus import Document, Texts
from babelscope.errors import MeasurementError, refuse_no_number
from babelscope.evaluation import HeldOut
from babelscope.files.state_folder import state_folder
from babelscope.models import Layout, layout_of, measured, origin_of
from babelscope.models.modes import gradients_on, refuse_steered
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.progress import never
from babelscope.subnetworks.bank import Bank
from babelscope.subnetworks.delta import Delta
from babelscope.subnetworks.flow import check_reachable, check_untouched
from babelscope.subnetworks.forms import Form
from babelscope.subnetworks.frozen_mlp import Recompute
from babelscope.subnetworks.packing import Mixture, mix_texts
from babelscope.subnetworks.ranks import Ranks
from babelscope.subnetworks.row_steering import RowSteering
from babelscope.subnetworks.running import Training
from babelscope.subnetworks.schedule import LearningRate
from babelscope.subnetworks.students import Subnetwork
from babelscope.subnetworks.training_plan import Plan, plan_json
from babelscope.subnetworks.translation_pairs import ContrastSteps

RATE = 0.03
"""Peak rate where none is given, in root mean squares of the trained rows: an update of AdamW moves every value by
about the rate, whatever its gradient, so models with smaller weights need a lower one."""


def usual_rate(model: CausalModel, neurons: NeuronSet) -> float:
    """The learning rate where none is given: RATE times the root mean square of the rows of a language's neurons."""
    return RATE * Bank.of(layout_of(model), neurons).rms


@gradients_on()
def train_subnetwork(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    neurons: NeuronSet,
    documents: Sequence[str | Document],
    *,
    steps: int,
    learning_rate: float | None = None,
    tokens_per_step: int = 4096,
    max_length: int = 256,
    accumulation: int = 1,
    warmup: float = 0.05,
    final: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.95),
    decay: float = 0.0,
    clip: float = 1.0,
    replay: Texts | None = None,
    replay_share: float = 0.0,
    validation: Sequence[str | Document] | None = None,
    evaluate_every: int = 50,
    patience: int | None = None,
    form: Form = "auto",
    recompute: Recompute = "nothing",
    pairs: ContrastSteps | None = None,
    steering: RowSteering | None = None,
    ranks: Ranks | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    progress: bool = False,
    stop: Callable[[], bool] = never,
    seed: int = 0,
) -> Delta:
    """Train the gate and up rows and down columns of one language's neurons; the model is afterwards as before.

    neurons: a set of one language, such as sets["eu"]. documents: its text, cut into pieces of at most max_length
    tokens, which are laid end to end without pads and do not see each other. Conversations have a row each, and the
    loss is taken on the words that count (`load_corpus(conversation=…)`) and the token that ends each answer.
    steps, tokens_per_step: updates, and tokens of each (rounded down to whole rows), in `accumulation` forward passes.
    learning_rate: peak; None: `usual_rate`. warmup and final are shares of the steps and of the peak. betas: of AdamW.
    decay: pulls towards the base weights, decoupled. clip: longest gradient.
    replay, replay_share: other languages' text, and its share of the rows.
    validation: held-out text; with it the best measured step is returned, and patience ends the run early. The model
    as it was (`untouched` in the result) is step 0: where no step is better, the log says so, best_step is 0 and the
    Delta changes nothing.
    form: "fused" (gated dense MLPs), "split" (any family), or the rule's choice. recompute: "mlp" keeps only the
    MLPs' inputs for the backward pass. Dropout stays off, whatever mode the model is in. Gradients are worked out also
    where the caller has switched them off (torch.no_grad, torch.inference_mode).
    pairs: steps that align translations, in turn with those of text; then the last measured step is returned.
    steering: what acts on the stream by the language of each row, in every step and measurement, such as a
    `LanguageShift`; it is no part of the Delta, and must act where the Delta is used.
    ranks: processes that share the rows of each step, such as `Ranks.of_group()` under torchrun; all must call this
    with the same arguments, and each holds the whole model. The values differ from those of one process by the order of
    a sum; a checkpoint, which the first keeps, may be gone on with by another number of them.
    checkpoint: a folder from which an interrupted run goes on, bit for bit. stop: asked before each step; True saves
    and raises KeyboardInterrupt.

    The masters, gradients and moments are float32, 16 bytes per trained value in all, whatever the model's dtype.
    Raises SelectionError for an empty set, ArtifactError for a set or checkpoint of another model or run,
    PrerequisiteError for quantised, wrapped or shared weights, for hooks inside a trained MLP, and where gradients do
    not pass some part of the model; MeasurementError where the loss or gradient is not finite, or no step changed
    anything.
    Source of training such a subnetwork: arXiv:2510.13580; differs: pads are not trained on, moments are not reset,
    decay goes to the base, only the chosen rows' gradients are ever made.
    """
    numbers = {"steps": steps, "tokens_per_step": tokens_per_step, "max_length": max_length, "seed": seed}
    refuse_no_number(numbers, MeasurementError, whole=True)
    layout = layout_of(model)
    bank, mixture = prepare_training(
        model, tokenizer, neurons, documents, replay=replay, replay_share=replay_share, max_length=max_length, seed=seed
    )
    student = Subnetwork(bank, form=form, recompute=recompute, betas=betas, decay=decay)
    plan = Plan(
        rate=LearningRate(RATE * bank.rms if learning_rate is None else learning_rate, steps, warmup, final),
        rows_per_step=max(1, tokens_per_step // max_length),
        accumulation=accumulation,
        clip=clip,
        evaluate_every=evaluate_every,
        patience=patience,
    )
    settings = {**plan_json(plan, mixture), "betas": list(betas), "decay": decay, "recompute": recompute}
    settings["form"] = student.chosen_form
    if pairs is not None:
        pairs.check(layout, student.layers)
        settings["contrast"] = pairs.facts()
    if steering is not None:
        settings["steering"] = steering.facts()
    print_of_run = fingerprint(bank.neurons, [bank.base], mixture, settings, layout.model, tokenizer)
    ranks = ranks or Ranks()
    keeps = nullcontext() if checkpoint is None or not ranks.first else state_folder(checkpoint, print_of_run)
    with keeps as state:
        run = Training(
            layout=layout,
            student=student,
            mixture=mixture,
            plan=plan,
            held_out=hold_out(layout, tokenizer, neurons, validation),
            checkpoint=state,
            pairs=pairs,
            steering=steering,
            ranks=ranks,
        )
        train(model, run, progress=progress, stop=stop, checkpoint_seconds=checkpoint_seconds)
    changes = bank.changes()
    if run.best_step and not any(bool(part.any()) for part in changes.values()):
        raise MeasurementError(
            f"{run.done} steps changed no weight of {neurons.languages[0]}'s neurons; expected some change; raise the "
            "learning rate"
        )
    return Delta.of(neurons, changes, parameters={**settings, "neurons": neurons.method, "result": result_facts(run)})


def result_facts(run: Training) -> dict[str, Any]:
    """What a training ended with, for the parameters of its artifact."""
    return {
        "best_step": run.best_step,
        "tokens": run.history[-1].tokens,
        "loss": run.history[-1].loss,
        "untouched": run.untouched,
        "bits_per_byte": [
            [point.step, point.bits_per_byte] for point in run.history if point.bits_per_byte is not None
        ],
    }


def prepare_training(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    neurons: NeuronSet,
    documents: Sequence[str | Document],
    *,
    replay: Texts | None = None,
    replay_share: float = 0.0,
    max_length: int = 256,
    seed: int = 0,
) -> tuple[Bank, Mixture]:
    """The trained rows and the packed text of `train_subnetwork`, and so a check that model, neurons and text fit.

    The model is not run. Raises what `train_subnetwork` raises where they do not fit.
    """
    layout = layout_of(model)
    refuse_steered(model)
    check_reachable(layout)
    bank = Bank.of(layout, neurons)
    check_untouched(layout, bank.layers)
    mixture = mix_texts(
        tokenizer,
        neurons.languages[0],
        documents,
        replay,
        share=replay_share,
        length=max_length,
        seed=seed,
        model_type=model.config.model_type,
    )
    mixture.check(layout)
    return bank, mixture


@gradients_on()
def train(
    model: CausalModel,
    run: Training,
    *,
    progress: bool = False,
    stop: Callable[[], bool] = never,
    checkpoint_seconds: float = 30.0,
    at_end: Callable[[], None] = lambda: None,
) -> None:
    """Run a student's training, with dropout off and gradients of the student's values only.

    at_end: called at the end, while the model still runs with the trained values.
    """
    refuse_steered(model)
    check_reachable(run.layout)
    check_untouched(run.layout, run.student.layers)
    run.mixture.check(run.layout)
    required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in required:
            parameter.requires_grad_(False)
        with measured(run.layout), run.student.installed():
            run.run(progress=progress, stop=stop, checkpoint_seconds=checkpoint_seconds)
            at_end()
    finally:
        for parameter, requires_grad in required:
            parameter.requires_grad_(requires_grad)


def hold_out(
    layout: Layout,
    tokenizer: PreTrainedTokenizerBase,
    neurons: NeuronSet,
    validation: Sequence[str | Document] | None,
) -> HeldOut | None:
    """Held-out text of the target language, tokenized once."""
    if validation is None:
        return None
    texts, length = {neurons.languages[0]: validation}, text_length(layout, None)
    return HeldOut.prepare(tokenizer, texts, max_length=length)[0]


def fingerprint(
    neurons: NeuronSet | None,
    bases: Sequence[Tensor],
    mixture: Mixture,
    settings: dict[str, Any],
    model: CausalModel,
    tokenizer: Any,
) -> str:
    """Hash of everything that decides a run. bases: values that training begins with."""
    texts = {
        text.language: [[piece.tolist(), marks.tolist()] for piece, marks in zip(text.pieces, text.scored, strict=True)]
        for text in (mixture.target, *mixture.replay)
    }
    origin = origin_of(model, tokenizer).names
    by_tag = {} if neurons is None else neurons.as_dict()
    rows = {tag: [list(pair) for pair in pairs] for tag, pairs in by_tag.items()}
    # Their bytes and not their sum, whose last bits depend on the number of threads.
    weights = hashlib.blake2b(digest_size=8)
    for base in bases:
        weights.update(base.cpu().contiguous().numpy().data)
    parts = {**settings, **origin, "model": "", "rows": rows, "texts": texts, "weights": weights.hexdigest()}
    return hash_text(json.dumps(parts, sort_keys=True))
