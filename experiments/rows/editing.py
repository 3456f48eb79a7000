"""Row 44: facts edited in one language and asked in others."""

from dataclasses import replace

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from babelscope import edit_fact, layout_of, load_corpus, measure_edits, open_model
from babelscope.adaptation.editing import (
    DescentSettings,
    EditEvidence,
    EditStudy,
    edit_summary,
    plan_edits,
)
from babelscope.adaptation.editing.edit_objective import EditTask, value_at_subject
from babelscope.adaptation.editing.edit_questions import ask, questions_about
from babelscope.adaptation.editing.memit import WEIGHT, layer_update, memit_edit
from babelscope.adaptation.editing.planned_edits import edit_contexts
from babelscope.adaptation.editing.rank_one import key_moments, rank_one_edit
from babelscope.corpus import Corpus
from babelscope.languages import Language
from babelscope.probes.knowledge import read_facts
from babelscope.reference import MODEL
from babelscope.subnetworks import ElementDelta
from rows.edit_headlines import confusion, lines_by_language, reliability, script, transfer
from rows.plain_memit import PlainFact, plain_memit
from rows.planted_edits import FACT_LAYER, fact_model, fact_table, planted_text
from rows.result import Inputs, Planted, RowResult, Witness

STUDY = EditStudy(
    methods=("in context", "demonstrations", "rank one", "few neurons", "memit"), edits=5, held_out=2, neighbours=1,
    layers=(6, 12), neurons=(32,), key_tokens=200, new_tokens=0, settings=DescentSettings(steps=15, contexts=1),
)  # fmt: skip
"""In all fifteen languages of the bundled facts; every second fact is taken, which halves candidates and time."""
LANGUAGES = ("en", "de", "fi", "ru", "zh")
LAYER, KEY_TOKENS = 2, 200
"""Of the witnesses, in the bundled model."""


def measure(inputs: Inputs) -> RowResult:
    """Row 44."""
    model, tokenizer = open_model(inputs.gemma, device="cpu", dtype="float32")
    table = read_facts("reference")
    findings = measure_edits(model, tokenizer, replace(table, facts=table.facts[::2]), study=STUDY)
    del model, tokenizer
    evidence = EditEvidence(findings)
    return RowResult(
        witnesses=[*closed_form(), *spread_form(), plain_margins()],
        planted=[planted_fact(), planted_facts_at_once()],
        headlines=[
            *(reliability(evidence, method) for method in STUDY.methods),
            *(transfer(evidence, method) for method in STUDY.methods),
            script(findings),
            confusion(evidence),
        ],
        absent=["BMIKE-53's data (53 languages, three sets, rephrased questions)"],
        table=[*lines_by_language(evidence)],
    )


def closed_form() -> list[Witness]:
    """The change of rank one on the bundled model, and the moment of its keys, in numpy and plain transformers."""
    model, tokenizer = open_model("reference", device="cpu")
    layout, table = layout_of(model), read_facts("reference").only(LANGUAGES)
    edit = plan_edits(table, Language("en"), seed=0)[0]
    corpus = load_corpus("reference", split="train")
    moments = key_moments(layout, tokenizer, corpus, [LAYER], tokens_per_language=KEY_TOKENS)
    task = EditTask.of(layout, tokenizer, table, edit, [], LAYER)
    _, change = rank_one_edit(task, moments, value_at_subject(task, DescentSettings(steps=10, contexts=0)))
    moment, left = moments.moment(LAYER).numpy(), change.left.numpy()
    key = task.key(LAYER).numpy()
    gap = np.abs(change.matrix().numpy() @ key - left).max() / np.abs(left).max()
    root = np.linalg.cholesky(moment)
    shortest = np.linalg.lstsq(np.linalg.solve(root, key)[None], left[None], rcond=None)[0]
    least = np.linalg.solve(root.T, shortest).T
    other = np.abs(change.matrix().numpy() - least).max() / np.abs(least).max()
    return [
        Witness(what="W' k against v, relative, float64", difference=float(gap), bar=1e-6),
        Witness(
            what="W' - W against the least solution of W' k = v by numpy's least squares in whitened coordinates, "
            "relative",
            difference=float(other),
            bar=1e-6,
        ),
    ]


def spread_form() -> list[Witness]:
    """Two facts over the first layers of the bundled model, in numpy and plain transformers."""
    model, tokenizer = open_model("reference", device="cpu")
    layout, table = layout_of(model), read_facts("reference").only(LANGUAGES)
    edits, layers, settings = plan_edits(table, Language("en"), seed=0)[:2], (0, 1, 2), DescentSettings(steps=10)
    corpus = load_corpus("reference", split="train")
    moments = key_moments(layout, tokenizer, corpus, layers, tokens_per_language=KEY_TOKENS)
    contexts = [edit_contexts(table, edit, count=2, rng=np.random.default_rng(0)) for edit in edits]
    tasks = [
        EditTask.of(layout, tokenizer, table, edit, before, layers[-1])
        for edit, before in zip(edits, contexts, strict=True)
    ]
    ends = [value_at_subject(task, settings) for task in tasks]
    change, _ = memit_edit(tasks, ends, moments, layers, weight=WEIGHT, seed=0)
    rng = np.random.default_rng(0)
    keys, residuals = (rng.normal(size=(size, 2)) for size in (layout.d_neuron, layout.d_hidden))
    moment = moments.moment(LAYER).numpy()
    ours = layer_update(
        torch.from_numpy(keys), torch.from_numpy(residuals), moments.moment(LAYER), weight=WEIGHT
    ).matrix()
    direct = residuals @ keys.T @ np.linalg.inv(WEIGHT * len(moment) * moment + keys @ keys.T)
    plain = AutoModelForCausalLM.from_pretrained(str(MODEL), dtype=torch.float32).eval()
    facts = [
        PlainFact([(prompt.ids, prompt.subject) for prompt in task.prompts], end.values)
        for task, end in zip(tasks, ends, strict=True)
    ]
    expected = plain_memit(
        plain, plain.model.layers, lambda block: block.mlp.down_proj, facts,
        {layer: moments.moment(layer).numpy() for layer in layers}, layers, weight=WEIGHT * len(moment),
    )  # fmt: skip
    parts = [change.elements[f"model.layers.{layer}.mlp.down_proj.weight"] for layer in layers]
    gaps = [
        np.abs(part.values.numpy().reshape(part.shape) - expected[layer]).max() / np.abs(expected[layer]).max()
        for layer, part in zip(layers, parts, strict=True)
    ]
    return [
        Witness(
            what="MEMIT's R Kᵀ (λC + K Kᵀ)⁻¹ against numpy's inverse, relative, float64",
            difference=float(np.abs(ours.numpy() - direct).max() / np.abs(direct).max()),
            bar=1e-6,
        ),
        Witness(
            what="MEMIT's changes of three layers, two facts at once, against a walk in numpy with hooks of plain "
            "transformers, relative, float32",
            difference=float(max(gaps)),
            bar=1e-3,
        ),
    ]


def plain_margins() -> Witness:
    """Log-probabilities under an edit that numpy adds to the weights of plain transformers; and the way back."""
    model, tokenizer = open_model("reference", device="cpu")
    table = read_facts("reference").only(LANGUAGES)
    edit = plan_edits(table, Language("en"), seed=0)[0]
    change = edit_fact(
        model, tokenizer, table, edit, layer=LAYER, text=small_text(), settings=DescentSettings(steps=10, contexts=1)
    )
    assert isinstance(change, ElementDelta)
    questions = questions_about(table, edit, [])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with change.applied(model):
        ours = ask(layout_of(model), tokenizer, table, questions)
    back = sum(int((value != before[name]).sum()) for name, value in model.state_dict().items())
    plain = AutoModelForCausalLM.from_pretrained(str(MODEL), dtype=torch.float32).eval()
    tokens, worst = AutoTokenizer.from_pretrained(str(MODEL)), float(back)
    ((name, part),) = change.elements.items()
    with torch.no_grad():
        weight = dict(plain.named_parameters())[name]
        weight += torch.from_numpy(part.values.numpy().reshape(part.shape))
        for asked, scores in zip(questions, ours, strict=True):
            template = table.templates[asked.question.relation][asked.language].replace("[X]", asked.question.subject)
            rows = [tokens(template.replace("[Y]", option)).input_ids for option in asked.question.options]
            begin = tokens(template.split("[Y]")[0].rstrip()).input_ids
            common = min(
                next((at for at, (a, b) in enumerate(zip(row, begin, strict=False)) if a != b), len(begin))
                for row in rows
            )
            for place in (asked.old, asked.new):
                row = rows[place]
                logits = plain(torch.tensor([row])).logits[0].double().log_softmax(dim=-1)
                mean = float(torch.stack([logits[at - 1, row[at]] for at in range(common, len(row))]).mean())
                worst = max(worst, abs(mean - float(scores.means[place])))
    return Witness(
        what=f"nats per token of old and new object under an edit, {len(questions)} languages, plain transformers with "
        "the change added by numpy; and values that differ after it was taken out",
        difference=worst,
        bar=1e-3,
    )


def small_text() -> Corpus:
    """Some ordinary text of the languages."""
    corpus = load_corpus("reference", LANGUAGES, split="valid")
    return Corpus({tag: documents[:4] for tag, documents in corpus.items()}, "a little text")


def planted_fact() -> Planted:
    """A fact in neurons that two languages share, and one in neurons of their own."""
    table, shares = fact_table(), {}
    study = EditStudy(
        edits=4, held_out=1, methods=("rank one", "few neurons"), layers=(FACT_LAYER,), neurons=(1,), new_tokens=0,
        asked_after=1, settings=DescentSettings(contexts=0),
    )  # fmt: skip
    for shared in (True, False):
        findings = measure_edits(*fact_model(shared=shared), table, study=study, text=planted_text(table))
        shares[shared] = edit_summary(findings)["prefers_new"]
    reached = {shared: [by_method["fi"] for by_method in part.values()] for shared, part in shares.items()}
    return Planted(
        what="facts in neurons that two languages share: edits in one that hold in the other, by rank one and by one "
        f"neuron ({', '.join(f'{value:.2f}' for value in reached[True])}); in neurons of each language "
        f"({', '.join(f'{value:.2f}' for value in reached[False])}): precision is the share that does not",
        recall=float(np.mean(reached[True])),
        precision=1 - float(np.mean(reached[False])),
    )


def planted_facts_at_once() -> Planted:
    """Four facts at once in neurons of three layers, and facts that were not edited."""
    table = fact_table()
    study = EditStudy(
        edits=4, held_out=1, methods=("memit",), layers=(2,), span=3, weights=(0.01,), new_tokens=0, asked_after=1,
        settings=DescentSettings(contexts=0),
    )  # fmt: skip
    shares = {}
    for shared in (True, False):
        model, tokenizer = fact_model(shared=shared, fact_layers=3)
        shares[shared] = edit_summary(measure_edits(model, tokenizer, table, study=study, text=planted_text(table)))
    reached, unmoved = ({shared: part[name]["memit"] for shared, part in shares.items()}
                        for name in ("prefers_new", "locality"))  # fmt: skip
    return Planted(
        what="four facts edited at once by MEMIT over three layers, in neurons that two languages share: both say "
        f"the new objects ({reached[True]['en']:.2f}, {reached[True]['fi']:.2f}), and of facts that were not edited "
        f"the old ones ({unmoved[True]['en']:.2f}, {unmoved[True]['fi']:.2f}); in neurons of each language "
        f"English alone does ({reached[False]['en']:.2f}, {reached[False]['fi']:.2f})",
        recall=float(np.mean([*reached[True].values(), reached[False]["en"]])),
        precision=float(np.mean([*unmoved[True].values(), *unmoved[False].values(), 1 - reached[False]["fi"]])),
    )
