"""Probes of sentences and of the vocabulary as rows and figures."""

from dataclasses import replace
from itertools import combinations
from typing import get_args

from babelscope.figures.probes_geometry import (
    DepthLine,
    ScriptBar,
    depth_lines,
    depth_map,
    embedding_bars,
    similarity_dendrogram,
)
from babelscope.probes.geometry import (
    alignment,
    embeddings,
    language_distances,
    language_id,
    pooled_alignment,
    similarity_table,
    subspace_probe,
    trees,
)
from babelscope.probes.geometry.sentences import Pooling
from babelscope.probes.geometry.subspace_probe import VarianceShare
from babelscope.probes.geometry.trees import TreeTest
from babelscope.probes.lens.word_lists import read_words
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.probes.probe_job import Findings, ProbeJob


def probe_alignment(job: ProbeJob) -> Findings:
    """MEXA, CKA, cosine and other indices by depth, and MEXA pooled over depths beside task scores."""
    result = alignment.language_alignment(job.sentences, against=job.against, seed=job.seed)
    columns = [column for _, column in result.pairs]
    figures = {
        measure: depth_map(
            value=result.values(measure).numpy(),
            p=result.values(measure, "p").numpy(),
            languages=columns,
            unit=f"{measure.replace('_', ', ')} with {job.against}",
        )
        for measure in alignment.POOLING
    }
    indices = similarity_table.similarity_indices(job.sentences, against=job.against, seed=job.seed)
    figures |= {
        index: depth_map(
            value=indices.values(index).clamp(min=0).numpy(),
            p=indices.values(index, "p").numpy(),
            languages=columns,
            unit=f"{index.replace('_', ', ')} with {job.against}",
        )
        for index in get_args(similarity_table.SimilarityIndex)
    }
    rows = [*result.rows(), *indices.rows()]
    for over in get_args(pooled_alignment.DepthPooling):
        pooled = pooled_alignment.mexa_scores(
            job.sentences, against=job.against, over=over, task_scores=job.task_scores, seed=job.seed
        )
        rows += pooled.rows()
        bars = [
            ScriptBar(score.language, score.estimate, *score.interval, score.null)
            for score in sorted(pooled.scores, key=lambda score: -score.estimate)
        ]
        figures[f"mexa-{over}"] = embedding_bars(bars=bars, unit=f"MEXA with {job.against}, {over} over depths (%)")
    return Findings([*rows], figures)


def probe_language_id(job: ProbeJob) -> Findings:
    """Linear language identification on means, and on single tokens: the last, and one within the sentence.

    Means of whole sentences are told apart at every depth; one token alone shows the course over depths.
    """
    rows, lines, null = [], [], list[float]()
    names: dict[Pooling, str] = {
        "mean": "mean of a sentence's tokens",
        "last": "a sentence's last token",
        "middle": "the token in a sentence's middle",
    }
    for pooling, name in names.items():
        result = language_id.language_probe(job.sentences, pooling=pooling, seed=job.seed)
        rows += result.rows()
        low, high = ([getattr(interval, end) for interval in result.interval] for end in ("low", "high"))
        lines.append(DepthLine(name, result.accuracy.tolist(), low, high))
        null = result.null.tolist()
    lines.append(DepthLine("labels shuffled", null, control=True))
    return Findings(rows, {"accuracy": depth_lines(panels={"accuracy on other sentences": lines})})


def probe_subspaces(job: ProbeJob) -> Findings:
    """Variance, ranks and the split; where massive units or first tokens are left out, rows with them stand beside."""
    result = subspace_probe.language_subspaces(job.sentences, seed=job.seed)
    rows = result.rows()
    if "ordinary" in result.forms:
        whole_rows = subspace_probe.language_subspaces(job.sentences, form="whole", seed=job.seed).rows()
        rows += [replace(row, claim=f"{row.claim}, with first tokens and massive units") for row in whole_rows]

    def shares(name: str, by_depth: tuple[VarianceShare, ...]) -> DepthLine:
        low, high = ([getattr(share.interval, end) for share in by_depth] for end in ("low", "high"))
        return DepthLine(name, [share.estimate for share in by_depth], low, high)

    def split(name: str, field: str, control: bool = False) -> DepthLine:
        return DepthLine(name, [getattr(effect, field) for effect in result.split], control=control)

    stream, without, random = "whole stream", "without the language subspace", "without a random one"
    panels = {
        "share of variance": [shares("language", result.language), shares("content", result.content)],
        "language identified": [
            split(stream, "accuracy"),
            split(without, "accuracy_without"),
            split(random, "accuracy_random", control=True),
        ],
        "MEXA, all pairs": [
            split(stream, "mexa"),
            split(without, "mexa_without"),
            split(random, "mexa_random", control=True),
        ],
    }
    return Findings([*rows], {"split": depth_lines(panels=panels)})


def probe_trees(job: ProbeJob) -> Findings:
    """Language similarity against families, scripts and distances, and the matrix itself."""
    result = trees.similarity_tree(job.sentences, seed=job.seed)

    def line(name: str, tests: tuple[TreeTest, ...], field: str, control: bool = False) -> DepthLine:
        return DepthLine(name, [getattr(test, field) for test in tests], control=control)

    best = max(range(len(result.sites)), key=lambda depth: result.family[depth].correlation)
    groups = [result.lineage[tag].family for tag in result.languages]
    panels = {
        "Spearman's correlation": [
            line("family", result.family, "correlation"),
            line("script", result.script, "correlation"),
            line("family, by script alone", result.family, "null_within_scripts", control=True),
        ],
        "p": [
            line("family", result.family, "p"),
            line("family within scripts", result.family, "p_within_scripts"),
            DepthLine("p = 0.05", [0.05] * len(result.sites), control=True),
        ],
    }
    pairs = [
        SiteEvidence(
            claim="similarity of languages",
            language=second,
            against=first,
            control="none",
            n=result.sentences,
            estimate=float(result.similarity[depth, i, j]),
            site=str(site),
        )
        for depth, site in enumerate(result.sites)
        for (i, first), (j, second) in combinations(enumerate(result.languages), 2)
    ]
    distances = language_distances.distance_rows(result, job.words or read_words("reference"), seed=job.seed)
    return Findings(
        [*result.rows(), *distances, *pairs],
        {
            "tests": depth_lines(panels=panels),
            f"tree-{str(result.sites[best])}": similarity_dendrogram(
                linkage=result.linkage(best), languages=result.languages, groups=groups
            ),
        },
    )


def probe_embeddings(job: ProbeJob) -> Findings:
    """Geometry of the vocabulary."""
    result = embeddings.embedding_geometry(job.model, job.tokenizer, tokens=job.tokens, seed=job.seed, progress=True)
    separability_bars = [
        ScriptBar(
            f"{separability.table}: {separability.labels}s ({len(separability.classes)})",
            separability.accuracy,
            *separability.interval,
            separability.null,
        )
        for separability in result.separability
    ]
    neighbour_bars = [
        ScriptBar(f"{neighbours.table}: {neighbours.script}", neighbours.share, *neighbours.interval, neighbours.null)
        for neighbours in result.neighbours
    ]
    pair_bars = [
        ScriptBar(f"{pair.table}: {script}", mean, mean, mean, pair.null)
        for pair in result.pairs
        for script, mean in zip(pair.scripts, pair.by_script, strict=True)
    ]
    return Findings(
        list(result.rows()),
        {
            "pairs": embedding_bars(bars=pair_bars, unit="accuracy of a line to each other script, mean (%)"),
            "separability": embedding_bars(bars=separability_bars, unit="mean recall of a linear probe (%)"),
            "neighbours": embedding_bars(
                bars=neighbour_bars, unit=f"{result.nearest} nearest entries of the same script (%)"
            ),
        },
    )
