"""Languages: their tags, scripts, families, and what tables of the world's languages say of them.

Here: facts about languages that need no model and no text.
Imports: nothing of the toolkit.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.languages.language_tags import Language, is_tag, language_index, parse_languages, tag_meant

__all__ = ["Language", "is_tag", "language_index", "parse_languages", "tag_meant"]

__getattr__, __dir__ = lazy_names(__name__)
