"""The verb `vocabulary train`: the new rows of a pack, alone or in one sparse step with a language's neurons."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import SavedAs, alone, checkpoint_of, free
from babelscope.cli.arguments import Device, Dtype, LanguageTag, Model, Out, Result, SameText, Text, stop_on_interrupt
from babelscope.cli.finished_calls import kept_result
from babelscope.cli.flag_conditions import UsedWith
from babelscope.cli.quantities import Count, Decay, PartialShare, PeakRate, RowLength, Seed, TokenAmount
from babelscope.files.writing import discard, new_folder, write_text


@alone
def run_train(
    model: Model,
    pack: Annotated[Positional[Path], SavedAs(("VocabularyPack",)), arg(metavar="PACK")],
    corpus: Text,
    *,
    language: LanguageTag,
    out: Out,
    neurons: Annotated[Path | None, SavedAs(("NeuronSet",))] = None,
    steps: Count = 200,
    learning_rate: PeakRate | None = None,
    tokens_per_step: TokenAmount = 4096,
    max_length: RowLength = 256,
    accumulation: Count = 1,
    decay: Decay = 0.0,
    replay: Annotated[
        tuple[LanguageTag, ...], UsedWith("with --replay-share", lambda call: call["replay_share"] > 0)
    ] = (),
    replay_share: Annotated[PartialShare, UsedWith("with --replay", lambda call: bool(call["replay"]))] = 0.0,
    evaluate_every: Count = 25,
    patience: Count | None = None,
    resume: bool = False,
    same_text: SameText = False,
    check_language: bool = True,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
) -> Result:
    """Train the new rows of a vocabulary on a language's text, and its neurons in the same steps where a set is given.

    Args:
        pack: folder that `vocabulary extend` or `replace` saved, for this model.
        corpus: folder with train, valid and test text, hub id, or "reference"; every language of it is measured. Text
            without splits is dealt out by document.
        language: what is trained; its valid text chooses the best step.
        out: folder of the result: pack, with the rows as they were trained; delta, where neurons were trained; and
            result.json, with losses and bits per byte of the model's own vocabulary, of the pack before and after.
            Where no step is better on the valid text than the rows as they were, nothing is saved: exit 1.
        neurons: folder of a NeuronSet that has the language; none trains the rows alone.
        steps: optimizer steps at most.
        learning_rate: peak rate of AdamW for neurons, or for rows where there are none; none takes 0.03 of their root
            mean square. Rows beside neurons take as large a share of their own.
        tokens_per_step: tokens of one optimizer step, over all its batches.
        max_length: tokens per row.
        accumulation: batches a step; more keep less memory.
        decay: weight decay of AdamW, towards the values as they were.
        replay: other languages of the corpus that are trained along, so that they are not forgotten.
        replay_share: their share of the rows, all together.
        evaluate_every: steps between measurements on the valid text; the best one is kept.
        patience: measurements without a new best after which training ends; none means all steps.
        resume: go on with an interrupted run; done at once if it is complete.
        check_language: refuse text that is mostly another language than its label says.
    """
    checkpoint = checkpoint_of(out, resume=resume)
    from babelscope.adaptation.result_file import RESULT

    if resume and (fields := kept_result(out, RESULT, checkpoint)) is not None:
        return fields
    free(out)
    from babelscope.adaptation import train_vocabulary
    from babelscope.artifacts import NeuronSet
    from babelscope.cli.adapt_checks import check_rows
    from babelscope.cli.adaptation_job import read_splits
    from babelscope.cli.adaptation_result import refuse_untouched, saying_no_gain
    from babelscope.evaluation import bits_per_byte
    from babelscope.files.state_folder import hash_json
    from babelscope.files.work_log import hash_of, work_log
    from babelscope.languages import Language
    from babelscope.models import open_model
    from babelscope.study.plan import plan_of_model
    from babelscope.vocabulary import VocabularyPack

    check_rows(tokens_per_step, max_length, accumulation)
    tag, loaded = Language.parse(language), VocabularyPack.load(pack)
    chosen = None if neurons is None else NeuronSet.load(neurons)[tag]
    texts = read_splits(corpus, tag, replay, check_language=check_language, same_text=same_text, conversation=None)
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    settings: dict[str, Any] = {
        "steps": steps,
        "learning_rate": learning_rate,
        "tokens_per_step": tokens_per_step,
        "max_length": max_length,
        "accumulation": accumulation,
        "decay": decay,
        "replay_share": replay_share,
        "evaluate_every": evaluate_every,
        "patience": patience,
        "seed": seed,
    }
    plan = {
        **plan_of_model(language_model, tokenizer),
        "pack": loaded.digest,
        "neurons": None if chosen is None else hash_of(chosen.mask()),
        "text": [texts.train.hash, hash_of(*(document.text for document in texts.valid)), texts.test.hash],
        "settings": {**settings, "language": tag},
    }
    run = hash_json(plan)
    with work_log(checkpoint / "own", run):
        base_bits = bits_per_byte(language_model, tokenizer, texts.test)
    with work_log(checkpoint / "before", run), loaded.applied(language_model):
        before = bits_per_byte(language_model, loaded.tokenizer, texts.test)
    with stop_on_interrupt() as stopped:
        trained = train_vocabulary(
            language_model,
            loaded,
            texts.train[tag],
            language=tag,
            neurons=chosen,
            replay=texts.replay,
            validation=texts.valid,
            checkpoint=checkpoint,
            progress=True,
            stop=stopped,
            **settings,
        )
    facts = trained.pack.parameters["training"]
    refuse_untouched(facts["result"], facts["rate"]["peak"], out, checkpoint, otherwise="give more text")
    with work_log(checkpoint / "after", run), ExitStack() as changes:
        for change in (trained.pack, trained.delta):
            if change is not None:
                changes.enter_context(change.applied(language_model))
        after = bits_per_byte(language_model, loaded.tokenizer, texts.test)
    result = {
        **saying_no_gain(tag, base_bits[tag] - after[tag], "the model's own vocabulary"),
        "language": tag,
        "rows": loaded.n_new,
        "neurons": 0 if chosen is None else len(chosen.indices),
        "learning_rate": facts["rate"]["peak"],
        "gain": base_bits[tag] - after[tag],
        "gain_of_training": before[tag] - after[tag],
        "bits_per_byte": {"own vocabulary": base_bits, "pack before": before, "pack after": after},
    }
    with new_folder(out) as folder:
        trained.pack.save(folder / "pack")
        if trained.delta is not None:
            trained.delta.save(folder / "delta")
        write_text(folder / RESULT, json.dumps({**result, **facts["result"], "text": texts.facts}, indent=1))
    discard(checkpoint)
    return {"out": str(out), **result}
