"""Messages of a conversation: what people write in files and hand over, checked once."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from babelscope.errors import ChatError

Counted = Literal["all", "user", "answer"]
"""Whose words count: everybody's, the user's, or the answers'."""
ROLES: Mapping[str, tuple[str, ...]] = {"all": (), "user": ("user",), "answer": ("assistant",)}
"""The roles that each choice counts; none stands for every role."""
ROW_KEYS = ("tools", "functions", "documents", "chat_template", "chat_template_kwargs")
"""What may stand beside messages and would change what a template writes."""
TURN_KEYS = ("tool_calls", "tool_call_id", "function_call", "reasoning_content", "reasoning", "thinking")
"""What may stand beside a turn's role and content, and would too."""
FORM = '{"messages": [{"role": "user", "content": "…"}, …]}'


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str
    """As the template knows it: "system", "user" or "assistant"."""
    content: str

    def as_dict(self) -> dict[str, str]:
        """As chat templates take it."""
        return {"role": self.role, "content": self.content}


class Conversation(NamedTuple):
    """Messages of a document, and whose words of them count."""

    messages: tuple[Message, ...]
    counted: Counted = "answer"

    @property
    def text(self) -> str:
        """The words that count, a message a line: for checks of language and counts of letters."""
        return "\n".join(message.content for message in self.messages if counts(message.role, self.counted))


Messages = Sequence[Any] | Mapping[str, Any]
"""Messages as a person hands them over: a list of Messages or of mappings with role and content, as chat templates
take it, or a mapping with such a list as `messages`; checked where they are read."""


def counts(role: str, counted: Counted) -> bool:
    """Whether a role's words count."""
    return counted == "all" or role in ROLES[counted]


def check_counted(counted: str) -> Counted:
    """The choice of what counts, or ChatError for another word."""
    if counted not in get_args(Counted):
        raise ChatError(f"conversation {counted!r} came; expected one of {', '.join(get_args(Counted))}; correct it")
    return counted  # pyright: ignore[reportReturnType]


def as_messages(value: Any, where: str = "messages") -> tuple[Message, ...]:
    """Messages in NFC from a list of mappings or Messages, or from a mapping that has such a list as `messages`.

    A `system` beside the list is the first message. Of other keys those that say nothing to a template, such as `id`
    or `weight`, are left out.
    where: what a fault is called, such as a file and line. Raises ChatError, in one line, for anything else: no
    message, a turn without role or text, the lists of parts that other layouts have, tools and calls of them.
    """
    system = ""
    if isinstance(value, Mapping):
        refuse_keys(value, ROW_KEYS, where)
        system, value = system_of(value, where), value.get("messages", value)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        received = f"fields {', '.join(map(str, value))}" if isinstance(value, Mapping) else _shown(value)
        raise ChatError(f"{where}: {received} came; expected {FORM}, or that list alone; correct it")
    turns = tuple(_as_message(turn, f"{where}, message {number}") for number, turn in enumerate(value, start=1))
    return with_system(turns, system, where) if system else turns


def refuse_keys(row: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    """Raise ChatError for keys that would change what a template writes, unless nothing is in them."""
    if present := [key for key in keys if row.get(key)]:
        raise ChatError(
            f"{where}: {', '.join(present)} came, which the chat template is not given here; expected messages with "
            "role and content; write the words into a message or the prompt, or leave the key out"
        )


def kind_name(value: Any) -> str:
    """What a message calls the kind of a value from a file: null, list, number …"""
    return "null" if value is None else type(value).__name__


def system_of(row: Mapping[str, Any], where: str) -> str:
    """The system prompt that stands in a row beside its messages or its prompt; empty where it has none."""
    system = row.get("system") or ""
    if not isinstance(system, str):
        raise ChatError(f"{where}: system is {kind_name(system)}; expected text; correct it or leave it out")
    return system if system.strip() else ""


def with_system(turns: Sequence[Message], system: str, where: str) -> tuple[Message, ...]:
    """Messages after a system prompt; raises ChatError where they begin with one already."""
    if turns[0].role == "system":
        raise ChatError(f"{where}: has a system message, and another one came; expected one; leave one of them out")
    return (*as_messages([Message("system", system)], "system prompt"), *turns)


def _as_message(turn: Any, where: str) -> Message:
    if isinstance(turn, Message):
        turn = turn.as_dict()
    if not isinstance(turn, Mapping):
        raise ChatError(f'{where}: {_shown(turn)} came; expected {{"role": "user", "content": "…"}}; correct it')
    refuse_keys(turn, TURN_KEYS, where)
    role, content = turn.get("role"), turn.get("content")
    if not isinstance(role, str) or not role or not isinstance(content, str):
        received = ", ".join(f"{key} ({type(value).__name__})" for key, value in turn.items()) or "nothing"
        raise ChatError(f"{where}: {received} came; expected a role and a content, both text; rewrite it so")
    try:
        f"{role}{content}".encode()
    except UnicodeEncodeError as err:
        raise ChatError(f"{where}: half a surrogate pair at character {err.start}; expected text; correct it") from err
    if not content.strip():
        raise ChatError(f"{where}: the {role}'s content is blank; expected text; write it or leave the turn out")
    return Message(role, unicodedata.normalize("NFC", content))


def _shown(value: Any) -> str:
    return "nothing" if value is None or value in ([], ()) else f"{type(value).__name__} {str(value)[:40]!r}"


def asked(value: Any, *, system: str | None = None, where: str = "messages") -> tuple[Message, ...]:
    """Messages that ask for an answer: a text is the user's one message; `system` goes first.

    Raises ChatError where a system message comes twice, or where the assistant has the last word.
    """
    messages = (Message("user", value),) if isinstance(value, str) else value
    turns = as_messages(messages, where)
    if turns[-1].role == "assistant":
        raise ChatError(f"{where}: the last message is the assistant's; expected one to be answered; leave it out")
    return turns if system is None else with_system(turns, system, where)
