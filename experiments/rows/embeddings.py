"""Row 20: geometry of token embeddings."""

from itertools import combinations

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from babelscope.models import open_model
from babelscope.probes.geometry.entries import NO_SCRIPT, embedding_tables
from babelscope.probes.geometry.writing_systems import neighbour_scripts, pair_separability
from babelscope.vocabulary.entry_scripts import script_of
from rows.result import Headline, Inputs, Planted, RowResult, Witness

PAIR_ENTRIES, ENTRIES_ASKED = 150, 1000


def measure_embeddings(inputs: Inputs) -> RowResult:
    """Row 20: the paper's two figures on Gemma's table, beside scikit-learn."""
    model, tokenizer = open_model(inputs.gemma, device="cpu", dtype="float32")
    weight = embedding_tables(model)["input"]
    scripts = {k: script_of(str(tokenizer.decode([k]))) for k in range(len(tokenizer))}
    named = {script for script in scripts.values() if script not in NO_SCRIPT and script != "common"}
    by_script = {name: [k for k, script in scripts.items() if script == name] for name in sorted(named)}
    by_script = {name: entries for name, entries in by_script.items() if len(entries) >= 30}
    generator = torch.Generator().manual_seed(0)
    pairs = pair_separability("input", weight, by_script, most=PAIR_ENTRIES, draws=19, generator=generator)
    nearby = neighbour_scripts("input", weight, by_script, most=ENTRIES_ASKED, generator=generator)
    # The same draws of entries, with scikit-learn.
    again = torch.Generator().manual_seed(0)
    accuracy, table = [], weight.numpy()
    for pair in combinations(by_script, 2):
        size = min(PAIR_ENTRIES, *(len(by_script[name]) for name in pair))
        sides = []
        for name in pair:
            sides.append(
                np.array(by_script[name])[torch.randperm(len(by_script[name]), generator=again)[:size].numpy()]
            )
        cut = max(1, round(0.3 * size))
        test, train = (np.concatenate([table[side[part]] for side in sides]) for part in (slice(cut), slice(cut, None)))
        scaler = StandardScaler().fit(train)
        labels = np.repeat([0, 1], size - cut)
        classifier = RidgeClassifier(alpha=0.1 * len(train)).fit(scaler.transform(train), labels)
        accuracy.append(np.mean(classifier.predict(scaler.transform(test)) == np.repeat([0, 1], cut)))
        for _ in range(19):
            torch.randperm(len(train), generator=again)
    mean = float(np.mean(accuracy))
    small = {name: entries[:60] for name, entries in by_script.items()}
    part = neighbour_scripts("input", weight, small, most=10_000, generator=torch.Generator().manual_seed(0))
    members = np.concatenate([np.array(entries) for entries in small.values()])
    owner = np.repeat(np.arange(len(small)), [len(entries) for entries in small.values()])
    search = NearestNeighbors(n_neighbors=51, metric="cosine").fit(table[members])
    around = owner[search.kneighbors(table[members])[1][:, 1:]]
    by_sklearn = float(np.mean([len(set(row)) for row in around]))
    return RowResult(
        witnesses=[
            Witness(
                what=f"scikit-learn's RidgeClassifier on the same entries, mean of {pairs.n} pairs of scripts",
                difference=abs(mean - pairs.accuracy),
                bar=2e-3,
            ),
            Witness(
                what=f"scikit-learn's NearestNeighbors, scripts among 50 of {len(members)} entries",
                difference=abs(by_sklearn - part.mean),
                bar=1e-2,
            ),
        ],
        headlines=[
            Headline(
                paper="99.2 % mean accuracy between writing systems in XLM-R's embeddings",
                ours=f"{100 * pairs.accuracy:.1f} % [{100 * pairs.interval.low:.1f}, {100 * pairs.interval.high:.1f}] "
                f"over {pairs.n} pairs of {len(by_script)} scripts, as many entries of both",
                control=f"labels shuffled {100 * pairs.null:.1f} %, p {pairs.p:.2f}",
                model="Gemma 3 270M",
                verdict="reproduced"
                if pairs.accuracy >= 0.985
                else "in shape"
                if pairs.interval.low > 0.9 and pairs.p <= 0.05
                else "not",
            ),
            Headline(
                paper="7.61 writing systems among the 50 nearest entries of mT5, far more than in XLM-R",
                ours=f"{nearby.mean:.2f} [{nearby.interval.low:.2f}, {nearby.interval.high:.2f}] of {nearby.n} entries",
                control=f"entries at random {nearby.null:.2f}",
                model="Gemma 3 270M",
                verdict="reproduced" if abs(nearby.mean - 7.61) < 1 else "in shape" if nearby.mean >= 2 else "not",
            ),
        ],
        planted=[planted_scripts()],
    )


def planted_scripts() -> Planted:
    """Of four scripts one is moved apart: which of them a line tells from all others."""
    generator = torch.Generator().manual_seed(0)
    members = {name: list(range(100 * k, 100 * k + 100)) for k, name in enumerate(("a", "b", "c", "d"))}
    weight = torch.randn(400, 40, generator=generator, dtype=torch.float64)
    weight[members["c"], 0] += 8
    result = pair_separability("input", weight, members, draws=19, generator=generator)
    apart = {name for name, mean in zip(result.scripts, result.by_script, strict=True) if mean > 0.95}
    return Planted(
        what="one of four scripts apart from the others",
        recall=float("c" in apart),
        precision=len(apart & {"c"}) / max(1, len(apart)),
    )
