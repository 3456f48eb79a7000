"""Row 24: detectors of concepts, shared between languages, over stages; their clamping; language probes of tokens."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import average_precision_score
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import babelscope as bs
from babelscope.corpus import Corpus
from babelscope.probes import clamp_experts, concept_experts, language_probe, record_sentences, track_concepts
from babelscope.probes.concepts.concept_clamping import ClampedConcept
from babelscope.probes.concepts.concept_detectors import ConceptExperts
from babelscope.probes.concepts.concept_probe import has_concept
from babelscope.probes.concepts.detector_ranking import Ranked
from babelscope.probes.geometry.language_id import split_sentences
from babelscope.probes.geometry.ridge import PENALTY, RidgeProbe
from babelscope.reference import MODEL
from rows import checkpoints
from rows.checkpoints import checkpoint_folders, row_of
from rows.neuron_witnesses import recall_and_precision
from rows.plain import largest, opened
from rows.result import Headline, Inputs, Planted, RowResult, Witness

LANGUAGES = ("en", "de", "es", "ru")
FOOD = {
    "bread",
    "milk",
    "water",
    "honey",
    "apples",
    "soup",
    "tea",
    "coffee",
    "cheese",
    "fish",
    "eggs",
    "cake",
    "butter",
}
"""Words of an English sentence that make it, and its translations, one about food and drink."""
DRAWS = 19
TRAINED = "a model of the bundled shape, trained on English, then on four languages"
LETTERS = {"en": ("abcdefg", "v"), "fi": ("hijklmn", "w")}
"""What planted languages are written in, and the letter that marks the concept."""


def measure(inputs: Inputs) -> RowResult:
    """Detectors by scikit-learn, planted ones, their overlap over stages, clamping, and tokens' language."""
    texts = bs.load_corpus("reference", LANGUAGES, split="train")
    held_out = bs.load_corpus("reference", LANGUAGES, split="test")
    model, tokenizer = bs.open_model("reference", device="cpu", dtype="float32")
    experts = concept_experts(model, tokenizer, texts, concept="questions", draws=DRAWS)
    clamp = clamp_experts(model, tokenizer, experts, held_out, concept="questions", draws=19)
    folders = checkpoint_folders(inputs)
    return RowResult(
        witnesses=[*witnesses(texts, experts), clamped_witness(held_out, experts, clamp), token_witness(texts)],
        planted=[planted()],
        headlines=[*(over_training(folders) if folders else ()), clamping(clamp)],
        absent=[
            "probes of word classes with control tasks: the corpora here have no treebank's labels",
            *([] if folders else ["checkpoints of a training run: none were given"]),
            "continuations under clamping read by people: the probability of the concept's tokens is measured",
        ],
    )


def over_training(folders: list[Path]) -> list[Headline]:
    """Experts in common and tokens' language from checkpoint to checkpoint, in the languages that were trained."""
    texts = bs.load_corpus("reference", checkpoints.LANGUAGES, split="train")
    chosen = [*folders[:-1:2], folders[-1]]
    stages = {folder.name: partial(checkpoints.opened, folder) for folder in chosen}
    steps: dict[str, dict[str, ConceptExperts]] = {
        name: track_concepts(stages, texts, draws=DRAWS, **settings)  # pyright: ignore[reportArgumentType]
        for name, settings in (
            ("questions", {"concept": "questions"}),
            ("food and drink", {"concept": is_about_food, "labels_from": "en"}),
        )
    }
    return [*shared(steps), token_language(texts, chosen[0], chosen[-1])]


def is_about_food(text: str) -> bool:
    """Whether an English sentence has one of the words."""
    return bool({word.strip(".,;:!?") for word in text.lower().split()} & FOOD)


def maxima_by_hooks(texts) -> dict[str, np.ndarray]:
    """[text, layer, neuron] by hooks on plain transformers in float64, one text at a time, without BOS."""
    model, tokenizer = opened(str(MODEL), torch.float64)
    found = {}
    for tag, documents in texts.items():
        rows = []
        for document in documents:
            seen: list[np.ndarray] = []
            handles = [
                layer.mlp.down_proj.register_forward_pre_hook(
                    lambda module, args, seen=seen: seen.append(args[0][0, 1:].amax(dim=0).numpy())
                )
                for layer in model.model.layers
            ]
            with torch.no_grad():
                model(torch.tensor([tokenizer(document.text)["input_ids"]]))
            for handle in handles:
                handle.remove()
            rows.append(np.stack(seen))
        found[tag] = np.stack(rows)
    return found


def witnesses(texts, experts: ConceptExperts) -> list[Witness]:
    """Average precision by scikit-learn on maxima by hooks, ties, and overlap by Python's sets."""
    test, worst, part = has_concept("questions"), 0.0, texts.only(("en", "ru")).head(120)
    exact = concept_experts(*bs.open_model("reference", device="cpu", dtype="float64"), part, draws=1)
    for k, (tag, values) in enumerate(maxima_by_hooks(part).items()):
        labels = np.array([test(document.text) for document in part[tag]])
        for layer in range(values.shape[1]):
            for neuron in range(0, values.shape[2], 8):
                by_sklearn = average_precision_score(labels, values[:, layer, neuron])
                worst = max(worst, abs(by_sklearn - float(exact.precision[k, layer, neuron])))
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 4, (60, 200)).astype(np.float32), rng.random(60) < 0.3
    ties = Ranked(torch.from_numpy(scores)).precision(torch.from_numpy(labels)).numpy()
    by_sklearn = np.array([average_precision_score(labels, column) for column in scores.T])
    sets = {tag: set(experts.experts(tag)) for tag in experts.languages}
    shares = [len(sets[o.first] & sets[o.second]) / experts.number - o.share for o in experts.overlaps]
    return [
        Witness(
            what="average precision by scikit-learn on maxima by hooks in float64, 2 languages, 704 neurons each",
            difference=worst,
            bar=1e-12,
        ),
        Witness(what="the same with tied scores, 200 detectors", difference=largest(ties, by_sklearn), bar=1e-12),
        Witness(
            what=f"shared experts by Python's sets, {len(shares)} pairs",
            difference=float(np.abs(shares).max()),
            bar=1e-12,
        ),
    ]


def clamped_witness(texts, experts: ConceptExperts, clamp: ClampedConcept) -> Witness:
    """Spanish experts held in English text by plain hooks."""
    model, tokenizer = opened(str(MODEL))
    test, source, reader = has_concept("questions"), experts.languages.index(bs.Language("es")), 0
    member = torch.tensor([test(str(tokenizer.decode([token]))) for token in range(len(tokenizer))])
    lines = [document.text for document in texts["en"] if not test(document.text)][:20]
    units: dict[int, list[int]] = {}
    for layer, neuron in experts.experts("es"):
        units.setdefault(layer, []).append(neuron)

    def total() -> tuple[float, int]:
        mass, positions = 0.0, 0
        for line in lines:
            ids = torch.tensor([tokenizer(line)["input_ids"]])
            with torch.no_grad():
                share = model(ids).logits[0, 1:].double().softmax(-1)
            mass, positions = mass + float(share[:, member].sum()), positions + len(share)
        return mass, positions

    plain, handles = total(), []
    for layer, neurons in units.items():
        held = experts.maximum[source, layer, neurons].float()

        def hold(module, args, neurons=neurons, held=held):
            value = args[0].clone()
            value[..., neurons] = held
            return (value,)

        handles.append(model.model.layers[layer].mlp.down_proj.register_forward_pre_hook(hold))
    after = total()
    return Witness(
        what="rise of question marks in 20 English texts with Spanish experts held, plain hooks, relative",
        difference=abs((after[0] - plain[0]) / plain[1] / float(clamp.rise[source, reader]) - 1),
        bar=1e-4,
    )


def token_witness(texts) -> Witness:
    """Language of one token in each sentence's middle: scikit-learn's classifier on plain transformers' states."""
    tags, n, depth = LANGUAGES[:3], 120, 4
    model, tokenizer = opened(str(MODEL))
    part = texts.only(tags).head(n)
    found = record_sentences(*bs.open_model("reference", device="cpu", dtype="float32"), part, sentences=n)
    rows = []
    for documents in part.values():
        for document in documents:
            ids = tokenizer(document.text)["input_ids"]
            with torch.no_grad():
                states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[depth][0]
            rows.append(states[(len(ids) - 1 + 1) // 2].double().numpy())
    x = np.stack(rows)
    labels = np.repeat(np.arange(len(tags)), n)
    test = np.tile(split_sentences(n, test_share=0.3, seed=0).numpy(), len(tags))
    centre, spread = x[~test].mean(0), x[~test].std(0)
    scaled = (x - centre) / np.where(spread > 0, spread, 1)
    theirs = RidgeClassifier(alpha=PENALTY * int((~test).sum())).fit(scaled[~test], labels[~test])
    ours = found.at(depth, "middle").reshape(len(labels), -1)
    train = torch.from_numpy(~test)
    probe = RidgeProbe(ours[train], ours[~train])
    predicted = probe.predict(torch.from_numpy(labels)[train], len(tags)).numpy()
    return Witness(
        what=f"language of a token in the middle of {int(test.sum())} sentences by scikit-learn's RidgeClassifier on "
        "plain transformers' states, share that differ",
        difference=float((predicted != theirs.predict(scaled[test])).mean()),
        bar=0.01,
    )


def planted() -> Planted:
    """Four neurons that answer to the concept in both languages, and two in each language alone."""
    tokenizer = AutoTokenizer.from_pretrained(str(MODEL))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
    )
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(config).eval()
    places = {"both": [(0, 3), (1, 40), (2, 7), (3, 90)], "en": [(1, 5), (2, 60)], "fi": [(0, 70), (3, 11)]}
    axes = {"both": (0, 1), "en": (0,), "fi": (1,)}
    with torch.no_grad():
        table = model.model.embed_tokens.weight
        table.normal_()
        table[:, :2] = 0
        for axis, (_, mark) in enumerate(LETTERS.values()):
            for text in (mark, f" {mark}"):
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                table[ids] = 0
                table[ids, axis] = 5
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
            layer.mlp.gate_proj.weight[:, :2] = layer.mlp.up_proj.weight[:, :2] = 0
        for kind, neurons in places.items():
            for layer, neuron in neurons:
                for weight in (
                    model.model.layers[layer].mlp.gate_proj.weight,
                    model.model.layers[layer].mlp.up_proj.weight,
                ):
                    weight[neuron] = 0
                    weight[neuron, list(axes[kind])] = 1
    rng = np.random.default_rng(0)
    texts = {
        tag: [" ".join([*rng.choice(list(letters), 20), *([mark] if i % 4 == 0 else [])]) for i in range(60)]
        for tag, (letters, mark) in LETTERS.items()
    }
    marks = {mark for _, mark in LETTERS.values()}
    found = concept_experts(model, tokenizer, texts, concept=lambda text: bool(marks & set(text)), number=6, draws=19)
    chosen = {(tag, *place) for tag in LETTERS for place in found.experts(tag)}
    truth = {(tag, *place) for tag in LETTERS for kind in ("both", tag) for place in places[kind]}
    recall, precision = recall_and_precision(chosen, truth)
    (overlap,) = found.overlaps
    share = len(places["both"]) / found.number
    return Planted(
        what=f"six experts of each of two languages, of which {overlap.share:.2f} are shared ({share:.2f} planted)",
        recall=recall,
        precision=precision if abs(overlap.share - share) < 1e-9 else 0.0,
    )


def shared(steps: dict[str, dict[str, ConceptExperts]]) -> list[Headline]:
    """Experts in common over the stages, a line a concept."""
    lines = []
    for concept, stages in steps.items():
        shares, nulls = (
            [float(np.mean([getattr(pair, field) for pair in stage.overlaps])) for stage in stages.values()]
            for field in ("share", "null")
        )
        last = list(stages.values())[-1]
        clear = sum(pair.p <= 0.05 for pair in last.overlaps)
        best = [float(last.precision[k].max()) for k in range(len(last.languages))]
        lines.append(
            Headline(
                paper="neurons become predictors of the same concepts across languages as pre-training goes on",
                ours=f"{concept}: share of {last.number} experts that two of {len(last.languages)} languages have in "
                f"common {row_of(shares)} at {', '.join(stages)}; above shuffled labels (p ≤ .05) in {clear} of "
                f"{len(last.overlaps)} pairs at last; average precision of the best {row_of(best)}",
                control=f"labels shuffled, alike in all languages: {row_of(nulls)}",
                model=TRAINED,
                verdict="in shape" if shares[-1] > shares[0] and clear > len(last.overlaps) / 2 else "not",
            )
        )
    return lines


def clamping(clamp: ClampedConcept) -> Headline:
    """Experts of one language held in another's text."""
    across = [(i, j) for i, a in enumerate(clamp.sources) for j, b in enumerate(clamp.readers) if a != b]
    clear = sum(clamp.p(i, j) <= 0.05 for i, j in across)
    rise = [float(clamp.rise[i, j]) for i, j in across]
    null = [float(clamp.null[i, :, j].mean()) for i, j in across]
    return Headline(
        paper="experts chosen on Spanish text bring the concept out in English text when they are held",
        ours=f"probability of a question mark {100 * float(clamp.base.mean()):.2f} %; with another language's "
        f"{clamp.number} experts of questions held {100 * np.mean(rise):+.2f} points, {100 * min(rise):+.2f} to "
        f"{100 * max(rise):+.2f}; p ≤ .05 in {clear} of {len(across)} pairs",
        control=f"{clamp.draws} random sets of the same layers, held alike: {100 * np.mean(null):+.2f} points",
        model="bundled model",
        verdict="in shape" if clear > len(across) / 2 else "not",
    )


def token_language(texts: Corpus, *folders: Path) -> Headline:
    """Accuracy of one token's language by depth, at the first and the last checkpoint."""
    courses, nulls = [], []
    for folder in folders:
        sentences = record_sentences(*checkpoints.opened(folder), texts, sentences=200)
        probe = language_probe(sentences, pooling="middle", draws=19, resamples=99)
        courses.append(probe.accuracy.tolist())
        nulls.append(float(probe.null.mean()))
    first, last = courses
    spread = [max(course) - min(course) for course in courses]
    return Headline(
        paper="language identification is alike in all layers at first and differs by layer later",
        ours=f"one token's language told right by depth: {row_of(first)} at {folders[0].name}, {row_of(last)} at "
        f"{folders[-1].name}; range over depths {row_of(spread)}",
        control=f"languages shuffled within sentences: {row_of(nulls)}",
        model=TRAINED,
        verdict="in shape" if spread[1] > spread[0] + 0.05 else "not",
    )
