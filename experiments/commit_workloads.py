"""What `compare_commits.py` times in each tree, by public names that both have; prints seconds and values as JSON."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import babelscope as bs

LANGUAGES = ("en", "fi", "ru")
NEW_TOKENS = 48
STEPS = 6


def main(tree: Path, repeats: int) -> None:
    """Every workload once uncounted, then `repeats` times."""
    if tree not in Path(bs.__file__).parents:
        raise RuntimeError(f"babelscope came from {bs.__file__}; expected a file of {tree}")
    torch.set_num_threads(1)
    model, tokenizer = bs.open_model("reference", device="cpu")
    texts = bs.load_corpus("reference", LANGUAGES, split="train")
    observation = bs.observe(
        model, tokenizer, texts, sites=["mlp_gate", "resid_out"], tokens_per_language=4000, shards=32
    )
    neurons = bs.select_lape(observation).only(["fi"])
    direction = bs.mean_direction(observation, target="fi", source="en", layer=3)
    prompts = [document.text[:40] for document in texts["en"][:8]]
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    finnish = [document.text for document in texts["fi"][:200]]

    def record() -> list[float]:
        seen = bs.observe(model, tokenizer, texts, sites=["mlp_gate", "resid_out"], tokens_per_language=6000, shards=32)
        return seen["mlp_gate"].active.double().flatten().tolist()

    def write() -> list[float]:
        with bs.steer(model, direction.add(strength=1.0)):
            answer = model.generate(  # pyright: ignore[reportCallIssue]
                **batch, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
            )
        return answer.double().flatten().tolist()

    def train() -> list[float]:
        delta = bs.train_subnetwork(
            model, tokenizer, neurons, finnish, steps=STEPS, tokens_per_step=2048, learning_rate=1e-3
        )
        return delta.down.double().norm(dim=1).tolist()

    workloads: dict[str, Callable[[], list[float]]] = {
        "observe": record,
        "generate under steering": write,
        "train": train,
    }
    values = {name: work() for name, work in workloads.items()}
    seconds = {name: min(timed(work) for _ in range(repeats)) for name, work in workloads.items()}
    print(json.dumps({"seconds": seconds, "values": values}))


def timed(work: Callable[[], object]) -> float:
    """Processor time of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
