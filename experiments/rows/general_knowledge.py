"""Row 35: general-knowledge subtraction and routing."""

from collections.abc import Sequence
from functools import partial
from statistics import mean
from typing import Any

import numpy as np
import torch

import babelscope as bs
from babelscope.adaptation import adapt
from babelscope.adapters.arrow_routing import arrow_routing
from babelscope.adapters.lora_adapter import LoraAdapter, without_general
from babelscope.evaluation import bits_per_byte
from rows.result import Headline, Inputs, RowResult, Verdict, Witness
from rows.training_text import REFERENCE, SEEDS, eval_rows, material, mono, questions, span


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
