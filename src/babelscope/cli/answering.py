"""The verb `steer`: plain and steered answers beside each other, or the dose–response curve."""

import logging
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import SavedAs, alone
from babelscope.cli.arguments import Chat, CorpusName, Device, Dtype, LanguageTag, Model, Out, Result, SameText, System
from babelscope.cli.flag_conditions import UsedWith, saved_as
from babelscope.cli.quantities import Layer, NewTokens, Seed, SteeringStrength, Temperature, TokensOrNone
from babelscope.cli.readable import number_of
from babelscope.errors import CorpusError, UsageError
from babelscope.languages import Language
from babelscope.steering.sweeps.sweep_grid import STRENGTHS

log = logging.getLogger(__name__)
SWEPT = 0.8
"""The sweep's temperature where none is asked for: its answers are draws."""
SWEEP = UsedWith("with --sweep", lambda call: call["sweep"])
SAMPLED = UsedWith("with --sweep or a --temperature above 0", lambda call: call["sweep"] or call["temperature"])
ANSWERS = UsedWith("without --sweep", lambda call: not call["sweep"])


@alone
def run_steer(
    model: Model,
    steering: Annotated[
        Positional[Path], SavedAs(("Direction", "SteeringRecipe", "Delta", "Observation")), arg(metavar="STEERING")
    ],
    prompts: Annotated[Positional[tuple[str, ...]], ANSWERS, arg(metavar="PROMPT …")] = (),
    *,
    chat: Chat = False,
    system: System = "",
    target: Annotated[
        LanguageTag, UsedWith("without --sweep, which has --targets", lambda call: not call["sweep"])
    ] = "",
    strength: Annotated[SteeringStrength, ANSWERS, saved_as("steering", "Direction", "Delta")] = 1.0,
    unit: Annotated[Literal["raw", "unit", "relative"], ANSWERS, saved_as("steering", "Direction")] = "raw",
    new_tokens: NewTokens = 64,
    temperature: Temperature | None = None,
    sweep: bool = False,
    corpus: Annotated[CorpusName, SWEEP] = "reference",
    questions: Annotated[CorpusName, SWEEP, UsedWith("with --chat", lambda call: call["chat"])] = "",
    targets: Annotated[tuple[LanguageTag, ...], SWEEP] = (),
    layers: Annotated[tuple[Layer, ...], SWEEP] = (),
    strengths: Annotated[tuple[SteeringStrength, ...], SWEEP] = STRENGTHS,
    side_effects: Annotated[TokensOrNone, SWEEP] = 0,
    out: Annotated[Out | None, SWEEP] = None,
    same_text: Annotated[SameText, SWEEP] = False,
    resume: Annotated[bool, SWEEP] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Annotated[Seed, SAMPLED] = 0,
) -> Result:
    """Answer prompts as the model is and steered, side by side; or, with --sweep, measure steering from an Observation.

    Args:
        steering: folder of a Direction, SteeringRecipe or Delta; of an Observation (with resid_out) for --sweep.
        prompts: texts; one that names a file stands for its lines, or for the rows of a .jsonl, .csv or .tsv file:
            a prompt each, of several lines where it has them.
        target: the language the steered answers should be in, as a tag; none means the one the steering is made for.
        strength: of a Direction, in its unit; scale of a Delta; a recipe carries its own.
        unit: raw (as the direction is long), unit (of length one), or relative (a share of the stream's mean length).
        new_tokens: of each answer; with --chat at most so many, for the model may end its turn.
        temperature: of sampling; 0 takes the likeliest token; none means 0, and 0.8 for --sweep.
        sweep: choose layer and strength on the corpus's valid split, score on its test split, write --out.
        corpus: for --sweep, folder with valid and test text, hub id, or "reference".
        questions: for --sweep with --chat, folder with what is asked in each language; none asks the corpus's texts.
        targets: for --sweep; none means all observed languages.
        layers: for --sweep; none means the first, and those at 1/8, 1/4 and 1/2 of the depth, as in `study`.
        strengths: for --sweep, to choose from.
        side_effects: for --sweep, tokens of each text on which side effects at every strength are measured: held-out
            text of all languages, numbers, names, code, prompts that are not steered; 0 leaves them out.
        out: for --sweep, folder for steering.json and the directions; an interrupted sweep is kept beside it.
        resume: for --sweep, go on with an interrupted sweep of the same command; done at once if it is complete.
    """
    if sweep and out is None:
        raise UsageError("--sweep came without --out; expected a folder for its table; add --out")
    from babelscope.cli.asking import chat_prompts, open_steering, read_prompts
    from babelscope.cli.sweeping import sweep_steering
    from babelscope.cli.telling_answers import told
    from babelscope.models import open_model
    from babelscope.steering.sweeps import Decoding, compare_answers, meant_language, overridden_settings

    heat = (SWEPT if sweep else 0.0) if temperature is None else temperature
    decoding = Decoding(new_tokens=new_tokens, temperature=heat, seed=seed)
    if sweep and out is not None:
        from babelscope.study.sweep_job import SweepPlan

        asked = chat_prompts(chat, system, questions, same_text)
        plan = SweepPlan(targets, layers, strengths, decoding, side_effects, asked, same_text)
        return sweep_steering(model, steering, corpus, plan, out, resume=resume, device=device, dtype=dtype)
    target_language = Language.parse(target) if target else None
    asked_for = read_prompts(prompts, chat=chat, system=system)
    if not asked_for:
        raise CorpusError("no prompt came; expected a text or a file of lines; add one")
    loaded = open_steering(steering, strength, unit)
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    log.info("answering %s without and with steering", number_of(len(asked_for), "prompt"))
    pairs = compare_answers(
        language_model, tokenizer, loaded, asked_for, target=target_language, strength=strength, decoding=decoding
    )
    overridden = overridden_settings(language_model, decoding)
    return told(pairs, target_language or meant_language(loaded), decoding, chat, overridden)
