"""Figures of what is known in which language, and of effects of primes."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from babelscope.axes import Float
from babelscope.figures.colour_scales import SEQUENTIAL
from babelscope.figures.figure_caption import FigureCaption
from babelscope.figures.heat_map_parts import cell_texts, heat_map, outlined_diagonal, titled_axes
from babelscope.figures.style import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    arms,
    between,
    fixed,
    language_label,
    language_name,
    new_figure,
    row_axis,
    rows_height,
)

SHARED_FACTS_CAPTION = FigureCaption(
    "Facts that languages share",
    "Of the facts that are right in either of two languages, the share that is right in both. On the diagonal, "
    "outlined, the share of facts that are right in that language.",
)
SAME_ANSWERS_CAPTION = FigureCaption(
    "The same answer in two languages",
    "Share of questions that get the same answer in two languages, right or wrong. On the diagonal, outlined, the "
    "share of right answers in that language.",
)
PRIMING_CAPTION = FigureCaption(
    "Structural priming",
    "How much likelier a structure is after a sentence of the same structure than after one of the other, in points "
    "of per cent, with intervals over items; a row per direction, the prime's language first. Controls have their own "
    "marks.",
)


def shared_facts_map(
    *,
    jaccard: Float[np.ndarray, "language language"],
    precision: Float[np.ndarray, " language"],
    languages: Sequence[str],
) -> go.Figure:
    """Jaccard index of the facts that are right in two languages; on the diagonal, outlined, each language's P@1.

    A cell is empty where neither language has a fact right.
    """
    return titled_axes(pairs_map(jaccard, precision, languages, "Jaccard index", "P@1"), x="right in", y="right in")


def same_answers_map(
    *,
    agreement: Float[np.ndarray, "language language"],
    accuracy: Float[np.ndarray, " language"],
    languages: Sequence[str],
) -> go.Figure:
    """Share of questions with the same answer in two languages; on the diagonal, outlined, each one's right answers."""
    figure = pairs_map(agreement, accuracy, languages, "same answer", "right answers")
    return titled_axes(figure, x="asked in", y="asked in")


def pairs_map(
    pairs: Float[np.ndarray, "language language"],
    single: Float[np.ndarray, " language"],
    languages: Sequence[str],
    of_pairs: str,
    of_one: str,
) -> go.Figure:
    """Shares of pairs of languages, and of each language on the diagonal; what they are of stands at the colour bar."""
    values = np.where(np.eye(len(languages), dtype=bool), single[:, None], pairs)
    labels = [language_label(tag) for tag in languages]
    figure = heat_map(
        values,
        rows=labels,
        columns=labels,
        text=[[fixed(value, 2) if np.isfinite(value) else "–" for value in row] for row in values],
        says=[
            [
                f"{language_name(row_tag)}: {of_one} {values[row, column]:.3f}"
                if row == column
                else f"{language_name(row_tag)}, {language_name(column_tag)}: {of_pairs} {values[row, column]:.3f}"
                for column, column_tag in enumerate(languages)
            ]
            for row, row_tag in enumerate(languages)
        ],
    )
    bar = {"title": {"text": f"{of_pairs}, {of_one}"}}
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 1, "colorbar": bar})
    return outlined_diagonal(figure, len(labels))


def edit_map(
    *, shares: Float[np.ndarray, "method language"], methods: Sequence[str], languages: Sequence[str], what: str
) -> go.Figure:
    """Shares by method of editing, each with its control below it, and language of the question.

    what: what the shares are of, for the colour bar.
    """
    figure = heat_map(
        shares,
        rows=[*methods],
        columns=[language_label(tag) for tag in languages],
        text=[[fixed(value, 2) if np.isfinite(value) else "–" for value in row] for row in shares],
        says=cell_texts(
            [*methods],
            [language_name(tag) for tag in languages],
            shares,
            lambda method, language, value: f"{method}, asked in {language}: {what} {value:.3f}",
        ),
    )
    bar = {"title": {"text": what}}
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 1, "colorbar": bar})
    return titled_axes(figure, x="asked in", y="")


def priming_forest(
    *, effects: Mapping[str, Mapping[str, tuple[float, float, float]]], directions: Sequence[str]
) -> go.Figure:
    """Effects of primes on P_N of the primed structure, in points of per cent, a row per direction.

    effects: by condition and direction: the effect and the ends of its interval, as shares. The first condition is the
    structure's own; the others are its controls.
    """
    figure = new_figure(height=rows_height(len(directions), row=40, around=130))
    marks = [("circle", BLUE), ("x", ORANGE), ("diamond", PURPLE), ("square", GREEN)]
    for place, (condition, by_direction) in enumerate(effects.items()):
        symbol, colour = marks[place % len(marks)]
        rows = [row for row, name in enumerate(directions) if name in by_direction]
        values = 100 * np.array([by_direction[directions[row]] for row in rows], dtype=np.float64).reshape(-1, 3)
        figure.add_scatter(
            x=values[:, 0],
            y=[row + 0.18 * (place - (len(effects) - 1) / 2) for row in rows],
            error_x=arms(values[:, 0], values[:, 1], values[:, 2]),
            mode="markers",
            name=condition,
            marker={"symbol": symbol, "color": colour, "size": 8},
            hovertext=[
                f"{directions[row]}, {condition}: {value:.1f}{between(low, high, 1)}"
                for row, (value, low, high) in zip(rows, values.tolist(), strict=True)
            ],
            hoverinfo="text",
        )
    figure.add_vline(x=0, line={"width": 1})
    figure.update_layout(
        yaxis=row_axis([*directions]), xaxis={"title": {"text": "change of P_N of the primed structure (points of %)"}}
    )
    return figure
