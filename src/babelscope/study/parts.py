"""What the stages found, as the numbers of results.json (schema: docs/results.schema.json)."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from babelscope.artifacts import NeuronSet, Observation
from babelscope.models import layout_of
from babelscope.neurons import ScriptControl, SetChecks
from babelscope.report.results import Results
from babelscope.report.results.record_json import to_json
from babelscope.report.results.selection_record import (
    CorpusShare,
    HalfSplits,
    LabelledShare,
    NotApplicable,
    ParallelAgreement,
    ScriptRetention,
    SelectionControls,
    SetLayers,
    SharedNeurons,
    ShuffledLabelShares,
)
from babelscope.report.results.study_results import SCHEMA, CorpusCard, results_of_tree
from babelscope.report.results.value_kinds import BoundedEstimate, Ends, tagged
from babelscope.runs import environment
from babelscope.study.job import StudyInputs


def results_of(job: StudyInputs, observation: Observation, sets: NeuronSet, parts: Mapping[str, Any]) -> Results:
    """The whole of results.json but the seconds; parts: what the stages found, as JSON by the names of its fields."""
    directions = [f"directions/{tag}" for tag in sets.languages if (job.folder / "directions" / tag).is_dir()]
    tree = {
        "schema": SCHEMA,
        "languages": list(sets.languages),
        **parts,
        "model": model_card(job, sets),
        "corpus": to_json(corpus_results(job, observation)),
        "identification": {"method": sets.method, **sets.parameters},
        "budget": asdict(job.budget),
        "seed": job.seed,
        "files": ["neurons", "observation", *directions, "evidence.jsonl"],
        "seconds": {},
        "environment": environment(),
    }
    return results_of_tree(to_json(tree), str(job.folder))


def set_results(sets: NeuronSet, top_rate: float) -> dict[str, Any]:
    """The sets as numbers."""
    layers = SetLayers(counts=sets.layer_counts.tolist())
    return {"neurons": sets.sizes, "top_rate": top_rate, "layers": layers}


def control_results(checks: SetChecks, script: ScriptControl) -> dict[str, Any]:
    """Stability, sizes and controls of the selection, by the names of the fields of `Results`."""
    stability = checks.stability
    return {
        "stability": {
            tag: HalfSplits(splits.median, splits.low, splits.high, splits.chance, splits.size)
            for tag, splits in stability.items()
        },
        "stability_lead": {
            tag: BoundedEstimate(splits.lead, splits.lead_low, splits.lead_high) for tag, splits in stability.items()
        },
        "set_size_interval": {tag: Ends(*checks.bootstrap.interval[tag]) for tag in checks.sets.sizes},
        "controls": SelectionControls(
            shuffled_labels=label_shares(checks),
            corpus_size=[CorpusShare(**row._asdict()) for row in checks.corpus_size],
            parallel=parallel_agreement(checks),
            script={
                **{
                    tag: ScriptRetention(**share._asdict(), romanised_bits_per_byte=script.bits_per_byte[tag])
                    for tag, share in script.shares.items()
                },
                **{tag: NotApplicable(not_applicable=reason) for tag, reason in script.not_applicable.items()},
            },
            overlap=shared_neurons(checks),
            seed=checks.seed,
        ),
    }


def label_shares(checks: SetChecks) -> ShuffledLabelShares | None:
    """Shares of the sets under shuffled labels; None where labels were not shuffled."""
    labels, sizes = checks.labels, checks.sets.sizes
    if labels is None:
        return None
    shares = {tag: LabelledShare(share_q05=labels.share_by_language[tag], n=sizes[tag]) for tag in sizes}
    return ShuffledLabelShares(by_language=tagged(shares), set_fdr=labels.set_fdr, draws=labels.draws)


def parallel_agreement(checks: SetChecks) -> dict[str, ParallelAgreement] | None:
    """Agreement with sets from parallel text; None where the text is not parallel."""
    content = checks.content
    if content is None:
        return None
    columns = zip(content.jaccard.tolist(), content.chance.tolist(), content.lift.tolist(), strict=True)
    return {
        tag: ParallelAgreement(jaccard=jaccard, chance=chance, lift=lift)
        for tag, (jaccard, chance, lift) in zip(checks.sets.sizes, columns, strict=True)
    }


def shared_neurons(checks: SetChecks) -> SharedNeurons:
    """Neurons that pairs of languages share, against tables with the same margins and over half-splits."""
    lead, low, high = (
        [[row[end] for row in splits.pair_lead] for splits in checks.stability.values()] for end in range(3)
    )
    return SharedNeurons(
        shared=checks.overlap.shared.tolist(),
        lift_by_margins=checks.overlap.lift.tolist(),
        p_by_margins=checks.overlap.p.tolist(),
        draws=checks.overlap.draws,
        lead=lead,
        lead_low=low,
        lead_high=high,
    )


def model_card(job: StudyInputs, sets: NeuronSet) -> dict[str, Any]:
    """What is known of the model."""
    layout = layout_of(job.model)
    return {
        **sets.origin.names,
        "architecture": layout.model.config.model_type,
        "layers": layout.n_layers,
        "hidden": layout.d_hidden,
        "neurons_per_layer": sets.n_neurons,
        "vocabulary": layout.width("logits"),
        "parameters": job.model.num_parameters(),
        "dtype": str(job.model.dtype),
        "device": str(job.model.device),
    }


def corpus_results(job: StudyInputs, observation: Observation) -> CorpusCard:
    """What was read for what: tokens and documents observed by language, and what was missing."""
    return CorpusCard(
        name=observation.settings["corpus"],
        hash=observation.settings["corpus_hash"],
        tokens=tagged(observation.tokens),
        shortfall={tag: max(0, job.budget.observe_tokens - count) for tag, count in observation.tokens.items()},
        further={
            "documents": dict(zip(observation.languages, observation.documents.tolist(), strict=True)),
            "splits": {split: part.facts() for split, part in job.texts.items()},
            "same_text": job.same_text,
        },
    )
