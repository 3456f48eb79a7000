"""What the lens says after a prompt: entries that begin the right word, and their probability at each depth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Bool, Float, Float64, Int64, Tensor
from babelscope.corpus import Batch, Document, pad_of, tokenize_documents
from babelscope.errors import MeasurementError
from babelscope.languages import Language
from babelscope.models import Layout
from babelscope.probes.lens.logit_lens import lens_logits
from babelscope.probes.lens.translators import Translators
from babelscope.probes.lens.word_lists import Words, word_beginnings
from babelscope.probes.lens.word_prefixes import prefix_index
from babelscope.probes.streams import depth_sites
from babelscope.recording.walk import walk
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.sites import Site

CountedTokens = Literal["first", "prefixes"]
"""Which entries count as a word: the first token of it, or all that are a prefix of it, as published."""


class AnswerTokens(NamedTuple):
    """Tokens that begin each concept's word in each language; within a concept no token is two languages'."""

    entries: Int64[Tensor, " entry"]
    """Of the vocabulary: all that begin some word."""
    member: Bool[Tensor, "concept language entry"]


def answer_tokens(
    tokenizer: PreTrainedTokenizerBase,
    words: Words,
    concepts: Sequence[str],
    languages: Sequence[Language],
    entries: CountedTokens = "first",
) -> AnswerTokens:
    """Entries that begin each word, with and without a space before it; those of two languages are nobody's.

    entries: the first token as the tokenizer cuts the word, or all entries that are a prefix of it.
    """
    begin = prefix_index(tokenizer, len(tokenizer)).of if entries == "prefixes" else partial(word_beginnings, tokenizer)
    begins = [[begin(words[name][tag]) if tag in words[name] else set() for tag in languages] for name in concepts]
    used = sorted({token for row in begins for tokens_of_word in row for token in tokens_of_word})
    claimed = torch.tensor([[[token in tokens_of_word for token in used] for tokens_of_word in row] for row in begins])
    claimed = claimed.reshape(len(concepts), len(languages), len(used)).bool()
    return AnswerTokens(torch.tensor(used, dtype=torch.int64), claimed & (claimed.sum(dim=1, keepdim=True) == 1))


def read_answers(
    layout: Layout,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    entries: Int64[Tensor, " entry"],
    translators: Translators | None,
) -> tuple[Float64[Tensor, "prompt depth entry"], list[int]]:
    """Probability of these entries after each prompt at each depth, and the model's own choice."""
    prompt_texts = [Document(str(number), prompt) for number, prompt in enumerate(prompts)]
    documents = tokenize_documents(tokenizer, prompt_texts, 0, max_length=100_000)
    answers = PromptAnswers.zeros(layout, entries, translators, len(prompts))
    walk(layout, [documents], [answers], pad=pad_of(tokenizer))
    return answers.probability, answers.top.tolist()


@dataclass(frozen=True, eq=False)
class PromptAnswers:
    """What the lens says after each of some numbered prompts."""

    layout: Layout
    entries: Int64[Tensor, " entry"]
    translators: Translators | None
    probability: Float64[Tensor, "prompt depth entry"]
    top: Int64[Tensor, " prompt"]
    """The entry that the model itself would choose."""

    @classmethod
    def zeros(
        cls, layout: Layout, entries: Int64[Tensor, " entry"], translators: Translators | None, prompts: int
    ) -> "PromptAnswers":
        """No prompt read yet."""
        probability = torch.zeros(prompts, layout.n_layers + 1, len(entries), dtype=torch.float64)
        return cls(layout, entries, translators, probability, torch.zeros(prompts, dtype=torch.int64))

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """Each prompt's last token at every depth."""

        def last_rows(batch: Batch, site_value: SiteValue) -> Float[Tensor, "batch hidden"]:
            last = batch.attention_mask.sum(dim=1) - 1
            return site_value.value[torch.arange(len(last)), last.to(site_value.value.device)]

        return dict.fromkeys(depth_sites(self.layout), last_rows)

    def measure(
        self, batch: Batch, values: dict[Site, Tensor], hidden: Tensor
    ) -> tuple[Float64[Tensor, "batch depth entry"], Int64[Tensor, " batch"]]:
        """The entries' probabilities, and the model's choice; raises MeasurementError at NaN or infinity."""
        probabilities: list[Tensor] = []
        p = torch.empty(0)
        for depth, rows in enumerate(values.values()):
            logits = lens_logits(self.layout, rows, self.translators, depth).float()
            if not bool(torch.isfinite(logits).all()):
                raise MeasurementError("the lens gave NaN or infinity; expected numbers; check the weights and dtype")
            p = torch.softmax(logits, dim=-1)
            probabilities.append(p[:, self.entries.to(p.device)].double().cpu())
        return torch.stack(probabilities, dim=1), p.argmax(dim=1).cpu()

    def add(self, batch: Batch, values: tuple[Tensor, Tensor]) -> None:
        """Put a batch's prompts into their places."""
        self.probability[batch.places], self.top[batch.places] = values
