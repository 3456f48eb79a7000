"""Experts of a concept as rows and figures."""

import torch

from babelscope.figures import Figure
from babelscope.figures.probes_geometry import language_pair_map
from babelscope.figures.probes_units import attention_map
from babelscope.models import layout_of
from babelscope.probes.concepts.concept_clamping import clamp_experts
from babelscope.probes.concepts.concept_detectors import ConceptExperts, concept_experts, track_concepts
from babelscope.probes.probe_job import Findings, ProbeJob
from babelscope.probes.units.unit_findings import openers_of


def probe_concepts(job: ProbeJob) -> Findings:
    """Detectors of a concept chosen on the other text, their overlap, and the measured text with them clamped.

    With checkpoints, the overlap at each of them too.
    """
    layout = layout_of(job.model)
    number = max(1, min(50, layout.n_layers * layout.d_neuron // 100))
    experts = concept_experts(job.model, job.tokenizer, job.others, concept=job.concept, number=number, seed=job.seed)
    clamp = clamp_experts(job.model, job.tokenizer, experts, job.texts, concept=job.concept, seed=job.seed)
    rows = [*experts.rows(), *clamp.rows()]
    figures = {
        "detectors": attention_map(
            value=experts.precision.amax(dim=2).numpy(),
            languages=experts.languages,
            unit="average precision of the layer's best neuron",
        ),
        "overlap": shared_expert_map(experts),
    }
    if job.checkpoints:
        steps = track_concepts(openers_of(job), job.others, concept=job.concept, number=number, seed=job.seed)
        rows += [row for checkpoint, step in steps.items() for row in step.rows(checkpoint)]
        for number, step in enumerate(steps.values(), start=1):
            figures[f"overlap-{number}"] = shared_expert_map(step)
    return Findings([*rows], figures)


def shared_expert_map(experts: ConceptExperts) -> Figure:
    """Share of experts in common by pair of languages; 1 on the diagonal."""
    matrix = torch.eye(len(experts.languages), dtype=torch.float64)
    for overlap in experts.overlaps:
        first, second = experts.languages.index(overlap.first), experts.languages.index(overlap.second)
        matrix[first, second] = matrix[second, first] = overlap.share
    return language_pair_map(value=matrix.numpy(), languages=experts.languages, unit="share of experts in common")
