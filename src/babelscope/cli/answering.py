"""The verb `steer`: plain and steered answers beside each other, or the dose–response curve."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from babelscope.cli.arguments import Chat, Device, Dtype, Model, Result, SameText, Seed, System, alone
from babelscope.cli.asking import chat_prompts, open_steering, read_prompts
from babelscope.cli.sweeping import sweep_steering
from babelscope.cli.telling import Told
from babelscope.errors import ArtifactError, CorpusError
from babelscope.languages import Language
from babelscope.models import open_model
from babelscope.sweep_grid import STRENGTHS
from babelscope.sweeps import AnswerPair, Decoding, compare_answers, meant_language, overridden_settings

SWEPT = 0.8
"""The sweep's temperature where none is asked for: its answers are draws."""


@alone
def run_steer(
    model: Model,
    steering: Annotated[Positional[Path], arg(metavar="STEERING")],
    prompts: Annotated[Positional[tuple[str, ...]], arg(metavar="PROMPT …")] = (),
    *,
    chat: Chat = False,
    system: System = "",
    target: str = "",
    strength: float = 1.0,
    unit: Literal["raw", "unit", "relative"] = "raw",
    new_tokens: int = 64,
    temperature: float | None = None,
    sweep: bool = False,
    corpus: str = "reference",
    questions: str = "",
    targets: tuple[str, ...] = (),
    layers: tuple[int, ...] = (),
    strengths: tuple[float, ...] = STRENGTHS,
    out: Path | None = None,
    same_text: SameText = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
) -> Result:
    """Answer prompts as the model is and steered, side by side; or, with --sweep, measure steering from an Observation.

    Args:
        steering: folder of a Direction, SteeringRecipe or Delta; of an Observation (with resid_out) for --sweep.
        prompts: texts; one that names a file stands for its lines, or for the rows of a .jsonl file: a prompt each, of
            several lines where it has them.
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
        out: for --sweep, folder for steering.json and the directions.
    """
    if out is not None and not sweep:
        raise ArtifactError(f"--out {out} came without --sweep; expected both; answers are printed, leave it out")
    heat = (SWEPT if sweep else 0.0) if temperature is None else temperature
    decoding = Decoding(new_tokens=new_tokens, temperature=heat, seed=seed)
    if sweep:
        if target:
            raise ArtifactError(f"--target {target} came with --sweep; expected --targets; write it so")
        asked = chat_prompts(chat, system, questions, same_text)
        opened, tokenizer = open_model(model, device=device, dtype=dtype)
        return sweep_steering(
            opened,
            tokenizer,
            steering,
            corpus,
            targets,
            layers,
            strengths,
            out,
            decoding,
            chat=asked,
            same_text=same_text,
        )
    if same_text:
        raise ArtifactError("--same-text came without --sweep; expected both; nothing is chosen here, leave it out")
    if questions:
        raise ArtifactError(f"--questions {questions} came without --sweep; expected prompts; name the file as one")
    wanted = Language.parse(target) if target else None
    asked_for = read_prompts(prompts, chat=chat, system=system)
    if not asked_for:
        raise CorpusError("no prompt came; expected a text or a file of lines; add one")
    loaded = open_steering(steering, strength, unit)
    opened, tokenizer = open_model(model, device=device, dtype=dtype)
    pairs = compare_answers(opened, tokenizer, loaded, asked_for, target=wanted, strength=strength, decoding=decoding)
    aside = overridden_settings(opened, decoding)
    return told(pairs, wanted or meant_language(loaded), decoding, chat, aside)


def told(
    pairs: Sequence[AnswerPair],
    target: Language | None,
    decoding: Decoding,
    chat: bool,
    overridden: Mapping[str, Any],
) -> Told:
    """The pairs as fields, and as lines for a person; overridden: see `overridden_settings`."""
    how = (
        "greedy"
        if decoding.temperature == 0
        else f"sampled at temperature {decoding.temperature}, seed {decoding.seed}"
    )
    rows = [
        {
            "prompt": pair.prompt.text,
            **({"messages": [message.as_dict() for message in pair.prompt.messages]} if chat else {}),
            "plain": {"text": pair.plain.text, "language": pair.plain_language, "ended": pair.plain.ended},
            "steered": {"text": pair.steered.text, "language": pair.steered_language, "ended": pair.steered.ended},
            "verdict": pair.verdict,
        }
        for pair in pairs
    ]
    fields = {
        "target": target,
        "decoding": how,
        "new_tokens": decoding.new_tokens,
        "chat": chat,
        "overridden_settings": dict(overridden),
        "answers": rows,
    }
    head = f"{how}, {'at most ' if chat else ''}{decoding.new_tokens} new tokens"
    asked = "" if target is None else f"; asked for {named(target)}"
    spoken = ", ".join(f"{name} {value}" for name, value in overridden.items())
    aside = [f"the checkpoint's own settings are left aside: {spoken}"] if overridden else []
    return Told(fields, [head + asked, *aside, *(line for pair in pairs for line in pair_lines(pair, target))])


def pair_lines(pair: AnswerPair, target: Language | None) -> Iterator[str]:
    """A prompt, its two answers with their languages, and what is wrong with the second."""
    yield ""
    yield from labelled("prompt", "", pair.prompt.text)
    yield from labelled("plain", pair.plain_language or "?", pair.plain.text)
    yield from labelled("steered", pair.steered_language or "?", pair.steered.text)
    if target is None or pair.verdict in (None, "right"):
        return
    other = pair.steered_language
    if other is not None and other != target:
        yield f"  the steered answer is in {named(other)}, not in {named(target)}"
    else:
        yield f"  the steered answer is not in {named(target)} alone: {pair.verdict}"


def labelled(what: str, tag: str, text: str) -> Iterator[str]:
    """A text behind what it is; further lines stand below its first."""
    label = f"{what:8}{f'[{tag}]' if tag else '':7}"
    for number, line in enumerate(text.splitlines() or [""]):
        yield f"{label if number == 0 else ' ' * len(label)} {line}".rstrip()


def named(tag: Language) -> str:
    """A language's English name and tag."""
    return f"{tag.english_name} ({tag})"
