"""A dose–response study of directions, from an observation to the folder with its table, picture and directions."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Observation
from babelscope.artifacts.storage import TENSORS
from babelscope.corpus import Corpus
from babelscope.figures import SIDE_EFFECTS_CAPTION, side_effect_lines, write_figure
from babelscope.files.state_folder import hash_json
from babelscope.files.strict_json import nan_as_null
from babelscope.files.tensor_files import hash_file
from babelscope.files.work_log import work_log
from babelscope.files.writing import check_new, discard, new_folder, write_text
from babelscope.models import check_made_for, layout_of
from babelscope.models.origin import plan_of_model
from babelscope.models.plain import CausalModel
from babelscope.report.results.record_json import to_json
from babelscope.steering.directions import mean_direction
from babelscope.steering.sweeps import (
    ChatPrompts,
    Decoding,
    SideEffectPoint,
    SteeringStudy,
    macro,
    overridden_settings,
    side_effect_curve,
    steering_study,
)
from babelscope.steering.sweeps.sweep_grid import sweep_layers
from babelscope.study.steering_parts import sweep_row

TABLE, PICTURE = "steering.json", "side_effects.html"


@dataclass(frozen=True)
class SweepPlan:
    """Which directions are tried, how strongly, and how answers are drawn."""

    targets: tuple[str, ...]
    """None: every observed language."""
    layers: tuple[int, ...]
    """None: those that `sweep_layers` takes."""
    strengths: tuple[float, ...]
    decoding: Decoding
    side_effects: int
    """Tokens a language of test text under each strength of the chosen layer; 0 leaves side effects out."""
    chat: ChatPrompts | None
    same_text: bool


def run_sweep(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    observation: Path,
    texts: Mapping[str, Corpus],
    plan: SweepPlan,
    out: Path,
    checkpoint: Path,
) -> dict[str, Any]:
    """Choose layer and strength on valid text, score them on test text, and write the new folder `out`.

    observation: folder; its directions are means. What an interrupted run of the same plan left in `checkpoint` is
    taken from there. Returns what its steering.json says, NaN as None.
    Raises ArtifactError where `out` is there, LanguageError or SiteError for a target or layer that was not observed,
    before any answer.
    """
    check_new(out)
    observed = Observation.load(observation)
    check_made_for(observed.origin, model, tokenizer, str(observation))
    targets = plan.targets or observed.languages
    layers = plan.layers or sweep_layers(layout_of(model).n_layers)
    for target, layer in product(targets, layers):  # a missing one is found here, not after an hour of answers
        mean_direction(observed, target=target, layer=layer)
    decides = {
        **plan_of_model(model, tokenizer),
        "observation": hash_file(observation / TENSORS),
        "text": {split: text.hash for split, text in texts.items()},
        "targets": list(targets),
        "layers": list(layers),
        "strengths": list(plan.strengths),
        "decoding": asdict(plan.decoding),
        "side_effects": plan.side_effects,
        "chat": None if plan.chat is None else plan.chat.card(),
    }
    with work_log(checkpoint, hash_json(decides)):
        study = steering_study(
            model,
            tokenizer,
            observed,
            dev=texts["valid"],
            test=texts["test"],
            targets=targets,
            layers=layers,
            strengths=plan.strengths,
            decoding=plan.decoding,
            chat=plan.chat,
            same_text=plan.same_text,
            progress=True,
        )
    curve: list[SideEffectPoint] = []
    if plan.side_effects:
        curve = side_effect_curve(
            model,
            tokenizer,
            study.directions,
            sorted({point.strength for point in study.points if point.layer == study.chosen.layer}),
            texts["test"],
            max_tokens=plan.side_effects,
            seed=plan.decoding.seed,
        )
    facts = {split: text.facts() for split, text in texts.items()}
    result = {
        **answer_facts(study),
        **side_effect_facts(curve),
        "text": {**facts, "same_text": plan.same_text},
        "chat": decides["chat"],
        "overridden_settings": overridden_settings(model, plan.decoding),
    }
    with new_folder(out) as folder:
        if curve:
            drawn = {"points": result["sweep"], "effects": result["side_effects"], "layer": result["layer"]}
            write_figure(side_effect_lines(**drawn), folder / PICTURE, SIDE_EFFECTS_CAPTION)
        write_text(folder / TABLE, json.dumps(nan_as_null(result), indent=1, ensure_ascii=False))
        for tag, direction in study.directions.items():
            direction.save(folder / "directions" / tag)
    discard(checkpoint)
    return nan_as_null(result)


def answer_facts(study: SteeringStudy) -> dict[str, Any]:
    """What was chosen, how often answers are right under it and without it, and every point that was tried."""
    trials = {"steered": study.steered, "native": study.native, "unsteered": study.unsteered, "random": study.random}
    if study.other_language is not None:
        trials["other_language"] = study.other_language
    return {
        "layer": study.chosen.layer,
        "strength": study.chosen.strength,
        "edge": list(study.edge),
        "macro": {name: list(macro(trial.answers, trial.scores)) for name, trial in trials.items()},
        "success": {tag: [score.success, score.low, score.high] for tag, score in study.steered.scores.items()},
        "perplexity_ratio": {tag: score.perplexity_ratio for tag, score in study.steered.scores.items()},
        "sweep": [to_json(sweep_row(point)) for point in study.points],
        "not_measurable": list(study.not_measurable),
    }


def side_effect_facts(curve: list[SideEffectPoint]) -> dict[str, Any]:
    """What steering does to other text, by strength."""
    untouched = [{"target": row.target, "strength": row.strength, **row.untouched._asdict()} for row in curve]
    return {"side_effects": [row for point in curve for row in point.rows()], "untouched": untouched}
