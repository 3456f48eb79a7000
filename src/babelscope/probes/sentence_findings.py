"""Probes of sentences and of the vocabulary as rows and figures."""

from dataclasses import replace

from babelscope.figures.probes_geometry import (
    DepthLine,
    ScriptBar,
    depth_lines,
    depth_map,
    embedding_bars,
    similarity_tree,
)
from babelscope.probes import alignment, embeddings, language_id, subspace_probe, trees
from babelscope.probes.probe_job import Findings, ProbeJob
from babelscope.probes.subspace_probe import VarianceShare
from babelscope.probes.trees import TreeTest


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
    found = subspace_probe.language_subspaces(job.sentences, seed=job.seed)
    rows = found.rows()
    if "ordinary" in found.forms:
        whole = subspace_probe.language_subspaces(job.sentences, form="whole", seed=job.seed).rows()
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
