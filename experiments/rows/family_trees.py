"""Row 23: language trees, and how each space changes under training."""

from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata, spearmanr

from babelscope.adaptation import Material, adapt
from babelscope.adaptation.language_nearness import nearness_tables
from babelscope.adaptation.space_changes import GAIN, space_changes
from babelscope.adaptation.transfer_runs import TransferMatrix, transfer_matrix
from babelscope.corpus import load_corpus
from babelscope.languages import Language
from babelscope.models import open_model
from babelscope.probes.geometry.language_distances import distance_tables, distance_test
from babelscope.probes.geometry.sentences import record_sentences
from babelscope.probes.geometry.trees import similarity_tree
from babelscope.probes.lens.word_lists import read_words
from rows.result import Headline, Inputs, Planted, RowResult, Witness
from rows.sentence_models import first_of, pud

RELATED = ("en", "ar", "cs", "de", "es", "fi", "fr", "hi", "id", "it", "ja", "pl", "pt", "ru", "sv", "tr", "zh")


def measure_trees(inputs: Inputs) -> RowResult:
    """Row 23: similarity of languages, and the change of their spaces, against their nearness."""
    model, tokenizer = open_model(inputs.gemma, device="cpu", dtype="float32")
    texts = pud(inputs.corpora, RELATED)
    sentences = record_sentences(model, tokenizer, texts, sentences=30, poolings=("mean",))
    tree = similarity_tree(sentences, draws=999, seed=0)
    tables = distance_tables(tree.languages, read_words("reference"))
    scripts = np.array([tag.script for tag in tree.languages])
    same_script = (scripts[:, None] == scripts[None]).astype(np.float64)
    upper = np.triu_indices(len(tree.languages), 1)
    vectors = sentences.vectors["mean"].double().numpy()
    unit = vectors / np.linalg.norm(vectors, axis=3, keepdims=True)
    by_hand = np.einsum("adsh,bdsh->dab", unit, unit) / vectors.shape[2]
    matrix_difference = float(np.abs(by_hand - tree.similarity.double().numpy()).max())
    depth = len(tree.sites) // 2
    similarity = tree.similarity[depth].double().numpy()
    tests, difference = {}, 0.0
    for name, table in tables.items():
        tests[name] = distance_test(similarity, table, same_script, draws=999, seed=0)
        ranks = [rankdata(side[upper]) for side in (similarity, -table, same_script)]
        r = np.corrcoef(ranks)
        partial = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
        difference = max(difference, abs(tests[name].correlation - r[0, 1]), abs(tests[name].partial - partial))
    whole = ", ".join(f"{name} {test.correlation:.2f} (p {test.p:.3f})" for name, test in tests.items())
    given = ", ".join(f"{name} {test.partial:.2f} (p {test.partial_p:.3f})" for name, test in tests.items())
    sure = [name for name, test in tests.items() if test.p <= 0.05]
    further_witnesses, further = changed_spaces()
    return RowResult(
        witnesses=[
            Witness(
                what=f"mean cosine of translations by numpy's einsum, {len(tree.languages)} languages, all depths",
                difference=matrix_difference,
                bar=1e-9,
            ),
            Witness(
                what=f"Spearman and partial Spearman by scipy's ranks and the formula of three correlations, "
                f"{len(tables)} tables",
                difference=float(difference),
                bar=1e-9,
            ),
            *further_witnesses,
        ],
        headlines=[
            Headline(
                paper="similarity correlates moderately with lexical, genetic and geographic similarity of languages",
                ours=f"Spearman at depth {depth} of {len(tree.sites) - 1}: {whole}",
                control=f"script taken out: {given}",
                model="Gemma 3 270M",
                verdict="in shape" if {"genetic", "geographic"} <= set(sure) else "not",
            ),
            further,
        ],
        planted=[planted_distance(), planted_changes()],
    )


ADAPTED_STEPS, SENTENCES_CHANGED = 9, 16


def changed_spaces() -> tuple[list[Witness], Headline]:
    """All languages of the bundled text: trained on each in turn, how far does the space of each other one move?"""
    model, tokenizer = open_model("reference", device="cpu", dtype="float32")
    texts = {
        "train": load_corpus("reference", split="train"),
        "valid": load_corpus("reference", split="valid").head(SENTENCES_CHANGED),
        "test": load_corpus("reference", split="test").head(SENTENCES_CHANGED),
    }
    settings: dict[str, Any] = {"steps": ADAPTED_STEPS, "tokens_per_step": 512, "max_length": 64}
    matrix = transfer_matrix(model, tokenizer, texts, seeds=(0,), **settings)
    tables = nearness_tables(model, tokenizer, texts["valid"], words=read_words("reference"))
    found = {change.table: change for change in space_changes(matrix, tables, draws=999)}
    assert matrix.moved_by is not None
    change, n = matrix.moved_by[0].mean(axis=2), len(matrix.languages)
    trained = np.flatnonzero(matrix.learnt)
    gaps = []
    for name, table in {**tables, GAIN: matrix.gain}.items():
        results: list[Any] = [spearmanr(table[i, np.arange(n) != i], change[i, np.arange(n) != i]) for i in trained]
        by_scipy = np.nan_to_num([result.statistic for result in results])  # constant: no correlation, 0 here
        gaps.append(abs(found[name].correlation - float(np.mean(by_scipy))))
    source, target = int(trained[0]), (int(trained[0]) + 1) % n
    by_hand = change_by_hand(model, tokenizer, texts, matrix, source, target)
    said = "; ".join(f"{name} {one.correlation:.2f} (p {one.p_adjusted:.3f})" for name, one in found.items())
    sure = {name for name, one in found.items() if one.p_adjusted <= 0.05}
    distances = set(tables) - {"model"}
    trained_change = float(np.diag(change)[trained].mean())
    elsewhere = float(change[trained][~np.eye(n, dtype=bool)[trained]].mean())
    headline = Headline(
        paper="how far fine-tuning moves a language's space goes with its distance from the language that is tuned, "
        "and with transfer (arXiv:2305.02151)",
        ours=f"{len(trained)} of {n} languages trained in turn, {ADAPTED_STEPS} steps of whole MLPs; 1 - cosine of a "
        f"sentence before and after, mean over layers: {trained_change:.4f} of the trained language, {elsewhere:.4f} "
        f"of others; rank correlation of this change with nearness and with what the language gained: {said}; which "
        "source is to be chosen for a target, tested by training, is row 43",
        control="languages change places in the tables: correlations "
        f"{min(one.null for one in found.values()):.2f} to {max(one.null for one in found.values()):.2f}",
        model="the bundled model, 9 million parameters",
        verdict="in shape" if GAIN in sure and sure & distances else "not",
    )
    return [
        Witness(what=f"rank correlation of {len(gaps)} tables with the change of spaces, scipy", difference=max(gaps),
                bar=1e-9),
        Witness(
            what=f"change of {matrix.languages[target]} by training on {matrix.languages[source]}, "
            f"{matrix.moved_by.shape[3]} layers, by transformers' hidden states",
            difference=float(np.abs(by_hand - matrix.moved_by[0, source, target]).max()),
            bar=1e-5,
        ),
    ], headline  # fmt: skip


def change_by_hand(
    model: Any, tokenizer: Any, texts: dict[str, Any], matrix: TransferMatrix, source: int, target: int
) -> np.ndarray:
    """1 - mean cosine of mean hidden states before and after the same training, by layer."""
    tags = matrix.languages
    material = Material.prepare(
        model, tokenizer, language=tags[source], documents=texts["train"][tags[source]],
        dev=texts["valid"][tags[source]], test={tag: texts["test"][tag] for tag in (tags[source], tags[target])},
        max_length=64, seed=0,
    )  # fmt: skip
    delta = adapt(
        material, "ffn", steps=ADAPTED_STEPS, learning_rate=matrix.learning_rate, tokens_per_step=512,
        evaluate_every=ADAPTED_STEPS // 3, trail_every=10**9, seed=0,
    ).delta  # fmt: skip
    assert delta is not None
    special = set(tokenizer.all_special_ids)

    def means() -> np.ndarray:
        rows = []
        for document in texts["test"][tags[target]]:
            ids = tokenizer(document.text, return_tensors="pt").input_ids
            states: list[torch.Tensor] = []
            hooks = [
                layer.register_forward_hook(lambda *seen, into=states: into.append(first_of(seen[2])[0]))
                for layer in model.model.layers
            ]
            with torch.no_grad():
                model(ids)
            for hook in hooks:
                hook.remove()
            counted = torch.tensor([token not in special for token in ids[0].tolist()])
            rows.append(np.stack([state[counted].double().mean(dim=0).numpy() for state in states]))
        return np.stack(rows)

    before = means()
    with delta.applied(model):
        after = means()
    lengths = np.linalg.norm(before, axis=2) * np.linalg.norm(after, axis=2)
    return 1 - ((before * after).sum(axis=2) / lengths).mean(axis=0)


def planted_changes() -> Planted:
    """Of five tables of nearness one made the change of twelve languages' spaces."""
    rng = np.random.default_rng(1)
    tables = {f"table {k}": rng.standard_normal((12, 12)) for k in range(5)}
    moved = 0.1 * tables["table 3"] + 0.02 * rng.standard_normal((12, 12))
    matrix = TransferMatrix(
        tuple(map(Language, RELATED[:12])), np.zeros(12), 1 + rng.random((1, 12, 12)), "ffn", 1, 0.1,
        np.stack([moved, moved], axis=-1)[None],
    )  # fmt: skip
    passed = {change.table for change in space_changes(matrix, tables, draws=199) if change.p_adjusted <= 0.01}
    return Planted(
        what="one of five tables made the change of twelve languages",
        recall=float("table 3" in passed),
        precision=len(passed & {"table 3"}) / max(1, len(passed)),
    )


def planted_distance() -> Planted:
    """Of four tables of distances one made the similarity: which of them pass at .01."""
    rng = np.random.default_rng(0)
    tables = {}
    for name in ("a", "b", "c", "d"):
        table = rng.random((12, 12))
        tables[name] = (table + table.T) * (1 - np.eye(12)) / 2
    similarity = 1 - tables["b"] + 0.1 * tables["d"]
    passed = {
        name
        for name, table in tables.items()
        if distance_test(similarity, table, np.eye(12), draws=999, seed=0).p <= 0.01
    }
    return Planted(
        what="one of four tables made the similarity",
        recall=float("b" in passed),
        precision=len(passed & {"b"}) / max(1, len(passed)),
    )
