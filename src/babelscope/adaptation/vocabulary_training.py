"""Train the new rows of another vocabulary, alone or in one sparse step with a language's neurons."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from babelscope.artifacts import NeuronSet
from babelscope.corpus import Document, Texts
from babelscope.errors import SelectionError
from babelscope.evaluation import HeldOut
from babelscope.files.state_folder import state_folder
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.models.modes import gradients_on
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.progress import never
from babelscope.subnetworks import (
    RATE,
    Bank,
    Delta,
    JointStudent,
    LearningRate,
    Plan,
    Student,
    Subnetwork,
    TokenRows,
    Training,
    mix_texts,
    train,
)
from babelscope.subnetworks.flow import check_reachable, check_untouched
from babelscope.subnetworks.forms import Form
from babelscope.subnetworks.frozen_mlp import Recompute
from babelscope.subnetworks.training import fingerprint, result_facts
from babelscope.subnetworks.training_plan import plan_json
from babelscope.vocabulary import VocabularyPack


class TrainedVocabulary(NamedTuple):
    """What a training of new rows gave."""

    pack: VocabularyPack
    """The pack with its rows as they were trained; the rows of the one that came where no step was better."""
    delta: Delta | None
    """The change of the neurons that were trained with them; None where there were none."""


@gradients_on()
def train_vocabulary(
    model: CausalModel,
    pack: VocabularyPack,
    documents: Sequence[str | Document],
    *,
    language: str,
    steps: int,
    neurons: NeuronSet | None = None,
    validation: Sequence[str | Document] | None = None,
    learning_rate: float | None = None,
    tokens_per_step: int = 4096,
    max_length: int = 256,
    accumulation: int = 1,
    decay: float = 0.0,
    replay: Texts | None = None,
    replay_share: float = 0.0,
    form: Form = "auto",
    recompute: Recompute = "nothing",
    evaluate_every: int = 50,
    patience: int | None = None,
    progress: bool = False,
    stop: Callable[[], bool] = never,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    seed: int = 0,
) -> TrainedVocabulary:
    """Train the new rows of a pack on a language's text, read in its cut; the model is afterwards as before.

    neurons: None trains the rows alone, the whole body frozen; a set of one language trains its neurons in the same
    steps, on one gradient. No other value has a gradient. An element of a head's bias stays as the pack has it.
    learning_rate: peak of the neurons, or of the rows where there are none; None: RATE times their root mean square.
    Rows beside neurons take the same share of their own root mean square.
    Other settings, errors and the choice of the best step are those of `train_subnetwork`. Apply the pack, then the
    Delta: `with trained.pack.applied(model), trained.delta.applied(model): …`.
    Raises SelectionError for a pack without new rows, or a set of another language.
    """
    tag = Language.parse(language)
    if not pack.n_new:
        raise SelectionError(f"{pack.title} has no new row; expected one at least; train its neurons by adapt")
    if neurons is not None and neurons.languages != (tag,):
        raise SelectionError(f"a set of {', '.join(neurons.languages)} came; expected one of {tag}; take sets['{tag}']")
    with pack.applied(model):
        layout = layout_of(model)
        check_reachable(layout)
        rows = TokenRows(layout, (pack.source < 0).nonzero()[:, 0], decay=decay, alone=neurons is None)
        student = student_of(layout, rows, neurons, form=form, recompute=recompute, decay=decay)
        check_untouched(layout, student.layers)
        mixture = mix_texts(
            pack.tokenizer,
            tag,
            documents,
            replay,
            share=replay_share,
            length=max_length,
            seed=seed,
            model_type=model.config.model_type,
        )
        plan = Plan(
            rate=LearningRate(RATE * rms_of(student) if learning_rate is None else learning_rate, steps),
            rows_per_step=max(1, tokens_per_step // max_length),
            accumulation=accumulation,
            evaluate_every=evaluate_every,
            patience=patience,
        )
        settings: dict[str, Any] = {**plan_json(plan, mixture), "decay": decay, "recompute": recompute}
        settings["trained"] = "rows" if neurons is None else f"rows and neurons by {neurons.method}"
        bases = [rows.base, *([] if neurons is None else [bank_of(student).base])]
        print_of_run = fingerprint(neurons, bases, mixture, {**settings, "pack": pack.digest}, model, pack.tokenizer)
        held_out, length = None, text_length(layout, None)
        if validation is not None:
            (held_out,) = HeldOut.prepare(pack.tokenizer, {tag: validation}, max_length=length)
        with nullcontext() if checkpoint is None else state_folder(checkpoint, print_of_run) as state:
            run = Training(layout, student, mixture, plan, held_out=held_out, checkpoint=state)
            train(model, run, progress=progress, stop=stop, checkpoint_seconds=checkpoint_seconds)
        facts = {**settings, "result": result_facts(run)}
        trained = [part.to("cpu", copy=True) for part in rows.rows]
        delta = None
        if neurons is not None:
            delta = Delta.of(neurons, bank_of(student).changes(), parameters={**facts, "neurons": neurons.method})
    return TrainedVocabulary(
        replace(
            pack,
            rows=trained[0],
            head_rows=None if pack.head_rows is None else trained[-1],
            parameters={**pack.parameters, "training": facts},
        ),
        delta,
    )


def student_of(
    layout: Layout, rows: TokenRows, neurons: NeuronSet | None, *, form: Form, recompute: Recompute, decay: float
) -> TokenRows | JointStudent:
    """The rows alone, or behind the neurons: the neurons' forms are put in place first, the rows' hooks upon them."""
    if neurons is None:
        return rows
    subnetwork = Subnetwork(Bank.of(layout, neurons), form=form, recompute=recompute, below=True, decay=decay)
    return JointStudent((subnetwork, rows), (1.0, rows.rms / subnetwork.bank.rms))


def bank_of(student: Student) -> Bank:
    """The trained neurons of a joint student."""
    assert isinstance(student, JointStudent)
    subnetwork = student.parts[0]
    assert isinstance(subnetwork, Subnetwork)
    return subnetwork.bank


def rms_of(student: TokenRows | JointStudent) -> float:
    """Root mean square of the values that the learning rate is of."""
    return student.rms if isinstance(student, TokenRows) else bank_of(student).rms
