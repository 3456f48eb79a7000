"""Keys and values of MLPs as rows and figures."""

import numpy as np

from babelscope.figures.neuron_maps import dose_by_language, key_map
from babelscope.probes.concepts.keys_values import concept_values
from babelscope.probes.concepts.value_evidence import LEVEL
from babelscope.probes.probe_job import Findings, ProbeJob

SHOWN = 30
"""Neurons of the heat map, those nearest to the direction."""


def probe_values(job: ProbeJob) -> Findings:
    """Neurons that write the concept, chosen on the other text; their keys on the measured one, and the dose."""
    result = concept_values(
        job.model,
        job.tokenizer,
        job.texts,
        others=job.others,
        tokens=job.tokens,
        concept=job.concept,
        language=job.against,
        seed=job.seed,
    )
    names = [f"{layer}.{neuron}" for layer, neuron in result.neurons[:SHOWN]]
    answers = (result.p[0] <= LEVEL) & (result.gap[0] > 0)
    rises = (result.score - result.score[:, :1]).numpy()
    return Findings(
        [*result.rows()],
        {
            "keys": key_map(
                gap=result.gap[0, :SHOWN].T.numpy(),
                answers=answers[:SHOWN].T.numpy(),
                neurons=names,
                languages=result.languages,
                concept=result.concept,
            ),
            "dose": dose_by_language(
                doses=result.doses,
                rise=dict(zip(result.languages, rises[0].T.tolist(), strict=True)),
                control=np.mean(rises[1], axis=1).tolist(),
                concept=result.concept,
            ),
        },
    )
