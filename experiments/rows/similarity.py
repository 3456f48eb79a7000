"""Row 22: similarity of representations."""

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from scipy.linalg import orthogonal_procrustes
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from babelscope import open_model
from babelscope.corpus import Corpus
from babelscope.probes.geometry.representation_similarity import canonical_similarity, matching_accuracy, pwcca
from babelscope.probes.geometry.sentences import record_sentences
from babelscope.probes.geometry.similarity_table import SimilarityIndex, similarity_indices
from rows.result import Headline, Inputs, Planted, RowResult, Witness
from rows.sentence_models import ASKED, pud

SIMILAR_SENTENCES, FEW_SENTENCES = 200, 20


def measure_similarity(inputs: Inputs) -> RowResult:
    """Row 22: the indices against numpy, and where along the depth each sees languages meet."""
    model, tokenizer = open_model(inputs.gemma, device="cpu", dtype="float32")
    sentences = record_sentences(
        model, tokenizer, pud(inputs.corpora, ASKED[:4]), sentences=SIMILAR_SENTENCES, poolings=("mean",)
    )
    table = similarity_indices(sentences, draws=99, resamples=100, seed=0)
    depths, pairs = len(sentences.sites), len(sentences.languages) - 1
    vectors = sentences.vectors["mean"].double().numpy()
    differences: dict[str, float] = {}
    for pair in range(pairs):
        for depth in range(depths):
            x, y = vectors[0, depth], vectors[pair + 1, depth]
            by_hand = indices_by_hand(x, y, table.directions)
            for index, value in by_hand.items():
                name = cast(SimilarityIndex, index)
                difference = abs(float(table.values(name)[pair, depth]) - value)
                differences[index] = max(differences.get(index, 0.0), difference)
    cells = f"{pairs} pairs, {depths} depths, {len(sentences.ids)} sentences"
    witnesses = [
        Witness(what=f"{index}: {HOW_BY_HAND[index]}, {cells}", difference=difference, bar=1e-6)
        for index, difference in differences.items()
    ]
    x, y = (torch.from_numpy(side) for side in planted_pair())
    whole = cca_by_hand(x.numpy(), y.numpy())
    witnesses.append(
        Witness(
            what="CCA and PWCCA of whole vectors: the eigenvalue problem in numpy, 400 rows of 12 dimensions",
            difference=max(abs(canonical_similarity(x, y) - whole[0]), abs(pwcca(x, y) - whole[1])),
            bar=1e-8,
        )
    )
    witnesses.append(
        Witness(
            what="sentence vectors of a random XLM-R and mT5: plain transformers one sentence at a time, "
            f"mean of the tokens at every depth, {len(ASKED[:2]) * FEW_SENTENCES} sentences, relative",
            difference=max(
                encoder_difference(encoder, tokenizer, pud(inputs.corpora, ASKED[:2]))
                for encoder in random_encoders(len(tokenizer))
            ),
            bar=1e-4,
        )
    )
    headlines = []
    for name in ("anc", "svcca"):
        index = cast(SimilarityIndex, name)
        course, null = table.values(index).mean(dim=0), table.values(index, "null").mean(dim=0)
        inner = course[1:-1]
        peak = int(inner.argmax()) + 1
        shaped = bool(course[peak] > course[1]) and bool(course[peak] > course[-1])
        above = float((table.values(index, "p") <= 0.05).double().mean())
        headlines.append(
            Headline(
                paper=f"{name}: similarity of languages rises to the middle layers of XLM-R and XGLM, then falls",
                ours=f"mean of {pairs} languages with English: {course[1]:.3f} after the first layer, "
                f"{course[peak]:.3f} at depth {peak} of {depths - 1}, {course[-1]:.3f} after the last; above its "
                f"null in {100 * above:.0f} % of cells",
                control=f"sentences paired at random {null[1]:.3f}, {null[peak]:.3f}, {null[-1]:.3f}",
                model="Gemma 3 270M",
                verdict="in shape" if shaped and above > 0.5 else "not",
            )
        )
    return RowResult(
        witnesses=witnesses,
        headlines=headlines,
        planted=[planted_turn()],
    )


HOW_BY_HAND = {
    "svcca": "numpy's SVD to the principal scores, then the eigenvalue problem",
    "pwcca": "the same with Σ_j |⟨h_i, x_j⟩| of unit variates",
    "anc": "mean of numpy's corrcoef of each neuron",
    "matching": "argmax of cosines",
    "matching_centred": "argmax of cosines about each mean",
    "matching_procrustes": "scipy's orthogonal_procrustes on the other half, within what its rows span",
}


def random_encoders(entries: int) -> Iterator[PreTrainedModel]:
    """An XLM-R, and an mT5 whose encoder is read, with weights drawn at random."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
    yield XLMRobertaModel(XLMRobertaConfig(vocab_size=entries, pad_token_id=0, **sizes)).eval()
    shape = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 3, "num_heads": 4}
    yield MT5ForConditionalGeneration(MT5Config(vocab_size=entries, **shape)).eval()


@torch.no_grad()
def encoder_difference(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Corpus) -> float:
    """Largest difference of a vector of `record_sentences` from transformers' own states, of its largest entry."""
    found = record_sentences(model, tokenizer, texts, sentences=FEW_SENTENCES, poolings=("mean",))
    inner = model.get_encoder() if model.config.is_encoder_decoder else model
    largest = 0.0
    for k, documents in enumerate(texts.values()):
        for row, document in enumerate(documents[:FEW_SENTENCES]):
            ids = torch.tensor([tokenizer(document.text)["input_ids"]])
            words = torch.tensor([token not in tokenizer.all_special_ids for token in ids[0].tolist()])
            for depth, state in enumerate(inner(ids, output_hidden_states=True).hidden_states):
                wanted = state[0, words].double().mean(dim=0)
                difference = (found.vectors["mean"][k, depth, row] - wanted).abs().max() / wanted.abs().max()
                largest = max(largest, float(difference))
    return largest


def indices_by_hand(x: np.ndarray, y: np.ndarray, directions: int) -> dict[str, float]:
    """Every index of the table, in numpy and scipy."""
    centred = [side - side.mean(0) for side in (x, y)]
    scores = []
    for side in centred:
        u, s, _ = np.linalg.svd(side, full_matrices=False)
        scores.append(u[:, :directions] * s[:directions])
    svcca, weighted = cca_by_hand(*scores)
    neurons = [np.corrcoef(x[:, k], y[:, k])[0, 1] for k in range(x.shape[1]) if x[:, k].std() * y[:, k].std() > 0]
    turned = 0
    for start in (0, 1):
        fitted = slice(1 - start, None, 2)
        centres = x[fitted].mean(0), y[fitted].mean(0)
        rows = [side[fitted] - centre for side, centre in zip((x, y), centres, strict=True)]
        spans = [np.linalg.svd(side, full_matrices=False)[2] for side in rows]
        spans = [span[: np.linalg.matrix_rank(side)] for span, side in zip(spans, rows, strict=True)]
        size = min(len(span) for span in spans)
        rotation, _ = orthogonal_procrustes(rows[0] @ spans[0][:size].T, rows[1] @ spans[1][:size].T)
        query = (x[start::2] - centres[0]) @ spans[0][:size].T @ rotation @ spans[1][:size]
        turned += int((best_cosine(query, y - centres[1]) == np.arange(start, len(x), 2)).sum())
    return {
        "svcca": svcca,
        "pwcca": weighted,
        "anc": float(np.sum(neurons) / x.shape[1]),
        "matching": float((best_cosine(x, y) == np.arange(len(x))).mean()),
        "matching_centred": float((best_cosine(*centred) == np.arange(len(x))).mean()),
        "matching_procrustes": turned / len(x),
    }


def best_cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (x, y)]
    return (unit[0] @ unit[1].T).argmax(axis=1)


def cca_by_hand(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Mean canonical correlation and PWCCA from the roots of Σxx⁻¹ Σxy Σyy⁻¹ Σyx."""
    x, y = x - x.mean(0), y - y.mean(0)
    matrix = np.linalg.solve(x.T @ x, x.T @ y) @ np.linalg.solve(y.T @ y, y.T @ x)
    roots, directions = np.linalg.eig(matrix)
    rho = np.sqrt(np.clip(np.real(roots), 0, 1))
    variates = x @ np.real(directions)
    weights = np.abs((variates / np.linalg.norm(variates, axis=0)).T @ x).sum(axis=1)
    return float(rho.mean()), float((weights * rho).sum() / weights.sum())


def planted_pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 12))
    return x, x @ rng.standard_normal((12, 12)) + 2 * rng.standard_normal((400, 12))


def planted_turn() -> Planted:
    """A shift that centring mends and a turn that only a rotation mends: which accuracies reach 1."""
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.standard_normal((300, 16)))
    turn = torch.linalg.qr(torch.from_numpy(rng.standard_normal((16, 16))))[0]
    shift = torch.from_numpy(8 * rng.standard_normal(16))
    mended = {
        (case, way)
        for case, y in {"shift": x + shift, "turn": x @ turn + shift}.items()
        for way, settings in {"as it is": {}, "centred": {"centred": True}, "rotated": {"rotated": True}}.items()
        if matching_accuracy(x, y, **settings) == 1
    }
    planted = {("shift", "centred"), ("shift", "rotated"), ("turn", "rotated")}
    hits = len(mended & planted)
    return Planted(
        what="a shift mended by centring and by a rotation, a turn by a rotation alone",
        recall=hits / len(planted),
        precision=hits / max(1, len(mended)),
    )
