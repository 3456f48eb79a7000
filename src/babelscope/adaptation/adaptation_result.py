"""What is written of an adaptation, and one that did not help."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from babelscope.adaptation.adaptation_job import AdaptInputs
from babelscope.adaptation.adaptation_run import Adaptation, BeforeAfter
from babelscope.adaptation.alignment_job import (
    AlignmentJob,
    aligned_after,
    alignment_facts,
    bits_of_test,
    save_shift,
    shift_facts,
)
from babelscope.adaptation.forgetting import choose_replay
from babelscope.adaptation.material import Material
from babelscope.adaptation.methods import Method
from babelscope.adaptation.result_file import RESULT
from babelscope.errors import MeasurementError
from babelscope.evaluation import bits_per_byte
from babelscope.figures import FORGETTING_CAPTION, forgetting_lines, write_figure
from babelscope.files.strict_json import nan_as_null
from babelscope.files.work_log import work_log
from babelscope.files.writing import discard, new_folder, write_text
from babelscope.languages import Language
from babelscope.subnetworks import Delta, Ranks, train_subnetwork

log = logging.getLogger(__name__)
Stopping = Callable[[], AbstractContextManager[Callable[[], bool]]]
"""While open, it says whether the training should end; a command hands over what Ctrl-C sets."""


@contextmanager
def never_stopped() -> Iterator[Callable[[], bool]]:
    """Nothing ends the training early."""
    yield lambda: False


def refuse_untouched(
    result: Mapping[str, Any], learning_rate: float, out: Path, checkpoint: Path, *, otherwise: str
) -> None:
    """Raise MeasurementError where no step was better than the model as it was: such a result would change nothing.

    The course of the training is written beside `out`, and the checkpoint, which holds nothing better, is removed.
    otherwise: what may be done in the place of a lower learning rate.
    """
    if result["best_step"]:
        return
    log = out.with_name(f"{out.name}.training.json")
    write_text(log, json.dumps({"learning_rate": learning_rate, **result}, indent=1))
    discard(checkpoint)
    after = min(score for step, score in result["bits_per_byte"] if step)
    raise MeasurementError(
        f"no step at learning rate {learning_rate:g} was better on valid text than the untouched model "
        f"({after:.4f} bits per byte at best, {result['untouched']:.4f} before); expected a gain; nothing is saved, "
        f"the training log is in {log}; lower --learning-rate, such as to {learning_rate / 10:g}, or {otherwise}"
    )


def cast_costs(
    job: AdaptInputs, delta: Delta, before: float, after: float, alignment: AlignmentJob | None = None
) -> dict[str, Any]:
    """What bfloat16 weights would take of the change and its gain, bits per byte; in 16 bits, what they took."""
    loss = delta.cast_loss(job.model)
    if loss.dtype in ("bfloat16", "float16"):
        return asdict(loss)
    left = delta.rounded(job.model, torch.bfloat16)
    with left.applied(job.model):
        cast_bits = bits_of_test(job.model, job.tokenizer, job.test.only([job.language]), alignment)[job.language]
    cast_facts = {
        **asdict(delta.cast_loss(job.model, dtype=torch.bfloat16)),
        "gain": before - cast_bits,
        "gain_lost": cast_bits - after,
    }
    return cast_facts


def train_neurons(
    job: AdaptInputs,
    out: Path,
    checkpoint: Path,
    run: str,
    *,
    alignment: AlignmentJob | None,
    replayed: Mapping[str, Any],
    scores: dict[float, float],
    learning_rate: float,
    learning_rate_is: str,
    stopping: Stopping,
    options: Mapping[str, Any],
    ranks: Ranks,
) -> dict[str, Any]:
    """Train the neurons, measure before and after, and write the Delta with its result.json; the fields of the latter.

    run: hash of everything that decides the run, for what an interrupted one left in `checkpoint`. scores: bits per
    byte of valid text by learning rate, where one was chosen. options: of `train_subnetwork`. ranks: processes that
    share the steps; what is measured and written is the first one's, and the others return nothing.
    """
    steps_of_pairs, shift = (None, None) if alignment is None else (alignment.steps, alignment.shift)
    before: dict[Language, float] = {}
    if ranks.first:
        log.info("test text of %d languages is measured before training, and after it", len(job.test))
        with work_log(checkpoint / "before", run):
            before = bits_per_byte(job.model, job.tokenizer, job.test)
    with stopping() as stopped:
        delta = train_subnetwork(
            job.model,
            job.tokenizer,
            job.neurons,
            job.train[job.language],
            learning_rate=learning_rate,
            replay=job.replay,
            validation=job.valid,
            checkpoint=checkpoint,
            stop=stopped,
            pairs=steps_of_pairs,
            steering=shift,
            ranks=ranks,
            **options,
        )
    if not ranks.first:
        return {}
    refuse_untouched(delta.parameters["result"], learning_rate, out, checkpoint, otherwise="let --rates choose")
    with work_log(checkpoint / "after", run):
        with delta.applied(job.model):
            after = bits_of_test(job.model, job.tokenizer, job.test, alignment)
            aligned = aligned_after(job.model, job.tokenizer, alignment)
        cast = cast_costs(job, delta, before[job.language], after[job.language], alignment)
    result = summary(job.language, BeforeAfter(before, after), delta.n_values, learning_rate, scores)
    result |= {"learning_rate_is": learning_rate_is, "cast": cast, **aligned, **replayed}
    with new_folder(out) as folder:
        delta.save(folder)
        save_shift(folder, alignment)
        write_course(folder, replayed)
        write_text(folder / RESULT, json.dumps({**result, **delta.parameters["result"], "text": job.text}, indent=1))
    discard(checkpoint)
    return {"out": str(out), **result}


def choose_share(
    job: AdaptInputs,
    shares: Sequence[float],
    bound: float,
    method: Method,
    packing: Mapping[str, Any],
    options: Mapping[str, Any],
) -> tuple[AdaptInputs, dict[str, Any]]:
    """The job with the replay text that keeps the harm on valid text within a bound, and what the result says of it."""
    valid = job.valid_of_all()

    def prepare(share: float) -> Material:
        return job.material(valid=valid, **{**packing, "replay_share": share})

    choice = choose_replay(prepare, method, shares, bound, **options)
    costs = {f"{share:g}": [choice.gains[share], harm] for share, harm in choice.harms.items()}
    account = [row._asdict() | {"recovered": nan_as_null(row.recovered)} for row in choice.account]
    log.info("replaying a share of %g: harm %.4f on valid text", choice.share, choice.harms[choice.share])
    facts = {"share": choice.share, "bound": bound, "gain_and_harm_by_share": costs, "forgetting": account}
    facts["course"] = [[tokens, rises] for tokens, rises in choice.course]
    return job if choice.share else replace(job, replay=None), {"replay": facts}


def write_course(folder: Path, replayed: Mapping[str, Any]) -> None:
    """The figure of what other languages lost on the way, where a share was chosen."""
    if replayed:
        facts = replayed["replay"]
        course = [(tokens, rises) for tokens, rises in facts["course"]]
        figure = forgetting_lines(course=course, bound=facts["bound"])
        write_figure(figure, folder / "forgetting.html", FORGETTING_CAPTION)


def write_baseline(
    result: Adaptation,
    out: Path,
    job: AdaptInputs,
    scores: dict[float, float],
    alignment: AlignmentJob | None,
    replayed: Mapping[str, Any],
) -> dict[str, Any]:
    """result.json of a baseline, and what it trained where some step was better than none.

    A Delta for methods of neurons, an ElementDelta for others that move weights, and an adapter of peft for LoRA.
    """
    result_fields = summary(job.language, result.scores, result.trained, result.learning_rate, scores)
    result_fields |= replayed
    if alignment is not None and result.aligned_after is not None:
        result_fields["alignment"] = alignment_facts(alignment.before, result.aligned_after, alignment.steps)
        result_fields |= shift_facts(alignment)
    curve = [[point.step, point.bits_per_byte] for point in result.history if point.bits_per_byte is not None]
    if result.delta is not None and "shield" in result.delta.parameters:
        result_fields["shield"] = result.delta.parameters["shield"]
    facts = {**result_fields, "method": result.method, "bits_per_byte": curve, "text": job.text}
    with new_folder(out) as folder:
        if result.delta is not None and result.delta.changes_values:
            result.delta.save(folder)
        if result.adapter is not None and result.adapter.changes_values:
            result.adapter.save(folder)
        save_shift(folder, alignment)
        write_course(folder, replayed)
        write_text(folder / RESULT, json.dumps(facts, indent=1))
    return {"out": str(out), "method": result.method, **result_fields}


def saying_no_gain(language: Language, gain: float, before: str) -> dict[str, str]:
    """A field that says so where test text takes no fewer bits per byte than `before`; it is logged too."""
    if gain > 0:
        return {}
    line = f"no gain: test text of {language} takes {0.0 - gain:.4f} bits per byte more than with {before}"
    field = {"no_gain": f"{line}; lower --learning-rate, or give more text"}
    log.warning(field["no_gain"])
    return field


def summary(
    language: Language, scores: BeforeAfter, trained: int, learning_rate: float, rates: dict[float, float]
) -> dict[str, Any]:
    """Bits per byte of the test text: the target's gain, the others' mean rise; a run that did not help says so."""
    gain = scores.gain(language)
    return {
        **saying_no_gain(language, gain, "the untouched model"),
        "language": language,
        "trained": trained,
        "learning_rate": learning_rate,
        "rates_on_valid": {str(rate): score for rate, score in rates.items()},
        "gain": gain,
        "harm": nan_as_null(scores.harm(language)),
        **scores._asdict(),
    }
