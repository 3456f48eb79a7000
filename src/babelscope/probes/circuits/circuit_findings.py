"""Circuits as rows and figures: what each head carries in each task and language, and what languages share."""

import logging
from itertools import combinations

import numpy as np

from babelscope.errors import CorpusError, LanguageError, MeasurementError, SiteError
from babelscope.figures import Figure
from babelscope.figures.probes_circuits import head_effect_map
from babelscope.probes.circuits.effect_maps import UnitEffects, unit_effects
from babelscope.probes.circuits.effect_overlap import compare_effects
from babelscope.probes.circuits.head_circuits import choose_circuit, score_circuit
from babelscope.probes.circuits.path_patching import HEAD_INPUTS, path_effects
from babelscope.probes.circuits.route_overlap import HeadRoutes, compare_routes, head_routes
from babelscope.probes.circuits.task_prompts import TaskLine, read_tasks
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.probes.probe_job import Findings, ProbeJob

log = logging.getLogger(__name__)

SENDERS = 5
"""Strongest heads whose way to the logits, and into another language's run, is measured."""


def probe_circuits(job: ProbeJob) -> Findings:
    """The bundled tasks in the languages of the text: heads, their paths, circuits, and what two languages share.

    Heads are patched on the even pairs of a task, and what is made of the strongest is measured on the odd ones. A
    task that the model does not tell apart in a language, or whose words begin alike in this tokenizer, is left out
    there, and the log says why. Routes of information are traced for every pair, without patches.
    Raises LanguageError where no task is left for any language of the text.
    """
    rows, maps, routes = list[SiteEvidence](), list[UnitEffects](), list[HeadRoutes]()
    for by_language in read_tasks().values():
        lines = {tag: pairs for tag, pairs in by_language.items() if tag in job.texts}
        effects = {tag: measured for tag, pairs in lines.items() if (measured := task_effects(job, pairs))}
        for tag, measured in effects.items():
            rows += [*measured.rows(), *followed(job, lines[tag], measured)]
        for first, second in combinations(effects, 2):
            rows += compare_effects(effects[first], effects[second], seed=job.seed).rows()
            rows += across(job, lines[first][1::2], lines[second][1::2], effects[second])
        maps += effects.values()
        ways = {tag: traced for tag in effects if (traced := task_routes(job, lines[tag]))}
        routes += ways.values()
        rows += [row for traced in ways.values() for row in traced.rows()]
        for first, second in combinations(ways.values(), 2):
            rows += compare_routes(first, second, seed=job.seed).rows()
    if not maps:
        raise LanguageError(
            f"no bundled task is told apart by this model in {', '.join(job.texts)}; expected text of a language that "
            f"has one ({', '.join(bundled_languages())}), and a model that knows it"
        )
    figures: dict[str, Figure] = {
        "heads": head_effect_map(
            effect=np.stack([effects.effect.numpy() for effects in maps]),
            maps=[f"{effects.task}, {effects.language}" for effects in maps],
            heads=maps[0].units,
        )
    }
    if routes:
        figures["routes"] = head_effect_map(
            effect=np.stack([traced.share.mean(dim=(0, 1)).numpy() for traced in routes]),
            maps=[f"{traced.task}, {traced.language}" for traced in routes],
            heads=routes[0].heads,
            whole="the heads' importance",
        )
    return Findings(list(rows), figures)


def bundled_languages() -> list[str]:
    """Languages that have a task."""
    return sorted({tag for by_language in read_tasks().values() for tag in by_language})


def task_effects(job: ProbeJob, lines: list[TaskLine]) -> UnitEffects | None:
    """What each head carries on the even pairs; None where the task cannot be asked of this model and tokenizer."""
    try:
        return unit_effects(job.model, job.tokenizer, lines[::2], seed=job.seed)
    except (MeasurementError, CorpusError) as err:
        log.warning("left out: %s", err)
        return None


def task_routes(job: ProbeJob, lines: list[TaskLine]) -> HeadRoutes | None:
    """The routes of all pairs, since nothing is chosen on them; None for a family whose attention has no such terms."""
    try:
        return head_routes(job.model, job.tokenizer, lines, seed=job.seed)
    except SiteError as err:
        log.warning("left out: %s", err)
        return None


def followed(job: ProbeJob, lines: list[TaskLine], effects: UnitEffects) -> list[SiteEvidence]:
    """The strongest heads' way to the logits and to the strongest one's inputs, and the circuit, on the odd pairs."""
    last, *senders = strongest = effects.strongest(SENDERS)
    try:
        paths = [path_effects(job.model, job.tokenizer, lines[1::2], senders=strongest, seed=job.seed)]
        if earlier := [head for head in senders if head[0] < last[0]]:
            paths += [
                path_effects(
                    job.model,
                    job.tokenizer,
                    lines[1::2],
                    senders=earlier,
                    receivers=[last],
                    inputs=[name],
                    seed=job.seed,
                )
                for name in HEAD_INPUTS
            ]
    except MeasurementError as err:
        log.warning("left out: %s", err)
        return []
    circuit = choose_circuit(job.model, job.tokenizer, lines[::2], effects)
    score = score_circuit(job.model, job.tokenizer, lines[1::2], circuit, seed=job.seed)
    return [*(row for path in paths for row in path.rows()), *score.rows()]


def across(job: ProbeJob, lines: list[TaskLine], givers: list[TaskLine], effects: UnitEffects) -> list[SiteEvidence]:
    """The strongest heads of the giving language put into the other's runs."""
    try:
        return unit_effects(
            job.model, job.tokenizer, lines, givers=givers, units=effects.strongest(SENDERS), seed=job.seed
        ).rows()
    except MeasurementError as err:
        log.warning("left out: %s", err)
        return []
