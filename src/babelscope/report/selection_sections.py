"""Sections about the sets themselves: where they lie, what they share, how stable they are, how much is script."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from babelscope.axes import Float
from babelscope.figures import (
    CorpusSizePoint,
    Real,
    Retention,
    corpus_size_lines,
    neuron_map,
    overlap_map,
    script_retention,
    script_share_bars,
    set_sizes,
    stability_ranges,
)
from babelscope.report.claim_form import to_array
from babelscope.report.markup import (
    Caption,
    Markup,
    Plot,
    Section,
    details,
    element,
    figure_block,
    join,
    language_cell,
    matrix_records,
    missing,
    table,
)
from babelscope.report.recorded_facts import parameter_said, seed_of, tokens_said
from babelscope.report.results import Results
from babelscope.report.results.selection_record import NotApplicable, ScriptRetention
from babelscope.report.wording import known, percent, plain, span


def matrix_table(
    values: Float[np.ndarray, "row column"], rows: Sequence[str], columns: Sequence[str], say: Callable[[Real], str]
) -> Markup:
    """A heat map as a table: a row per language, its columns by tag or number."""
    lines = [(language_cell(tag), *map(say, row)) for tag, row in zip(rows, values.tolist(), strict=True)]
    return table(("", *columns), lines, kind="matrix")


def neuron_section(results: Results, run: str) -> Section:
    """Figure 1: layer × language counts and set sizes."""
    sizes = np.array([results.neurons[tag] for tag in results.languages], dtype=np.float64)
    intervals = results.measured(results.set_size_interval)
    ends = to_array([intervals.get(tag, (math.nan, math.nan)) for tag in results.languages])
    measured = bool(np.isfinite(ends).any())
    size_records = [
        {"language": tag, "neurons": size, "low": low, "high": high}
        for tag, size, (low, high) in zip(results.languages, sizes.tolist(), ends.tolist(), strict=True)
    ]
    plots = [Plot(set_sizes(sizes=sizes, intervals=ends, languages=results.languages), "Set sizes", size_records)]
    numbers = [
        table(
            ("Language", "Neurons", "Interval"),
            [
                (language_cell(tag), plain(size, 0), span(low, high, 0) or "not measured")
                for tag, size, (low, high) in zip(results.languages, sizes.tolist(), ends.tolist(), strict=True)
            ],
        )
    ]
    before = []
    if results.layers is None:
        before = [missing("Neurons by layer")]
    else:
        counts = to_array(results.layers.counts)
        layers = [str(layer) for layer in range(counts.shape[1])]
        records = matrix_records(counts, results.languages, range(len(layers)), ("language", "layer", "neurons"))
        figure = neuron_map(counts=counts, languages=results.languages)
        plots.insert(0, Plot(figure, "Neurons by layer", records))
        numbers.append(matrix_table(counts, results.languages, layers, lambda x: plain(x, 0)))
    if not measured:
        before.append(missing("Bootstrap intervals of the set sizes"))
    caption = Caption(
        shows="Neurons selected for each language, by layer and in all.",
        read="By layer: a row is a language, a column a layer, a dot no neuron. Set sizes: the whole set, with its "
        "95 % bootstrap interval where measured, which says how far its size would move with other text of the same "
        "kind. A neuron may belong to several languages.",
        n=tokens_said(results)
        + (f"; {parameter_said(results, 'set_size_resamples', 'resamples of shards')}" if measured else ""),
        control="none: these are counts; the controls are in the sections below",
        seed=seed_of(results, "bootstrap") if measured else "nothing random",
        unit="neurons",
    )
    return Section(
        "neurons",
        "Where the selective neurons are",
        join([*before, figure_block(f"{run}-neurons", plots, caption, *numbers)]),
    )


def overlap_section(results: Results, run: str) -> Section:
    """Figure 2: neurons that languages share, against chance."""
    title, overlap = "What the languages share", results.controlled.overlap
    if overlap is None or overlap.lift_by_margins is None or overlap.p_by_margins is None:
        return Section("overlap", title, missing("Overlap between languages"))
    shared, lift, p = map(to_array, (overlap.shared, overlap.lift_by_margins, overlap.p_by_margins))
    figure = overlap_map(shared=shared, lift=lift, p=p, languages=results.languages)
    caption = Caption(
        shows="Neurons that two languages have in common, against chance.",
        read="The number is the count of shared neurons, in brackets where chance gives as many (p > 0.05). Orange: "
        "more than chance; blue: fewer; the colours are logarithmic. The diagonal is the size of the set.",
        n=f"{tokens_said(results)}; {len(results.languages) * (len(results.languages) - 1) // 2} pairs",
        control=f"{plain(overlap.draws, 0)} tables in which every neuron has as many languages as it has, and every "
        "language as many neurons in each layer; p is corrected over all pairs",
        seed=seed_of(results, "overlap"),
        unit="neurons (number), lift = shared ÷ expected (colour)",
    )
    numbers = [
        element("p", "Lift"), matrix_table(lift, results.languages, results.languages, lambda x: plain(x, 2)),
        element("p", "p, corrected"), matrix_table(p, results.languages, results.languages, lambda x: plain(x, 3)),
    ]  # fmt: skip
    records = [
        {"language": row_tag, "other": column_tag, "shared": shared[i, j], "lift": lift[i, j], "p": p[i, j]}
        for i, row_tag in enumerate(results.languages)
        for j, column_tag in enumerate(results.languages)
    ]
    plots = [Plot(figure, "Neurons shared by two languages, coloured by lift against chance", records)]
    return Section("overlap", title, figure_block(f"{run}-overlap", plots, caption, *numbers))


def stability_section(results: Results, run: str) -> Section:
    """Figure 3: agreement of sets from different text, and how much text they need."""
    rows = results.measured(results.stability)
    values = to_array([rows.get(tag, (math.nan,) * 5) for tag in results.languages])
    figure = stability_ranges(
        median=values[:, 0], low=values[:, 1], high=values[:, 2], chance=values[:, 3], languages=results.languages
    )
    records = [
        {"language": tag, "jaccard": row[0], "low": row[1], "high": row[2], "chance": row[3], "neurons": row[4]}
        for tag, row in zip(results.languages, values.tolist(), strict=True)
    ]
    plots, after = [Plot(figure, "Two halves of the text", records)], []
    points = [
        CorpusSizePoint(row.share, row.language, row.jaccard, _nan(row.chance))
        for row in results.controlled.corpus_size or ()
    ]
    if points:
        plots.append(Plot(corpus_size_lines(points=points), "Less text", [point._asdict() for point in points]))
    else:
        after.append(missing("Agreement by size of the corpus"))
    caption = Caption(
        shows="How far the sets depend on the text they were found in.",
        read="Two halves: the Jaccard index of the sets found in two random halves of the text, median and the range "
        "of 95 % of the splits (a range, no confidence interval); the upright stroke is what sets of this size share "
        "by chance. Less text: agreement with the full set when only a share of the text is used. A language with no "
        "row has no set to compare.",
        n=f"{tokens_said(results)}; {parameter_said(results, 'half_splits', 'half-splits')}",
        control="random sets of the same size in the same layers",
        seed=seed_of(results, "stability"),
        unit="Jaccard index, 0 to 1",
    )
    rows = [
        (language_cell(tag), *(plain(x, 3) for x in row[:4]), plain(row[4], 0))
        for tag, row in zip(results.languages, values.tolist(), strict=True)
    ]
    numbers = table(("Language", "Median", "Low", "High", "Chance", "Set size"), rows)
    after += [_parallel(results), _shuffled(results)]
    body = join([figure_block(f"{run}-stability", plots, caption, numbers), *after])
    return Section("stability", "Whether the sets are stable", body)


def script_section(results: Results, run: str) -> Section:
    """Figure 7: how much of a set's response goes with the script."""
    title = "Language or script"
    script_by_tag = results.measured(results.controlled.script)
    if not script_by_tag:
        return Section("script", title, missing("Script control"))
    retained = {tag: row for tag, row in script_by_tag.items() if isinstance(row, ScriptRetention)}
    measured = {
        tag: Retention(
            native=_nan(row.native),
            romanised=_nan(row.romanised),
            shuffled_words=_nan(row.shuffled_words),
            english=_nan(row.english),
            layer_matched=_nan(row.layer_matched),
            share=_nan(row.share),
            low=_nan(row.low),
            high=_nan(row.high),
        )
        for tag, row in retained.items()
    }
    rows = [(tag, measured.get(tag)) for tag in sorted(script_by_tag, key=lambda tag: tag not in measured)]
    shares = [{"language": tag, "share": r.share, "low": r.low, "high": r.high} for tag, r in measured.items()]
    plots = [Plot(script_share_bars(rows=rows), "Share of the response that is script", shares)]
    if measured:
        active = [{"language": tag, **r._asdict()} for tag, r in measured.items()]
        plots.insert(0, Plot(script_retention(rows=list(measured.items())), "Neurons still active", active))
    caption = Caption(
        shows="What is left of a set's response when the same text is written in Latin letters.",
        read="Still active: neurons of the set that stay above their threshold. Script's share: (native − romanised) "
        "÷ (native − English), 0 % if the set does not mind the script, 100 % if the script is all it sees. "
        "Languages written in Latin letters have nothing to romanise: not applicable, which is not 0.",
        n="held-out sentences of each language, the same in every version",
        control="native text (ceiling), words shuffled, English text (floor), random neurons of the same layers",
        seed=seed_of(results, "script"),
        unit="% of the set's neurons; the share in %, with 95 % intervals over sentences",
    )
    head = (
        "Language",
        "Native",
        "Words shuffled",
        "Romanised",
        "English",
        "Layer-matched",
        "Script's share",
        "Interval",
        "Romanised, bits per byte",
    )
    numbers = table(
        head,
        [
            (
                language_cell(tag),
                *(
                    percent(x, 1)
                    for x in (r.native, r.shuffled_words, r.romanised, r.english, r.layer_matched, r.share)
                ),
                span(r.low, r.high, 0, factor=100) or "–",
                plain(retained[tag].romanised_bits_per_byte),
            )
            for tag, r in measured.items()
        ],
    )
    reasons = [
        (language_cell(tag), row.not_applicable) for tag, row in script_by_tag.items() if isinstance(row, NotApplicable)
    ]
    left_out = details("Not applicable, and why", table(("Language", "Reason"), reasons)) if reasons else Markup("")
    return Section("script", title, join([figure_block(f"{run}-script", plots, caption, numbers), left_out]))


def _parallel(results: Results) -> Markup:
    agreement_by_tag = results.measured(results.controlled.parallel)
    if not agreement_by_tag:
        return missing("Agreement with sets from parallel text")
    rows = [
        (language_cell(tag), plain(row.jaccard, 3), plain(row.chance, 3), plain(row.lift, 1))
        for tag, row in agreement_by_tag.items()
    ]
    jaccard = [row.jaccard for row in agreement_by_tag.values() if known(row.jaccard)]
    chance = [row.chance for row in agreement_by_tag.values() if row.chance is not None and known(row.chance)]
    said = f" Median over languages: {plain(_median(jaccard))}, by chance {plain(_median(chance))}."
    what = (
        "Sets found in line-parallel text, where the content is the same in all languages, against the sets above. "
        f"Agreement far above chance says that the sets do not follow the topics of the corpus.{said}"
    )
    by_language = table(("Language", "Jaccard index", "By chance", "Lift (× chance)"), rows)
    title = element("h3", "The same content in every language")
    return join([title, element("p", what), details("Agreement by language", by_language)])


def _shuffled(results: Results) -> Markup:
    labels = results.controlled.shuffled_labels
    shuffled_by_tag = {} if labels is None else results.measured(labels.by_language)
    if labels is None or not shuffled_by_tag:
        return missing("Shuffled labels")
    fdr_by_tag, of_all = (labels.set_fdr, None) if isinstance(labels.set_fdr, Mapping) else ({}, labels.set_fdr)
    rows = [
        (language_cell(tag), percent(row.share_q05, 1), plain(row.n, 0), percent(fdr_by_tag.get(tag), 2))
        for tag, row in shuffled_by_tag.items()
    ]
    counted_draws = labels.draws is not None and known(labels.draws)
    often = f"{plain(labels.draws, 0)} times" if counted_draws else "a number of times that was not recorded"
    said = (
        "" if of_all is None or not known(of_all) else f" False discovery rate of the whole set: {percent(of_all, 2)}."
    )
    what = (
        f"Labels of whole shards were shuffled, {often}.{said} Nearly every neuron passes this test: it guards "
        "against rare neurons and too little text, and is no evidence of specificity."
    )
    by_language = table(("Language", "q ≤ 0.05", "Neurons tested", "False discovery rate"), rows)
    title = element("h3", "Shuffled labels")
    return join([title, element("p", what), details("Share of each set with q ≤ 0.05", by_language)])


def _nan(value: Real | None) -> float:
    return math.nan if value is None else float(value)


def _median(values: Sequence[Real]) -> float:
    return float(np.median(values)) if values else math.nan
