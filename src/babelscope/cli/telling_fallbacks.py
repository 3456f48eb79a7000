"""What `fallback` says to a person: the languages of the answers at each step, beside those of the random sets."""

from collections.abc import Mapping
from pathlib import Path
from shlex import quote

from babelscope.cli.readable import aligned
from babelscope.report.wording import p_value
from babelscope.steering.sweeps import Fallbacks


def fallback_lines(fallbacks: Fallbacks, neurons: Path, model: str, out: Path) -> list[str]:
    """A row for each step: how many answers left the language of the prompts, in which they are, and the control's.

    neurons, model: as they were named on the command line, for the next command.
    """
    first, rows = fallbacks.first, fallbacks.rows()
    table = [["off", "neurons", f"not in {first}", "random sets", "p", "answers", "with random sets"]]
    for step, row in zip(fallbacks.steps, rows, strict=True):
        table.append([
            " + ".join(step.off) or "none",
            f"{step.neurons:,}",
            left_text(step.counts, first),
            left_text(step.control_counts, first),
            p_value(row.p),
            languages_text(step.counts),
            languages_text(step.control_counts),
        ])  # fmt: skip
    draws, prompts = len(fallbacks.steps[-1].controls), len(fallbacks.steps[0].outputs)
    return [
        f"languages of {prompts:,} answers to prompts in {first}, with the neurons of more and more languages off (to "
        f"{fallbacks.by}); saved in {out}",
        *aligned(table),
        f"random sets: {draws} a step of as many neurons in each layer that no language has, all their answers "
        f"together; p: the sign test over prompts of the answers not in {first} against each of these sets, the "
        "largest",
        f"the answers are in {out / 'answers.json'}; next: babelscope show {quote(str(neurons))} {quote(model)} "
        f"--language {fallbacks.steps[-1].off[-1]}, which names the neurons that were switched off last",
    ]


def left_text(counts: Mapping[str, int], first: str) -> str:
    """How many answers are not in the language of the prompts, of how many; a dash where there are none."""
    total = sum(counts.values())
    return f"{total - counts.get(first, 0):,} of {total:,}" if total else "–"


def languages_text(counts: Mapping[str, int]) -> str:
    """Answers by language in words, most first; a dash where there are none."""
    return ", ".join(f"{tag or 'none'} {count:,}" for tag, count in counts.items()) or "–"
