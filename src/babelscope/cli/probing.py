"""The verb `probe`: the table of `babelscope.probes` on one model and corpus."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from babelscope.cli.argument_kinds import ByFunction, SavedAs, alone
from babelscope.cli.arguments import Device, Dtype, LanguageTag, Model, Out, Parallel, Result, Split, Text
from babelscope.cli.flag_conditions import UsedWith
from babelscope.cli.quantities import Count, Seed
from babelscope.errors import CorpusError, ToolkitError, UsageError
from babelscope.models.model_names import check_model_name
from babelscope.probes.catalogue import PROBES, readers_of

if TYPE_CHECKING:
    Probe = str
else:
    Probe = Literal[(*PROBES, "all")]
SUMMARY, RESULT = "summary.json", ("rows", "seconds", "left_out")
OTHERS = UsedWith(
    "without --words by lens and embeddings",
    lambda call: not (call["words"] and call["probe"] in ("lens", "embeddings")),
)


def read_by(part: str) -> UsedWith:
    """Used where a probe is asked for that reads this input."""
    readers = readers_of(part)
    return UsedWith(f"with --probe {', '.join(readers)} or all", lambda call: call["probe"] in (*readers, "all"))


def check_words_name(name: str) -> None:
    """Raise CorpusError unless a table of words or sentences is there."""
    if name != "reference" and not os.path.isfile(name):
        raise CorpusError(f"{name}: no such file; expected a table of words, or reference; correct the path")


@alone
def run_probe(
    model: Model,
    corpus: Text,
    *,
    probe: Probe,
    out: Out,
    languages: tuple[LanguageTag, ...] = (),
    split: Annotated[Split, read_by("texts")] = "test",
    other_split: Annotated[Split, read_by("others"), OTHERS] = "train",
    parallel: Parallel = False,
    against: Annotated[LanguageTag, read_by("against")] = "en",
    sentences: Annotated[Count, read_by("sentences")] = 200,
    words: Annotated[str, ByFunction(check_words_name), read_by("words")] = "",
    cloze: Annotated[str, ByFunction(check_words_name), read_by("cloze")] = "",
    translators: Annotated[Path | None, SavedAs(("Translators",)), read_by("translators")] = None,
    checkpoints: Annotated[tuple[str, ...], ByFunction(check_model_name), read_by("checkpoints")] = (),
    task_scores: Annotated[Path | None, read_by("task_scores")] = None,
    concept: Annotated[Literal["questions", "digits"], read_by("concept")] = "questions",
    resume: bool = False,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> Result:
    """Probe a model's languages: rows of evidence and figures in a folder for each probe.

    Args:
        corpus: folder of <tag>.txt or .jsonl, file of rows with language and text, hub id, or "reference";
            parallel text for alignment, language-id, trees, subspaces and tokenizer, which rows with equal ids are,
            and lines with --parallel.
        probe: which of them, or all; with all, a probe that this model or text does not allow is left out, and the
            reason is in the result.
        out: folder for <probe>/results.jsonl and <probe>/<figure>.html.
        languages: BCP-47 tags; none means every file of the corpus folder.
        split: the text that is measured; a corpus without splits is dealt out by document, and "all" is the whole.
        other_split: other text, for word lists; where it is the same split, its first half is used for that.
        against: the language that others are compared with.
        sentences: of each language at most.
        words: table of words in parallel for lens and embeddings (a line of tags, then a line a concept, tabs between),
            or "reference"; the lens then also asks for each word by translation prompts.
        cloze: table of sentences with a gap for lens, or "reference"; each gap is asked for, in each language of the
            text but --against.
        translators: folder of a saved tuned lens, for lens.
        checkpoints: folders of a training run's checkpoints in order, for checkpoints, and if given for concepts.
        task_scores: table of a task's scores for alignment (a tag, a tab and a number in each line, the language
            compared with among them): what MEXA predicts of them, and how well over languages.
        concept: whose keys and values are sought by values, and whose detectors by concepts: questions (text that ends
            in a question mark), or text with digits; values chooses in the language of --against on the other split and
            measures in all languages.
        resume: go on with an interrupted run of the same command; done at once if it is complete.
    """
    if probe == "checkpoints" and len(checkpoints) < 2:
        raise UsageError(
            f"{len(checkpoints)} checkpoints came; expected at least two folders, in order; give --checkpoints"
        )
    import torch

    from babelscope.artifacts.storage import TENSORS
    from babelscope.files.tensor_files import hash_file
    from babelscope.files.writing import write_text
    from babelscope.models import open_model
    from babelscope.models.origin import plan_of_model
    from babelscope.probes import ProbeJob, Translators, read_task_scores, read_words, run_probes
    from babelscope.probes.lens.cloze import read_cloze
    from babelscope.probes.probe_runs import check_probe_texts, measured_and_other
    from babelscope.reference import CLOZE, WORDS
    from babelscope.runs import environment
    from babelscope.study.stage_store import StageStore, check_free, read_kept

    check_free(out, resume=resume)
    store = StageStore(out)
    table = read_words(words) if words else None
    scores = read_task_scores(task_scores) if task_scores else None
    texts, other_texts = measured_and_other(corpus, languages, split, other_split, parallel)
    if probe != "all":
        check_probe_texts(probe, texts, against)
    tuned = Translators.load(translators) if translators else None
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    words_hash = hash_file(WORDS if words == "reference" else Path(words)) if words else ""
    read = {"words": words_hash, "translators": hash_file(translators / TENSORS) if translators else ""}
    if cloze:
        read["cloze"] = hash_file(CLOZE if cloze == "reference" else Path(cloze))
    read["task_scores"] = hash_file(task_scores) if task_scores else ""
    amounts = {"against": against, "sentences": sentences, "checkpoints": checkpoints, "concept": concept}
    amounts["seed"] = seed
    text = {"text": [texts.hash, other_texts.hash], "languages": list(texts)}
    store.check_plan({"probe": probe, **plan_of_model(language_model, tokenizer), **text, **amounts, **read})
    if (out / SUMMARY).is_file():
        summary = read_kept(out / SUMMARY, RESULT, "remove it, and --resume measures what is not there")
        store.tidy()
        return {"out": str(out), **{key: summary[key] for key in RESULT}, "resumed": "complete"}
    job = ProbeJob(
        language_model,
        tokenizer,
        texts,
        other_texts,
        against,
        sentences,
        seed,
        words=table,
        cloze=read_cloze(cloze) if cloze else None,
        translators=tuned,
        checkpoints=checkpoints,
        task_scores=scores,
        concept=concept,
        settings={"device": device, "dtype": dtype},
        log=store.log,
    )
    all_probes = probe == "all"
    try:
        run = run_probes(PROBES if all_probes else [probe], job, out, leave_out=all_probes, stage=store.stage)
    except ToolkitError:
        store.abandon()
        raise
    result = {"out": str(out), "rows": run.rows, "seconds": run.seconds, "left_out": run.left_out}
    facts = {
        "model": model,
        "corpus": texts.name,
        "text": {"measured": texts.facts(), "other": other_texts.facts()},
        "threads": torch.get_num_threads(),
        "processor_seconds": run.processor_seconds,
        "environment": environment(),
    }
    write_text(out / SUMMARY, json.dumps({**facts, **result}, indent=1, ensure_ascii=False) + "\n")
    store.tidy()
    return result
