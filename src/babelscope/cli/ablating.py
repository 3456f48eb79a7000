"""The verbs `ablate` and `fallback`: what breaks, and what comes out, when neurons are off."""

import json
from collections.abc import Sequence
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import alone, free
from babelscope.cli.arguments import (
    Counts,
    Device,
    Dtype,
    LanguageTag,
    Model,
    Neurons,
    Out,
    Result,
    SameText,
    Split,
    Text,
)
from babelscope.cli.quantities import Draws, NewTokens, Seed, TokenAmount
from babelscope.cli.telling import Told
from babelscope.errors import CorpusError, SelectionError
from babelscope.files.strict_json import nan_as_null
from babelscope.files.writing import new_folder, write_text


@alone
def run_ablate(
    model: Model,
    neurons: Neurons,
    corpus: Text,
    *,
    out: Out,
    observation: Counts | None = None,
    split: Split = "test",
    same_text: SameText = False,
    to: Literal["zero", "mean"] = "zero",
    draws: Draws = 19,
    max_tokens: TokenAmount = 5_000,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
) -> Result:
    """Switch each language's set off and measure the harm on every language's held-out text, beside random sets.

    Args:
        neurons: folder of a NeuronSet.
        corpus: held-out text: folder of <tag>.txt or .jsonl, file of rows with language and text, hub id, or
            "reference".
        out: folder for ablation.json.
        observation: where contributions and means come from; none observes the same text for them.
        split: the text that is scored; a corpus without splits is dealt out by document, and "all" is the whole of it.
        to: what a neuron that is off gives: zero, or its mean on the language of the text that is read.
        draws: random sets of each control; 19 is the fewest whose rank p can reach .05.
        max_tokens: scored tokens per language.
    """
    from babelscope.ablation import check_observation
    from babelscope.artifacts import NeuronSet, Observation
    from babelscope.cli.telling_counts import ablation_lines
    from babelscope.corpus import WHOLE, check_unseen, has_splits, load_corpus
    from babelscope.report.results.record_json import to_json

    free(out)
    sets = NeuronSet.load(neurons)
    if not len(sets.indices):
        raise SelectionError(
            f"{neurons}: every set is empty; expected at least one neuron; select with a larger top_rate"
        )
    observed = None if observation is None else Observation.load(observation)
    if observed is not None:
        check_observation(observed, sets, sets.languages, to=to)
    from babelscope.ablation import ablation_matrix
    from babelscope.models import open_model
    from babelscope.study.ablation_numbers import ablation_summary

    text_split = split if has_splits(corpus) or not same_text else WHOLE
    texts = load_corpus(corpus, sets.languages, split=text_split)
    check_unseen(texts, sets.parameters.get("text"), what="these neurons", same_text=same_text)
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    table = ablation_matrix(
        language_model,
        tokenizer,
        sets,
        texts,
        draws=draws,
        to=to,
        observation=observed,
        max_tokens=max_tokens,
        same_text=same_text,
        seed=seed,
        progress=True,
    )
    text = {**texts.facts(), "same_text": same_text}
    numbers = to_json(ablation_summary(table))
    summary = nan_as_null({"languages": list(sets.languages), "to": to, "text": text, **numbers})
    with new_folder(out) as folder:
        write_text(folder / "ablation.json", json.dumps(summary, indent=1, ensure_ascii=False))
    random_harms = {
        name: {tag: drawn_line(rows) for tag, rows in table.drawn_harm(name).items()} for name in table.draws
    }
    fields = {
        "out": str(out),
        "own_hurt_most": summary["own_hurt_most"],
        "own_harm": nan_as_null(table.own_harm()),
        **{f"{name}_harm": rows for name, rows in random_harms.items()},
        "p": summary["p"],
    }
    return Told(fields, ablation_lines(table, out))


def drawn_line(harms: Sequence[float]) -> dict[str, float]:
    """Harm of a control's random sets beside that of the language's own."""
    return {"mean": sum(harms) / len(harms), "largest": max(harms)}


@alone
def run_fallback(
    model: Model,
    neurons: Neurons,
    prompts: Annotated[Positional[tuple[str, ...]], arg(metavar="PROMPT …")],
    *,
    order: tuple[LanguageTag, ...],
    out: Out,
    first: LanguageTag = "en",
    by: Literal["zero", "negative", "mean", "random", "shrink", "noise", "invert"] = "zero",
    draws: Draws = 3,
    new_tokens: NewTokens = 48,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
) -> Result:
    """Switch off the neurons of one language after the other, and see which language comes out, beside random sets.

    Args:
        neurons: folder of a NeuronSet.
        prompts: texts to continue; one that names a file stands for its lines, or for the rows of a .jsonl,
            .csv or .tsv file.
        order: the languages in the order in which their neurons are switched off; those of earlier steps stay off.
        out: folder for results.jsonl, fallback.json, answers.json and fallback.html.
        first: language of the prompts.
        by: what a neuron that is off gives: zero, −1, the mean of its layer, a little at random, −0.1 of itself, itself
            with noise, or itself with the other sign.
        draws: random sets of the same size at each step.
        new_tokens: of each answer.
    """
    from babelscope.artifacts import NeuronSet
    from babelscope.cli.asking import read_prompts
    from babelscope.cli.telling_fallbacks import fallback_lines
    from babelscope.controls import write_evidence
    from babelscope.figures import write_figure
    from babelscope.figures.fallback_map import FALLBACK_CAPTION, fallback_map
    from babelscope.models import open_model
    from babelscope.steering.sweeps import Decoding, fallback_languages

    free(out)
    sets, asked_for = NeuronSet.load(neurons), read_prompts(prompts)
    if not asked_for:
        raise CorpusError("no prompt came; expected a text or a file of lines; add one")
    for tag in order:
        sets.index(tag)  # one without a set is told before the model is opened
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    decoding = Decoding(new_tokens=new_tokens, temperature=0.0, seed=seed)
    fallbacks = fallback_languages(
        language_model,
        tokenizer,
        sets,
        asked_for,
        order=order,
        first=first,
        by=by,
        draws=draws,
        decoding=decoding,
        seed=seed,
    )
    languages, share, control = fallbacks.shares()
    off = [", ".join(step.off) or "none" for step in fallbacks.steps]
    texts = [
        {"off": list(step.off), "answers": row} for step, row in zip(fallbacks.steps, fallbacks.texts, strict=True)
    ]
    with new_folder(out) as folder:
        write_evidence(fallbacks.rows(), folder / "results.jsonl")
        write_text(folder / "fallback.json", json.dumps(fallbacks.summary(), indent=1, ensure_ascii=False))
        write_text(folder / "answers.json", json.dumps(texts, indent=1, ensure_ascii=False))
        figure = fallback_map(share=share, control=control, off=off, languages=languages)
        write_figure(figure, folder / "fallback.html", FALLBACK_CAPTION)
    fields = {
        "out": str(out),
        "steps": [
            {"off": name, "neurons": step.neurons, "answers": step.counts, "random sets": step.control_counts}
            for name, step in zip(off, fallbacks.steps, strict=True)
        ],
    }
    return Told(fields, fallback_lines(fallbacks, neurons, model, out))
