"""The verb `report`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import Writable, WrittenFolder
from babelscope.cli.arguments import Result


def run_report(
    runs: Annotated[Positional[tuple[Path, ...]], WrittenFolder(), arg(metavar="RUN …")],
    *,
    out: Annotated[Path, Writable()] | None = None,
    include_samples: bool = True,
) -> Result:
    """One self-contained HTML page from the folders of one or several studies, or of single commands.

    Args:
        runs: folders that study, demo or another command wrote; several stand side by side.
        out: the page; none means report.html in the first folder.
        include_samples: show text in the report.
    """
    from babelscope.report import write_report

    return {"report": str(write_report(list(runs), out=out, include_samples=include_samples))}
