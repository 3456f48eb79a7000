"""Row of transfer: train on each language, measure the others, and choose sources by nearness."""

from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

import babelscope as bs
from babelscope.adaptation import Material, adapt
from babelscope.adaptation.language_nearness import nearness_tables
from babelscope.adaptation.source_choice import RIDGE, TOGETHER, choose_sources, predicted_gains
from babelscope.adaptation.transfer_runs import TransferMatrix, transfer_matrix
from babelscope.corpus import as_corpus
from babelscope.languages import Language
from babelscope.probes.lens.word_lists import read_words
from rows.result import Headline, Inputs, Planted, RowResult, Verdict, Witness
from rows.training_text import REFERENCE, mono

TAGS = ("en", "de", "nl", "fi", "et", "tr", "tt", "eu", "es", "pt")
"""Two of each of four families, and two without a relative here."""
STEPS, LINES, HELD_OUT, DRAWS = 12, 400, 16, 999


def planted_tables() -> Planted:
    """One of five tables made the gains."""
    rng = np.random.default_rng(0)
    tables = {f"table {k}": rng.standard_normal((10, 10)) for k in range(5)}
    gain = 0.1 * tables["table 2"] + 0.03 * rng.standard_normal((10, 10))
    matrix = TransferMatrix(tuple(map(Language, TAGS)), np.zeros(10), -gain[None], "ffn", 1, 0.1)
    found = {choice.table for choice in choose_sources(matrix, tables, draws=199) if choice.p_adjusted <= 0.005}
    found.discard(TOGETHER)
    hits = len(found & {"table 2"})
    return Planted(what="one of five tables made the gains of ten languages", recall=hits, precision=hits / len(found))


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's, by scipy."""
    result: Any = spearmanr(x, y)
    return float(result.statistic)


def ridge_by_hand(gain: np.ndarray, tables: list[np.ndarray], candidates: np.ndarray) -> np.ndarray:
    """The regression by scikit-learn, pair by pair."""
    n = len(gain)
    apart = ~np.eye(n, dtype=bool)
    x = np.stack([(table - table[apart].mean()) / table[apart].std() for table in tables], axis=-1)
    predicted = np.zeros((n, n))
    for target in range(n):
        rows, answers = [], []
        for other in set(range(n)) - {target}:
            sources = [k for k in range(n) if k != target and candidates[k, other]]
            rows += [x[k, other] for k in sources]
            answers += list(gain[sources, other] - gain[sources, other].mean())
        fitted = Ridge(alpha=RIDGE, fit_intercept=False).fit(np.array(rows), np.array(answers))
        for source in set(range(n)) - {target}:
            predicted[source, target] = fitted.predict(x[source, target][None])[0]
    return predicted


def plain_bits(model: Any, tokenizer: Any, lines: list[str]) -> float:
    """Bits per byte by transformers' own forward pass, each line alone after what begins a text."""
    nats, n_bytes = 0.0, 0
    for line in lines:
        ids = tokenizer(line, return_tensors="pt").input_ids
        with torch.no_grad():
            logs = torch.log_softmax(model(ids).logits[0, :-1].double(), dim=-1)
        nats -= float(logs.gather(1, ids[0, 1:, None]).sum())
        n_bytes += len(line.encode())
    return nats / np.log(2) / n_bytes


def measure_transfer(inputs: Inputs) -> RowResult:
    """Row 43: ten languages of the bundled model's text and others, whole MLPs, two orders of the text."""
    model, tokenizer = bs.open_model("reference", device="cpu", dtype="float32")
    parts = {
        "train": {tag: mono(inputs, tag, "train", LINES) for tag in TAGS},
        "valid": {tag: mono(inputs, tag, "valid", HELD_OUT) for tag in TAGS},
        "test": {tag: mono(inputs, tag, "valid", HELD_OUT, HELD_OUT) for tag in TAGS},
    }
    texts = {split: as_corpus(by_tag) for split, by_tag in parts.items()}
    settings: dict[str, Any] = {"steps": STEPS, "tokens_per_step": 512}
    matrix = transfer_matrix(model, tokenizer, texts, seeds=(0, 1), max_length=64, **settings)
    tables = nearness_tables(model, tokenizer, texts["valid"], words=read_words("reference"))
    choices = choose_sources(matrix, tables, draws=DRAWS)
    gain, n = matrix.gain, len(TAGS)
    candidates = matrix.learnt[:, None] & ~np.eye(n, dtype=bool)
    gaps = []
    for choice in choices:
        if choice.table != TOGETHER:
            sides = [[side[candidates[:, j], j] for j in range(n)] for side in (tables[choice.table], gain)]
            by_scipy = [rank_correlation(x, y) for x, y in zip(*sides, strict=True)]
            gaps.append(abs(choice.correlation - sum(by_scipy) / n))
    nearness = [*tables.values()]
    by_hand = ridge_by_hand(gain, nearness, candidates)
    difference = np.abs(predicted_gains(gain, nearness, candidates) - by_hand)[candidates].max()
    material = Material.prepare(
        model, tokenizer, language="fi", documents=parts["train"]["fi"], dev=parts["valid"]["fi"], test=parts["test"],
        max_length=64,
    )  # fmt: skip
    options: dict[str, Any] = {
        "learning_rate": matrix.learning_rate,
        "evaluate_every": STEPS // 3,
        "trail_every": 10**9,
    }
    delta = adapt(material, "ffn", **settings, **options).delta
    assert delta is not None
    with delta.applied(model):
        by_transformers = plain_bits(model, tokenizer, parts["test"]["et"])
    cell = matrix.after[0, TAGS.index("fi"), TAGS.index("et")]
    own, any_source = float(np.diag(gain).mean()), float(gain[candidates].mean())
    best = min(choices, key=lambda choice: choice.p_adjusted)
    by_name = "; ".join(f"{choice.table} {choice.correlation:.2f} (p {choice.p_adjusted:.3f})" for choice in choices)
    model_choice = next(choice for choice in choices if choice.table == "model")
    verdict: Verdict = (
        "in shape" if model_choice.p_adjusted <= 0.05 and model_choice.gain > model_choice.gain_null else "not"
    )
    return RowResult(
        witnesses=[
            Witness(
                what=f"rank correlation of {len(gaps)} tables with gains over the sources of a target, scipy",
                difference=float(max(gaps)),
                bar=1e-9,
            ),
            Witness(
                what="gains predicted by scikit-learn's ridge regression without the target",
                difference=float(difference),
                bar=1e-9,
            ),
            Witness(
                what="bits per byte of Estonian after training on Finnish, by plain transformers in float64",
                difference=abs(by_transformers - float(cell)),
                bar=1e-4,
            ),
        ],
        planted=[planted_tables()],
        headlines=[
            Headline(
                paper="sources chosen by the model's own similarity do better than by lexical or typological distance "
                "(mPLM-Sim); no single feature predicts transfer alone (LangRank)",
                ours=f"rank correlation of nearness and gain: {by_name}; the nearest by the model gains "
                f"{model_choice.gain:.4f} bits per byte, by {best.table} {best.gain:.4f}, the best of each target "
                f"{best.gain_best:.4f}, its own text {own:.4f}",
                control=f"any source {any_source:.4f}; languages that change places: correlation {best.null:.2f}",
                model=REFERENCE,
                verdict=verdict,
            )
        ],
        absent=["transfer of tasks with labels (part of speech, dependencies): no such training text"],
    )
