"""Are directions about language, or about a few huge units of the stream and the first tokens of documents?

For every layer and language the share of the direction's squared length in its largest unit, of all tokens and units
("whole") and without first tokens and massive units ("ordinary"), beside what the largest unit and first tokens hold of
the stream itself. Then both forms steer the same prompts: layer and strength are chosen for each form on validation
prompts, and scored once on others. Controls: no steering, random directions as long as the true ones and drawn in the
same subspace as each form, and the model's own continuations of target-language text, the ceiling.

Against the ordinary form: shares that stay as large as before, or success that falls by more than the intervals. One
model and one seed; intervals are over prompts.

Answers are kept as they are written, a setting a file, so that a stopped run goes on; with another `--judge` note the
kept answers are scored anew. Text: a folder of `<tag>.<split>.txt.xz`, a sentence a line, for train and valid.
"""

import json
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from babelscope import Observation, Operation, Site, mean_direction, observe, open_model
from babelscope.controls import wilson_interval
from babelscope.corpus import Corpus, as_corpus, prefix_of
from babelscope.evaluation import answer_losses, distinct_n, judge_answers
from babelscope.files.strict_json import nan_as_null
from babelscope.files.writing import write_text
from babelscope.languages import Language
from babelscope.runs import Run, environment, run_experiment
from babelscope.steering.sweeps import Answer, Decoding, Prompt, generate_answers, make_prompts, random_directions
from babelscope.steering.sweeps.answer_scores import nats_a_token
from babelscope.steering.sweeps.steering_runs import FADE, vary_sources

FORMS = ("whole", "ordinary")
NATIVE, PLAIN, STEERED, RANDOM = "native", "unsteered", "steered", "random"
DRAWS = 10
"""Of the random control; draw i goes to every tenth prompt."""
MAX_RATIO, MIN_DISTINCT = 1.5, 0.8
"""A point is fluent whose perplexity ratio and distinct-4 ratio are within these."""


@dataclass(frozen=True)
class Config:
    model: str
    """Folder or hub id."""
    text: str
    """Folder with `<tag>.train.txt.xz` and `<tag>.valid.txt.xz`."""
    name: str = ""
    """What the model is called in the results; empty: the end of its path."""
    languages: tuple[str, ...] = ("en", "de", "ru", "zh", "ja", "fi", "hi")
    tokens: int = 3000
    """A language, for what is observed."""
    layers: tuple[int, ...] = ()
    """That are steered; none means none: the shares alone."""
    raw: tuple[float, ...] = (0.75, 1.0, 1.25)
    """Strengths, in multiples of the difference of means."""
    relative: tuple[float, ...] = (0.1, 0.25)
    """Strengths, as shares of the form's own length."""
    dev_prompts: int = 3
    """A target, for every setting."""
    test_prompts: int = 10
    """A target, for each form at its choice."""
    new_tokens: int = 32
    threads: int = 1
    seed: int = 0
    out: str = ""
    """File of the results; empty: the run's own alone. Rows of other models in it stay."""
    judge: str = ""
    """Which judge scored, for people: a run with another note scores kept answers anew."""


@dataclass(frozen=True)
class Setting:
    """One kind of answers."""

    kind: str
    split: str
    form: str = ""
    layer: int = -1
    strength: float = 0.0
    unit: str = "raw"

    @property
    def file(self) -> str:
        """Where its answers are kept."""
        return "-".join(str(part) for part in asdict(self).values() if part not in ("", -1)) + ".json"


def text_of(config: Config, split: str, lines: int) -> Corpus:
    """The first lines of each language."""
    texts = {}
    for tag in config.languages:
        with lzma.open(Path(config.text) / f"{tag}.{split}.txt.xz", "rt", encoding="utf-8") as file:
            texts[tag] = [line.strip() for _, line in zip(range(lines), file, strict=False) if len(line.encode()) > 60]
    return as_corpus(texts)


class Study:
    """The model, what was observed, and the answers written so far."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.folder = config, folder / "answers"
        torch.set_num_threads(config.threads)
        self.model, self.tokenizer = open_model(config.model, device="cpu", dtype="bfloat16")
        self.texts = {split: text_of(config, split, 800) for split in ("train", "valid")}
        self.observation = self.observed(folder / "observation")
        self.targets = self.observation.languages
        self.draws = cache(self.random)
        self.direction = cache(self.difference)

    def observed(self, saved: Path) -> Observation:
        """One pass over the training text, kept."""
        if not saved.is_dir():
            observe(
                self.model,
                self.tokenizer,
                self.texts["train"],
                sites=["resid_out"],
                tokens_per_language=self.config.tokens,
                shards=0,
                progress=True,
            ).save(saved)
        return Observation.load(saved)

    def difference(self, target: Language, source: Language, layer: int, form: Any):
        return mean_direction(self.observation, target=target, source=source, layer=layer, form=form)

    def random(self, layer: int, form: str) -> torch.Tensor:
        """Draws beside the directions of a layer and form."""
        like = self.direction(self.targets[0], self.targets[1], layer, form)
        site, text = Site(layer, "resid_out"), self.texts["valid"]
        return random_directions(
            self.model, self.tokenizer, text, site, draws=DRAWS, tokens_per_language=300, like=like
        )

    def requests(self, setting: Setting) -> list[tuple[Prompt, Language]]:
        """Prompts of a split, each in another language than the target; for native answers in the target's own.

        Validation and test prompts are different sentences of text that was not observed.
        """
        dev = setting.split == "dev"
        count = self.config.dev_prompts if dev else self.config.test_prompts
        prompts = make_prompts(self.texts["valid"], per_language=count, start=0 if dev else self.config.dev_prompts)
        if setting.kind == NATIVE:
            return [(prompt, prompt.source) for prompt in prompts]
        return vary_sources(prompts, self.targets, count)

    def operations(self, setting: Setting, draw: int, target: Language, source: Language) -> Sequence[Operation]:
        """What is done to one answer."""
        if setting.kind in (NATIVE, PLAIN) or target == source:
            return []
        direction = self.direction(target, source, setting.layer, setting.form)
        if setting.kind == RANDOM:
            direction = replace(direction, vector=self.draws(setting.layer, setting.form)[draw] * direction.norm)
        return [direction.add(setting.strength, setting.unit, schedule=FADE)]  # pyright: ignore[reportArgumentType]

    def answers(self, setting: Setting) -> list[dict[str, Any]]:
        """Rows with target, source, answer and its ids, kept in a file."""
        file = self.folder / setting.file
        if not file.is_file():
            requests = self.requests(setting)
            decoding = Decoding(new_tokens=self.config.new_tokens, seed=self.config.seed, batch_size=64)
            written: list[Answer] = []
            for draw in range(DRAWS if setting.kind == RANDOM else 1):
                chosen = requests[draw::DRAWS] if setting.kind == RANDOM else requests
                steerer = partial(self.operations, setting, draw)
                written += generate_answers(self.model, self.tokenizer, chosen, steerer, decoding=decoding)
            groups = {tag: [answer for answer in written if answer.target == tag] for tag in self.targets}
            prefix = prefix_of(self.tokenizer)
            losses = {tag: answer_losses(self.model, prefix, [a.ids for a in group]) for tag, group in groups.items()}
            nats = {tag: nats_a_token(*pair) for tag, pair in losses.items()}
            kept = [
                {"target": a.target, "source": a.prompt.source, "text": a.text, "ids": a.ids, "nats": nats[a.target]}
                for a in written
            ]
            write_text(file, json.dumps(kept, ensure_ascii=False))
        return json.loads(file.read_text(encoding="utf-8"))

    def measure(self, setting: Setting) -> dict[str, Any]:
        """One row of the results: success over all targets, and fluency beside native answers of the same split."""
        answers, native = self.answers(setting), self.answers(Setting(NATIVE, setting.split))
        verdicts = judge_answers([row["text"] for row in answers], [row["target"] for row in answers])
        right = [verdict.verdict == "right" for verdict in verdicts]
        low, high = wilson_interval(sum(right), len(right))
        gaps, distinct = [], []
        for target in self.targets:
            mine, own = ([row for row in rows if row["target"] == target] for rows in (answers, native))
            gaps.append(mine[0]["nats"] - own[0]["nats"])
            distinct.append(distinct_n([row["ids"] for row in mine]) / distinct_n([row["ids"] for row in own]))
        return {
            "row": "steering",
            **asdict(setting),
            "n": len(right),
            "success": sum(right) / len(right),
            "low": low,
            "high": high,
            "perplexity_ratio": float(torch.tensor(gaps).mean().exp()),
            "distinct4_ratio": sum(distinct) / len(distinct),
            "by_target": {
                tag: sum(ok for ok, row in zip(right, answers, strict=True) if row["target"] == tag)
                / sum(row["target"] == tag for row in answers)
                for tag in self.targets
            },
        }


def shares(study: Study) -> list[dict[str, Any]]:
    """What the largest unit and first tokens hold of the stream, and the largest unit of each direction."""
    rows = []
    for layer in study.observation["resid_out"].layers:
        stream = study.observation.stream("resid_out", layer)
        assert stream is not None
        default, left_out = stream.form("auto"), stream.massive
        about = {"row": "stream", "layer": layer, "default": default, "left_out": left_out}
        rows.append({**about, **stream.shares._asdict()})
        for tag in study.targets:
            whole, ordinary = (mean_direction(study.observation, target=tag, layer=layer, form=form) for form in FORMS)
            rows.append(
                {
                    "row": "direction",
                    "layer": layer,
                    "language": tag,
                    "default": default,
                    "whole": whole.largest_share,
                    "ordinary": ordinary.largest_share,
                    "mean_norm": whole.mean_norm,
                    "median_norm": whole.median_norm,
                    "norm_whole": whole.norm,
                    "norm_ordinary": ordinary.norm,
                }
            )
    return rows


def best(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The most successful fluent point, ties to the lower perplexity ratio; without a fluent one the most fluent."""
    fluent = [r for r in rows if r["perplexity_ratio"] <= MAX_RATIO and r["distinct4_ratio"] >= MIN_DISTINCT]
    if not fluent:
        return min(rows, key=lambda row: row["perplexity_ratio"])
    return max(fluent, key=lambda row: (row["success"], -row["perplexity_ratio"]))


def steer(study: Study) -> Iterator[dict[str, Any]]:
    """Every point on validation prompts, then each form and unit at its choice on the test prompts."""
    config = study.config
    yield study.measure(Setting(NATIVE, "test"))
    yield study.measure(Setting(PLAIN, "test"))
    for unit, strengths in (("raw", config.raw), ("relative", config.relative)):
        for form in FORMS if strengths else ():
            points = []
            for layer in config.layers:
                for strength in strengths:
                    points.append(study.measure(Setting(STEERED, "dev", form, layer, strength, unit)))
                    yield points[-1]
            chosen = best(points)
            at = Setting(STEERED, "test", form, chosen["layer"], chosen["strength"], unit)
            yield study.measure(at)
            if unit == "raw":
                yield study.measure(replace(at, kind=RANDOM))


def run(config: Config, run: Run) -> None:
    name = config.name or Path(config.model).name
    (run.folder / "results.jsonl").unlink(missing_ok=True)  # answers are kept, rows are made anew
    study = Study(config, run.folder.parent / name)  # kept for runs with other settings
    run.log(nan_as_null({"model": name, **row}) for row in shares(study))
    for row in steer(study) if config.layers else ():
        run.log([nan_as_null({"model": name, **row})])
    if config.out:
        written = Path(config.out)
        others = written.read_text(encoding="utf-8").splitlines() if written.is_file() else []
        rows = [row for line in others if (row := json.loads(line))["model"] != name]
        about = {"model": name, "row": "about", "config": {**asdict(config), "model": name, "text": "", "out": ""}}
        rows += [nan_as_null({**about, "environment": environment()}), *run.results()]
        write_text(written, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    run_experiment(Config, run)
