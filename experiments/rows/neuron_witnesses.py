"""Counts of neurons, the published rules on them, and models with planted neurons: by torch and numpy alone."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

LETTERS = {"en": "abcdefg", "fi": "hijklmn", "eu": "opqrstu"}
"""What planted languages are written in."""


@contextmanager
def on_gates(model: Any, read: Callable[[int, torch.Tensor], torch.Tensor | None]) -> Iterator[None]:
    """While open, `read` gets each layer's activated gate; what it gives takes its place, unless it is None."""
    handles = [
        layer.mlp.act_fn.register_forward_hook(lambda module, inputs, output, at=at: read(at, output))
        for at, layer in enumerate(model.model.layers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def counts_by_hooks(
    model: Any, tokenizer: Any, texts: dict[str, Sequence[str]], *, longest: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens on which each activated gate is above 0, [layer, neuron, language], and tokens, text by text; no BOS."""
    n_layers, width = len(model.model.layers), model.config.intermediate_size
    active, tokens = np.zeros((n_layers, width, len(texts)), dtype=np.int64), np.zeros(len(texts), dtype=np.int64)
    special = set(tokenizer.all_special_ids)
    for k, lines in enumerate(texts.values()):
        for line in lines:
            ids = tokenizer(line)["input_ids"][:longest]
            counted = torch.tensor([token not in special for token in ids])

            def read(layer: int, gate: torch.Tensor, counted: torch.Tensor = counted, k: int = k) -> None:
                active[layer, :, k] += (gate[0][counted] > 0).sum(dim=0).numpy()

            with torch.no_grad(), on_gates(model, read):
                model(torch.tensor([ids]), use_cache=False, logits_to_keep=1)
            tokens[k] += int(counted.sum())
    return active, tokens


def published_lape(active: np.ndarray, tokens: np.ndarray, *, top: float, rate: float) -> np.ndarray:
    """[language, layer, neuron] by the rule of arXiv:2402.16438: a filter, the entropy, then a bar."""
    p = active / tokens
    share = p / np.maximum(p.sum(axis=-1, keepdims=True), 1e-300)
    entropy = -np.where(share > 0, share * np.log(np.maximum(share, 1e-300)), 0).sum(axis=-1)
    flat = np.sort(p, axis=None)
    bar = flat[round(rate * flat.size) - 1]
    entropy[(p <= bar).all(axis=-1)] = np.inf
    chosen = np.zeros(entropy.size, dtype=bool)
    chosen[np.argsort(entropy, axis=None, kind="stable")[: round(top * entropy.size)]] = True
    chosen = chosen.reshape(entropy.shape) & np.isfinite(entropy)
    return np.moveaxis(chosen[..., None] & (p > bar), -1, 0)


def published_classes(active: np.ndarray, tokens: np.ndarray, *, rate: float) -> np.ndarray:
    """[layer, neuron]: 0, 1 specific, 2 related, 3 general, of all neurons above the bar (arXiv:2505.21505)."""
    p = active / tokens
    flat = np.sort(p, axis=None)
    number = (p > flat[round(rate * flat.size) - 1]).sum(axis=-1)
    return np.where(number == p.shape[-1], 3, np.minimum(number, 2))


def best_cut(profile: np.ndarray, parts: int) -> tuple[int, ...]:
    """First layers of the parts after the first: all cuts tried, least squares about the parts' means."""
    scaled = (profile - profile.mean(0)) / np.where(profile.std(0) > 0, profile.std(0), 1)
    best = (math.inf, ())
    for inner in itertools.combinations(range(1, len(profile)), parts - 1):
        cost = sum(float(((piece - piece.mean(0)) ** 2).sum()) for piece in np.split(scaled, inner))
        best = min(best, (cost, inner))
    return best[1]


def planted_model(folder: str, kinds: Sequence[str], *, each: int = 2, seed: int = 7) -> tuple[Any, Any, dict]:
    """A Llama whose layer i has `each` neurons per language of the i-th kind, and the places of each kind.

    folder: of the tokenizer. kinds: "specific", "related" (all but one language) or "general". The stream is the
    embedding, whose first three axes say the language, and random neurons do not read them.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=len(kinds),
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
    )
    generator = torch.Generator().manual_seed(seed)
    model: Any = LlamaForCausalLM(config).eval()
    places: dict[str, list[tuple[int, int]]] = {kind: [] for kind in ("specific", "related", "general", *LETTERS)}
    with torch.no_grad():
        table = torch.randn(config.vocab_size, 32, generator=generator)
        table[:, :3] = 0
        for axis, letters in enumerate(LETTERS.values()):
            for letter in letters:
                for text in (letter, f" {letter}"):
                    table[tokenizer(text, add_special_tokens=False)["input_ids"], axis] = 5
        model.model.embed_tokens.weight.copy_(table)
        for number, (kind, layer) in enumerate(zip(kinds, model.model.layers, strict=True)):
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
            gate = torch.randn(96, 32, generator=generator)
            gate[:, :3] = 0
            order = torch.randperm(96, generator=generator)[: 3 * each]
            for place, neuron in enumerate(order.tolist()):
                axis = place % 3
                signs = {"specific": [-1.0] * 3, "related": [1.0] * 3, "general": [1.0] * 3}[kind]
                signs[axis] = {"specific": 1.0, "related": -1.0, "general": 1.0}[kind]
                gate[neuron] = 0
                gate[neuron, :3] = torch.tensor(signs)
                places[kind].append((number, neuron))
                if kind == "specific":
                    places[list(LETTERS)[axis]].append((number, neuron))
            layer.mlp.gate_proj.weight.copy_(gate)
    return model, tokenizer, {kind: sorted(rows) for kind, rows in places.items()}


def planted_texts(*, seed: int = 0, lines: int = 30, length: int = 40) -> dict[str, list[str]]:
    """Random letters of each planted language, a space between them, so that each is a token of its own."""
    rng = np.random.default_rng(seed)
    return {
        tag: [" ".join(rng.choice(list(letters), length)) for _ in range(lines)] for tag, letters in LETTERS.items()
    }


def recall_and_precision(found: set, planted: set) -> tuple[float, float]:
    """Of what was planted, the share found; of what was found, the share planted."""
    both = len(found & planted)
    return both / len(planted), both / len(found) if found else 0.0
