"""What edits did, as rows of evidence with intervals over edits and controls, a summary, and figures in a folder."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from babelscope.adaptation.editing.edit_bench import EditFindings
from babelscope.adaptation.editing.edit_questions import (
    Aspect,
    Value,
    kept_answer,
    moved,
    prefers_foreign,
    prefers_new,
)
from babelscope.adaptation.editing.edit_study import CONTROL, NO_EDIT
from babelscope.axes import Float64
from babelscope.controls import benjamini_hochberg, write_evidence
from babelscope.controls.bootstrap_draws import mean_interval
from babelscope.errors import LanguageError
from babelscope.figures import FigureCaption, edit_map, write_figure
from babelscope.files.strict_json import nan_as_null
from babelscope.files.writing import new_folder, write_text
from babelscope.languages import Language
from babelscope.languages.lineage import lineage_of
from babelscope.probes.priming.primed_structures import sign_flip_p
from babelscope.probes.probe_evidence import SiteEvidence

OTHER_EDITS = "edits of other facts"
FLIPS = 999
"""Random signs behind a p-value."""


def mean_over(values: Float64[np.ndarray, " edit"]) -> float:
    """Mean of the values that are there; NaN where none is."""
    return math.nan if np.isnan(values).all() else float(np.nanmean(values))


class EditEvidence:
    """Means over edits of what the findings hold, each with its interval and its control."""

    def __init__(self, findings: EditFindings) -> None:
        self.findings, self.study = findings, findings.study
        self.language = Language.parse(self.study.language)
        self.others = tuple(tag for tag in findings.table.languages if tag != self.language)

    def per_edit(
        self, method: str, aspect: Aspect, value: Value, languages: Sequence[Language]
    ) -> Float64[np.ndarray, " edit"]:
        """Mean of a value over an edit's questions; NaN for an edit without one."""
        sums, counts = np.zeros(len(self.findings.edits)), np.zeros(len(self.findings.edits))
        for row in self.findings.outcomes:
            if (row.method, row.aspect) == (method, aspect) and row.language in languages:
                number = value(row)
                if not math.isnan(number):
                    sums[row.edit] += number
                    counts[row.edit] += 1
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    def rows(self) -> Iterator[SiteEvidence]:
        """Every row of evidence; what was not asked has none."""
        for method in self.study.methods:
            preferences = [self.preference_row(method, tag) for tag in self.findings.table.languages]
            q = benjamini_hochberg([row.p for row in preferences]).tolist()
            yield from (
                replace(row, note=f"{row.note}; q {value:.3f}") for row, value in zip(preferences, q, strict=True)
            )
            yield from self.plain_rows(method)
            yield from self.group_rows(method)
            yield from self.answer_rows(method)

    def mean_row(
        self,
        claim: str,
        language: str,
        values: Float64[np.ndarray, " edit"],
        control: str,
        null: Float64[np.ndarray, " edit"],
        note: str,
        p: float = math.nan,
    ) -> SiteEvidence:
        """A mean over edits with its 95 % interval, and the control's mean over the same edits."""
        present = ~np.isnan(values)
        low, high = self.interval(values[present])
        return SiteEvidence(
            claim=claim,
            language=language,
            against=self.language,
            control=control,
            n=int(present.sum()),
            estimate=float(values[present].mean()),
            low=low,
            high=high,
            p=p,
            null=mean_over(null[present]),
            draws=self.study.resamples,
            seed=self.study.seed,
            note=note,
        )

    def interval(self, values: Float64[np.ndarray, " edit"]) -> tuple[float, float]:
        """95 %, over edits."""
        return mean_interval(values, self.study.resamples, np.random.default_rng(self.study.seed))

    def preference_row(self, method: str, tag: Language) -> SiteEvidence:
        """The edited fact in one language, beside facts of which another one was edited.

        p is of what stands beside it, the share less that of other edits; that of how far the margin moved is named.
        """
        kind = "reliability" if tag == self.language else "transfer"
        change, before, first = (
            self.per_edit(method, "efficacy", value, [tag])
            for value in (moved, lambda row: float(row.before > 0), lambda row: float(row.says_new))
        )
        control = self.per_edit(CONTROL[method], "efficacy", moved, [tag])
        low, high = self.interval(change)
        return self.mean_row(
            f"{method}, {kind}: the new object is preferred",
            tag,
            self.per_edit(method, "efficacy", prefers_new, [tag]),
            OTHER_EDITS,
            self.per_edit(method, "other edit", prefers_new, [tag]),
            f"before {before.mean():.3f}; first of all candidates {first.mean():.3f}; margin moved "
            f"{change.mean():+.2f} nats per token ({low:+.2f} … {high:+.2f}), under {CONTROL[method]} "
            f"{control.mean():+.2f}; p of the margin {self.p_over_others(method, tag, moved):.3f}",
            self.p_over_others(method, tag, prefers_new),
        )

    def p_over_others(self, method: str, tag: Language, value: Value) -> float:
        """p, by random signs over edits, that a value is as after edits of other facts; NaN where none was asked."""
        values, other = (self.per_edit(method, aspect, value, [tag]) for aspect in ("efficacy", "other edit"))
        differences = (values - other)[~np.isnan(values - other)]
        rng = np.random.default_rng(self.study.seed)
        return sign_flip_p(differences, FLIPS, rng) if len(differences) else math.nan

    def plain_rows(self, method: str) -> Iterator[SiteEvidence]:
        """Generality, locality, portability and the words of the answers, by language."""
        claims: list[tuple[Aspect, str, Value]] = [
            ("generality", "generality: the new object is preferred after other sentences", prefers_new),
            ("locality", "locality: other facts of the relation keep their answer", kept_answer),
            ("portability", "portability: what follows from the new object is preferred", prefers_new),
            ("efficacy", f"language confusion: the word of {self.language} is preferred", prefers_foreign),
        ]
        for tag in self.findings.table.languages:
            for aspect, claim, value in claims:
                values, null = (self.per_edit(name, aspect, value, [tag]) for name in (method, CONTROL[method]))
                if not np.isnan(values).all():
                    divergences = [
                        mean_over(self.per_edit(name, aspect, lambda row: row.divergence, [tag]))
                        for name in (method, CONTROL[method])
                    ]
                    note = "KL of the answer {:.3f} nats, under the control {:.3f}".format(*divergences)
                    yield self.mean_row(f"{method}, {claim}", tag, values, CONTROL[method], null, note)

    def group_rows(self, method: str) -> Iterator[SiteEvidence]:
        """Transfer by script and family, and how much more there is within the script or family of the edits.

        A language whose family is not known is in no family.
        """
        for word, kind in (("script", lambda tag: tag.script), ("family", family_of_language)):
            names = {tag: kind(tag) for tag in self.others}
            for name in dict.fromkeys(name for name in names.values() if name):
                tags = [tag for tag in self.others if names[tag] == name]
                values, null = (self.per_edit(method, part, prefers_new, tags) for part in ("efficacy", "other edit"))
                claim = f"{method}, transfer to {word} {name}: the new object is preferred"
                yield self.mean_row(claim, "", values, OTHER_EDITS, null, ", ".join(tags))
            same, far = (
                [tag for tag in names if (names[tag] == kind(self.language)) == alike] for alike in (True, False)
            )
            if same and far and kind(self.language):
                shares = [self.per_edit(method, "efficacy", prefers_new, tags) for tags in (same, far)]
                note = f"shares: {', '.join(same)} {shares[0].mean():.3f}; {', '.join(far)} {shares[1].mean():.3f}"
                claim = f"{method}, transfer to the same {word} less that to others"
                yield self.mean_row(claim, "", shares[0] - shares[1], "no difference", 0 * shares[0], note)

    def answer_rows(self, method: str) -> Iterator[SiteEvidence]:
        """In whose words greedy answers begin, beside those of the model without an edit."""
        for tag in self.others:
            plain, answers = (
                [answer for answer in self.findings.answers if (answer.method, answer.language) == (name, tag)]
                for name in (NO_EDIT, method)
            )
            if not answers:
                continue
            in_edits, before = (np.array([float(part.words == "edit") for part in side]) for side in (answers, plain))
            judged = [answer.judged for answer in answers if answer.judged is not None]
            in_asked, new = (
                np.mean(part) for part in zip(*((a.words == "asked", a.new) for a in answers), strict=True)
            )
            note = (
                f"begin with a name of {tag} {in_asked:.3f}, with the new object's {new:.3f}; judged {self.language}: "
                f"{sum(name == self.language for name in judged)} of {len(judged)}"
            )
            claim = f"{method}, language confusion: the answer begins with a name of {self.language}"
            yield self.mean_row(claim, tag, in_edits, NO_EDIT, before, note)

    def table_of(self, aspect: Aspect, value: Value) -> tuple[list[str], Float64[np.ndarray, "method language"]]:
        """Means by method, controls among them, and language."""
        methods = [name for method in self.study.methods for name in (method, CONTROL[method])]
        tags = self.findings.table.languages
        rows = [[mean_over(self.per_edit(name, aspect, value, [tag])) for tag in tags] for name in methods]
        return methods, np.array(rows)


def family_of_language(tag: Language) -> str:
    """The family of a language; "" where it is not known."""
    try:
        return lineage_of([tag])[tag].family
    except LanguageError:
        return ""


def edit_summary(findings: EditFindings) -> dict[str, Any]:
    """What is printed."""
    evidence, tags = EditEvidence(findings), findings.table.languages

    def means(method: str, aspect: Aspect, value: Value) -> dict[str, float]:
        return {tag: round(mean_over(evidence.per_edit(method, aspect, value, [tag])), 4) for tag in tags}

    return {
        "edits": len(findings.edits),
        "edited_in": evidence.language,
        "places": {method: [place.layer, place.neurons] for method, place in findings.places.items()},
        "spread": {
            method: {"layers": [*place.layers], "weight": place.weight}
            for method, place in findings.places.items()
            if method == "memit"
        },
        "size": {method: round(float(np.mean(norms)), 4) for method, norms in findings.sizes.items()},
        "prefers_new": {method: means(method, "efficacy", prefers_new) for method in findings.study.methods},
        "by_edits_of_other_facts": {
            method: means(method, "other edit", prefers_new) for method in findings.study.methods
        },
        "by_control": {method: means(CONTROL[method], "efficacy", prefers_new) for method in findings.study.methods},
        "locality": {method: means(method, "locality", kept_answer) for method in findings.study.methods},
    }


def save_edits(findings: EditFindings, out: str | Path) -> None:
    """Write results, edits, trials, outcomes and answers (jsonl), and two maps (html), into a new folder."""
    evidence = EditEvidence(findings)
    lines = {
        "edits": [{**edit.fact._asdict(), "new": edit.new, "language": edit.language} for edit in findings.edits],
        "trials": [
            {**trial.place._asdict(), **dict(zip(trial._fields[1:], trial[1:], strict=True)), "score": trial.score}
            for trial in findings.trials
        ],
        "outcomes": [row._asdict() for row in findings.outcomes],
        "answers": [answer._asdict() for answer in findings.answers],
    }
    with new_folder(out) as folder:
        write_evidence(evidence.rows(), folder / "results.jsonl")
        for name, rows in lines.items():
            text = "".join(f"{json.dumps(nan_as_null(row), ensure_ascii=False)}\n" for row in rows)
            write_text(folder / f"{name}.jsonl", text)
        for name, aspect, value, what, caption in FIGURES:
            methods, shares = evidence.table_of(aspect, value)
            figure = edit_map(shares=shares, methods=methods, languages=findings.table.languages, what=what)
            write_figure(figure, folder / f"{name}.html", caption)


FIGURES: tuple[tuple[str, Aspect, Value, str, FigureCaption], ...] = (
    (
        "transfer",
        "efficacy",
        prefers_new,
        "new object preferred",
        FigureCaption(
            "Edits that hold, by language of the question",
            "Share of edited facts whose new object is then likelier than the old one: a row per method, below it its "
            "control of equal size; a column per language in which is asked.",
        ),
    ),
    (
        "locality",
        "locality",
        kept_answer,
        "other facts as before",
        FigureCaption(
            "Facts that were not edited, by language of the question",
            "Share of other facts whose answer stays as it was: a row per method, below it its control of equal size; "
            "a column per language in which is asked.",
        ),
    ),
)
"""Name, questions, value, what its colours are shares of, and the page's words."""
