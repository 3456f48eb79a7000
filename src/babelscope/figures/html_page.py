"""One HTML file around what it shows: style and script are inside it, and it may ask no host for anything."""

import html
from importlib.resources import files

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; base-uri "
    "'none'; form-action 'none'"
)
"""Content security policy: the browser itself refuses any request."""


def html_page(body: str, *, title: str, says: str) -> str:
    """A whole page. body: markup, put in as it is; title and says are escaped.

    says: what the page says in one sentence, for those who list or preview it.
    """
    name, sentence, policy = (html.escape(text, quote=True) for text in (title, says, POLICY))
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">',
            f'<meta name="description" content="{sentence}"><meta property="og:title" content="{name}">',
            f'<meta property="og:description" content="{sentence}">',
            f"<title>{name}</title><style>{_asset('page.css')}</style></head><body><main>",
            body,
            "</main>",
            f"<script>{_asset('page.js')}</script></body></html>\n",
        ]
    )


def _asset(name: str) -> str:
    return files("babelscope.figures").joinpath(name).read_text(encoding="utf-8")
