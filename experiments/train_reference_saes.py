"""How much of a small model's residual stream do small sparse autoencoders keep, and does it matter to the loss?

Trains BatchTopK and TopK autoencoders and a JumpReLU with sae-lens on `resid_out` of several layers, on equal tokens of
fifteen languages, BOS left out; and coarse ones of few features, few of them active a token, so that few are left for
each language. Measured on held-out text: explained variance, L0, share of dead features, and the loss when the
reconstruction takes the place of the activation (BOS untouched).
Control: the loss when the mean activation takes its place; an autoencoder that is no nearer to the model's own loss
than that counts against it. One seed each: the figures describe the files, they do not compare architectures.
Cards and bundles are of the reference model; for another one leave `bundle` empty.
"""

import json
import lzma
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from sae_lens import BatchTopKTrainingSAEConfig, JumpReLUTrainingSAEConfig, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import TrainingSAE
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file

from babelscope import Site, layout_of, open_model, origin_of
from babelscope.corpus import Document, batch_documents, limit_tokens, tokenize_documents
from babelscope.features import SaeQuality, load_sae, measure_sae
from babelscope.files.tensor_files import write_sums, write_tensors
from babelscope.files.writing import write_bytes, write_text
from babelscope.runs import Run, environment, run_experiment

FILES = ("cfg.json", "sae_weights.safetensors")
LANGUAGES = ("en", "de", "fr", "es", "ru", "uk", "zh", "ja", "ar", "hi", "fi", "id", "eu", "cy", "tt")
OPENED = {"batchtopk-6": "reference", "batchtopk-6-192-4": "reference-coarse"}
"""The names by which bundled ones are opened."""

CARD = """---
license: cc-by-sa-4.0
library_name: sae-lens
tags:
- sparse-autoencoder
language:
{languages}
---

# Sparse autoencoder of the babelscope reference model

Reads and writes `resid_out` of layer {layer} (`{hook}`) of the reference model, for tests, demonstrations and method
development in babelscope. Opened by `babelscope.features.load_sae("{opened}")`, or by sae-lens as any folder of its
own.

| | |
|---|---|
| form | {form} |
| training | {samples:,} tokens ({tokens:,} a language, {epochs} epoch) in steps of {batch}, BOS left out, sae-lens {version}, Adam, peak {lr}, last fifth of the steps down to a tenth; inputs scaled to an average length of √256, folded away; seed {seed} |
| target | {k} active features a token |

Held-out text, {read:,} tokens of fifteen languages (macro averages over them):

| autoencoder | explained variance | L0 | dead share | loss, nats a token | with the reconstruction | with the mean activation | recovered |
|---|---|---|---|---|---|---|---|
{table}

Dead: fires on none of the {read:,} tokens. Recovered: 1 - (reconstruction - loss) / (mean activation - loss).
This file is {name}, in float16; its row was measured on that file. Names are form, layer, and where they are not
{features:,} and {usual}: features and active ones a token. One seed each: the rows describe files, they
do not compare architectures. `training.json` beside this card holds every figure and setting;
`experiments/train_reference_saes.py` made all of it.

## Data and licence

The training text of the reference model (see `../model/README.md`): Mozilla Common Voice sentences (CC0 1.0), Universal
Dependencies treebanks (CC BY-SA 4.0, CC BY 4.0) and JGLUE (CC BY-SA 4.0). No text with a non-commercial licence was
used. The weights are offered under CC BY-SA 4.0, as the model's are.
"""


@dataclass(frozen=True)
class Config:
    corpus: str
    """Folder with <tag>.train.txt.xz and <tag>.valid.txt.xz, one sentence a line, without non-commercial text."""
    cache: str = "../sae/activations"
    """Folder for activations, float16, a folder a layer; made once, 0.5 KB a token and layer."""
    model: str = "reference"
    dtype: str = "float32"
    """Of the model's weights and activations; float32 ones are cached in float16."""
    languages: tuple[str, ...] = LANGUAGES
    saes: tuple[str, ...] = (
        "batchtopk-1",
        "batchtopk-3",
        "batchtopk-5",
        "batchtopk-6",
        "batchtopk-7",
        "topk-5",
        "jumprelu-6",
        "batchtopk-6-128-16",
        "batchtopk-6-128-8",
        "batchtopk-6-128-6",
        "batchtopk-6-128-4",
        "batchtopk-6-128-2",
        "batchtopk-6-192-4",
        "batchtopk-6-256-4",
        "batchtopk-5-128-4",
        "batchtopk-5-192-4",
        "batchtopk-7-128-4",
    )
    """Form and layer of each autoencoder; features and active ones a token besides, where they are not the usual."""
    bundle: tuple[str, ...] = ("batchtopk-6", "batchtopk-6-192-4")
    """Which of them are written to `bundle/` in the run folder, in float16, with a card each."""
    features: int = 2048
    k: int = 32
    """Features active a token: exactly (topk), on average (batchtopk), aimed at (jumprelu)."""
    tokens: int = 80_000
    """Tokens a language."""
    max_length: int = 256
    """Tokens of a line at most."""
    epochs: int = 1
    batch: int = 1024
    """Tokens a step."""
    lr: float = 1e-3
    """Peak learning rate; falls to a tenth over the last fifth of the steps."""
    held_out: int = 150
    """Scored tokens per language of the held-out text."""
    threads: int = 1
    seed: int = 0

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({asked(self, name).layer for name in self.saes}))

    @property
    def samples(self) -> int:
        return self.epochs * self.tokens * len(self.languages) // self.batch * self.batch


class Asked(NamedTuple):
    """What the name of an autoencoder says."""

    form: str
    layer: int
    features: int
    k: int


def asked(config: Config, name: str) -> Asked:
    """`form-layer`, or `form-layer-features-k` for another size than the configuration's."""
    form, layer, *size = name.split("-")
    features, k = size or (config.features, config.k)
    return Asked(form, int(layer), int(features), int(k))


def read_lines(config: Config, language: str, split: str) -> list[str]:
    path = Path(config.corpus) / f"{language}.{split}.txt.xz"
    with lzma.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return file.read().split("\n")[:-1]


def cached(config: Config, layer: int, language: str) -> Path:
    return Path(config.cache) / str(layer) / f"{language}.safetensors"


@torch.no_grad()
def record(config: Config) -> None:
    """Activations of every language at every layer, counted tokens only; what is already there is not made again."""
    missing = {tag: [n for n in config.layers if not cached(config, n, tag).exists()] for tag in config.languages}
    if not any(missing.values()):
        return
    model, tokenizer = open_model(config.model, device="cpu", dtype=config.dtype)
    layout = layout_of(model)
    for tag, layers in missing.items():
        if not layers:
            continue
        lines = [Document(str(i), line) for i, line in enumerate(read_lines(config, tag, "train"))]
        documents = limit_tokens(tokenize_documents(tokenizer, lines, 0, max_length=config.max_length), config.tokens)
        rows: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
        for batch in batch_documents(documents, batch_tokens=4096, pad=0):
            with layout_watches(layout, rows, batch.counted):
                layout.body(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
        for layer, parts in rows.items():
            path = cached(config, layer, tag)
            write_tensors(path, {"resid_out": torch.cat(parts)})


def layout_watches(layout, rows, counted):
    stack = ExitStack()
    for layer, parts in rows.items():

        def see(value, sign, routes, parts=parts):
            kept = value[counted]
            parts.append(kept.half() if kept.dtype == torch.float32 else kept)

        stack.enter_context(layout.watch(Site(layer, "resid_out"), see))
    return stack


def stream(config: Config, layer: int) -> Iterator[torch.Tensor]:
    """Batches of one layer's activations, all languages mixed, each epoch in a new order; without end."""
    parts = [load_file(cached(config, layer, tag))["resid_out"] for tag in config.languages]
    held = torch.cat(parts)
    generator = torch.Generator().manual_seed(config.seed)
    while True:
        order = torch.randperm(len(held), generator=generator)
        for places in order.split(config.batch):
            if len(places) == config.batch:
                yield held[places].float()


def architecture(config: Config, name: str):
    """The training configuration of sae-lens; inputs are scaled to an average length of √d, folded away at the end."""
    form, layer, features, k = asked(config, name)
    width = load_file(cached(config, layer, config.languages[0]))["resid_out"].shape[1]
    shared = {"d_in": width, "d_sae": features, "normalize_activations": "expected_average_only_in"}
    if form == "topk":
        return TopKTrainingSAEConfig(k=k, **shared)
    if form == "batchtopk":
        return BatchTopKTrainingSAEConfig(k=float(k), topk_threshold_lr=0.02, **shared)
    return JumpReLUTrainingSAEConfig(
        jumprelu_sparsity_loss_mode="quadratic",
        target_l0=float(k),
        l0_coefficient=1.0,
        l0_warm_up_steps=max(1, config.samples // config.batch // 2),
        jumprelu_init_threshold=0.1,
        jumprelu_bandwidth=0.1,
        jumprelu_ste_to_input=True,
        pre_act_loss_coefficient=3e-6,
        **shared,
    )


def train(config: Config, name: str, folder: Path) -> None:
    """Train one autoencoder into `folder/name`, in the inference format of sae-lens; skipped where it is there."""
    if (folder / name / "cfg.json").exists():
        return
    steps = config.samples // config.batch
    trainer_config = SAETrainerConfig(
        total_training_samples=config.samples,
        train_batch_size_samples=config.batch,
        lr=config.lr,
        lr_end=config.lr / 10,
        lr_warm_up_steps=min(100, steps // 10),
        lr_decay_steps=steps // 5,
        autocast=True,
        dead_feature_window=200,
        feature_sampling_window=max(1, steps // 4),
        n_batches_for_norm_estimate=20,
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        sae = TrainingSAE.from_dict(architecture(config, name).to_dict())
        sae = SAETrainer(trainer_config, sae, stream(config, asked(config, name).layer)).fit()
    model, tokenizer = open_model(config.model, device="cpu", dtype=config.dtype)
    for key, value in {
        "model_name": Path(config.model).name,
        "model_hash": origin_of(model, tokenizer).model_hash,
        "hook_name": f"blocks.{asked(config, name).layer}.hook_resid_post",
        "prepend_bos": True,
        "exclude_special_tokens": True,
        "training_tokens": config.samples,
    }.items():
        setattr(sae.cfg.metadata, key, value)
    sae.save_inference_model(str(folder / name))
    write_sums(folder / name, FILES)


def measure(config: Config, name: str, path: Path, model, tokenizer) -> dict:
    """One autoencoder on held-out text, as a row."""
    texts = {tag: read_lines(config, tag, "valid") for tag in config.languages}
    sae = load_sae(path, model=model)
    found: SaeQuality = measure_sae(model, tokenizer, sae, texts, max_tokens=config.held_out)
    macro = {
        kind: sum(getattr(found, kind).values()) / len(config.languages) for kind in ("loss", "spliced", "averaged")
    }
    return {
        "sae": name,
        "site": str(sae.site),
        "activation": sae.activation,
        "features": sae.n_features,
        "tokens": found.tokens,
        "explained_variance": found.explained_variance,
        "l0": found.l0,
        "dead_share": found.dead_share,
        "loss_change": found.loss_change,
        "recovered": found.recovered,
        **{f"{kind}_macro": value for kind, value in macro.items()},
        "loss": found.loss,
        "spliced": found.spliced,
        "averaged": found.averaged,
    }


def write_bundle(source: Path, target: Path) -> None:
    """The chosen autoencoder in float16; sae-lens and babelscope read it in float32."""
    target.mkdir(parents=True, exist_ok=True)
    held = load_file(source / "sae_weights.safetensors")
    write_tensors(target / "sae_weights.safetensors", {name: tensor.half() for name, tensor in held.items()})
    write_bytes(target / "cfg.json", (source / "cfg.json").read_bytes())
    write_sums(target, FILES)


def settings_of(config: Config) -> dict:
    """The configuration without the paths of a machine."""
    return {
        **asdict(config),
        "corpus": Path(config.corpus).name,
        "cache": Path(config.cache).name,
        "model": Path(config.model).name,
    }


def write_card(config: Config, name: str, rows: list[dict], target: Path) -> None:
    """training.json and the card made from it."""
    settings, what = json.loads((target / "cfg.json").read_text()), asked(config, name)
    table = [
        f"| {row['sae']} | {row['explained_variance']:.3f} | {row['l0']:.1f} | {row['dead_share']:.3f} "
        f"| {row['loss_macro']:.3f} | {row['spliced_macro']:.3f} | {row['averaged_macro']:.3f} | {row['recovered']:.3f} |"
        for row in rows
    ]
    card = CARD.format(
        languages="\n".join(f"- {tag}" for tag in LANGUAGES),
        layer=what.layer,
        hook=settings["metadata"]["hook_name"],
        form=f"256 → {what.features}, {settings['metadata']['training_architecture']} stored as {settings['architecture']}",
        opened=OPENED.get(name, "…/" + name),
        version=settings["metadata"]["sae_lens_training_version"],
        samples=config.samples,
        read=rows[0]["tokens"],
        table="\n".join(table),
        name=name,
        features=config.features,
        usual=config.k,
        k=what.k,
        **{key: getattr(config, key) for key in ("tokens", "epochs", "batch", "lr", "seed")},
    )
    write_text(target / "training.json", json.dumps({"config": settings_of(config), "saes": rows}, indent=1) + "\n")
    write_text(target / "README.md", card)


def run(config: Config, run: Run) -> None:
    torch.set_num_threads(config.threads)
    record(config)
    for name in config.saes:
        train(config, name, run.folder)
    bundles = {name: run.folder / "bundle" / name for name in config.bundle}
    for name, path in bundles.items():
        write_bundle(run.folder / name, path)
    model, tokenizer = open_model(config.model, device="cpu", dtype=config.dtype)
    known = {row["sae"]: row for row in run.results()}
    for name in config.saes:
        if name not in known:
            known[name] = measure(config, name, bundles.get(name, run.folder / name), model, tokenizer)
            run.log([known[name]])
    rows = [known[name] for name in config.saes]
    for name, path in bundles.items():
        write_card(config, name, rows, path)
    facts = {"config": settings_of(config), "environment": environment()}
    lines = [json.dumps(row, ensure_ascii=False) for row in [facts, *rows]]
    write_text(run.folder / "saes.jsonl", "\n".join(lines) + "\n")


if __name__ == "__main__":
    run_experiment(Config, run)
