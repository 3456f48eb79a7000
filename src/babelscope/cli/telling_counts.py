"""What `observe`, `identify`, `direct` and `ablate` say to a person: each figure with what it is of, and its number."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from babelscope.artifacts import Direction, NeuronSet, Observation
from babelscope.artifacts.stream import LayerStream
from babelscope.cli.readable import aligned, number_of
from babelscope.controls import FEWEST_SHARDS, Stability
from babelscope.languages import Language
from babelscope.study.texts import FEWEST_READ

if TYPE_CHECKING:
    # Not loaded for the verbs that open no model: both come with transformers.
    from babelscope.ablation import AblationTable
    from babelscope.recording import ObservationPlan


def share_text(share: float, digits: int = 1) -> str:
    """A share as per cent, with a true minus; a dash where it is not known."""
    return "–" if math.isnan(share) else f"{100 * share:.{digits}f} %".replace("-", "−")


def tokens_text(tokens: Mapping[Language, int]) -> str:
    """Tokens by language as words."""
    return ", ".join(f"{tag} {count:,}" for tag, count in tokens.items())


def few_document_lines(observation: Observation, shards: int) -> list[str]:
    """What `identify` would refuse later: tokens of too few documents; nothing where enough shards hold text.

    shards: into how many the documents were dealt; of fewer than `identify` wants, somebody asked for fewer.
    """
    filled = (observation.shard_tokens > 0).sum(dim=0).tolist()
    few = [f"{tag} in {count}" for tag, count in zip(observation.languages, filled, strict=True) if count < FEWEST_READ]
    if not few or shards < FEWEST_SHARDS:
        return []
    return [
        f"few documents were read, {', '.join(few)} of {shards} shards: identify draws no intervals from fewer than "
        f"{FEWEST_READ}; give more text or a larger --tokens-per-language"
    ]


def plan_lines(plan: "ObservationPlan", limit: int | None) -> list[str]:
    """The size of a pass that was not run."""
    layers: dict[str, list[int]] = {}
    for name in plan.sites:
        layer, _, at = name.rpartition(".")
        layers.setdefault(at, []).extend([int(layer)] if layer else [])
    sites = [f"{at} of {len(numbers)} layers" if numbers else at for at, numbers in layers.items()]
    a_language = "all text" if limit is None else f"{limit:,} a language, fewer where its text is shorter"
    return [
        f"about {plan.tokens:,} tokens ({a_language})",
        f"the Observation would take {plan.result_bytes / 1e6:.1f} MB of disk: {', '.join(sites)}",
    ]


def set_lines(sets: NeuronSet, stability: Mapping[Language, Stability], splits: int, out: Path) -> list[str]:
    """How many neurons each language has, and how well two halves of the text agree on them.

    splits: half-splits of which the medians and ranges are.
    """
    rows = [["language", "neurons", "halves agree", "by chance", "lead"]]
    for tag, row in stability.items():
        cells = ([row.median, row.low, row.high], [row.chance], [row.lead, row.lead_low, row.lead_high])
        rows.append([tag, f"{sets.sizes[tag]:,}", *map(spread, cells)])
    return [
        f"{sum(sets.sizes.values()):,} neurons at {sets.at} by {sets.method}, saved in {out}",
        *aligned(rows),
        f"halves agree: Jaccard index of the sets of two halves of the text, median and 95 % range of {splits} splits; "
        "lead: the same less the mean agreement with the other languages' sets; a range above 0 says that the neurons "
        "go with the language",
    ]


def spread(values: Sequence[float]) -> str:
    """A figure, with its lower and upper end where it has them; a dash where it is not known."""
    texts = ["–" if math.isnan(value) else f"{value:.2f}".replace("-", "−") for value in values]
    return texts[0] if len(texts) == 1 else f"{texts[0]} ({texts[1]} to {texts[2]})"


def direction_lines(direction: Direction, stream: LayerStream | None, out: Path) -> list[str]:
    """Where a direction leads, how long it is beside the stream, and what was left out of it."""
    source = ", ".join(direction.source) or "all others"
    share = share_text(direction.norm / direction.scale, 0)
    of_what = "ordinary tokens' median length" if direction.form == "ordinary" else "the stream's mean length"
    lines = [
        f"direction from {source} to {direction.target} at {direction.site}, saved in {out}",
        f"length {direction.norm:.4g}: {share} of {of_what}, {direction.scale:.4g}; --strength multiplies it",
    ]
    if stream is not None and stream.ordinary_tokens:
        shares, ordinary = stream.shares, direction.form == "ordinary"
        names = ", ".join(map(str, direction.left_out))
        units = f" and unit{'s' if len(direction.left_out) > 1 else ''} {names}" if names else ""
        left_out = f"without first tokens{units}" if ordinary else "of all tokens and units"
        lines.append(
            f"form {direction.form}, {left_out}: unit {shares.unit} alone holds {share_text(shares.unit_share)} of the "
            f"squared length, first tokens are {shares.first_ratio:.3g} × as large in square as others"
        )
    return lines


def ablation_lines(table: "AblationTable", out: Path) -> list[str]:
    """The harm of each language's set on its own text, beside the other texts and the random sets."""
    own, lead = table.own_harm(), table.specificity()
    p = {control: table.p_values(control) for control in table.draws}
    rows = [["language", "neurons", "tokens", "own text", "less the largest other", *table.draws, "p"]]
    for tag in own:
        tokens = int(table.base[table.column(tag)].tokens.sum())
        drawn = [table.drawn_harm(control)[tag] for control in table.draws]
        interval = lead[tag]
        rows.append([
            tag, f"{table.sizes[tag]:,}", f"{tokens:,}", share_text(own[tag]),
            f"{share_text(interval.estimate)} ({share_text(interval.low)} to {share_text(interval.high)})",
            *(share_text(sum(harms) / len(harms)) for harms in drawn),
            f"{max(values[tag] for values in p.values()):.2g}",
        ])  # fmt: skip
    draws = len(next(iter(table.drawn_harm(next(iter(table.draws))).values())))
    least = 1 / (draws + 1)
    few = f"; no p of so few draws is below {least:.2g}: --draws 19 can reach .05" if least > 0.05 else ""
    return [
        f"rise of the loss with each language's neurons off (to {table.to}); everything is in {out}",
        *aligned(rows),
        f"{' and '.join(table.draws)}: mean of {number_of(draws, 'random set')} on the own text; p: share of them, and "
        f"of the set itself, that do as much harm, the larger of the controls{few}",
    ]
