"""The verbs `knowledge` and `priming`."""

import os
from pathlib import Path
from typing import Annotated, Literal

from babelscope.cli.argument_kinds import ByFunction, SavedAs, alone, free
from babelscope.cli.arguments import Device, Dtype, LanguageTag, Model, Out, Result
from babelscope.cli.flag_conditions import UsedWith
from babelscope.cli.quantities import CountOrNone, Draws, Resamples, Seed
from babelscope.cli.telling import Told
from babelscope.errors import CorpusError, UsageError
from babelscope.languages import Language
from babelscope.models.model_names import check_model_name

BASE = UsedWith("with --barrier or --clusters above 0", lambda call: call["barrier"] or call["clusters"])
OFF = UsedWith("with --neurons", lambda call: call["neurons"] is not None)


def check_facts_name(name: str) -> None:
    """Raise CorpusError unless a table, or a folder, of facts is there."""
    if name != "reference" and not os.path.exists(name):
        raise CorpusError(f"{name}: no such file or folder; expected facts, or reference; correct the path")


def check_items_name(name: str) -> None:
    """Raise CorpusError unless a table of items is there."""
    if name != "reference" and not os.path.isfile(name):
        raise CorpusError(f"{name}: no such file; expected a table of items, or reference; correct the path")


def direction_of(word: str) -> tuple[Language, Language]:
    """The languages of prime and target in a word such as en:de; raises UsageError for another word."""
    prime, colon, target = word.partition(":")
    if not colon or not prime or not target:
        raise UsageError(f"{word!r} came; expected PRIME:TARGET, such as en:de; correct it")
    return Language.parse(prime), Language.parse(target)


@alone
def run_knowledge(
    model: Model,
    *,
    out: Out,
    facts: Annotated[str, ByFunction(check_facts_name)] = "reference",
    languages: tuple[LanguageTag, ...] = (),
    ranking: Literal["corrected", "mean"] = "corrected",
    against: Annotated[LanguageTag, BASE] = "en",
    barrier: CountOrNone = 8,
    clusters: CountOrNone = 4,
    lens: bool = True,
    neurons: Annotated[Path | None, SavedAs(("NeuronSet",))] = None,
    draws: Annotated[Draws, OFF] = 3,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
) -> Result:
    """Which facts a model knows in which language: typed ranking, agreement of languages, and mixtures of them.

    Args:
        out: folder for results.jsonl, answers.jsonl and shared_facts.html.
        facts: "reference" (72 facts in fifteen languages), a table of your own, or a folder in mLAMA's layout.
        languages: BCP-47 tags; none means every language of the facts.
        ranking: by log-probability per token less that with the subject blank (corrected), or as it is (mean).
        against: the language that others are mixed with, and whose questions are clustered.
        barrier: multiple-choice questions per language with parts in another language; 0 leaves them out.
        clusters: of questions, each of which gets the language to ask it in; 0 leaves this out.
        lens: also at which layer the object can be read.
        neurons: a NeuronSet, whose languages' neurons are switched off one by one, to ask all facts again.
        draws: random sets of as many neurons in each layer beside them.
    """
    free(out)
    from babelscope.artifacts import NeuronSet
    from babelscope.cli.telling_scores import knowledge_lines
    from babelscope.models import open_model
    from babelscope.probes.knowledge import KnowledgePlan, measure_knowledge, read_facts

    table = read_facts(facts)
    if languages:
        table = table.only(languages)
    plan = KnowledgePlan(
        ranking=ranking, against=against, barrier=barrier, clusters=clusters, lens=lens, draws=draws, seed=seed
    )
    plan.check(table)
    sets = None if neurons is None else NeuronSet.load(neurons)
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    report = measure_knowledge(language_model, tokenizer, table, plan=plan, neurons=sets, progress=True)
    report.save(out)
    fields = {"out": str(out), **report.summary()}
    return Told(fields, knowledge_lines(fields, against, out))


@alone
def run_priming(
    model: Model,
    *,
    out: Out,
    items: Annotated[str, ByFunction(check_items_name)] = "reference",
    directions: Annotated[tuple[str, ...], ByFunction(direction_of)] = (),
    count: CountOrNone = 0,
    controls: bool = True,
    separator: str = " ",
    checkpoints: Annotated[tuple[str, ...], ByFunction(check_model_name)] = (),
    resamples: Resamples = 2000,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
) -> Result:
    """Whether a sentence's structure makes the same structure likelier in another language: structural priming.

    Args:
        out: folder for results.jsonl and priming.html.
        items: "reference" (40 events, active and passive, in en, de, es, fi and ru), or a table of your own.
        directions: PRIME:TARGET, such as en:de; none means the table's first language with each other one in both
            directions, and every language with itself.
        count: pairs of prime and target per direction at most; 0 takes all.
        controls: also shuffled words, unrelated sentences, and the language of a sentence alone.
        separator: between prime and target.
        checkpoints: earlier checkpoints of the model, in order, which are measured too, without controls.
        resamples: of items, for intervals.
    """
    free(out)
    from babelscope.cli.telling_scores import priming_lines
    from babelscope.models import open_model
    from babelscope.probes.priming import (
        PrimingFindings,
        PrimingPlan,
        read_stimuli,
        structural_priming,
        track_priming,
        usual_directions,
    )

    stimuli = read_stimuli(items)
    pairs = [direction_of(word) for word in directions] or usual_directions(stimuli)
    for prime, target in pairs:
        stimuli.pairs(prime, target, seed=seed)
    plan = PrimingPlan(separator=separator, controls=controls, items=count or None, resamples=resamples, seed=seed)
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    effects = structural_priming(language_model, tokenizer, stimuli, directions=pairs, plan=plan, progress=True)
    del language_model, tokenizer
    earlier = track_priming(
        checkpoints,
        lambda name: open_model(name, device=device, dtype=dtype),
        stimuli,
        directions=pairs,
        plan=plan,
        progress=True,
    )
    findings = PrimingFindings(stimuli, effects, earlier, plan)
    findings.save(out)
    fields = {"out": str(out), **findings.summary()}
    return Told(fields, priming_lines(fields, effects, out))
