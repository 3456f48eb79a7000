"""Prompts that are continued or answered: made of a corpus, plain or for a chat template, and their token ids."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.corpus import (
    Corpus,
    Message,
    Messages,
    asked,
    pad_of,
    pad_rows,
    rendered,
    tokenize_prompts,
)
from babelscope.languages import Language

log = logging.getLogger(__name__)


class Prompt(NamedTuple):
    """The beginning of a document, or messages to be answered."""

    id: str
    """The document's id: in parallel text the same sentence in every language."""
    source: Language
    text: str
    """What is continued; of a chat what the user says last."""
    messages: tuple[Message, ...] = ()
    """For the model's own chat template, up to where its answer begins; none for plain text."""
    begun: str = ""
    """Of a chat: the first words of the answer, which the model goes on from; they are no part of the Answer."""

    @classmethod
    def chat(cls, id: str, source: Language, messages: Messages, *, system: str | None = None) -> "Prompt":
        """A prompt for the model's chat template; a text is the user's message, and a system prompt goes first.

        Raises ChatError for what is no list of messages that asks for an answer.
        """
        turns = asked(messages, system=system, where=f"prompt {id}")
        return cls(id, source, turns[-1].content, turns)

    def with_text(self, text: str) -> "Prompt":
        """The same with another text, also as the user's last message."""
        last = self.messages[-1:]
        turns = (*self.messages[:-1], *(message._replace(content=text) for message in last))
        return self._replace(text=text, messages=turns)


def make_prompts(
    corpus: Corpus, *, per_language: int, share: float = 0.5, start: int = 0, longest: int = 400
) -> list[Prompt]:
    """The first `share` of the letters of some documents of each language, cut at a space where there is one.

    longest: letters of a document at most; the rest is as if it were not there.
    """
    prompts = []
    for tag, documents in corpus.items():
        for document in documents[start : start + per_language]:
            text = document.text[:longest]
            text = text[: max(1, round(len(text) * share))]
            head = text.rsplit(" ", 1)[0] if " " in text else text
            prompts.append(Prompt(document.id, tag, head))
    return prompts


def make_questions(corpus: Corpus, *, per_language: int, start: int = 0, system: str | None = None) -> list[Prompt]:
    """Whole documents of each language as a user's messages, for the model's chat template.

    system: a system prompt before each. A document that is a conversation is asked as it is, without its last answer.
    """
    prompts = []
    for tag, documents in corpus.items():
        for document in documents[start : start + per_language]:
            messages: Messages = document.text
            if document.conversation is not None:
                turns = document.conversation.messages
                messages = turns[:-1] if turns[-1].role == "assistant" else turns
            prompts.append(Prompt.chat(document.id, tag, messages, system=system))
    return prompts


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Ids of each prompt: of a chat those of the model's template, of plain text with BOS once in front."""
    plain = iter(tokenize_prompts(tokenizer, [prompt.text for prompt in prompts if not prompt.messages]))
    typed, rows = 0, []
    for prompt in prompts:
        if prompt.messages:
            chat_prompt = rendered(tokenizer, prompt.messages, reply=True, begun=prompt.begun)
            typed += chat_prompt.typed
            rows.append(list(chat_prompt.ids))
        else:
            rows.append(next(plain))
    if typed:
        log.warning("%d control tokens are typed in the messages of the prompts; they are read as text", typed)
    return rows


def left_pad(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str | Prompt], *, rendered: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask of prompts padded on the left; BOS exactly once where the tokenizer has one.

    rendered: the texts were written by the model's chat template already; see `tokenize_prompts`.
    """
    if rendered:
        texts = [prompt if isinstance(prompt, str) else prompt.text for prompt in prompts]
        return pad_rows(tokenize_prompts(tokenizer, texts, rendered=True), pad_of(tokenizer))
    no_language = Language("und")
    rows = prompt_ids(tokenizer, [p if isinstance(p, Prompt) else Prompt("", no_language, p) for p in prompts])
    return pad_rows(rows, pad_of(tokenizer))
