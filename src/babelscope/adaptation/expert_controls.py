"""Late experts of language families beside experts of random families and the same layers trained densely."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.adaptation.expert_conversion import LateExperts, late_experts, mixture_parameters
from babelscope.adaptation.family_experts import (
    Families,
    check_families,
    family_text,
    random_families,
    train_families,
    train_layers,
)
from babelscope.adaptation.methods import usual_rate_of
from babelscope.adapters.merged import export_mixture
from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64, Tensor
from babelscope.controls import Evidence, write_evidence
from babelscope.controls.intervals import Interval, ratio_interval
from babelscope.corpus import Corpus, check_apart
from babelscope.errors import MeasurementError, refuse_no_number
from babelscope.evaluation import HeldOut, document_losses
from babelscope.evaluation.losses import Losses
from babelscope.files.writing import new_folder
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.units.routing import routing_use
from babelscope.subnetworks import LearningRate

FAMILIES, RANDOM, DENSE = "families", "random families", "dense"
"""What is trained: experts of families, experts of random families of the same sizes, or the dense model's layers."""


@dataclass(frozen=True, eq=False)
class ExpertStudy:
    """What experts of language families gave, beside two controls on the same tokens."""

    __repr__ = shown_by()

    mixture: LateExperts
    """Trained on the families."""
    families: Mapping[str, Families]
    """By what is trained: the languages of each expert; of the dense layers none."""
    before: Mapping[Language, Losses]
    """Of the untouched dense model, and so of the mixture before training, on test text."""
    after: Mapping[str, Mapping[Language, Losses]]
    """By what was trained."""
    share: Mapping[str, Float64[Tensor, "language expert"]]
    """Share of a language's choices that fall on each expert, mean over layers; languages in the order of `before`."""
    learning_rate: float
    steps: int
    tokens: int
    """Of text, in all steps of one training."""
    seed: int

    def gain(self, name: str, languages: tuple[Language, ...], *, over: str = "") -> tuple[float, Interval, int]:
        """Bits per byte that text of some languages lost by a training, with its interval over documents, and how many.

        over: another training in the place of the untouched model.
        """
        start = self.after[over] if over else self.before
        bits = torch.cat([start[tag].nats - self.after[name][tag].nats for tag in languages]) / math.log(2)
        sizes = torch.cat([start[tag].n_bytes for tag in languages])
        return float(bits.sum() / sizes.sum()), ratio_interval(bits, sizes), len(sizes)

    def own_share(self, name: str, family: str) -> float:
        """Share of choices that fall on a family's expert, mean over its languages; 1 / experts where use is even."""
        place, members = list(self.families[name]).index(family), self.families[name][family]
        rows = [list(self.before).index(tag) for tag in members]
        return float(self.share[name][rows, place].mean())

    def save(self, tokenizer: PreTrainedTokenizerBase, out: str | Path, *, source: str) -> None:
        """Write results.jsonl, and in `model` the mixture trained on the families, into a new folder."""
        families = (f"- expert {place}: {name} ({', '.join(members)})" for place, (name, members) in self.numbered())
        lines = [
            f"Layers {', '.join(map(str, self.mixture.layers))} have {self.mixture.experts} experts, "
            f"{self.mixture.top_k} a token, copies of the MLP at first; they and their routers were trained for "
            f"{self.steps} steps on {self.tokens:,} tokens. Every other weight is the base model's.",
            "",
            *families,
        ]
        with new_folder(out) as folder:
            write_evidence(self.rows(), folder / "results.jsonl")
            export_mixture(self.mixture.model, tokenizer, folder / "model", source=source, lines=lines)

    def numbered(self) -> Iterator[tuple[int, tuple[str, tuple[Language, ...]]]]:
        """The families in the order of the experts."""
        return enumerate(self.families[FAMILIES].items())

    def summary(self) -> dict[str, object]:
        """For the command's result."""
        tags = tuple(self.before)
        return {
            "layers": list(self.mixture.layers),
            "top_k": self.mixture.top_k,
            "logits_differ": self.mixture.difference,
            "learning_rate": self.learning_rate,
            "tokens": self.tokens,
            "families": {
                family: {
                    "expert": place,
                    "languages": list(members),
                    "share": round(self.own_share(FAMILIES, family), 4),
                    "gain": {name: round(self.gain(name, members)[0], 4) for name in self.after},
                }
                for place, (family, members) in self.numbered()
            },
            "more_than": {
                control: {"gain": round(value, 4), "low": round(ends.low, 4), "high": round(ends.high, 4)}
                for control in (RANDOM, DENSE)
                for value, ends, _ in [self.gain(FAMILIES, tags, over=control)]
            },
        }

    def rows(self) -> Iterator[Evidence]:
        """One for each family and training, one for the experts over each control, one for each family's expert."""
        tags = tuple(self.before)
        settings = f"{self.steps} steps, {self.tokens:,} tokens"
        for name in self.after:
            for family, members in {**self.families[FAMILIES], "all families": tags}.items():
                value, ends, n = self.gain(name, members)
                yield Evidence(
                    claim=f"text of {family} gains by training: {name}",
                    language=" ".join(members),
                    control="the untouched model",
                    n=n,
                    estimate=value,
                    low=ends.low,
                    high=ends.high,
                    seed=self.seed,
                    note=f"bits per byte, n in documents; {settings}",
                )
        for control in (RANDOM, DENSE):
            value, ends, n = self.gain(FAMILIES, tags, over=control)
            yield Evidence(
                claim=f"experts of families gain more than {control} on the same tokens",
                language="",
                control=control,
                n=n,
                estimate=value,
                low=ends.low,
                high=ends.high,
                seed=self.seed,
                note=f"bits per byte, n in documents; {settings}; one training each",
            )
        even = 1 / self.mixture.experts
        for name in self.share:
            for family, members in self.families[name].items():
                yield Evidence(
                    claim=f"choices of {family} fall on its expert: {name}",
                    language=" ".join(members),
                    control=f"even use, {even:.3f}",
                    n=len(members),
                    estimate=self.own_share(name, family),
                    seed=self.seed,
                    note=f"share of choices on test text, {self.mixture.top_k} a token, at most "
                    f"{1 / self.mixture.top_k:.3f}; n in languages",
                )


def expert_study(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Mapping[str, Corpus],
    families: Families,
    *,
    layers: int,
    top_k: int = 2,
    steps: int = 60,
    learning_rate: float | None = None,
    tokens_per_step: int = 2048,
    max_length: int = 256,
    guide: float = 0.1,
    balance: float = 0.01,
    test_documents: int | None = None,
    progress: bool = False,
    seed: int = 0,
) -> ExpertStudy:
    """Turn the last layers of a dense model into experts of language families, train them, and measure by family.

    texts: corpora "train" and "test" with every language of the families. families: as many as there are experts of
    each layer. layers, top_k: as in `late_experts`. steps, tokens_per_step: of each training; a row of max_length
    tokens is of one language, and families take turns. learning_rate: peak of AdamW; None takes RATE times the root
    mean square of the MLPs that become experts. guide, balance: as in `train_families`.
    Controls, on the same rows in the same order and at the same rate: experts of random families of the same sizes,
    whose routers begin alike; and the dense model's same layers. The given model stays as it was.
    Raises LanguageError for families that do not fit the text, CorpusError for text that is trained and scored on, and
    what `late_experts` raises.
    """
    numbers = {"steps": steps, "tokens_per_step": tokens_per_step, "max_length": max_length, "seed": seed}
    refuse_no_number(numbers, MeasurementError, whole=True)
    refuse_no_number({"guide": guide, "balance": balance}, MeasurementError)
    check_families(families)
    check_apart(texts, name=texts["train"].name)
    groups: dict[str, Families] = {FAMILIES: families, RANDOM: random_families(families, seed)}
    languages = sorted(tag for members in families.values() for tag in members)
    text = family_text(tokenizer, texts["train"], families, length=max_length, seed=seed)
    held_out = texts["test"].only(languages).head(test_documents or 10**9)
    mixtures = {
        name: late_experts(model, layers=layers, experts=len(families), top_k=top_k, seed=seed) for name in groups
    }
    dense = layout_of(model)
    late = mixtures[FAMILIES].layers
    if learning_rate is None:
        # Not a tenth, as where all MLPs are trained: the bundled model's last layers gained less by a third of it.
        learning_rate = usual_rate_of(part for layer in late for _, part in mixture_parameters(dense, layer))
    rate = LearningRate(learning_rate, steps)
    rows_per_step = max(1, tokens_per_step // max_length)
    prepared = HeldOut.prepare(tokenizer, held_out, max_length=max_length)
    after: dict[str, dict[Language, Losses]] = {}
    share: dict[str, Float64[Tensor, "language expert"]] = {}
    before = losses_of(model, prepared)
    for name, mixture in mixtures.items():
        train_families(
            layout_of(mixture.model),
            text.grouped(groups[name]),
            rate=rate,
            rows_per_step=rows_per_step,
            guide=guide,
            balance=balance,
            progress=progress,
        )
        after[name] = losses_of(mixture.model, prepared)
        use = routing_use(mixture.model, tokenizer, held_out, tokens_per_language=None, max_length=max_length)
        share[name] = use.share.mean(dim=1)
    train_layers(
        dense,
        late,
        text,
        rate=rate,
        rows_per_step=rows_per_step,
        progress=progress,
        at_end=lambda: after.update({DENSE: losses_of(model, prepared)}),
    )
    return ExpertStudy(
        mixture=mixtures[FAMILIES],
        families=groups,
        before=before,
        after=after,
        share=share,
        learning_rate=rate.peak,
        steps=steps,
        tokens=steps * rows_per_step * max_length,
        seed=seed,
    )


def losses_of(model: CausalModel, prepared: list[HeldOut]) -> dict[Language, Losses]:
    """Losses of each language's test text."""
    layout = layout_of(model)
    return {part.language: document_losses(layout, part) for part in prepared}
