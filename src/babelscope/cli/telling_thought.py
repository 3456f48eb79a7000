"""What `consistency` says to a person; it takes the fields that `--json` prints."""

from pathlib import Path
from shlex import quote

from babelscope.cli.readable import aligned
from babelscope.cli.telling import Fields
from babelscope.cli.telling_scores import or_dash, with_sign
from babelscope.report.wording import p_value, plain


def thought_lines(fields: Fields, model: str, questions: str, out: Path) -> list[str]:
    """Each language's answers beside those of the one compared with, the vote, the steps, and what forcing costs.

    model, questions: as they were named on the command line, for the next command.
    """
    base, vote = fields["against"], fields["vote"]
    rows = [["language", "right", "shuffled", f"same as {base}", "shuffled", f"right if {base} is", "if it is not"]]
    for tag in fields["languages"]:
        agreement = fields["agreement"].get(tag, [None])[0]
        beside = (fields[name].get(tag) for name in ("agreement_shuffled", "right_given_right", "right_given_wrong"))
        rows.append([tag, right_text(fields, tag), *map(or_dash, (fields["shuffled"][tag], agreement, *beside))])
    gain, best = (
        f"{with_sign(vote[name], 3)} ({with_sign(vote[low], 3)} to {with_sign(vote[high], 3)})"
        for name, low, high in (("gain", "low", "high"), ("gain_over_best", "best_low", "best_high"))
    )
    lines = [
        f"questions: {fields['questions']} in each of {len(fields['languages'])} languages; everything is in {out}, "
        "and agreement.html in it is the map",
        *aligned(rows),
        "right: with its 95 % interval; shuffled: the same with the answers in random order; same as: right or wrong",
        f"right by a vote of all languages: {or_dash(vote['right'])}, less {base} alone {gain}, p {p_value(vote['p'])}"
        f"; less the best language, chosen on the other half of the questions {best}",
    ]
    if (votes := fields.get("self_consistency")) is not None:
        interval = f"{with_sign(votes['low'], 3)} to {with_sign(votes['high'], 3)}"
        lines.append(
            f"right by a vote of {votes['answers']} answers drawn in {votes['language']}: {or_dash(votes['right'])}, "
            f"each alone {or_dash(votes['single'])}; the vote of languages less it {with_sign(votes['gain'], 3)} "
            f"({interval}), p {p_value(votes['p'])}"
        )
    if fields["kind"] == "number":
        lines += step_lines(fields)
        cut = max(fields["cut"].values(), default=0.0)
        if cut > 0.1:
            lines.append(
                f"up to {or_dash(cut)} of a language's answers were cut off before they ended, and count as none; a "
                "longer --new-tokens may let them come to their number"
            )
    lines += forcing_lines(fields)
    if fields["kind"] == "number" and not fields["forced"]:
        lines.append(
            f"next: babelscope consistency {quote(model)} {quote(questions)} --think-in own {base} --out FOLDER, which "
            "says what it costs to reason in another language"
        )
    else:
        lines.append(f"next: babelscope report {quote(str(out))}, which makes a page of the evidence")
    return lines


def right_text(fields: Fields, tag: str) -> str:
    """Share of right answers with its interval."""
    low, high = map(or_dash, fields["interval"][tag])
    return f"{or_dash(fields['right'][tag])} ({low} to {high})"


def step_lines(fields: Fields) -> list[str]:
    """In which language the steps of the answers are."""
    base = fields["against"]
    rows = [["asked in", "steps in it", f"in {base}", "in others", "tokens", "no answer", "cut off"]]
    for tag in fields["languages"]:
        shares = fields["steps"].get(tag, {})
        parts = (shares.get(name, [None])[0] for name in (tag, base if base != tag else "", "other"))
        ends = (fields[name].get(tag) for name in ("no_answer", "cut"))
        rows.append([tag, *map(or_dash, parts), plain(fields["tokens"][tag], 0), *map(or_dash, ends)])
    return ["", "the language of the steps in which the answers are written:", *aligned(rows)]


def forcing_lines(fields: Fields) -> list[str]:
    """What making the model reason in a language changes, beside the control."""
    if not fields["forced"]:
        return []
    rows = [["condition", "change of", "by", "95 % interval", "control", "p"]]
    for cost in fields["forced"]:
        interval = f"{with_sign(cost['low'], 3)} to {with_sign(cost['high'], 3)}"
        numbers = (with_sign(cost["change"], 3), interval, with_sign(cost["null"], 3), p_value(cost["p"]))
        rows.append([cost["condition"], cost["measure"], *numbers])
    controls = dict.fromkeys(cost["control"] for cost in fields["forced"])
    return [
        "",
        "what it changes to make the model reason in a language, over the same questions:",
        *aligned(rows),
        f"control: {'; '.join(name or 'none' for name in controls)}; p: of the difference from it",
    ]
