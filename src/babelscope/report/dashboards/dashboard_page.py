"""A page about single units of a language, from the same pieces as the report's."""

from pathlib import Path

import numpy as np

from babelscope.errors import ArtifactError
from babelscope.figures import language_name, unit_rate_map
from babelscope.files.writing import write_text
from babelscope.report.dashboards.unit_dashboard import UnitDashboard, UnitDescription, in_percent
from babelscope.report.markup import Caption, Markup, Plot, Section, element, figure_block, join, table
from babelscope.report.page import assemble
from babelscope.report.wording import counted, percent, plain


def write_dashboard(dashboard: UnitDashboard, path: str | Path) -> Path:
    """Write one HTML page about the units of a language; it opens offline. Returns its path.

    A page that is there is replaced, whole or not at all. Raises ArtifactError for a path that is a folder,
    PrerequisiteError if the page cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise ArtifactError(f"{path}: is a folder; expected the name of a file to write; name one in it")
    name = language_name(dashboard.language)
    sections = [
        _overview(dashboard),
        Section("units", "One by one", element("div", *map(_card, dashboard.units), class_="cards")),
    ]
    intro = element("p", f"{len(dashboard.units)} of {dashboard.total}, selected by {dashboard.method}", class_="sub")
    title = f"{name} {dashboard.kind}s of {dashboard.model}"
    return write_text(path, assemble(title=title, intro=intro, groups=[("units", "", sections)], says=title))


def _overview(dashboard: UnitDashboard) -> Section:
    """Rates by language, and a row per unit."""
    name = language_name(dashboard.language)
    effects = ["Off alone", "Control"] if dashboard.has_effects else []
    head = ("Unit", *(["Active"] if dashboard.tokens else []), *effects, "Writes")
    rows = [
        (
            element("a", unit.unit, href=f"#{_anchor(unit)}"),
            *([percent(unit.rates[dashboard.language], 1)] if dashboard.tokens else []),
            *([in_percent(unit.harm), in_percent(unit.control_harm)] if effects else []),
            " ".join(map(repr, unit.writes)),
        )
        for unit in dashboard.units
    ]  # fmt: skip
    overview = table(head, rows)
    if not dashboard.tokens:
        return Section("overview", f"The {dashboard.kind}s", overview)
    languages = list(dashboard.tokens)
    rates = np.array([[unit.rates[tag] for tag in languages] for unit in dashboard.units])
    records = [{"unit": unit.unit, **unit.rates, "harm": unit.harm, "control_harm": unit.control_harm}
               for unit in dashboard.units]  # fmt: skip
    figure = unit_rate_map(rates=rates, units=[unit.unit for unit in dashboard.units], languages=languages)
    caption = Caption(
        shows=f"How often each {dashboard.kind} of {name} is active, by language of the text.",
        read=f"A row is a {dashboard.kind}, a column a language; dark is often (light on a dark page)."
        + (
            f" Off alone, in the table: rise of the negative log-likelihood of {name} text with this one unit off, in "
            "% of what it was; beside it the same for a unit of the same place that belongs to no language."
            if effects
            else ""
        ),
        n=f"{counted(list(dashboard.tokens.values()))} tokens per language",
        control="a unit of no language, switched off alone" if effects else "none: these are rates",
        seed=str(dashboard.seed),
        unit="% of tokens",
    )
    plot = Plot(figure, f"Rates of {len(dashboard.units)} {dashboard.kind}s by language", records)
    return Section("overview", f"The {dashboard.kind}s", join([figure_block("rates", [plot], caption), overview]))


def _card(unit: UnitDescription) -> Markup:
    harm = f"Off alone {in_percent(unit.harm)}; {unit.control} {in_percent(unit.control_harm)}." if unit.control else ""
    writes = element("p", "Writes ", *(element("code", repr(token), " ") for token in unit.writes))
    places = [
        element(
            "p",
            element("small", f"{context.language} {plain(context.value)}  "),
            element(
                "span", context.before, element("mark", context.token), context.after, lang=context.language, dir="auto"
            ),
            class_="said",
        )
        for context in unit.contexts
    ]
    return element("article", element("h3", unit.unit), element("p", harm) if harm else "", writes, *places,
                   class_="card", id=_anchor(unit))  # fmt: skip


def _anchor(unit: UnitDescription) -> str:
    return f"unit-{unit.layer}-{unit.index}"
