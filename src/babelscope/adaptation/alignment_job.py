"""Parallel text that is aligned in training, and what is written of the alignment that was learned."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.adaptation.alignment_account import AlignmentAccount, alignment_account
from babelscope.adaptation.language_shift import LanguageShift
from babelscope.corpus import Corpus, check_apart, load_corpus
from babelscope.errors import CorpusError, MeasurementError
from babelscope.evaluation import bits_per_byte
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.subnetworks import Contrast, ContrastSteps, ParallelPairs
from babelscope.subnetworks.translation_pairs import ContrastDirection

log = logging.getLogger(__name__)
SHIFT = "shift"
"""Folder of the shift's recipes beside what was trained."""


@dataclass(frozen=True)
class AlignmentPlan:
    """Which translations are drawn together, at which layer and how; and whether text is shifted there."""

    pairs: str
    """Parallel text with train and valid splits: folder, hub id, or "reference"."""
    languages: tuple[str, ...] = ()
    """None: all of it."""
    against: str = "en"
    """The language that all others are paired with."""
    layer: int | None = None
    """None: the one where most valid translations are found."""
    spacing: int = 2
    """Steps of text and pairs take turns: 2 is every second step, 1 every step and no text."""
    size: int = 32
    """Pairs of a step."""
    temperature: float = 0.1
    direction: ContrastDirection = "symmetric"
    shifted: bool = False
    """Whether other languages' text is led into the space of `against` and back."""
    shift_layers: tuple[int, ...] = ()
    """Where it is led there and where back; none: the ends of the area of the nearest subspaces."""


class AlignmentJob(NamedTuple):
    """What is trained on beside text, and what alignment is measured with."""

    steps: ContrastSteps
    valid: Corpus
    before: AlignmentAccount
    shift: LanguageShift | None
    """What acts on text of other languages, in training and after it."""

    def facts(self) -> dict[str, Any]:
        """What decides the run."""
        shift = {} if self.shift is None else {"shift": self.shift.facts()}
        return {"contrast": self.steps.facts(), **shift}


def open_alignment(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    plan: AlignmentPlan,
    *,
    language: Language,
    max_length: int,
    seed: int,
    trained: Sequence[int] = (),
) -> AlignmentJob:
    """Read the pairs, measure the model on the held-out ones, and take the layer of their best retrieval if none came.

    trained: layers of trained neurons, of which one must be at the aligned layer or below; empty where parameters are.
    Raises CorpusError for text that is not parallel, that has no `against`, or whose splits share sentences;
    MeasurementError for a layer or pairs that are not there.
    """
    tags = tuple(dict.fromkeys((plan.against, *plan.languages))) if plan.languages else None
    splits = {split: load_corpus(plan.pairs, tags, split=split, parallel=True) for split in ("train", "valid")}
    check_apart(splits, name=plan.pairs, same_text=False)
    pairs = ParallelPairs.of(tokenizer, splits["train"], against=plan.against, max_length=max_length, seed=seed)
    contrast = partial(
        Contrast, temperature=plan.temperature, spacing=plan.spacing, size=plan.size, direction=plan.direction
    )
    # Checked with the layer that was named, or any, before minutes of measuring.
    lowest = min(trained, default=0)
    ContrastSteps(contrast(lowest if plan.layer is None else plan.layer), pairs).check(layout_of(model), trained)
    before = alignment_account(model, tokenizer, splits["valid"], against=plan.against)
    shift = None
    if plan.shifted:
        start, end = plan.shift_layers or area_ends(before)
        shift = LanguageShift.of(model, tokenizer, splits["train"], against=plan.against, layers=(start, end))
        lowest = max(lowest, start)
        shift.check(language, lowest if plan.layer is None else plan.layer)
    layer = plan.layer
    if layer is None:
        layer = before.best_layer(lowest, None if shift is None else shift.layers[1])
        best_share = float(before.mean("retrieval")[layer])
        if not best_share > 0:
            raise CorpusError(
                f"{plan.pairs}: no translation is found at any layer from {lowest} on "
                f"({len(splits['valid'][plan.against])} valid sentences); expected one where the best layer is to be "
                "taken; name it with --align-layer"
            )
        log.info("aligning layer %d, where %.3f of the held-out translations are found", layer, best_share)
    return AlignmentJob(ContrastSteps(contrast(layer), pairs), splits["valid"], before, shift)


def area_ends(account: AlignmentAccount) -> tuple[int, int]:
    """The first and the last layer of the area; raises MeasurementError where it is one layer."""
    area = account.area
    if len(area) < 2:
        by_layer = ", ".join(f"{float(value):.1f}" for value in account.mean("distance"))
        raise MeasurementError(
            f"the subspaces are nearest at layer {area.start} alone (distances by layer: {by_layer}); expected two "
            "layers or more to shift between; name two with --shift-layers"
        )
    return area.start, area.stop - 1


def alignment_facts(before: AlignmentAccount, after: AlignmentAccount, steps: ContrastSteps) -> dict[str, Any]:
    """What the result says: every measure by layer, mean over languages, before and after."""
    measures = ("mexa", "retrieval", "unrelated")
    return {
        "layer": steps.contrast.layer,
        "nearest_subspaces": list(before.area),
        "against": before.against,
        **{name: [account.mean(name).tolist() for account in (before, after)] for name in measures},
    }


def aligned_after(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, alignment: AlignmentJob | None
) -> dict[str, Any]:
    """What the result says of alignment, with the model as it is trained; nothing where none was asked for."""
    if alignment is None:
        return {}
    after = alignment_account(
        model,
        tokenizer,
        alignment.valid,
        against=str(alignment.before.against),
        steering=alignment.shift,
    )
    return {"alignment": alignment_facts(alignment.before, after, alignment.steps), **shift_facts(alignment)}


def shift_facts(alignment: AlignmentJob) -> dict[str, Any]:
    """What the result says of a shift, which is no part of what was trained and must act where that is used."""
    return {} if alignment.shift is None else {"shift": {**alignment.shift.facts(), "folder": SHIFT}}


def save_shift(folder: Path, alignment: AlignmentJob | None) -> None:
    """The recipes of the shift, in a folder of their own beside what was trained."""
    if alignment is not None and alignment.shift is not None:
        alignment.shift.save(folder / SHIFT)


def bits_of_test(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, texts: Corpus, alignment: AlignmentJob | None
) -> dict[Language, float]:
    """Bits per byte of test text, shifted where the training was."""
    if alignment is None or alignment.shift is None:
        return bits_per_byte(model, tokenizer, texts)
    return alignment.shift.bits_per_byte(texts)
