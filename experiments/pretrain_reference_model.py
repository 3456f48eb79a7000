"""How good a fifteen-language model do ten million parameters and two CPU cores give?

Trains the model that babelscope bundles: a small Llama with byte-level BPE, on one sentence a document.
Twelve main languages share the tokens equally; three under-served ones get `underserved_share` of a main one's.
Control: the earlier checkpoint named by `baseline`, scored on the same held-out lines by the same rule; the
lower macro average of bits per byte over the main languages is the one to ship. A run that ends above it
counts against the recipe. One seed only: a second would cost another two hours of both cores.
"""

import json
import lzma
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from babelscope.files.tensor_files import write_tensors
from babelscope.files.writing import append_lines, write_text
from babelscope.runs import Run, run_experiment

MAIN = ("en", "de", "fr", "es", "ru", "uk", "zh", "ja", "ar", "hi", "fi", "id")
UNDERSERVED = ("eu", "cy", "tt")
PAD, BOS, EOS = 0, 1, 2
WORDS = r" ?[\p{L}\p{M}]+| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s+"
"""Marks belong to their letters: without \\p{M} every Hindi vowel sign would end a token."""


CARD = """---
license: cc-by-sa-4.0
library_name: transformers
pipeline_tag: text-generation
language:
{languages}
---

# babelscope reference model

A small Llama-architecture language model of fifteen languages, for tests, demonstrations and method development in
babelscope. It writes short sentences that look like its languages; it knows nothing, and must not be used to inform,
translate, or talk to anyone. It was not filtered for harmful text and not aligned.

| | |
|---|---|
| shape | {layers} layers, hidden {hidden}, FFN {neurons} (SwiGLU), {heads} heads, {kv_heads} key–value heads, tied embeddings, RoPE, {vocabulary} entries, float16 |
| tokenizer | byte-level BPE with marks kept with their letters, NFC; `<s>` before a document, `</s>` after it |
| training | {tokens} tokens in {steps} steps of {rows} rows of {window}; Muon on the matrices and AdamW on the rest, peak {lr}, decay {decay}, {warmup} steps up, last {cooldown} of the steps down to zero; seed {seed}; bf16 arithmetic over float32 weights, two CPU cores |
| documents | one sentence each; in three rows of four no document sees another, in the fourth those of one language do |
| shares | the twelve main languages equally, the three under-served ones 0.15 of that each, in tokens |

Held-out bits per byte (all validation lines, each alone after BOS; lower is better). Macro average over the twelve main
languages: **{macro}**; the earlier checkpoint that it replaced: {baseline} by the same rule.

| language | | documents | tokens seen | bits per byte | earlier checkpoint |
|---|---|---|---|---|---|
{table}

`training.json` beside this card holds every figure and setting; `experiments/pretrain_reference_model.py` made both.

## Data and licences

Sentences of Mozilla Common Voice (sentence collection of 2021-07-19, CC0 1.0) for all fifteen languages; Universal
Dependencies treebanks: CC BY-SA 4.0 for Chinese-GSDSimp, English-EWT, Finnish-TDT, French-GSD, German-GSD,
Indonesian-CSUI, Indonesian-GSD, Japanese-GSD, Russian-GSD, Russian-Taiga, Spanish-GSD, Ukrainian-ParlaMint and
Welsh-CCG, CC BY 4.0 for Finnish-FTB and Spanish-AnCora; JGLUE (CC BY-SA 4.0) for Japanese. No text with a
non-commercial licence was used. Because share-alike text is in it, the weights and tokenizer are offered under
CC BY-SA 4.0 (see LICENSE here); babelscope's code, and the sentences in `../corpus`, are under Apache-2.0.
"""


@dataclass(frozen=True)
class Config:
    corpus: str
    """Folder with <tag>.train.txt.xz and <tag>.valid.txt.xz, one sentence a line."""
    baseline: str = ""
    """Checkpoint folder to compare with at the end; empty for none."""
    vocabulary: int = 10240
    """Entries of the tokenizer."""
    tokenizer_bytes: int = 700_000
    """UTF-8 bytes of a main language that the tokenizer is trained on."""
    underserved_share: float = 0.15
    """Tokens of an under-served language for one token of a main one; the same share of tokenizer text."""
    hidden: int = 256
    neurons: int = 704
    layers: int = 8
    heads: int = 4
    kv_heads: int = 2
    window: int = 256
    """Tokens a row."""
    rows: int = 16
    """Rows a step."""
    shared_rows: float = 0.25
    """Share of rows that hold documents of one language attending to each other; in the others each document is alone."""
    steps: int = 5000
    """Optimizer steps in all."""
    warmup: int = 100
    cooldown: float = 0.25
    """Last share of the steps, over which the learning rate falls to zero along a line."""
    lr: float = 3e-3
    """Peak learning rate, of Muon on the body's matrices (update scaled to AdamW's size) and of AdamW on the rest."""
    decay: float = 0.1
    """Weight decay of the body's matrices."""
    save_every: int = 250
    threads: int = 2
    seed: int = 0


def read_lines(config: Config, language: str, split: str) -> list[str]:
    path = Path(config.corpus) / f"{language}.{split}.txt.xz"
    with lzma.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return file.read().split("\n")[:-1]


def train_tokenizer(config: Config, texts: dict[str, list[str]]) -> Tokenizer:
    """Byte-level BPE on equal bytes of every main language."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()

    def sample() -> Iterator[str]:
        for language, lines in texts.items():
            room = config.tokenizer_bytes * (1 if language in MAIN else config.underserved_share)
            for line in lines:
                room -= len(line.encode())
                if room < 0:
                    break
                yield line

    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return tokenizer


class Stream:
    """Documents of one language, each epoch in a new order; the place in it is one integer."""

    def __init__(self, documents: list[np.ndarray], seed: int, number: int, place: int = 0):
        self.documents, self.seed, self.number, self.place = documents, seed, number, place
        self.epoch, self.order = -1, np.empty(0, dtype=np.int64)

    def next(self) -> np.ndarray:
        epoch, index = divmod(self.place, len(self.documents))
        if epoch != self.epoch:
            self.order = np.random.default_rng((self.seed, self.number, epoch)).permutation(len(self.documents))
            self.epoch = epoch
        self.place += 1
        return self.documents[self.order[index]]


def draw_batch(
    config: Config, streams: list[Stream], odds: np.ndarray, step: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One step's ids, positions and attention mask; a pure function of the step and the streams' places."""
    rng = np.random.default_rng((config.seed, 1_000_003, step))
    ids = np.zeros((config.rows, config.window + 1), dtype=np.int64)
    document = np.zeros((config.rows, config.window + 1), dtype=np.int64)
    position = np.zeros((config.rows, config.window + 1), dtype=np.int64)
    for row in range(config.rows):
        shared = rng.random() < config.shared_rows
        language = rng.choice(len(streams), p=odds)
        filled = number = 0
        while filled < ids.shape[1]:
            if not shared:
                language = rng.choice(len(streams), p=odds)
            text = streams[language].next()[: ids.shape[1] - filled]
            end = filled + len(text)
            ids[row, filled:end] = text
            document[row, filled:end] = number
            position[row, filled:end] = np.arange(filled, end) if shared else np.arange(len(text))
            number += not shared
            filled = end
    causal = np.tril(np.ones((config.window, config.window), dtype=bool))
    alone = document[:, :-1, None] == document[:, None, :-1]
    mask = torch.from_numpy(causal & alone)[:, None]
    return torch.from_numpy(ids), torch.from_numpy(position[:, :-1]), mask


def token_odds(config: Config, languages: list[str], documents: list[list[np.ndarray]]) -> np.ndarray:
    """Chance of a document's language, so that shares hold in tokens."""
    share = np.array([1.0 if tag in MAIN else config.underserved_share for tag in languages])
    mean = np.array([np.mean([len(text) for text in texts]) for texts in documents])
    odds = share / mean
    return odds / odds.sum()


def loss_of(model: LlamaForCausalLM, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in chunks of 512 rows: the whole logits would cost more in page faults than in arithmetic."""

    def chunk(rows: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model.lm_head(rows).float(), targets, reduction="sum")

    pairs = zip(hidden.split(512), labels.split(512), strict=True)
    total: Any = sum(checkpoint(chunk, rows, targets, use_reentrant=False) for rows, targets in pairs)
    return total / labels.numel()


def train_step(
    config: Config,
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    step: int,
) -> float:
    """Change the model by one batch of `draw_batch`; the loss before, in nats per token."""
    ids, positions, mask = batch
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(ids[:, :-1], position_ids=positions, attention_mask=mask).last_hidden_state
        loss = loss_of(model, hidden.flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = config.lr * rate_at(config, step)
        optimizer.step()
        optimizer.zero_grad()
    if not math.isfinite(loss.item()):
        raise FloatingPointError(f"loss is {loss.item()} at step {step}; lower lr")
    return loss.item()


def rate_at(config: Config, step: int) -> float:
    """Share of the peak learning rate: up along a line, flat, down along a line."""
    fall = max(1, round(config.steps * config.cooldown))
    return min(1.0, (step + 1) / config.warmup, max(0.0, (config.steps - step) / fall))


@torch.no_grad()
def bits_per_byte(model, tokenizer, lines: list[str], room: int = 4096) -> float:
    """Held-out bits per UTF-8 byte, each line a document of its own after BOS; the end of a line is not scored."""
    encoded = sorted((tokenizer(line)["input_ids"] for line in lines), key=len)
    nats = 0.0
    while encoded:
        batch = encoded[-max(1, room // len(encoded[-1])) :]
        del encoded[-len(batch) :]
        ids = torch.full((len(batch), max(map(len, batch))), PAD)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(tokens)
        real = torch.arange(ids.shape[1])[None] < torch.tensor([len(tokens) for tokens in batch])[:, None]
        logits = model(input_ids=ids, attention_mask=real.long()).logits[:, :-1].float()
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        nats += float((loss.double() * real[:, 1:].flatten()).sum())
    return nats / math.log(2) / sum(len(line.encode()) for line in lines)


def save_checkpoint(folder: Path, step: int, model, optimizers, streams: list[Stream]) -> None:
    """Weights, moments and the streams' places; the JSON goes last, so a torn file is never read."""
    tensors = {f"model.{name}": value.detach().clone() for name, value in model.named_parameters()}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer.{number}.{index}.{key}"] = torch.as_tensor(value).clone()
    write_tensors(folder / f"step{step}.safetensors", tensors)
    write_text(folder / "state.json", json.dumps({"step": step, "places": [stream.place for stream in streams]}))
    for old in folder.glob("step*.safetensors"):
        if old.name != f"step{step}.safetensors":
            old.unlink()


def load_checkpoint(folder: Path, model, optimizers, streams: list[Stream]) -> int:
    if not (folder / "state.json").exists():
        return 0
    state = json.loads((folder / "state.json").read_text())
    parameters = dict(model.named_parameters())
    moments: list[dict[int, dict[str, torch.Tensor]]] = [{} for _ in optimizers]
    with safe_open(folder / f"step{state['step']}.safetensors", "pt") as file:
        for key in file.keys():  # noqa: SIM118 - safe_open is no mapping
            kind, _, rest = key.partition(".")
            if kind == "model":
                parameters[rest].data.copy_(file.get_tensor(key))
            else:
                number, index, name = rest.split(".")
                moments[int(number)].setdefault(int(index), {})[name] = file.get_tensor(key)
    for optimizer, held in zip(optimizers, moments, strict=True):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": held})
    for stream, place in zip(streams, state["places"], strict=True):
        stream.place = place
    return state["step"]


def build_optimizers(config: Config, model) -> list[torch.optim.Optimizer]:
    body = [p for n, p in model.model.layers.named_parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if all(p is not other for other in body)]
    return [
        torch.optim.Muon(body, lr=config.lr, weight_decay=config.decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def run(config: Config, run: Run) -> None:
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    folder = run.folder
    languages = [*MAIN, *UNDERSERVED]
    texts = {tag: read_lines(config, tag, "train") for tag in languages}
    if not (folder / "tokenizer.json").exists():
        train_tokenizer(config, texts).save(str(folder / "tokenizer.json"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    documents = [
        [np.array([*ids, EOS], dtype=np.int32) for ids in tokenizer(texts[tag])["input_ids"]] for tag in languages
    ]
    odds = token_odds(config, languages, documents)
    streams = [Stream(texts, config.seed, number) for number, texts in enumerate(documents)]
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden,
            intermediate_size=config.neurons,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )
    )
    optimizers = build_optimizers(config, model)
    start = load_checkpoint(folder, model, optimizers, streams)
    began = time.monotonic()
    for step in range(start, config.steps):
        loss = train_step(config, model, optimizers, draw_batch(config, streams, odds, step), step)
        done = step + 1
        row = {"step": done, "loss": round(loss, 4), "tokens": done * config.rows * config.window}
        if done % 20 == 0:
            row["tokens_per_second"] = round((done - start) * config.rows * config.window / (time.monotonic() - began))
        if done % config.save_every == 0 or done == config.steps:
            save_checkpoint(folder, done, model, optimizers, streams)
            held = {tag: bits_per_byte(model, tokenizer, read_lines(config, tag, "valid")[:60]) for tag in languages}
            row["macro"] = sum(held[tag] for tag in MAIN) / len(MAIN)
            row["bits_per_byte"] = {tag: round(value, 4) for tag, value in held.items()}
        if done % 20 == 0 or done == config.steps:
            append_lines(folder / "log.jsonl", [json.dumps(row)])
    final = folder / "model"
    model.half().save_pretrained(final)
    tokenizer.save_pretrained(final)
    result = compare(config, final, languages)
    result["tokens"] = {
        tag: round(stream.place * float(np.mean([len(text) for text in stream.documents])))
        for tag, stream in zip(languages, streams, strict=True)
    }
    result["documents"] = {tag: len(stream.documents) for tag, stream in zip(languages, streams, strict=True)}
    result["config"] = asdict(config)
    run.log(
        {"model": name, "language": tag, "bits_per_byte": value}
        for name in ("trained", "baseline")
        for tag, value in result.get(name, {}).items()
    )
    write_text(final / "training.json", json.dumps(result, indent=1) + "\n")
    write_text(final / "README.md", model_card(result))


def compare(config: Config, trained: Path, languages: list[str]) -> dict[str, Any]:
    """Held-out bits per byte of the stored checkpoint, and of the baseline, on all validation lines."""
    result: dict[str, Any] = {}
    for name, path in {"trained": str(trained), "baseline": config.baseline}.items():
        if path:
            model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
            tokenizer = AutoTokenizer.from_pretrained(path)
            result[name] = {
                tag: round(bits_per_byte(model, tokenizer, read_lines(config, tag, "valid")), 4) for tag in languages
            }
            result[f"{name}_macro"] = round(sum(result[name][tag] for tag in MAIN) / len(MAIN), 4)
    return result


def model_card(result: dict[str, Any]) -> str:
    """The card, every figure from `training.json`."""
    config = result["config"]
    rows = [
        f"| {tag} | {'main' if tag in MAIN else 'under-served'} | {result['documents'][tag]:,} | {result['tokens'][tag]:,} "
        f"| {result['trained'][tag]:.3f} | {result.get('baseline', {}).get(tag, float('nan')):.3f} |"
        for tag in (*MAIN, *UNDERSERVED)
    ]
    return CARD.format(
        table="\n".join(rows),
        languages="\n".join(f"- {tag}" for tag in (*MAIN, *UNDERSERVED)),
        tokens=f"{config['steps'] * config['rows'] * config['window']:,}",
        macro=f"{result['trained_macro']:.3f}",
        baseline=f"{result.get('baseline_macro', float('nan')):.3f}",
        **{name: config[name] for name in ("layers", "hidden", "neurons", "heads", "kv_heads", "vocabulary", "window")},
        **{name: config[name] for name in ("steps", "rows", "lr", "decay", "warmup", "cooldown", "seed")},
    )


if __name__ == "__main__":
    run_experiment(Config, run)
