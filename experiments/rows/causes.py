"""Rows of causes: what MLPs' keys and values do in each language."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from planted.construct import CONCEPTS, LANGUAGES, construct, sentences, word
from sklearn.linear_model import LogisticRegression

from babelscope import Document, load_corpus, open_model
from babelscope.corpus import Corpus
from babelscope.probes.concepts.keys_values import concept_values
from babelscope.probes.concepts.value_evidence import ConceptValues
from babelscope.probes.lens.word_lists import indicative_tokens
from babelscope.reference import MODEL
from rows.plain import largest, opened
from rows.result import Headline, Inputs, Planted, RowResult, Verdict, Witness

ASKED = ("en", "de", "fr", "es", "ru", "fi")
SEEDS = (0, 1)
LOUD = 23
"""The concept of the planted model that makes a text one of the concept."""
PLACES = [(0, 9), (0, 40), (1, 3), (2, 11), (3, 30)]
THREE = LANGUAGES[:3]


def measure_values(inputs: Inputs) -> RowResult:
    """Row 27: neurons that write questions in English, and their keys in six languages."""
    del inputs
    results = [values_of_questions(seed) for seed in SEEDS]
    first = results[0]
    shares = [result.answering(2) for result in results]
    written = [tuple(result.written.double().mean(dim=1).tolist()) for result in results]
    rises = [(result.score - result.score[:, :1])[:, -1] for result in results]
    lead = min(source - control for source, control in shares)
    higher = all(bool((rise[0] > rise[1]).all()) for rise in rises)
    more = all(source > control for source, control in written)
    verdict: Verdict = "in shape" if lead > 0 and higher and more else "not"
    said = "; ".join(f"{source:.0%} beside {control:.0%}" for source, control in shares)
    words = "; ".join(f"{source:.1f} beside {control:.1f}" for source, control in written)
    dose = "; ".join(f"{float(rise[0].min()):+.0f} to {float(rise[0].max()):+.0f}" for rise in rises)
    other = "; ".join(f"{float(rise[1].min()):+.0f} to {float(rise[1].max()):+.0f}" for rise in rises)
    return RowResult(
        witnesses=witnesses_of(first),
        planted=[planted_neurons(), planted_keys()],
        headlines=[
            Headline(
                paper="mGPT-1.3B: values of toxicity are multilingual, and its keys answer across 17 languages",
                ours=f"{len(first.neurons)} of {first.potential} columns nearest to English questions are active; keys "
                f"answer in two or more of {len(ASKED)} languages, {said} of controls; languages among the words of a "
                f"value {words}; rise along the direction by a dose of {first.doses[-1]:g} over languages {dose}",
                control=f"neurons of the layer with a column as long: rise {other}; direction "
                f"{first.direction.accuracy:.2f}, labels shuffled {first.direction.null:.2f}; {len(SEEDS)} seeds",
                model="the bundled model",
                verdict=verdict,
            )
        ],
        absent=[
            "prediction of transfer by sentence retrieval: six languages of one model are too few to correlate over",
            "toxicity, and preference tuning before and after: needs toxic text and a trained pair of models",
            "sources by twenty generated tokens: here by the text's own",
        ],
    )


def values_of_questions(seed: int) -> ConceptValues:
    """On the bundled model and corpus: chosen on its training text, measured on its test text."""
    model, tokenizer = open_model("reference", device="cpu")
    others, texts = (load_corpus("reference", ASKED, split=split, parallel=True) for split in ("train", "test"))
    tokens = indicative_tokens(tokenizer, others, vocabulary=model.config.vocab_size)
    return concept_values(model, tokenizer, texts, others=others, tokens=tokens, draws=199, seed=seed)


def lines(tag: str, split: str) -> list[str]:
    """The bundled text by file, without this library's reader."""
    return (MODEL.parent / "corpus" / split / f"{tag}.txt").read_text(encoding="utf-8").splitlines()


@contextlib.contextmanager
def inner(model: torch.nn.Module, seen: dict[int, torch.Tensor]) -> Iterator[None]:
    """Plain hooks on the inputs of the down projections."""
    layers = model.get_submodule("model.layers")

    def keep(layer: int):
        return lambda module, given: seen.__setitem__(layer, given[0].detach())

    handles = [
        part.get_submodule("mlp.down_proj").register_forward_pre_hook(keep(n))
        for n, part in enumerate(layers.children())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def plain_means(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """By document: the mean of the last stream, and of every neuron, over all tokens but BOS."""
    model, tokenizer = opened(str(MODEL))
    seen: dict[int, torch.Tensor] = {}
    stream, neurons = [], []
    last = list(model.get_submodule("model.layers").children())[-1]
    raw: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, given: tuple, out: Any) -> None:
        raw.append(out[0] if isinstance(out, tuple) else out)

    handle = last.register_forward_hook(keep)
    with inner(model, seen), torch.no_grad():
        for text in texts:
            ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
            raw.clear()
            model(input_ids=ids)
            stream.append(raw[0][0, 1:].double().mean(dim=0))
            neurons.append(torch.stack([seen[layer][0, 1:].double().mean(dim=0) for layer in sorted(seen)]))
    handle.remove()
    return torch.stack(stream), torch.stack(neurons)


def witnesses_of(result: ConceptValues) -> list[Witness]:
    """The direction, the cosines and the gaps by plain transformers, scikit-learn and numpy."""
    english = lines("en", "train")
    stream, neurons = plain_means(english)
    labels = np.array([text.rstrip().endswith("?") for text in english])
    rows = (stream - stream.mean(dim=0)).numpy()
    scaled = rows / np.sqrt((rows**2).sum(axis=1).mean())
    fit = LogisticRegression(fit_intercept=False, class_weight="balanced", C=10.0, max_iter=1000).fit(scaled, labels)
    weight = fit.coef_[0] / np.linalg.norm(fit.coef_[0])
    model, _ = opened(str(MODEL))
    down = [
        part.get_submodule("mlp.down_proj").get_parameter("weight").detach().double().numpy()
        for part in model.get_submodule("model.layers").children()
    ]
    cosine = np.stack([weight @ columns / np.linalg.norm(columns, axis=0) for columns in down])
    order = np.argsort(-cosine.ravel(), kind="stable")[: result.potential]
    places = [divmod(int(place), cosine.shape[1]) for place in order]
    active = {p for p in places if float(neurons[torch.from_numpy(labels)].mean(dim=0)[p]) > 0}
    gaps = []
    for tag in ASKED:
        texts = lines(tag, "test")
        is_question = torch.tensor([text.rstrip().endswith("?") for text in texts])
        _, means = plain_means(texts)
        gap = means[is_question].mean(dim=0) - means[~is_question].mean(dim=0)
        gaps.append(torch.stack([gap[place] for place in result.neurons]))
    return [
        Witness(
            what=f"direction by scikit-learn on plain transformers' streams of {len(english)} sentences",
            difference=largest(result.direction.vector, torch.from_numpy(weight)),
            bar=1e-3,
        ),
        Witness(
            what=f"sources by numpy's cosines and plain hooks: share of {len(active)} that differ",
            difference=len(active ^ set(result.neurons)) / len(active),
            bar=0.05,
        ),
        Witness(
            what=f"gaps of {len(result.neurons)} neurons in {len(ASKED)} languages by plain hooks",
            difference=largest(result.gap[0], torch.stack(gaps, dim=1)),
            bar=1e-4,
        ),
    ]


def planted_result() -> ConceptValues:
    """Five neurons of the constructed model that answer to one word in three languages, and write one axis."""
    planted = construct(0)
    axes = planted.axes
    with torch.no_grad():
        for tag in THREE:
            row = planted.tokenizer.convert_tokens_to_ids(word(tag, LOUD))
            planted.model.model.embed_tokens.weight[row] += 2 * axes[-2]
        for layer, neuron in PLACES:
            mlp = planted.model.model.layers[layer].mlp
            mlp.gate_proj.weight[neuron] = 4 * (axes[-2] - axes[0])
            mlp.up_proj.weight[neuron] = 0.5 * axes[0]
            mlp.down_proj.weight[:, neuron] = 0.5 * axes[-1]
    texts = loud_texts(20, 1)
    tokens = indicative_tokens(planted.tokenizer, loud_texts(60, 2))
    return concept_values(
        planted.model,
        planted.tokenizer,
        texts,
        others=loud_texts(30, 3),
        tokens=tokens,
        concept=lambda text: any(word(tag, LOUD) in text.split() for tag in THREE),
        potential=len(PLACES),
    )


def loud_texts(count: int, seed: int) -> Corpus:
    """Every second sentence of three languages has the word of the concept, and no other has."""
    texts = sentences(count, seed=seed)
    mended = {}
    for tag in THREE:
        quiet = [[entry for entry in d.text.split() if entry != word(tag, LOUD)] for d in texts[tag]]
        marked = [[word(tag, LOUD)] * 3 if number % 2 else [] for number in range(count)]
        rows = zip(texts[tag], quiet, marked, strict=True)
        mended[tag] = tuple(Document(d.id, " ".join(itertools.chain(loud, entries))) for d, entries, loud in rows)
    return Corpus({key: mended[str(key)] for key in texts if str(key) in mended}, "sentences with a concept")


def planted_neurons() -> Planted:
    named = set(planted_result().neurons)
    right = len(named & set(PLACES))
    return Planted(
        what=f"{len(PLACES)} neurons that write one vector at one of {CONCEPTS} words",
        recall=right / len(PLACES),
        precision=right / max(1, len(named)),
    )


def planted_keys() -> Planted:
    result = planted_result()
    answers = (result.p[0] <= 0.05) & (result.gap[0] > 0)
    share = float(answers.double().mean())
    return Planted(what="keys that answer in three of three languages", recall=share, precision=share)
