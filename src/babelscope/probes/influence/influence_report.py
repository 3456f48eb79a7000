"""Languages, layers and tokens of the most influential passages, and hits of parallel text, as rows and files."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from babelscope.axes import Bool, Float64
from babelscope.controls import benjamini_hochberg, rank_p, wilson_interval, write_evidence
from babelscope.controls.bootstrap_draws import mean_interval
from babelscope.corpus.documents import LineNumber
from babelscope.errors import MeasurementError
from babelscope.figures import write_figure
from babelscope.figures.influence_map import (
    INFLUENCE_CAPTION,
    INFLUENCE_LAYER_CAPTION,
    influence_layer_map,
    influence_map,
)
from babelscope.files.writing import new_folder, write_text
from babelscope.languages import Language
from babelscope.probes.influence.layer_profiles import LayerProfile, layer_profiles, layer_rows, profile_lines
from babelscope.probes.influence.text_influence import Ranking, TextInfluence, TokenPart
from babelscope.probes.probe_evidence import SiteEvidence

STRONGEST_TOKENS = 5
"""Of a passage, in the command's result."""


def check_top(top: int, passages: int) -> None:
    """Raise MeasurementError unless the most influential passages are some of the passages, and not all."""
    if not 0 < top < passages:
        raise MeasurementError(
            f"the {top} most influential of {passages} passages came; expected at least 1 and fewer than there are; "
            "lower top, or give more text"
        )


@dataclass(frozen=True, eq=False)
class InfluenceReport:
    """What `babelscope influence` measures."""

    influence: TextInfluence
    top: int = 10
    """Most influential passages of each query that are counted."""
    draws: int = 999
    """Permutations of the passages' languages."""
    resamples: int = 1000
    """Of the queries, for intervals."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_top(self.top, len(self.influence.passages))

    @property
    def query_languages(self) -> tuple[Language, ...]:
        """In order."""
        return tuple(dict.fromkeys(query.language for query in self.influence.queries))

    @property
    def passage_languages(self) -> tuple[Language, ...]:
        """In order."""
        return tuple(dict.fromkeys(passage.language for passage in self.influence.passages))

    def is_in(self, language: Language) -> Bool[np.ndarray, " passage"]:
        """Which passages are in a language."""
        return np.array([passage.language == language for passage in self.influence.passages])

    def asked_in(self, language: Language) -> Bool[np.ndarray, " query"]:
        """Which queries are in a language."""
        return np.array([query.language == language for query in self.influence.queries])

    def shares(self, language: Language, ranking: Ranking = "influence") -> Float64[np.ndarray, " query"]:
        """Share of a language among the first passages of each query; of equal scores, the mean over their orders."""
        scores, inside = self.influence.scores[ranking], self.is_in(language)
        last = -np.sort(-scores, axis=1)[:, [self.top - 1]]
        # Passages that are cut are equally long, and those without a common token equally unlike: taken in their order
        # they would all be of the first language.
        before, equal = scores > last, scores == last
        room = self.top - before.sum(axis=1)
        return ((before & inside).sum(axis=1) + room * (equal & inside).sum(axis=1) / equal.sum(axis=1)) / self.top

    def share_rows(self) -> Iterator[SiteEvidence]:
        """Share of each language among the most influential passages, beside its share with permuted languages."""
        rows = [
            self.share_row(asked, language) for asked in self.query_languages for language in self.passage_languages
        ]
        q = benjamini_hochberg([row.p for row in rows]).tolist()
        yield from (replace(row, note=f"{row.note}; q {value:.3f}") for row, value in zip(rows, q, strict=True))

    def share_row(self, asked: Language, language: Language) -> SiteEvidence:
        """One language of queries and one of passages; the interval is over queries, NaN for a single one."""
        rows, rng = self.asked_in(asked), np.random.default_rng(self.seed)
        shares, inside = self.shares(language)[rows], self.is_in(language)
        tops = self.influence.order()[rows, : self.top]
        null = [float(rng.permutation(inside)[tops].mean()) for _ in range(self.draws)]
        low, high = math.nan, math.nan
        if len(shares) > 1:
            low, high = mean_interval(shares, self.resamples, rng)
        others = self.by_others(lambda ranking: self.shares(language, ranking)[rows].mean())
        return SiteEvidence(
            claim=f"share of {language} text among the {self.top} most influential passages",
            language=asked,
            against=language,
            control="languages of the passages permuted",
            n=len(shares),
            estimate=float(shares.mean()),
            low=low,
            high=high,
            p=rank_p(float(shares.mean()), null),
            null=float(np.mean(null)),
            draws=self.draws,
            seed=self.seed,
            note=f"base share {inside.mean():.3f}; by {others}",
        )

    def by_others(self, measure: Callable[[Ranking], Any]) -> str:
        """The same number by each ranking that stands beside the influence."""
        return ", ".join(f"{name} {measure(name):.3f}" for name in self.influence.scores if name != "influence")

    def parallel_ranks(
        self, asked: Language, language: Language, ranking: Ranking
    ) -> tuple[list[int], Float64[np.ndarray, " query"]]:
        """Ranks, from 0, of the passages that say the same as a query, among their language's, and chances to be first.

        A query and a passage say the same where both have the same id, and it is more than a line number. One that
        only equals another passage stands behind it: a ranking that knows nothing has no hit.
        """
        ranks, chances = list[int](), list[float]()
        places = np.flatnonzero(self.is_in(language))
        ids = [self.influence.passages[place].document.id for place in places]
        for row in np.flatnonzero(self.asked_in(asked)):
            wanted = self.influence.queries[row].document.id
            same = [at for at, name in enumerate(ids) if name == wanted and not isinstance(name, LineNumber)]
            if same and not isinstance(wanted, LineNumber):
                scores = self.influence.scores[ranking][row, places]
                ranks.append(int((np.delete(scores, same) >= scores[same].max()).sum()))
                chances.append(len(same) / len(ids))
        return ranks, np.array(chances)

    def parallel_rows(self) -> Iterator[SiteEvidence]:
        """How often the passage that says the same is the most influential one of its language."""
        for asked in self.query_languages:
            for language in self.passage_languages:
                ranks, chances = self.parallel_ranks(asked, language, "influence")
                if not ranks:
                    continue
                hits = sum(rank == 0 for rank in ranks)
                others = self.by_others(
                    lambda ranking, asked=asked, language=language: np.mean(
                        [rank == 0 for rank in self.parallel_ranks(asked, language, ranking)[0]]
                    )
                )
                interval = wilson_interval(hits, len(ranks))
                yield SiteEvidence(
                    claim=f"the parallel passage is the most influential one in {language}",
                    language=asked,
                    against=language,
                    control="a passage drawn at random",
                    n=len(ranks),
                    estimate=hits / len(ranks),
                    low=interval.low,
                    high=interval.high,
                    p=float(binomtest(hits, len(ranks), float(chances.mean()), alternative="greater").pvalue),
                    null=float(chances.mean()),
                    note=f"mean rank {1 + np.mean(ranks):.1f} of {int(self.is_in(language).sum())}; by {others}",
                )

    def score_lines(self, places: int) -> Iterator[dict[str, Any]]:
        """The first so many passages of each query, with all scores."""
        for row, order in enumerate(self.influence.order()[:, :places]):
            query = self.influence.queries[row]
            for rank, place in enumerate(order.tolist(), start=1):
                passage = self.influence.passages[place]
                tokens = [list(part) for part in self.influence.tokens.get((row, place), ())]
                yield {
                    "query": [query.language, query.document.id],
                    "rank": rank,
                    "passage": [passage.language, passage.document.id],
                    **{name: float(scores[row, place]) for name, scores in self.influence.scores.items()},
                    **({"text": passage.text, "tokens": tokens} if places == self.top else {}),
                }

    @cached_property
    def profiles(self) -> list[LayerProfile]:
        """Layers of the influence, by side of the passages."""
        return layer_profiles(self.influence, self.top, self.seed)

    def layer_rows(self) -> Iterator[SiteEvidence]:
        """Shares of layers, and whether the influence of other languages is deeper."""
        return layer_rows(self.profiles, self.resamples, self.seed)

    def save(self, out: str | Path) -> None:
        """Write rows, scores and pictures into a folder.

        results.jsonl; scores.jsonl (every passage), top.jsonl (with text, and the parts of its tokens), layers.jsonl;
        influence.html and layers.html.
        """
        with new_folder(out) as folder:
            rows = [*self.share_rows(), *self.parallel_rows(), *self.layer_rows()]
            write_evidence(rows, folder / "results.jsonl")
            write_lines(self.score_lines(len(self.influence.passages)), folder / "scores.jsonl")
            write_lines(self.score_lines(self.top), folder / "top.jsonl")
            write_lines(profile_lines(self.profiles), folder / "layers.jsonl")
            write_figure(self.figure(), folder / "influence.html", INFLUENCE_CAPTION)
            write_figure(self.layer_figure(), folder / "layers.html", INFLUENCE_LAYER_CAPTION)

    def figure(self) -> Any:
        """Shares of languages by language of the query."""
        shares = [[self.shares(tag)[self.asked_in(asked)].mean() for tag in self.passage_languages]
                  for asked in self.query_languages]  # fmt: skip
        base = np.array([self.is_in(tag).mean() for tag in self.passage_languages])
        return influence_map(
            shares=np.array(shares),
            base=base,
            queries=self.query_languages,
            passages=self.passage_languages,
            top=self.top,
        )

    def layer_figure(self) -> Any:
        """Shares of layers by language of the query: passages in its own language, and in others."""
        lines = list(profile_lines(self.profiles))
        rows = list(dict.fromkeys((line["query"], line["passages"]) for line in lines))
        shares, random = (
            np.array([line[name] for line in lines]).reshape(len(rows), -1) for name in ("share", "random")
        )
        order = sorted(range(len(rows)), key=lambda at: self.query_languages.index(rows[at][0]))
        layers = self.influence.layers
        return influence_layer_map(
            shares=shares[order], random=random[order], rows=[rows[at] for at in order], layers=layers
        )

    def summary(self) -> dict[str, Any]:
        """For the command's result."""
        return {
            "queries": len(self.influence.queries),
            "passages": len(self.influence.passages),
            "predicted_tokens": self.influence.predicted,
            "shares": [
                {"query": row.language, "passage": row.against, "share": round(row.estimate, 4),
                 "base": round(row.null, 4), "p": round(row.p, 4)}
                for row in self.share_rows()
            ],
            "parallel": [
                {"query": row.language, "passage": row.against, "hits": round(row.estimate, 4),
                 "base": round(row.null, 4), "p": row.p}
                for row in self.parallel_rows()
            ],
            "layers": {profile.side: round(float(profile.depth.mean()), 4) for profile in self.profiles},
            "top": [
                {"query": line["query"], "passage": line["passage"], "text": line["text"][:80],
                 "tokens": strongest_tokens(line["tokens"])}
                for line in self.score_lines(self.top) if line["rank"] == 1
            ],
        }  # fmt: skip


def strongest_tokens(parts: Sequence[TokenPart | Sequence[Any]]) -> list[list[Any]]:
    """The tokens that add most to a passage's influence: text, and its share of all tokens that add to it."""
    raising = sorted((part for part in parts if part[1] > 0), key=lambda part: -part[1])
    total = sum(part[1] for part in raising)
    return [[text, round(part / total, 4)] for text, part in raising[:STRONGEST_TOKENS]]


def write_lines(lines: Iterable[Mapping[str, Any]], file: Path) -> None:
    """JSON lines of finite numbers."""
    text = (json.dumps(line, ensure_ascii=False, allow_nan=False) for line in lines)
    write_text(file, "".join(f"{line}\n" for line in text))
