"""Does plain transformers, without a hook of babelscope, give the numbers of the demo, or of a study?

Reads a demo folder and recomputes, by hand: one ablation cell (columns of the down projection set to zero in the
weights, the loss taken from the model's own logits one document at a time) and one steering cell (a forward hook that
adds the vector, sampling with the same seed, one direction for the whole batch). The control is the
demo's own number; a difference above 1e-4 nats a token, or 0.1 of success, counts against it. One cell of each, one
seed. The two paths share the reading of artifacts and text, and the judge of answers; no pass, no hook and no loss. For
models of Llama's shape (`model.layers`, `mlp.down_proj`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from babelscope import Language, NeuronSet, Observation, load_corpus
from babelscope.evaluation import judge_answers
from babelscope.reference import MODEL
from babelscope.report.results import Results, read_results
from babelscope.runs import Run, run_experiment


@dataclass(frozen=True)
class Config:
    demo: str = "demo"
    """Folder that `babelscope demo --out` or `babelscope study --out` wrote."""
    model: str = str(MODEL)
    """Folder of its model; the dtype is that of the study."""
    corpus: str = "reference"
    """Its corpus."""
    cells: tuple[str, ...] = ("ablation", "steering")
    set_language: str = "ru"
    """Row: whose neurons are off."""
    text_language: str = "ru"
    """Column: the text."""
    target: str = "ru"
    """Target of the steering cell."""
    source: str = "en"
    """Language of its prompts."""
    prompts: int = 60
    seed: int = 0


def opened(config: Config, results: Results) -> Any:
    assert results.model is not None
    dtype = getattr(torch, results.model["dtype"].removeprefix("torch."))
    return AutoModelForCausalLM.from_pretrained(config.model, dtype=dtype).eval()


def nats(model, tokenizer, lines: list[str]) -> float:
    total = 0.0
    for line in lines:
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(line, add_special_tokens=False)["input_ids"]]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1]
        total += float(F.cross_entropy(logits.double(), ids[0, 1:], reduction="sum"))
    return total


def ablation_cell(config: Config, results: Results) -> dict:
    model, ablation = opened(config, results), results.ablation
    assert ablation.documents is not None and ablation.tokens is not None
    tokenizer = AutoTokenizer.from_pretrained(config.model)
    count, tokens = int(ablation.documents[config.text_language]), ablation.tokens[config.text_language]
    test = load_corpus(config.corpus, [config.text_language], split="test")[config.text_language]
    lines = [document.text for document in test][:count]
    clean = nats(model, tokenizer, lines)
    with torch.no_grad():
        for layer, neuron in NeuronSet.load(Path(config.demo) / "neurons").as_dict()[Language(config.set_language)]:
            model.model.layers[layer].mlp.down_proj.weight[:, neuron] = 0
    harmed = nats(model, tokenizer, lines)
    row, column = (results.languages.index(tag) for tag in (config.set_language, config.text_language))
    claimed = ablation.relative_harm[row][column] * clean
    return {
        "cell": "ablation",
        "by_hand": (harmed - clean) / tokens,
        "demo": claimed / tokens,
        "difference_nats_per_token": abs(harmed - clean - claimed) / tokens,
    }


def steering_cell(config: Config, results: Results) -> dict:
    model, steering = opened(config, results), results.steered
    tokenizer = AutoTokenizer.from_pretrained(config.model, padding_side="left")
    layer, strength = steering.layer, steering.strength
    assert isinstance(layer, int) and isinstance(strength, float | int)
    observation = Observation.load(Path(config.demo) / "observation")
    record, place = observation["resid_out"], observation["resid_out"].layers.index(layer)
    means = record.sum[place] / observation.token_counts
    target, source = (observation.languages.index(tag) for tag in (config.target, config.source))
    vector = ((means[:, target] - means[:, source]) * strength).float()
    fresh = [0]

    def hook(_, __, output):
        """Full on the prompt, fading to 0.3 over eight new tokens."""
        share = 1.0 if output.shape[1] > 1 else 1.0 - 0.7 * min(1.0, fresh[0] / 8)
        fresh[0] += 1
        return output + share * vector

    lines = [d.text for d in load_corpus(config.corpus, [config.source], split="test")[config.source]][: config.prompts]
    heads = [line[: round(len(line) / 2)].rsplit(" ", 1)[0] for line in lines]
    batch = tokenizer(heads, return_tensors="pt", padding=True)
    handle = model.model.layers[layer].register_forward_hook(hook)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        out = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=steering.new_tokens,
            min_new_tokens=steering.new_tokens,
            do_sample=True,
            temperature=steering.temperature,
            top_k=0,
        )
    handle.remove()
    answers = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    verdicts = judge_answers(answers, [config.target] * len(answers))
    by_hand = sum(verdict.verdict == "right" for verdict in verdicts) / len(verdicts)
    claimed = steering.success[config.target]
    return {
        "cell": "steering",
        "by_hand": by_hand,
        "demo": claimed,
        "difference": abs(by_hand - claimed),
        "n": len(answers),
    }


def run(config: Config, run: Run) -> None:
    results = read_results(Path(config.demo))
    cells = {"ablation": ablation_cell, "steering": steering_cell}
    run.log([cells[name](config, results) for name in config.cells])


if __name__ == "__main__":
    run_experiment(Config, run)
