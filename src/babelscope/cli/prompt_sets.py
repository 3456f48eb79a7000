"""Prompts that `evaluate` asks: lines, rows, and the public sets, plain or as messages to a chat model."""

import logging
from pathlib import Path
from typing import Any, Literal, NamedTuple

from babelscope.cli.asking import read_prompts
from babelscope.cli.readable import number_of
from babelscope.errors import ChatError, CorpusError
from babelscope.evaluation import SetAnswer, SetPrompt, load_prompts
from babelscope.languages import Language
from babelscope.models import open_model
from babelscope.steering.sweeps import Decoding, Prompt, generate_answers, overridden_settings

log = logging.getLogger(__name__)
PromptSet = Literal["lines", "language_confusion", "clas"]


class ModelAnswers(NamedTuple):
    """Answers to a set, and how they were not drawn."""

    texts: list[SetAnswer]
    overridden: dict[str, Any]
    """See `overridden_settings`; empty for answers that came in files."""


def prompts_of(
    name: str, kind: PromptSet, target: Language, sources: tuple[str, ...], *, chat: bool = False, system: str = ""
) -> list[Prompt]:
    """What is to be answered in the target language."""
    no_language = Language("und")
    if kind == "lines":
        if not Path(name).is_file():
            raise CorpusError(f"{name}: no such file; expected a file of prompts; correct the path or --prompt-set")
        return read_prompts([name], chat=chat, system=system)
    if kind == "language_confusion":
        prompts = load_prompts(name, kind=kind, languages=[target])
        # The answer's language is known, not the prompt's: crosslingual ones are written in English.
        numbered = [("/".join(filter(None, (p.task, p.set, p.id))), no_language, p) for p in prompts]
    else:
        questions = load_prompts(name, kind=kind, languages=sources or None)
        numbered = [(f"{p.language}/{p.id}", p.language, p) for p in questions if sources or p.language != target]
    if not numbered:
        raise CorpusError(f"{name}: all questions are in {target}, the target; expected other languages; add --sources")
    log.info("%s: %s", name, number_of(len(numbered), "prompt"))
    return [set_prompt(number, source, prompt, chat, system) for number, source, prompt in numbered]


def set_prompt(number: str, source: Language, prompt: SetPrompt, chat: bool, system: str) -> Prompt:
    """A prompt of a set as one that is answered; raises ChatError for messages without --chat."""
    if prompt.messages and not chat:
        raise ChatError(f"prompt {number}: messages came; expected text to continue; add --chat to have them answered")
    if not chat:
        return Prompt(number, source, prompt.text)
    return Prompt.chat(number, source, prompt.messages or prompt.text, system=system or None)


def answers_of(
    model: str,
    name: str,
    languages: tuple[str, ...],
    decoding: Decoding,
    device: str,
    dtype: str,
    *,
    chat: bool = False,
    system: str = "",
) -> ModelAnswers:
    """The model's own answers to a Language Confusion prompt set."""
    prompts = load_prompts(name, kind="language_confusion", languages=languages or None)
    log.info("%s: %s", name, number_of(len(prompts), "prompt"))
    requests = [(set_prompt(p.id, p.language, p, chat, system), p.language) for p in prompts]
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    answers = generate_answers(language_model, tokenizer, requests, decoding=decoding, progress=name)
    texts = [
        SetAnswer(p.set, p.id, p.language, answer.text, p.task) for p, answer in zip(prompts, answers, strict=True)
    ]
    return ModelAnswers(texts, overridden_settings(language_model, decoding))
