"""Adaptation by method: what the target gains against what the others lose, how it was learned, where weights moved."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from babelscope.figures.figure_caption import FigureCaption
from babelscope.figures.style import (
    BLUE,
    CYCLE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    SYMBOLS,
    VERMILLION,
    Real,
    language_label,
    language_name,
    new_figure,
    row_axis,
    rows_height,
    signed,
)

FORGETTING_CAPTION = FigureCaption(
    "What other languages lost on the way",
    "Rise of the bits per byte of each language's held-out text by tokens of training text: above zero is worse. "
    "Dotted, the bound that was asked for.",
)
MARKS = {
    "language": (VERMILLION, "diamond", "the language's neurons"),
    "replay": (VERMILLION, "triangle-down-open", "the same, a quarter replayed"),
    "random": (BLUE, "circle", "random neurons, layer-matched"),
    "top-rate": (SKY, "triangle-down", "most active neurons"),
    "full": (PURPLE, "square", "all parameters"),
    "ffn": (PURPLE, "pentagon", "all MLPs"),
    "lora": (GREEN, "triangle-up", "LoRA on MLPs"),
    "lora-attention": (GREEN, "x-open", "LoRA on attention"),
    "shira": (ORANGE, "cross", "SHiRA"),
    "lt-sft": (ORANGE, "x", "LT-SFT"),
    "ssu": (SKY, "star", "all but what source text uses (SSU)"),
    "sparse-forward": (BLUE, "pentagon-open", "the neurons, all others at 0"),
}
MARKS |= {
    f"{kind}+replay": (MARKS[kind][0], f"{MARKS[kind][1]}-open", f"{MARKS[kind][2]}, others replayed")
    for kind in ("language", "random", "full", "lora", "shira", "ssu")
}
"""Colour, symbol and name by kind, told apart without colour too; with replayed text the mark is open."""


class AdaptationRow(NamedTuple):
    """One run."""

    kind: str
    """Key of MARKS."""
    language: str
    seed: int
    share: Real
    """Trained, of all parameters."""
    gain: Real
    """Held-out bits per byte that the target lost."""
    harm: Real
    """Mean rise of the others' bits per byte."""
    curve: Sequence[tuple[int, Real]]
    """(tokens, bits per byte of the dev text)."""
    moved: Mapping[str, Sequence[Real]] | None
    """Length of the weights' change by role and layer."""
    similarity: Sequence[Real]
    """Mean cosine of the target's sentence means before and after, by layer."""


def adaptation_figure(*, rows: Sequence[AdaptationRow]) -> go.Figure:
    """A column per language: gain against harm by run, learning curve, change of weights and sentences by layer.

    Marks of neurons grow with the trained share. The lines are means over seeds at each kind's middle share.
    """
    languages = list(dict.fromkeys(row.language for row in rows))
    figure = go.Figure(
        make_subplots(
            rows=4,
            cols=len(languages),
            column_titles=[language_label(tag) for tag in languages],
            vertical_spacing=0.075,
            horizontal_spacing=0.09,
            row_heights=[0.37, 0.23, 0.2, 0.2],
        )
    )
    figure.update_layout(new_figure(height=1080).layout)
    largest = max(
        (row.share for row in rows if row.kind.removesuffix("+replay") in ("language", "random")), default=1.0
    )
    for kind, (colour, symbol, name) in MARKS.items():
        for col, tag in enumerate(languages, start=1):
            rows_of_kind = [row for row in rows if (row.kind, row.language) == (kind, tag)]
            if rows_of_kind:
                _frontier(figure, rows_of_kind, colour, symbol, name, kind, col, largest)
                _lines(figure, rows_of_kind, colour, kind, col)
    for col in range(1, len(languages) + 1):
        figure.update_xaxes(title={"text": "harm (bits per byte)"}, row=1, col=col)
        figure.update_xaxes(title={"text": "thousand tokens"}, row=2, col=col)
        for row in (3, 4):
            figure.update_xaxes(title={"text": "layer"}, dtick=1, row=row, col=col)
    titles = ("gain", "dev bits per byte", "length of the change", "cosine to before")
    for row, title in enumerate(titles, start=1):
        figure.update_yaxes(title={"text": title}, row=row, col=1)
    figure.update_layout(legend={"y": 1.04, "itemsizing": "constant"}, margin={"t": 90})
    return figure


def of_neurons(kind: str) -> bool:
    """Whether a share of the neurons was trained, by which marks grow."""
    return kind.removesuffix("+replay") in ("language", "random")


def _frontier(
    figure: go.Figure,
    rows: Sequence[AdaptationRow],
    colour: str,
    symbol: str,
    name: str,
    kind: str,
    col: int,
    largest: Real,
) -> None:
    """A mark a run."""
    sizes = [7 + 9 * (row.share / largest) ** 0.5 if of_neurons(kind) else 10 for row in rows]
    figure.add_scatter(
        x=[row.harm for row in rows],
        y=[row.gain for row in rows],
        mode="markers",
        name=name,
        legendgroup=kind,
        showlegend=col == 1,
        marker={"color": colour, "symbol": symbol, "size": sizes, "opacity": 0.85},
        text=[f"{name}, {100 * row.share:.2g} % trained, seed {row.seed}" for row in rows],
        hovertemplate="%{text}<br>gain %{y:.3f}, harm %{x:.3f}<extra></extra>",
        row=1,
        col=col,
    )


def _lines(figure: go.Figure, rows: Sequence[AdaptationRow], colour: str, kind: str, col: int) -> None:
    """Means over seeds at the middle share."""
    shares = sorted({row.share for row in rows})
    middle = [row for row in rows if row.share == shares[len(shares) // 2]]
    dash = "dot" if "open" in MARKS[kind][1] else "solid"
    line = {"color": colour, "dash": dash, "width": 1.8}
    steps = [tokens / 1000 for tokens, _ in middle[0].curve]
    curve = np.mean([[score for _, score in row.curve] for row in middle], axis=0)
    lines: list[tuple[int, Sequence[Real], np.ndarray]] = [(2, steps, curve)]
    if kind in ("language", "random", "full", "lora"):
        layers = list(range(len(middle[0].similarity)))
        lines.append((4, layers, np.mean([row.similarity for row in middle], axis=0)))
        lengths = [np.sqrt(sum(np.square(part) for part in row.moved.values())) for row in middle if row.moved]
        if lengths:
            lines.append((3, layers, np.mean(lengths, axis=0)))
    for place, x, y in lines:
        figure.add_scatter(
            x=x, y=y, mode="lines+markers", line=line, marker={"size": 4}, legendgroup=kind, showlegend=False,
            hovertemplate="%{y:.3f}<extra>" + MARKS[kind][2] + "</extra>", row=place, col=col,
        )  # fmt: skip


def forgetting_lines(*, course: Sequence[tuple[int, Mapping[str, Real]]], bound: Real) -> go.Figure:
    """What each language lost over a training, in bits per byte, by tokens of training text; the bound is dotted.

    course: (tokens fed, rise of bits per byte by language); below 0 is better than before.
    """
    figure = new_figure(height=420)
    tokens = [fed for fed, _ in course]
    for at, tag in enumerate(course[0][1] if course else ()):
        colour, symbol = CYCLE[at % len(CYCLE)], SYMBOLS[at % len(SYMBOLS)]
        figure.add_scatter(
            x=tokens,
            y=[rises[tag] for _, rises in course],
            mode="lines+markers",
            name=language_label(tag),
            line={"color": colour, "width": 2},
            marker={"color": colour, "symbol": symbol, "size": 8},
            hovertemplate=f"{language_label(tag)}, %{{x:,}} tokens: %{{y:.3f}}<extra></extra>",
        )
    figure.add_hline(y=bound, line={"dash": "dot", "width": 1.5})
    figure.update_xaxes(title={"text": "tokens of training text"})
    figure.update_yaxes(title={"text": "rise of bits per byte"})
    return figure


def change_bars(*, change: Mapping[str, Real], trained: str) -> go.Figure:
    """What training changed, a bar per test language: to the left its text became likelier. change: bits per byte."""
    tags = sorted(change, key=lambda tag: (tag != trained, change[tag]))
    figure = new_figure(height=rows_height(len(tags), row=30, around=130))
    figure.add_bar(
        x=[change[tag] for tag in tags],
        y=list(range(len(tags))),
        orientation="h",
        marker={"color": BLUE, "opacity": 0.75},
        hovertext=[f"{language_name(tag)}: {signed(change[tag], 4)} bits per byte" for tag in tags],
        hoverinfo="text",
    )
    figure.update_layout(
        yaxis=row_axis([language_label(tag) for tag in tags]),
        xaxis={"title": {"text": "change in bits per byte of held-out text"}, "zeroline": True},
        bargap=0.35,
    )
    return figure
