"""Probes of units as rows and figures: attention heads, experts, neuron roles, the tokenizer."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from babelscope.controls import Evidence
from babelscope.errors import PrerequisiteError
from babelscope.figures.probes_geometry import language_pair_map, latent_language_map
from babelscope.figures.probes_roles import RoleBar, RoleStep, role_bars, role_history, role_profile
from babelscope.figures.probes_units import (
    Estimate,
    attention_map,
    head_harm,
    head_map,
    routing_map,
    token_premium,
    training_shares,
)
from babelscope.figures.proximity_lines import proximity_lines
from babelscope.figures.removal_map import RemovalCell, removal_map
from babelscope.models import layout_of, open_model
from babelscope.neurons import Specialization, penalty_sweep, select_entropy_lambda
from babelscope.probes.lens import working_languages
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.probes.probe_job import Findings, ProbeJob
from babelscope.probes.units import (
    head_ablation,
    heads,
    parallel_routing,
    related_sets,
    roles,
    routing,
    sentence_routes,
    structure_ablation,
    structure_removal,
)
from babelscope.recording import observe
from babelscope.steering.directions import head_probes
from babelscope.vocabulary import infer_training_shares, token_costs, vocabulary_allocation, vocabulary_by_script


def probe_heads(job: ProbeJob) -> Findings:
    """Heads by language, chosen on the other text and switched off on the measured one, and probes of each head."""
    record = heads.record_heads(job.model, job.tokenizer, job.others)
    chosen = heads.head_selectivity(record, seed=job.seed)
    best = chosen.heads(1)
    harm = head_ablation.ablate_heads(job.model, job.tokenizer, best, job.texts, max_tokens=300, seed=job.seed)
    cells = [
        (record.languages.index(tag), layer, head) for tag, heads_of_tag in best.items() for layer, head in heads_of_tag
    ]
    own_harm: dict[str, Estimate] = {
        language_harm.language: Estimate(
            language_harm.harm[language_harm.language], language_harm.low, language_harm.high
        )
        for language_harm in harm.languages
    }
    probed = [
        head_probes.head_probe_accuracy(
            job.model, job.tokenizer, job.others.head(60), target=tag, source=job.against, seed=job.seed
        )
        for tag in record.languages
        if job.against in record.languages and tag != job.against
    ]
    sink, evenness = (record.mean(measure).mean(dim=2).numpy() for measure in ("sink", "evenness"))
    return Findings(
        [
            *(row for probes in probed for row in probes.rows()),
            *chosen.rows(),
            *record.rows("sink", seed=job.seed),
            *record.rows("evenness", seed=job.seed),
            *harm.rows(),
        ],
        {
            "map": head_map(share=chosen.share.numpy(), languages=record.languages, chosen=cells),
            "harm": head_harm(
                own=own_harm, drawn={language_harm.language: language_harm.drawn for language_harm in harm.languages}
            ),
            "sink": attention_map(value=sink, languages=record.languages, unit="attention on the first token"),
            "evenness": attention_map(
                value=evenness, languages=record.languages, unit="entropy over its largest value"
            ),
        },
    )


def probe_routing(job: ProbeJob) -> Findings:
    """Expert use by language and layer, and of parallel text that of translations; a dense model has none."""
    use = routing.routing_use(job.model, job.tokenizer, job.texts)
    result = routing.routing_divergence(use, against=job.against, seed=job.seed)
    figure = routing_map(
        divergence=result.divergence.numpy(),
        null=result.null.numpy(),
        q=result.q.numpy(),
        languages=result.languages,
        against=result.against,
    )
    rows, figures = [*result.rows()], {"divergence": figure}
    if job.texts.parallel and not layout_of(job.model).without_experts:  # outer layers against the middle: of all
        record = sentence_routes.record_routing(job.model, job.tokenizer, job.texts, sentences=job.n_sentences)
        shared = parallel_routing.shared_routing(record, against=job.against, seed=job.seed)
        rows += shared.rows()
        figures["translations"] = routing_map(
            divergence=shared.mean["divergence"].nan_to_num(0.0).numpy(),
            null=shared.null["divergence"].numpy(),
            q=shared.p["divergence"].numpy(),
            languages=shared.languages,
            against=shared.against,
            control="unrelated sentences",
        )
        for name, value in (("entropy", shared.entropy), ("consistency", shared.consistency)):
            figures[name] = attention_map(value=value.numpy(), languages=shared.languages, unit=f"routing {name}")
    return Findings(rows, figures)


def probe_roles(job: ProbeJob) -> Findings:
    """Language-specific, related and general neurons by layer, and the parts of the model that they divide."""
    observation = observe(job.model, job.tokenizer, job.others, sites=["mlp_gate"], tokens_per_language=5000)
    parallel = job.others.parallel
    # What is above the bar does not depend on the penalty, which need not be searched in every resample.
    penalty = select_entropy_lambda(observation).penalty
    parts = roles.role_parts(
        observation,
        functools.partial(select_entropy_lambda, penalty=penalty),
        parts=min(4, layout_of(job.model).n_layers),
        parallel=parallel,
        seed=job.seed,
    )
    role_rows = roles.role_shares(
        observation, select_entropy_lambda, blocks=parts.layers, parallel=parallel, seed=job.seed
    )
    steps = penalty_sweep(observation)
    return Findings(
        [*parts.rows(), *(row for role in role_rows for row in role.rows()), *(step.row() for step in steps)],
        {
            "profile": role_profile(profile=parts.profile.numpy(), roles=roles.CLASSES, starts=parts.starts),
            "roles": role_bars(bars=[role_bar(role, of_all_neurons=False) for role in role_rows]),
            "roles_above_bar": role_bars(
                bars=[role_bar(role, of_all_neurons=True) for role in role_rows], of="above the bar"
            ),
        },
    )


def role_bar(role: roles.RoleShare, *, of_all_neurons: bool) -> RoleBar:
    """One bar: of the selected neurons, or of every neuron above the bar."""
    share, null = (role.above_share, role.above_null) if of_all_neurons else (role.share, role.null)
    name = f"{role.role} (the penalty selects none)" if role.forbidden and not of_all_neurons else role.role
    return RoleBar(f"{role.layers[0]}–{role.layers[-1]}", name, share, null)


def probe_removal(job: ProbeJob) -> Findings:
    """Neurons of MLPs and attentions by their effect, and what breaks without them by layer block and structure."""
    votes = structure_removal.structure_votes(
        job.model, job.tokenizer, job.others, tokens_per_language=200, max_length=48
    )
    sets = votes.specific(vote=0.8)
    harm = structure_ablation.ablate_structures(
        job.model, job.tokenizer, sets, votes.languages, job.texts, max_tokens=150, seed=job.seed
    )
    sizes = [
        SiteEvidence(
            claim=f"{structure} neurons that this language's documents vote for and not all languages'",
            language=tag,
            control="",
            n=int(votes.votes[structure].whole().tokens[k]),
            estimate=int(mask[k].sum()),
            note=f"n in documents; of {mask[k].numel()} neurons",
        )
        for structure, mask in sets.items()
        for k, tag in enumerate(votes.languages)
    ]
    cells = [
        RemovalCell(
            str(cell.language), cell.structure, f"{cell.layers[0]}–{cell.layers[1]}", cell.own_harm, cell.other_harm
        )
        for cell in harm.cells
    ]
    return Findings([*sizes, *harm.rows()], {"removal": removal_map(cells=cells)} if cells else {})


def probe_specialization(job: ProbeJob) -> Findings:
    """Neurons that carry most of each language's activity, and whether related languages share them."""
    observation = observe(job.model, job.tokenizer, job.others, sites=["mlp_gate"], tokens_per_language=5000)
    sets = Specialization().choose(observation)
    proximity = related_sets.set_proximity(sets, seed=job.seed)
    figure = proximity_lines(
        overlap=proximity.overlap.numpy(),
        correlation={layer: test.correlation for layer, test in proximity.tests.items()},
        p={layer: test.p for layer, test in proximity.tests.items()},
    )
    return Findings([*proximity.rows()], {"overlap": figure})


def probe_checkpoints(job: ProbeJob) -> Findings:
    """Roles of neurons, working languages of layers and bits per byte along a training run."""
    openers = openers_of(job)
    history = roles.track_roles(
        openers,
        job.others,
        select_entropy_lambda,
        blocks=min(4, layout_of(job.model).n_layers),
        tokens_per_language=5000,
        parallel=job.others.parallel,
        seed=job.seed,
    )
    agreement = [(step.checkpoint, {str(tag): value for tag, value in step.kept.items()}) for step in history.steps]
    pictures = {
        name: role_history(shares=role_steps(history, of_all_neurons=of_all_neurons), kept=agreement)
        for name, of_all_neurons in (("history", False), ("history_above_bar", True))
    }
    tracked = working_languages.track_working_languages(
        openers, job.texts, job.others, select_entropy_lambda, tokens=job.tokens, seed=job.seed
    )
    for number, (step, leading) in enumerate(zip(tracked.steps, tracked.working(), strict=True), start=1):
        pictures[f"working-{number}"] = latent_language_map(
            share=step.lens.share.max(dim=2).values.numpy(),
            leading=leading,
            languages=step.lens.languages,
            unit=f"{step.checkpoint}: share of the working language",
        )
    return Findings([*history.rows(), *tracked.rows()], pictures)


def role_steps(history: roles.RoleHistory, *, of_all_neurons: bool) -> dict[str, list[RoleStep]]:
    """By class, one point per checkpoint: of the selected neurons, or of every neuron above the bar."""

    def step(checkpoint: str, shares: Sequence[roles.RoleShare]) -> RoleStep:
        ends = [(role.above_share, role.above_null) if of_all_neurons else (role.share, role.null) for role in shares]
        count = sum(role.above if of_all_neurons else role.neurons for role in shares)
        return RoleStep(checkpoint, count, *(float(part) for part in np.mean(ends, axis=0)))

    return {
        role: [
            step(tracked.checkpoint, [share for share in tracked.shares if share.role == role])
            for tracked in history.steps
        ]
        for role in roles.CLASSES
    }


def openers_of(job: ProbeJob) -> dict[str, roles.Open]:
    """By name, what opens each checkpoint; raises PrerequisiteError for fewer than two."""
    if len(job.checkpoints) < 2:
        raise PrerequisiteError(
            f"{len(job.checkpoints)} checkpoints came; expected at least two folders, in order; give --checkpoints"
        )
    return {
        step_name(path, job.checkpoints): functools.partial(open_model, path, **job.settings)
        for path in job.checkpoints
    }


def step_name(path: str, paths: Sequence[str]) -> str:
    """The folder's own name where no other has it, else the whole path."""
    name = Path(path).name
    return name if sum(Path(other_path).name == name for other_path in paths) == 1 else path


def probe_tokenizer(job: ProbeJob) -> Findings:
    """What the tokenizer costs each language, and which languages it was made for."""
    costs = token_costs(job.tokenizer, job.texts, against=job.against, seed=job.seed)
    mixture = infer_training_shares(job.tokenizer, job.others, merges=1000, seed=job.seed)
    ordered = sorted(costs.costs, key=lambda cost: -cost.premium)
    shares: dict[str, Estimate] = {
        tag: Estimate(float(mixture.share[k]), float(mixture.low[k]), float(mixture.high[k]))
        for k, tag in enumerate(mixture.languages)
    }
    premium = token_premium(
        premium={cost.language: Estimate(cost.premium, *cost.interval) for cost in ordered},
        characters={cost.language: cost.character_premium for cost in ordered},
        utf8={cost.language: cost.byte_premium for cost in ordered},
        against=costs.against,
    )
    allocation = vocabulary_allocation(job.tokenizer, job.texts, seed=job.seed)
    scripts = [
        Evidence(
            claim=f"share of the vocabulary in script {part.script}",
            language="",
            control="none",
            n=part.entries,
            estimate=part.share,
        )
        for part in vocabulary_by_script(job.tokenizer)
    ]
    tags = [share.language for share in allocation.shares]
    return Findings(
        [*costs.rows(), *mixture.rows(), *allocation.rows(), *scripts],
        {
            "premium": premium,
            "training-shares": training_shares(inferred=shares, floor=mixture.decoy),
            "overlap": language_pair_map(value=allocation.matrix(), languages=tags, unit="divergence of tokens (bits)"),
        },
    )
