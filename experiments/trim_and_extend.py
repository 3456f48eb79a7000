"""What does a model lose and gain where its vocabulary is cut to a few languages, or extended by one?

Trimming: parameters, tokens of unseen text that are cut otherwise, bits per byte and seconds per 1,000 bytes
generated, before and after, for 1, 5 and 17 languages. Against it: more than one token in a hundred cut otherwise, or
bits per byte that rise by more than .002. Where every token of a text stays, bits per byte can only fall, by the mass
of what is gone.
Extending: bits per byte of unseen text before any training of the body, by how the new rows begin, each language with
three samples of text. Controls: the model without new entries, rows drawn at random, and rows that were learnt in the
places of other new entries. Against a way to begin: no better than random, or than the mean of sub-words, in some pair
of language and sample. A tokenizer that is extended by merges cuts every new entry in one way, so that "align" is
"subword" there, and is left out. "translate" reads parallel text with English; its control has the alignment permuted.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from babelscope import VocabularyPack, load_corpus, open_model, trim_vocabulary
from babelscope.corpus import Corpus, Document, encode_texts, tokenize_prompt
from babelscope.errors import CorpusError, MeasurementError
from babelscope.evaluation import bits_per_byte
from babelscope.files.writing import write_text
from babelscope.runs import Run, environment, run_experiment
from babelscope.vocabulary.extension import new_entries
from babelscope.vocabulary.initial_rows import DISTILLED, INITS, TRANSLATED
from babelscope.vocabulary.row_packs import pack_of
from babelscope.vocabulary.token_tables import token_tables
from babelscope.vocabulary.translated_rows import check_pairs


@dataclass(frozen=True)
class Config:
    model: str = "reference"
    """Folder, Hugging Face id, or "reference"."""
    corpus: str = "reference"
    """Text of each language, splits train and valid."""
    kept: tuple[tuple[str, ...], ...] = (
        ("en",),
        ("en", "fr", "de", "es", "zh"),
        ("ar", "cy", "de", "en", "es", "eu", "fi", "fr", "hi", "id", "ja", "pl", "pt", "ru", "tr", "tt", "zh"),
    )
    """Languages to trim to."""
    trim_bytes: int = 1_000_000
    """UTF-8 bytes of each language that the tokens are counted in."""
    extended: tuple[str, ...] = ("eu", "cy", "tt")
    """Languages to extend by, each alone."""
    size: int = 500
    """New entries."""
    learn_bytes: int = 300_000
    """UTF-8 bytes that they are learnt from; each seed has other text."""
    score_bytes: int = 500
    """UTF-8 bytes of unseen text of a language that bits per byte are measured on; each seed has other text."""
    generate: int = 16
    """Tokens of each of three greedy answers that are timed."""
    inits: tuple[str, ...] = tuple(name for name in (*INITS, *DISTILLED, *TRANSLATED) if name != "align")
    """Ways to begin a new row."""
    pairs: str = ""
    """Folder of <tag>-en.tsv, a line a sentence, a tab and its translation, as Tatoeba's; empty: the bundled text."""
    jobs: tuple[Literal["trim", "extend"], ...] = ("trim", "extend")
    seeds: int = 3
    out: str = ""
    """File such as vocabularies.jsonl; empty: the run's own results only. Rows of other jobs and ways to begin that it
    has of the same settings stay."""


PART = "part"
"""Job of the row that ends each part of a run."""


class Timed(NamedTuple):
    """Greedy answers; processor seconds, which other work on the machine does not lengthen much."""

    seconds: float
    n_bytes: int


def run(config: Config, run: Run) -> None:
    earlier = rows_before(config)
    translations = {language: translations_of(config, language) for language in config.extended}
    model, tokenizer = open_model(config.model, device="cpu", dtype="float32")
    for languages in config.kept if "trim" in config.jobs else ():
        once(run, f"trim {' '.join(languages)}", lambda: trimmed(config, model, tokenizer, languages))  # noqa: B023
    for language in config.extended if "extend" in config.jobs else ():
        for seed in range(config.seeds):
            pairs = translations[language]
            once(run, f"extend {language} {seed}", lambda: extended(config, model, tokenizer, language, seed, pairs))  # noqa: B023
    if config.out:
        seconds = sum(row["processor_seconds"] for row in run.results() if row["job"] == PART)
        rows = {key_of(row): row for row in (*earlier[1:], *run.results()) if row["job"] != PART}
        names, tags = ("none", *Config.inits), config.extended
        ordered = sorted(
            rows.values(),
            key=lambda row: (
                (tags.index(row["language"]), row["seed"], names.index(row["init"])) if "init" in row else (-1,)
            ),
        )
        used = [name for name in Config.inits if any(row.get("init") == name for row in ordered)]
        spent = round(seconds + (earlier[0]["processor_seconds"] if earlier else 0))
        first = {
            "config": {**facts_of(config), "inits": used},
            "environment": environment(),
            "processor_seconds": spent,
        }
        lines = [json.dumps(row, ensure_ascii=False) for row in (first, *ordered)]
        write_text(Path(config.out), "\n".join(lines) + "\n")


def facts_of(config: Config) -> dict[str, Any]:
    """The settings that rows depend on, without paths."""
    names = {name: Path(getattr(config, name)).name for name in ("model", "corpus", "pairs")}
    facts = {**asdict(config), **names}
    return {name: facts[name] for name in facts if name not in ("out", "jobs")}


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a row measures."""
    return tuple(row.get(name) for name in ("job", "languages", "language", "seed", "init"))


def rows_before(config: Config) -> list[dict[str, Any]]:
    """The lines of the file that is written to, whose other rows stay; raises MeasurementError for other settings."""
    if not config.out or not Path(config.out).exists():
        return []
    rows = [json.loads(line) for line in Path(config.out).read_text(encoding="utf-8").split("\n") if line]
    now = json.loads(json.dumps(facts_of(config)))
    free = {"inits"} if any(row.get("init") in TRANSLATED for row in rows) else {"inits", "pairs"}
    other = sorted(name for name in set(now) - free if now[name] != rows[0]["config"].get(name, now[name]))
    if other:
        raise MeasurementError(
            f"{config.out}: measured with another {other[0]}; expected the same settings; name another file"
        )
    return rows


def translations_of(config: Config, language: str) -> dict[str, list[str]]:
    """Sentences of a language and of English that translate each other."""
    if not config.pairs:
        texts = load_corpus("reference", [language, "en"])
        return {str(tag): [document.text for document in documents] for tag, documents in texts.items()}
    file = Path(config.pairs) / f"{language}-en.tsv"
    if not file.exists():
        raise CorpusError(f"{file}: not there; expected a line a sentence, a tab and its translation; add it")
    sides = zip(*(line.split("\t")[:2] for line in file.read_text(encoding="utf-8").splitlines()), strict=True)
    return dict(zip((language, "en"), map(list, sides), strict=True))


def once(run: Run, part: str, measure: Callable[[], list[dict[str, Any]]]) -> None:
    """Measure a part and log its rows, unless an interrupted run of the same settings has done so."""
    if any(row["job"] == PART and row["part"] == part for row in run.results()):
        return
    began = time.process_time()
    rows = measure()
    run.log([*rows, {"job": PART, "part": part, "processor_seconds": time.process_time() - began}])


def sample(config: Config, languages: tuple[str, ...], split: Any, size: int, seed: int) -> Corpus:
    """Whole documents of each language, up to so many bytes and one at least; the next documents with another seed."""
    texts = load_corpus(config.corpus, languages, split=split)
    chosen: dict[Any, tuple[Document, ...]] = {}
    for tag, documents in texts.items():
        start = len(documents) * seed // max(config.seeds, 1)
        room, found = size, list[Document]()
        for document in (*documents[start:], *documents[:start]):
            room -= len(document.text.encode())
            if found and room < 0:
                break
            found.append(document)
        chosen[tag] = tuple(found)
    return texts.derived(chosen, texts.name)


def trimmed(
    config: Config, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, languages: tuple[str, ...]
) -> list[dict[str, Any]]:
    """One row for the whole, and one per language."""
    pack = trim_vocabulary(model, tokenizer, sample(config, languages, "train", config.trim_bytes, 0))
    unseen = sample(config, languages, "valid", config.score_bytes, 0)
    cut = recut(pack, tokenizer, sample(config, languages, "valid", 40 * config.score_bytes, 0))
    parameters = model.num_parameters()
    before, answers = bits_per_byte(model, tokenizer, unseen), timed(config, model, tokenizer, unseen)
    with pack.applied(model):
        after, faster = bits_per_byte(model, pack.tokenizer, unseen), timed(config, model, pack.tokenizer, unseen)
        left = model.num_parameters()
    whole = {
        "job": "trim",
        "languages": len(languages),
        "entries": [len(tokenizer), len(pack.source)],
        "parameters": [parameters, left],
        "recut": sum(part for part, _ in cut.values()) / sum(tokens for _, tokens in cut.values()),
        "seconds_per_1000_bytes": [round(1000 * one.seconds / one.n_bytes, 3) for one in (answers, faster)],
    }
    rows = [
        {
            "job": "trim, by language",
            "languages": len(languages),
            "language": tag,
            "recut": cut[tag][0] / cut[tag][1],
            "bits_per_byte": [round(before[tag], 5), round(after[tag], 5)],
        }
        for tag in unseen
    ]
    return [whole, *rows]


def recut(pack: VocabularyPack, tokenizer: PreTrainedTokenizerBase, texts: Corpus) -> dict[str, tuple[int, int]]:
    """Tokens of each language that are gone, and all of its tokens."""
    found = {}
    for tag, documents in texts.items():
        lines = [document.text for document in documents]
        ids = torch.tensor([index for one in encode_texts(tokenizer, lines) for index in one.ids])
        found[tag] = int((pack.moved(ids) < 0).sum()), len(ids)
    return found


def timed(config: Config, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Corpus) -> Timed:
    """Greedy answers to the beginnings of three texts."""
    seconds, n_bytes = 0.0, 0
    for documents in list(texts.values())[:3]:
        prompt = documents[0].text[:40]
        ids = torch.tensor([tokenize_prompt(tokenizer, prompt)])
        began = time.process_time()
        answer: Any = model.generate(  # pyright: ignore[reportCallIssue]
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=config.generate,
            min_new_tokens=config.generate,
        )
        seconds += time.process_time() - began
        n_bytes += len(str(tokenizer.decode(answer[0, ids.shape[1] :])).encode())
    return Timed(seconds, n_bytes)


def extended(
    config: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    language: str,
    seed: int,
    pairs: dict[str, list[str]],
) -> list[dict[str, Any]]:
    """One row a way to begin, and one for the model without new entries."""
    texts = sample(config, (language,), "train", config.learn_bytes, seed)
    unseen = sample(config, (language,), "valid", config.score_bytes, seed)
    new = new_entries(tokenizer, texts, rows=token_tables(model).rows, size=config.size)
    shared = {"job": "extend", "language": language, "seed": seed, "size": len(new.ids)}
    tokens = [len(ids) for ids in (every_id(tokenizer, unseen), every_id(new.successor, unseen))]
    (before,) = bits_per_byte(model, tokenizer, unseen).values()
    rows: list[dict[str, Any]] = [{**shared, "init": "none", "bits_per_byte": before, "tokens": tokens[0]}]
    for name in config.inits:
        began = time.process_time()
        translations = check_pairs(name, pairs if name in TRANSLATED else None, "en", texts)
        pack = pack_of(model, new, "extend", name, translations=translations, seed=seed)
        spent = time.process_time() - began
        with pack.applied(model):
            (after,) = bits_per_byte(model, pack.tokenizer, unseen).values()
        row = {
            **shared,
            "init": name,
            "bits_per_byte": after,
            "tokens": tokens[1],
            "processor_seconds": round(spent, 1),
        }
        if name in TRANSLATED:
            row["alignment"] = pack.parameters["alignment"]
        rows.append(row)
    return rows


def every_id(tokenizer: PreTrainedTokenizerBase, texts: Corpus) -> list[int]:
    """All tokens of a text."""
    lines = [document.text for documents in texts.values() for document in documents]
    return [index for one in encode_texts(tokenizer, lines) for index in one.ids]


if __name__ == "__main__":
    run_experiment(Config, run)
