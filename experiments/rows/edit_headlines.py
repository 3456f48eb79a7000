"""What edits on a real model say beside the papers', and a line for each method and language."""

from collections.abc import Iterator

import numpy as np

from babelscope.adaptation.editing import EditEvidence, EditFindings, EditPlace
from babelscope.adaptation.editing.edit_findings import mean_over
from babelscope.adaptation.editing.edit_questions import (
    Aspect,
    Value,
    kept_answer,
    moved,
    prefers_foreign,
    prefers_new,
)
from babelscope.adaptation.editing.edit_study import CONTROL
from babelscope.languages import Language
from rows.result import Headline, Verdict

CLAIMS = {
    "rank one": "ROME maintains both specificity and generalization (GPT-2 XL and GPT-J, CounterFact)",
    "memit": "MEMIT keeps efficacy, generalization and specificity with many facts at once (GPT-J and GPT-NeoX, "
    "CounterFact)",
}


def lines_by_language(evidence: EditEvidence) -> Iterator[dict[str, str | int | float]]:
    """Every method in every language, each share beside that of the control of equal size."""
    for method in evidence.study.methods:
        for tag in evidence.findings.table.languages:

            def mean(name: str, aspect: Aspect, value: Value, tag: Language = tag) -> float:
                return mean_over(evidence.per_edit(name, aspect, value, [tag]))

            yield {
                "method": method,
                "control": CONTROL[method],
                "language": tag,
                "edits": len(evidence.findings.edits),
                "new": mean(method, "efficacy", prefers_new),
                "new_by_others": mean(method, "other edit", prefers_new),
                "new_by_control": mean(CONTROL[method], "efficacy", prefers_new),
                "moved": mean(method, "efficacy", moved),
                "moved_by_control": mean(CONTROL[method], "efficacy", moved),
                "unmoved": mean(method, "locality", kept_answer),
                "unmoved_by_control": mean(CONTROL[method], "locality", kept_answer),
            }


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
    if method in CLAIMS:
        holds = holds and specific is not None and specific.high >= specific.null
    return Headline(
        paper=CLAIMS.get(method, f"none: {method}"),
        ours=f"{method}{where(place)}, {len(change)} edits in English{' at once' * (method == 'memit')}: "
        + ", ".join(parts),
        control=f"edits of other facts {rows['reliability'].null:.2f}; {CONTROL[method]}: reliability "
        f"{np.nanmean(control):.2f}, generality {rows['generality'].null:.2f}"
        + ("" if specific is None else f", locality {specific.null:.2f}"),
        model="Gemma 3 270M",
        verdict="in shape" if holds else "not",
    )


def where(place: EditPlace | None) -> str:
    """The place of an edit of weights."""
    if place is None:
        return ""
    layers = f"layers {place.layers[0]}–{place.layer}, λ {place.weight:g} a neuron"
    return f", {layers if place.method == 'memit' else f'layer {place.layer}'}"


def transfer(evidence: EditEvidence, method: str) -> Headline:
    """The other languages, less what edits of other facts do there."""
    own, other = (
        evidence.per_edit(method, aspect, prefers_new, evidence.others) for aspect in ("efficacy", "other edit")
    )
    both = ~np.isnan(other)
    low, high = evidence.interval((own - other)[both])
    verdict: Verdict = "in shape" if low > 0 else "not"
    return Headline(
        paper="an edit told in English holds in other languages, in part (BMIKE-53)",
        ours=f"{method}: new object preferred {own.mean():.2f} in {len(evidence.others)} languages; less that under "
        f"edits of other facts {(own - other)[both].mean():+.2f} ({low:+.2f} … {high:+.2f})",
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
