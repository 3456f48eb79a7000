"""Messages through a model's own chat template: their ids, and which of them are whose words.

A template is run, never imitated. Where its output holds which message is found by running it a second time with marks
in place of the words: what stands between the marks is the template's own.
"""

import logging
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.corpus.encoding import begin_text, encode_texts, prefix_of, special_ids
from babelscope.corpus.messages import Message, Messages, as_messages, asked
from babelscope.corpus.template_bounds import within_bounds
from babelscope.errors import ChatError

log = logging.getLogger(__name__)
OF_TEMPLATES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError, MemoryError)
"""What Python raises for an expression of a template."""
MARK = re.compile("\ue000([0-9]+)\ue001")
"""Private letters, which text that is handed over does not use."""


class Span(NamedTuple):
    """Where the words of one message stand in a rendered conversation."""

    message: int
    """Its place in the conversation."""
    start: int
    end: int
    """In characters, end left out."""


class RenderedChat(NamedTuple):
    """A conversation as the model reads it."""

    text: str
    """What the template wrote; BOS is in it where the template writes one."""
    ids: tuple[int, ...]
    """The template's own ids; a control token that somebody typed into a message is in them as plain text."""
    offsets: tuple[tuple[int, int], ...] | None
    """Characters of each token in the text; None where the tokenizer does not say them."""
    spans: tuple[Span, ...]
    """Each message's words, in order; empty where the template writes them in another form."""
    typed: int
    """Control tokens that were typed into messages."""


def render_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Messages | str, *, system: str | None = None
) -> RenderedChat:
    """Messages rendered by the model's own template, up to where its answer begins.

    messages: a text (the user's), Messages, or mappings with role and content; system: put before them.
    The ids equal `tokenizer.apply_chat_template(messages, add_generation_prompt=True)`, BOS as the template has it and
    never twice. Control tokens typed into a message are text, counted in `typed` and logged.
    Raises ChatError for a tokenizer without a template, for messages that the template refuses or leaves out.
    """
    chat = rendered(tokenizer, asked(messages, system=system), reply=True)
    if chat.typed:
        log.warning("%d control tokens are typed in messages; they are read as text", chat.typed)
    return chat


def render_whole(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> RenderedChat:
    """A conversation that is over, rendered by the model's own template; errors as in `render_chat`."""
    return rendered(tokenizer, as_messages(messages), reply=False)


def rendered(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], *, reply: bool, begun: str = ""
) -> RenderedChat:
    """Run the template, find the words in its output, and tokenize it; begun: the first words of the answer."""
    text = run_template(tokenizer, turns, reply=reply)
    spans = find_words(tokenizer, turns, text, reply=reply)
    places = typed_controls(tokenizer, turns, text, spans)
    text += begun
    ids, offsets = encode(tokenizer, text, places)
    return RenderedChat(text, ids, offsets, spans, len(places))


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ChatError for a tokenizer without a chat template."""
    template: Any = tokenizer.chat_template
    if not template:
        raise ChatError(
            f"{tokenizer.name_or_path or 'the tokenizer'}: no chat template; expected a chat model's tokenizer; give "
            "the texts without --chat (messages), or set tokenizer.chat_template"
        )
    if isinstance(template, dict) and "default" not in template:
        raise ChatError(
            f"the tokenizer has chat templates {', '.join(template)}; expected one named default; set "
            "tokenizer.chat_template to the one that is meant"
        )


def run_template(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], *, reply: bool) -> str:
    """The template's text of some messages; raises ChatError where there is none, or where it refuses them."""
    from jinja2 import TemplateError

    check_template(tokenizer)
    rows = [turn.as_dict() for turn in turns]
    try:
        return within_bounds(
            lambda: str(tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=reply))
        )
    except (TemplateError, *OF_TEMPLATES) as err:
        roles = ", ".join(turn.role for turn in turns)
        reason = " ".join(str(err).split()) or type(err).__name__
        # What a template raises on purpose is a bare TemplateError; all else is a fault of the template itself.
        if type(err) is not TemplateError:
            raise ChatError(
                f"the model's chat template is broken: on messages of {roles} it ends in {type(err).__name__} "
                f"({reason}); expected a template that renders them; set tokenizer.chat_template to one that does"
            ) from err
        advice = (
            "put the system prompt into the first user message, or leave it out"
            if turns[0].role == "system"
            else "begin with the user and take turns"
        )
        raise ChatError(
            f"the model's chat template refuses messages of {roles} ({reason}); expected roles that it knows; {advice}"
        ) from err


def find_words(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], text: str, *, reply: bool
) -> tuple[Span, ...]:
    """Where each message's words stand in the template's text; empty where it does not write them as they are.

    Raises ChatError for a message that the template leaves out without a word, as some do with system prompts.
    """
    marked = [Message(turn.role, f"\ue000{number}\ue001") for number, turn in enumerate(turns)]
    parts = MARK.split(run_template(tokenizer, marked, reply=reply))
    numbers = [int(number) for number in parts[1::2]]
    written = {*numbers} == {*range(len(turns))}
    if written and (spans := follow(parts[::2], numbers, turns, text)):
        return spans
    for number, turn in enumerate(turns):
        # Its words may stand in the template's own text: what is left out is told by other words in its place.
        changed_turns = [*turns[:number], marked[number], *turns[number + 1 :]]
        if run_template(tokenizer, changed_turns, reply=reply) == text:
            raise ChatError(
                f"the model's chat template leaves out message {number + 1} of {len(turns)}, of role {turn.role}; "
                "expected one that it writes; name a role that it knows, or put its words into a user message"
            )
    return ()


def follow(pieces: Sequence[str], numbers: Sequence[int], turns: Sequence[Message], text: str) -> tuple[Span, ...]:
    """Spans from the template's own pieces and the words between them; words may be stripped, and nothing else."""
    if not text.startswith(pieces[0]):
        return ()
    spans, place = [], len(pieces[0])
    for number, piece in zip(numbers, pieces[1:], strict=True):
        words = turns[number].content
        forms = (words, words.rstrip(), words.lstrip(), words.strip())
        fits = [form for form in forms if text.startswith(form + piece, place)]
        if not fits:
            return ()
        spans.append(Span(number, place, place + len(fits[0])))
        place += len(fits[0]) + len(piece)
    return tuple(spans) if place == len(text) else ()


def typed_controls(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], text: str, spans: Sequence[Span]
) -> list[tuple[int, int]]:
    """Characters of the control tokens that stand in messages' words, from left to right.

    Raises ChatError where there are some and the template does not write the words as they are.
    """
    names = [str(name) for name in tokenizer.convert_ids_to_tokens(sorted(special_ids(tokenizer)))]
    any_name = re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True) if name))
    if not names or not any(any_name.search(turn.content) for turn in turns):
        return []
    if not spans:
        raise ChatError(
            "control tokens are typed in a message, and the model's chat template rewrites its words; expected plain "
            "text; take them out"
        )
    return [
        (span.start + match.start(), span.start + match.end())
        for span in spans
        for match in any_name.finditer(text[span.start : span.end])
    ]


def encode(
    tokenizer: PreTrainedTokenizerBase, text: str, typed: Sequence[tuple[int, int]]
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...] | None]:
    """Ids and characters of a rendered text; what stands at `typed` is no control token. None for characters where
    the tokenizer does not say them.
    """
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    cuts = [0, *(place for pair in typed for place in pair), len(text)]
    for part, (start, end) in enumerate(pairwise(cuts)):
        (encoded,) = encode_texts(tokenizer, [text[start:end]], rendered=part % 2 == 0)
        ids += encoded.ids
        if encoded.encoding is not None:
            offsets += [(start + first, start + last) for first, last in encoded.encoding.offsets]
    # What begins a text stands once, also where the template writes it twice.
    extra = len(ids) - len(begin_text(prefix_of(tokenizer), ids, rendered=True))
    return tuple(ids[extra:]), tuple(offsets[extra:]) if len(offsets) == len(ids) else None


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The control token with which the template ends an answer; None where it ends it with none."""
    chat = render_whole(tokenizer, [Message("user", "a"), Message("assistant", "b")])
    if not chat.spans or chat.offsets is None:
        return None
    end, special = chat.spans[-1].end, special_ids(tokenizer)
    after = [number for number, (start, _) in zip(chat.ids, chat.offsets, strict=True) if start >= end]
    return after[0] if after and after[0] in special else None
