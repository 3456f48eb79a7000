"""The verb `consistency`."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import ByFunction, SavedAs, alone, checkpoint_of, free
from babelscope.cli.arguments import Device, Dtype, File, LanguageTag, Model, Out, Result
from babelscope.cli.finished_calls import kept_result
from babelscope.cli.flag_conditions import UsedWith
from babelscope.cli.quantities import Count, CountOrNone, Draws, NewTokens, Seed, SteeringStrength, Temperature
from babelscope.cli.telling import Told
from babelscope.errors import CorpusError
from babelscope.files.folder_kinds import format_of
from babelscope.languages import Language

DIRECTION = UsedWith(
    "with a Direction as --steer",
    lambda call: call["steer"] is not None and format_of(call["steer"]).startswith("babelscope.Direction/"),
)
TEMPLATE = UsedWith("without --no-chat", lambda call: call["chat"])


def check_questions(name: str) -> None:
    """Raise CorpusError for a path where nothing is."""
    if not os.path.exists(name):
        raise CorpusError(f"{name}: no such file or folder; expected questions; correct the path")


def language_or_own(word: str) -> None:
    """Understand a tag, or "own"."""
    if word != "own":
        Language.parse(word)


@alone
def run_consistency(
    model: Model,
    questions: Annotated[Positional[str], ByFunction(check_questions), arg(metavar="QUESTIONS")],
    *,
    out: Out,
    languages: tuple[LanguageTag, ...] = (),
    count: CountOrNone = 0,
    against: LanguageTag = "en",
    chat: bool = True,
    system: Annotated[str, TEMPLATE] = "",
    think_in: tuple[Annotated[str, ByFunction(language_or_own)], ...] = (),
    prefixes: Annotated[File | None, UsedWith("with --think-in", lambda call: bool(call["think_in"]))] = None,
    steer: Annotated[Path | None, SavedAs(("Direction", "SteeringRecipe"))] = None,
    strength: Annotated[SteeringStrength, DIRECTION] = 1.0,
    unit: Annotated[Literal["raw", "unit", "relative"], DIRECTION] = "raw",
    answer_draws: CountOrNone = 0,
    temperature: Annotated[Temperature, UsedWith("with --answer-draws", lambda call: call["answer_draws"] > 0)] = 0.7,
    new_tokens: NewTokens = 256,
    batch_size: Count = 32,
    draws: Draws = 999,
    resume: bool = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
) -> Result:
    """The same questions in several languages: which are right, whether answers agree, and what is reasoned in which.

    Numbers are answered in writing, by the likeliest token each time; the last number of an answer counts. Of options
    the likeliest counts.

    Args:
        questions: file of rows with id, language, question and answer (and choice1, choice2 …); or a folder with a file
            per language, as of MGSM or XCOPA.
        out: folder for results.jsonl, answers.jsonl, consistency.json and maps; an interrupted run is kept beside it.
        languages: BCP-47 tags; none means every language of the questions.
        count: questions to ask, the first ones; 0 asks all.
        against: the language that others are compared with, and a vote of all languages.
        chat: ask by the model's own chat template; --no-chat has the question's text gone on with.
        system: a system prompt before each question; none leaves it to the template.
        think_in: begin the answers in these languages, and see what it costs: tags, or own for the question's.
        prefixes: file of rows with language and text, the first words of answers; none takes the bundled ones.
        steer: also answer under a Direction, or a SteeringRecipe (such as neurons off), beside random steering.
        strength: of a Direction, in its unit; a recipe carries its own.
        unit: of that strength: raw, unit or relative.
        answer_draws: also draw so many answers to each question in --against and put them to the vote, which is the
            control of the vote of as many languages; 0 draws none.
        temperature: of the drawn answers.
        new_tokens: of each answer at most; what was cut off is no answer, unless --no-chat.
        batch_size: questions that are answered together.
        draws: shuffles and random signs behind p-values.
        resume: go on with an interrupted run of the same command; done at once if it is complete.
    """
    checkpoint = checkpoint_of(out, resume=resume)
    from babelscope.artifacts.storage import CONFIG, TENSORS
    from babelscope.cli.saved import open_recipe
    from babelscope.cli.telling_thought import thought_lines
    from babelscope.files.state_folder import hash_json
    from babelscope.files.tensor_files import hash_file
    from babelscope.files.work_log import work_log
    from babelscope.files.writing import discard
    from babelscope.models import open_model
    from babelscope.models.origin import plan_of_model
    from babelscope.probes.thought import PREFIXES, ThoughtPlan, measure_thought, read_prefixes, read_questions
    from babelscope.probes.thought.thought_report import RESULT

    finished = (
        kept_result(out, RESULT, checkpoint, lambda kept: Told(kept, thought_lines(kept, model, questions, out)))
        if resume
        else None
    )
    if finished is not None:
        return finished
    free(out)
    table = read_questions(questions).only(languages, count=count)
    plan = ThoughtPlan(
        against=against,
        chat=chat,
        system=system or None,
        think_in=think_in,
        prefixes=PREFIXES if prefixes is None else {**PREFIXES, **read_prefixes(prefixes)},
        answer_draws=answer_draws,
        temperature=temperature,
        new_tokens=new_tokens,
        batch_size=batch_size,
        draws=draws,
        seed=seed,
    )
    recipe = None if steer is None else open_recipe(steer, strength, unit)
    plan.check(table, steered=recipe is not None)
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    run = {
        **plan_of_model(language_model, tokenizer),
        "questions": [[tag, name, *table.questions[tag, name]] for tag in table.languages for name in table.ids],
        "plan": asdict(plan),
        "steer": [] if steer is None else [strength, unit, *(hash_file(steer / name) for name in (CONFIG, TENSORS))],
    }
    with work_log(checkpoint, hash_json(run)):
        report = measure_thought(language_model, tokenizer, table, plan=plan, recipe=recipe, progress=True)
    report.save(out)
    discard(checkpoint)
    fields = report.summary()
    return Told({"out": str(out), **fields}, thought_lines(fields, model, questions, out))
