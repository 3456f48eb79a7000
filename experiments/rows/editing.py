"""Row 44: facts edited in one language and asked in others."""

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from babelscope import edit_fact, layout_of, load_corpus, measure_edits, open_model
from babelscope.adaptation.editing import (
    DescentSettings,
    EditEvidence,
    EditFindings,
    EditStudy,
    edit_summary,
    plan_edits,
)
from babelscope.adaptation.editing.edit_findings import moved, prefers_foreign, prefers_new
from babelscope.adaptation.editing.edit_objective import EditTask
from babelscope.adaptation.editing.edit_questions import ask, questions_about
from babelscope.adaptation.editing.edit_study import CONTROL
from babelscope.adaptation.editing.rank_one import key_moments, rank_one_edit
from babelscope.corpus import Corpus, Document
from babelscope.languages import Language
from babelscope.probes.knowledge import read_facts
from babelscope.reference import MODEL
from babelscope.subnetworks import ElementDelta
from rows.planted_edits import FACT_LAYER, fact_model, fact_table
from rows.result import Headline, Inputs, Planted, RowResult, Verdict, Witness

LANGUAGES = ("en", "de", "fi", "ru", "zh")
STUDY = EditStudy(edits=8, held_out=2, neighbours=1, layers=(6, 12), neurons=(32,), key_tokens=600, new_tokens=6)
LAYER, KEY_TOKENS = 2, 200
"""Of the witnesses, in the bundled model."""


def measure(inputs: Inputs) -> RowResult:
    """Row 44."""
    model, tokenizer = open_model(inputs.gemma, device="cpu", dtype="float32")
    findings = measure_edits(model, tokenizer, read_facts("reference").only(LANGUAGES), study=STUDY)
    del model, tokenizer
    evidence = EditEvidence(findings)
    return RowResult(
        witnesses=[*closed_form(), plain_margins()],
        planted=[planted_fact()],
        headlines=[
            *(reliability(evidence, method) for method in STUDY.methods),
            *(transfer(evidence, method) for method in STUDY.methods),
            script(findings),
            confusion(evidence),
        ],
        absent=[
            "MEMIT's spread over layers, several edits at once",
            "BMIKE-53's data (53 languages, three sets, rephrased questions) and its demonstrations in context",
        ],
    )


def closed_form() -> list[Witness]:
    """The change of rank one on the bundled model, and the moment of its keys, in numpy and plain transformers."""
    model, tokenizer = open_model("reference", device="cpu")
    layout, table = layout_of(model), read_facts("reference").only(LANGUAGES)
    edit = plan_edits(table, Language("en"), seed=0)[0]
    corpus = load_corpus("reference", split="train")
    moments = key_moments(layout, tokenizer, corpus, [LAYER], tokens_per_language=KEY_TOKENS)
    task = EditTask.of(layout, tokenizer, table, edit, [], LAYER)
    _, change = rank_one_edit(task, moments, DescentSettings(steps=10, contexts=0))
    moment, left = moments.moment(LAYER).numpy(), change.left.numpy()
    key = task.at_subject(task.inner())[0].double().numpy()
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
    text = Corpus(
        {
            tag: tuple(
                Document(
                    str(n), table.text("has", tag, table.labels[fact.subject][tag], table.labels[fact.object][tag])
                )
                for n, fact in enumerate(table.facts)
            )
            for tag in table.languages
        },
        "planted facts",
    )
    study = EditStudy(
        edits=4, held_out=1, methods=("rank one", "few neurons"), layers=(FACT_LAYER,), neurons=(1,), new_tokens=0,
        asked_after=1, settings=DescentSettings(contexts=0),
    )  # fmt: skip
    for shared in (True, False):
        findings = measure_edits(*fact_model(shared=shared), table, study=study, text=text)
        shares[shared] = edit_summary(findings)["prefers_new"]
    reached = {shared: [by_method["fi"] for by_method in part.values()] for shared, part in shares.items()}
    return Planted(
        what="facts in neurons that two languages share: edits in one that hold in the other, by rank one and by one "
        f"neuron ({', '.join(f'{value:.2f}' for value in reached[True])}); in neurons of each language "
        f"({', '.join(f'{value:.2f}' for value in reached[False])}): precision is the share that does not",
        recall=float(np.mean(reached[True])),
        precision=1 - float(np.mean(reached[False])),
    )


def reliability(evidence: EditEvidence, method: str) -> Headline:
    """The edited language: the new object, other sentences, other facts."""
    tag = [evidence.language]
    rows = {row.claim.partition(", ")[2].partition(":")[0]: row for row in evidence.rows()
            if row.claim.startswith(f"{method}, ") and row.language == evidence.language}  # fmt: skip
    change, other = (evidence.per_edit(method, aspect, moved, tag) for aspect in ("efficacy", "other edit"))
    low, _ = evidence.interval((change - other)[~np.isnan(other)])
    parts = [f"{name} {rows[name].estimate:.2f} ({rows[name].low:.2f} … {rows[name].high:.2f})"
             for name in ("reliability", "generality", "locality") if name in rows]  # fmt: skip
    control = evidence.per_edit(CONTROL[method], "efficacy", prefers_new, tag)
    place, specific = evidence.findings.places.get(method), rows.get("locality")
    holds = low > 0 and rows["generality"].low > rows["generality"].null
    if method == "rank one":
        holds = holds and specific is not None and specific.high >= specific.null
    return Headline(
        paper="ROME maintains both specificity and generalization (GPT-2 XL and GPT-J, CounterFact)"
        if method == "rank one"
        else f"none: {method}",
        ours=f"{method}{'' if place is None else f', layer {place.layer}'}, {len(change)} edits in English: "
        + ", ".join(parts),
        control=f"edits of other facts {rows['reliability'].null:.2f}; {CONTROL[method]}: reliability "
        f"{np.nanmean(control):.2f}, generality {rows['generality'].null:.2f}"
        + ("" if specific is None else f", locality {specific.null:.2f}"),
        model="Gemma 3 270M",
        verdict="in shape" if holds else "not",
    )


def transfer(evidence: EditEvidence, method: str) -> Headline:
    """The other languages, less what edits of other facts do there."""
    own, other = (
        evidence.per_edit(method, aspect, prefers_new, evidence.others) for aspect in ("efficacy", "other edit")
    )
    both = ~np.isnan(other)
    low, high = evidence.interval((own - other)[both])
    by_language = ", ".join(
        f"{tag} {np.mean(evidence.per_edit(method, 'efficacy', prefers_new, [tag])):.2f}" for tag in evidence.others
    )
    verdict: Verdict = "in shape" if low > 0 else "not"
    return Headline(
        paper="an edit told in English holds in other languages, in part (BMIKE-53)",
        ours=f"{method}: new object preferred {own.mean():.2f} ({by_language}); less that under edits of other facts "
        f"{(own - other)[both].mean():+.2f} ({low:+.2f} … {high:+.2f})",
        control=f"edits of other facts {other[both].mean():.2f}, {CONTROL[method]} "
        f"{evidence.per_edit(CONTROL[method], 'efficacy', prefers_new, evidence.others).mean():.2f}",
        model="Gemma 3 270M",
        verdict=verdict,
    )


def script(findings: EditFindings) -> Headline:
    """Languages of the edit's script less others."""
    rows = [
        row
        for row in EditEvidence(findings).rows()
        if row.claim.endswith("transfer to the same script less that to others")
    ]
    return Headline(
        paper="script decides: languages not in Latin script gain less from an edit in English (BMIKE-53)",
        ours="; ".join(
            f"{row.claim.partition(',')[0]} {row.estimate:+.2f} ({row.low:+.2f} … {row.high:+.2f})" for row in rows
        ),
        control=rows[0].note.replace("shares", "in context"),
        model="Gemma 3 270M",
        verdict="in shape" if rows[0].low > 0 else "not",
    )


def confusion(evidence: EditEvidence) -> Headline:
    """Whether the English word of the new object is likelier than that of the asked language."""
    method = "in context"
    after, control = (
        evidence.per_edit(name, "efficacy", prefers_foreign, evidence.others) for name in (method, CONTROL[method])
    )
    low, high = evidence.interval((after - control)[~np.isnan(after)])
    return Headline(
        paper="edits in English make answers in other languages English: language confusion (BMIKE-53)",
        ours=f"in context: the English word is preferred {np.nanmean(after):.2f}, less the control's "
        f"{np.nanmean(after - control):+.2f} ({low:+.2f} … {high:+.2f})",
        control=f"{CONTROL[method]} {np.nanmean(control):.2f}",
        model="Gemma 3 270M",
        verdict="in shape" if low > 0 else "not",
    )
