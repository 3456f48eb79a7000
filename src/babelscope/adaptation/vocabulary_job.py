"""New rows of a vocabulary, from the pack as it was made to the folder of the trained one."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from babelscope.adaptation.adaptation_job import SplitTexts
from babelscope.adaptation.adaptation_result import Stopping, never_stopped, refuse_untouched, saying_no_gain
from babelscope.adaptation.result_file import RESULT
from babelscope.adaptation.vocabulary_training import train_vocabulary
from babelscope.artifacts import NeuronSet
from babelscope.evaluation import bits_per_byte
from babelscope.files.state_folder import hash_json
from babelscope.files.work_log import hash_of, work_log
from babelscope.files.writing import check_new, discard, new_folder, write_text
from babelscope.languages import Language
from babelscope.models.origin import plan_of_model
from babelscope.models.plain import CausalModel
from babelscope.vocabulary import VocabularyPack


def run_vocabulary_training(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    pack: VocabularyPack,
    texts: SplitTexts,
    out: Path,
    checkpoint: Path,
    *,
    language: Language,
    neurons: NeuronSet | None,
    stopping: Stopping = never_stopped,
    progress: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """Train a pack's rows, with a language's neurons where a set is given, and write both into the new folder `out`.

    What is returned, and lies in its result.json, says bits per byte of test text by the model's own vocabulary, by the
    pack before training and after it. settings: of `train_vocabulary`. What an interrupted run with the same ones left
    in `checkpoint` is taken from there.
    Raises ArtifactError where `out` is there, before anything is measured; MeasurementError where no step was better on
    valid text than the rows as they were, and nothing is saved then.
    """
    check_new(out)
    plan = {
        **plan_of_model(model, tokenizer),
        "pack": pack.digest,
        "neurons": None if neurons is None else hash_of(neurons.mask()),
        "text": [texts.train.hash, hash_of(*(document.text for document in texts.valid)), texts.test.hash],
        "settings": {**settings, "language": language},
    }
    run = hash_json(plan)
    with work_log(checkpoint / "own", run):
        own = bits_per_byte(model, tokenizer, texts.test)
    with work_log(checkpoint / "before", run), pack.applied(model):
        before = bits_per_byte(model, pack.tokenizer, texts.test)
    with stopping() as stopped:
        trained = train_vocabulary(
            model,
            pack,
            texts.train[language],
            language=language,
            neurons=neurons,
            replay=texts.replay,
            validation=texts.valid,
            checkpoint=checkpoint,
            progress=progress,
            stop=stopped,
            **settings,
        )
    facts = trained.pack.parameters["training"]
    refuse_untouched(facts["result"], facts["rate"]["peak"], out, checkpoint, otherwise="give more text")
    with work_log(checkpoint / "after", run), ExitStack() as changes:
        for change in (trained.pack, trained.delta):
            if change is not None:
                changes.enter_context(change.applied(model))
        after = bits_per_byte(model, pack.tokenizer, texts.test)
    result = {
        **saying_no_gain(language, own[language] - after[language], "the model's own vocabulary"),
        "language": language,
        "rows": pack.n_new,
        "neurons": 0 if neurons is None else len(neurons.indices),
        "learning_rate": facts["rate"]["peak"],
        "gain": own[language] - after[language],
        "gain_of_training": before[language] - after[language],
        "bits_per_byte": {"own vocabulary": own, "pack before": before, "pack after": after},
    }
    with new_folder(out) as folder:
        trained.pack.save(folder / "pack")
        if trained.delta is not None:
            trained.delta.save(folder / "delta")
        write_text(folder / RESULT, json.dumps({**result, **facts["result"], "text": texts.facts}, indent=1))
    discard(checkpoint)
    return {"out": str(out), **result}
