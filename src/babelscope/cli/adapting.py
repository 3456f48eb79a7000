"""The verb `adapt`: train a language's subnetwork, or a baseline on the same text and budget."""

import os
from typing import Annotated, Literal

from babelscope.adaptation.result_file import RESULT
from babelscope.cli import adapt_checks as checks
from babelscope.cli.argument_kinds import alone, checkpoint_of, free
from babelscope.cli.arguments import (
    Device,
    LanguageTag,
    Model,
    Neurons,
    Out,
    Result,
    SameText,
    Talk,
    Text,
    TrainedDtype,
    counted_of,
    stop_on_interrupt,
)
from babelscope.cli.flag_conditions import UsedWith
from babelscope.cli.launched_ranks import device_of_rank, joined, launched_rank, training_backend
from babelscope.cli.quantities import (
    Count,
    Decay,
    Layer,
    Length,
    PartialShare,
    PeakRate,
    PositiveShare,
    RowLength,
    Seed,
    TokenAmount,
)
from babelscope.cli.telling import Told
from babelscope.files.folder_kinds import class_saved
from babelscope.files.strict_json import read_json
from babelscope.files.writing import discard


@alone
def run_adapt(
    model: Model,
    neurons: Neurons,
    corpus: Text,
    *,
    language: LanguageTag,
    out: Out,
    conversation: Talk = "none",
    steps: Count = 200,
    learning_rate: Annotated[PeakRate | None, UsedWith("without --rates", lambda call: not call["rates"])] = None,
    tokens_per_step: TokenAmount = 4096,
    max_length: RowLength = 256,
    accumulation: Count = 1,
    decay: Annotated[Decay, checks.NOT_PEFT] = 0.0,
    replay: Annotated[tuple[LanguageTag, ...], checks.REPLAYED] = (),
    replay_share: Annotated[
        PartialShare,
        UsedWith("with --replay and no --harm-bound", lambda call: call["replay"] and call["harm_bound"] is None),
    ] = 0.0,
    harm_bound: Annotated[Decay | None, checks.BOUNDED] = None,
    replay_shares: Annotated[
        tuple[PartialShare, ...], UsedWith("with --harm-bound", lambda call: call["harm_bound"] is not None)
    ] = (0.0, 0.1, 0.25, 0.5),
    mix: Annotated[Literal["none", "document", "sentence", "words"], checks.MIXED] = "none",
    mix_lines: Annotated[Count, UsedWith("with --mix", lambda call: call["mix"] != "none")] = 8,
    evaluate_every: Count = 25,
    patience: Annotated[Count | None, checks.CHOSEN_BY_TEXT] = None,
    form: Annotated[Literal["auto", "split", "fused"], checks.OF_NEURONS] = "auto",
    recompute: Annotated[Literal["nothing", "mlp"], checks.OF_NEURONS] = "nothing",
    baseline: checks.Baseline = "none",
    objective: Annotated[Literal["text", "align", "shift"], checks.ALIGN_ON_PAIRS] = "text",
    pairs: Annotated[str, checks.ALIGN] = "",
    pair_languages: Annotated[tuple[LanguageTag, ...], checks.ALIGN] = (),
    against: Annotated[LanguageTag, checks.ALIGN] = "en",
    align_layer: Annotated[Layer | None, checks.ALIGN] = None,
    align_every: Annotated[Count, checks.ALIGN] = 2,
    align_pairs: Annotated[Count, checks.ALIGN] = 32,
    align_temperature: Annotated[Length, checks.ALIGN] = 0.1,
    align_direction: Annotated[Literal["symmetric", "one-sided"], checks.ALIGN] = "symmetric",
    shift_layers: Annotated[tuple[Layer, ...], checks.SHIFTED] = (),
    mask_share: Annotated[PositiveShare, checks.TICKET] = 0.01,
    mask_from: Annotated[tuple[Literal["matrices", "vectors", "embeddings"], ...], checks.TICKET] = ("matrices",),
    iterations: Annotated[Count, checks.TICKET] = 1,
    dense_steps: Annotated[Count | None, checks.TICKET] = None,
    dense_rate: Annotated[PeakRate, checks.TICKET] = 3e-4,
    dense_l1: Annotated[Decay, checks.TICKET] = 0.0,
    sparse_l1: Annotated[Decay, checks.TICKET] = 0.0,
    shield: Annotated[tuple[LanguageTag, ...], checks.SHIELDED] = (),
    shield_share: Annotated[PositiveShare, checks.SHIELDED] = 0.5,
    shield_tokens: Annotated[Count, checks.SHIELDED] = 20_000,
    rates: Annotated[tuple[PeakRate, ...], checks.CHOSEN_BY_TEXT] = (),
    resume: Annotated[bool, UsedWith("without --baseline", lambda call: call["baseline"] == "none")] = False,
    same_text: SameText = False,
    check_language: bool = True,
    device: Device = "auto",
    dtype: TrainedDtype = "auto",
    seed: Seed = 0,
) -> Result:
    """Train the weights of a language's neurons on its text; the result is a Delta beside an untouched model.

    Started by torchrun or accelerate launch, the processes share the rows of each step of the neurons, each with the
    whole model on its own GPU where there are some; the first measures and writes.

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
        learning_rate: peak rate of AdamW; none takes 0.03 of the root mean square of the neurons' rows, for --baseline
            full, ffn and ssu a tenth of that, and says it.
        tokens_per_step: tokens of one optimizer step, over all its batches.
        max_length: tokens per row.
        accumulation: batches a step; more keep less memory.
        decay: weight decay of AdamW, towards the weights as they were; not for peft's adapters.
        replay: other languages of the corpus that are trained along, so that they are not forgotten.
        replay_share: their share of the rows, all together.
        harm_bound: take the smallest of --replay-shares whose training costs the other languages no more than so many
            bits per byte of valid text, on the mean; each is trained with all steps, from the smallest on. What each
            language lost on the way is in forgetting.html.
        replay_shares: shares to choose from.
        mix: lines of parallel train text, of --language and --replay, make documents whose units stand in one of these
            languages drawn at random: each sentence (a line), or each eight words or more. document, with each document
            in one language, is the control: the same text. A --replay-share of all but one language's part reads each
            unit equally often in each.
        mix_lines: lines of such a document.
        evaluate_every: steps between measurements on the valid text; the best one is kept.
        patience: measurements without a new best after which training ends; none means all steps.
        form: how neurons are trained; auto takes the fused form where the model allows it.
        recompute: mlp keeps less for the backward pass and takes more time.
        baseline: train this instead, on the same text and steps; the result is a Delta (random), an adapter of peft
            (lora, lora-attention) or an ElementDelta (others); result.json alone where no step was better than none.
            ssu trains all but what --shield holds still. sparse-forward trains the neurons with all others at 0 in
            every pass; what it leaves is for a model without the others.
        objective: align draws translations of --pairs together at one layer by a contrastive loss, in steps that take
            turns with those of text; the last step is the result, whatever the valid text says. shift does the same
            with other languages' text led into the space of --against between two layers and back; the recipes are
            in OUT/shift and must steer the trained model, as they did in training.
        pairs: folder of parallel text with train and valid splits, hub id, or "reference".
        pair_languages: languages of it that are aligned; none means all.
        against: the language of it that all others are paired with.
        align_layer: whose outputs are aligned; none takes the one where most valid translations are found.
        align_every: 2 is every second step, 1 every step and no text.
        align_pairs: pairs of a step, the wrong answers of each other.
        align_temperature: of the contrastive loss.
        align_direction: symmetric, or one-sided: --against's look for their translations, held still.
        shift_layers: the layer after which text is shifted and the one after which it is shifted back, to be aligned in
            between; none takes the ends of the area where the languages' subspaces are nearest.
        mask_share: share of all parameters that lottery-ticket tuning may move.
        mask_from: which it chooses from: matrices of the layers, vectors (biases and gains of norms), or embeddings.
        iterations: rounds of dense and sparse training; each adds as many values.
        dense_steps: steps of a dense phase; none means as many as --steps.
        dense_rate: peak rate of the dense phases.
        dense_l1: pull of the dense phases towards the weights as they were: times the mean distance, in nats.
        sparse_l1: the same of the sparse phases.
        shield: other languages of the corpus, whose train text says what source-shielded updates hold still: of each
            matrix the columns that multiply what this text makes large.
        shield_share: share of each matrix's columns that stays.
        shield_tokens: of that text, over all its languages.
        rates: learning rates to choose from on the valid text, each with all steps; none takes --learning-rate.
        resume: go on with an interrupted run; done at once if it is complete. Not for baselines.
        check_language: refuse text that is mostly another language than its label says.
    """
    rank = launched_rank()
    checkpoint = out.with_name(f"{out.name}.checkpoint") if rank.number else checkpoint_of(out, resume=resume)
    from babelscope.cli.telling_scores import adapt_lines

    if resume and os.path.isdir(out) and class_saved(out) == "Delta":
        if rank.number:
            return {}
        discard(checkpoint)
        advice = "remove the folder and repeat the command"
        fields = {"out": str(out), "resumed": "complete", **read_json(out / RESULT, advice=advice)}
        return Told(fields, adapt_lines(fields, out))
    free(out)
    checks.check_rows(tokens_per_step, max_length, accumulation)
    checks.check_shift_layers(shift_layers)
    checks.check_shield(baseline, shield, language)
    from babelscope.adaptation import AdaptationPlan, AlignmentPlan, LotteryTicket, run_adaptation
    from babelscope.adaptation.adaptation_job import Mixing, open_inputs, training_dtype
    from babelscope.adaptation.adaptation_plan import check_shared
    from babelscope.subnetworks import Ranks

    method = "subnetwork" if baseline == "none" else baseline
    ticket = LotteryTicket(mask_share, iterations, dense_steps, dense_rate, dense_l1, sparse_l1, mask_from)
    alignment = AlignmentPlan(
        pairs=pairs,
        languages=pair_languages,
        against=against,
        layer=align_layer,
        spacing=align_every,
        size=align_pairs,
        temperature=align_temperature,
        direction=align_direction,
        shifted=objective == "shift",
        shift_layers=shift_layers,
    )
    plan = AdaptationPlan(
        method=method,
        steps=steps,
        learning_rate=learning_rate,
        rates=rates,
        tokens_per_step=tokens_per_step,
        max_length=max_length,
        accumulation=accumulation,
        decay=decay,
        replay_share=replay_share,
        harm_bound=harm_bound,
        replay_shares=replay_shares,
        evaluate_every=evaluate_every,
        patience=patience,
        form=form,
        recompute=recompute,
        ticket=ticket if method == "lt-sft" else None,
        shield_share=shield_share,
        shield_tokens=shield_tokens,
        alignment=None if objective == "text" else alignment,
        seed=seed,
    )
    with joined(rank, training_backend()):
        ranks = Ranks() if rank.world == 1 else Ranks.of_group()
        check_shared(plan, ranks)
        inputs = open_inputs(
            model,
            neurons,
            corpus,
            language,
            replay,
            check_language=check_language,
            device=device_of_rank(rank, device),
            dtype=training_dtype(dtype, method),
            same_text=same_text,
            conversation=counted_of(conversation),
            mix=None if mix == "none" else Mixing(mix, mix_lines, seed),
            shield=shield,
        )
        fields = run_adaptation(
            inputs, plan, out, checkpoint, stopping=stop_on_interrupt, ranks=ranks, progress=ranks.first
        )
    return Told(fields, adapt_lines(fields, out)) if ranks.first else {}
