"""Minimal pairs of a grammatical task in several languages, every token with the role that it plays."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.corpus import begin_text, encode_texts, prefix_of
from babelscope.errors import CorpusError, LanguageError
from babelscope.languages import Language
from babelscope.reference import CIRCUITS

COLUMNS = ("task", "language", "roles", "clean", "corrupt", "answer", "foil")
FEWEST = 3
"""Pairs of a task and language: two for the controls, and one to draw from."""


class TaskLine(NamedTuple):
    """One pair as text, cut into roles."""

    task: str
    language: Language
    roles: tuple[str, ...]
    clean: tuple[str, ...]
    """The parts of the prompt that `answer` continues, one a role."""
    corrupt: tuple[str, ...]
    """Of the prompt that `foil` continues."""
    answer: str
    foil: str


class RolePrompt(NamedTuple):
    """A prompt as tokens, what begins a text included."""

    ids: tuple[int, ...]
    roles: tuple[str, ...]
    """The role of every token; "" for what begins a text."""

    def places(self, role: str) -> list[int]:
        """Positions of the tokens that play a role."""
        return [place for place, name in enumerate(self.roles) if name == role]


class TaskPair(NamedTuple):
    """Two prompts that should be continued differently."""

    clean: RolePrompt
    corrupt: RolePrompt
    answer: int
    foil: int


def read_tasks(path: str | Path = "reference") -> dict[str, dict[str, list[TaskLine]]]:
    """Pairs by task and language from a table with tabs: task, language, roles, clean, corrupt, answer, foil.

    path: a file, or "reference" for the bundled tasks. Roles and the two prompts are cut by "|", into equally many
    parts; a space belongs to the part that it begins. Line i of a task and language means what line i of another
    language means, so that languages can be patched into each other.
    Raises CorpusError for a table that is not of this form, LanguageError for a bad tag.
    """
    file = CIRCUITS if path == "reference" else Path(path)
    try:
        rows = [line.split("\t") for line in file.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as err:
        raise CorpusError(f"{file}: unreadable ({err}); expected a table of prompts in UTF-8") from err
    if not rows or tuple(rows[0]) != COLUMNS:
        raise CorpusError(f"{file}: its first line is {rows[0] if rows else []}; expected {', '.join(COLUMNS)}")
    tasks: dict[str, dict[str, list[TaskLine]]] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(COLUMNS) or len({row[column].count("|") for column in (2, 3, 4)}) != 1:
            raise CorpusError(
                f"{file}, line {number}: expected {len(COLUMNS)} cells, and roles, clean and corrupt cut by | into "
                "equally many parts; correct it"
            )
        roles, clean, corrupt = (tuple(row[column].split("|")) for column in (2, 3, 4))
        line = TaskLine(row[0], Language.parse(row[1]), roles, clean, corrupt, row[5], row[6])
        tasks.setdefault(line.task, {}).setdefault(line.language, []).append(line)
    return tasks


def task_pairs(tokenizer: PreTrainedTokenizerBase, lines: Sequence[TaskLine]) -> list[TaskPair]:
    """Pairs of one task and language as tokens, in order; the first token of answer and foil is scored.

    Raises CorpusError where answer and foil begin with the same token, so that languages stay aligned line by line,
    and LanguageError for fewer than three pairs.
    """
    if len(lines) < FEWEST:
        raise LanguageError(f"{len(lines)} pairs came; expected at least {FEWEST}, others are the controls; add pairs")
    pairs = []
    for line in lines:
        answer, foil = (encoded.ids[0] for encoded in encode_texts(tokenizer, (line.answer, line.foil)))
        if answer == foil:
            raise CorpusError(
                f"{line.task}, {line.language}: {line.answer!r} and {line.foil!r} begin with the same token; expected "
                "two that this tokenizer tells apart; choose other words, or leave the language out"
            )
        clean, corrupt = (role_prompt(tokenizer, line.roles, parts) for parts in (line.clean, line.corrupt))
        pairs.append(TaskPair(clean, corrupt, answer, foil))
    return pairs


def role_prompt(tokenizer: PreTrainedTokenizerBase, roles: Sequence[str], parts: Sequence[str]) -> RolePrompt:
    """A prompt whose tokens play the role of the part that their last character is in.

    Raises CorpusError for a tokenizer that does not say where its tokens are in the text.
    """
    (encoded,) = encode_texts(tokenizer, ["".join(parts)])
    if encoded.encoding is None:
        raise CorpusError(
            f"this tokenizer ({type(tokenizer).__name__}) does not say where its tokens are; expected a fast one"
        )
    ends = list(accumulate(len(part) for part in parts))
    role_of = [
        roles[next((part for part, end in enumerate(ends) if stop <= end), len(ends) - 1)]
        for _, stop in encoded.encoding.offsets
    ]
    prefix = prefix_of(tokenizer)
    return RolePrompt(tuple(begin_text(prefix, encoded.ids)), ("",) * len(prefix) + tuple(role_of))


def aligned_places(taker: RolePrompt, giver: RolePrompt) -> list[tuple[int, int]]:
    """Positions of two prompts that play the same role: in each role that both have, counted from its last token.

    Prompts of one tokenization are aligned at every token; of a role that one cuts into more tokens than the other, the
    first ones have no partner.
    """
    pairs = []
    for role in dict.fromkeys(name for name in taker.roles if name):
        ends = taker.places(role)[::-1], giver.places(role)[::-1]
        pairs += list(zip(*ends, strict=False))
    return pairs
