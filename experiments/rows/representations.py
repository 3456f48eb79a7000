"""Rows of representations: alignment, similarity, embeddings, latent language, tokenizers and trees."""

import json
import lzma
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import distance
from scipy.stats import rankdata, spearmanr
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from babelscope.adaptation import Material, adapt
from babelscope.adaptation.language_nearness import nearness_tables
from babelscope.adaptation.space_changes import GAIN, space_changes
from babelscope.adaptation.transfer_runs import TransferMatrix, transfer_matrix
from babelscope.controls import write_evidence
from babelscope.corpus import load_corpus
from babelscope.figures.lens_overlay import lens_overlay
from babelscope.languages import Language
from babelscope.models import open_model
from babelscope.probes.geometry.entries import NO_SCRIPT, embedding_tables
from babelscope.probes.geometry.language_distances import distance_tables, distance_test
from babelscope.probes.geometry.pooled_alignment import DepthPooling, mexa_scores
from babelscope.probes.geometry.representation_similarity import canonical_similarity, matching_accuracy, pwcca
from babelscope.probes.geometry.sentences import Sentences, record_sentences
from babelscope.probes.geometry.similarity_table import SimilarityIndex, similarity_indices
from babelscope.probes.geometry.trees import similarity_tree
from babelscope.probes.geometry.writing_systems import neighbour_scripts, pair_separability
from babelscope.probes.lens.cloze import cloze_prompts, latent_cloze, read_cloze
from babelscope.probes.lens.prompt_answers import answer_tokens
from babelscope.probes.lens.token_energies import token_energy
from babelscope.probes.lens.translations import LatentTranslation, latent_translation, translation_prompts
from babelscope.probes.lens.word_lists import read_words
from babelscope.reference import MODEL
from babelscope.report.folder_sections import read_evidence
from babelscope.report.lens_comparison import lens_courses
from babelscope.sites import Site
from babelscope.vocabulary import token_costs, vocabulary_allocation
from babelscope.vocabulary.entry_scripts import script_of
from rows.result import Headline, Inputs, Planted, RowResult, Verdict, Witness

ASKED = ("en", "ar", "de", "es", "hi", "ru", "th", "tr", "zh")
"""Languages that PUD and XQuAD share."""
SENTENCES = 60
SIMILAR_SENTENCES = 200
PAIR_ENTRIES, ENTRIES_ASKED = 150, 1000
PARAGRAPHS, QUESTIONS, OPTIONS = 4, 4, 4


@cache
def plain_model(folder: str):
    """A model and its tokenizer by transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def pud(corpora: str, languages: tuple[str, ...]):
    """The parallel sentences of PUD."""
    return load_corpus(str(Path(corpora) / "parallel" / "pud"), languages, split="all", parallel=True)


def measure_mexa(inputs: Inputs) -> RowResult:
    """Row 21: one score per language, and how it goes with a task measured on the same model."""
    model, tokenizer = open_model(inputs.gemma, device="cpu", dtype="float32")
    texts = pud(inputs.corpora, ASKED)
    published = record_sentences(
        model, tokenizer, texts, sentences=SENTENCES, poolings=("weighted",), special_tokens=True, final_norm=True
    )
    lines = {str(tag): [document.text for document in part[:SENTENCES]] for tag, part in texts.items()}
    task = {tag: choice_accuracy(inputs, tag) for tag in ASKED}
    by_hand = {tag: authors_layers(inputs.gemma, lines["en"], lines[tag]) for tag in ASKED[1:]}
    witnesses, headlines = [], []
    pools: dict[DepthPooling, Callable[[list[float]], Any]] = {"max": np.max, "mean": np.mean}
    for over, pool in pools.items():
        result = mexa_scores(published, over=over, task_scores=task, seed=0)
        assert result.correlation is not None
        differences = [abs(score.estimate - float(pool(by_hand[score.language]))) for score in result.scores]
        witnesses.append(
            Witness(
                what=f"{over} over {len(published.sites)} depths of the authors' loop in numpy on plain transformers' "
                f"hidden states with BOS and final norm, {len(differences)} languages, {SENTENCES} sentences",
                difference=max(differences),
                bar=1e-9,
            )
        )
        r = np.corrcoef([pool(by_hand[tag]) for tag in ASKED[1:]], [task[tag] for tag in ASKED[1:]])[0, 1]
        witnesses.append(
            Witness(
                what=f"numpy's Pearson of those {over} scores with the task",
                difference=abs(float(r) - result.correlation.r),
                bar=1e-9,
            )
        )
        verdict: Verdict = "not"
        if result.correlation.p <= 0.05:
            verdict = "reproduced" if result.correlation.interval.high >= 0.9 else "in shape"
        headlines.append(
            Headline(
                paper=f"average Pearson .90 of MEXA ({over} over layers) with task scores over languages, nine models "
                "of 7B parameters and more",
                ours=f"r {result.correlation.r:.2f} [{result.correlation.interval.low:.2f}, "
                f"{result.correlation.interval.high:.2f}] with accuracy of {OPTIONS}-way answers of XQuAD over "
                f"{result.correlation.languages} languages; English {task['en']:.2f}, others "
                f"{min(task[tag] for tag in ASKED[1:]):.2f}–{max(task[tag] for tag in ASKED[1:]):.2f}",
                control=f"p {result.correlation.p:.3f} with task scores exchanged; chance of a task {1 / OPTIONS:.2f}",
                model="Gemma 3 270M",
                verdict=verdict,
            )
        )
    return RowResult(witnesses=witnesses, headlines=headlines, planted=[planted_translations()])


def authors_layers(folder: str, english: list[str], other: list[str]) -> list[float]:
    """MEXA by layer as in compute_mexa.py and embed_extractor.py (rules, not code), in float64."""
    vectors = [published_vectors(folder, tuple(lines)) for lines in (english, other)]
    layers = []
    for x, y in zip(*vectors, strict=True):
        unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (x, y)]
        matrix = unit[0] @ unit[1].T
        hits = 0
        for i in range(len(matrix)):
            others = np.concatenate([np.delete(matrix[i], i), np.delete(matrix[:, i], i)])
            hits += matrix[i, i] > others.max()
        layers.append(hits / len(matrix))
    return layers


@cache
def published_vectors(folder: str, lines: tuple[str, ...]) -> np.ndarray:
    """[depth, sentence, hidden]: means weighted by place 1 … T, BOS at place 1, the last depth after the final norm."""
    model, tokenizer = plain_model(folder)
    vectors = []
    for line in lines:
        ids = tokenizer(line, return_tensors="pt").input_ids
        with torch.no_grad():
            states = torch.stack(model(ids, output_hidden_states=True).hidden_states)[:, 0].double().numpy()
        places = np.arange(1, ids.shape[1] + 1)
        vectors.append(np.einsum("t,dth->dh", places / places.sum(), states))
    return np.stack(vectors, axis=1)


def choice_accuracy(inputs: Inputs, tag: str) -> float:
    """Share of XQuAD's questions whose answer has the highest mean log-probability among four answers of its paragraph.

    The same paragraphs and questions in all languages: the shortest in English that have four answers.
    """
    model, tokenizer = plain_model(inputs.gemma)
    english, paragraphs = (read_xquad(inputs.corpora, name) for name in ("en", tag))
    enough = [i for i, part in enumerate(english) if len({q["a"] for q in part["qas"]}) >= OPTIONS]
    chosen = sorted(enough, key=lambda i: len(english[i]["context"]))[:PARAGRAPHS]
    right = asked = 0
    for i in chosen:
        first_of = {q["a"]: k for k, q in reversed(list(enumerate(english[i]["qas"])))}
        places = sorted(first_of.values())[:OPTIONS]
        answers = [paragraphs[i]["qas"][k]["a"] for k in places]
        questions = [paragraphs[i]["qas"][k]["q"] for k in places][:QUESTIONS]
        scores = answer_scores(model, tokenizer, paragraphs[i]["context"], questions, answers)
        right += int((scores.argmax(axis=1) == np.arange(len(questions))).sum())
        asked += len(questions)
    return right / asked


@cache
def read_xquad(corpora: str, tag: str) -> list[dict]:
    path = Path(corpora) / "eval" / "xquad" / f"{tag}.jsonl.xz"
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def answer_scores(model, tokenizer, context: str, questions: list[str], answers: list[str]) -> np.ndarray:
    """[question, answer]: mean log-probability of an answer's tokens after the paragraph and the question."""
    start = tokenizer(f"{context}\n\n", return_tensors="pt").input_ids
    rows, begins = [], []
    for question in questions:
        asked = tokenizer(f"{question}\n", add_special_tokens=False).input_ids
        for answer in answers:
            rows.append(asked + tokenizer(answer, add_special_tokens=False).input_ids)
            begins.append(len(asked))
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * (start.shape[1] + len(row)) + [0] * (longest - len(row)) for row in rows])
    memory = DynamicCache(config=model.config)
    with torch.no_grad():
        model.model(start, cache=memory, use_cache=True)
        memory.batch_repeat_interleave(len(rows))
        hidden = model.model(ids, attention_mask=mask, cache=memory, use_cache=True).last_hidden_state
    scores = []
    for at, (row, begin) in enumerate(zip(rows, begins, strict=True)):
        with torch.no_grad():
            logs = torch.log_softmax(model.lm_head(hidden[at, begin - 1 : len(row) - 1]).float(), dim=-1)
        scores.append(float(logs[torch.arange(len(logs)), torch.tensor(row[begin:])].mean()))
    return np.array(scores).reshape(len(questions), len(answers))


def planted_translations() -> Planted:
    """Two of five languages have a tenth and a third of their sentences at English's place, at one of four depths."""
    shares, n, depths = (0.1, 0.33, 0.0, 0.0, 0.0), 100, 4
    vectors = torch.randn(1 + len(shares), depths, n, 64, generator=torch.Generator().manual_seed(0))
    for k, share in enumerate(shares, start=1):
        part = round(share * n)
        vectors[k, 2, :part] = vectors[0, 2, :part] + 0.05 * vectors[k, 2, :part]
    tags = tuple(Language(tag) for tag in ("en", "de", "fr", "ru", "fi", "eu"))
    sites = tuple(Site(layer, "resid_out") for layer in range(depths))
    sentences = Sentences(tags, tuple(map(str, range(n))), sites, {"weighted": vectors})
    selected = {score.language for score in mexa_scores(sentences, over="max").scores if score.p <= 0.01}
    planted = {tag for tag, share in zip(tags[1:], shares, strict=True) if share}
    recall, precision = len(selected & planted) / len(planted), len(selected & planted) / max(1, len(selected))
    return Planted(what="two of five languages with translations at one depth", recall=recall, precision=precision)


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
        absent=["sentence vectors of encoders (XLM-R, BERT): only causal models are read by sentence"],
    )


HOW_BY_HAND = {
    "svcca": "numpy's SVD to the principal scores, then the eigenvalue problem",
    "pwcca": "the same with Σ_j |⟨h_i, x_j⟩| of unit variates",
    "anc": "mean of numpy's corrcoef of each neuron",
    "matching": "argmax of cosines",
    "matching_centred": "argmax of cosines about each mean",
    "matching_procrustes": "scipy's orthogonal_procrustes on the other half, within what its rows span",
}


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


def measure_tokenizer(inputs: Inputs) -> RowResult:
    """Row 29: premium, average rank and overlap of Gemma's tokenizer on PUD, beside numpy and scipy."""
    _, tokenizer = plain_model(inputs.gemma)
    texts = pud(inputs.corpora, ASKED)
    costs = token_costs(tokenizer, texts, resamples=500, seed=0)
    allocation = vocabulary_allocation(tokenizer, texts, resamples=100, seed=0)
    counts: dict[str, Counter[int]] = {}
    for tag, documents in texts.items():
        ids = tokenizer([document.text for document in documents], add_special_tokens=False).input_ids
        counts[str(tag)] = Counter(token for part in ids for token in part)
    ranks = {}
    for tag, counter in counts.items():
        ordered = sorted(counter.values(), reverse=True)
        ranks[tag] = sum(place * n for place, n in enumerate(ordered, start=1)) / sum(ordered)
    rank_difference = max(abs(share.average_rank / ranks[share.language] - 1) for share in allocation.shares)
    size = len(tokenizer)
    shares = {tag: np.array([counter[k] for k in range(size)]) / counter.total() for tag, counter in counts.items()}
    overlap_difference = max(
        abs(overlap.divergence - distance.jensenshannon(shares[overlap.first], shares[overlap.second], base=2) ** 2)
        for overlap in allocation.overlaps
    )
    premium_difference = max(
        abs(cost.premium - counts[cost.language].total() / counts["en"].total()) for cost in costs.costs
    )
    latin = {"en", "de", "es", "tr"}
    kinds = {True: [], False: []}
    for overlap in allocation.overlaps:
        if latin & {overlap.first, overlap.second}:
            kinds[{overlap.first, overlap.second} <= latin].append(overlap)
    one_script, two_scripts = (
        float(np.mean([overlap.divergence for overlap in kinds[same]])) for same in (True, False)
    )
    highest = max(costs.costs, key=lambda cost: cost.premium)
    floor = float(np.mean([overlap.null for overlap in allocation.overlaps]))
    rare = min(allocation.shares, key=lambda share: share.average_rank)
    most = max(allocation.shares, key=lambda share: share.average_rank)
    return RowResult(
        witnesses=[
            Witness(
                what=f"premium: counts of transformers' tokenizer, {len(counts)} languages of PUD",
                difference=premium_difference,
                bar=1e-12,
            ),
            Witness(
                what="average rank: a loop over sorted counts, relative", difference=float(rank_difference), bar=1e-9
            ),
            Witness(
                what=f"divergence: scipy's jensenshannon squared, {len(allocation.overlaps)} pairs",
                difference=float(overlap_difference),
                bar=1e-9,
            ),
        ],
        headlines=[
            Headline(
                paper="the same text costs up to 15 times as many tokens in some languages (arXiv:2305.15425)",
                ours=f"most for {highest.language}: {highest.premium:.2f} [{highest.interval.low:.2f}, "
                f"{highest.interval.high:.2f}] times English",
                control=f"in characters {highest.character_premium:.2f}, in bytes {highest.byte_premium:.2f}",
                model="Gemma 3 270M",
                verdict="reproduced" if highest.premium >= 10 else "in shape" if highest.interval.low > 1 else "not",
            ),
            Headline(
                paper="average rank and Jensen-Shannon divergence tell tokenizers' allocation and overlap by language",
                ours=f"average rank {rare.average_rank:.0f} ({rare.language}) to {most.average_rank:.0f} "
                f"({most.language}); divergence {one_script:.3f} within Latin script, {two_scripts:.3f} across scripts",
                control=f"divergence of halves of one language's text {floor:.3f}",
                model="Gemma 3 270M",
                verdict="in shape" if floor < one_script < two_scripts else "not",
            ),
        ],
        planted=[planted_overlap()],
    )


def planted_overlap() -> Planted:
    """Of three languages two have the same text: which pairs share all tokens."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    text = [f"the {word} is old" for word in ("house", "river", "tree", "book", "city", "friend")]
    cyrillic = [f"это {word} стоит" for word in ("дом", "лес", "город", "друг", "мост", "стол")]
    allocation = vocabulary_allocation(tokenizer, {"en": text, "de": text, "ru": cyrillic}, resamples=20)
    same = {(overlap.first, overlap.second) for overlap in allocation.overlaps if overlap.divergence < 1e-9}
    planted = {("en", "de")}
    return Planted(
        what="two languages with one text among three",
        recall=float(planted <= same),
        precision=len(same & planted) / max(1, len(same)),
    )


def measure_latent(inputs: Inputs) -> RowResult:
    """Row 19: translation, repetition and cloze under the lens with all prefixes of a word, and token energy."""
    model, tokenizer = open_model(inputs.gemma, device="cpu", dtype="float32")
    words = read_words("reference")
    settings = {"target": "zh", "pivot": "en", "shots": 4, "draws": 99, "seed": 0}
    translated = latent_translation(model, tokenizer, words, source="fr", **settings)
    repeated = latent_translation(model, tokenizer, words, source="zh", **settings)
    asked = {prompt.concept: prompt.text for prompt in translation_prompts(words, source="fr", target="zh")}
    prompts = [asked[concept] for concept in translated.concepts]
    energy = token_energy(model, tokenizer, prompts)
    plain, plain_tokenizer = plain_model(inputs.gemma)
    names = plain_tokenizer.convert_ids_to_tokens(range(len(plain_tokenizer)))
    pieces = {k: name.replace("▁", " ") for k, name in enumerate(names)}  # bytes stay as they are named, such as <0xE5>
    special = set(plain_tokenizer.all_special_ids)
    masses, energies = [], []
    gain = 1 + plain.model.norm.weight.detach().double().numpy()
    unit = plain.lm_head.weight.detach().double().numpy() * gain
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-300)
    spread = unit.T @ unit / len(unit)
    average = np.sqrt((spread**2).sum())
    for concept, prompt in zip(translated.concepts, prompts, strict=True):
        stream, probability = stream_by_hand(plain, plain_tokenizer, prompt)
        masses.append(mass_by_hand(probability, words[concept], pieces, special))
        directions = stream.double().numpy()
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        energies.append(np.sqrt(np.einsum("dh,hk,dk->d", directions, spread, directions)) / average)
    cloze = read_cloze("reference")
    filled = latent_cloze(model, tokenizer, cloze, language="zh", pivot="en", draws=99, seed=0)
    gaps = {prompt.concept: prompt.text for prompt in cloze_prompts(cloze, "zh")}
    filled_by_hand = [
        mass_by_hand(stream_by_hand(plain, plain_tokenizer, gaps[name])[1], cloze.words[name], pieces, special)
        for name in filled.concepts
    ]
    gap_columns = [filled.index("zh"), filled.index("en")]
    gap_mass = filled.mass.numpy()[:, gap_columns]
    gap_leads = np.flatnonzero((gap_mass[:, 1] > gap_mass[:, 0]) & (filled.p.numpy()[:, gap_columns[1]] <= 0.05))
    gap_peak = int(gap_leads[gap_mass[gap_leads, 1].argmax()]) if len(gap_leads) else 0
    gap_end = bool(gap_mass[-1, 0] > gap_mass[-1, 1]) and float(filled.p[-1, gap_columns[0]]) <= 0.05
    columns = [translated.index("zh"), translated.index("en")]
    mass = translated.mass.numpy()[:, columns]
    english_leads = np.flatnonzero((mass[:, 1] > mass[:, 0]) & (translated.p.numpy()[:, columns[1]] <= 0.05))
    ends_in_target = bool(mass[-1, 0] > mass[-1, 1]) and float(translated.p[-1, columns[0]]) <= 0.05
    peak = int(english_leads[mass[english_leads, 1].argmax()]) if len(english_leads) else 0
    again = repeated.mass.numpy()[:, [repeated.index("zh"), repeated.index("en")]]
    course = energy.energy.mean(dim=0)
    cells = f"{len(prompts)} prompts, {len(translated.sites)} depths"
    return RowResult(
        witnesses=[
            Witness(
                what=f"mass of all prefixes by plain hooks, softmax and string comparison, zh and en, {cells}",
                difference=float(np.abs(mass - np.mean(masses, axis=0)).max()),
                bar=1e-5,
            ),
            Witness(
                what=f"token energy by the authors' formula in numpy, relative, {cells}",
                difference=float(np.abs(energy.energy.numpy() / np.stack(energies) - 1).max()),
                bar=1e-4,
            ),
            Witness(
                what=f"the same mass in the cloze task, zh and en, {len(filled.concepts)} prompts",
                difference=float(np.abs(gap_mass - np.mean(filled_by_hand, axis=0)).max()),
                bar=1e-5,
            ),
            overlay_witness(inputs, translated, filled),
        ],
        headlines=[
            Headline(
                paper="translating into Chinese, Llama 2 gives the English word more than the Chinese one in middle "
                "layers; Chinese wins at the end",
                ours=f"French to Chinese: English leads at {len(english_leads)} of {len(mass)} depths, most at depth "
                f"{peak} ({mass[peak, 1]:.3f} against {mass[peak, 0]:.3f}); at the end Chinese {mass[-1, 0]:.3f}, "
                f"English {mass[-1, 1]:.4f}; {100 * translated.solved:.0f} % of prompts solved",
                control=f"words of other concepts at depth {peak}: {float(translated.null[peak, columns[1]]):.3f}",
                model="Gemma 3 270M",
                verdict="reproduced" if len(english_leads) and ends_in_target else "not",
            ),
            Headline(
                paper="repeating a Chinese word, English is less present than in translation",
                ours=f"most English in a repetition {again[:, 1].max():.3f}, in the translation {mass[:, 1].max():.3f}"
                f"; Chinese at the end {again[-1, 0]:.3f}",
                control=f"words of other concepts {float(repeated.null[:, repeated.index('en')].max()):.3f}",
                model="Gemma 3 270M",
                verdict="in shape" if again[:, 1].max() < mass[:, 1].max() < again[-1, 0] else "not",
            ),
            Headline(
                paper="filling a gap in a Chinese sentence, Llama 2 gives the English word more than the Chinese "
                "one in middle layers too",
                ours=f"{len(filled.concepts)} of 44 sentences written here: English leads at {len(gap_leads)} of "
                f"{len(gap_mass)} depths, most at depth {gap_peak} ({gap_mass[gap_peak, 1]:.3f} against "
                f"{gap_mass[gap_peak, 0]:.3f}); at the end Chinese {gap_mass[-1, 0]:.3f}, English "
                f"{gap_mass[-1, 1]:.4f}; {100 * filled.solved:.0f} % of gaps filled",
                control=f"words of other concepts at depth {gap_peak}: "
                f"{float(filled.null[gap_peak, gap_columns[1]]):.3f}",
                model="Gemma 3 270M",
                verdict="reproduced" if len(gap_leads) and gap_end else "not",
            ),
            Headline(
                paper="token energy stays low up to the late layers of Llama 2 and rises to the end",
                ours=f"{course[1]:.2f} after the first layer, {course[len(course) // 2]:.2f} half-way, "
                f"{course[-2]:.2f} and {course[-1]:.2f} after the last two",
                control=f"a random direction {energy.null:.2f}",
                model="Gemma 3 270M",
                verdict="in shape" if course[-1] > course[len(course) // 2] else "not",
            ),
        ],
        planted=[planted_words()],
    )


def stream_by_hand(plain: Any, tokenizer: Any, prompt: str) -> tuple[torch.Tensor, np.ndarray]:
    """The stream after a prompt at every depth, by plain hooks, and what the head says of it."""
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    states: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda *seen, into=states: into.append(first_of(seen[2])[0, -1]))
        for layer in plain.model.layers
    ]
    with torch.no_grad():
        embedded = plain.model.embed_tokens(ids)[0, -1]
        plain.model(ids)
        stream = torch.stack([embedded, *states])
        logits = plain.lm_head(plain.model.norm(stream)).double()
    for hook in hooks:
        hook.remove()
    return stream, torch.softmax(logits, dim=-1).numpy()


def mass_by_hand(
    probability: np.ndarray, words: Mapping[Language, str], pieces: dict[int, str], special: set[int]
) -> np.ndarray:
    """Probability of all prefixes of a concept's Chinese and English words that no other language's word has."""
    begins = {tag: prefixes_by_hand(word, pieces, special) for tag, word in words.items()}
    columns = [
        sorted(begins[tag] - set().union(*(begins[other] for other in begins if other != tag)))
        for tag in (Language("zh"), Language("en"))
    ]
    return np.stack([probability[:, entries].sum(1) for entries in columns], axis=1)


def overlay_witness(inputs: Inputs, translated: LatentTranslation, filled: LatentTranslation) -> Witness:
    """What the figure of two models holds beside what was measured: of both tasks, in Gemma and the bundled model."""
    small, tokenizer = open_model("reference", device="cpu", dtype="float32")
    words, cloze = read_words("reference"), read_cloze("reference")
    readings = {
        "Gemma 3 270M": (translated, filled),
        "bundled model": (
            latent_translation(small, tokenizer, words, source="fr", target="zh", entries="first"),
            latent_cloze(small, tokenizer, cloze, language="zh", entries="first"),
        ),
    }
    with TemporaryDirectory() as place:
        folders = {name: Path(place) / name for name in readings}
        for name, folder in folders.items():
            (folder / "lens").mkdir(parents=True)
            rows = [row for reading in readings[name] for row in reading.rows()]
            write_evidence(rows, folder / "lens" / "results.jsonl")
        courses = {name: lens_courses(read_evidence(f / "lens" / "results.jsonl"), name) for name, f in folders.items()}
    tasks = ("translation", "cloze")
    figure = lens_overlay(panels={task: [by_task[task] for by_task in courses.values()] for task in tasks}, pivot="en")
    lines = iter(cast(Any, figure).data)
    gaps = []
    for number in range(len(tasks)):
        for pair in readings.values():
            reading = pair[number]
            expected = [reading.mass[:, reading.index(tag)].numpy() for tag in ("zh", "en")]
            expected.append(reading.null[:, reading.index("zh")].numpy())
            gaps += [float(np.abs(np.array(next(lines).y) - values).max()) for values in expected]
    return Witness(what=f"{len(gaps)} lines of the figure of two models beside the measured ones",
                   difference=max(gaps), bar=1e-9)  # fmt: skip


def first_of(output: Any) -> torch.Tensor:
    """The stream that a block gives, alone or first of several."""
    return output if isinstance(output, torch.Tensor) else output[0]


def prefixes_by_hand(word: str, pieces: dict[int, str], special: set[int]) -> set[int]:
    """Ids of entries whose text, after one space or none, the word begins with; the first byte where one is spelt."""
    first = f"<0x{word.encode()[0]:02X}>" if len(word[:1].encode()) > 1 else ""
    plain = {k for k, piece in pieces.items() if piece.removeprefix(" ") and word.startswith(piece.removeprefix(" "))}
    return (plain | {k for k, piece in pieces.items() if first and piece == first}) - special


def planted_words() -> Planted:
    """A head is taught to say the Finnish word at the last depth: in which language it is found there."""
    model, tokenizer = open_model("reference", device="cpu", dtype="float32")
    words = read_words("reference")
    asked = {prompt.concept: prompt.text for prompt in translation_prompts(words, source="de", target="fi")}
    answers = answer_tokens(tokenizer, words, list(asked), (Language("fi"),))
    head = model.lm_head.weight.detach().clone()  # apart from the embeddings, which prompts are read by
    with torch.no_grad():
        states = torch.stack(
            [
                model.model(tokenizer(prompt, return_tensors="pt").input_ids).last_hidden_state[0, -1]
                for prompt in asked.values()
            ]
        )
        # What prompts share is left out, or the word of one would be said after all of them.
        steps = torch.nn.functional.normalize(states - states.mean(dim=0), dim=1) * head.norm(dim=1).mean()
        for at, step in enumerate(steps):
            for token in answers.entries[answers.member[at, 0]].tolist():
                head[token] += step
        model.lm_head.weight = torch.nn.Parameter(head)
    result = latent_translation(model, tokenizer, words, source="de", target="fi", pivot="en", entries="first")
    leading = {tag for tag, p in zip(result.languages, result.p[-1].tolist(), strict=True) if p <= 0.01}
    return Planted(
        what="the target's word taught to the head",
        recall=float(Language("fi") in leading),
        precision=len(leading & {Language("fi")}) / max(1, len(leading)),
    )


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
