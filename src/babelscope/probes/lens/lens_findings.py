"""The lens as rows and figures: latent language on running text, and on translation prompts where words are given."""

from collections.abc import Sequence

import numpy as np

from babelscope.controls import Evidence
from babelscope.errors import LanguageError
from babelscope.figures.probes_geometry import DepthLine, depth_lines, depth_map, latent_language_map
from babelscope.probes.lens import token_energies, translations
from babelscope.probes.lens.cloze import ClozeTask, latent_cloze
from babelscope.probes.lens.logit_lens import logit_lens
from babelscope.probes.probe_job import Findings, ProbeJob


def probe_lens(job: ProbeJob) -> Findings:
    """Latent language by the logit lens."""
    reading = logit_lens(
        job.model, job.tokenizer, job.texts, tokens=job.tokens, translators=job.translators, seed=job.seed
    )
    share, tags = reading.share.numpy(), reading.languages
    own_share = np.stack([share[k, :, reading.tokens.index(tag)] for k, tag in enumerate(tags)])
    leading = reading.leading()
    top = np.stack(
        [[share[k, depth, reading.tokens.index(tag)] for depth, tag in enumerate(row)] for k, row in enumerate(leading)]
    )
    panels = {
        "share of listed tokens": [
            DepthLine("the text's own language", own_share.mean(axis=0).tolist()),
            DepthLine("the leading other", top.mean(axis=0).tolist()),
            DepthLine("tokens dealt out at random", reading.null.mean(dim=(0, 2)).tolist(), control=True),
        ],
        "nats": [
            DepthLine("entropy", reading.entropy_nats.mean(dim=0).tolist()),
            DepthLine("divergence from the output", reading.kl_nats.mean(dim=0).tolist()),
        ],
    }
    if job.against in tags and len(tags) > 1:
        base = tags.index(job.against)
        other_share = np.delete(share[:, :, reading.tokens.index(job.against)], base, axis=0)
        panels["share of listed tokens"].insert(
            1, DepthLine(f"{job.against}, in other text", other_share.mean(axis=0).tolist())
        )
    translated = translations_asked(job) if job.words is not None else Findings([], {})
    filled = gaps_asked(job, job.cloze) if job.cloze is not None else Findings([], {})
    return Findings(
        [*reading.rows(), *translated.rows, *filled.rows],
        {
            "lines": depth_lines(panels=panels),
            "own": depth_map(value=own_share, languages=tags, unit="share of the text's own tokens", top=1),
            "leading": latent_language_map(share=top, leading=leading, languages=tags),
            **translated.figures,
            **filled.figures,
        },
    )


def translations_asked(job: ProbeJob) -> Findings:
    """The same words asked for in each language of the text but the one compared with: translated, and repeated."""
    words = job.words or {}
    tags = [tag for tag in job.texts if tag != job.against]
    rows, figures, energies = [], {}, None
    for task in ("translations", "repetitions"):
        readings = []
        for target in tags:
            first_source = next((tag for tag in tags if tag != target), job.against)
            source = target if task == "repetitions" else first_source
            reading = translations.latent_translation(
                job.model,
                job.tokenizer,
                words,
                source=source,
                target=target,
                pivot=job.against,
                translators=job.translators,
                seed=job.seed,
            )
            readings.append(reading)
            rows += reading.rows()
            if energies is None:
                prompts = translations.translation_prompts(words, source=source, target=target, seed=job.seed)
                energies = token_energies.token_energy(
                    job.model, job.tokenizer, [prompt.text for prompt in prompts], seed=job.seed
                )
                rows += energies.rows()
        panels = {"probability of the right word": mass_lines(readings, job.against)}
        if energies is not None and task == "translations":
            mean, null = energies.energy.mean(dim=0).tolist(), [energies.null] * len(energies.sites)
            panels["token energy"] = [
                DepthLine("token energy", mean),
                DepthLine("energy of a random direction", null, control=True),
            ]
        figures[task] = depth_lines(panels=panels)
    return Findings(rows, figures)


def gaps_asked(job: ProbeJob, task: ClozeTask) -> Findings:
    """Sentences with a gap in each language of the text that the table has, but the one compared with."""
    readings = [
        latent_cloze(
            job.model,
            job.tokenizer,
            task,
            language=tag,
            pivot=job.against,
            translators=job.translators,
            seed=job.seed,
        )
        for tag in job.texts
        if tag in task.label and tag != job.against
    ]
    if not readings:
        raise LanguageError(
            f"{task.name}: sentences in {', '.join(task.label)}, text in {', '.join(job.texts)}; expected a "
            f"language of both beside {job.against}; add text or sentences"
        )
    lines = mass_lines(readings, job.against)
    rows: list[Evidence] = [row for reading in readings for row in reading.rows()]
    return Findings(rows, {"cloze": depth_lines(panels={"probability of the right word": lines})})


def mass_lines(readings: Sequence[translations.LatentTranslation], against: str) -> list[DepthLine]:
    """Mean over targets of what the target's, the pivot's and other words get."""

    def mean(name: str, values: list[np.ndarray], control: bool = False) -> DepthLine:
        return DepthLine(name, np.stack(values).mean(axis=0).tolist(), control=control)

    at_target = [(reading.mass.numpy(), reading.null.numpy(), reading.index(reading.target)) for reading in readings]
    return [
        mean("in the target's language", [mass[:, at] for mass, _, at in at_target]),
        mean(f"in {against}", [reading.mass[:, reading.index(against)].numpy() for reading in readings]),
        mean(
            "words of other concepts, the target's language", [null[:, at] for _, null, at in at_target], control=True
        ),
    ]
