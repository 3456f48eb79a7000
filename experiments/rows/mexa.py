"""Row 21: alignment with English (MEXA)."""

import json
import lzma
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from babelscope.languages import Language
from babelscope.models import open_model
from babelscope.probes.geometry.pooled_alignment import DepthPooling, mexa_scores
from babelscope.probes.geometry.sentences import Sentences, record_sentences
from babelscope.sites import Site
from rows.result import Headline, Inputs, Planted, RowResult, Verdict, Witness
from rows.sentence_models import ASKED, plain_model, pud

SENTENCES = 60
PARAGRAPHS, QUESTIONS, OPTIONS = 4, 4, 4


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
