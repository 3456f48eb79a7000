"""Rows of training: a language's neurons, lottery tickets, alignment, shifts, and general knowledge subtracted."""

import json
import lzma
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.linalg import eigh

import babelscope as bs
from babelscope.adaptation import LotteryTicket, Material, Method, adapt, ticket_names
from babelscope.adaptation.alignment_account import AlignmentAccount, alignment_account, retrieval
from babelscope.adaptation.forgetting import choose_replay, forgetting_account
from babelscope.adaptation.language_shift import LanguageShift
from babelscope.adaptation.lottery_ticket import ticket_student
from babelscope.adapters.arrow_routing import arrow_routing
from babelscope.adapters.lora_adapter import LoraAdapter, without_general
from babelscope.corpus import Corpus
from babelscope.evaluation import bits_per_byte
from babelscope.languages import Language
from babelscope.probes.geometry.alignment import cosine_matrix
from babelscope.probes.geometry.sentences import record_sentences
from babelscope.steering.directions.subspaces import covariance_distance
from babelscope.subnetworks import (
    Contrast,
    ContrastSteps,
    Dense,
    ElementDelta,
    LearningRate,
    ParallelPairs,
    Plan,
    Training,
    contrastive_loss,
    lottery_ticket_mask,
    train,
    train_subnetwork,
)
from babelscope.subnetworks.translation_pairs import mean_states
from rows.result import Headline, Inputs, Planted, RowResult, Verdict, Witness

SEEDS = (0, 1, 2)
REFERENCE = "the bundled model, 9 million parameters"
CODE = "none of this library's code"


def mono(inputs: Inputs, tag: str, split: str, count: int, first: int = 0) -> list[str]:
    """Lines of one language's plain text."""
    with lzma.open(Path(inputs.corpora) / "mono" / f"{tag}.{split}.txt.xz", "rt", encoding="utf-8") as file:
        return [line.rstrip("\n") for line, _ in zip(file, range(first + count), strict=False)][first:]


def eval_rows(inputs: Inputs, name: str) -> list[dict[str, Any]]:
    """Rows of one evaluation file, such as xquad/en."""
    with lzma.open(Path(inputs.corpora) / "eval" / f"{name}.jsonl.xz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def questions(inputs: Inputs, tag: str, part: slice) -> list[str]:
    """The questions of some XQuAD paragraphs; the same part is the same questions in every language."""
    return [row["q"] for paragraph in eval_rows(inputs, f"xquad/{tag}")[part] for row in paragraph["qas"]]


def material(model: Any, tokenizer: Any, tag: str, text: Sequence[str], dev: Sequence[str], seed: int) -> Material:
    """A language's text, whose dev text is the test text too: what is reported is measured elsewhere."""
    prepared = Material.prepare(
        model, tokenizer, language=tag, documents=text, dev=dev, test={tag: dev}, max_length=64, same_text=True
    )
    return prepared.reseeded(seed)


def span(values: Sequence[float]) -> str:
    """Mean, and the range over seeds."""
    return f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f}, {len(values)} seeds)"


# Lottery tickets: a task half learned in English, a language half, both together.


def against_published_mask(
    before: Mapping[str, Any], after: Mapping[str, Any], names: Sequence[str], chosen: np.ndarray
) -> int:
    """Values that cambridgeltl/composable-sft's rule decides otherwise: below the k-th largest change, or above it.

    Those that are equal to it are all taken there; here as many as are asked for.
    """
    change = np.concatenate([np.abs(after[n].numpy() - before[n].numpy()).ravel() for n in names])
    threshold = np.partition(change, len(change) - int(chosen.sum()))[len(change) - int(chosen.sum())]
    return int((chosen & (change < threshold)).sum() + (~chosen & (change > threshold)).sum())


def mask_witness(model: Any, prepared: Material) -> Witness:
    layout, names = bs.layout_of(model), ticket_names(bs.layout_of(model))
    plan = Plan(LearningRate(3e-3, 5), rows_per_step=8)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    after: dict[str, Any] = {}
    run = Training(layout, Dense(layout, names), prepared.mixture, Plan(LearningRate(3e-4, 5), rows_per_step=8))
    live = dict(model.named_parameters())
    train(model, run, at_end=lambda: after.update({n: live[n].detach().clone() for n in names}))
    student = ticket_student(prepared, layout, plan, LotteryTicket(share=0.01))
    assert student.masks is not None
    ours = np.concatenate([student.masks[name].numpy().ravel() for name in names])
    what = f"values chosen, by numpy's partition on the change of 5 dense steps, {len(ours):,} candidates: unlike ones"
    return Witness(what=what, difference=float(against_published_mask(before, after, names, ours)), bar=0)


def composition_witness(model: Any, changes: Sequence[ElementDelta]) -> Witness:
    base = {name: value.detach().double().numpy().copy().ravel() for name, value in model.named_parameters()}
    for change in changes:
        change.apply(model)
    unlike, total = 0, 0
    for name, value in model.named_parameters():
        for change in changes:
            if name in change.elements:
                part = change.elements[name]
                base[name][part.indices.numpy()] += part.values.double().numpy()
        unlike += int((base[name].astype(np.float32) != value.detach().numpy().ravel()).sum())
        total += base[name].size
    for change in reversed(changes):
        change.revert(model)
    what = f"weights under both changes, as base + Σ in numpy's float64, cast once, {total:,} weights: unlike ones"
    return Witness(what=what, difference=float(unlike), bar=0)


def planted_mask() -> Planted:
    generator = torch.Generator().manual_seed(0)
    before = {name: torch.randn(300, 200, generator=generator) for name in ("a", "b")}
    after = {name: value + 0.01 * torch.randn(300, 200, generator=generator) for name, value in before.items()}
    places = torch.randperm(120_000, generator=generator)[:1200]
    for number, name in enumerate(after):
        mine = places[(places // 60_000) == number] % 60_000
        after[name].view(-1)[mine] += 1.0
    mask = lottery_ticket_mask(before, after, 0.01, ["a", "b"])
    chosen = set(torch.cat([mask["a"].flatten(), mask["b"].flatten()]).nonzero()[:, 0].tolist())
    hits = len(chosen & set(places.tolist()))
    what = "1,200 of 120,000 values moved far, the others a little"
    return Planted(what=what, recall=hits / 1200, precision=hits / len(chosen))


def lottery(inputs: Inputs) -> RowResult:
    """Row 16: questions learned in English, Turkish learned from plain text, and Turkish questions by both."""
    model, tokenizer = bs.open_model("reference")
    test = {"tr": questions(inputs, "tr", slice(225, 240))}
    settings: dict[str, Any] = {
        "steps": 30,
        "learning_rate": 3e-3,
        "tokens_per_step": 512,
        "evaluate_every": 15,
        "trail_every": 1000,
    }
    ticket = LotteryTicket(share=0.03, dense_rate=1e-3)
    scores: dict[str, list[float]] = {}
    pair: list[ElementDelta] = []

    def trained(tag: str, text: list[str], dev: list[str], seed: int) -> ElementDelta:
        prepared = material(model, tokenizer, tag, text, dev, seed)
        change = adapt(prepared, "lt-sft", ticket=ticket, **settings).delta
        assert isinstance(change, ElementDelta)
        return change

    def score(*changes: ElementDelta) -> float:
        for change in changes:
            change.apply(model)
        result = bits_per_byte(model, tokenizer, test)[bs.Language("tr")]
        for change in changes:
            change.revert(model)
        return result

    english = questions(inputs, "en", slice(0, 160)), questions(inputs, "en", slice(160, 180))
    for seed in SEEDS:
        task = trained("en", *english, seed)
        turkish, estonian = (
            trained(tag, mono(inputs, tag, "train", 800, 800 * seed), mono(inputs, tag, "valid", 60), seed)
            for tag in ("tr", "et")
        )
        pair = [turkish, task]
        kinds = {"nothing": (), "task": (task,), "language": (turkish,), "both": (turkish, task)}
        kinds["wrong language and task"] = (estonian, task)
        for name, changes in kinds.items():
            scores.setdefault(name, []).append(score(*changes))
    best = all(both < min(rest) for both, *rest in zip(scores["both"], scores["task"], scores["language"], strict=True))
    better = all(a < b for a, b in zip(scores["both"], scores["wrong language and task"], strict=True))
    verdict: Verdict = "in shape" if best and better else "not"
    prepared = material(model, tokenizer, "en", *english, 0)
    return RowResult(
        witnesses=[mask_witness(model, prepared), composition_witness(model, pair)],
        planted=[planted_mask()],
        headlines=[
            Headline(
                paper="a task's change learned in one language works in another with that language's change added "
                "(Universal Dependencies, MasakhaNER, AmericasNLI)",
                ours="bits per byte of Turkish questions: "
                + "; ".join(f"{name} {span(scores[name])}" for name in ("nothing", "task", "language", "both")),
                control=f"the task with Estonian: {span(scores['wrong language and task'])}",
                model=REFERENCE,
                verdict=verdict,
            )
        ],
        absent=[
            "encoders with a task head: the layouts are of decoders",
            "tagging, NER and NLI: no such labelled text",
        ],
    )


# A language's neurons alone.


def step_witnesses(model: Any, tokenizer: Any, neurons: Any, text: list[str]) -> list[Witness]:
    """One step of our training beside gradient and AdamW of plain torch in float64, and all weights outside."""
    rate, length = 1e-3, 64
    settings = {"steps": 1, "learning_rate": rate, "tokens_per_step": 512, "max_length": length, "warmup": 0.0}
    delta = train_subnetwork(model, tokenizer, neurons, text, **settings, clip=float("inf"))
    mixture = Material.prepare(
        model, tokenizer, language=neurons.languages[0], documents=text, dev=text, test={neurons.languages[0]: text},
        max_length=length, same_text=True,
    ).mixture  # fmt: skip
    rows = mixture.rows(0, 8)
    double = bs.open_model("reference")[0].double()
    total, scored = torch.zeros((), dtype=torch.float64), int(rows.scored.sum())
    for ids, positions, is_scored in zip(rows.input_ids, rows.position_ids, rows.scored, strict=True):
        starts = [*(positions == 0).nonzero()[:, 0].tolist(), len(ids)]
        for first, end in zip(starts, starts[1:], strict=False):
            logits = double(ids[None, first:end]).logits[0]
            losses = torch.nn.functional.cross_entropy(logits[:-1], ids[first + 1 : end], reduction="none")
            total = total + (losses * is_scored[first + 1 : end]).sum()
    (total / scored).backward()
    gaps, errors, count = [], [], 0
    for layer in delta.layers:
        mlp = double.model.layers[layer].mlp
        indices, changes = delta.layer_of(layer)
        for role, change in changes.items():
            weight = getattr(mlp, f"{role}_proj").weight
            grad = (weight.grad.T if role == "down" else weight.grad)[indices.long()]
            # First step of AdamW: m / (1 - β₁) = g, √(v / (1 - β₂)) = |g|.
            step = -rate * grad / (grad.abs() + 1e-8)
            # Near zero the sign of the gradient is rounding's.
            clear = grad.abs() > 1e-3 * grad.abs().max()
            gaps.append(float(((change.double() - step).abs() / rate)[clear].max()) if bool(clear.any()) else 0.0)
            count += int(clear.sum())
    with delta.applied(model):
        untouched = bs.open_model("reference")[0]
        by_name = dict(untouched.named_parameters())
        for name, value in model.named_parameters():
            changed = (value != by_name[name]).nonzero()
            errors.append(len(changed))
    outside = sum(errors) - sum(int((rows != 0).sum()) for rows in delta.rows.values())
    return [
        Witness(
            what=f"one step of {count:,} values by plain transformers and AdamW in float64, in learning rates",
            difference=max(gaps),
            bar=1e-2,
        ),
        Witness(
            what="weights of the whole model that changed beside those of the neurons",
            difference=float(max(0, outside)),
            bar=0,
        ),
    ]


def subnetwork(inputs: Inputs) -> RowResult:
    """Row 15: Basque by its own neurons, by random ones, by all MLPs and by all parameters."""
    model, tokenizer = bs.open_model("reference")
    tags = ["eu", "en", "fi", "es"]
    seen, test = (bs.load_corpus("reference", tags, split=split) for split in ("train", "test"))
    observation = bs.observe(model, tokenizer, seen, sites=["mlp_gate"], tokens_per_language=4000)
    neurons = bs.select_lape(observation, top_rate=0.02)["eu"]
    text, dev = mono(inputs, "eu", "train", 1500), mono(inputs, "eu", "valid", 60)
    settings: dict[str, Any] = {"steps": 30, "tokens_per_step": 512, "evaluate_every": 15, "trail_every": 1000}
    rates: dict[Method, float] = {"subnetwork": 1e-2, "random": 1e-2, "full": 1e-3}
    gains: dict[str, list[float]] = {}
    harms: dict[str, list[float]] = {}
    for seed in SEEDS:
        prepared = Material.prepare(
            model, tokenizer, language="eu", documents=text, dev=dev, test=test.head(40), max_length=64, seed=seed
        )
        for method, rate in rates.items():
            result = adapt(prepared, method, neurons=neurons, learning_rate=rate, seed=seed, **settings)
            gains.setdefault(method, []).append(result.gain("eu"))
            harms.setdefault(method, []).append(result.harm("eu"))
    share = result_share(model, neurons)
    ahead = [a > b for a, b in zip(gains["subnetwork"], gains["random"], strict=True)]
    spared = [a < b for a, b in zip(harms["subnetwork"], harms["full"], strict=True)]
    beyond = [a > b for a, b in zip(gains["subnetwork"], gains["full"], strict=True)]
    verdict: Verdict = "in shape" if all(ahead) and all(spared) and all(beyond) else "not"
    return RowResult(
        witnesses=step_witnesses(model, tokenizer, neurons, text[:100]),
        headlines=[
            Headline(
                paper="training a language's subnetwork, at most 1 % of the parameters, beats full fine-tuning, LoRA "
                "and random subsets",
                ours=f"{share:.2%} of the parameters: gain {span(gains['subnetwork'])}, harm "
                f"{span(harms['subnetwork'])} bits per byte; all parameters: {span(gains['full'])}, "
                f"{span(harms['full'])}",
                control=f"random neurons, layer-matched: {span(gains['random'])}, {span(harms['random'])}",
                model=REFERENCE,
                verdict=verdict,
            )
        ],
    )


def result_share(model: Any, neurons: Any) -> float:
    values = 3 * model.config.hidden_size * len(neurons.indices)
    return values / sum(parameter.numel() for parameter in model.parameters())


# Alignment of translations.

LANGUAGES = ["en", "fi", "hi"]
ONCE = ("task only", "first layer", "last layer")
"""Ways of training that are run with one seed."""


def account(model: Any, tokenizer: Any, text: Corpus) -> AlignmentAccount:
    return alignment_account(model, tokenizer, text, against="en")


class AlignmentMaterial(NamedTuple):
    """What every run of alignment begins with."""

    model: Any
    tokenizer: Any
    texts: dict[str, Corpus]
    pairs: ParallelPairs
    start: AlignmentAccount
    """Of the untouched model on test sentences."""
    layer: int
    """Of the best retrieval on valid text."""


@cache
def alignment_material() -> AlignmentMaterial:
    model, tokenizer = bs.open_model("reference")
    texts = {split: bs.load_corpus("reference", LANGUAGES, split=split) for split in ("train", "valid", "test")}
    right = ParallelPairs.of(tokenizer, texts["train"], against="en", max_length=64)
    start, valid = (account(model, tokenizer, texts[split]) for split in ("test", "valid"))
    return AlignmentMaterial(model, tokenizer, texts, right, start, valid.best_layer())


@cache
def alignment_run(kind: str, seed: int) -> dict[str, Any]:
    """One way of training by its name: measures on test sentences before and after, each with what acts there."""
    model, tokenizer, texts, right, start, layer = alignment_material()
    last = bs.layout_of(model).n_layers - 1
    kinds: dict[str, Callable[[], ContrastSteps | None]] = {
        "shuffled pairs": lambda: steps_of(right.shuffled(seed), layer, seed),
        "task only": lambda: None,
        "first layer": lambda: steps_of(right, 0, seed),
        "last layer": lambda: steps_of(right, last, seed),
    }
    shift = stream_shift().get(kind)
    prepared = Material.prepare(
        model, tokenizer, language="fi", documents=texts["train"]["fi"], dev=texts["valid"]["fi"],
        test=texts["test"].head(40), max_length=64, seed=seed,
    )  # fmt: skip
    result = adapt(
        prepared, "lora", rank=8, steps=40, learning_rate=3e-3, tokens_per_step=512, evaluate_every=40,
        trail_every=1000, pairs=kinds.get(kind, lambda: steps_of(right, layer, seed))(), translations=texts["test"],
        shift=shift, seed=seed,
    )  # fmt: skip
    assert result.aligned_after is not None
    bits = (result.before, result.after)
    return {"before": start, "after": result.aligned_after, "layer": layer, "bits": bits}


@cache
def stream_shift() -> dict[str, LanguageShift]:
    """The shift around the aligned layer, and its control; neither for other ways of training."""
    model, tokenizer, texts, _, _, layer = alignment_material()
    shift = LanguageShift.of(model, tokenizer, texts["train"], against="en", layers=(layer - 1, layer + 1))
    return {"shift": shift, "crossed shift": shift.crossed()}


def alignment_runs(*kinds: str) -> dict[str, list[dict[str, Any]]]:
    """Every way of training by name, a run a seed, or one where only their order matters."""
    return {kind: [alignment_run(kind, seed) for seed in (SEEDS[:1] if kind in ONCE else SEEDS)] for kind in kinds}


def steps_of(pairs: ParallelPairs, layer: int, seed: int) -> ContrastSteps:
    return ContrastSteps(Contrast(layer), replace(pairs, seed=seed))


def gains_at(run: Mapping[str, Any], measure: str) -> float:
    """Rise of a measure at its best layer, mean over languages."""
    return float(run["after"].mean(measure).max()) - float(run["before"].mean(measure).max())


def contrast_witnesses(model: Any, tokenizer: Any) -> list[Witness]:
    """The loss in numpy, its gradient by finite differences, and the states by transformers' own output."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 12, 20, generator=generator, dtype=torch.float64).unbind()

    def by_numpy(x: np.ndarray, y: np.ndarray) -> float:
        x, y = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (x, y))
        scores = np.exp(x @ y.T / 0.1)
        diagonal = np.diag(scores)
        return float(-(np.log(diagonal / scores.sum(1)) + np.log(diagonal / scores.sum(0))).mean() / 2)

    leaf = first.clone().requires_grad_()
    loss = contrastive_loss(leaf, second)
    loss.backward()
    assert leaf.grad is not None
    gaps = []
    for place in range(0, first.numel(), 7):
        moved = []
        for sign in (1, -1):
            x = first.numpy().copy()
            x.ravel()[place] += sign * 1e-6
            moved.append(by_numpy(x, second.numpy()))
        gaps.append(abs((moved[0] - moved[1]) / 2e-6 - float(leaf.grad.view(-1)[place])))
    text = bs.load_corpus("reference", LANGUAGES, split="valid")
    side = ParallelPairs.of(tokenizer, text, against="en").batch(0, 16).second
    with torch.no_grad():
        ours = mean_states(bs.layout_of(model), side, 3)
        errors = []
        for row, (ids, real, counted) in enumerate(zip(side.input_ids, side.real, side.counted, strict=True)):
            states = model(ids[real][None], output_hidden_states=True).hidden_states[4][0]
            errors.append(float((states[counted[real]].mean(dim=0) - ours[row]).abs().max()))
    return [
        Witness(
            what="the loss in numpy, 12 pairs, in nats",
            difference=abs(float(loss.detach()) - by_numpy(first.numpy(), second.numpy())),
            bar=1e-9,
        ),
        Witness(what=f"its gradient by finite differences of numpy's loss, {len(gaps)} values", difference=max(gaps),
                bar=1e-4),
        Witness(what="mean states of layer 3 by transformers' hidden_states, 16 sentences", difference=max(errors),
                bar=1e-4),
    ]  # fmt: skip


def planted_rotation() -> Planted:
    """Vectors of one language are the other's, turned; a matrix trained by the loss alone turns them back."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(128, 8, generator=generator)
    y = x @ torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    weight = torch.eye(8).requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=0.05)
    for _ in range(200):
        part = torch.randperm(64, generator=generator)[:32]
        optimizer.zero_grad()
        contrastive_loss(x[part] @ weight, y[part]).backward()
        optimizer.step()
    turned = torch.nn.functional.normalize((x @ weight.detach())[64:], dim=1)
    nearest = (turned @ torch.nn.functional.normalize(y[64:], dim=1).T).argmax(dim=1)
    right = float((nearest == torch.arange(64)).double().mean())
    return Planted(what="a rotation in 8 dimensions, 64 vectors held out", recall=right, precision=right)


def contrast(inputs: Inputs) -> RowResult:
    """Row 34: translations drawn together at one layer, in turn with text, by LoRA."""
    runs = alignment_runs("right pairs", "shuffled pairs", *ONCE)
    model, tokenizer = bs.open_model("reference")
    right, shuffled = (runs[name] for name in ("right pairs", "shuffled pairs"))
    rises, wrong = ([gains_at(run, "mexa") for run in part] for part in (right, shuffled))
    verdict: Verdict = "in shape" if all(a > 0 and a > b for a, b in zip(rises, wrong, strict=True)) else "not"
    layer = right[0]["layer"]
    unrelated = [float(run["after"].mean("unrelated")[layer] - run["before"].mean("unrelated")[layer]) for run in right]

    def bits(run: Mapping[str, Any]) -> float:
        before, after = run["bits"]
        return mean(after[tag] - before[tag] for tag in before)

    others = "; ".join(
        f"{name}: {gains_at(runs[name][0], 'mexa'):+.3f}" for name in ("task only", "first layer", "last layer")
    )
    return RowResult(
        witnesses=contrast_witnesses(model, tokenizer),
        planted=[planted_rotation()],
        headlines=[
            Headline(
                paper="aligning a middle layer raises retrieval and cross-lingual transfer (slot filling, "
                "translation, structured text)",
                ours=f"layer {layer} of {model.config.num_hidden_layers}, by retrieval on valid text; rise of MEXA at "
                f"the best layer, en with fi and hi: {span(rises)}; rise of the cosine of unrelated sentences "
                f"{span(unrelated)}; rise of bits per byte {span([bits(run) for run in right])}",
                control=f"shuffled pairs: {span(wrong)}, bits per byte {span([bits(run) for run in shuffled])}; "
                f"{others}",
                model=REFERENCE,
                verdict=verdict,
            )
        ],
        absent=["tasks with labels in several languages: no such training text"],
    )


# General knowledge subtracted.


def general(inputs: Inputs) -> RowResult:
    """Row 35: task adapters with and without the mean of general ones, alone and routed."""
    model, tokenizer = bs.open_model("reference")
    texts = {tag: (mono(inputs, tag, "train", 800), mono(inputs, tag, "valid", 40)) for tag in ("en", "fr", "de")}
    problems = [row["question"] for row in eval_rows(inputs, "mgsm/en")]
    contexts = [row["context"] for row in eval_rows(inputs, "xquad/en")]
    tasks = {
        "questions": (questions(inputs, "en", slice(0, 160)), questions(inputs, "en", slice(160, 180))),
        "problems": (problems[:180], problems[180:200]),
        "paragraphs": (contexts[:160], contexts[160:180]),
    }
    test: dict[str, dict[str, list[str]]] = {}
    for tag in ("de", "ru", "zh"):
        held_out = [row["question"] for row in eval_rows(inputs, f"mgsm/{tag}")][200:215]
        test[tag] = {"questions": questions(inputs, tag, slice(232, 240)), "problems": held_out}
        test[tag]["paragraphs"] = [row["context"] for row in eval_rows(inputs, f"xquad/{tag}")[220:225]]

    def lora(tag: str, text: tuple[list[str], list[str]], seed: int) -> LoraAdapter:
        prepared = material(model, tokenizer, tag, *text, seed)
        adapter = adapt(
            prepared, "lora", rank=4, steps=20, learning_rate=3e-3, tokens_per_step=512, evaluate_every=10,
            trail_every=1000, seed=seed,
        ).adapter  # fmt: skip
        assert adapter is not None
        return adapter

    def score(task: str) -> float:
        return mean(bits_per_byte(model, tokenizer, {tag: test[tag][task] for tag in test}).values())

    rows: dict[str, list[float]] = {}
    witnesses: list[Witness] = []
    for seed in SEEDS:
        made = {name: lora("en", text, seed) for name, text in tasks.items()}
        of_language = [lora(tag, text, seed) for tag, text in texts.items()]
        residual = {name: without_general(adapter, of_language) for name, adapter in made.items()}
        if not witnesses:
            witnesses = subtraction_witnesses(model, made["questions"], residual["questions"], of_language)
        for kind, adapters in (("task", made), ("residual", residual)):
            values = []
            for name, adapter in adapters.items():
                with adapter.change(model).applied(model):
                    values.append(score(name))
            rows.setdefault(kind, []).append(mean(values))
        routed = {
            "arrow": partial(arrow_routing, model, list(made.values()), top_k=2),
            "arrow, factors subtracted": partial(
                arrow_routing, model, list(made.values()), general=of_language, top_k=2
            ),
            "arrow, exact residuals": partial(arrow_routing, model, list(residual.values()), top_k=2),
        }
        for kind, opened in routed.items():
            with opened():
                rows.setdefault(kind, []).append(mean(map(score, tasks)))
        rows.setdefault("no adapter", []).append(mean(map(score, tasks)))
    better = [a < b for a, b in zip(rows["arrow, exact residuals"], rows["arrow"], strict=True)]
    alone = [a < b for a, b in zip(rows["residual"], rows["task"], strict=True)]
    shown = ("task", "residual", "arrow", "arrow, exact residuals")
    by_kind = "; ".join(f"{kind} {span(rows[kind])}" for kind in shown)
    verdict: Verdict = "in shape" if all(better) and all(alone) else "not"
    return RowResult(
        witnesses=witnesses,
        headlines=[
            Headline(
                paper="residual modules routed by Arrow beat task modules: 1.6 points on Phi-3, 3.9 in German",
                ours=f"bits per byte of three kinds of text in de, ru and zh by adapters of English: {by_kind}",
                control=f"no adapter {span(rows['no adapter'])}; peft's difference of factors "
                f"{span(rows['arrow, factors subtracted'])}",
                model=REFERENCE,
                verdict=verdict,
            )
        ],
        absent=["tasks of instructions with accuracy: the bundled model follows none"],
    )


def first_vector(matrix: np.ndarray) -> np.ndarray:
    """The first right singular vector as peft looks for it: fifteen steps of power iteration from its start."""
    start = torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(0)).double().numpy()
    for _ in range(15):
        start = matrix.T @ (matrix @ start)
        start /= np.linalg.norm(start)
    return start


def subtraction_witnesses(
    model: Any, task: LoraAdapter, residual: LoraAdapter, general_ones: Sequence[LoraAdapter]
) -> list[Witness]:
    """The residual's change in numpy, and the routed output of one projection by Arrow's formula in numpy."""

    def product(adapter: LoraAdapter, module: str) -> np.ndarray:
        a, b = (adapter.tensors[f"base_model.model.{module}.lora_{x}.weight"].double().numpy() for x in "AB")
        return adapter.config["lora_alpha"] / len(a) * b @ a

    gaps = []
    for module in task.modules:
        expected = product(task, module) - np.mean([product(other, module) for other in general_ones], axis=0)
        gaps.append(float(np.abs(product(residual, module) - expected).max()))
    name = task.modules[0]
    states: dict[str, Any] = {}
    ids = torch.arange(5, 45)[None]
    adapters = [task, *general_ones]
    with torch.no_grad():
        plain = model.get_submodule(name)
        hook = plain.register_forward_hook(lambda _, args, out: states.update(x=args[0][0], base=out[0]))
        with arrow_routing(model, adapters, top_k=2):
            routed = model.get_submodule(name).register_forward_hook(lambda _, args, out: states.update(routed=out[0]))
            model(ids)
            routed.remove()
        hook.remove()
    x = states["x"].double().numpy()
    products = [product(adapter, name) for adapter in adapters]
    score = np.stack([np.abs(x @ first_vector(matrix)) for matrix in products], axis=1)
    score[score < np.sort(score, axis=1)[:, [-2]]] = -np.inf
    weight = np.exp(score - score.max(1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    expected = sum(weight[:, [number]] * (x @ matrix.T) for number, matrix in enumerate(products))
    actual = (states["routed"] - states["base"]).double().numpy()
    return [
        Witness(what=f"ΔW of the residual in numpy, {len(gaps)} projections", difference=max(gaps), bar=1e-6),
        Witness(
            what=f"what routing adds at {name}, 40 tokens and 4 adapters, by Arrow's formula with peft's fifteen steps "
            "of power iteration in numpy",
            difference=float(np.abs(actual - expected).max()),
            bar=1e-3 * float(np.abs(expected).max()),
        ),
    ]


# Where to shift, and contrast there.


def shift(inputs: Inputs) -> RowResult:
    """Row 14: distance of subspaces by layer, and training with the shift in place, beside contrast alone."""
    model, tokenizer = bs.open_model("reference")
    test = bs.load_corpus("reference", LANGUAGES, split="test")
    sentences = record_sentences(model, tokenizer, test, sentences=100, poolings=("mean",))
    gaps = []
    for depth in range(1, len(sentences.sites)):
        x, y = (rows.numpy() for rows in sentences.at(depth)[:2])
        kx, ky = (np.cov(rows, rowvar=False) for rows in (x, y))
        kx, ky = (0.9 * k + 0.1 * np.trace(k) / len(k) * np.eye(len(k)) for k in (kx, ky))
        expected = float(np.sqrt((np.log(eigh(ky, kx, eigvals_only=True)) ** 2).sum()))
        gaps.append(abs(covariance_distance(*sentences.at(depth)[:2]) - expected) / expected)
    runs = alignment_runs("right pairs", "shuffled pairs", "shift", "crossed shift")
    start, layer = runs["right pairs"][0]["before"], runs["right pairs"][0]["layer"]
    distances = start.mean("distance")
    falls = [
        float((run["before"].mean("distance") - run["after"].mean("distance"))[layer]) for run in runs["right pairs"]
    ]
    wrong = [float((r["before"].mean("distance") - r["after"].mean("distance"))[layer]) for r in runs["shuffled pairs"]]
    inner = float(distances[1:-1].min())
    middle = inner < min(float(distances[0]), float(distances[-1]))
    verdict: Verdict = "in shape" if middle and all(a > b for a, b in zip(falls, wrong, strict=True)) else "not"
    by_layer = ", ".join(f"{float(value):.1f}" for value in distances)
    return RowResult(
        witnesses=[
            Witness(
                what=f"distance of covariances by scipy's generalised eigenvalues, {len(gaps)} layers, relative",
                difference=max(gaps),
                bar=1e-9,
            ),
            *shift_witnesses(),
        ],
        headlines=[
            Headline(
                paper="subspaces are nearest in an area of layers, where shifting and contrast are done",
                ours=f"distance from en by layer, mean of fi and hi: {by_layer}; area {list(start.area)}; fall at "
                f"layer {layer} by contrast {span(falls)}",
                control=f"contrast of shuffled pairs: {span(wrong)}",
                model=REFERENCE,
                verdict=verdict,
            ),
            trained_with_shift(runs),
        ],
        planted=[planted_shift()],
        absent=["instruction tuning in several languages, and its tasks: no such training text"],
    )


def trained_with_shift(runs: Mapping[str, list[dict[str, Any]]]) -> Headline:
    """Bits per byte and retrieval by language, with the shift in place, beside contrast alone and wrong means."""
    material, stream = alignment_material(), stream_shift()
    english, *tags = map(Language, LANGUAGES)
    before = runs["shift"][0]["bits"][0]
    untrained = stream["shift"].bits_per_byte(material.texts["test"].head(40))

    def changes(kind: str, tag: Language) -> list[float]:
        return [run["bits"][1][tag] - before[tag] for run in runs[kind]]

    def found(kind: str, tag: Language) -> list[float]:
        return [float(run["after"].retrieval[tag][material.layer]) for run in runs[kind]]

    def line(kind: str) -> str:
        return "; ".join(f"{tag} {span(changes(kind, tag))}, found {span(found(kind, tag))}" for tag in tags)

    better = all(
        ours < min(alone, crossed)
        for tag in tags
        for ours, alone, crossed in zip(
            *(changes(kind, tag) for kind in ("shift", "right pairs", "crossed shift")), strict=True
        )
    )
    first, last = stream["shift"].layers
    begun = ", ".join(f"{tag} {float(material.start.retrieval[tag][material.layer]):.3f}" for tag in tags)
    return Headline(
        paper="shifting and contrast in training raise the performance of non-dominant languages above that of plain "
        "multilingual tuning (mathematics, reasoning, classification; 7 to 13 billion parameters)",
        ours=f"fi trained by text, fi and hi aligned with en at layer {material.layer}, text shifted after layer "
        f"{first} and back after {last}; change of bits per byte from the untouched model, and share of translations "
        f"found at the aligned layer ({begun} before): {line('shift')}; en changes by "
        f"{span(changes('shift', english))}",
        control=f"contrast without a shift: {line('right pairs')}; means of the other language: "
        f"{line('crossed shift')}; the shift without training: "
        + ", ".join(f"{tag} {untrained[tag] - before[tag]:+.3f}" for tag in tags),
        model=REFERENCE,
        verdict="in shape" if better else "not",
    )


def shift_witnesses() -> list[Witness]:
    """The shifted pass and its gradient by plain hooks in transformers, from means that transformers gave."""
    material, shift = alignment_material(), stream_shift()["shift"]
    model, tokenizer = material.model, material.tokenizer
    first, last = shift.layers
    sums: dict[str, torch.Tensor] = {}
    special = set(tokenizer.all_special_ids)
    for tag in ("en", "fi"):
        total, count = torch.zeros(2, model.config.hidden_size, dtype=torch.float64), 0
        for document in material.texts["train"][tag]:
            ids = tokenizer(document.text, return_tensors="pt", truncation=True, max_length=512).input_ids
            with torch.no_grad():
                states = model(ids, output_hidden_states=True).hidden_states
            ordinary = torch.tensor([token not in special for token in ids[0].tolist()])
            total += torch.stack([states[layer + 1][0, ordinary].double().sum(dim=0) for layer in (first, last)])
            count += int(ordinary.sum())
        sums[tag] = total / count
    steps = {first: sums["en"][0] - sums["fi"][0], last: sums["fi"][1] - sums["en"][1]}
    ours = [part.vector.double() for part in shift.recipes[Language("fi")].operations]
    gap = max(float((a - b).norm() / b.norm()) for a, b in zip(ours, (steps[first], steps[last]), strict=True))
    ids = tokenizer(material.texts["test"]["fi"][0].text, return_tensors="pt").input_ids
    ordinary = torch.tensor([[token not in special for token in ids[0].tolist()]])[..., None]
    weight = model.model.layers[last - 1].mlp.down_proj.weight
    gradients = []
    for by_hand in (False, True):
        hooks = [
            model.model.layers[layer].register_forward_hook(
                lambda module, args, output, step=step: output + ordinary * step.float()
            )
            for layer, step in steps.items()
        ] if by_hand else []  # fmt: skip
        required = weight.requires_grad
        weight.requires_grad_(True)
        with nullcontext() if by_hand else shift.over((Language("fi"),)):
            logits = model(ids).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:])
        gradients.append(torch.autograd.grad(loss, weight)[0])
        weight.requires_grad_(required)
        for hook in hooks:
            hook.remove()
    return [
        Witness(what="means of en and fi at both layers by transformers' hidden states, relative", difference=gap,
                bar=1e-5),
        Witness(
            what="gradient of an MLP between the layers, by plain hooks and autograd, relative",
            difference=float((gradients[0] - gradients[1]).norm() / gradients[1].norm()),
            bar=1e-4,
        ),
    ]  # fmt: skip


def planted_shift() -> Planted:
    """States of one language are those of the other, moved away by one step: shifted, all translations are found."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 16, generator=generator, dtype=torch.float64)
    y = x + 0.2 * torch.randn(64, 16, generator=generator, dtype=torch.float64)
    y = y + 100 * torch.randn(16, generator=generator, dtype=torch.float64)
    shifted = y + x.mean(dim=0) - y.mean(dim=0)
    right = retrieval(cosine_matrix(x, shifted))
    return Planted(
        what="translations behind a shift of a language's space, 64 sentences", recall=right, precision=right
    )


# Replay, and what other languages pay.


def replay(inputs: Inputs) -> RowResult:
    """Row 33: Basque with English, Finnish and Spanish replayed as far as a bound on harm asks."""
    model, tokenizer = bs.open_model("reference")
    others = ["en", "fi", "es"]
    text, dev = mono(inputs, "eu", "train", 1500), mono(inputs, "eu", "valid", 40)
    replayed = {tag: mono(inputs, tag, "train", 500) for tag in others}
    valid, test = (
        {"eu": dev if name == "valid" else mono(inputs, "eu", "valid", 40, 100)}
        | {tag: mono(inputs, tag, "valid", 40, first) for tag in others}
        for name, first in (("valid", 0), ("test", 100))
    )
    settings: dict[str, Any] = {
        "steps": 30, "learning_rate": 2e-4, "tokens_per_step": 512, "evaluate_every": 10, "trail_every": 10
    }  # fmt: skip
    shares, bound = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9), 0.05

    def prepare(share: float, seed: int, scored: Mapping[str, Sequence[str]]) -> Material:
        return Material.prepare(
            model, tokenizer, language="eu", documents=text, dev=dev, test=scored, replay=replayed if share else None,
            replay_share=share, max_length=64, seed=seed, same_text=True,
        )  # fmt: skip

    chosen, harms, without, gains, recovered = [], [], [], [], []
    gap = 0.0
    for seed in SEEDS:
        choice = choose_replay(partial(prepare, seed=seed, scored=valid), "full", shares, bound, **settings)
        kept = adapt(prepare(choice.share, seed, test), "full", **settings)
        free = adapt(prepare(0.0, seed, test), "full", **settings)
        chosen.append(choice.share)
        harms.append(kept.harm("eu"))
        gains.append(kept.gain("eu"))
        without.append(free.harm("eu"))
        for row in forgetting_account(free.before, free.trail, "eu"):
            rises = np.array([scores[row.language] for _, scores in free.trail]) - free.before[row.language]
            gap = max(gap, abs(float(rises.max()) - row.worst), abs(float(rises[-1]) - row.last))
            recovered.append(row.worst - row.last)
    bounded = all(harm <= bound < free for harm, free in zip(harms, without, strict=True))
    verdict: Verdict = "in shape" if bounded and min(gains) > 0 else "not"
    return RowResult(
        witnesses=[
            replay_witness(prepare(0.25, 0, test)),
            Witness(what="worst and last rise by numpy, 9 courses, in bits per byte", difference=gap, bar=1e-12),
        ],
        headlines=[
            Headline(
                paper="a share of replay of the earlier text keeps forgetting small in continued training",
                ours=f"bound {bound} bits per byte on valid text: shares {sorted(chosen)} of {list(shares)}; harm on "
                f"test text {span(harms)}, gain {span(gains)}; the worst rise without replay fell by {span(recovered)} "
                "by the end",
                control=f"no replay: harm {span(without)}",
                model=REFERENCE,
                verdict=verdict,
            )
        ],
    )


def replay_witness(prepared: Material) -> Witness:
    """Rows by language, counted in the first 400 rows of training."""
    tags = [prepared.mixture.row(number)[0] for number in range(400)]
    share = sum(tag != prepared.language for tag in tags) / 400
    return Witness(what="share of replayed rows among 400, beside .25", difference=abs(share - 0.25), bar=0)
