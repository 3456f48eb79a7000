"""Row 29: cost, allocation and overlap of a tokenizer."""

from collections import Counter

import numpy as np
from scipy.spatial import distance
from transformers import AutoTokenizer

from babelscope.reference import MODEL
from babelscope.vocabulary import token_costs, vocabulary_allocation
from rows.result import Headline, Inputs, Planted, RowResult, Witness
from rows.sentence_models import ASKED, plain_model, pud


def measure_tokenizer(inputs: Inputs) -> RowResult:
    """Row 29: premium, average rank and overlap of Gemma's tokenizer on PUD, beside numpy and scipy."""
    _, tokenizer = plain_model(inputs.gemma)
    texts = pud(inputs.corpora, ASKED)
    costs = token_costs(tokenizer, texts, resamples=500, seed=0)
    allocation = vocabulary_allocation(tokenizer, texts, resamples=100, seed=0)
    counts: dict[str, Counter[int]] = {}
    for tag, documents in texts.items():
        ids = tokenizer([document.text for document in documents], add_special_tokens=False).input_ids
        counts[str(tag)] = Counter(token for part in ids for token in part)
    ranks = {}
    for tag, counter in counts.items():
        ordered = sorted(counter.values(), reverse=True)
        ranks[tag] = sum(place * n for place, n in enumerate(ordered, start=1)) / sum(ordered)
    rank_difference = max(abs(share.average_rank / ranks[share.language] - 1) for share in allocation.shares)
    size = len(tokenizer)
    shares = {tag: np.array([counter[k] for k in range(size)]) / counter.total() for tag, counter in counts.items()}
    overlap_difference = max(
        abs(overlap.divergence - distance.jensenshannon(shares[overlap.first], shares[overlap.second], base=2) ** 2)
        for overlap in allocation.overlaps
    )
    premium_difference = max(
        abs(cost.premium - counts[cost.language].total() / counts["en"].total()) for cost in costs.costs
    )
    latin = {"en", "de", "es", "tr"}
    kinds = {True: [], False: []}
    for overlap in allocation.overlaps:
        if latin & {overlap.first, overlap.second}:
            kinds[{overlap.first, overlap.second} <= latin].append(overlap)
    one_script, two_scripts = (
        float(np.mean([overlap.divergence for overlap in kinds[same]])) for same in (True, False)
    )
    highest = max(costs.costs, key=lambda cost: cost.premium)
    floor = float(np.mean([overlap.null for overlap in allocation.overlaps]))
    rare = min(allocation.shares, key=lambda share: share.average_rank)
    most = max(allocation.shares, key=lambda share: share.average_rank)
    return RowResult(
        witnesses=[
            Witness(
                what=f"premium: counts of transformers' tokenizer, {len(counts)} languages of PUD",
                difference=premium_difference,
                bar=1e-12,
            ),
            Witness(
                what="average rank: a loop over sorted counts, relative", difference=float(rank_difference), bar=1e-9
            ),
            Witness(
                what=f"divergence: scipy's jensenshannon squared, {len(allocation.overlaps)} pairs",
                difference=float(overlap_difference),
                bar=1e-9,
            ),
        ],
        headlines=[
            Headline(
                paper="the same text costs up to 15 times as many tokens in some languages (arXiv:2305.15425)",
                ours=f"most for {highest.language}: {highest.premium:.2f} [{highest.interval.low:.2f}, "
                f"{highest.interval.high:.2f}] times English",
                control=f"in characters {highest.character_premium:.2f}, in bytes {highest.byte_premium:.2f}",
                model="Gemma 3 270M",
                verdict="reproduced" if highest.premium >= 10 else "in shape" if highest.interval.low > 1 else "not",
            ),
            Headline(
                paper="average rank and Jensen-Shannon divergence tell tokenizers' allocation and overlap by language",
                ours=f"average rank {rare.average_rank:.0f} ({rare.language}) to {most.average_rank:.0f} "
                f"({most.language}); divergence {one_script:.3f} within Latin script, {two_scripts:.3f} across scripts",
                control=f"divergence of halves of one language's text {floor:.3f}",
                model="Gemma 3 270M",
                verdict="in shape" if floor < one_script < two_scripts else "not",
            ),
        ],
        planted=[planted_overlap()],
    )


def planted_overlap() -> Planted:
    """Of three languages two have the same text: which pairs share all tokens."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    text = [f"the {word} is old" for word in ("house", "river", "tree", "book", "city", "friend")]
    cyrillic = [f"это {word} стоит" for word in ("дом", "лес", "город", "друг", "мост", "стол")]
    allocation = vocabulary_allocation(tokenizer, {"en": text, "de": text, "ru": cyrillic}, resamples=20)
    same = {(overlap.first, overlap.second) for overlap in allocation.overlaps if overlap.divergence < 1e-9}
    planted = {("en", "de")}
    return Planted(
        what="two languages with one text among three",
        recall=float(planted <= same),
        precision=len(same & planted) / max(1, len(same)),
    )
