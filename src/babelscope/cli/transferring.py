"""The verb `transfer`."""

import logging
from pathlib import Path
from typing import Annotated, Literal

from babelscope.cli.argument_kinds import SavedAs, alone, checkpoint_of, free
from babelscope.cli.arguments import Device, LanguageTag, Model, Out, Result, Text, TrainedDtype, stop_on_interrupt
from babelscope.cli.finished_calls import kept_result
from babelscope.cli.flag_conditions import UsedWith
from babelscope.cli.quantities import Count, Draws, PeakRate, RowLength, Seed, TokenAmount
from babelscope.cli.telling import Told
from babelscope.errors import MeasurementError

log = logging.getLogger(__name__)

OF_NEURONS = UsedWith("with --method subnetwork or random", lambda call: call["method"] in ("subnetwork", "random"))


@alone
def run_transfer(
    model: Model,
    corpus: Text,
    *,
    out: Out,
    languages: tuple[LanguageTag, ...] = (),
    method: Literal["ffn", "full", "lora", "lora-attention", "shira", "subnetwork", "random"] = "ffn",
    neurons: Annotated[Path | None, SavedAs(("NeuronSet",)), OF_NEURONS] = None,
    steps: Count = 30,
    learning_rate: PeakRate | None = None,
    tokens_per_step: TokenAmount = 2048,
    max_length: RowLength = 256,
    train_documents: Count = 1000,
    seeds: Count = 2,
    draws: Draws = 999,
    resume: bool = False,
    device: Device = "auto",
    dtype: TrainedDtype = "auto",
    seed: Seed = 0,
) -> Result:
    """Train on each language in turn, measure all others, and see whether nearness of languages tells the best source.

    As many trainings as languages times seeds; each begins with the untouched model and leaves it as it was.

    Args:
        corpus: folder with train, valid and test text of four or more languages, hub id, or "reference".
        out: folder for results.jsonl, transfer.json and transfer.html; an interrupted run is kept beside it.
        languages: BCP-47 tags; none means every language of the text.
        method: what is trained: whole MLPs (ffn), everything, an adapter of peft, or the neurons of a set.
        neurons: a NeuronSet with every language, for subnetwork and random.
        steps: of each training.
        learning_rate: peak rate of AdamW; none takes 0.03 of the root mean square of the MLPs' weights, and a tenth of
            that for ffn and full.
        tokens_per_step: of text, in each step.
        max_length: tokens of a row at most.
        train_documents: of each source at most, so that none has more text than another.
        seeds: orders of the text.
        draws: changes of places of the languages, for the null of each table of nearness.
        resume: go on with an interrupted run; done at once if it is complete.
    """
    checkpoint = checkpoint_of(out, resume=resume)
    from babelscope.adaptation.transfer_report import RESULT
    from babelscope.cli.telling_scores import transfer_lines

    finished = (
        kept_result(out, RESULT, checkpoint, lambda kept: Told(kept, transfer_lines(kept, out))) if resume else None
    )
    if finished is not None:
        return finished
    free(out)
    from babelscope.adaptation.adaptation_job import training_dtype
    from babelscope.adaptation.language_nearness import nearness_tables
    from babelscope.adaptation.source_choice import choose_sources
    from babelscope.adaptation.space_changes import space_changes
    from babelscope.adaptation.transfer_report import TransferReport
    from babelscope.adaptation.transfer_runs import transfer_matrix
    from babelscope.artifacts import NeuronSet
    from babelscope.corpus import load_splits
    from babelscope.files.state_folder import hash_json
    from babelscope.files.work_log import work_log
    from babelscope.files.writing import discard
    from babelscope.models import open_model
    from babelscope.models.origin import plan_of_model

    sets = None if neurons is None else NeuronSet.load(neurons)
    texts = load_splits(corpus, languages or None, splits=("train", "valid", "test"))
    language_model, tokenizer = open_model(model, device=device, dtype=training_dtype(dtype, method))
    settings = {
        "method": method,
        "steps": steps,
        "learning_rate": learning_rate,
        "tokens_per_step": tokens_per_step,
        "max_length": max_length,
        "train_documents": train_documents,
        "seeds": list(range(seed, seed + seeds)),
    }
    plan = {
        **plan_of_model(language_model, tokenizer),
        "text": {split: text.hash for split, text in texts.items()},
        "neurons": None if sets is None else sets.as_dict(),
        **settings,
    }
    with work_log(checkpoint, hash_json(plan)), stop_on_interrupt() as stopped:
        matrix = transfer_matrix(
            language_model, tokenizer, texts, neurons=sets, progress=True, stop=stopped, **settings
        )
    tables = nearness_tables(language_model, tokenizer, texts["valid"], seed=seed)
    try:
        choices = choose_sources(matrix, tables, draws=draws, seed=seed)
        changes = space_changes(matrix, tables, draws=draws, seed=seed)
    except MeasurementError as err:
        log.warning("no source is chosen: %s", err)  # what was trained is saved all the same
        choices, changes = [], []
    report = TransferReport(matrix, choices, draws, seed, changes)
    report.save(out)
    discard(checkpoint)
    fields = {"out": str(out), **report.summary()}
    return Told(fields, transfer_lines(fields, out))
