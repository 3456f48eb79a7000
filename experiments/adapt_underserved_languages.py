"""Does training a language's own neurons teach an under-served language more, for less harm, than other ways do?

Basque, Welsh and Tatar on the bundled model, which saw few of them, or on any model that --model names. Every method
gets the same text, tokens and number of learning rates, chosen on dev text of one language, and more of them where the
best stands at an end; several seeds; the gain is measured on held-out text of the target, the harm on that of the
others. The control of the language's neurons (lowest activation entropy) is as many random neurons in each layer;
top-rate neurons, LoRA, SHiRA, LT-SFT, source-shielded updates, the MLPs and all parameters stand beside them, and each
with a quarter of the text replayed from the others.
Against the method: no more gain than the random neurons at the same share, in most of the pairs of seed and language;
also where the random ones are trained at the learning rate of the language's.
Seeds are the unit: two or three give no p-value, only paired differences and their sign.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch

from babelscope import (
    Observation,
    load_corpus,
    observe,
    open_model,
    select_lape,
    select_top_rate,
    trim_vocabulary,
)
from babelscope.adaptation import LotteryTicket, Material, Method, Ruler, SourceShield, adapt, strongest
from babelscope.figures import AdaptationRow, FigureCaption, adaptation_figure, write_figure
from babelscope.files.writing import write_text
from babelscope.languages import Language
from babelscope.runs import Run, environment, run_experiment

RATES: dict[str, tuple[float, ...]] = {
    "neurons": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "full": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "ffn": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "lt-sft": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "lora": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "lora-attention": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "shira": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "ssu": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
}
"""Five learning rates for each way of training."""
SHIELD_LINES = 100
"""Of each other language's train text, for source-shielded updates."""
REPLAYING = "+replay"
"""Ends the name of a kind that also reads the other languages' text, at the rate that is best without it."""
OF_NEURONS = ("language", "random", "top-rate", "replay")
"""Kinds that train neurons; "replay" is "language" with other text, with a rate of its own."""
REPLAYED = 0.25
"""Share of the other languages' text in "replay"."""
LATER = ("replay", "lora-attention", "lt-sft")
"""Measured after the others, as are those that replay."""
WIDENED = 2
"""Learning rates more, at most, where the best stands at an end of those that were tried."""


@dataclass(frozen=True)
class Config:
    model: str = "reference"
    corpus: str = "reference"
    """Folder of <tag>.<split>.txt, or "reference" (240 lines a language: too few for a study)."""
    languages: tuple[str, ...] = ("eu", "cy", "tt")
    others: tuple[str, ...] = ("en", "de", "fr", "es", "ru", "uk", "zh", "ja", "ar", "hi", "fi", "id")
    shares: tuple[float, ...] = (0.001, 0.01, 0.05)
    """Of all parameters, for methods of neurons; the others have one share each."""
    methods: tuple[str, ...] = (
        *("language", "random", "top-rate", "full", "ffn", "lora", "lora-attention", "shira", "lt-sft", "replay"),
    )
    """What is compared: of OF_NEURONS, or a method; any of them with "+replay"."""
    rate_scale: float = 1.0
    """Times RATES, which are the bundled model's; a larger model wants smaller ones."""
    n_rates: int = 5
    """The middle ones of RATES."""
    trim: bool = False
    """Leave out entries of the vocabulary that the train text does not use: with many, the head is most of a step."""
    seeds: int = 3
    steps: int = 30
    evaluations: int = 6
    """Times that the dev text is scored on the way."""
    trail: int = 2
    """Times that the test text is."""
    tokens_per_step: int = 2048
    max_length: int = 128
    train_lines: int = 6000
    dev_lines: int = 80
    test_lines: int = 80
    observe_tokens: int = 20_000
    """A language, to find the neurons."""
    workers: int = 1
    """Processes, of one thread each: two of them do more on two cores than one of two threads."""
    out: str = ""
    """File such as adapt_underserved.jsonl; empty: the run's own results only."""


class Cell(NamedTuple):
    kind: str
    """Of OF_NEURONS, or the method."""
    share: float
    language: str
    seed: int
    stage: str
    """"rates" (chosen on dev), "main", or "equal" (random neurons at the learning rate of the language's)."""
    rate: float

    @property
    def key(self) -> str:
        return json.dumps(self)


def kinds(config: Config) -> list[tuple[str, float]]:
    """(kind, share) of every row of the comparison."""
    middle = middle_share(config)

    def shares(kind: str) -> tuple[float, ...]:
        if kind in ("language", "random"):
            return config.shares
        return (middle,) if plain(kind) in (*OF_NEURONS, "lt-sft") else (0.0,)

    return [(kind, share) for kind in config.methods for share in shares(kind)]


def middle_share(config: Config) -> float:
    return config.shares[len(config.shares) // 2]


def plain(kind: str) -> str:
    """The kind without its replay."""
    return kind.removesuffix(REPLAYING)


def replays(kind: str) -> bool:
    return kind == "replay" or kind.endswith(REPLAYING)


def rates_of(config: Config, kind: str) -> tuple[float, ...]:
    rates = RATES["neurons" if kind in OF_NEURONS else kind]
    cut = (len(rates) - config.n_rates) // 2
    return tuple(float(f"{rate * config.rate_scale:.6g}") for rate in rates[max(0, cut) :][: config.n_rates])


class Bench:
    """Model, text and sets, made once."""

    def __init__(self, config: Config, run: Run):
        self.config, self.run = config, run
        self.model, self.tokenizer = open_model(config.model, device="cpu", dtype="float32")
        self.tags = (*config.languages, *config.others)
        self.train = load_corpus(config.corpus, self.tags, split="train").head(config.train_lines)
        if config.trim:
            pack = trim_vocabulary(self.model, self.tokenizer, self.train)
            # For as long as the bench lives: a stack that nothing holds would take the pack off at once.
            self.applied = ExitStack()
            self.applied.enter_context(pack.applied(self.model))
            self.tokenizer = pack.tokenizer
        held = load_corpus(config.corpus, self.tags, split="valid").head(config.dev_lines + config.test_lines)
        self.dev = held.head(config.dev_lines)
        self.test = {tag: lines[config.dev_lines :] for tag, lines in held.items()}
        folder = run.folder / "observation"
        if not folder.exists():
            observe(self.model, self.tokenizer, self.train, tokens_per_language=config.observe_tokens, shards=0).save(
                folder
            )
        observation = Observation.load(folder)
        self.selective = select_lape(observation, top_rate=0.6, filter_rate=0.5, bar_rate=0.7)
        self.active = select_top_rate(observation, top_rate=0.2)
        self.materials: dict[tuple[str, bool], Material] = {}
        self.rulers: dict[str, Ruler] = {}
        self.shielding: SourceShield | None = None
        self.total = sum(parameter.numel() for parameter in self.model.parameters())

    def material(self, language: str, replay: bool) -> Material:
        if (language, replay) not in self.materials:
            others = {tag: self.train[tag] for tag in self.tags if tag != language}
            self.materials[language, replay] = Material.prepare(
                self.model,
                self.tokenizer,
                language=language,
                documents=self.train[language],
                dev=self.dev[language],
                test=self.test,
                replay=others if replay else None,
                replay_share=REPLAYED if replay else 0.0,
                max_length=self.config.max_length,
            )
        if language not in self.rulers:
            self.rulers[language] = Ruler.at(self.materials[language, replay])
        return self.materials[language, replay]

    def neurons(self, kind: str, language: str, share: float):
        if plain(kind) not in OF_NEURONS:
            return None
        count = round(share * self.total / (3 * self.model.config.hidden_size))
        if plain(kind) == "top-rate":
            return strongest(self.active, language, count, lowest=False)
        return strongest(self.selective, language, count)

    def shield(self, kind: str) -> SourceShield | None:
        """Made on the languages whose harm is measured, once."""
        if plain(kind) != "ssu":
            return None
        if self.shielding is None:
            source = self.train.only([Language(tag) for tag in self.config.others]).head(SHIELD_LINES)
            self.shielding = SourceShield.of(self.model, self.tokenizer, source, max_length=self.config.max_length)
        return self.shielding

    def measure(self, cell: Cell) -> dict:
        kind = plain(cell.kind)
        method: Method = {kind: "subnetwork" for kind in OF_NEURONS if kind != "random"}.get(kind, kind)  # pyright: ignore
        steps = self.config.steps
        material = self.material(cell.language, replays(cell.kind)).reseeded(1000 + cell.seed)
        result = adapt(
            material,
            method,
            steps=steps,
            learning_rate=cell.rate,
            neurons=self.neurons(cell.kind, cell.language, cell.share),
            tokens_per_step=self.config.tokens_per_step,
            evaluate_every=max(1, steps // self.config.evaluations),
            trail_every=max(1, steps // self.config.trail),
            ticket=LotteryTicket(share=cell.share or 0.01) if method == "lt-sft" else None,
            shield=self.shield(cell.kind),
            ruler=self.rulers[cell.language],
            seed=cell.seed,
        )
        return {
            **cell._asdict(),
            "trained": result.trained,
            "trained_share": result.share,
            "dev": result.dev,
            "gain": result.gain(cell.language),
            "harm": result.harm(cell.language),
            "after": result.after,
            "trail": result.trail,
            "before": result.before,
            "curve": [[p.tokens, p.bits_per_byte] for p in result.history if p.bits_per_byte is not None],
            "loss": [p.loss for p in result.history],
            "moved": None if result.moved is None else {role: row.tolist() for role, row in result.moved.items()},
            "similarity": {tag: row.tolist() for tag, row in result.similarity.items()},
        }


def done_cells(run: Run) -> dict[str, dict]:
    return {Cell(*(row[name] for name in Cell._fields)).key: row for row in run.results()}


def rate_cells(config: Config, rows: dict[str, dict]) -> Iterator[Cell]:
    """Every learning rate of every kind, at its middle share, on the first language, with a seed of its own.

    Where the best of a kind stands at an end of those that were tried, the next one beyond it too.
    """
    for kind, share in kinds(config):
        if kind.endswith(REPLAYING) or share not in (0.0, middle_share(config)):
            continue
        rates = rates_of(config, kind)
        tried = {row["rate"]: row["dev"] for row in rows.values() if (row["kind"], row["stage"]) == (kind, "rates")}
        if set(rates) <= set(tried):
            best, ordered = min(tried, key=lambda rate: tried[rate]), sorted(tried)
            if best in (ordered[0], ordered[-1]) and len(ordered) < len(rates) + WIDENED:
                beyond = best * best / ordered[1 if best == ordered[0] else -2]
                rates = (*rates, float(f"{beyond:.6g}"))
        for rate in rates:
            yield Cell(kind, share, config.languages[0], config.seeds, "rates", rate)


def main_cells(config: Config, rows: dict[str, dict]) -> Iterator[Cell]:
    """All seeds and languages, at the learning rate with the lowest dev bits per byte; what the verdict needs first."""

    def best(kind: str) -> float:
        tried = [row for row in rows.values() if (row["kind"], row["stage"]) == (plain(kind), "rates")]
        return min(tried, key=lambda row: row["dev"])["rate"]

    for language in config.languages:
        for later in (False, True):
            for seed in range(config.seeds):
                for kind, share in kinds(config):
                    if (kind in LATER or kind.endswith(REPLAYING)) == later:
                        yield Cell(kind, share, language, seed, "main", best(kind))
                    if kind == "random" and not later:
                        yield Cell(kind, share, language, seed, "equal", best("language"))


def verdict(rows: list[dict]) -> list[dict]:
    """Paired differences of the language's neurons and the random ones, and the words for them.

    Each at its own learning rate, then both at that of the language's.
    """
    found = []
    own = {(row["share"], row["language"], row["seed"]): row for row in rows if is_main(row, "language")}
    for stage, control in (("main", "each at its best learning rate"), ("equal", "both at that of the language's")):
        random = {
            (row["share"], row["language"], row["seed"]): row
            for row in rows
            if row["kind"] == "random" and row["stage"] == stage
        }
        for share in sorted({key[0] for key in own.keys() & random.keys()}):
            keys = sorted(key for key in own.keys() & random.keys() if key[0] == share)
            gains = [own[key]["gain"] - random[key]["gain"] for key in keys]
            harms = [own[key]["harm"] - random[key]["harm"] for key in keys]
            wins = sum(gain > 0 for gain in gains)
            found.append(
                {
                    "claim": "language neurons gain more than layer-matched random ones",
                    "learning_rates": control,
                    "share": share,
                    "pairs": len(keys),
                    "wins": wins,
                    "less_harm": sum(harm < 0 for harm in harms),
                    "mean_gain_difference": sum(gains) / len(gains),
                    "mean_harm_difference": sum(harms) / len(harms),
                    "holds": wins > len(gains) / 2 and sum(gains) > 0,
                }
            )
    return found


def is_main(row: dict, kind: str) -> bool:
    return (row["kind"], row["stage"]) == (kind, "main")


BENCH: list[Bench] = []
"""The one of this process."""


def open_bench(config: Config, run: Run) -> None:
    torch.set_num_threads(1)
    BENCH[:] = [Bench(config, run)]


def measure(cell: Cell) -> dict:
    return BENCH[0].measure(cell)


def draw(rows: list[dict]):
    """The figure, from results.jsonl alone."""
    return adaptation_figure(
        rows=[
            AdaptationRow(
                kind=row["kind"],
                language=row["language"],
                seed=row["seed"],
                share=row["trained_share"],
                gain=row["gain"],
                harm=row["harm"],
                curve=[(tokens, score) for tokens, score in row["curve"]],
                moved=row["moved"],
                similarity=row["similarity"][row["language"]],
            )
            for row in rows
            if row["stage"] == "main"
        ]
    )


def run(config: Config, run: Run) -> None:
    open_bench(config, run)
    with ProcessPoolExecutor(
        config.workers, mp_context=get_context("spawn"), initializer=open_bench, initargs=(config, run)
    ) as pool:
        for cells in (*[rate_cells] * (1 + WIDENED), main_cells):
            rows = done_cells(run)
            left = [cell for cell in cells(config, rows) if cell.key not in rows]
            for done in as_completed([pool.submit(measure, cell) for cell in left]):
                run.log([done.result()])
    finish(config, run)


def finish(config: Config, run: Run) -> None:
    """Figure, and the file of all rows behind the claims; also of a run that was cut short."""
    rows = run.results()
    caption = FigureCaption(
        "What adaptation gains, and what it costs",
        "A column per language. Gain of the target against the mean harm to other languages, both in bits per byte of "
        "held-out text, a mark per run; the learning curves; and where weights and sentences moved.",
    )
    write_figure(draw(rows), run.folder / "figure.html", caption)
    if config.out:
        names = {"model": Path(config.model).name, "corpus": Path(config.corpus).name}
        facts = {"config": {**asdict(config), **names}, "environment": environment()}
        facts["config"].pop("out")
        lines = [json.dumps(row, ensure_ascii=False) for row in [facts, *verdict(rows), *rows]]
        write_text(Path(config.out), "\n".join(lines) + "\n")


if __name__ == "__main__":
    run_experiment(Config, run)
