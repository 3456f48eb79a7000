"""Rows of steering: discriminant shifts (ITLC), maps between languages (INCLINE), the language subspace."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler
from tables.measured import read

from babelscope import (
    Language,
    Site,
    ablate_languages,
    document_means,
    incline,
    join_pairs,
    lda_direction,
    load_corpus,
    mean_direction,
    observe,
    open_model,
    steer,
)
from babelscope.corpus import Texts
from babelscope.reference import MODEL
from babelscope.steering.directions import DocumentMeans, language_basis
from babelscope.steering.sweeps.effect_curve import COPIED_TEXT, SideEffectPoint, side_effect_curve
from rows.mapped_tasks import task_headline
from rows.plain import largest, opened, streams
from rows.result import Headline, Inputs, RowResult, Verdict, Witness
from rows.thought import without_subspace

LANGUAGES = ("en", "de", "ru", "fi")
LAYER, SENTENCES = 3, 120


def texts(split: str = "train") -> dict[str, list[str]]:
    """Parallel sentences of the bundled corpus."""
    corpus = load_corpus("reference", LANGUAGES, split=split, parallel=True)
    return {tag: [document.text for document in corpus[tag]][:SENTENCES] for tag in LANGUAGES}


def means_by_hand(lines: dict[str, list[str]]) -> dict[str, np.ndarray]:
    """Mean over tokens of every sentence at the layer, from plain transformers, float64."""
    model, tokenizer = opened(str(MODEL))
    rows = {
        tag: [s.double().mean(dim=0) for s in streams(model, tokenizer, part, LAYER)] for tag, part in lines.items()
    }
    return {tag: torch.stack(part).numpy() for tag, part in rows.items()}


def read_means(lines: Texts) -> DocumentMeans:
    model, tokenizer = open_model("reference", device="cpu")
    site = Site(LAYER, "resid_out")
    return document_means(model, tokenizer, lines, [site])[site]


def compared(method: str, paper: str) -> Headline:
    """The method's row of the comparison of steering methods: tuned on dev text, scored once on test text."""
    methods = read("steering_methods.json")["methods"]
    ours, control = methods[method], methods["random direction"]
    percent = {name: round(100 * ours[name]) for name in ("success", "low", "high")}
    reproduced = ours["of_native_low"] >= 0.5
    verdict: Verdict = "reproduced" if reproduced else "in shape" if ours["low"] > control["high"] else "not"
    return Headline(
        paper=paper,
        ours=f"right answers {percent['success']} % ({percent['low']}–{percent['high']}), {ours['n']} answers, "
        f"{ours['seeds']} seeds",
        control=f"random direction {100 * control['success']:.0f} %, native {100 * methods['native']['success']:.0f} %",
        model="bundled model",
        verdict=verdict,
    )


def measure_itlc(inputs: Inputs) -> RowResult:
    """The shift in the space of scikit-learn's discriminant analysis, brought back by its scaler."""
    lines = texts()
    by_hand = means_by_hand(lines)
    x, label = np.concatenate(list(by_hand.values())), np.repeat(range(len(LANGUAGES)), SENTENCES)
    scaler = StandardScaler().fit(x)
    z = scaler.transform(x)
    scalings = LinearDiscriminantAnalysis().fit(z, label).scalings_
    centre = [(z[label == k] @ scalings).mean(axis=0) for k in (LANGUAGES.index("fi"), LANGUAGES.index("en"))]
    shift = (centre[0] - centre[1]) @ np.linalg.pinv(scalings) * scaler.scale_
    found = lda_direction(read_means(lines), target="fi", source="en", form="whole").vector
    cosine = float(np.dot(found.numpy(), shift) / np.linalg.norm(found.numpy()) / np.linalg.norm(shift))
    return RowResult(
        witnesses=[
            Witness(
                what="1 − cosine with scikit-learn's scaler and discriminant analysis on plain transformers' means",
                difference=abs(1 - cosine),
                bar=1e-4,
            )
        ],
        headlines=[compared("LDA shift", "more answers in the target language, meaning kept (Qwen2.5 0.5B)")],
    )


def measure_incline(inputs: Inputs) -> RowResult:
    """Least squares by numpy, of pairs as they are and joined; the steered stream equals a hook's; XCOPA on Gemma."""
    lines = texts()
    by_hand = means_by_hand(lines)
    map_by_hand = np.linalg.lstsq(by_hand["fi"], by_hand["en"], rcond=None)[0]
    model, tokenizer = open_model("reference", device="cpu")
    samples = read_means(lines)
    recipe = incline({samples.site: samples}, target="en", source="fi", stream_form="whole", strength=0.3)
    matrix = next(iter(recipe)).matrix
    assert matrix is not None
    x = by_hand["fi"]
    scale = float(np.abs(x @ map_by_hand).max())
    joined_by_hand = {
        "fi": [
            f"{fi} {en}" if place % 2 else fi
            for place, (fi, en) in enumerate(zip(lines["fi"], lines["en"], strict=True))
        ],
        "en": [f"{en} {en}" if place % 2 else en for place, en in enumerate(lines["en"])],
    }
    joined = read_means(join_pairs({"fi": lines["fi"], "en": lines["en"]}, source="fi", target="en"))
    sides = means_by_hand(joined_by_hand)
    image_by_hand = x @ np.linalg.lstsq(sides["fi"], sides["en"], rcond=None)[0]
    joined_matrix = next(iter(incline({joined.site: joined}, target="en", source="fi", stream_form="whole"))).matrix
    assert joined_matrix is not None
    ids = torch.tensor([tokenizer(lines["fi"][0])["input_ids"]])
    with torch.no_grad(), steer(model, recipe):
        steered = model(input_ids=ids).logits[0, -1]
    return RowResult(
        witnesses=[
            Witness(
                what="image of 120 sentences against numpy.linalg.lstsq, relative",
                difference=largest(x @ matrix.double().numpy(), x @ map_by_hand) / scale,
                bar=1e-3,
            ),
            Witness(
                what="the same by the map of pairs joined in two languages, relative",
                difference=largest(x @ joined_matrix.double().numpy(), image_by_hand)
                / float(np.abs(image_by_hand).max()),
                bar=1e-3,
            ),
            Witness(
                what="logits of the last prompt token against hooks in plain transformers",
                difference=largest(steered, hooked(ids, matrix)),
                bar=1e-3,
            ),
        ],
        headlines=[task_headline(inputs)] if inputs.gemma and inputs.corpora else [],
        absent=[] if inputs.gemma and inputs.corpora else ["accuracy on a task: not measured without Gemma"],
    )


@torch.no_grad()
def hooked(ids: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """x + .3 x W at the last prompt token, written by hand."""
    model, _ = opened(str(MODEL))

    def moved(module, inputs, output):
        stream = (output[0] if isinstance(output, tuple) else output).clone()
        stream[:, -1] += 0.3 * stream[:, -1] @ matrix
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    handle = model.model.layers[LAYER].register_forward_hook(moved)
    logits = model(input_ids=ids).logits[0, -1]
    handle.remove()
    return logits


def measure_subspace(inputs: Inputs) -> RowResult:
    """The language subspace by LSAR's own steps in numpy; its removal by hooks."""
    lines = texts()
    model, tokenizer = open_model("reference", device="cpu")
    observed = observe(model, tokenizer, lines, sites=("resid_out",), tokens_per_language=None)
    basis = language_basis(observed, LAYER, 2, form="whole").double().numpy()
    plain, plain_tokenizer = opened(str(MODEL))
    tokens = {
        tag: torch.cat(list(streams(plain, plain_tokenizer, part, LAYER))).double() for tag, part in lines.items()
    }
    means = np.stack([tokens[tag].mean(dim=0).numpy() for tag in LANGUAGES], axis=1)
    # LSAR: the means' low-rank part, the shared vector read off it, and what is left decomposed again.
    centre = means.mean(axis=1, keepdims=True)
    u, s, vt = np.linalg.svd(means - centre, full_matrices=False)
    low_rank = centre + u[:, :2] * s[:2] @ vt[:2]
    solved = np.linalg.pinv(low_rank.T) @ np.ones(len(LANGUAGES))
    shared = solved / (solved @ solved)
    specific, *_ = np.linalg.svd(low_rank - shared[:, None], full_matrices=False)
    by_hand = specific[:, :2].T
    recipe = ablate_languages(observed, middle=[LAYER], strength=1.0, rank=2, form="whole")
    ids = torch.tensor([tokenizer(lines["fi"][0])["input_ids"]])
    with torch.no_grad(), steer(model, recipe):
        steered = model(input_ids=ids).logits
    return RowResult(
        witnesses=[
            Witness(
                what="projection onto the subspace against LSAR's steps in numpy, largest entry",
                difference=largest(basis.T @ basis, by_hand.T @ by_hand),
                bar=1e-4,
            ),
            Witness(
                what="logits with the subspace taken out, against a hook in plain transformers",
                difference=largest(steered, without_subspace_by_hand(ids, torch.from_numpy(basis).float())),
                bar=1e-3,
            ),
        ],
        headlines=[without_subspace(inputs)] if inputs.qwen else [],
        absent=[] if inputs.qwen else ["accuracy and language fidelity of reasoning: no chat model was given"],
    )


@torch.no_grad()
def without_subspace_by_hand(ids: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """x − x QᵀQ at every token, by a hook."""
    model, _ = opened(str(MODEL))

    def taken_out(module, inputs, output):
        stream = output[0] if isinstance(output, tuple) else output
        stream = stream - stream @ basis.T @ basis
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    handle = model.model.layers[LAYER].register_forward_hook(taken_out)
    logits = model(input_ids=ids).logits
    handle.remove()
    return logits


def measure_dose(inputs: Inputs) -> RowResult:
    """Side effects of directions at rising strength, beside those of random directions as long."""
    model, tokenizer = open_model("reference", device="cpu")
    observed = observe(model, tokenizer, texts(), sites=("resid_out",), tokens_per_language=None)
    directions = {Language(tag): mean_direction(observed, target=tag, layer=LAYER) for tag in LANGUAGES}
    generator = torch.Generator().manual_seed(0)
    random = {tag: replace(found, vector=as_long(found.vector, generator)) for tag, found in directions.items()}
    strengths, held_out = (0.0, 0.5, 1.0, 2.0), texts("test")
    drawn = {"max_tokens": 300, "resamples": 100}
    curves = [side_effect_curve(model, tokenizer, made, strengths, held_out, **drawn) for made in (directions, random)]
    still = max(abs(row["change"]) for point in curves[0] if point.strength == 0 for row in point.rows())
    tag, effect = Language("ru"), next(p for p in curves[0] if p.target == "ru" and p.strength == 1).effects
    by_hand = copied_bits(COPIED_TEXT["en-x-code"], directions[tag].vector)
    rising = [harm_of_others(curves[0], strength) for strength in strengths]
    loud = [harm_of_others(curves[1], strength) for strength in strengths]
    monotone = all(a < b for a, b in pairwise(rising))
    return RowResult(
        witnesses=[
            Witness(what="change at strength 0, bits per byte", difference=still, bar=0.0),
            Witness(
                what="bits per byte of code under a direction, against a hook in plain transformers",
                difference=abs(effect[Language("en-x-code")].on - by_hand),
                bar=1e-4,
            ),
        ],
        headlines=[
            Headline(
                paper="no paper: side effects stand in the same curve as success",
                ours=f"other languages' text at strengths {', '.join(f'{s:g}' for s in strengths)}: "
                f"{', '.join(f'{value:+.3f}' for value in rising)} bits per byte",
                control=f"random directions as long: {', '.join(f'{value:+.3f}' for value in loud)}",
                model="bundled model",
                verdict="in shape" if monotone else "not",
            )
        ],
    )


def as_long(vector: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    drawn = torch.randn(vector.shape, generator=generator)
    return drawn * vector.norm() / drawn.norm()


def harm_of_others(curve: Sequence[SideEffectPoint], strength: float) -> float:
    """Mean change on text of languages that are not the target, over targets."""
    changes = [
        effect.change.estimate
        for point in curve
        if point.strength == strength
        for tag, effect in point.effects.items()
        if tag in LANGUAGES and tag != point.target
    ]
    return sum(changes) / len(changes)


@torch.no_grad()
def copied_bits(lines: Sequence[str], vector: torch.Tensor) -> float:
    """Bits per byte of some lines with a vector added at every token of the layer but BOS, one line at a time."""
    model, tokenizer = opened(str(MODEL))
    nats = n_bytes = 0.0

    def moved(module, inputs, output):
        stream = (output[0] if isinstance(output, tuple) else output).clone()
        stream[:, 1:] += vector
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    with model.model.layers[LAYER].register_forward_hook(moved):
        for line in lines:
            ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(line, add_special_tokens=False)["input_ids"]]])
            scores = model(input_ids=ids).logits[0, :-1].double()
            nats += float(torch.nn.functional.cross_entropy(scores, ids[0, 1:], reduction="sum"))
            n_bytes += len(line.encode())
    return nats / math.log(2) / n_bytes
