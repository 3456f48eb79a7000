"""The verb `evaluate`."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from babelscope.cli.arguments import Chat, Device, Dtype, Result, Seed, System, alone, free
from babelscope.cli.asking import read_lines, read_prompts
from babelscope.cli.prompt_sets import ModelAnswers, PromptSet, answers_of, prompts_of
from babelscope.cli.saved import open_recipe
from babelscope.corpus import load_corpus
from babelscope.errors import ArtifactError, ChatError
from babelscope.evaluation import (
    Confusion,
    Identifier,
    LabelSet,
    average_confusion,
    bits_per_byte,
    corrected_confusion,
    english_words,
    judge_by,
    load_answers,
    open_identifier,
    published_confusion,
)
from babelscope.files.writing import new_folder, write_text
from babelscope.languages import Language
from babelscope.models import open_model
from babelscope.runs import plain
from babelscope.sweeps import (
    Decoding,
    SteeringEvaluation,
    evaluate_steering,
    judge_errors,
    language_effects,
    overridden_settings,
    steered_tokens,
    untouched_prompts,
)
from babelscope.sweeps.evaluated import LanguageScore

Scores = dict[tuple[str, str, str], Confusion]
"""By task, prompt set and language."""


@alone
def run_evaluate(
    what: Positional[Literal["perplexity", "confusion", "steering"]],
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    inputs: Annotated[Positional[tuple[str, ...]], arg(metavar="INPUT …")],
    *,
    target: str = "",
    chat: Chat = False,
    system: System = "",
    prompt_set: PromptSet = "lines",
    sources: tuple[str, ...] = (),
    strength: float = 1.0,
    unit: Literal["raw", "unit", "relative"] = "raw",
    references: Path | None = None,
    native: Path | None = None,
    corpus: str = "",
    languages: tuple[str, ...] = (),
    split: str = "test",
    max_length: int = 512,
    identifier: str = "lingua",
    labels: LabelSet | None = None,
    words: Path | None = None,
    published: bool = True,
    new_tokens: int = 100,
    temperature: float = 0.8,
    resamples: int = 1000,
    out: Path | None = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
) -> Result:
    """Held-out bits per byte, language confusion of answers, or the whole score of a steering recipe.

    perplexity MODEL CORPUS: bits per byte by language.
    confusion - ANSWERS: LPR and WPR of answers in files (`<tag>.txt`, or rows with language and answer).
    confusion MODEL PROMPTS: the same of the model's own answers to a Language Confusion prompt set.
    steering MODEL RECIPE PROMPTS --target TAG --out DIR: success, content, fluency and what else the recipe changes; a
    Direction is taken for a recipe too.

    Args:
        what: what is measured, as above.
        model: folder, hub id, or "reference"; "-" where answers come in files.
        inputs: what stands after the model, as above.
        target: the language a steered answer should be in.
        prompt_set: what PROMPTS is, for steering: a file with one prompt a line, or a row of a .jsonl file; or a
            folder, file or data set of Language Confusion prompts, of which those for the target are taken; or of CLaS
            questions in many languages.
        sources: for CLaS, the languages of the questions; none means all but the target.
        strength: of a Direction that came in place of a recipe, in its unit; a recipe carries its own.
        unit: of that strength: raw, unit or relative.
        references: for steering, a file with what each answer should say, one a line.
        native: for steering, a file with beginnings in the target language; fluency is measured beside their
            continuations, and without them beside the unsteered answers.
        corpus: held-out text of any languages. How often the judge errs on its lines is measured before it judges
            answers; for steering, side effects on each language too.
        languages: BCP-47 tags; none means every language of the text or prompts.
        split: for perplexity and side effects, the text that is scored.
        max_length: tokens a document at most, BOS included.
        identifier: "lingua", or the path of a fastText model, whose label set --labels names.
        labels: the label set of a fastText model.
        words: the English word list of WPR, one a line; none means the bundled sentences' words.
        published: score by the published rule too; it needs jieba for zh and fugashi for ja.
        new_tokens: of each answer.
        temperature: of sampling; 0 takes the likeliest token.
        resamples: of prompts, for intervals.
        out: for steering, a folder for steering.json and rows.jsonl; for confusion, one for confusion.json.
    """
    if (chat or system) and (what == "perplexity" or model == "-" or not chat):
        raise ChatError(
            "--chat or --system came where nothing is asked with them; expected --chat with `steering` or `confusion "
            "MODEL`; leave them out, or add --chat to --system"
        )
    if what == "perplexity":
        (name,) = expected(inputs, 1, "perplexity MODEL CORPUS")
        texts = load_corpus(name, languages or None, split=split)
        opened, tokenizer = open_model(model, device=device, dtype=dtype)
        return {"bits_per_byte": bits_per_byte(opened, tokenizer, texts, max_length=max_length)}
    identify = open_identifier(identifier, labels=labels)
    decoding = Decoding(new_tokens=new_tokens, temperature=temperature, seed=seed)
    texts = load_corpus(corpus, languages or None, split=split) if corpus else None
    errors = {} if texts is None else judge_errors(texts, identifier=identify, seed=seed)
    described_errors = {tag: tidy(error) for tag, error in errors.items()}
    if what == "confusion":
        (name,) = expected(inputs, 1, "confusion MODEL PROMPTS, or confusion - ANSWERS")
        place = Path(name) / split if (Path(name) / split).is_dir() else Path(name)
        answers = (
            ModelAnswers(load_answers(place), {})
            if model == "-"
            else answers_of(model, name, languages, decoding, device, dtype, chat=chat, system=system)
        )
        return confusion_of(answers, identify, words, published, out, described_errors)
    recipe, prompts = expected(inputs, 2, "steering MODEL RECIPE PROMPTS")
    if out is None or not target:
        raise ArtifactError("steering came without --target or without --out; expected both; add them")
    free(out)
    wanted = Language.parse(target)
    asked = prompts_of(prompts, prompt_set, wanted, sources, chat=chat, system=system)
    beginnings = [] if native is None else read_prompts([str(native)], chat=chat, system=system, source=wanted)
    loaded = open_recipe(Path(recipe), strength, unit)
    opened, tokenizer = open_model(model, device=device, dtype=dtype)
    found = evaluate_steering(
        opened,
        tokenizer,
        loaded,
        asked,
        target=wanted,
        references=None if references is None else read_lines(references, "references"),
        native_prompts=beginnings,
        identifier=identify,
        published=published,
        decoding=decoding,
        resamples=resamples,
        seed=seed,
    )
    result = described(found)
    result["judge_errors"] = described_errors
    result["decoding"] = asdict(decoding)
    result["overridden_settings"] = overridden_settings(opened, decoding)
    result["chat"] = {"system": system or None} if chat else None
    result["untouched"] = untouched_prompts(opened, tokenizer, loaded, asked[:16])._asdict()
    if texts is not None:
        effects = language_effects(
            opened, tokenizer, loaded, texts, max_length=max_length, resamples=resamples, seed=seed
        )
        result["other_languages"] = {tag: tidy(effect) for tag, effect in effects.items()}
    rows = "".join(f"{json.dumps(plain(row), ensure_ascii=False)}\n" for row in found.rows())
    with new_folder(out) as folder:
        write_text(folder / "rows.jsonl", rows)
        write_text(folder / "steering.json", json.dumps(plain(result), indent=1, ensure_ascii=False))
    short = (
        "target",
        "n",
        "success",
        "unsteered_success",
        "chrf",
        "score",
        "perplexity_ratio",
        "distinct4_ratio",
        "judge_errors",
    )
    return {"out": str(out), **plain({key: result[key] for key in (*short, "judge_errors")})}


def expected(inputs: tuple[str, ...], count: int, form: str) -> tuple[str, ...]:
    """The inputs, if there are as many as that form has."""
    if len(inputs) != count:
        raise ArtifactError(f"{len(inputs)} inputs came after the model; expected `{form}`; see --help")
    return inputs


def confusion_of(
    answers: ModelAnswers,
    identifier: Identifier,
    words: Path | None,
    published: bool,
    out: Path | None,
    errors: Mapping[Language, Any],
) -> Result:
    """Both forms by task, prompt set and language, and their averages over languages, also of each task by itself."""
    if out is not None:
        free(out)
    english, groups = english_words(words), {}
    for answer in answers.texts:
        groups.setdefault((answer.task, answer.set, answer.language), []).append(answer.text)
    forms: dict[str, Scores] = {
        "corrected": {
            key: corrected_confusion(texts, key[2], identifier=identifier, english=english)
            for key, texts in groups.items()
        }
    }
    if published:
        forms["published"] = {
            key: published_confusion(texts, key[2], identifier=identifier, english=english)
            for key, texts in groups.items()
        }
    verdicts: dict[str, dict[str, int]] = {}
    for (_, _, tag), texts in groups.items():
        for judged in judge_by(identifier, texts, tag):
            counts = verdicts.setdefault(tag, {})
            counts[judged.verdict] = counts.get(judged.verdict, 0) + 1
    result = {
        "identifier": identifier.name,
        "english_words": len(english),
        "judge_errors": errors,
        "overridden_settings": answers.overridden,
        "verdicts": verdicts,
        **{name: confusion_rows(scores) for name, scores in forms.items()},
        "averages": {name: averages_of(scores) for name, scores in forms.items()},
        "tasks": {
            task: {name: averages_of(scores, task) for name, scores in forms.items()}
            for task in sorted({task for task, _, _ in groups if task})
        },
    }
    if out is not None:
        with new_folder(out) as folder:
            write_text(folder / "confusion.json", json.dumps(plain(result), indent=1, ensure_ascii=False))
    return plain(result)


def confusion_rows(scores: Scores) -> list[dict[str, Any]]:
    """One row a task, prompt set and language."""
    return [{"task": task, "set": group, **tidy(score)} for (task, group, _), score in scores.items()]


def averages_of(scores: Scores, task: str | None = None) -> dict[str, Any]:
    """Averages over languages of one task, as the benchmark has them, or of all there are."""
    chosen = {key: score for key, score in scores.items() if task in (None, key[0])}
    return average_confusion({(f"{key[0]}/{key[1]}", key[2]): score for key, score in chosen.items()})._asdict()


def tidy(value: Any) -> Any:
    """Named results as mappings, without what stands in the rows."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        fields: dict[str, Any] = getattr(value, "_asdict")()  # noqa: B009 - unknown of a plain tuple
        return {key: tidy(entry) for key, entry in fields.items() if key not in ("passed", "cosines")}
    return value


def described(found: SteeringEvaluation) -> dict[str, Any]:
    """Everything of steering.json but what the verb adds."""
    content, likeness, fluent = found.content, found.similarity, found.fluency
    return {
        "target": found.target,
        "identifier": found.identifier,
        "n": len(found.answers),
        "success": tidy(found.language.success),
        "unsteered_success": tidy(found.unsteered.success),
        "language": language_row(found.language),
        "unsteered": language_row(found.unsteered),
        "chrf": None if content is None else tidy(content.chrf),
        "content": tidy(content),
        "similarity": tidy(likeness),
        "score": tidy(found.score),
        "fluency": tidy(fluent),
        "fluency_beside": found.beside,
        "perplexity_ratio": tidy(fluent.perplexity_ratio),
        "distinct4_ratio": tidy(fluent.distinct4_ratio),
        "kept": tidy(found.kept),
        "receipt": steered_tokens(found.answers),
    }


def language_row(score: LanguageScore) -> dict[str, Any]:
    """Success by answer and by line, and both forms of the pass rates."""
    return {
        "success": tidy(score.success),
        "lines": tidy(score.lines),
        "verdicts": score.verdicts,
        "published": tidy(score.published),
        "corrected": tidy(score.corrected),
    }
