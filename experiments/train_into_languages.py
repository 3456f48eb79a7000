"""How does a model of one language become one of several, checkpoint by checkpoint?

Trains a model of the bundled one's shape and tokenizer, first on one language alone and then on that and others in
equal shares, and keeps whole checkpoints on the way, for `probe --probe checkpoints` and row 25 of docs/rows.md.
Control: the last checkpoint of the one language alone, which comes first; what later ones show beside it came with
the other languages' text. One seed and one order of languages: what holds here holds for this run.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pretrain_reference_model import (
    BOS,
    EOS,
    PAD,
    Stream,
    bits_per_byte,
    build_optimizers,
    draw_batch,
    load_checkpoint,
    read_lines,
    save_checkpoint,
    token_odds,
    train_step,
)
from pretrain_reference_model import Config as Recipe
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from babelscope.reference import MODEL
from babelscope.runs import Run, run_experiment


@dataclass(frozen=True)
class Config:
    """What is trained, and what is kept."""

    corpus: str
    """Folder with <tag>.train.txt.xz and <tag>.valid.txt.xz, one sentence a line."""
    languages: tuple[str, ...] = ("en", "de", "fi", "ru")
    """The first is trained alone, then all in equal shares of tokens."""
    first_steps: int = 600
    """Steps of the first language alone."""
    keep: tuple[int, ...] = (600, 625, 650, 700, 800, 1000, 1300, 1600)
    """Steps after which a checkpoint is kept; the last ends the run."""
    rows: int = 8
    """Rows of 256 tokens a step."""
    lr: float = 3e-3
    threads: int = 2
    seed: int = 0


def new_model(vocabulary: int) -> LlamaForCausalLM:
    """The bundled model's shape with drawn weights."""
    shape = json.loads((MODEL / "config.json").read_text())
    keys = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
    )
    return LlamaForCausalLM(
        LlamaConfig(
            **{key: shape[key] for key in keys},
            vocab_size=vocabulary,
            tie_word_embeddings=True,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )
    )


def run(config: Config, run: Run) -> None:
    """Train, and keep the named checkpoints as folders that transformers opens."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    steps = config.keep[-1]
    recipe = Recipe(config.corpus, rows=config.rows, steps=steps, lr=config.lr, cooldown=0.1, seed=config.seed)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    documents = [
        [np.array([*ids, EOS], dtype=np.int32) for ids in tokenizer(read_lines(recipe, tag, "train"))["input_ids"]]
        for tag in config.languages
    ]
    odds = token_odds(recipe, list(config.languages), documents)
    alone = np.eye(len(documents))[0]
    streams = [Stream(texts, config.seed, number) for number, texts in enumerate(documents)]
    model = new_model(len(tokenizer))
    optimizers = build_optimizers(recipe, model)
    for step in range(load_checkpoint(run.folder, model, optimizers, streams), steps):
        batch = draw_batch(recipe, streams, alone if step < config.first_steps else odds, step)
        loss = train_step(recipe, model, optimizers, batch, step)
        done = step + 1
        if done in config.keep:
            keep_checkpoint(run.folder / f"step-{done:04d}", model, tokenizer)
            scores = {
                tag: bits_per_byte(model, tokenizer, read_lines(recipe, tag, "valid")[:60]) for tag in config.languages
            }
            tokens = done * recipe.rows * recipe.window
            run.log(
                {"step": done, "tokens": tokens, "language": tag, "bits_per_byte": value}
                for tag, value in scores.items()
            )
        if done in config.keep or done % 50 == 0:
            save_checkpoint(run.folder, done, model, optimizers, streams)
            print(json.dumps({"step": done, "loss": round(loss, 3)}), flush=True)


def keep_checkpoint(folder: Path, model: LlamaForCausalLM, tokenizer) -> None:
    """A folder of its own."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    run_experiment(Config, run)
