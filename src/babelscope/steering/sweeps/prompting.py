"""Baselines that steer by words alone: an instruction, or examples, before the prompt."""

import random
from collections.abc import Sequence
from typing import Literal

from babelscope.corpus import Corpus, Document
from babelscope.errors import CorpusError, LanguageError
from babelscope.languages import Language
from babelscope.steering.sweeps.steering_prompts import Prompt

ANSWER_IN: dict[str, str] = {
    "ar": "أجب بالعربية.",
    "bg": "Отговори на български.",
    "ca": "Respon en català.",
    "cs": "Odpověz česky.",
    "cy": "Ateb yn Gymraeg.",
    "de": "Antworte auf Deutsch.",
    "en": "Answer in English.",
    "eo": "Respondu en Esperanto.",
    "es": "Responde en español.",
    "et": "Vasta eesti keeles.",
    "eu": "Erantzun euskaraz.",
    "fa": "به فارسی پاسخ بده.",
    "fi": "Vastaa suomeksi.",
    "fr": "Réponds en français.",
    "hi": "हिंदी में उत्तर दो।",
    "hu": "Válaszolj magyarul.",
    "id": "Jawab dalam bahasa Indonesia.",
    "it": "Rispondi in italiano.",
    "ja": "日本語で答えてください。",
    "ko": "한국어로 대답해 주세요.",
    "nl": "Antwoord in het Nederlands.",
    "pl": "Odpowiedz po polsku.",
    "pt": "Responde em português.",
    "ru": "Отвечай по-русски.",
    "sw": "Jibu kwa Kiswahili.",
    "tr": "Türkçe cevap ver.",
    "uk": "Відповідай українською.",
    "vi": "Hãy trả lời bằng tiếng Việt.",
    "zh": "请用中文回答。",
}
"""Each language's own words for it, for every language that answers can be recognised in."""

Request = tuple[Prompt, Language]


def instructed(requests: Sequence[Request], *, place: Literal["before", "after"] = "after") -> list[Request]:
    """The same requests with "answer in …", in the target's own language, before or after the text.

    Raises LanguageError for a target without such words.
    """
    unknown = sorted({target for _, target in requests if target not in ANSWER_IN})
    if unknown:
        raise LanguageError(
            f"no instruction is known in {', '.join(unknown)}; expected one of {', '.join(ANSWER_IN)}; "
            "put your own words before the prompts"
        )
    written = []
    for prompt, target in requests:
        parts = (ANSWER_IN[target], prompt.text) if place == "before" else (prompt.text, ANSWER_IN[target])
        written.append((prompt.with_text(" ".join(parts)), target))
    return written


def few_shot(requests: Sequence[Request], examples: Corpus, *, shots: int = 3, seed: int = 0) -> list[Request]:
    """The same requests after examples of what is wanted: beginnings in the prompt's language, ends in the target's.

    examples: parallel text that shares no document with the prompts; each request draws its own documents. The cut is
    at half the letters, as in `make_prompts`. Documents are joined by single spaces, for they have no line ends.
    Raises CorpusError for text that is not parallel, has fewer documents than shots, or lacks a language.
    """
    needed = sorted({tag for prompt, target in requests for tag in (prompt.source, target)} - {*examples})
    if needed:
        raise CorpusError(
            f"{examples.name}: no text in {', '.join(needed)}, which a prompt or target is in; expected examples in "
            "every language asked for; add them"
        )
    if not examples.parallel or min(len(documents) for documents in examples.values()) < shots:
        raise CorpusError(
            f"{examples.name}: expected parallel text (ids, or parallel=True) of at least {shots} documents"
        )
    rng, written = random.Random(seed), []
    for prompt, target in requests:
        chosen = rng.sample(range(len(examples[target])), shots)
        lines = [_switched(examples[prompt.source][row], examples[target][row]) for row in chosen]
        written.append((prompt.with_text(" ".join([*lines, prompt.text])), target))
    return written


def _switched(first: Document, second: Document) -> str:
    """The first half of one text and the second half of another."""
    head, tail = first.text[: round(len(first.text) / 2)], second.text[round(len(second.text) / 2) :]
    head = head.rsplit(" ", 1)[0] if " " in head else head
    tail = tail.split(" ", 1)[1] if " " in tail else tail
    return f"{head} {tail}"
