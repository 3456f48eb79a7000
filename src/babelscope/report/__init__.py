"""Folders of studies, and of single commands, to one self-contained HTML page.

Here: pages from saved results: sections, claims, `results` (the types of results.json), `dashboards` (single units).
Imports: ablation, artifacts, controls, corpus, evaluation, features, figures, files, languages, models, probes,
progress, recording, sites, steering.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.report.report_page import write_report

__all__ = ["write_report"]

__getattr__, __dir__ = lazy_names(__name__)
