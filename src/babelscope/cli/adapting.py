"""The verb `adapt`: train a language's subnetwork, or a baseline on the same text and budget."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.adaptation import Adaptation, Material, adapt, choose_rate
from babelscope.artifacts import NeuronSet
from babelscope.cli.arguments import (
    Device,
    Dtype,
    Model,
    Neurons,
    Result,
    SameText,
    Seed,
    Talk,
    Text,
    alone,
    checkpoint_of,
    counted_of,
    free,
    stop_on_interrupt,
)
from babelscope.corpus import (
    SPLITS,
    WHOLE,
    Corpus,
    Document,
    check_apart,
    check_conversations,
    has_splits,
    load_corpus,
)
from babelscope.errors import MeasurementError
from babelscope.evaluation import bits_per_byte, check_labels
from babelscope.files.strict_json import read_json
from babelscope.files.writing import discard, new_folder, write_text
from babelscope.languages import Language
from babelscope.models import open_model
from babelscope.models.plain import CausalModel
from babelscope.subnetworks import Delta, train_subnetwork

Baseline = Literal["none", "random", "full", "ffn", "lora", "lora-attention", "shira", "lt-sft"]
RESULT = "result.json"


@alone
def run_adapt(
    model: Model,
    neurons: Neurons,
    corpus: Text,
    *,
    language: str,
    out: Path,
    conversation: Talk = "none",
    steps: int = 200,
    learning_rate: float = 3e-3,
    tokens_per_step: int = 4096,
    max_length: int = 256,
    accumulation: int = 1,
    decay: float = 0.0,
    replay: tuple[str, ...] = (),
    replay_share: float = 0.0,
    evaluate_every: int = 25,
    patience: int | None = None,
    form: Literal["auto", "split", "fused"] = "auto",
    recompute: Literal["nothing", "mlp"] = "nothing",
    baseline: Baseline = "none",
    rates: tuple[float, ...] = (),
    resume: bool = False,
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
        learning_rate: peak rate of AdamW.
        tokens_per_step: tokens of one optimizer step, over all its batches.
        max_length: tokens a row.
        accumulation: batches a step; more keep less memory.
        decay: weight decay of AdamW, on what is trained.
        replay: other languages of the corpus that are trained along, so that they are not forgotten.
        replay_share: their share of the rows, all together.
        evaluate_every: steps between measurements on the valid text; the best one is kept.
        patience: measurements without a new best after which training ends; none means all steps.
        form: how the neurons are trained; auto takes the fused form where the model allows it.
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
    job = open_job(model, neurons, corpus, language, replay, check_language, device, dtype, same_text, conversation)
    shared: dict[str, Any] = {
        "steps": steps,
        "tokens_per_step": tokens_per_step,
        "evaluate_every": evaluate_every,
        "seed": seed,
    }
    packing = {"replay_share": replay_share, "max_length": max_length}
    scores: dict[float, float] = {}
    if rates or baseline != "none":
        material, method = job.material(seed=seed, **packing), "subnetwork" if baseline == "none" else baseline
        if rates:
            learning_rate, scores = choose_rate(material, method, rates, neurons=job.neurons, **shared)
        if baseline != "none":
            result = adapt(material, method, learning_rate=learning_rate, neurons=job.neurons, progress=True, **shared)
            return write_baseline(result, out, job, scores)
    before = bits_per_byte(job.model, job.tokenizer, job.test)
    with stop_on_interrupt() as stopped:
        delta = train_subnetwork(
            job.model,
            job.tokenizer,
            job.neurons,
            job.train[job.language],
            learning_rate=learning_rate,
            accumulation=accumulation,
            decay=decay,
            replay=job.replay,
            validation=job.valid,
            patience=patience,
            form=form,
            recompute=recompute,
            checkpoint=checkpoint,
            progress=True,
            stop=stopped,
            **shared,
            **packing,
        )
    refuse_untouched(delta.parameters["result"], learning_rate, out, checkpoint)
    with delta.applied(job.model):
        after = bits_per_byte(job.model, job.tokenizer, job.test)
    result = summary(job.language, before, after, delta.n_values, learning_rate, scores)
    result["cast"] = cast_costs(job, delta, before[job.language], after[job.language])
    with new_folder(out) as folder:
        delta.save(folder)
        write_text(folder / RESULT, json.dumps({**result, **delta.parameters["result"], "text": job.text}, indent=1))
    discard(checkpoint)
    return {"out": str(out), **result}


def refuse_untouched(result: Mapping[str, Any], learning_rate: float, out: Path, checkpoint: Path) -> None:
    """Raise MeasurementError where no step was better than the model as it was: such a Delta would change nothing.

    The course of the training is written beside `out`, and the checkpoint, which holds nothing better, is removed.
    """
    if result["best_step"]:
        return
    log = out.with_name(f"{out.name}.training.json")
    write_text(log, json.dumps({"learning_rate": learning_rate, **result}, indent=1))
    discard(checkpoint)
    after = min(score for step, score in result["bits_per_byte"] if step)
    raise MeasurementError(
        f"no step at learning rate {learning_rate:g} was better on valid text than the untouched model "
        f"({after:.4f} bits per byte at best, {result['untouched']:.4f} before); expected a gain; no Delta is saved, "
        f"the training log is in {log}; lower --learning-rate, such as to {learning_rate / 10:g}, or let --rates choose"
    )


@dataclass(frozen=True)
class Job:
    """The model, the neurons and the text of one call."""

    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    neurons: NeuronSet
    language: Language
    train: Corpus
    replay: Corpus | None
    valid: tuple[Document, ...]
    test: Corpus
    text: Mapping[str, Any]
    """What the result says of the text: facts of every split, and whether one text for several was asked for."""

    def material(self, **packing: Any) -> Material:
        """For the library's comparisons."""
        return Material.prepare(
            self.model,
            self.tokenizer,
            language=self.language,
            documents=self.train[self.language],
            dev=self.valid,
            test=self.test,
            replay=self.replay,
            same_text=self.text["same_text"],
            **packing,
        )


def cast_costs(job: Job, delta: Delta, before: float, after: float) -> dict[str, Any]:
    """What bfloat16 weights would take of the change and its gain, bits per byte; in 16 bits, what they took."""
    own = delta.cast_loss(job.model)
    if own.dtype in ("bfloat16", "float16"):
        return asdict(own)
    left = delta.rounded(job.model, torch.bfloat16)
    with left.applied(job.model):
        kept = bits_per_byte(job.model, job.tokenizer, job.test.only([job.language]))[job.language]
    found = {
        **asdict(delta.cast_loss(job.model, dtype=torch.bfloat16)),
        "gain": before - kept,
        "gain_lost": kept - after,
    }
    return found


def open_job(
    model: str,
    neurons: Path,
    corpus: str,
    language: str,
    replay: tuple[str, ...],
    check_language: bool,
    device: str,
    dtype: str,
    same_text: bool,
    conversation: str = "none",
) -> Job:
    """Read everything, the small things first."""
    tag = Language.parse(language)
    chosen = NeuronSet.load(neurons)[tag]
    counted = counted_of(conversation)
    split = {name: name if has_splits(corpus) or not same_text else WHOLE for name in SPLITS}
    train = load_corpus(corpus, dict.fromkeys((tag, *replay)), split=split["train"], conversation=counted)
    if check_language:
        check_labels(train)
    others = [other for other in train if other != tag]
    valid = load_corpus(corpus, [tag], split=split["valid"], conversation=counted)
    test = load_corpus(corpus, split=split["test"], conversation=counted)
    check_apart({"train": train, "valid": valid, "test": test}, name=corpus, same_text=same_text)
    facts = {name: part.facts() for name, part in (("train", train), ("valid", valid), ("test", test))}
    text = {**facts, "same_text": same_text}
    opened, tokenizer = open_model(model, device=device, dtype=dtype)
    if counted is not None:
        for part in (train, valid, test):
            check_conversations(tokenizer, part)
    return Job(opened, tokenizer, chosen, tag, train, train.only(others) if others else None, valid[tag], test, text)


def write_baseline(result: Adaptation, out: Path, job: Job, scores: dict[float, float]) -> Result:
    """result.json of a baseline, and its Delta where it trains neurons and some step was better than none."""
    found = summary(job.language, result.before, result.after, result.trained, result.learning_rate, scores)
    curve = [[point.step, point.bits_per_byte] for point in result.history if point.bits_per_byte is not None]
    facts = {**found, "method": result.method, "bits_per_byte": curve, "text": job.text}
    with new_folder(out) as folder:
        if result.delta is not None and any(bool(part.any()) for part in result.delta.rows.values()):
            result.delta.save(folder)
        write_text(folder / RESULT, json.dumps(facts, indent=1))
    return {"out": str(out), "method": result.method, **found}


def summary(
    language: Language,
    before: dict[Language, float],
    after: dict[Language, float],
    trained: int,
    learning_rate: float,
    scores: dict[float, float],
) -> dict[str, Any]:
    """Bits per byte of the test text: the target's gain, the others' mean rise."""
    others = [after[tag] - before[tag] for tag in before if tag != language]
    return {
        "language": language,
        "trained": trained,
        "learning_rate": learning_rate,
        "rates_on_valid": {str(rate): score for rate, score in scores.items()},
        "gain": before[language] - after[language],
        "harm": sum(others) / len(others) if others else None,
        "before": before,
        "after": after,
    }
