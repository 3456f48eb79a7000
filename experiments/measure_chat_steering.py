"""Does a direction make a chat model answer in another language, where its own template asks?

Forty questions to a chat model in four languages (`chat_questions/<tag>.txt`, the same thirteen in each: three to
choose layer and strength on, ten for the score). Two ways of asking: "english", the English question, which is to be
answered in each of the four; and "own", the question in the target language, which many models answer in English.
Each is answered plainly, under mean(target) − mean(English) of ordinary text at one layer, under random directions of
the stream's own covariance and of the same length, and with "answer in …" in the target's own words. Greedy.

For the direction: more right answers than plain and than random, with intervals apart. Against it: answers in words
alone that do as well. Before anything is answered, all ids are compared with those of the template itself.

Answers are kept in the run's answers.jsonl; `--judge-only` judges them again without a model.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from babelscope import Direction, Language, load_corpus, mean_direction, observe, open_model
from babelscope.controls import wilson_interval
from babelscope.corpus import Corpus
from babelscope.evaluation import judge_answers
from babelscope.files.writing import append_lines, write_text
from babelscope.runs import Run, commit, environment, run_experiment
from babelscope.steering.sweeps import Answer, Decoding, Prompt, generate_answers, instructed, random_directions
from babelscope.steering.sweeps.steered_answers import Steerer, ending_ids
from babelscope.steering.sweeps.steering_prompts import prompt_ids

QUESTIONS = Path(__file__).parent / "chat_questions"
DEV = 3
"""Questions of each language to choose on."""
WAYS = ("english", "own")
Request = tuple[Prompt, Language]


@dataclass(frozen=True)
class Config:
    model: str
    """Folder or hub id of a chat model."""
    corpus: str
    """Folder of <tag>.<split>.txt, ordinary text of English and the targets."""
    targets: tuple[str, ...] = ("de", "fr", "es", "zh")
    questions: str = str(QUESTIONS)
    tokens: int = 600
    """A language, for the direction."""
    layers: tuple[int, ...] = (4, 6, 9)
    strengths: tuple[float, ...] = (1.0,)
    """In multiples of the difference of means."""
    new_tokens: int = 40
    """Of an answer at most."""
    dev_tokens: int = 24
    draws: int = 5
    """Random directions, in turn over the requests."""
    dtype: str = "bfloat16"
    seed: int = 0
    judge_only: str = ""
    """answers.jsonl of an earlier run, to be judged again; no model is opened."""
    out: str = ""
    """Folder for chat.jsonl and chat_answers.jsonl; empty: the run's own results only."""


def ask(questions: Corpus, way: str, targets: Sequence[Language], *, dev: bool) -> list[Request]:
    """Questions to be answered in each target, in English or in the target itself."""
    part = slice(0, DEV) if dev else slice(DEV, None)
    return [
        (Prompt.chat(document.id, source, document.text), target)
        for target in targets
        for source in [Language("en") if way == "english" else target]
        for document in questions[source][part]
    ]


def compare_ids(model: Any, tokenizer: Any, requests: Sequence[Request]) -> dict[str, Any]:
    """How many prompts have the ids of the template itself, with a system prompt and without."""
    same = total = 0
    for system in (None, "Be brief."):
        prompts = [Prompt.chat(p.id, p.source, p.text, system=system) for p, _ in requests]
        for prompt, ids in zip(prompts, prompt_ids(tokenizer, prompts), strict=True):
            rows = [message.as_dict() for message in prompt.messages]
            own = tokenizer.apply_chat_template(rows, add_generation_prompt=True, tokenize=True)
            same += list(own["input_ids"] if isinstance(own, Mapping) else own) == ids
            total += 1
    return {"row": "ids", "equal": same, "of": total, "ends": list(ending_ids(model, tokenizer))}


class Steering:
    """The directions of one observation, and random ones as long."""

    def __init__(self, model: Any, tokenizer: Any, config: Config) -> None:
        self.config, languages = config, ("en", *config.targets)
        self.texts = load_corpus(config.corpus, languages, split="train").head(400)
        self.observation = observe(
            model, tokenizer, self.texts, sites=["resid_out"], tokens_per_language=config.tokens, progress=True
        )
        self.parts = model, tokenizer

    def direction(self, layer: int, target: Language) -> Direction:
        """From English to the target."""
        return mean_direction(self.observation, target=target, source="en", layer=layer)

    def steerer(self, layer: int, strength: float) -> Steerer:
        """The true direction, whatever language the question is in: the answer it gives is English."""
        return lambda target, source: [self.direction(layer, target).add(strength, "raw")]

    def random(self, layer: int, strength: float, requests: Sequence[Request]) -> Steerer:
        """Random directions in turn, each as long as the true one it stands for."""
        like = self.direction(layer, requests[0][1])
        vectors = random_directions(
            *self.parts, self.texts, like.site, draws=self.config.draws, seed=self.config.seed, like=like
        )
        count = iter(range(len(requests)))

        def operations(target: Language, source: Language) -> list:
            true = self.direction(layer, target)
            return [replace(true, vector=vectors[next(count) % len(vectors)] * true.norm).add(strength, "raw")]

        return operations


def choose(model: Any, tokenizer: Any, steering: Steering, requests: Sequence[Request], config: Config) -> list[dict]:
    """Right answers at every layer and strength on the questions to choose on."""
    decoding, rows = Decoding(config.dev_tokens, 0.0, config.seed), []
    for layer in config.layers:
        for strength in config.strengths:
            answers = generate_answers(model, tokenizer, requests, steering.steerer(layer, strength), decoding=decoding)
            right = judge([asdict_answer(answer, "dev", "steered") for answer in answers])
            score = sum(row["verdict"] == "right" for row in right)
            rows.append({"row": "choice", "layer": layer, "strength": strength, "right": score, "n": len(right)})
    return rows


def asdict_answer(answer: Answer, way: str, condition: str) -> dict[str, Any]:
    """An answer as it is kept."""
    return {
        "way": way,
        "condition": condition,
        "id": answer.prompt.id,
        "source": answer.prompt.source,
        "target": answer.target,
        "question": answer.prompt.text,
        "answer": answer.text,
        "tokens": len(answer.ids),
        "ended": answer.ended,
    }


def answer_all(model: Any, tokenizer: Any, questions: Corpus, run: Run, config: Config) -> None:
    """Every answer of the experiment into answers.jsonl, a condition at a time; those that are there are kept."""
    targets, kept = [Language.parse(tag) for tag in config.targets], read_answers(run.folder / "answers.jsonl")
    steering, decoding = Steering(model, tokenizer, config), Decoding(config.new_tokens, 0.0, config.seed)
    dev = [request for way in WAYS for request in ask(questions, way, targets, dev=True)]
    if not any(row["row"] == "choice" for row in run.results()):
        run.log(choose(model, tokenizer, steering, dev, config))
    best = max((r for r in run.results() if r["row"] == "choice"), key=lambda r: (r["right"], -r["strength"]))
    at = best["layer"], best["strength"]
    for way in WAYS:
        requests = ask(questions, way, targets, dev=False)
        for condition, asked, steerer in (
            ("plain", requests, None),
            ("steered", requests, steering.steerer(*at)),
            ("random", requests, steering.random(*at, requests)),
            ("asked in words", instructed(requests), None),
        ):
            if any((row["way"], row["condition"]) == (way, condition) for row in kept):
                continue
            answers = answer_once(model, tokenizer, asked, steerer, decoding)
            rows = (asdict_answer(answer, way, condition) for answer in answers)
            append_lines(run.folder / "answers.jsonl", (json.dumps(row, ensure_ascii=False) for row in rows))


def answer_once(
    model: Any, tokenizer: Any, requests: Sequence[Request], steerer: Steerer | None, decoding: Decoding
) -> list[Answer]:
    """Answers to requests; without steering the same prompt is answered once, whatever the target: greedily, alike."""
    if steerer is not None:
        return generate_answers(model, tokenizer, requests, steerer, decoding=decoding)
    asked = {prompt.messages: (prompt, target) for prompt, target in requests}
    answers = generate_answers(model, tokenizer, list(asked.values()), decoding=decoding)
    by_messages = dict(zip(asked, answers, strict=True))
    return [by_messages[prompt.messages]._replace(prompt=prompt, target=target) for prompt, target in requests]


def read_answers(file: Path) -> list[dict[str, Any]]:
    """Answers kept so far."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def judge(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the judge's verdict and language."""
    found = judge_answers([row["answer"] for row in rows], [row["target"] for row in rows])
    return [{**row, "verdict": one.verdict, "language": one.language} for row, one in zip(rows, found, strict=True)]


def summarise(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Share of right answers of each way and condition, whole and by target, with Wilson's interval."""
    for way in WAYS:
        for condition in dict.fromkeys(row["condition"] for row in rows):
            group = [row for row in rows if (row["way"], row["condition"]) == (way, condition)]
            for target in (None, *dict.fromkeys(row["target"] for row in group)):
                chosen = [row for row in group if target in (None, row["target"])]
                right = sum(row["verdict"] == "right" for row in chosen)
                low, high = wilson_interval(right, len(chosen))
                yield {
                    "row": "share",
                    "way": way,
                    "condition": condition,
                    "target": target,
                    "n": len(chosen),
                    "right": right / len(chosen),
                    "low": low,
                    "high": high,
                    "verdicts": dict(Counter(row["verdict"] for row in chosen)),
                    "in_english": sum(row["language"] == "en" for row in chosen),
                    "ended": sum(row["ended"] for row in chosen),
                    "mean_tokens": sum(row["tokens"] for row in chosen) / len(chosen),
                }


def run(config: Config, run: Run) -> None:
    """Compare ids, answer, judge, and write what was measured."""
    answers = Path(config.judge_only) if config.judge_only else run.folder / "answers.jsonl"
    if not config.judge_only:
        model, tokenizer = open_model(config.model, dtype=config.dtype)
        questions = load_corpus(config.questions, ("en", *config.targets), split="all")
        targets = [Language.parse(tag) for tag in config.targets]
        if not any(row["row"] == "ids" for row in run.results()):
            asked = [
                request for way in WAYS for dev in (True, False) for request in ask(questions, way, targets, dev=dev)
            ]
            run.log([{"row": "facts", **facts(model, config)}, compare_ids(model, tokenizer, asked)])
        answer_all(model, tokenizer, questions, run, config)
    rows = judge(read_answers(answers))
    run.log(summarise(rows))
    if config.out:
        out, before = Path(config.out), run.results()
        if config.judge_only:
            earlier = [json.loads(line) for line in (out / "chat.jsonl").read_text(encoding="utf-8").splitlines()]
            before = [row for row in earlier if row["row"] != "share"] + before
        write_rows(out / "chat.jsonl", before)
        write_rows(out / "chat_answers.jsonl", rows)


def facts(model: Any, config: Config) -> dict[str, Any]:
    """What the figures were measured with."""
    settings = {
        key: value for key, value in asdict(config).items() if key not in ("corpus", "questions", "out", "judge_only")
    }
    return {
        **settings,
        "model": Path(config.model).name,
        "device": str(model.device),
        "environment": {**environment(), **commit()},
    }


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One row per line."""
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    run_experiment(Config, run)
