"""What a change of language should leave alone: numbers, names and code of the prompt, found again in the answer."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from babelscope.errors import MeasurementError, refuse_one_text
from babelscope.evaluation.content import Measured, bootstrap_mean

Copied = Literal["number", "name", "code"]
CODE = re.compile(r"```.*?```|`[^`\n]+`|\b\w+\(\)|\b[A-Za-z]\w*_\w+\b|\b[a-z]+[A-Z]\w*\b|https?://\S+", re.DOTALL)
NUMBER = re.compile(r"\d(?:[\d.,\u066b\u066c\u2019'\u00a0\u202f]*\d)?")
NAME = re.compile(r"(?<![A-Za-z])[A-Z][A-Za-z]*[A-Za-z](?:-[A-Z][a-z]+)*")
SENTENCE_START = re.compile(r"(?:^|[.!?:;。！？\n\"“«(])\s*$")


class CopiedShares(NamedTuple):
    """Shares of what stood in prompts and stands in their answers."""

    number: Measured
    """Numbers: their digits, in any script, without separators."""
    name: Measured
    """Words in Latin letters with a capital in mid-sentence, as they are written."""
    code: Measured
    """Spans in backticks, addresses, and words such as `a_b`, `aB`, `f()`, as they are written."""


def copyable(text: str) -> dict[Copied, Counter[str]]:
    """The numbers, names and code of a text; code is taken out first, then numbers are read, then names."""
    code = Counter(snippet.strip("`").strip() for snippet in CODE.findall(text))
    prose = CODE.sub(" ", text)
    numbers = Counter(_digits(digits) for digits in NUMBER.findall(prose))
    names = Counter(
        match.group() for match in NAME.finditer(prose) if not SENTENCE_START.search(prose[: match.start()])
    )
    return {"number": numbers, "name": names, "code": code}


def _digits(number: str) -> str:
    """Digits of any script as 0–9, separators dropped: 1,234.5 and ١٬٢٣٤٫٥ are both 12345."""
    return "".join(str(unicodedata.digit(c)) for c in number if c.isdigit())


def kept_shares(
    prompts: Sequence[str], answers: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> CopiedShares:
    """For each kind the mean over prompts that have any of the share that stands in the answer as well.

    Only for prompts that ask for a copy, such as a translation or a summary: elsewhere nothing need be kept. A thing
    that stands twice must be there twice. German capitals on common nouns count as names, in mid-sentence.
    The interval redraws prompts; a kind that no prompt has is NaN with n = 0.
    Raises MeasurementError unless there is one answer per prompt.
    """
    for texts, what in ((prompts, "prompts"), (answers, "answers")):
        refuse_one_text(texts, what, MeasurementError)
    if len(prompts) != len(answers):
        raise MeasurementError(f"{len(answers)} answers came for {len(prompts)} prompts; expected one each")
    shares_by_kind: dict[Copied, Measured] = {}
    copyables = [copyable(prompt) for prompt in prompts]
    for kind in get_args(Copied):
        shares = [
            _share(copyable_things[kind], _present(kind, answer, copyable_things[kind]))
            for copyable_things, answer in zip(copyables, answers, strict=True)
            if copyable_things[kind]
        ]
        shares_by_kind[kind] = bootstrap_mean(shares, resamples=resamples, seed=seed)
    return CopiedShares(**shares_by_kind)


def _present(kind: Copied, answer: str, expected: Counter[str]) -> Counter[str]:
    """How often each wanted thing is in an answer; names and code anywhere as whole words, even at its beginning."""
    if kind == "number":
        return Counter(_digits(digits) for digits in NUMBER.findall(answer))
    # No \b: in scripts without spaces a name touches the letters beside it.
    return Counter({w: len(re.findall(rf"(?<![A-Za-z0-9_]){re.escape(w)}(?![A-Za-z0-9_])", answer)) for w in expected})


def _share(expected: Counter[str], present: Counter[str]) -> float:
    return (expected & present).total() / expected.total()
