"""The evidence of an ablation: harms by document, and what follows from them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64, Tensor
from babelscope.controls import pairing_p, percentile_interval, rank_p, step_down_p
from babelscope.controls.bootstrap_draws import draw_counts
from babelscope.errors import MeasurementError
from babelscope.evaluation import Losses
from babelscope.languages import Language

UNITS = ("relative", "nats_per_token", "bits_per_byte")
"""What harm is counted in: per nat of the untouched loss, per token, per byte. Languages cut into more tokens, or of
lower loss, come out differently in each, so that a verdict says in which it holds."""


class HarmEstimate(NamedTuple):
    """An estimate with its 95 % percentile interval over resampled documents."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class AblationTable:
    """Harm on the text of every language when the set of one is switched off.

    Rows are sets, columns are texts. Harm of a document is its negative log-likelihood with the set off minus without,
    in nats; relative harm of a text is the sum of it over the sum of the untouched one: a ratio of sums.
    """

    __repr__ = shown_by("languages", "texts", "sizes", "to", "draws")

    languages: tuple[Language, ...]
    """Rows: whose set is off."""
    texts: tuple[Language, ...]
    """Columns: whose text is read."""
    base: tuple[Losses, ...]
    """Losses of the untouched model, one per column."""
    delta: tuple[tuple[Float64[Tensor, " _"], ...], ...]
    """Harm in nats of each document, by row and column; languages may have different numbers of documents."""
    draws: Mapping[str, Mapping[Language, Float64[Tensor, "draw _"]]]
    """By control and language: the same for random sets, on the language's own text."""
    sizes: Mapping[Language, int]
    """Neurons switched off in each row."""
    to: str
    """"zero" or "mean"."""
    seed: int
    resamples: int = 1000
    achieved_ratio: Mapping[Language, float] = field(default_factory=dict)
    """Contribution of the contribution-matched sets over the set's own, mean over draws."""

    def column(self, language: str) -> int:
        """Place of a language on the column axis."""
        return self.texts.index(Language(language))

    def _scale(self, unit: str) -> list[Float64[Tensor, " _"]]:
        """What the nats of each document are divided by, by column."""
        if unit == "relative":
            return [losses.nats for losses in self.base]
        if unit == "nats_per_token":
            return [losses.tokens.double() for losses in self.base]
        if unit == "bits_per_byte":
            return [losses.n_bytes.double() * math.log(2) for losses in self.base]
        raise MeasurementError(f"unit {unit!r} came; expected one of {', '.join(UNITS)}; correct it")

    def harm(self, unit: str = "relative") -> Float64[Tensor, "set language"]:
        """Harm in one of UNITS: summed over the documents of a text, over what the unit counts."""
        sums = torch.stack([torch.stack([cell.sum() for cell in row]) for row in self.delta])
        return sums / torch.stack([column.sum() for column in self._scale(unit)])

    @property
    def relative_harm(self) -> Float64[Tensor, "set language"]:
        """Share by which the negative log-likelihood rises; 0.01 is one per cent."""
        return self.harm("relative")

    @property
    def bits_per_byte(self) -> Float64[Tensor, "set language"]:
        """Rise in bits per UTF-8 byte."""
        return self.harm("bits_per_byte")

    def own_harm(self) -> dict[Language, float]:
        """Relative harm of each set on its own language."""
        harm = self.relative_harm
        return {tag: float(harm[row, self.column(tag)]) for row, tag in enumerate(self.languages) if tag in self.texts}

    def drawn_harm(self, control: str) -> dict[Language, list[float]]:
        """Relative harm on the own language of each random set of a control."""
        return {
            tag: (deltas.sum(dim=1) / self.base[self.column(tag)].nats.sum()).tolist()
            for tag, deltas in self.draws[control].items()
        }

    def p_values(self, control: str) -> dict[Language, float]:
        """Rank of the set's own harm among the control's draws: (1 + #{draw ≥ set}) / (draws + 1)."""
        own, drawn = self.own_harm(), self.drawn_harm(control)
        return {tag: rank_p(own[tag], drawn[tag]) for tag in drawn}

    def adjusted_p(self, control: str) -> dict[Language, float]:
        """The same, corrected over the languages of the table: draw d of all languages is one draw of the table.

        Step-down maxT (`controls.step_down_p`): 19 draws can reach 0.05 for any number of languages.
        """
        own, drawn = self.own_harm(), self.drawn_harm(control)
        return dict(zip(drawn, step_down_p([own[tag] for tag in drawn], list(drawn.values())), strict=True))

    def pairing_p(self, unit: str = "relative") -> float:
        """Do sets harm the text of their own language, rather than just any text? See `controls.pairing_p`.

        Units that matter to the model harm every text; sets paired with texts at random are the control of that.
        """
        rows = [row for row, tag in enumerate(self.languages) if tag in self.texts]
        columns = [self.column(self.languages[row]) for row in rows]
        return pairing_p(self.harm(unit)[rows][:, columns], seed=self.seed)

    def _weights(self) -> list[Float64[Tensor, "resample _"]]:
        """How often each document of each column is drawn; one common draw where the columns are equally long."""
        counts, made = [len(losses.nats) for losses in self.base], {}
        weights = []
        for column, n in enumerate(counts):
            key = n if len(set(counts)) == 1 else (column, n)
            if key not in made:
                rng = np.random.default_rng((self.seed, column))
                made[key] = torch.from_numpy(draw_counts(n, self.resamples, rng)).double()
            weights.append(made[key])
        return weights

    def _resampled(
        self, row: int, weights: list[Tensor], unit: str = "relative"
    ) -> Float64[Tensor, "resample language"]:
        scale = self._scale(unit)
        columns = [(weights[t] @ self.delta[row][t]) / (weights[t] @ scale[t]) for t in range(len(self.texts))]
        return torch.stack(columns, dim=1)

    def own_interval(self, unit: str = "relative") -> dict[Language, HarmEstimate]:
        """Harm of each set on its own language's text, with its interval."""
        harm, weights, found = self.harm(unit), self._weights(), {}
        for row, tag in enumerate(self.languages):
            if tag in self.texts:
                own = self.column(tag)
                spread = self._resampled(row, weights, unit)[:, own]
                found[tag] = HarmEstimate(float(harm[row, own]), *percentile_interval(spread))
        return found

    def specificity(self, unit: str = "relative") -> dict[Language, HarmEstimate]:
        """Own harm minus the largest harm on another language's text; own is hurt most if the interval is above 0."""
        harm, weights, found = self.harm(unit), self._weights(), {}
        for row, tag in enumerate(self.languages):
            if tag not in self.texts:
                continue
            own = self.column(tag)
            others = [t for t in range(len(self.texts)) if t != own]
            if not others:
                raise MeasurementError("one text came; expected two or more, to compare own harm with; add languages")
            samples = self._resampled(row, weights, unit)
            spread = samples[:, own] - samples[:, others].amax(dim=1)
            low, high = percentile_interval(spread)
            found[tag] = HarmEstimate(float(harm[row, own] - harm[row, others].max()), low, high)
        return found

    def ratio(self, control: str) -> dict[Language, HarmEstimate]:
        """Own harm over the mean absolute harm of the control's random sets, on the same resamples of documents.

        NaN where those sets change nothing, as an empty one does.
        """
        own, drawn, weights, found = self.own_harm(), self.drawn_harm(control), self._weights(), {}
        for row, tag in enumerate(self.languages):
            if tag not in drawn:
                continue
            weight = weights[self.column(tag)]
            mean = (weight @ self.draws[control][tag].T).abs().mean(dim=1)
            spread = (weight @ self.delta[row][self.column(tag)]) / torch.where(mean > 0, mean, torch.nan)
            whole = float(np.mean(np.abs(drawn[tag])))
            found[tag] = HarmEstimate(own[tag] / whole if whole else math.nan, *percentile_interval(spread))
        return found

    def hurt_most(self, unit: str = "relative") -> dict[Language, bool]:
        """Whether the own column's harm is above every other of its row; no interval is asked here.

        A set without neurons harms all alike, so none most.
        """
        harm, found = self.harm(unit), {}
        for row, tag in enumerate(self.languages):
            if tag in self.texts:
                own = self.column(tag)
                others = [t for t in range(len(self.texts)) if t != own]
                found[tag] = bool((harm[row, own] > harm[row, others]).all())
        return found
