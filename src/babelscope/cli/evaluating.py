"""The three jobs of `babelscope evaluate`: perplexity, confusion and steering; each takes the flags that it uses."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import ByFunction, PlainFile, SavedAs, alone, check_prompts_name, free, is_given
from babelscope.cli.arguments import (
    Chat,
    CorpusName,
    Device,
    Dtype,
    File,
    LanguageTag,
    Model,
    Out,
    Result,
    Split,
    System,
    Text,
)
from babelscope.cli.flag_conditions import UsedWith, saved_as
from babelscope.cli.quantities import NewTokens, Resamples, RowLength, Seed, SteeringStrength, Temperature
from babelscope.cli.telling import Told
from babelscope.evaluation.label_tables import LabelSet
from babelscope.files.strict_json import nan_as_null
from babelscope.files.writing import new_folder, write_text
from babelscope.languages import Language
from babelscope.models.model_names import check_model_name

IdentifierName = Annotated[
    str, ByFunction(is_given), arg(help='"lingua", or the path of a fastText model, whose label set --labels names.')
]
FASTTEXT = UsedWith("with a fastText model as --identifier", lambda call: call["identifier"] != "lingua")
CLAS = UsedWith("with --prompt-set clas", lambda call: call["prompt_set"] == "clas")
DELTA = "`babelscope steer` lets a trained Delta speak"
DRAWN = UsedWith(
    "with --corpus, or a MODEL and a --temperature above 0",
    lambda call: call["corpus"] or (call["model"] != "-" and call["temperature"]),
)
CORPUS = UsedWith("with --corpus", lambda call: bool(call["corpus"]))
ASKED = UsedWith("with a MODEL that is asked, not with -", lambda call: call["model"] != "-")
PROMPTS = Annotated[Positional[str], ByFunction(check_prompts_name), arg(metavar="PROMPTS")]


def run_perplexity(
    model: Model,
    corpus: Text,
    *,
    languages: tuple[LanguageTag, ...] = (),
    split: Split = "test",
    max_length: RowLength | None = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> Result:
    """Held-out bits per byte by language, with an interval over documents.

    Args:
        corpus: folder of <tag>.txt or .jsonl, file of rows with language and text, hub id, or "reference".
        languages: BCP-47 tags; none means every language of the text.
        split: the text that is scored; a corpus without splits is dealt out by document, and "all" is the whole of it.
        max_length: tokens per document at most, BOS included; none means 512, or as many as the model has positions.
    """
    from babelscope.cli.telling_scores import perplexity_lines
    from babelscope.corpus import load_corpus
    from babelscope.evaluation import held_out_losses
    from babelscope.models import open_model

    texts = load_corpus(corpus, languages or None, split=split)
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    losses = held_out_losses(language_model, tokenizer, texts, max_length=max_length, progress=True)
    fields = {
        "bits_per_byte": {part.language: part.bits_per_byte for part in losses},
        "interval": {part.language: [*map(nan_as_null, part.bits_interval())] for part in losses},
        "nats_per_token": {part.language: part.nats_per_token for part in losses},
        "documents": {part.language: len(part.nats) for part in losses},
        "tokens": {part.language: int(part.tokens.sum()) for part in losses},
        "bytes": {part.language: int(part.n_bytes.sum()) for part in losses},
    }
    return Told(fields, perplexity_lines(fields))


@alone
def run_confusion(
    model: Annotated[
        Positional[str], ByFunction(lambda name: name == "-" or check_model_name(name)), arg(metavar="MODEL")
    ],
    prompts: PROMPTS,
    *,
    chat: Annotated[Chat, ASKED] = False,
    system: Annotated[System, ASKED] = "",
    corpus: CorpusName = "",
    languages: Annotated[
        tuple[LanguageTag, ...],
        UsedWith("with a MODEL or with --corpus", lambda call: call["model"] != "-" or call["corpus"]),
    ] = (),
    split: Annotated[
        Split, UsedWith("with --corpus or with -", lambda call: call["model"] == "-" or call["corpus"])
    ] = "test",
    identifier: IdentifierName = "lingua",
    labels: Annotated[LabelSet | None, FASTTEXT] = None,
    words: File | None = None,
    published: bool = True,
    new_tokens: Annotated[NewTokens, ASKED] = 100,
    temperature: Annotated[Temperature, ASKED] = 0.8,
    out: Out | None = None,
    device: Annotated[Device, ASKED] = "auto",
    dtype: Annotated[Dtype, ASKED] = "auto",
    seed: Annotated[Seed, DRAWN] = 0,
) -> Result:
    """Language confusion: the line and word pass rates of a model's answers, or of answers in files.

    confusion MODEL PROMPTS: of the model's own answers to a Language Confusion prompt set.
    confusion - ANSWERS: of answers in files (`<tag>.txt`, or rows with language and answer).

    Args:
        model: folder, hub id, or "reference"; "-" where answers come in files.
        prompts: the prompt set, or after "-" the file or folder of answers.
        corpus: text of any languages. How often the judge errs on its lines is measured before it judges answers.
        languages: BCP-47 tags; none means every language of the prompts, and of the corpus.
        split: of the corpus; of answers in folders, the folder of that name where there is one.
        labels: the label set of a fastText model.
        words: the English word list of WPR, one per line; none means the bundled sentences' words.
        published: score by the published rule too; it needs jieba for zh and fugashi for ja.
        new_tokens: of each answer.
        temperature: of sampling; 0 takes the likeliest token.
        out: folder for confusion.json.
    """
    from babelscope.cli.prompt_sets import ModelAnswers, answers_of
    from babelscope.cli.steering_scores import described_errors
    from babelscope.corpus import load_corpus
    from babelscope.evaluation import confusion_of_answers, english_words, load_answers, open_identifier
    from babelscope.steering.sweeps import Decoding

    identify, english = open_identifier(identifier, labels=labels), english_words(words)
    texts = load_corpus(corpus, languages or None, split=split) if corpus else None
    if model == "-":
        place = Path(prompts) / split
        answers = ModelAnswers(load_answers(place if place.is_dir() else prompts), {})
    else:
        decoding = Decoding(new_tokens=new_tokens, temperature=temperature, seed=seed)
        answers = answers_of(model, prompts, languages, decoding, device, dtype, chat=chat, system=system)
    confusion = confusion_of_answers(answers.texts, identifier=identify, english=english, published=published)
    result = nan_as_null(
        {
            "identifier": identify.name,
            "english_words": len(english),
            "judge_errors": described_errors(texts, identify, seed),
            "overridden_settings": answers.overridden,
            **confusion.as_dict(),
        }
    )
    if out is not None:
        with new_folder(out) as folder:
            write_text(folder / "confusion.json", json.dumps(result, indent=1, ensure_ascii=False))
    return result


@alone
def run_steering_score(
    model: Model,
    recipe: Annotated[Positional[Path], SavedAs(("Direction", "SteeringRecipe"), DELTA), arg(metavar="RECIPE")],
    prompts: PROMPTS,
    *,
    target: LanguageTag,
    out: Out,
    chat: Chat = False,
    system: System = "",
    prompt_set: Literal["lines", "language_confusion", "clas"] = "lines",
    sources: Annotated[
        tuple[LanguageTag, ...], UsedWith("with --prompt-set clas", lambda call: call["prompt_set"] == "clas")
    ] = (),
    strength: Annotated[SteeringStrength, saved_as("recipe", "Direction")] = 1.0,
    unit: Annotated[Literal["raw", "unit", "relative"], saved_as("recipe", "Direction")] = "raw",
    references: File | None = None,
    native: File | None = None,
    corpus: CorpusName = "",
    languages: Annotated[tuple[LanguageTag, ...], CORPUS] = (),
    split: Annotated[Split, CORPUS] = "test",
    max_length: Annotated[RowLength | None, CORPUS] = None,
    identifier: IdentifierName = "lingua",
    labels: Annotated[LabelSet | None, FASTTEXT] = None,
    published: bool = True,
    new_tokens: NewTokens = 100,
    temperature: Temperature = 0.8,
    resamples: Resamples = 1000,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
) -> Result:
    """The whole score of a steering recipe: success, content, fluency and what else the recipe changes.

    Args:
        recipe: folder of a SteeringRecipe; a Direction is taken for a recipe too.
        prompts: a file with one prompt per line, or a row of a .jsonl file; or what --prompt-set says.
        target: the language a steered answer should be in.
        out: folder for steering.json and rows.jsonl.
        prompt_set: lines, as above; or a folder, file or data set of Language Confusion prompts, of which those for the
            target are taken; or of CLaS questions in many languages.
        sources: for CLaS, the languages of the questions; none means all but the target.
        strength: of a Direction that came in place of a recipe, in its unit; a recipe carries its own.
        unit: of that strength: raw, unit or relative.
        references: a file with what each answer should say, one per line.
        native: a file with beginnings in the target language; fluency is measured beside their continuations, and
            without them beside the unsteered answers.
        corpus: held-out text of any languages, on which side effects on each language are measured, and how often the
            judge errs on its lines.
        languages: BCP-47 tags; none means every language of the text.
        split: the text of the corpus that is scored.
        max_length: tokens per document at most, BOS included; none means 512, or as many as the model has positions.
        labels: the label set of a fastText model.
        published: score by the published rule too; it needs jieba for zh and fugashi for ja.
        new_tokens: of each answer.
        temperature: of sampling; 0 takes the likeliest token.
        resamples: of prompts, for intervals.
    """
    if prompt_set == "lines":
        PlainFile().check("PROMPTS", prompts)
    free(out)
    from babelscope.cli.asking import read_lines, read_prompts
    from babelscope.cli.prompt_sets import prompts_of
    from babelscope.cli.saved import open_recipe
    from babelscope.cli.steering_scores import PRINTED, described, described_errors, tidy
    from babelscope.corpus import load_corpus
    from babelscope.evaluation import open_identifier
    from babelscope.models import open_model
    from babelscope.steering.sweeps import (
        Decoding,
        evaluate_steering,
        language_effects,
        overridden_settings,
        untouched_prompts,
    )
    from babelscope.steering.sweeps.evaluated import check_evaluation

    target_tag, identify = Language.parse(target), open_identifier(identifier, labels=labels)
    loaded = open_recipe(recipe, strength, unit)
    target_prompts = prompts_of(prompts, prompt_set, target_tag, sources, chat=chat, system=system)
    beginnings = [] if native is None else read_prompts([str(native)], chat=chat, system=system, source=target_tag)
    lines = None if references is None else read_lines(references, "references")
    check_evaluation(identify, target_tag, target_prompts, lines)
    texts = load_corpus(corpus, languages or None, split=split) if corpus else None
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    loaded.check(language_model)
    decoding = Decoding(new_tokens=new_tokens, temperature=temperature, seed=seed)
    evaluation = evaluate_steering(
        language_model,
        tokenizer,
        loaded,
        target_prompts,
        target=target_tag,
        references=lines,
        native_prompts=beginnings,
        identifier=identify,
        published=published,
        decoding=decoding,
        resamples=resamples,
        seed=seed,
        progress=True,
    )
    result = {
        **described(evaluation),
        "judge_errors": described_errors(texts, identify, seed),
        "decoding": asdict(decoding),
        "overridden_settings": overridden_settings(language_model, decoding),
        "chat": {"system": system or None} if chat else None,
        "untouched": untouched_prompts(language_model, tokenizer, loaded, target_prompts[:16])._asdict(),
    }
    if texts is not None:
        effects = language_effects(
            language_model,
            tokenizer,
            loaded,
            texts,
            max_length=max_length,
            resamples=resamples,
            seed=seed,
            progress=True,
        )
        result["other_languages"] = {tag: tidy(effect) for tag, effect in effects.items()}
    rows = "".join(f"{json.dumps(nan_as_null(row), ensure_ascii=False)}\n" for row in evaluation.rows())
    with new_folder(out) as folder:
        write_text(folder / "rows.jsonl", rows)
        write_text(folder / "steering.json", json.dumps(nan_as_null(result), indent=1, ensure_ascii=False))
    return {"out": str(out), **nan_as_null({key: result[key] for key in PRINTED})}
