"""At which depth a fact's object leads the other candidates, by language, and the vectors of the questions."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.functional import linear
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float, Float64, Tensor
from babelscope.controls import Interval, wilson_interval
from babelscope.corpus import Batch, TokenDocument
from babelscope.errors import MeasurementError
from babelscope.evaluation.continuations import Continuations
from babelscope.languages import Language, parse_languages
from babelscope.models import Layout, eval_mode, layout_of
from babelscope.models.plain import CausalModel, plain_weight
from babelscope.probes.knowledge.facts import FactTable
from babelscope.probes.knowledge.typed_ranking import BLANK, Question, entity_labels, question_tokens
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.probes.streams import depth_sites
from babelscope.progress import with_progress
from babelscope.recording.walk import walk
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.sites import Site


class LensPoint(NamedTuple):
    """How the lens ranks the right objects of one language at one depth."""

    language: Language
    site: Site
    facts: int
    first: float
    """Share of facts whose object's first token leads the first tokens of all candidates."""
    interval: Interval
    """Wilson's, 95 %, over facts."""
    rank: float
    """Mean of (rank - 1) / (first tokens - 1): 0 leads, 0.5 is chance."""
    chance: float
    """Mean of 1 / first tokens."""


@dataclass(frozen=True, eq=False)
class QuestionStreams:
    """The stream of each question at every depth: at its last token, and the mean over its tokens but the first."""

    layout: Layout
    streams: Float[Tensor, "question depth place hidden"]
    """place: the last token, the mean."""

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """The stream at every depth."""
        return dict.fromkeys(depth_sites(self.layout), last_and_mean)

    def add(self, batch: Batch, values: Mapping[Site, Tensor]) -> None:
        """Put a batch's questions into their places."""
        self.streams[batch.places] = torch.stack([values[site] for site in depth_sites(self.layout)], dim=1)


def last_and_mean(batch: Batch, site_value: SiteValue) -> Float[Tensor, "batch place hidden"]:
    """The stream at the last token of each row, and its mean over all but the first token, or over that one alone."""
    mask = batch.attention_mask.to(site_value.value.device)
    lengths = mask.sum(dim=1)
    last = site_value.value[torch.arange(len(lengths), device=lengths.device), lengths - 1]
    # The first token, BOS or not, is the one that others look at when they look at nothing. In middle layers it is so
    # long that a mean with it in says how many tokens there are, and little else.
    later = mask.clone()
    later[:, 0] = lengths == 1
    mean = (site_value.value * later[..., None]).sum(dim=1) / later.sum(dim=1, keepdim=True)
    return torch.stack([last, mean], dim=1).float().cpu()


def question_streams(layout: Layout, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "question depth place hidden"]:
    """One pass of some questions, each alone."""
    documents = [
        TokenDocument(0, str(place), tuple(ids), (True,) * len(ids), truncated=0, n_bytes=0)
        for place, ids in enumerate(prompts)
    ]
    streams = torch.zeros(len(prompts), layout.n_layers + 1, 2, layout.d_hidden)
    walk(layout, [documents], [QuestionStreams(layout, streams)])
    return streams


def question_vectors(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, table: FactTable, language: str, facts: Sequence[int]
) -> Float64[Tensor, "question hidden"]:
    """A vector per fact's question in one language: the mean stream at the middle depth, past the first token."""
    layout, tag = layout_of(model), Language.parse(language)
    questions = [question_of(table, at, tag) for at in facts]
    items = question_tokens(tokenizer, table, tag, questions)
    return question_streams(layout, [item.prompt for item in items])[:, (layout.n_layers + 1) // 2, 1].double()


def question_of(table: FactTable, fact: int, tag: Language) -> Question:
    """A fact as a question with its candidates."""
    entry = table.facts[fact]
    return Question(
        entry.relation, table.labels[entry.subject][tag], entity_labels(table, table.candidates(entry, tag), tag)
    )


@torch.no_grad()
def object_lens(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    table: FactTable,
    *,
    languages: Sequence[str] | None = None,
    progress: bool = False,
) -> list[LensPoint]:
    """How early each language's facts can be read: the logit lens at the last token of the question, at every depth.

    The lens's logits of the candidates' first tokens are compared, less the same where the subject is blank:
    logit(token | subject) - logit(token | ___), so that a frequent token gains nothing. Candidates with the same first
    token count as one. Where all begin alike, the token after what they share is read, behind the blank as behind the
    subject: a fact with other right answers has fewer candidates than its relation, which may share more.
    Source of the lens: nostalgebraist 2020; arXiv:2402.10588.
    """
    layout, points = layout_of(model), list[LensPoint]()
    tags = table.languages if languages is None else parse_languages(languages)
    for tag in with_progress(tags, unit="language", desc="lens of objects", shown=progress):
        places = table.asked(tag)
        questions = [question_of(table, at, tag) for at in places]
        blank_of = [question._replace(subject=BLANK) for question in questions]
        blanks = {question: number for number, question in enumerate(dict.fromkeys(blank_of))}
        items = [up_to_the_choice(item) for item in question_tokens(tokenizer, table, tag, [*blanks, *questions])]
        prompts = {prompt: number for number, prompt in enumerate(dict.fromkeys(item.prompt for item in items))}
        streams = question_streams(layout, [*prompts])
        ranks: list[list[float]] = [[] for _ in depth_sites(layout)]
        sizes = []
        for place, (at, blank) in enumerate(zip(places, blank_of, strict=True), start=len(blanks)):
            fact = table.facts[at]
            gold = items[place].following[table.candidates(fact, tag).index(fact.object)][0]
            tokens = sorted({ids[0] for ids in items[place].following})
            if len(tokens) < 2:
                continue
            sizes.append(len(tokens))
            rows = torch.stack([streams[prompts[items[row].prompt], :, 0] for row in (place, blanks[blank])])
            logits = first_token_logits(layout, rows, tokens)
            scores = (logits[0] - logits[1]).double()
            # A token that only ties leads nothing: before the first layer all are equal.
            better = ((scores >= scores[:, [tokens.index(gold)]]).sum(dim=1) - 1).tolist()
            for depth, count in enumerate(better):
                ranks[depth].append(count / (len(tokens) - 1))
        if not sizes:
            raise MeasurementError(
                f"{table.name}: no fact can be asked in {tag}; expected a template and labels; add them, or leave the "
                "language out"
            )
        for site, values in zip(depth_sites(layout), ranks, strict=True):
            points.append(lens_point(tag, site, values, sizes))
    return points


def up_to_the_choice(item: Continuations) -> Continuations:
    """The same with the tokens that all candidates begin with, such as one for a space, in the prompt."""
    shared = len(os.path.commonprefix([ids[:-1] for ids in item.following]))
    return Continuations((*item.prompt, *item.following[0][:shared]), tuple(ids[shared:] for ids in item.following))


def first_token_logits(
    layout: Layout, rows: Float[Tensor, "question depth hidden"], tokens: Sequence[int]
) -> Float[Tensor, "question depth token"]:
    """The lens's logits of some tokens: the rows of the head for these alone, as `lens_logits` gives them."""
    device = layout.device_of(Site(None, "logits"))
    weight = plain_weight(layout.head, what="the head")[[*tokens]].to(device)
    bias = layout.head.bias
    with eval_mode(layout.model):
        states = layout.final(rows.to(device, weight.dtype))
        scores = linear(states, weight, None if bias is None else bias[[*tokens]])
        return layout.logits_of(scores).float().cpu()


def lens_point(tag: Language, site: Site, ranks: Sequence[float], sizes: Sequence[int]) -> LensPoint:
    """Share, rank and chance of some facts at one depth."""
    n, hits = len(ranks), sum(rank == 0 for rank in ranks)
    chance = sum(1 / size for size in sizes) / n
    return LensPoint(tag, site, n, hits / n, wilson_interval(hits, n), sum(ranks) / n, chance)


def lens_rows(points: Sequence[LensPoint]) -> list[SiteEvidence]:
    """A row per language and depth."""
    return [
        SiteEvidence(
            claim="the lens's first token is the object's",
            language=point.language,
            control="candidates with equal chances",
            n=point.facts,
            estimate=point.first,
            low=point.interval.low,
            high=point.interval.high,
            null=point.chance,
            site=str(point.site),
            note=f"mean rank {point.rank:.3f}, chance 0.5",
        )
        for point in points
    ]
