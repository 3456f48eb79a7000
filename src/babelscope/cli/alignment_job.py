"""Parallel text of `adapt --objective align`, and what is written of the alignment that was learned."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.adaptation.alignment_account import AlignmentAccount, alignment_account
from babelscope.corpus import Corpus, check_apart, load_corpus
from babelscope.errors import CorpusError
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.subnetworks import Contrast, ContrastSteps, ParallelPairs
from babelscope.subnetworks.translation_pairs import ContrastDirection

log = logging.getLogger(__name__)


class AlignmentJob(NamedTuple):
    """What `adapt` trains on beside text, and measures alignment with."""

    steps: ContrastSteps
    valid: Corpus
    before: AlignmentAccount


def open_alignment(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    *,
    languages: tuple[str, ...],
    against: str,
    layer: int | None,
    temperature: float,
    spacing: int,
    size: int,
    direction: ContrastDirection,
    max_length: int,
    seed: int,
    trained: Sequence[int] = (),
) -> AlignmentJob:
    """Read the pairs, measure the model on the held-out ones, and take the layer of their best retrieval if none came.

    trained: layers of trained neurons, of which one must be at the aligned layer or below; empty where parameters are.
    Raises CorpusError for text that is not parallel, that has no `against`, or whose splits share sentences;
    MeasurementError for a layer or pairs that are not there.
    """
    tags = tuple(dict.fromkeys((against, *languages))) if languages else None
    splits = {split: load_corpus(name, tags, split=split, parallel=True) for split in ("train", "valid")}
    check_apart(splits, name=name, same_text=False)
    pairs = ParallelPairs.of(tokenizer, splits["train"], against=against, max_length=max_length, seed=seed)
    # Checked with the layer that was named, or any, before minutes of measuring.
    lowest = min(trained, default=0)
    tried = Contrast(lowest if layer is None else layer, temperature, spacing, size, direction)
    ContrastSteps(tried, pairs).check(layout_of(model), trained)
    before = alignment_account(model, tokenizer, splits["valid"], against=against)
    chosen = before.best_layer(lowest) if layer is None else layer
    if layer is None:
        best_share = float(before.mean("retrieval")[chosen])
        if not best_share > 0:
            raise CorpusError(
                f"{name}: no translation is found at any layer from {lowest} on ({len(splits['valid'][against])} valid "
                "sentences); expected one where the best layer is to be taken; name it with --align-layer"
            )
        log.info("aligning layer %d, where %.3f of the held-out translations are found", chosen, best_share)
    steps = ContrastSteps(Contrast(chosen, temperature, spacing, size, direction), pairs)
    return AlignmentJob(steps, splits["valid"], before)


def alignment_facts(before: AlignmentAccount, after: AlignmentAccount, steps: ContrastSteps) -> dict[str, Any]:
    """What the result says: every measure by layer, mean over languages, before and after."""
    measures = ("mexa", "retrieval", "unrelated")
    return {
        "layer": steps.contrast.layer,
        "nearest_subspaces": list(before.area),
        **{name: [account.mean(name).tolist() for account in (before, after)] for name in measures},
    }
