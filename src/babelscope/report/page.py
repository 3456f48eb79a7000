"""One HTML page from sections: contents, groups, and the words that are explained."""

from collections.abc import Sequence

from babelscope.figures.html_page import html_page
from babelscope.report.glossary import explained, glossary
from babelscope.report.markup import Markup, Section, element


def assemble(*, title: str, intro: Markup, groups: Sequence[tuple[str, str, Sequence[Section]]], says: str) -> str:
    """The whole page. A group is (anchor, heading, sections); a heading that is empty is left out.

    says: what the page says in one sentence, for those who list or preview it.
    """
    words: set[str] = set()
    body = [
        element("header", element("p", "babelscope", class_="brand"), element("h1", title), intro),
        _contents(groups),
    ]
    for anchor, heading, sections in groups:
        inner = [
            element("section", element("h2", part.title), explained(part.body, words), id=f"{anchor}-{part.key}")
            for part in sections
        ]
        top = [element("h1", heading, class_="run")] if heading else []
        body.append(element("div", *top, *inner, id=anchor, class_="group"))
    return html_page("\n".join([*body, glossary(words)]), title=title, says=says)


def _contents(groups: Sequence[tuple[str, str, Sequence[Section]]]) -> Markup:
    parts = []
    for anchor, heading, sections in groups:
        links = [element("li", element("a", part.title, href=f"#{anchor}-{part.key}")) for part in sections]
        if heading:
            parts.append(element("p", element("a", heading, href=f"#{anchor}")))
        parts.append(element("ol", *links))
    return element("nav", *parts, aria_label="Contents")
