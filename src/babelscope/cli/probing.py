"""The verb `probe`: a table of probes, each from one job to rows of evidence and figures."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from babelscope.cli.arguments import Device, Dtype, Model, Parallel, Result, Seed, Text, alone, free
from babelscope.cli.probe_job import Findings, ProbeJob
from babelscope.cli.probing_lens import probe_lens
from babelscope.cli.probing_units import UNIT_PROBES
from babelscope.controls import write_evidence
from babelscope.corpus import WHOLE, Corpus, load_corpus
from babelscope.errors import LanguageError, PrerequisiteError, ToolkitError
from babelscope.figures import write_figure
from babelscope.figures.probes_geometry import (
    DepthLine,
    ScriptBar,
    depth_lines,
    depth_map,
    embedding_bars,
    similarity_tree,
)
from babelscope.files.writing import new_folder, write_text
from babelscope.models import open_model
from babelscope.probes import alignment, embeddings, language_id, subspaces, trees, word_lists
from babelscope.probes.subspaces import VarianceShare
from babelscope.probes.translators import Translators
from babelscope.probes.trees import TreeTest
from babelscope.runs import environment


def probe_alignment(job: ProbeJob) -> Findings:
    """MEXA, CKA and cosine."""
    found = alignment.language_alignment(job.sentences, against=job.against, seed=job.seed)
    others = [other for _, other in found.pairs]
    figures = {
        measure: depth_map(
            value=found.values(measure).numpy(),
            p=found.values(measure, "p").numpy(),
            languages=others,
            unit=f"{measure.replace('_', ', ')} with {job.against}",
        )
        for measure in alignment.POOLING
    }
    return Findings(list(found.rows()), figures)


def probe_language_id(job: ProbeJob) -> Findings:
    """Linear language identification on means and on last tokens."""
    rows, lines = [], []
    for pooling in ("mean", "last"):
        found = language_id.language_probe(job.sentences, pooling=pooling, seed=job.seed)
        rows += found.rows()
        name = "mean of a sentence's tokens" if pooling == "mean" else "a sentence's last token"
        low, high = ([getattr(one, end) for one in found.interval] for end in ("low", "high"))
        lines.append(DepthLine(name, found.accuracy.tolist(), low, high))
        if pooling == "last":
            lines.append(DepthLine("labels shuffled", found.null.tolist(), control=True))
    return Findings(rows, {"accuracy": depth_lines(panels={"accuracy on other sentences": lines})})


def probe_subspaces(job: ProbeJob) -> Findings:
    """Variance, ranks and the split; where massive units or first tokens are left out, rows with them stand beside."""
    found = subspaces.language_subspaces(job.sentences, seed=job.seed)
    rows = found.rows()
    if "ordinary" in found.forms:
        whole = subspaces.language_subspaces(job.sentences, form="whole", seed=job.seed).rows()
        rows += [replace(row, claim=f"{row.claim}, with first tokens and massive units") for row in whole]

    def shares(name: str, own: tuple[VarianceShare, ...]) -> DepthLine:
        low, high = ([getattr(one.interval, end) for one in own] for end in ("low", "high"))
        return DepthLine(name, [one.estimate for one in own], low, high)

    def split(name: str, field: str, control: bool = False) -> DepthLine:
        return DepthLine(name, [getattr(one, field) for one in found.split], control=control)

    whole, without, random = "whole stream", "without the language subspace", "without a random one"
    panels = {
        "share of variance": [shares("language", found.language), shares("content", found.content)],
        "language identified": [
            split(whole, "accuracy"),
            split(without, "accuracy_without"),
            split(random, "accuracy_random", control=True),
        ],
        "MEXA, all pairs": [
            split(whole, "mexa"),
            split(without, "mexa_without"),
            split(random, "mexa_random", control=True),
        ],
    }
    return Findings([*rows], {"split": depth_lines(panels=panels)})


def probe_trees(job: ProbeJob) -> Findings:
    """Language similarity against families and scripts."""
    found = trees.similarity_tree(job.sentences, seed=job.seed)

    def line(name: str, own: tuple[TreeTest, ...], field: str, control: bool = False) -> DepthLine:
        return DepthLine(name, [getattr(test, field) for test in own], control=control)

    best = max(range(len(found.sites)), key=lambda depth: found.family[depth].correlation)
    groups = [found.lineage[tag].family for tag in found.languages]
    panels = {
        "Spearman's correlation": [
            line("family", found.family, "correlation"),
            line("script", found.script, "correlation"),
            line("family, by script alone", found.family, "null_within_scripts", control=True),
        ],
        "p": [
            line("family", found.family, "p"),
            line("family within scripts", found.family, "p_within_scripts"),
            DepthLine("p = 0.05", [0.05] * len(found.sites), control=True),
        ],
    }
    return Findings(
        list(found.rows()),
        {
            "tests": depth_lines(panels=panels),
            f"tree-{str(found.sites[best])}": similarity_tree(
                linkage=found.linkage(best), languages=found.languages, groups=groups
            ),
        },
    )


def probe_embeddings(job: ProbeJob) -> Findings:
    """Geometry of the vocabulary."""
    found = embeddings.embedding_geometry(job.model, job.tokenizer, tokens=job.tokens, seed=job.seed)
    apart = [
        ScriptBar(f"{one.table}: {one.labels}s ({len(one.classes)})", one.accuracy, *one.interval, one.null)
        for one in found.separability
    ]
    near = [ScriptBar(f"{one.table}: {one.script}", one.share, *one.interval, one.null) for one in found.neighbours]
    return Findings(
        list(found.rows()),
        {
            "separability": embedding_bars(bars=apart, unit="mean recall of a linear probe (%)"),
            "neighbours": embedding_bars(bars=near, unit=f"{found.nearest} nearest entries of the same script (%)"),
        },
    )


PROBES: dict[str, Callable[[ProbeJob], Findings]] = {
    "lens": probe_lens,
    "embeddings": probe_embeddings,
    "alignment": probe_alignment,
    "language-id": probe_language_id,
    "trees": probe_trees,
    "subspaces": probe_subspaces,
    **UNIT_PROBES,
}
"""A probe is a line here."""


@alone
def run_probe(
    model: Model,
    corpus: Text,
    *,
    probe: str,
    out: Path,
    languages: tuple[str, ...] = (),
    split: str = "test",
    other_split: str = "train",
    parallel: Parallel = False,
    against: str = "en",
    sentences: int = 200,
    words: str = "",
    translators: str = "",
    checkpoints: tuple[str, ...] = (),
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> Result:
    """Probe a model's languages: rows of evidence and figures in a folder for each probe.

    Args:
        corpus: folder of <tag>.txt or <tag>.jsonl, hub id, or "reference"; parallel text for alignment, language-id,
            trees, subspaces and tokenizer, which rows with equal ids are, and lines with --parallel.
        probe: lens, embeddings, alignment, language-id, trees, subspaces, heads, routing, roles, checkpoints,
            tokenizer, or all; with all, a probe that this model or text does not allow is left out, and the reason is
            in the result.
        out: folder for <probe>/results.jsonl and <probe>/<figure>.html.
        languages: BCP-47 tags; none means every file of the corpus folder.
        split: the text that is measured; a corpus without splits is dealt out by document, and "all" is the whole.
        other_split: other text, for word lists; where it is the same split, its first half is used for that.
        against: the language that others are compared with.
        sentences: of each language at most.
        words: table of words in parallel for lens and embeddings (a line of tags, then a line a concept, tabs between),
            or "reference"; the lens then also asks for each word by translation prompts.
        translators: folder of a saved tuned lens, for lens.
        checkpoints: folders of a training run's checkpoints in order, for checkpoints.
    """
    if probe != "all" and probe not in PROBES:
        raise PrerequisiteError(f"--probe {probe!r} came; expected one of {', '.join(PROBES)} or all; correct it")
    check_used(probe, words=words, translators=translators, checkpoints=" ".join(checkpoints))
    free(out)
    table = word_lists.read_words(words) if words else None
    texts, others = two_texts(corpus, languages, split, other_split, parallel)
    tuned = Translators.load(translators) if translators else None
    opened, tokenizer = open_model(model, device=device, dtype=dtype)
    job = ProbeJob(
        opened,
        tokenizer,
        texts,
        others,
        against,
        sentences,
        seed,
        words=table,
        translators=tuned,
        checkpoints=checkpoints,
        settings={"device": device, "dtype": dtype},
    )
    rows, seconds, spent, left_out = {}, {}, {}, {}
    for name in PROBES if probe == "all" else [probe]:
        started, busy = time.perf_counter(), time.process_time()
        try:
            found = PROBES[name](job)
        except ToolkitError as err:
            if probe != "all":
                raise
            left_out[name] = str(err)
            continue
        with new_folder(out / name) as folder:
            write_findings(found, folder)
        rows[name], seconds[name] = len(found.rows), round(time.perf_counter() - started, 1)
        spent[name] = round(time.process_time() - busy, 1)
    result = {"out": str(out), "rows": rows, "seconds": seconds, "left_out": left_out}
    facts = {
        "model": model,
        "corpus": texts.name,
        "text": {"measured": texts.facts(), "other": others.facts()},
        "threads": torch.get_num_threads(),
        "processor_seconds": spent,
        "environment": environment(),
    }
    write_text(out / "summary.json", json.dumps({**facts, **result}, indent=1, ensure_ascii=False) + "\n")
    return result


USERS = {"words": ("lens", "embeddings"), "translators": ("lens",), "checkpoints": ("checkpoints",)}
"""Which probes a flag is for."""


def check_used(probe: str, **flags: str) -> None:
    """Raise PrerequisiteError for a flag that the probe asked for makes no use of."""
    for name, value in flags.items():
        if value and probe not in (*USERS[name], "all"):
            raise PrerequisiteError(
                f"--{name} {value} came with --probe {probe}; expected {' or '.join(USERS[name])}, or all; leave it out"
            )


def two_texts(
    corpus: str, languages: tuple[str, ...], split: str, other_split: str, parallel: bool = False
) -> tuple[Corpus, Corpus]:
    """What is measured, and other text; one text, and all of a text whatever else is asked for, is halved."""
    pair = (WHOLE, WHOLE) if WHOLE in (split, other_split) else (split, other_split)
    texts, others = (load_corpus(corpus, languages or None, split=one, parallel=parallel) for one in pair)
    if len(texts) < 2:
        raise LanguageError(f"{', '.join(texts)} came alone; expected at least two languages; add text")
    if texts.hash != others.hash:
        return texts, others
    halves = {tag: len(documents) // 2 for tag, documents in texts.items()}
    first = texts.derived({tag: found[: halves[tag]] for tag, found in texts.items()}, f"{texts.name}, first half")
    second = texts.derived({tag: found[halves[tag] :] for tag, found in texts.items()}, f"{texts.name}, second half")
    return second, first


def write_findings(found: Findings, folder: Path) -> None:
    """Rows and figures; the figures share one copy of plotly.js."""
    write_evidence(found.rows, folder / "results.jsonl")
    for name, figure in found.figures.items():
        write_figure(figure, folder / f"{name}.html")
