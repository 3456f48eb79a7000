"""Does another vocabulary, trained with a language's neurons, teach more than the neurons or LoRA alone?

Basque, Welsh and Tatar, each with several samples of text, at equal bytes of text read: where an entry stands for
several tokens, fewer steps are made. New rows begin as the mean of their sub-words. Gain is the fall of bits per byte
of unseen text of the language, against the untouched model with its own vocabulary; harm is their mean rise over other
languages; tokens per byte is what writing costs. Three learning rates for each way, chosen on valid text of the first
sample. Controls: as many random neurons in each layer trained with the rows; the rows alone; the pack untrained.
Against it: rows with neurons that gain no more than neurons alone in most pairs of language and sample, or no more than
rows with random neurons. Samples are the unit: three give no p-value, only paired differences and their sign.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from babelscope import (
    NeuronSet,
    extend_vocabulary,
    load_corpus,
    observe,
    open_model,
    select_lape,
    train_subnetwork,
    train_vocabulary,
)
from babelscope.adaptation import BeforeAfter, Material, adapt, random_like
from babelscope.corpus import Corpus, Document, as_corpus, encode_texts
from babelscope.evaluation import bits_per_byte
from babelscope.files.writing import write_text
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.runs import Run, environment, run_experiment
from babelscope.subnetworks import RATE, Bank

WAYS = ("neurons", "lora", "rows", "rows and neurons", "rows and random neurons")
TIMES = (0.3, 1.0, 3.0)
"""Learning rates, times the default: RATE times the root mean square of what is trained; for LoRA times LORA."""
LORA = 3e-3


@dataclass(frozen=True)
class Config:
    model: str = "reference"
    """Folder, Hugging Face id, or "reference"."""
    corpus: str = "reference"
    """Text of each language, splits train and valid."""
    languages: tuple[str, ...] = ("eu", "cy", "tt")
    others: tuple[str, ...] = ("en", "fi", "ru", "tr", "zh")
    size: int = 200
    """New entries."""
    train_lines: int = 3000
    """Of each sample."""
    held_lines: int = 60
    """To choose on, and as many others to score on."""
    steps: int = 30
    """With the model's own vocabulary."""
    tokens_per_step: int = 1024
    max_length: int = 64
    observe_tokens: int = 5000
    """Of each language, to find neurons."""
    top_rate: float = 0.02
    samples: int = 3
    out: str = ""
    """File such as extended-reference.jsonl; empty: the run's own results only."""


class Sample(NamedTuple):
    """Text of one language, and what was made from it."""

    tag: Language
    train: tuple[Document, ...]
    dev: tuple[Document, ...]
    test: Corpus
    """Of the language and of others."""


def run(config: Config, run: Run) -> None:
    (run.folder / "results.jsonl").unlink(missing_ok=True)  # an interrupted run starts anew
    began = time.process_time()
    model, tokenizer = open_model(config.model, device="cpu", dtype="float32")
    tags = (*config.languages, *config.others)
    train = load_corpus(config.corpus, tags, split="train")
    held = load_corpus(config.corpus, tags, split="valid").head(2 * config.held_lines)
    observation = observe(
        model, tokenizer, train, sites=["mlp_gate"], tokens_per_language=config.observe_tokens, shards=1
    )
    sets = select_lape(observation, top_rate=config.top_rate)
    for tag in config.languages:
        rates: dict[str, float] = {}
        for number in range(config.samples):
            sample = sample_of(config, train, held, tag, number)
            run.log(measure(config, model, tokenizer, sets[tag], sample, number, rates))
    if config.out:
        facts = {**asdict(config), "model": Path(config.model).name, "corpus": Path(config.corpus).name}
        facts.pop("out")
        spent = round(time.process_time() - began)
        first = {"config": facts, "environment": environment(), "processor_seconds": spent}
        lines = [json.dumps(row, ensure_ascii=False) for row in (first, *run.results())]
        write_text(Path(config.out), "\n".join(lines) + "\n")


def sample_of(config: Config, train: Corpus, held: Corpus, tag: str, number: int) -> Sample:
    """Other lines of the train text with each number; held-out text is the same for all."""
    language = Language(tag)
    documents = train[language]
    start = len(documents) * number // config.samples
    lines = (*documents[start:], *documents[:start])[: config.train_lines]
    test = held.only([language, *map(Language, config.others)])
    halves = {one: found[config.held_lines :] for one, found in test.items()}
    return Sample(language, tuple(lines), tuple(held[language][: config.held_lines]), test.derived(halves, held.name))


def measure(
    config: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    neurons: NeuronSet,
    sample: Sample,
    number: int,
    rates: dict[str, float],
) -> list[dict[str, Any]]:
    """Rows of one sample; rates: by way, chosen at the first sample and taken at the others."""
    tag = sample.tag
    pack = extend_vocabulary(model, tokenizer, as_corpus({tag: sample.train}), size=config.size, init="subword")
    tokens = [count_tokens(one, sample.test[tag]) for one in (tokenizer, pack.tokenizer)]
    n_bytes = sum(len(document.text.encode()) for document in sample.test[tag])
    before = bits_per_byte(model, tokenizer, sample.test)
    with pack.applied(model):
        untrained = bits_per_byte(model, pack.tokenizer, sample.test)
    shared = {"language": tag, "sample": number, "neurons": len(neurons.indices), "entries": pack.n_new}
    rows = [
        {**shared, "way": "rows untrained", **scores(tag, before, untrained), "tokens_per_byte": tokens[1] / n_bytes}
    ]
    random_neurons = random_like(neurons, seed=number)
    steps = {False: config.steps, True: max(1, round(config.steps * tokens[1] / tokens[0]))}
    for way in WAYS:
        extended = way.startswith("rows")
        chosen = {"rows": None, "rows and random neurons": random_neurons}.get(way, neurons)

        def trained(rate: float, way: str = way, extended: bool = extended, chosen: Any = chosen) -> tuple[float, dict]:
            """Lowest bits per byte of the dev text, and those of all test text."""
            if way == "lora":
                return by_lora(config, model, tokenizer, sample, rate)
            words = {
                "steps": steps[extended],
                "learning_rate": rate,
                "tokens_per_step": config.tokens_per_step,
                "max_length": config.max_length,
                "validation": sample.dev,
                "evaluate_every": max(1, steps[extended] // 3),
                "seed": number,
            }
            if extended:
                made = train_vocabulary(model, pack, sample.train, language=tag, neurons=chosen, **words)
                with made.pack.applied(model):
                    facts = made.pack.parameters["training"]["result"]
                    if made.delta is None:
                        return best_of(facts), bits_per_byte(model, pack.tokenizer, sample.test)
                    with made.delta.applied(model):
                        return best_of(facts), bits_per_byte(model, pack.tokenizer, sample.test)
            delta = train_subnetwork(model, tokenizer, neurons, sample.train, **words)
            with delta.applied(model):
                return best_of(delta.parameters["result"]), bits_per_byte(model, tokenizer, sample.test)

        began = time.process_time()
        if way not in rates:
            base = LORA if way == "lora" else default_rate(model, pack, chosen)
            tried = {times * base: trained(times * base) for times in TIMES}
            rates[way] = min(tried, key=lambda rate: tried[rate][0])
            after = tried[rates[way]][1]
        else:
            after = trained(rates[way])[1]
        facts = {
            "way": way,
            "rate": rates[way],
            "steps": steps[extended],
            "tokens_per_byte": tokens[extended] / n_bytes,
        }
        spent = round(time.process_time() - began, 1)
        rows.append({**shared, **facts, **scores(tag, before, after), "processor_seconds": spent})
    return rows


def default_rate(model: PreTrainedModel, pack: Any, neurons: NeuronSet | None) -> float:
    """RATE times the root mean square of the neurons' rows, or of the new rows where there are none."""
    if neurons is not None:
        return RATE * Bank.of(layout_of(model), neurons).rms
    return RATE * float(pack.rows.double().square().mean().sqrt())


def by_lora(config: Config, model: Any, tokenizer: Any, sample: Sample, rate: float) -> tuple[float, dict]:
    material = Material.prepare(
        model,
        tokenizer,
        language=sample.tag,
        documents=sample.train,
        dev=sample.dev,
        test=sample.test,
        max_length=config.max_length,
    )
    every = max(1, config.steps // 3)
    result = adapt(
        material,
        "lora",
        steps=config.steps,
        learning_rate=rate,
        tokens_per_step=config.tokens_per_step,
        evaluate_every=every,
        trail_every=10**9,
    )
    return result.dev, result.after


def best_of(facts: dict[str, Any]) -> float:
    """Lowest bits per byte of the dev text, the untouched model counted."""
    return min(facts["untouched"], *(score for _, score in facts["bits_per_byte"]))


def scores(tag: Language, before: dict, after: dict) -> dict[str, float]:
    change = BeforeAfter(before, after)
    return {"bits_per_byte": after[tag], "before": before[tag], "gain": change.gain(tag), "harm": change.harm(tag)}


def count_tokens(tokenizer: PreTrainedTokenizerBase, documents: tuple[Document, ...]) -> int:
    return sum(len(one.ids) for one in encode_texts(tokenizer, [document.text for document in documents]))


if __name__ == "__main__":
    run_experiment(Config, run)
