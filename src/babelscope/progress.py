"""The one progress bar: drawn in place on a terminal and in a notebook, a line now and then in a log file."""

import sys
from collections.abc import Collection, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

Item = TypeVar("Item")
SECONDS = 30.0
"""Between two lines of a log; what is done sooner writes none."""
LINE = "{desc}: {unit} {n_fmt} of {total_fmt}, {elapsed} so far, {remaining} left{postfix}"
LINE_ABOVE = "\x1b[A"
"""What a bar below another one ends with."""


def never() -> bool:
    """Default of `stop`: work that nothing stops before its end."""
    return False


class LinesOnly:
    """The error stream by whole lines: a bar that goes back to the beginning of its line would fill a log file."""

    def write(self, text: str) -> None:
        """Write what a bar shows as a line of its own."""
        if line := text.replace(LINE_ABOVE, "").strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        """Flush the error stream."""
        sys.stderr.flush()


def progress_bar(
    *, total: int | None, unit: str, desc: str = "", initial: int = 0, unit_scale: bool = False, shown: bool = True
) -> tqdm:
    """A bar for a `with` block, on the error stream; `update` it by the units that are done.

    Set its description and postfix with refresh=False: they are shown with the next line.

    On a terminal and in a notebook it is tqdm's own. Where the error stream goes into a file or a pipe, it is a line
    every SECONDS, with the time so far and the time left. shown=False shows nothing.
    """
    if sys.stderr.isatty() or "ipykernel" in sys.modules:
        return tqdm(total=total, unit=unit, desc=desc, initial=initial, unit_scale=unit_scale, disable=not shown)
    return tqdm(
        total=total,
        unit=unit,
        desc=desc,
        initial=initial,
        unit_scale=unit_scale,
        disable=not shown,
        file=LinesOnly(),
        bar_format=LINE,
        delay=SECONDS,
        mininterval=SECONDS,
        maxinterval=SECONDS,
    )


def with_progress(items: Collection[Item], *, unit: str, desc: str, shown: bool) -> Iterator[Item]:
    """The items one after the other, each counted on a `progress_bar` when the next one is asked for."""
    with progress_bar(total=len(items), unit=unit, desc=desc, shown=shown) as bar:
        for item in items:
            yield item
            bar.update()
