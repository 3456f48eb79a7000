"""What `knowledge`, `priming`, `edit`, `transfer`, `adapt` and `evaluate perplexity` say to a person.

Each function takes the fields that `--json` prints, with numbers as shares, or in bits per byte.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from babelscope.cli.telling import Fields
from babelscope.cli.telling_counts import aligned, share_text
from babelscope.report.wording import p_value, plain

if TYPE_CHECKING:
    # Not loaded for other verbs: it comes with torch and transformers.
    from babelscope.probes.priming import PrimingEffect

DASH = "–"


def or_dash(share: float | None) -> str:
    """A share as whole per cent; a dash where there is none."""
    return DASH if share is None else share_text(share, 0)


def with_sign(value: float | None, digits: int = 4) -> str:
    """A number with its sign, a true minus, and none where it is rounded to zero; a dash where there is none."""
    text = plain(value, digits)
    return f"+{text}" if value is not None and round(value, digits) > 0 else text


def knowledge_lines(fields: Fields, against: str, out: Path) -> list[str]:
    """How many facts are right in each language, beside chance and its control, and what mixtures do."""
    rows = [["language", "right", "by chance", "answers shuffled", f"same answer as {against}", "home", "elsewhere"]]
    for tag, share in fields["precision"].items():
        controls = (fields[name].get(tag) for name in ("chance", "shuffled", "agreement"))
        rows.append([tag, *map(or_dash, (share, *controls, *fields["home_bias"].get(tag, (None, None))))])
    lines = [
        f"facts: {fields['facts']}; everything is in {out}, and shared_facts.html in it is the map",
        *aligned(rows),
        "answers shuffled: each fact with the answer to another one; home: wrong answers that name the language's own "
        "country, asked in it and elsewhere",
        f"right by a vote of all languages: {or_dash(fields['pooled_votes'])}",
    ]
    if fields["barrier"]:
        from babelscope.probes.knowledge.knowledge_report import OPTIONS

        parts = ", ".join(f"{mixture} {or_dash(share)}" for mixture, share in fields["barrier"].items())
        lines.append(
            f"multiple choice of {OPTIONS} options ({share_text(1 / OPTIONS, 0)} by chance), right by what is in "
            f"another language: {parts}"
        )
    choice = fields["language_by_cluster"]
    if choice:
        right, one, shuffled = map(or_dash, (choice["right"], choice["first_language"], choice["shuffled"]))
        lines.append(f"each cluster in its own language: {right} right; all in one: {one}; right shuffled: {shuffled}")
    return lines


def priming_lines(fields: Fields, effects: Sequence["PrimingEffect"], out: Path) -> list[str]:
    """The effect of each direction, with the control of shuffled words beside it where it was measured."""
    words = {effect[:2]: effect.effect for effect in effects if effect.condition == "shuffled words"}
    rows = [["prime:target", "items", "effect", "95 % interval", "words shuffled", "q"]]
    for effect in effects:
        if effect.condition == "structure":
            interval = f"{with_sign(effect.low, 3)} to {with_sign(effect.high, 3)}"
            control = with_sign(words.get(effect[:2]), 3)
            name = f"{effect.prime}:{effect.target}"
            rows.append([name, str(effect.items), with_sign(effect.effect, 3), interval, control, p_value(effect.q)])
    return [
        f"structures: {' and '.join(fields['structures'])}; everything is in {out}, and priming.html in it is the "
        "figure",
        *aligned(rows),
        "effect: rise of a target's share of probability after a prime of its structure, from −1 to 1; words "
        "shuffled: the same with the prime's words in random order; q: corrected for all rows and controls",
        *(
            f"{direction}: interval above zero from checkpoint {checkpoint or DASH} on"
            for direction, checkpoint in fields["first_checkpoint_above_zero"].items()
        ),
    ]


def edit_lines(fields: Fields, out: Path) -> list[str]:
    """How often an edit is followed in each language, beside edits of other facts and the control as large."""
    rows = [["method", "asked in", "new object", "other facts' edits", "control", "other facts unmoved"]]
    for method, shares in fields["prefers_new"].items():
        for tag, share in shares.items():
            others = (fields[name][method][tag] for name in ("by_edits_of_other_facts", "by_control", "locality"))
            rows.append([method, tag, *map(or_dash, (share, *others))])
    places = []
    for method, (layer, neurons) in fields["places"].items():
        where = f"layer {layer}{f', {neurons} neurons' if neurons else ''}"
        if spread := fields["spread"].get(method):
            first, weight = spread["layers"][0], spread["weight"]
            where = f"layers {first}–{layer}, weight {weight:g}, {fields['edits']} edits at once"
        places.append(f"{method}: {where}, the change has the Frobenius norm {fields['size'][method]:.3g}")
    return [
        f"edits: {fields['edits']}, told in {fields['edited_in']}; everything is in {out}, and transfer.html and "
        "locality.html in it are the maps",
        *aligned(rows),
        "new object: share of edits after which it is likelier than the old one; control: a random change as large at "
        "the same place, or another true sentence; other facts unmoved: share with the answer from before",
        *places,
    ]


def transfer_lines(fields: Fields, out: Path) -> list[str]:
    """The best source of each target, and whether a table of nearness would have told it."""
    rows = [["target", "best source", "gain, bits per byte"]]
    for target, best in fields["best_source"].items():
        gains = isinstance(best, dict)
        rows.append([target, best["source"] if gains else "none gains", with_sign(best["gain"] if gains else None)])
    lines = [
        f"learning rate {fields['learning_rate']:.3g}; everything is in {out}, and transfer.html in it is the table",
        *aligned(rows),
    ]
    if fields["learnt_nothing"]:
        lines.append(f"learnt nothing from their own text, and are no source: {', '.join(fields['learnt_nothing'])}")
    if fields["choice"]:
        columns = ("p", "p, corrected for all tables", "gain of the nearest", "of any", "of the best")
        table = [["told by", "rank correlation", *columns]]
        for name, choice in fields["choice"].items():
            ps = (p_value(choice[column]) for column in columns[:2])
            gains_of = (with_sign(choice[column]) for column in columns[2:])
            table.append([name, with_sign(choice["rank correlation"], 2), *ps, *gains_of])
        lines += [*aligned(table), "p: languages change places in the table of nearness; gains in bits per byte"]
    if fields["change_of_spaces"]:
        table = [["spaces move with", "rank correlation", "p, corrected for all tables"]]
        for name, change in fields["change_of_spaces"].items():
            table.append([name, with_sign(change["rank correlation"], 2), p_value(change["p"])])
        lines += [*aligned(table), "how far sentences of languages that are not trained move: by nearness, and by gain"]
    return lines


def expert_lines(fields: Fields, out: Path) -> list[str]:
    """What each family's text gained by experts and by the controls, and how much of it goes to its expert."""
    names = list(next(iter(fields["families"].values()))["gain"])
    rows = [["family", "languages", *(f"gain: {name}" for name in names), "on its expert"]]
    for family, entry in fields["families"].items():
        gains = [with_sign(entry["gain"][name]) for name in names]
        rows.append([family, " ".join(entry["languages"]), *gains, f"{entry['share']:.3f}"])
    more = [
        f"more than {control} on the same tokens: {with_sign(part['gain'])} [{with_sign(part['low'])}, "
        f"{with_sign(part['high'])}] bits per byte"
        for control, part in fields["more_than"].items()
    ]
    return [
        f"layers {', '.join(map(str, fields['layers']))} as experts, {fields['top_k']} a token; logits differed by "
        f"{fields['logits_differ']:.1e} before training; everything is in {out}, and the mixture in {out / 'model'}",
        *aligned(rows),
        f"gains in bits per byte of test text; of the choices at most {1 / fields['top_k']:.3f} can fall on one expert",
        *more,
    ]


def adapt_lines(fields: Fields, out: Path) -> list[str]:
    """Bits per byte of every language's test text before and after, and what was trained."""
    tag, origin = fields["language"], fields.get("learning_rate_is")
    rows = [["language", "before", "after", "change"]]
    for other, before in fields["before"].items():
        after = fields["after"][other]
        rows.append([f"{other}, trained" if other == tag else other, f"{before:.4f}", f"{after:.4f}",
                     with_sign(after - before)])  # fmt: skip
    method = f" by {fields['method']}" if "method" in fields else ""
    beside = "" if method else "; compare with --baseline random"
    lines = (
        ["complete already: nothing was trained now, and the settings are that run's"] if "resumed" in fields else []
    )
    lines += [
        f"{fields['trained']:,} values trained{method} at learning rate {fields['learning_rate']:.3g}"
        f"{f' ({origin})' if origin else ''}; saved in {out}, with all figures in result.json",
        *aligned(rows),
        f"bits per byte of test text, lower is better; gain of {tag} {with_sign(fields['gain'])}, harm (mean rise of "
        f"the others) {with_sign(fields['harm'])}{beside}",
    ]
    if fields["rates_on_valid"]:
        tried = ", ".join(f"{float(rate):g}: {score:.4f}" for rate, score in fields["rates_on_valid"].items())
        lines.append(f"bits per byte of valid text by learning rate: {tried}")
    if "shift" in fields:
        folder = out / fields["shift"]["folder"]
        lines.append(f"trained with a shift: text of {tag} needs the recipe {folder / tag} where this is used")
    cast = fields.get("cast")
    if cast:
        lines.append(
            f"as {cast['dtype']} weights, {share_text(cast['unmoved'])} of the values would not move and "
            f"{share_text(cast['lost'])} of the change's length is lost"
        )
    return lines


def perplexity_lines(fields: Fields) -> list[str]:
    """Loss of each language with its interval and what it was measured on."""
    rows = [["language", "bits a byte", "95 %", "nats a token", "documents", "tokens", "bytes"]]
    for tag, bits in fields["bits_per_byte"].items():
        low, high = (DASH if end is None else plain(end, 4) for end in fields["interval"][tag])
        counts = (f"{fields[name][tag]:,}" for name in ("documents", "tokens", "bytes"))
        rows.append([tag, plain(bits, 4), f"{low} to {high}", plain(fields["nats_per_token"][tag], 4), *counts])
    return [
        *aligned(rows),
        "95 %: over documents; compare languages and vocabularies in bits a byte, a token is another amount of text in "
        "each",
    ]
