"""The verbs `study` and `demo`: the main job whole."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from babelscope.cli.argument_kinds import free
from babelscope.cli.arguments import (
    Chat,
    CorpusName,
    Device,
    LanguageTag,
    Model,
    Out,
    Parallel,
    Result,
    SameText,
    StudyDtype,
    System,
    Text,
)
from babelscope.cli.flag_conditions import UsedWith
from babelscope.cli.quantities import (
    Count,
    Draws,
    Layer,
    Minutes,
    Resamples,
    Seed,
    SteeringStrength,
    TokenAmount,
    TokensOrNone,
)
from babelscope.cli.telling import Told
from babelscope.study.budget import MAIN, Budget

STEERED = UsedWith("without --no-steering", lambda call: call["steering"])
Samples = Annotated[bool, arg(help="show prompts and answers in the report.")]


def run_demonstration(
    *,
    out: Out,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: StudyDtype = "auto",
    include_samples: Samples = True,
) -> Result:
    """The main job on the bundled model and corpus; writes results.json and report.html into a new folder.

    Args:
        out: the new folder.
    """
    from babelscope.study import run_study

    settings: dict[str, Any] = {"device": device, "dtype": dtype, "seed": seed, "include_samples": include_samples}
    return study_summary(out, run_study("reference", "reference", free(out), languages=MAIN, progress=True, **settings))


def run_whole_study(
    model: Model,
    corpus: Text,
    *,
    out: Out,
    languages: tuple[LanguageTag, ...] = (),
    tokens_per_language: TokenAmount = Budget.observe_tokens,
    choose_tokens: TokenAmount | None = None,
    ablate_tokens: TokenAmount | None = None,
    part_tokens: TokensOrNone | None = None,
    draws: Draws = Budget.draws,
    script_documents: Count = Budget.script_documents,
    resamples: Resamples = Budget.resamples,
    minutes: Minutes | None = None,
    steering: bool = True,
    same_text: SameText = False,
    parallel: Parallel = False,
    chat: Annotated[Chat, STEERED] = False,
    system: Annotated[System, STEERED] = "",
    questions: Annotated[CorpusName, STEERED, UsedWith("with --chat", lambda call: call["chat"])] = "",
    layers: Annotated[tuple[Layer, ...], STEERED] = (),
    strengths: Annotated[tuple[SteeringStrength, ...], STEERED] = Budget.strengths,
    dev_prompts: Annotated[Count, STEERED] = Budget.dev_prompts,
    test_prompts: Annotated[Count, STEERED] = Budget.test_prompts,
    random_prompts: Annotated[Count, STEERED] = Budget.random_prompts,
    resume: bool = False,
    check_language: bool = True,
    include_samples: Samples = True,
    device: Device = "auto",
    dtype: StudyDtype = "auto",
    seed: Seed = 0,
) -> Result:
    """The main job on your model and text: observe, identify, control, ablate, steer, and one page that shows it all.

    Method and rate, layer and strength are chosen on the valid split; the test split is scored once. What every stage
    will take is said first, by a few batches that are timed; all amounts are flags.

    Args:
        corpus: folder of <tag>.txt or .jsonl, file of rows with language and text, hub id, or "reference";
            without splits it is dealt out by document.
        out: folder for results.json, report.html, the observation, the neurons and the directions.
        languages: BCP-47 tags; none means every file of the corpus folder.
        tokens_per_language: tokens observed, at most.
        choose_tokens: scored tokens per language for each method and rate that is tried, valid split; 250, or 180 where
            the vocabulary has 100,000 entries or more, as a scored token then costs several times as much.
        ablate_tokens: scored tokens per language with a set switched off, test split; 700, or 400.
        part_tokens: the same with a part of a set off, such as the neurons that no other language has; 250, or 180;
            0: no parts.
        draws: random sets of each control; 19 is the fewest whose rank p can reach .05.
        script_documents: documents per language that are read in Latin letters too, valid split.
        resamples: bootstraps, half-splits and shuffles of labels, each so many.
        minutes: make the amounts smaller until all stages fit into so many minutes on this machine, by batches that are
            timed; no amount falls so low that its interval says nothing, and no draws are dropped.
        steering: --no-steering leaves steering out, and so all generation.
        questions: with --chat, folder of <tag>.txt or <tag>.jsonl with what is asked in each language; none asks the
            corpus's own texts. The native ceiling is then the answer to a question in the target language.
        layers: of the steering sweep; none means the first, and those at 1/8, 1/4 and 1/2 of the depth.
        strengths: of the steering sweep, in multiples of the difference of means.
        dev_prompts: prompts per target for each layer and strength.
        test_prompts: prompts per target for the score.
        random_prompts: prompts per target without steering, and under random and other languages' directions.
        resume: go on where an interrupted run of the same command stopped.
        check_language: refuse text that is mostly another language than its label says.
    """
    from babelscope.cli.asking import chat_prompts
    from babelscope.study import run_study

    budget = Budget(
        observe_tokens=tokens_per_language,
        choose_tokens=choose_tokens,
        ablate_tokens=ablate_tokens,
        part_tokens=part_tokens,
        script_documents=script_documents,
        draws=draws,
        resamples=resamples,
        layers=layers,
        strengths=strengths,
        dev_prompts=dev_prompts,
        test_prompts=test_prompts,
        random_prompts=random_prompts,
    )
    results = run_study(
        model,
        corpus,
        out if resume and out.exists() else free(out),
        languages=languages or None,
        budget=budget,
        minutes=minutes,
        steering=steering,
        same_text=same_text,
        parallel=parallel,
        chat=chat_prompts(chat, system, questions, same_text),
        check_language=check_language,
        resume=resume,
        device=device,
        dtype=dtype,
        seed=seed,
        include_samples=include_samples,
        progress=True,
    )
    return study_summary(out, results)


def study_summary(out: Path, results: Mapping[str, Any]) -> Result:
    """What is printed of a study, as fields for machines and as lines for a person."""
    from babelscope.cli.telling_steering import study_lines

    steering, report = results.get("steering") or {}, out / "report.html"
    fields = {
        "report": str(report),
        "neurons": results["neurons"],
        "top_rate": results["top_rate"],
        "own_hurt_most": sum(results["ablation"]["own_hurt_most"].values()),
        **({"steering_macro": steering["macro"], "steering_edge": steering["edge"]} if steering else {}),
        "seconds": results["seconds"],
    }
    return Told(fields, study_lines(results, report))
