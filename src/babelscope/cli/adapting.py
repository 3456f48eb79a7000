"""The verb `adapt`: train a language's subnetwork, or a baseline on the same text and budget."""

import json
from typing import Annotated, Any, Literal

from babelscope.cli.argument_kinds import alone, checkpoint_of, free
from babelscope.cli.arguments import (
    Device,
    Dtype,
    Model,
    Neurons,
    Out,
    Result,
    SameText,
    Tag,
    Talk,
    Text,
    counted_of,
    stop_on_interrupt,
)
from babelscope.cli.flag_conditions import UsedWith
from babelscope.cli.quantities import Count, Decay, LearningRate, PartialShare, RowLength, Seed, Tokens
from babelscope.errors import UsageError
from babelscope.files.strict_json import read_json
from babelscope.files.writing import discard, new_folder, write_text

Baseline = Literal["none", "random", "full", "ffn", "lora", "lora-attention", "shira", "lt-sft"]
RESULT = "result.json"
OF_NEURONS = UsedWith(
    "without --baseline or with --baseline random", lambda call: call["baseline"] in ("none", "random")
)
NOT_PEFT = UsedWith(
    "without --baseline lora, lora-attention or shira, whose adapters have no decay",
    lambda call: call["baseline"] not in ("lora", "lora-attention", "shira"),
)


@alone
def run_adapt(
    model: Model,
    neurons: Neurons,
    corpus: Text,
    *,
    language: Tag,
    out: Out,
    conversation: Talk = "none",
    steps: Count = 200,
    learning_rate: Annotated[LearningRate | None, UsedWith("without --rates", lambda call: not call["rates"])] = None,
    tokens_per_step: Tokens = 4096,
    max_length: RowLength = 256,
    accumulation: Count = 1,
    decay: Annotated[Decay, NOT_PEFT] = 0.0,
    replay: Annotated[
        tuple[Tag, ...], UsedWith("with a --replay-share above 0", lambda call: call["replay_share"] > 0)
    ] = (),
    replay_share: Annotated[PartialShare, UsedWith("with --replay", lambda call: bool(call["replay"]))] = 0.0,
    evaluate_every: Count = 25,
    patience: Count | None = None,
    form: Annotated[Literal["auto", "split", "fused"], OF_NEURONS] = "auto",
    recompute: Annotated[Literal["nothing", "mlp"], OF_NEURONS] = "nothing",
    baseline: Baseline = "none",
    rates: tuple[LearningRate, ...] = (),
    resume: Annotated[bool, UsedWith("without --baseline", lambda call: call["baseline"] == "none")] = False,
    same_text: SameText = False,
    check_language: bool = True,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
) -> Result:
    """Train the weights of a language's neurons on its text; the result is a Delta beside an untouched model.

    Args:
        neurons: folder of a NeuronSet that has the language.
        corpus: folder with train, valid and test text, hub id, or "reference"; every language of it is measured. Text
            without splits is dealt out by document.
        language: what is trained; its valid text chooses the best step.
        out: folder of the Delta; result.json in it holds losses and bits per byte before and after. Where no step is
            better on the valid text than the untouched model there is none: exit 1, with the course of the training in
            OUT.training.json.
        conversation: the corpus's rows are conversations for the model's own chat template, and the loss is taken on
            these words of them: answer (also on the token that ends each), user, or all; none reads plain text.
        steps: optimizer steps at most.
        learning_rate: peak rate of AdamW; none takes 0.03 of the root mean square of the neurons' rows and says it.
        tokens_per_step: tokens of one optimizer step, over all its batches.
        max_length: tokens a row.
        accumulation: batches a step; more keep less memory.
        decay: weight decay of AdamW, towards the weights as they were; not for peft's adapters.
        replay: other languages of the corpus that are trained along, so that they are not forgotten.
        replay_share: their share of the rows, all together.
        evaluate_every: steps between measurements on the valid text; the best one is kept.
        patience: measurements without a new best after which training ends; none means all steps.
        form: how neurons are trained; auto takes the fused form where the model allows it.
        recompute: mlp keeps less for the backward pass and takes more time.
        baseline: train this instead, on the same text and steps, and write result.json alone (no Delta but for random).
        rates: learning rates to choose from on the valid text, each with all steps; none takes --learning-rate.
        resume: go on with an interrupted run; done at once if it is complete. Not for baselines.
        check_language: refuse text that is mostly another language than its label says.
    """
    checkpoint = checkpoint_of(out, resume=resume)
    if resume and (out / "config.json").is_file():
        discard(checkpoint)
        advice = "remove the folder and repeat the command"
        return {"out": str(out), "resumed": "complete", **read_json(out / RESULT, advice=advice)}
    free(out)
    check_rows(tokens_per_step, max_length, accumulation)
    from babelscope.adaptation import BeforeAfter, adapt, choose_rate
    from babelscope.cli.adaptation_job import cast_costs, open_job, refuse_untouched, summary, write_baseline
    from babelscope.evaluation import bits_per_byte
    from babelscope.files.work_log import work_log
    from babelscope.subnetworks import RATE, train_subnetwork, usual_rate

    packing = {"replay_share": replay_share, "max_length": max_length, "seed": seed}
    job = open_job(
        model,
        neurons,
        corpus,
        language,
        replay,
        check_language=check_language,
        device=device,
        dtype=dtype,
        same_text=same_text,
        conversation=counted_of(conversation),
    )
    job.check_fit(baseline, **packing)
    settings: dict[str, Any] = {
        "steps": steps,
        "tokens_per_step": tokens_per_step,
        "accumulation": accumulation,
        "decay": decay,
        "evaluate_every": evaluate_every,
        "patience": patience,
        "form": form,
        "recompute": recompute,
        "progress": True,
    }
    run = job.fingerprint({**settings, **packing, "rate": learning_rate, "rates": rates, "baseline": baseline})
    scores: dict[float, float] = {}
    origin = "given" if learning_rate is not None else f"{RATE:g} of the root mean square of the neurons' rows"
    if learning_rate is None:
        learning_rate = usual_rate(job.model, job.neurons)
    if rates or baseline != "none":
        material = job.material(**packing)
        method = "subnetwork" if baseline == "none" else baseline
        shared = {"neurons": job.neurons, "seed": seed, **settings}
        if rates:
            with work_log(checkpoint / "rates", run):
                learning_rate, scores = choose_rate(material, method, rates, **shared)
            origin = "chosen on valid text"
        if baseline != "none":
            result = adapt(material, method, learning_rate=learning_rate, **shared)
            return {**write_baseline(result, out, job, scores), "learning_rate_is": origin}
    with work_log(checkpoint / "before", run):
        before = bits_per_byte(job.model, job.tokenizer, job.test)
    with stop_on_interrupt() as stopped:
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
            **settings,
            **packing,
        )
    refuse_untouched(delta.parameters["result"], learning_rate, out, checkpoint)
    with work_log(checkpoint / "after", run):
        with delta.applied(job.model):
            after = bits_per_byte(job.model, job.tokenizer, job.test)
        cast = cast_costs(job, delta, before[job.language], after[job.language])
    result = summary(job.language, BeforeAfter(before, after), delta.n_values, learning_rate, scores)
    result |= {"learning_rate_is": origin, "cast": cast}
    with new_folder(out) as folder:
        delta.save(folder)
        write_text(folder / RESULT, json.dumps({**result, **delta.parameters["result"], "text": job.text}, indent=1))
    discard(checkpoint)
    return {"out": str(out), **result}


def check_rows(tokens_per_step: int, max_length: int, accumulation: int) -> None:
    """Raise UsageError where the rows of a step cannot be cut into as many batches as --accumulation says."""
    rows = max(1, tokens_per_step // max_length)
    if rows % accumulation:
        raise UsageError(
            f"--accumulation {accumulation} came for steps of {rows} rows (--tokens-per-step {tokens_per_step} over "
            f"--max-length {max_length}); expected a number that divides the rows; change one of them"
        )
