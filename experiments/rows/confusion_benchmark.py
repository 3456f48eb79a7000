"""Row 37: pass rates of published answers, by the published script and by this library."""

import csv
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import NamedTuple

import numpy as np

from babelscope.evaluation import english_words, open_identifier, published_confusion
from babelscope.evaluation.confusion import Confusion
from rows.result import Headline, Inputs, RowResult, Witness

MONOLINGUAL = "monolingual"
LEAST_STRONG, MOST_STRONG, MOST_OTHER = 0.986, 0.993, 0.730
"""Line pass rates of the paper, monolingual: of Command R and OpenAI models least and most, of others most."""
CLOSE = 0.01
"""By which a rate may differ: the identifier is the compressed edition of the paper's, and segmenters have moved on."""
ANSWERS = (
    "Der Zug nach Hamburg fährt heute leider etwas später ab.",
    "The train to Hamburg leaves a little later today, unfortunately.",
    "Der Zug nach Hamburg fährt heute später ab.\nThe weather in the north is cold and windy today.",
    "",
    "Ja, gut.",
    "Die Kinder spielen am Nachmittag gern im großen Garten.\nAm Abend lesen sie zusammen ein neues Buch.",
)
"""German answers, written for this row: right, other language, mixed, empty, short, right."""


class Group(NamedTuple):
    """Answers that are scored together."""

    model: str
    task: str
    source: str
    language: str


def measure_confusion(inputs: Inputs) -> RowResult:
    """Six answers counted by hand; and with the published repository, its answers of eight models by both programs."""
    witnesses = by_hand()
    if not (inputs.confusion and inputs.lid):
        return RowResult(
            witnesses=witnesses,
            headlines=[],
            absent=["the published repository and its identifier: neither folder nor file was given"],
        )
    folder, identifier = Path(inputs.confusion), Path(inputs.lid)
    groups = read_answers(folder)
    with published_script(folder, identifier) as script:
        theirs = {group: script.compute_metrics(answers, group.language) for group, answers in groups.items()}
    lid = open_identifier(identifier, labels="lid176")
    words = english_words(folder / "words")
    ours = {
        group: published_confusion(answers, group.language, identifier=lid, english=words)
        for group, answers in groups.items()
    }
    return RowResult(witnesses=[*witnesses, both_programs(groups, theirs, ours)], headlines=[rates(ours, lid.name)])


def by_hand() -> list[Witness]:
    """The published line pass rate on six answers whose languages are known, against a count by hand."""
    score, alone = (published_confusion(answers, "de") for answers in (ANSWERS, (ANSWERS[0], ANSWERS[5])))
    # Scored: four with a line of five words or more; wrong: the English one and the mixed one.
    scored, wrong = 4, 2
    return [
        Witness(
            what="line pass rate of six answers, counted by hand",
            difference=abs(score.lpr - (1 - wrong / scored)),
            bar=0.0,
        ),
        Witness(what="answers scored, counted by hand", difference=abs(score.scored - scored), bar=0.0),
        Witness(what="the two German answers alone, counted by hand", difference=abs(alone.lpr - 1.0), bar=0.0),
    ]


def read_answers(folder: Path) -> dict[Group, list[str]]:
    """The published answers of instructed models by model, task, source and language."""
    groups = defaultdict[Group, list[str]](list)
    for file in sorted((folder / "outputs").glob("*.csv")):
        if file.stem.endswith("-base"):
            continue
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                groups[Group(file.stem, row["task"], row["source"], row["language"])].append(row["completion"])
    return dict(groups)


@contextmanager
def published_script(folder: Path, identifier: Path) -> Iterator[ModuleType]:
    """The published program as a module; it opens its word list and identifier in the working folder."""
    before = Path.cwd()
    with TemporaryDirectory() as place:
        for name, file in (("words", folder / "words"), ("lid.176.bin", identifier)):
            (Path(place) / name).symlink_to(file.resolve())
        spec = spec_from_file_location("published_confusion_metrics", (folder / "compute_metrics.py").resolve())
        assert spec is not None and spec.loader is not None
        module = module_from_spec(spec)
        os.chdir(place)
        try:
            spec.loader.exec_module(module)
            yield module
        finally:
            os.chdir(before)


def both_programs(
    groups: dict[Group, list[str]], theirs: dict[Group, dict[str, float]], ours: dict[Group, Confusion]
) -> Witness:
    """The largest difference of any rate."""
    gaps = []
    for group, rates_of_script in theirs.items():
        score = ours[group]
        gaps += [abs(rates_of_script["lpr"] - score.lpr), abs(rates_of_script["acc"] - score.line_accuracy)]
        if (wpr := rates_of_script.get("wpr")) is not None:
            assert score.wpr is not None
            gaps.append(abs(wpr - score.wpr))
    n = sum(map(len, groups.values()))
    models = len({group.model for group in groups})
    return Witness(
        what=f"{len(gaps):,} rates of {n:,} published answers of {models} models, by the published script",
        difference=max(gaps),
        bar=1e-12,
    )


def mean_rate(scores: dict[Group, Confusion], model: str, task: str) -> float:
    """The line pass rate as published: the mean over languages of the mean over sources."""
    by_language = defaultdict[str, list[float]](list)
    for group, score in scores.items():
        if (group.model, group.task) == (model, task):
            by_language[group.language].append(score.lpr)
    return float(np.mean([np.mean(rates_of_language) for rates_of_language in by_language.values()]))


def rates(scores: dict[Group, Confusion], identifier: str) -> Headline:
    """Rates by model beside the paper's."""
    tasks: Sequence[str] = sorted({group.task for group in scores})
    models = sorted({group.model for group in scores})
    table = {(model, task): mean_rate(scores, model, task) for model in models for task in tasks}
    strong = [table[name, MONOLINGUAL] for name in models if name.startswith(("command", "gpt"))]
    others = [table[name, MONOLINGUAL] for name in models if not name.startswith(("command", "gpt"))]
    gaps = (min(strong) - LEAST_STRONG, max(strong) - MOST_STRONG, max(others) - MOST_OTHER)
    apart = min(strong) > max(others)
    return Headline(
        paper="line pass rate, monolingual: Command R and OpenAI models 98.6 % to 99.3 %, Llama and Mistral ones at "
        "most 73.0 %",
        ours="; ".join(
            f"{name} {', '.join(f'{100 * table[name, task]:.1f} % {task}' for task in tasks)}" for name in models
        ),
        control=f"the same answers by the published script, see the witness; both read {identifier}",
        model="published answers of eight models",
        verdict="reproduced" if max(map(abs, gaps)) <= CLOSE and apart else "in shape" if apart else "not",
    )
