"""The verb `influence`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from babelscope.cli.argument_kinds import alone, free
from babelscope.cli.arguments import Device, Dtype, File, LanguageTag, Model, Out, Result, Split, Text
from babelscope.cli.quantities import Count, Draws, Layer, Length, Resamples, RowLength, Seed
from babelscope.cli.telling import Told


@alone
def run_influence(
    model: Model,
    corpus: Text,
    *,
    queries: File,
    out: Out,
    languages: tuple[LanguageTag, ...] = (),
    split: Split = "train",
    passages: Count = 20,
    layers: tuple[Layer, ...] = (),
    max_length: RowLength = 128,
    damping: Length = 0.1,
    top: Count = 10,
    draws: Draws = 999,
    resamples: Resamples = 1000,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
) -> Result:
    """Which passages of training text, in which language, make the model say each completion: influence by EK-FAC.

    Beside it each passage has its influence on the query with the order of its words flipped, the inner product of
    gradients, TF-IDF, BM25, the cosine of mean states, and its length. An influence has a part for each layer, and for
    each token of the most influential passages.

    Args:
        corpus: folder with training text by language, hub id, or "reference".
        queries: JSON lines with language, completion, and where wanted prompt and id.
        out: folder for results.jsonl, scores.jsonl, top.jsonl, layers.jsonl, influence.html and layers.html.
        languages: BCP-47 tags of the passages; none means every language of the text.
        split: of the corpus.
        passages: of each language, the first ones.
        layers: whose MLPs take part; none means all.
        max_length: tokens of a passage or query at most.
        damping: of the curvature, in mean eigenvalues.
        top: most influential passages of each query whose languages are counted.
        draws: permutations of the passages' languages.
        resamples: of queries, for intervals.
    """
    free(out)
    from babelscope.corpus import load_corpus
    from babelscope.models import open_model
    from babelscope.probes.influence import InfluenceReport, check_top, influence_of_text, read_queries

    asked = read_queries(queries)
    texts = load_corpus(corpus, languages or None, split=split).head(passages)
    check_top(top, sum(map(len, texts.values())))
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    influence = influence_of_text(
        language_model,
        tokenizer,
        asked,
        texts,
        layers=layers,
        max_length=max_length,
        damping=damping,
        with_tokens=top,
        progress=True,
        seed=seed,
    )
    report = InfluenceReport(influence, top, draws, resamples, seed)
    report.save(out)
    summary = report.summary()
    return Told({"out": str(out), **summary}, influence_lines(summary, top, out))


def influence_lines(summary: Mapping[str, Any], top: int, out: Path) -> Sequence[str]:
    """Shares of languages for each language of the queries, and the most influential passage of each query."""
    from babelscope.cli.telling_counts import aligned, share_text
    from babelscope.report.wording import p_value

    table = [["asked in", "passages in", f"of the {top} most influential", "languages permuted", "p"]]
    for row in summary["shares"]:
        shares = (share_text(row[name], 0) for name in ("share", "base"))
        table.append([row["query"], row["passage"], *shares, p_value(row["p"])])
    lines = [
        f"completions: {summary['queries']}; passages: {summary['passages']}, of {summary['predicted_tokens']:,} "
        f"predicted tokens; every score is in {out / 'scores.jsonl'}",
        *aligned(table),
        "p: of each line alone; results.jsonl has q beside it, corrected for all lines, and the other rankings",
    ]
    for row in summary["parallel"]:
        hits, chance = share_text(row["hits"], 0), share_text(row["base"], 0)
        where = f"asked in {row['query']}, passages in {row['passage']}"
        lines.append(f"{where}: {hits} of the parallel passages come first in their language ({chance} by chance)")
    depths = ", ".join(f"passages in {side} {depth:.2f}" for side, depth in summary["layers"].items())
    lines.append(f"mean layer of their influence: {depths}; layers.html has every layer, results.jsonl the test")
    for row in summary["top"]:
        query, passage = (" ".join(row[name]) for name in ("query", "passage"))
        tokens = ", ".join(f"{text!r} {share_text(share, 0)}" for text, share in row["tokens"])
        lines.append(f"most influential for {query}: {passage}, {row['text']}")
        lines.append(f"  where it teaches that, in % of the tokens that do: {tokens or 'none'}")
    return lines
