"""The verb `edit`."""

from typing import Annotated, Literal

from babelscope.cli.argument_kinds import ByFunction, alone, free
from babelscope.cli.arguments import CorpusName, Device, Dtype, LanguageTag, Model, Out, Result
from babelscope.cli.flag_conditions import UsedWith
from babelscope.cli.knowing import check_facts_name
from babelscope.cli.quantities import Count, CountOrNone, Layer, MomentWeight, Resamples, Seed
from babelscope.cli.telling import Told

WEIGHTS = UsedWith(
    "with --methods rank-one, few-neurons or memit",
    lambda call: bool({*call["methods"]} & {"rank-one", "few-neurons", "memit"}),
)
KEYS = UsedWith("with --methods rank-one or memit", lambda call: bool({*call["methods"]} & {"rank-one", "memit"}))
MEMIT = UsedWith("with --methods memit", lambda call: "memit" in call["methods"])
SHOWN = UsedWith("with --methods demonstrations", lambda call: "demonstrations" in call["methods"])
FEW = UsedWith("with --methods few-neurons", lambda call: "few-neurons" in call["methods"])


@alone
def run_edit(
    model: Model,
    *,
    out: Out,
    facts: Annotated[str, ByFunction(check_facts_name)] = "reference",
    languages: tuple[LanguageTag, ...] = (),
    edited_in: LanguageTag = "en",
    methods: tuple[Literal["in-context", "demonstrations", "rank-one", "few-neurons", "memit"], ...] = (
        "in-context",
        "rank-one",
        "few-neurons",
    ),
    edits: Count = 8,
    held_out: Annotated[Count, WEIGHTS] = 3,
    neighbours: Count = 2,
    contexts: Annotated[CountOrNone, WEIGHTS] = 4,
    asked_after: Count = 2,
    layers: Annotated[tuple[Layer, ...], WEIGHTS] = (),
    neurons: Annotated[tuple[Count, ...], FEW] = (16, 64),
    span: Annotated[Count, MEMIT] = 5,
    weights: Annotated[tuple[MomentWeight, ...], MEMIT] = (0.01, 1.0),
    demonstrations: Annotated[Count, SHOWN] = 4,
    shown_in: Annotated[Literal["asked", "edit"], SHOWN] = "asked",
    steps: Annotated[Count, WEIGHTS] = 25,
    corpus: Annotated[CorpusName, KEYS] = "reference",
    key_tokens: Annotated[Count, KEYS] = 2000,
    new_tokens: CountOrNone = 12,
    resamples: Resamples = 1000,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
) -> Result:
    """Give facts another object, told in one language, and ask about them in every language, with controls.

    Args:
        out: folder for results.jsonl, edits.jsonl, trials.jsonl, outcomes.jsonl, answers.jsonl and two figures.
        facts: "reference" (72 facts in fifteen languages), a table of your own, or a folder in mLAMA's layout.
        languages: BCP-47 tags to ask in; none means every language of the facts.
        edited_in: the language in which the edits are told.
        methods: in-context (the new fact before the question), demonstrations (the same after worked examples),
            rank-one (a change of one MLP, as ROME makes it), few-neurons (a change of what some neurons write), memit
            (all edits in one change, spread over layers).
        edits: facts that are edited and scored: one after the other, or by memit at once.
        held_out: other facts, on which layer and number of neurons are chosen.
        neighbours: other facts of the relation that are not edited, asked about each edit.
        contexts: true sentences before the prompt, with which an edit is made too.
        asked_after: other sentences, after which it is asked.
        layers: to choose from, the last one of memit's; none takes a sixth, a third and a half of the depth.
        neurons: numbers of neurons to choose from.
        span: layers over which memit spreads the change, or as many as there are up to the last one.
        weights: of the second moment in memit, in numbers of neurons, to choose from; the smaller, the closer facts are
            met and the more other text moves.
        demonstrations: worked examples before the edited fact.
        shown_in: whether they ask and answer in the language of the question or in that of the edits.
        steps: of the descent that makes the new object likely, at most.
        corpus: ordinary text of the languages, for the second moment of the MLP's inner activations.
        key_tokens: of it, of each language.
        new_tokens: of each greedy answer; 0 leaves the answers out.
        resamples: of edits, for intervals.
    """
    free(out)
    from babelscope.adaptation.editing import DescentSettings, EditStudy, edit_summary, measure_edits, save_edits
    from babelscope.cli.telling_scores import edit_lines
    from babelscope.corpus import load_corpus
    from babelscope.models import open_model
    from babelscope.probes.knowledge import read_facts

    table = read_facts(facts)
    if languages:
        table = table.only(languages)
    study = EditStudy(
        language=edited_in,
        methods=tuple(method.replace("-", " ") for method in methods),  # pyright: ignore[reportArgumentType]
        edits=edits,
        held_out=held_out,
        neighbours=neighbours,
        asked_after=asked_after,
        layers=layers,
        neurons=neurons,
        span=span,
        weights=weights,
        demonstrations=demonstrations,
        shown_in=shown_in,
        key_tokens=key_tokens,
        new_tokens=new_tokens,
        settings=DescentSettings(steps=steps, contexts=contexts),
        resamples=resamples,
        seed=seed,
    )
    study.check(table)
    text = load_corpus(corpus, split="train") if {"rank-one", "memit"} & {*methods} else None
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    findings = measure_edits(language_model, tokenizer, table, study=study, text=text)
    save_edits(findings, out)
    fields = {"out": str(out), **edit_summary(findings)}
    return Told(fields, edit_lines(fields, out))
