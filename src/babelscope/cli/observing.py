"""The verbs `observe` and `merge`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import ByFunction, SavedAs, WordOfForm, checkpoint_of, free
from babelscope.cli.arguments import (
    Device,
    Dtype,
    LanguageTag,
    Model,
    Out,
    Result,
    SiteName,
    Split,
    Talk,
    Text,
    counted_of,
    stop_on_interrupt,
)
from babelscope.cli.flag_conditions import UsedWith
from babelscope.cli.launched_ranks import awaiting_all, device_of_rank, launched_rank
from babelscope.cli.quantities import RowLength, Shards, TokensOrAll
from babelscope.cli.telling import Told
from babelscope.errors import ArtifactError, UsageError
from babelscope.sites import USUAL_SITES

COUNTS = UsedWith("without --dry-run, which runs nothing", lambda call: not call["dry_run"])


def part_of_shards(word: str) -> tuple[int, int]:
    """The two numbers of i/n; raises UsageError unless 0 <= i < n."""
    match = re.fullmatch("([0-9]{1,6})/([0-9]{1,6})", word)
    part, parts = map(int, match.groups()) if match else (0, 0)
    if part >= parts:
        raise UsageError(f"{word!r} came; expected i/n with i below n, such as 0/4; correct it")
    return part, parts


def run_observe(
    model: Model,
    corpus: Text,
    *,
    out: Out,
    languages: tuple[LanguageTag, ...] = (),
    split: Split = "train",
    conversation: Talk = "none",
    sites: tuple[SiteName, ...] = USUAL_SITES,
    tokens_per_language: TokensOrAll = 100_000,
    shards: Shards = 32,
    shard: Annotated[str, ByFunction(part_of_shards), COUNTS] = "0/1",
    batch_size: Annotated[
        str, WordOfForm("auto|0*[1-9][0-9]{0,6}", "auto or a number of documents from 1 to 9999999"), COUNTS
    ] = "auto",
    max_length: Annotated[RowLength | None, COUNTS] = None,
    resume: Annotated[bool, COUNTS] = False,
    dry_run: bool = False,
    check_language: bool = True,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> Result:
    """One pass of labelled text through a model, into an Observation.

    Started by torchrun or accelerate launch, the processes read the batches in turn, each on its own GPU where there
    are some, and the first adds up what they counted.

    Args:
        corpus: folder of <tag>.txt or .jsonl, file of rows with language and text, hub id, or "reference".
        out: folder of the Observation; an interrupted pass is kept beside it.
        languages: BCP-47 tags; none means every file of the corpus folder.
        split: train, valid or test: the files or the sub-folder of that name; a corpus without splits is dealt out by
            document (7:1:2), and "all" is the whole of it, of which nothing is then held out.
        sites: names for all layers, or one such as 5.resid_out: mlp_gate for identify, mlp_inner for ablate, resid_out
            for direct.
        tokens_per_language: at most; 0 means all text.
        shards: parts by document that are kept apart, for intervals and half-splits; identify wants 20 or more.
        shard: i/n reads only documents whose shard mod n is i; merge the n parts after.
        batch_size: documents per batch, or auto (by padded tokens); a batch that does not fit in memory is halved.
        max_length: tokens per document at most, BOS included; none means 512, or as many as the model has positions.
        resume: go on with an interrupted pass; done at once if it is complete.
        dry_run: print tokens and bytes, run nothing.
        check_language: refuse text that is mostly another language than its label says.
    """
    part, rank = part_of_shards(shard), launched_rank()
    if rank.world > 1 and part != (0, 1):
        raise UsageError(
            f"--shard {shard} came to rank {rank.number} of {rank.world}, which reads a part of its own; leave it out"
        )
    if part[1] > shards:
        raise UsageError(f"--shard {shard} came with --shards {shards}; expected at most as many parts; correct one")
    checkpoint = checkpoint_of(out, resume=resume)
    complete = resume and (out / "config.json").is_file()
    if not complete:
        free(out)
    from babelscope.artifacts import Observation
    from babelscope.cli.telling_counts import plan_lines
    from babelscope.corpus import check_conversations, load_corpus
    from babelscope.evaluation import check_labels
    from babelscope.files.state_folder import saved_facts
    from babelscope.files.writing import discard
    from babelscope.models import open_model
    from babelscope.recording import observe, plan_observation

    if complete:
        discard(checkpoint)
        return {"out": str(out), "tokens": Observation.load(out).tokens, "resumed_tokens": "complete"}
    texts = load_corpus(corpus, languages or None, split=split, conversation=counted_of(conversation))
    if check_language:
        check_labels(texts)
    language_model, tokenizer = open_model(model, device=device_of_rank(rank, device), dtype=dtype)
    if conversation != "none":
        check_conversations(tokenizer, texts)
    limit = tokens_per_language or None
    if dry_run:
        plan = plan_observation(
            language_model,
            texts,
            sites=sites,
            tokens_per_language=limit,
            shards=shards,
            max_length=max_length,
            tokenizer=tokenizer,
        )
        megabytes = round(plan.result_bytes / 1e6, 1)
        fields = {"tokens": plan.tokens, "megabytes": megabytes, "sites": list(plan.sites)}
        return Told(fields, plan_lines(plan, limit))
    free(out)  # once more: another run may have ended while the model was opened

    def read(target: Path, checkpoint: Path) -> tuple[Observation, int]:
        """The observation of this process's part, saved, and how many tokens an interrupted pass had read of it."""
        resumed = saved_facts(checkpoint).get("tokens", 0)
        with stop_on_interrupt() as stopped:
            observation = observe(
                language_model,
                tokenizer,
                texts,
                sites=sites,
                tokens_per_language=limit,
                shards=shards,
                part=part,
                turns=(rank.number, rank.world),
                batch_size=batch_size if batch_size == "auto" else int(batch_size),
                max_length=max_length,
                checkpoint=checkpoint,
                progress=rank.number == 0,
                stop=stopped,
            )
        try:
            observation.save(target)
        finally:
            # Also where another run ended while this one began: its result is whole, and the state is nobody's.
            if (target / "config.json").is_file():
                discard(checkpoint)
        return observation, resumed

    if rank.world == 1:
        from babelscope.cli.telling_counts import few_document_lines, tokens_text

        observation, resumed = read(out, checkpoint)
        fields = {"out": str(out), "tokens": observation.tokens, "resumed_tokens": resumed}
        before = f"; {resumed:,} of them by the run that was interrupted" if resumed else ""
        line = f"tokens counted: {tokens_text(observation.tokens)}{before}; saved in {out}"
        return Told(fields, [line, *(few_document_lines(observation, shards) if part == (0, 1) else ())])
    targets = [out.with_name(f"{out.name}.part{number}of{rank.world}") for number in range(rank.world)]
    target = targets[rank.number]
    checkpoint = checkpoint_of(target, resume=resume)
    with awaiting_all(rank) as wait:
        if not (resume and (target / "config.json").is_file()):
            read(free(target), checkpoint)
        wait()
        if rank.number:
            return {}
    return add_parts(targets, out)


def add_parts(targets: Sequence[Path], out: Path) -> Result:
    """Add what the ranks read, in their order, and remove it when the sum is saved."""
    from babelscope.artifacts import Observation
    from babelscope.files.writing import discard

    total, *further = (Observation.load(path) for path in targets)
    for other in further:
        total = total + other
    total.save(out)
    for path in targets:
        discard(path)
    return {"out": str(out), "tokens": total.tokens, "parts": list(total.parts)}


def run_merge(
    observations: Annotated[Positional[tuple[Path, ...]], SavedAs(("Observation",)), arg(metavar="OBSERVATION …")],
    *,
    out: Out,
) -> Result:
    """Add observations; each part may come once.

    Args:
        observations: folders of Observations of one model and the same sites.
        out: folder of the sum.
    """
    free(out)
    if not observations:
        raise ArtifactError("no observation came; expected at least one folder; name them")
    from babelscope.artifacts import Observation

    total, *further = (Observation.load(path) for path in observations)
    for other in further:
        total = total + other
    total.save(out)
    return {"out": str(out), "tokens": total.tokens, "parts": list(total.parts)}
