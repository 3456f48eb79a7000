"""What one training is to do, and the road from the model as it is to the folder of the result."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from babelscope.adaptation.adaptation_job import AdaptInputs
from babelscope.adaptation.adaptation_result import (
    Stopping,
    choose_share,
    never_stopped,
    train_neurons,
    write_baseline,
)
from babelscope.adaptation.adaptation_run import adapt, choose_rate
from babelscope.adaptation.alignment_job import AlignmentJob, AlignmentPlan, open_alignment
from babelscope.adaptation.lottery_ticket import LotteryTicket
from babelscope.adaptation.methods import RATE_SHARES, Method
from babelscope.errors import PrerequisiteError
from babelscope.files.work_log import work_log
from babelscope.files.writing import check_new
from babelscope.subnetworks import RATE, Ranks, usual_rate
from babelscope.subnetworks.forms import Form
from babelscope.subnetworks.frozen_mlp import Recompute


@dataclass(frozen=True)
class AdaptationPlan:
    """By which method a language is trained, for how long, and what is chosen on valid text on the way."""

    method: Method = "subnetwork"
    steps: int = 200
    """Optimizer steps at most."""
    learning_rate: float | None = None
    """Peak rate of AdamW; None takes `usual_rate` of the neurons, by the method's share of it."""
    rates: tuple[float, ...] = ()
    """Rates to choose from on valid text, each with all steps."""
    tokens_per_step: int = 4096
    max_length: int = 256
    """Tokens of a row."""
    accumulation: int = 1
    """Batches of a step."""
    decay: float = 0.0
    replay_share: float = 0.0
    """Share of the rows that other languages have."""
    harm_bound: float | None = None
    """Bits per byte that other languages may lose on the mean, for which the smallest of `replay_shares` is taken."""
    replay_shares: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5)
    evaluate_every: int = 25
    """Steps between measurements on valid text."""
    patience: int | None = None
    """Measurements without a new best after which training ends."""
    form: Form = "auto"
    recompute: Recompute = "nothing"
    ticket: LotteryTicket | None = None
    """Of lt-sft."""
    shield_share: float = 0.5
    """Of ssu: the share of each matrix's columns that stays."""
    shield_tokens: int = 20_000
    """Of ssu: the text that says which, over all its languages."""
    alignment: AlignmentPlan | None = None
    """Steps that draw translations together; the last step is the result then, whatever the valid text says."""
    seed: int = 0

    @property
    def packing(self) -> dict[str, Any]:
        """How text is made into rows; with a bound on harm, room for the largest share that is tried."""
        share = self.replay_share if self.harm_bound is None else max(self.replay_shares)
        return {"replay_share": share, "max_length": self.max_length, "seed": self.seed}

    @property
    def training(self) -> dict[str, Any]:
        """What every method takes."""
        return {
            "steps": self.steps,
            "tokens_per_step": self.tokens_per_step,
            "accumulation": self.accumulation,
            "decay": self.decay,
            "evaluate_every": self.evaluate_every,
            "patience": self.patience,
            "form": self.form,
            "recompute": self.recompute,
        }


def run_adaptation(
    inputs: AdaptInputs,
    plan: AdaptationPlan,
    out: Path,
    checkpoint: Path | None = None,
    *,
    stopping: Stopping = never_stopped,
    ranks: Ranks | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Train as planned, and write what was trained into the new folder `out`; what its result.json says of it.

    A share of replay within a bound on harm is chosen first, then the rate, both on valid text. Each choice and each
    measurement that an interrupted run of the same plan left in `checkpoint` (none: OUT.checkpoint) is taken there.
    ranks: processes that share the steps, see `train_subnetwork`: of the language's neurons at one rate, on text. The
    first one measures and writes; the others return nothing.
    Raises ArtifactError where `out` is there, before anything is measured; MeasurementError where the neurons gained
    nothing on valid text, and nothing is saved then.
    """
    check_new(out)
    ranks = ranks or Ranks()
    check_shared(plan, ranks)
    checkpoint = out.with_name(f"{out.name}.checkpoint") if checkpoint is None else checkpoint
    inputs.check_fit(plan.method, **plan.packing)
    alignment = align_as_planned(inputs, plan)
    run = inputs.fingerprint({"plan": asdict(plan), **({} if alignment is None else alignment.facts())})
    rate, rate_is = first_rate(inputs, plan)
    options = {"neurons": inputs.neurons, "seed": plan.seed, "progress": progress, **plan.training}
    if plan.method == "lt-sft":
        options["ticket"] = plan.ticket
    if plan.method == "ssu":
        options["shield"] = inputs.shield(
            share=plan.shield_share, tokens=plan.shield_tokens, max_length=plan.max_length
        )
    replayed: dict[str, Any] = {}
    if plan.harm_bound is not None:
        trail = {**options, "learning_rate": rate, "trail_every": plan.evaluate_every}
        with work_log(checkpoint / "replay", run):
            inputs, replayed = choose_share(
                inputs, plan.replay_shares, plan.harm_bound, plan.method, plan.packing, trail
            )
        plan = replace(plan, harm_bound=None, replay_share=replayed["replay"]["share"])
    scores: dict[float, float] = {}
    if plan.rates:
        with work_log(checkpoint / "rates", run):
            rate, scores = choose_rate(inputs.material(**plan.packing), plan.method, plan.rates, **options)
        rate_is = "chosen on valid text"
    if plan.method == "subnetwork":
        return train_neurons(
            inputs,
            out,
            checkpoint,
            run,
            alignment=alignment,
            replayed=replayed,
            scores=scores,
            learning_rate=rate,
            learning_rate_is=rate_is,
            stopping=stopping,
            ranks=ranks,
            options={**plan.training, **plan.packing, "progress": progress},
        )
    if alignment is not None:
        options |= {"pairs": alignment.steps, "translations": alignment.valid, "shift": alignment.shift}
    trained = adapt(inputs.material(**plan.packing), plan.method, learning_rate=rate, **options)
    return {**write_baseline(trained, out, inputs, scores, alignment, replayed), "learning_rate_is": rate_is}


def check_shared(plan: AdaptationPlan, ranks: Ranks) -> None:
    """Raise PrerequisiteError for a plan whose work several processes cannot share."""
    unshared_work = {
        f"method {plan.method}": plan.method != "subnetwork",
        "an objective of pairs": plan.alignment is not None,
        "a bound on harm": plan.harm_bound is not None,
        "rates to choose from": bool(plan.rates),
    }
    if not ranks.alone and (names := [name for name, yes in unshared_work.items() if yes]):
        raise PrerequisiteError(
            f"{', '.join(names)} came with {ranks.world} ranks; expected the language's neurons at one rate, on text, "
            "whose steps ranks share; start it in one process"
        )


def align_as_planned(inputs: AdaptInputs, plan: AdaptationPlan) -> AlignmentJob | None:
    """The translations that a plan aligns, read and measured; None where it aligns none."""
    if plan.alignment is None:
        return None
    trained = inputs.trained_layers(plan.method)
    return open_alignment(
        inputs.model,
        inputs.tokenizer,
        plan.alignment,
        language=inputs.language,
        max_length=plan.max_length,
        seed=plan.seed,
        trained=trained,
    )


def first_rate(inputs: AdaptInputs, plan: AdaptationPlan) -> tuple[float, str]:
    """The rate that a plan gives, or the usual one of its method, and in words where it is from."""
    if plan.learning_rate is not None:
        return plan.learning_rate, "given"
    share = RATE_SHARES.get(plan.method, 1.0)
    rate = share * usual_rate(inputs.model, inputs.neurons)
    return rate, f"{RATE * share:g} of the root mean square of the neurons' rows"
