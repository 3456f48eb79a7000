"""The row of counts: observations in parts and merged."""

import torch

from babelscope import Observation, load_corpus, observe, open_model
from rows.result import Headline, Inputs, RowResult, Witness

LANGUAGES = ("en", "de", "ru", "fi")


def measure_merge(inputs: Inputs) -> RowResult:
    """One pass against the sum of three parts of it, field by field, on every model that was handed over."""
    witnesses = []
    for name, folder in (("bundled model", "reference"), ("Gemma 3 270M", inputs.gemma)):
        if folder:
            witnesses += parts_against_whole(name, folder)
    said = "; ".join(f"{w.what}: {w.difference:.0e}" for w in witnesses)
    agreed = all(w.holds for w in witnesses)
    headline = Headline(
        paper="no paper: counts of parts add up to those of one pass, bit for bit; moments to rounding",
        ours=said,
        control="a part left out changes the counts",
        model="bundled model and Gemma 3 270M" if inputs.gemma else "bundled model",
        verdict="reproduced" if agreed else "not",
    )
    return RowResult(witnesses=witnesses, headlines=[headline])


def parts_against_whole(name: str, folder: str) -> list[Witness]:
    model, tokenizer = open_model(folder, device="cpu")
    texts = load_corpus("reference", LANGUAGES, split="train")
    observed = [
        observe(model, tokenizer, texts, sites=("mlp_gate", "resid_out"), tokens_per_language=1000, part=part)
        for part in ((0, 1), (0, 3), (1, 3), (2, 3))
    ]
    whole, merged = observed[0], observed[1] + observed[2] + observed[3]
    if torch.equal((observed[1] + observed[2]).active, whole.active):
        raise AssertionError("the control failed: two of three parts have all counts")
    return [
        Witness(
            what=f"{name}: counts of neurons, documents and tokens, one pass against three parts",
            difference=count_gap(whole, merged),
            bar=0.0,
        ),
        Witness(
            what=f"{name}: sums and squares, relative to the largest; parts are batched otherwise",
            difference=moment_gap(whole, merged),
            bar=1e-7,
        ),
    ]


def count_gap(first: Observation, second: Observation) -> float:
    pairs = [(first.token_counts, second.token_counts), (first.documents, second.documents)]
    for at in first.records:
        pairs += [(getattr(first[at], part), getattr(second[at], part)) for part in ("active", "shard_active")]
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


def moment_gap(first: Observation, second: Observation) -> float:
    gaps = []
    for at in first.records:
        for part in ("sum", "sumsq", "norm"):
            a, b = getattr(first[at], part), getattr(second[at], part)
            gaps.append(float((a - b).abs().max() / a.abs().max()))
    return max(gaps)
