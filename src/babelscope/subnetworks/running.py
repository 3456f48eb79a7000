"""The training loop: the same for a subnetwork and for every baseline it is compared with."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from babelscope.axes import Tensor
from babelscope.errors import MeasurementError
from babelscope.evaluation import HeldOut, document_losses
from babelscope.files.state_folder import RunState, StateFolder, restore
from babelscope.models import Layout
from babelscope.progress import never, progress_bar
from babelscope.runs import duration, peak_mib
from babelscope.subnetworks.flow import check_flow
from babelscope.subnetworks.loss import rows_loss
from babelscope.subnetworks.packing import Mixture
from babelscope.subnetworks.ranks import Ranks
from babelscope.subnetworks.row_steering import RowSteering, rows_with
from babelscope.subnetworks.student_protocol import Student
from babelscope.subnetworks.training_plan import Plan, Point
from babelscope.subnetworks.translation_pairs import ContrastSteps

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Training:
    """One run under way."""

    layout: Layout
    student: Student
    mixture: Mixture
    plan: Plan
    held_out: HeldOut | None = None
    checkpoint: StateFolder | None = None
    watch: Callable[[Point], None] = lambda point: None
    """Called after each held-out measurement, while the model runs with the values of that step."""
    history: list[Point] = field(default_factory=list)
    best: tuple[float, int] = (math.inf, 0)
    """Lowest held-out bits per byte and its step; the model as it was is step 0."""
    untouched: float | None = None
    """Held-out bits per byte of the model before the first step; None without held-out text."""
    kept: dict[str, Tensor] = field(default_factory=dict)
    """Values at the best step."""
    pairs: ContrastSteps | None = None
    """Steps that align translations, in turn with those of text; the last measured step is the result then, for text
    does not say how well translations are aligned."""
    steering: RowSteering | None = None
    """What acts on the stream in all steps and measurements."""
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that share each step's rows; only the first has a checkpoint."""

    def __post_init__(self) -> None:
        self.ranks.check_rows(self.plan.rows_per_step // self.plan.accumulation)
        if self.pairs is not None and not self.ranks.alone:
            raise MeasurementError(
                f"steps that align translations came for {self.ranks.world} ranks; expected one process for them; "
                "leave the ranks out"
            )

    @property
    def done(self) -> int:
        """Updates done."""
        return len(self.history)

    def run(
        self, *, progress: bool = False, stop: Callable[[], bool] = never, checkpoint_seconds: float = 30.0
    ) -> None:
        """Train inside the student's context; with held-out text the best values are in place at the end."""
        self.resume()
        saved = time.monotonic()
        steps = self.plan.rate.steps
        if self.done < steps:
            check_flow(self.layout, self.mixture.rows(0, 1), self.student.layers)
        began = time.perf_counter()
        if self.held_out is not None and not self.done:
            self.untouched = self.measure()
            self.take(self.untouched, 0)
        if (progress or not self.ranks.alone) and self.done < steps:
            line = self.estimate(time.perf_counter() - began)  # in all ranks: it adds a gradient over them
            if progress:
                log.info(line)
        per_step = self.plan.rows_per_step * self.mixture.target.length
        with progress_bar(
            total=steps * per_step, initial=self.done * per_step, unit="tok", unit_scale=True, shown=progress
        ) as bar:
            while self.done < steps and not self.spent:
                if self.ranks.any(stop()):
                    self.save()
                    raise KeyboardInterrupt
                point = self.advance()
                bar.update(per_step)
                bpb_shown = {} if point.bits_per_byte is None else {"bpb": f"{point.bits_per_byte:.4f}"}
                bar.set_postfix({"loss": f"{point.loss:.4f}", **bpb_shown}, refresh=False)
                if time.monotonic() - saved >= checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
        self.save()
        if not any(point.grad_norm for point in self.history):
            raise MeasurementError(
                f"none of {self.done} steps had a gradient, so nothing was trained; expected one; choose neurons that "
                "fire on this text, or take out what stops gradients"
            )
        self.keep_best()
        if self.untouched is not None and not self.best[1]:
            after = min(point.bits_per_byte for point in self.history if point.bits_per_byte is not None)
            log.warning(
                "no step was better on validation text than the untouched model: %.4f bits per byte before, %.4f at "
                "best after; the result is the untouched model; lower the learning rate (peak %g)",
                self.untouched,
                after,
                self.plan.rate.peak,
            )

    def estimate(self, measurement: float) -> str:
        """What the steps that are left will take, from a gradient that moves nothing.

        measurement: seconds of one held-out measurement.
        """
        began = time.perf_counter()
        self.gradient()
        left = self.plan.rate.steps - self.done
        due = 0 if self.held_out is None else -(-left // self.plan.evaluate_every)
        seconds = left * (time.perf_counter() - began) + due * measurement
        memory = peak_mib() + sum(value.nbytes for value in self.student.state().values()) // 2**20
        tokens = self.plan.rows_per_step * self.mixture.target.length
        return (
            f"{left} steps of {tokens:,} tokens and {due} measurements on validation text: about {duration(seconds)}, "
            f"memory up to {memory:,} MiB" + ("" if self.layout.model.device.type == "cpu" else " beside the GPU's")
        )

    def take(self, score: float, step: int) -> None:
        """Keep the values of this step as the best so far."""
        self.best = (score, step)
        self.kept = {name: value.detach().clone() for name, value in self.student.values().items()}

    @property
    def best_step(self) -> int:
        """The step whose values are the result: the best measured one, or the last where nothing was measured."""
        return self.done if self.held_out is None else self.best[1]

    def advance(self) -> Point:
        """One update, and a held-out measurement where one is due."""
        loss, norm, tokens = self.gradient()
        rate = self.plan.rate.at(self.done)
        self.student.step(rate, min(1.0, self.plan.clip / norm) if norm > 0 else 1.0)
        step = self.done + 1
        due = self.held_out is not None and (step % self.plan.evaluate_every == 0 or step == self.plan.rate.steps)
        score = self.measure() if due else None
        objective = "pairs" if self.pairs is not None and self.pairs.due(self.done) else "text"
        fed = tokens + (self.history[-1].tokens if self.history else 0)
        self.history.append(Point(step, loss, norm, rate, fed, score, objective))
        if score is not None and (score < self.best[0] or self.pairs is not None):
            self.take(score, step)
        if score is not None:
            self.watch(self.history[-1])
        return self.history[-1]

    def gradient(self) -> tuple[float, float, int]:
        """Mean loss of the step, length of its gradient, and tokens; raises MeasurementError at NaN or infinity."""
        self.student.zero_grad()
        if self.pairs is not None and self.pairs.due(self.done):
            total, tokens = self.pairs.backward(self.layout, self.done, self.steering)
        else:
            total, tokens = self.text_gradient(self.done - (self.pairs.before(self.done) if self.pairs else 0))
        norm = float(self.student.grad_norm())
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise MeasurementError(
                f"step {self.done + 1}: loss {total}, gradient {norm}; expected finite numbers; the run stopped and "
                "the model is as before; lower the learning rate, or use bfloat16 in place of float16"
            )
        return total, norm, tokens

    def text_gradient(self, number: int) -> tuple[float, int]:
        """Mean loss of the number-th step of text, from 0, whose gradient is added, and its tokens."""
        plan, first = self.plan, number * self.plan.rows_per_step
        size = plan.rows_per_step // plan.accumulation
        starts = [first + i * size for i in range(plan.accumulation)]
        parts = [self.mixture.rows(start, size) for start in starts]
        scored = sum(int(part.scored.sum()) for part in parts)
        total = 0.0
        for start, part in zip(starts, parts, strict=True):
            first_row, count = self.ranks.part(start, size)
            rows = part if self.ranks.alone else self.mixture.rows(first_row, count)
            if not self.ranks.alone and not bool(rows.scored.any()):
                continue
            with rows_with(self.steering, self.mixture.languages(first_row, count)):
                loss = rows_loss(self.layout, rows, 1 / scored)
                loss.backward()
            total += float(loss.detach())
        if not self.ranks.alone:
            self.ranks.add(self.student.gradients())
            (total,) = self.ranks.total(total)
        return total, plan.rows_per_step * self.mixture.target.length

    @torch.no_grad()
    def measure(self) -> float:
        """Held-out bits per byte of the target language."""
        assert self.held_out is not None
        part = self.held_out if self.ranks.alone else self.held_out.every(self.ranks.number, self.ranks.world)
        with rows_with(self.steering, (part.language,)):
            losses = document_losses(self.layout, part)
        if self.ranks.alone:
            return losses.bits_per_byte
        nats, n_bytes = self.ranks.total(float(losses.nats.sum()), float(losses.n_bytes.sum()))
        return nats / math.log(2) / n_bytes

    @property
    def spent(self) -> bool:
        """Whether patience is at its end."""
        if self.plan.patience is None or self.held_out is None:
            return False
        since = [point for point in self.history if point.bits_per_byte is not None and point.step > self.best[1]]
        return len(since) >= self.plan.patience

    @torch.no_grad()
    def keep_best(self) -> None:
        """Put the best held-out values in place."""
        if self.kept and self.best[1] != self.done:
            for name, value in self.student.values().items():
                value.copy_(self.kept[name])
            self.student.refresh()

    def save(self) -> None:
        """Write a checkpoint, if a folder was given."""
        if self.checkpoint is None:
            return
        best_values = {f"best/{name}": value for name, value in self.kept.items()}
        facts = {
            "history": [list(point) for point in self.history],
            "best": None if self.held_out is None else list(self.best),
            "untouched": self.untouched,
        }
        self.checkpoint.write(RunState(self.done, {**self.student.state(), **best_values}, facts))

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one of this very run."""
        saved = None if self.checkpoint is None else self.checkpoint.read(most=self.plan.rate.steps)
        facts = self.ranks.from_first(None if saved is None else dict(saved.facts))
        if facts is None:
            return
        live = dict(self.student.state())
        if self.held_out is not None:
            self.kept = {name: torch.empty_like(value) for name, value in self.student.values().items()}
            live |= {f"best/{name}": value for name, value in self.kept.items()}
        if saved is not None and self.checkpoint is not None:
            restore(live, saved.tensors, self.checkpoint.folder)
        self.ranks.copy_from_first(live[name] for name in sorted(live))
        self.student.refresh()
        self.history = [Point(*row) for row in facts["history"]]
        self.best = (math.inf, 0) if self.held_out is None else tuple(facts["best"])
        self.untouched = facts["untouched"]
        log.info("going on after step %d", self.done)
