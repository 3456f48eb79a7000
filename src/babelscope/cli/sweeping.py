"""`steer --sweep`: the dose–response study of an Observation's directions."""

import json
from dataclasses import asdict
from itertools import product
from pathlib import Path

from babelscope.artifacts import Observation
from babelscope.artifacts.storage import TENSORS
from babelscope.cli.argument_kinds import checkpoint_of, free
from babelscope.cli.arguments import Result
from babelscope.corpus import load_splits
from babelscope.figures import SIDE_EFFECTS_CAPTION, side_effect_lines, write_figure
from babelscope.files.state_folder import hash_json
from babelscope.files.strict_json import nan_as_null, read_json
from babelscope.files.tensor_files import hash_file
from babelscope.files.work_log import work_log
from babelscope.files.writing import discard, new_folder, write_text
from babelscope.models import check_made_for, layout_of, open_model
from babelscope.report.results.record_json import to_json
from babelscope.steering.directions import mean_direction
from babelscope.steering.sweeps import (
    ChatPrompts,
    Decoding,
    SideEffectPoint,
    macro,
    overridden_settings,
    side_effect_curve,
    steering_study,
)
from babelscope.steering.sweeps.sweep_grid import sweep_layers
from babelscope.study.plan import plan_of_model
from babelscope.study.steering_parts import sweep_row

TABLE, PICTURE = "steering.json", "side_effects.html"
TOLD = ("layer", "strength", "edge", "macro")


def sweep_steering(
    model_name: str,
    observation: Path,
    corpus: str,
    targets: tuple[str, ...],
    layers: tuple[int, ...],
    strengths: tuple[float, ...],
    out: Path,
    decoding: Decoding,
    *,
    side_effects: int,
    chat: ChatPrompts | None,
    same_text: bool,
    resume: bool,
    device: str,
    dtype: str,
) -> Result:
    """The dose–response study behind `steer --sweep`."""
    checkpoint = checkpoint_of(out, resume=resume)
    if resume and (out / TABLE).is_file():
        discard(checkpoint)
        table = read_json(out / TABLE, advice="remove the folder and repeat the command")
        return {"out": str(out), "resumed": "complete", **{key: table[key] for key in TOLD}}
    free(out)
    observed = Observation.load(observation)
    target_tags = targets or observed.languages
    texts = load_splits(corpus, observed.languages, splits=("valid", "test"), same_text=same_text)
    model, tokenizer = open_model(model_name, device=device, dtype=dtype)
    check_made_for(observed.origin, model, tokenizer, str(observation))
    layers = layers or sweep_layers(layout_of(model).n_layers)
    for target, layer in product(target_tags, layers):  # a missing one is found here, not after an hour of answers
        mean_direction(observed, target=target, layer=layer)
    plan = {
        **plan_of_model(model, tokenizer),
        "observation": hash_file(observation / TENSORS),
        "text": {split: text.hash for split, text in texts.items()},
        "targets": list(target_tags),
        "layers": list(layers),
        "strengths": list(strengths),
        "decoding": asdict(decoding),
        "side_effects": side_effects,
        "chat": None if chat is None else chat.card(),
    }
    with work_log(checkpoint, hash_json(plan)):
        study = steering_study(
            model,
            tokenizer,
            observed,
            dev=texts["valid"],
            test=texts["test"],
            targets=target_tags,
            layers=layers,
            strengths=strengths,
            decoding=decoding,
            chat=chat,
            same_text=same_text,
            progress=True,
        )
    curve: list[SideEffectPoint] = []
    if side_effects:
        curve = side_effect_curve(
            model,
            tokenizer,
            study.directions,
            sorted({point.strength for point in study.points if point.layer == study.chosen.layer}),
            texts["test"],
            max_tokens=side_effects,
            seed=decoding.seed,
        )
    trials = {"steered": study.steered, "native": study.native, "unsteered": study.unsteered, "random": study.random}
    if study.other_language is not None:
        trials["other_language"] = study.other_language
    result = {
        "layer": study.chosen.layer,
        "strength": study.chosen.strength,
        "edge": list(study.edge),
        "macro": {name: list(macro(trial.answers, trial.scores)) for name, trial in trials.items()},
        "success": {tag: [score.success, score.low, score.high] for tag, score in study.steered.scores.items()},
        "perplexity_ratio": {tag: score.perplexity_ratio for tag, score in study.steered.scores.items()},
        "sweep": [to_json(sweep_row(point)) for point in study.points],
        "side_effects": [row for point in curve for row in point.rows()],
        "untouched": [
            {"target": point.target, "strength": point.strength, **point.untouched._asdict()} for point in curve
        ],
        "not_measurable": list(study.not_measurable),
        "text": {**{split: text.facts() for split, text in texts.items()}, "same_text": same_text},
        "chat": None if chat is None else chat.card(),
        "overridden_settings": overridden_settings(model, decoding),
    }
    with new_folder(out) as folder:
        if curve:
            drawn = {"points": result["sweep"], "effects": result["side_effects"], "layer": result["layer"]}
            write_figure(side_effect_lines(**drawn), folder / PICTURE, SIDE_EFFECTS_CAPTION)
        write_text(folder / TABLE, json.dumps(nan_as_null(result), indent=1, ensure_ascii=False))
        for tag, direction in study.directions.items():
            direction.save(folder / "directions" / tag)
    discard(checkpoint)
    return {"out": str(out), **nan_as_null({key: result[key] for key in TOLD})}
