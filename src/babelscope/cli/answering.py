"""The verb `steer`: answers, or the dose–response curve."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from babelscope.artifacts import Observation
from babelscope.cli.arguments import Device, Dtype, Model, Result, Seed, free, open_recipe, texts_of
from babelscope.corpus import load_corpus
from babelscope.errors import ArtifactError, CorpusError
from babelscope.languages import Language
from babelscope.models import layout_of, open_model
from babelscope.runs import plain, write_atomic
from babelscope.study.parts import sweep_row
from babelscope.sweep_grid import STRENGTHS, sweep_layers
from babelscope.sweeps import Decoding, Prompt, generate_answers, macro, steering_study


def run_steer(
    model: Model,
    steering: Annotated[Positional[Path], arg(metavar="STEERING")],
    prompts: Annotated[Positional[tuple[str, ...]], arg(metavar="PROMPT …")] = (),
    *,
    strength: float = 1.0,
    unit: Literal["raw", "unit", "relative"] = "raw",
    new_tokens: int = 64,
    temperature: float = 0.8,
    sweep: bool = False,
    corpus: str = "reference",
    targets: tuple[str, ...] = (),
    layers: tuple[int, ...] = (),
    strengths: tuple[float, ...] = STRENGTHS,
    out: Path | None = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
) -> Result:
    """Answer prompts under a Direction or SteeringRecipe; or, with --sweep, measure steering from an Observation.

    Args:
        steering: folder of a Direction or SteeringRecipe; of an Observation (with resid_out) for --sweep.
        prompts: texts to continue; one that names a file stands for the file's lines.
        strength: of a Direction, in its unit; a recipe carries its own.
        unit: raw (as the direction is long), unit (of length one), or relative (a share of the stream's mean length).
        new_tokens: of each answer.
        temperature: of sampling; 0 takes the likeliest token.
        sweep: choose layer and strength on the corpus's valid split, score on its test split, write --out.
        corpus: for --sweep, folder with valid and test text, hub id, or "reference".
        targets: for --sweep; none means all observed languages.
        layers: for --sweep; none means the first, and those at 1/8, 1/4 and 1/2 of the depth, as in `study`.
        strengths: for --sweep, to choose from.
        out: for --sweep, folder for steering.json and the directions.
    """
    if out is not None and not sweep:
        raise ArtifactError(f"--out {out} came without --sweep; expected both; answers are printed, leave it out")
    opened, tokenizer = open_model(model, device=device, dtype=dtype)
    decoding = Decoding(new_tokens=new_tokens, temperature=temperature, seed=seed)
    if sweep:
        return sweep_steering(opened, tokenizer, steering, corpus, targets, layers, strengths, out, decoding)
    operations = list(open_recipe(steering, strength, unit))
    texts = [line for word in prompts for line in texts_of(word)]
    if not texts:
        raise CorpusError("no prompt came; expected a text or a file of lines; add one")
    nobody = Language("und")
    requests = [(Prompt(str(number), nobody, text), nobody) for number, text in enumerate(texts)]
    answers = generate_answers(opened, tokenizer, requests, lambda target, source: operations, decoding=decoding)
    return {"answers": [{"prompt": answer.prompt.text, "answer": answer.text} for answer in answers]}


def sweep_steering(
    model: Any,
    tokenizer: Any,
    observation: Path,
    corpus: str,
    targets: tuple[str, ...],
    layers: tuple[int, ...],
    strengths: tuple[float, ...],
    out: Path | None,
    decoding: Decoding,
) -> Result:
    """The dose–response study behind `steer --sweep`."""
    if out is None:
        raise ArtifactError("--sweep came without --out; expected a folder for its table; add --out")
    free(out)
    observed, n_layers = Observation.load(observation), layout_of(model).n_layers
    wanted = targets or observed.languages
    study = steering_study(
        model,
        tokenizer,
        observed,
        dev=load_corpus(corpus, observed.languages, split="valid"),
        test=load_corpus(corpus, observed.languages, split="test"),
        targets=wanted,
        layers=layers or sweep_layers(n_layers),
        strengths=strengths,
        decoding=decoding,
        progress=True,
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
        "sweep": [sweep_row(point) for point in study.points],
        "not_measurable": list(study.not_measurable),
    }
    write_atomic(out / "steering.json", json.dumps(plain(result), indent=1, ensure_ascii=False))
    for tag, direction in study.directions.items():
        direction.save(out / "directions" / tag)
    return {"out": str(out), **plain({key: result[key] for key in ("layer", "strength", "edge", "macro")})}
