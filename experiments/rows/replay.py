"""Row 33: continued training with replay."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

import babelscope as bs
from babelscope.adaptation import Material, adapt
from babelscope.adaptation.forgetting import choose_replay, forgetting_account
from rows.result import Headline, Inputs, RowResult, Verdict, Witness
from rows.training_text import REFERENCE, SEEDS, mono, span


def replay(inputs: Inputs) -> RowResult:
    """Row 33: Basque with English, Finnish and Spanish replayed as far as a bound on harm asks."""
    model, tokenizer = bs.open_model("reference")
    others = ["en", "fi", "es"]
    text, dev = mono(inputs, "eu", "train", 1500), mono(inputs, "eu", "valid", 40)
    replayed = {tag: mono(inputs, tag, "train", 500) for tag in others}
    valid, test = (
        {"eu": dev if name == "valid" else mono(inputs, "eu", "valid", 40, 100)}
        | {tag: mono(inputs, tag, "valid", 40, first) for tag in others}
        for name, first in (("valid", 0), ("test", 100))
    )
    settings: dict[str, Any] = {
        "steps": 30, "learning_rate": 2e-4, "tokens_per_step": 512, "evaluate_every": 10, "trail_every": 10
    }  # fmt: skip
    shares, bound = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9), 0.05

    def prepare(share: float, seed: int, scored: Mapping[str, Sequence[str]]) -> Material:
        return Material.prepare(
            model, tokenizer, language="eu", documents=text, dev=dev, test=scored, replay=replayed if share else None,
            replay_share=share, max_length=64, seed=seed, same_text=True,
        )  # fmt: skip

    chosen, harms, without, gains, recovered = [], [], [], [], []
    gap = 0.0
    for seed in SEEDS:
        choice = choose_replay(partial(prepare, seed=seed, scored=valid), "full", shares, bound, **settings)
        kept = adapt(prepare(choice.share, seed, test), "full", **settings)
        free = adapt(prepare(0.0, seed, test), "full", **settings)
        chosen.append(choice.share)
        harms.append(kept.harm("eu"))
        gains.append(kept.gain("eu"))
        without.append(free.harm("eu"))
        for row in forgetting_account(free.before, free.trail, "eu"):
            rises = np.array([scores[row.language] for _, scores in free.trail]) - free.before[row.language]
            gap = max(gap, abs(float(rises.max()) - row.worst), abs(float(rises[-1]) - row.last))
            recovered.append(row.worst - row.last)
    bounded = all(harm <= bound < free for harm, free in zip(harms, without, strict=True))
    verdict: Verdict = "in shape" if bounded and min(gains) > 0 else "not"
    return RowResult(
        witnesses=[
            replay_witness(prepare(0.25, 0, test)),
            Witness(what="worst and last rise by numpy, 9 courses, in bits per byte", difference=gap, bar=1e-12),
        ],
        headlines=[
            Headline(
                paper="a share of replay of the earlier text keeps forgetting small in continued training",
                ours=f"bound {bound} bits per byte on valid text: shares {sorted(chosen)} of {list(shares)}; harm on "
                f"test text {span(harms)}, gain {span(gains)}; the worst rise without replay fell by {span(recovered)} "
                "by the end",
                control=f"no replay: harm {span(without)}",
                model=REFERENCE,
                verdict=verdict,
            )
        ],
    )


def replay_witness(prepared: Material) -> Witness:
    """Rows by language, counted in the first 400 rows of training."""
    tags = [prepared.mixture.row(number)[0] for number in range(400)]
    share = sum(tag != prepared.language for tag in tags) / 400
    return Witness(what="share of replayed rows among 400, beside .25", difference=abs(share - 0.25), bar=0)
