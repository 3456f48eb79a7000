"""One HTML file from sections: style, script and data are inside it, and it may ask no host for anything."""

from collections.abc import Sequence
from importlib.resources import files

from babelscope.report.glossary import explained, glossary
from babelscope.report.markup import Markup, Section, element, escape

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; base-uri "
    "'none'; form-action 'none'"
)
"""Content security policy: the browser itself refuses any request."""


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
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">',
            f'<meta name="description" content="{escape(says)}"><meta property="og:title" content="{escape(title)}">',
            f'<meta property="og:description" content="{escape(says)}">',
            f"<title>{escape(title)}</title><style>{_asset('page.css')}</style></head><body><main>",
            *body,
            glossary(words),
            "</main>",
            f"<script>{_asset('page.js')}</script></body></html>\n",
        ]
    )


def _contents(groups: Sequence[tuple[str, str, Sequence[Section]]]) -> Markup:
    parts = []
    for anchor, heading, sections in groups:
        links = [element("li", element("a", part.title, href=f"#{anchor}-{part.key}")) for part in sections]
        if heading:
            parts.append(element("p", element("a", heading, href=f"#{anchor}")))
        parts.append(element("ol", *links))
    return element("nav", *parts, aria_label="Contents")


def _asset(name: str) -> str:
    return files("babelscope.report").joinpath(name).read_text(encoding="utf-8")
