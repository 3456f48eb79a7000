"""For mkdocs: pages that stand above docs/ become pages of the site, and docstrings keep their lines."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
ABOVE = {
    "README.md": "about.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files of the project, and what they are called on the site."""
OFF_SITE = r"(?:experiments|src|tests|kernels)/|LICENSE|CITATION"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages above docs/."""
    for name, page in ABOVE.items():
        text = re.sub(r"\]\(docs/", "](", (ROOT / name).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=linked_here(text, "")))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Lead links above docs/ to the pages that stand for them."""
    return linked_here(markdown, r"(?:\.\./)+")


def on_page_content(html: str, page: Page, **_: object) -> str:
    """In the reference each parameter of a docstring begins a line of its own, as it does in the source."""
    if page.file.src_uri != "reference.md":
        return html
    html = re.sub(r"(<p>|\n)([a-z_]+): ", r"\1<br><code>\2</code>: ", html)
    return re.sub(r"\n(Raises|Source:) ", r"\n<br>\1 ", html).replace("<p><br>", "<p>")


def linked_here(text: str, prefix: str) -> str:
    """The text with links to the pages above led to the site's own; files that are not on it are named only."""
    for name, page in ABOVE.items():
        text = re.sub(rf"\]\({prefix}{re.escape(name)}", f"]({page}", text)
    return re.sub(rf"\[([^\]]+)\]\({prefix}(?:{OFF_SITE})[^)]*\)", r"\1", text)
