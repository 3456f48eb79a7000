"""The two answers as HTML: a badge behind each segment, the verdict, and what would be said next."""

from babelscope.figures import language_name
from babelscope.languages import Language
from babelscope.report.markup import Markup, element, join
from babelscope.serving.playground.side_by_side import AnswersSideBySide, ShownAnswer

TOLD = 4
"""Languages or scripts whose share is shown."""
LEAST = 0.0005
"""Probability below which a script is left out: it would be printed as 0.0 %."""

STYLE = """
.beside { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; }
@media (max-width: 760px) { .beside { grid-template-columns: 1fr; } }
.beside article { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 12px 16px; min-width: 0; }
.beside h3 { margin: 0 0 8px; font-size: 1rem; }
.beside .text { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.75; margin: 0 0 12px; }
.beside .badge { font-size: .72rem; font-weight: 600; padding: 1px 6px; margin: 0 3px; border-radius: 99px;
  background: var(--neutral-200); color: var(--neutral-800); white-space: nowrap; }
.beside .badge.wanted { background: #dff1ea; color: #00694c; }
.beside .badge.other { background: #fbe3d5; color: #8a3400; }
.beside dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 12px; font-size: .85rem; margin: 0; }
.beside dt, .how { opacity: .75; }
.beside dd { margin: 0; overflow-wrap: anywhere; }
.beside .token { display: inline-block; white-space: pre; margin-right: 14px; }
.problem { border-left: 3px solid #a13d00; padding: 8px 12px; }
.how { font-size: .85rem; margin: 0 0 10px; }
"""


def answers_markup(answers: AnswersSideBySide) -> Markup:
    """Both answers beside each other, under how they were drawn."""
    decoding = answers.decoding
    sampled = (
        f"sampled at temperature {decoding.temperature:g}" if decoding.temperature else "likeliest token each time"
    )
    target_note = f", wanted: {answers.target.english_name} ({answers.target})" if answers.target else ""
    how = f"At most {decoding.new_tokens} new tokens, {sampled}, seed {decoding.seed}{target_note}"
    columns = [
        element("article", element("h3", title), *_column(answer, answers.target))
        for title, answer in (("Plain", answers.plain), ("Steered", answers.steered))
    ]
    return join([element("p", how, class_="how"), element("div", *columns, class_="beside")])


def problem_markup(message: str) -> Markup:
    """One line that says what is wrong with a question."""
    return element("p", message, class_="problem", role="alert")


def _column(answer: ShownAnswer, target: Language | None) -> list[Markup]:
    text = element("p", *(part for segment in answer.segments for part in _segment(*segment, target)), class_="text")
    letters = ", ".join(f"{tag} {share:.0%}" for tag, share in list(answer.shares.items())[:TOLD] if tag != "None")
    facts = [("Letters", letters or "no known language")]
    if answer.verdict is not None:
        facts.insert(0, ("Verdict", answer.verdict))
    facts.append(("Next token", join((_token(*entry) for entry in answer.next_tokens), " ")))
    scripts = [(script, share) for script, share in list(answer.next_scripts.items())[:TOLD] if share >= LEAST]
    facts.append(("Its script", ", ".join(f"{script} {share:.1%}" for script, share in scripts)))
    return [
        text,
        element("dl", *(part for name, value in facts for part in (element("dt", name), element("dd", value)))),
    ]


def _segment(text: str, language: Language | None, target: Language | None) -> tuple[Markup, ...]:
    """A run of words in an element of its own, so that their direction cannot move the badge, and the badge."""
    words = element("span", text, lang=language, dir="auto")
    if not text.strip():
        return (words,)
    kind = "" if target is None or language is None else " wanted" if language == target else " other"
    name = "no known language" if language is None else language_name(language)
    return words, element("span", language or "?", class_=f"badge{kind}", title=name)


def _token(token: str, probability: float) -> Markup:
    return element("span", element("code", repr(token)), f" {probability:.1%}", class_="token")
