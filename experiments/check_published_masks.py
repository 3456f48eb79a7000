"""Do published masks read as their authors meant, and do our rules give them again from the published counts?

For each published mask that lies in the folder: languages, sizes, and whether the union over languages is
round(top_rate · layers · neurons), as it must be where the filter and the bar are the same quantile. For the published
counts of one model (tokens of prompts and answers less those of prompts alone): the entropy-λ rule at the published λ
against the published mask, neuron by neuron, and LAPE against a count-by-count rewriting in numpy.

Against us: a union that is another number, or one neuron that differs. Files are the user's, fetched from
RUCAIBox/Language-Specific-Neurons, d-gurgurov/Language-Subnetwork-Enhancement-LLMs and
NJUNLP/Language-Neurons-Alignment (folders activation_masks and activations, laid flat); what is missing is left out.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from babelscope import NeuronSet, select_entropy_lambda, select_lape
from babelscope.adapters.masks import import_mask
from babelscope.errors import PrerequisiteError
from babelscope.files.writing import write_text
from babelscope.runs import Run, environment, run_experiment


class Published(NamedTuple):
    """A mask's shape and order of languages, as its repository states them."""

    file: str
    layers: int
    neurons: int
    languages: str
    top_rate: float


SIX = "en zh fr es vi id"
TWELVE = "mt af is cy mk lv lt sl sk et ka ne"
MASKS = (
    Published("LLaMA-2-7B.neuron.pth", 32, 11008, f"{SIX} ja", 0.01),
    Published("LLaMA-2-13B.neuron.pth", 40, 13824, f"{SIX} ja", 0.01),
    Published("LLaMA-2-70B.neuron.pth", 80, 28672, SIX, 0.01),
    Published("BLOOM-7B.neuron.pth", 30, 16384, SIX, 0.01),
    Published("Mistral-7B.neuron.pth", 32, 14336, SIX, 0.01),
    Published("OPT-6.7B.neuron.pth", 32, 16384, SIX, 0.01),
    Published("Phi-2-2.7B.neuron.pth", 32, 10240, SIX, 0.01),
    Published("llama-3.1-5", 32, 14336, TWELVE, 0.05),
    Published("nemo-5", 40, 14336, TWELVE, 0.05),
)
COUNTED = "Mistral-de76d14562b1da1ba0e52d5b245cf9c0859e2af3"
TEN = ("en", "ru", "es", "fr", "de", "zh", "ja", "bn", "th", "sw")
PENALTY = 0.109375
"""λ of the published mask."""


@dataclass(frozen=True)
class Config:
    folder: str
    """Where the published files lie."""
    out: str = ""
    """Folder for published_masks.jsonl; empty: the run's own results only."""


def check_masks(folder: Path) -> Iterator[dict]:
    """A row a mask."""
    for one in MASKS:
        if (folder / one.file).exists():
            sets = import_mask(folder / one.file, languages=one.languages.split(), n_neurons=one.neurons)
            expected = round(one.top_rate * one.layers * one.neurons)
            yield {
                "what": "mask",
                "name": one.file,
                "layers": sets.n_layers,
                "sizes": sets.sizes,
                "union": sets.parameters["union"],
                "expected": expected,
                "equal": (sets.parameters["union"], sets.n_layers) == (expected, one.layers),
            }


def read_counts(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts [layer, neuron, language] and tokens [language] of the answers; negative differences become 0."""
    active, tokens = [], []
    for tag in TEN:
        whole, prompt = (
            torch.load(folder / f"{kind}activation.{tag}.{COUNTED}.pt", weights_only=True) for kind in ("", "prefix.")
        )
        active.append((whole["over_zero"].long() - prompt["over_zero"].long()).clamp(min=0))
        tokens.append(whole["total_tokens"] - prompt["total_tokens"])
    counts = torch.stack(active, dim=-1)
    return torch.minimum(counts, torch.tensor(tokens)), torch.tensor(tokens)


def lape_by_numpy(active: np.ndarray, tokens: np.ndarray, rate: float, quantile: float) -> np.ndarray:
    """The published rule, [language, layer, neuron]."""
    p = active / tokens
    with np.errstate(divide="ignore", invalid="ignore"):
        q = p / p.sum(-1, keepdims=True)
        entropy = -np.where(q > 0, q * np.log(q), 0.0).sum(-1)
    bar = np.sort(p.ravel())[round(quantile * p.size) - 1]
    entropy[p.max(-1) <= bar] = np.inf
    chosen = np.argsort(entropy.ravel(), kind="stable")[: round(rate * entropy.size)]
    mask = np.zeros(entropy.size, dtype=bool)
    mask[chosen] = True
    return np.moveaxis(mask.reshape(entropy.shape)[..., None] & (p > bar), -1, 0)


def mask_of(sets: NeuronSet) -> np.ndarray:
    return sets.mask().numpy()


def check_counts(folder: Path) -> Iterator[dict]:
    """A row a rule."""
    if not (folder / f"mask.{COUNTED}").exists():
        return
    active, tokens = read_counts(folder)
    shape = {"tokens": tokens, "languages": TEN, "min_count": 0}
    published = import_mask(folder / f"mask.{COUNTED}", languages=TEN, n_neurons=active.shape[1])
    ours = select_entropy_lambda(active, top_rate=0.01, penalty=PENALTY, **shape).sets
    yield compare("entropy-λ against the published mask", mask_of(ours), mask_of(published), ours)
    lape = select_lape(active, top_rate=0.01, filter_rate=0.95, bar_rate=0.95, **shape)
    witness = lape_by_numpy(active.numpy(), tokens.numpy(), 0.01, 0.95)
    yield compare("LAPE against numpy on the published counts", mask_of(lape), witness, lape)


def compare(name: str, ours: np.ndarray, theirs: np.ndarray, sets: NeuronSet) -> dict:
    union = int(ours.any(0).sum())
    differing = int((ours != theirs).sum())
    return {
        "what": "counts",
        "name": name,
        "layers": sets.n_layers,
        "sizes": sets.sizes,
        "union": union,
        "expected": int(theirs.any(0).sum()),
        "differing": differing,
        "equal": differing == 0,
    }


def run(config: Config, run: Run) -> None:
    folder = Path(config.folder)
    rows = [*check_masks(folder), *check_counts(folder)]
    if not rows:
        raise PrerequisiteError(f"{folder}: no published file in it; expected {MASKS[0].file} or another; fetch them")
    run.log(rows)
    if config.out:
        lines = [json.dumps(row, ensure_ascii=False) for row in [{"environment": environment()}, *rows]]
        write_text(Path(config.out) / "published_masks.jsonl", "\n".join(lines) + "\n")


if __name__ == "__main__":
    run_experiment(Config, run)
