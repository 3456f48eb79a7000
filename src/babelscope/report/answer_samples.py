"""Section with generated text: prompt, answer, and the language detected on each line."""

from collections.abc import Sequence

from babelscope.figures import language_name
from babelscope.report.markup import Markup, Section, details, element, escape, join, missing
from babelscope.report.results import Results, SteeringSample
from babelscope.report.wording import plain

SHOWN = 4
"""Samples a target on the page; more are counted."""
OPEN = 3
"""Targets that are unfolded from the start."""


def samples_section(results: Results) -> Section:
    """Part 8: samples by target."""
    title = "What the answers look like"
    rows = results.steered.samples
    if not rows:
        return Section("samples", title, missing("Sample answers"))
    targets = list(dict.fromkeys(row.target for row in rows))
    intro = element(
        "p",
        "Answers as the model gave them, chosen by the run and not by quality. The badge behind a line is the "
        "language that the detector read in it: filled where it is the target, outlined where it is another, “?” "
        "where it saw none. The model is small: look at the language, not at the sense.",
    )
    groups = [
        _target(tag, [row for row in rows if row.target == tag], unfold=at < OPEN) for at, tag in enumerate(targets)
    ]
    return Section("samples", title, join([intro, *groups]))


def _target(tag: str, rows: Sequence[SteeringSample], *, unfold: bool) -> Markup:
    judged = [row.recognised for row in rows if row.recognised is not None]
    said = f", {sum(judged)} of {plain(len(judged), 0)} recognised" if judged else ""
    more = f", first {SHOWN} of {len(rows)}" if len(rows) > SHOWN else ""
    cards = element("div", *map(sample_card, rows[:SHOWN]), class_="cards")
    folded = details(f"To {language_name(tag)} ({tag}){said}{more}", cards)
    return Markup(folded.replace("<details>", "<details open>", 1)) if unfold else folded


def sample_card(row: SteeringSample) -> Markup:
    """One prompt with its answer, the answer without steering where the run has it, and the judge's verdict."""
    kind = {True: "hit", False: "miss", None: "open"}[row.recognised]
    verdict = {"hit": "recognised as the target", "miss": "not recognised as the target", "open": ""}[kind]
    if row.verdict not in (None, "right"):
        verdict = f"{row.verdict}: {row.reason}" if row.reason else str(row.verdict)
    source = element("span", f"Prompt, {language_name(row.source)}", class_="who")
    prompt = element("p", row.prompt, lang=row.source, dir="auto", class_="said")
    before = []
    if row.unsteered:
        plain_answer = element("p", row.unsteered, lang="", dir="auto", class_="said before")
        before = [element("span", "Without steering", class_="who"), plain_answer]
    named = f"Steered to {language_name(row.target)}" if before else "Answer"
    answer = element("span", named, element("small", f" {verdict}") if verdict else "", class_="who")
    if row.lines:
        said = [_line(words, detected, row.target) for words, detected in row.lines]
    elif row.answer.strip():
        said = [element("p", row.answer, lang=row.target, dir="auto", class_="said")]
    else:
        said = [element("p", "(empty answer)", class_="note")]
    return element("article", source, prompt, *before, answer, *said, class_=f"card {kind}")


def _line(words: str, detected: str | None, target: str) -> Markup:
    """One line; the words stand in an element of their own, so that their direction cannot move the badge."""
    kind = "unknown" if detected is None else "target" if detected == target else "other"
    name = "no language detected" if detected is None else f"detected: {language_name(detected)}"
    badge = element("span", detected or "?", class_=f"badge {kind}", title=name)
    # An empty lang means "unknown": better than a wrong one, which would choose wrong letter shapes.
    spoken = element("span", words, lang=detected or "", dir="auto")
    return Markup(f'<p class="said line">{spoken} {escape(badge)}</p>')
