"""The verb `vocabulary train`: the new rows of a pack, alone or in one sparse step with a language's neurons."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import SavedAs, alone, checkpoint_of, free
from babelscope.cli.arguments import Device, Dtype, LanguageTag, Model, Out, Result, SameText, Text, stop_on_interrupt
from babelscope.cli.finished_calls import kept_result
from babelscope.cli.flag_conditions import UsedWith
from babelscope.cli.quantities import Count, Decay, PartialShare, PeakRate, RowLength, Seed, TokenAmount


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
    from babelscope.adaptation.adaptation_job import read_splits
    from babelscope.adaptation.vocabulary_job import run_vocabulary_training
    from babelscope.artifacts import NeuronSet
    from babelscope.cli.adapt_checks import check_rows
    from babelscope.languages import Language
    from babelscope.models import open_model
    from babelscope.vocabulary import VocabularyPack

    check_rows(tokens_per_step, max_length, accumulation)
    tag, loaded = Language.parse(language), VocabularyPack.load(pack)
    chosen = None if neurons is None else NeuronSet.load(neurons)[tag]
    texts = read_splits(corpus, tag, replay, check_language=check_language, same_text=same_text, conversation=None)
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    return run_vocabulary_training(
        language_model,
        tokenizer,
        loaded,
        texts,
        out,
        checkpoint,
        language=tag,
        neurons=chosen,
        stopping=stop_on_interrupt,
        steps=steps,
        learning_rate=learning_rate,
        tokens_per_step=tokens_per_step,
        max_length=max_length,
        accumulation=accumulation,
        decay=decay,
        replay_share=replay_share,
        evaluate_every=evaluate_every,
        patience=patience,
        seed=seed,
    )
