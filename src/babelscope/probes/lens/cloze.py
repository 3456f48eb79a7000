"""Sentences with a gap under the lens: in which language does the word that fills it appear first?"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from babelscope.corpus.table_rows import numbered_rows
from babelscope.errors import CorpusError, LanguageError, MeasurementError
from babelscope.languages import Language, parse_languages
from babelscope.models.plain import CausalModel
from babelscope.probes.lens.translations import LatentTranslation, WordPrompt, latent_answers
from babelscope.reference import CLOZE

GAP = "___"
"""Where the word is missing in a sentence."""
PARTS = ("label", "sentence", "word")


@dataclass(frozen=True, eq=False)
class ClozeTask:
    """Sentences with a gap and the words that fill it, in several languages."""

    name: str
    languages: tuple[Language, ...]
    label: Mapping[Language, str]
    """What stands before the word, such as "Answer:"."""
    sentences: Mapping[str, Mapping[Language, str]]
    """By concept; each has the gap once."""
    words: Mapping[str, Mapping[Language, str]]
    """By concept."""


def read_cloze(path: str | Path) -> ClozeTask:
    """Sentences with a gap from a table.

    path: "reference": 44 nouns in six languages, written for babelscope and unreviewed by native speakers. A file: tabs
    between cells; `part`, `name` and language tags in the first line; then a line `label` with what stands before an
    answer, and for each concept a line `sentence` with ___ in the place of the word and a line `word`, in any order. An
    empty cell is not known. Raises CorpusError for a table that is not of this form, LanguageError for a bad tag.
    """
    file = CLOZE if path == "reference" else Path(path)
    (_, header), *lines = numbered_rows(file)
    if header[:2] != ["part", "name"] or len(header) < 3:
        raise CorpusError(
            f"{file}: begins with {header[:3]}; expected part, name and language tags, with tabs between them; see "
            "`read_cloze`"
        )
    tags = parse_languages(header[2:])
    parts: dict[str, dict[str, dict[Language, str]]] = {part: {} for part in PARTS}
    for number, row in lines:
        at = f"{file}, line {number}"
        if row[0] not in parts or len(row) != len(header):
            raise CorpusError(
                f"{at}: part {row[0]!r} with {len(row)} cells; expected one of {', '.join(PARTS)} with {len(header)}; "
                "correct it"
            )
        part, name, *cells = row
        if name in parts[part]:
            raise CorpusError(f"{at}: {part} {name!r} came before; expected it once; remove one")
        parts[part][name] = {tag: cell for tag, cell in zip(tags, cells, strict=True) if cell}
        bad = [cell for cell in cells if part == "sentence" and cell and cell.count(GAP) != 1]
        if bad:
            raise CorpusError(f"{at}: {bad[0]!r} has {bad[0].count(GAP)} gaps; expected one {GAP}; correct it")
    if len(parts["label"]) != 1 or set(parts["sentence"]) != set(parts["word"]):
        lacking = sorted(set(parts["sentence"]) ^ set(parts["word"]))
        raise CorpusError(
            f"{file}: {len(parts['label'])} labels, {', '.join(lacking[:1]) or 'no concept'} without sentence or word; "
            "expected one label, and both for each concept; add them"
        )
    (label,) = parts["label"].values()
    return ClozeTask(str(file), tags, label, parts["sentence"], parts["word"])


def cloze_prompts(task: ClozeTask, language: str, *, shots: int = 4, seed: int = 0) -> list[WordPrompt]:
    """One prompt a concept: `shots` lines `A "___" is an animal that barks. Answer: "dog"`, then the open one.

    The shots are drawn anew for each prompt, never the sentence that is asked.
    Raises LanguageError for a language without a label, MeasurementError for too few sentences.
    Source: Wendler et al. 2024, arXiv:2402.10588. Differs: these sentences, which are not theirs.
    """
    tag = Language.parse(language)
    if tag not in task.label:
        raise LanguageError(f"no sentence in {tag!r}; expected one of {', '.join(task.label)}; add a column")
    cases = {
        name: (f'{sentences[tag]} {task.label[tag]} "', task.words[name][tag])
        for name, sentences in task.sentences.items()
        if tag in sentences and tag in task.words[name]
    }
    if shots < 1 or len(cases) <= shots:
        raise MeasurementError(
            f"{len(cases)} sentences in {tag} for {shots} shots; expected a shot, and more sentences than shots"
        )
    rng, prompts = random.Random(seed), []
    for name, (question, _) in cases.items():
        examples = rng.sample([case for other_name, case in cases.items() if other_name != name], shots)
        prompts.append(WordPrompt(name, "\n".join([*(f'{start}{word}"' for start, word in examples), question])))
    return prompts


def latent_cloze(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    task: ClozeTask,
    *,
    language: str,
    pivot: str = "en",
    shots: int = 4,
    seed: int = 0,
    **options: Any,
) -> LatentTranslation:
    """Where on its way does the word that fills a gap appear, and in which language first?

    language: of sentence and word. options, control and errors: as of `latent_translation`.
    """
    prompts = cloze_prompts(task, language, shots=shots, seed=seed)
    places: dict[str, Any] = {"source": language, "target": language, "pivot": pivot}
    return latent_answers(model, tokenizer, task.words, prompts, seed=seed, cloze=True, **places, **options)
