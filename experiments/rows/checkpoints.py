"""Row 25: the working language of each layer over checkpoints, neurons that change their language, bits per byte."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from babelscope import load_corpus, open_model, select_entropy_lambda
from babelscope.corpus import Corpus
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.probes import indicative_tokens, track_working_languages
from babelscope.probes.lens.working_languages import WorkingHistory, transfer_of
from rows.result import Headline, Inputs, Planted, RowResult, Witness

LANGUAGES = ("en", "de", "fi", "ru")
READ = 200
"""Positions of the lens of each language."""


def measure(inputs: Inputs) -> RowResult:
    """A model trained on English alone and then on four languages, checkpoint by checkpoint."""
    folders = checkpoint_folders(inputs)
    if not folders:
        return RowResult(witnesses=[], headlines=[], planted=[planted()], absent=["checkpoints: none were given"])
    history, texts = followed(folders)
    return RowResult(
        witnesses=witnesses(history, texts, folders[-1]),
        planted=[planted()],
        headlines=headlines(history),
        absent=(
            "programming languages, and the paper's own rule for language-transferring neurons: sets by entropy here",
            "a training mixture made from the findings: not trained",
        ),
    )


def checkpoint_folders(inputs: Inputs) -> list[Path]:
    """The checkpoints of the training that was given, in its order; none without one."""
    return sorted(Path(inputs.checkpoints).glob("step-*")) if inputs.checkpoints else []


def opened(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """One checkpoint."""
    return open_model(str(folder), device="cpu", dtype="float32")


def followed(folders: Sequence[Path]) -> tuple[WorkingHistory, Corpus]:
    """Working languages from checkpoint to checkpoint."""
    texts, others = (load_corpus("reference", LANGUAGES, split=split) for split in ("valid", "train"))
    texts = texts.head(30)
    model, tokenizer = opened(folders[-1])
    tokens = indicative_tokens(tokenizer, others, vocabulary=layout_of(model).width("logits"))
    history = track_working_languages(
        {folder.name: partial(opened, folder) for folder in folders},
        texts,
        others,
        select_entropy_lambda,
        tokens=tokens,
        tokens_per_language=3000,
        lens_tokens=READ,
        max_tokens=None,
    )
    return history, texts


@torch.no_grad()
def witnesses(history: WorkingHistory, texts: Corpus, last: Path) -> list[Witness]:
    """The lens and losses of the last stage by transformers alone, and shared neurons by hand."""
    model, tokenizer = opened(last)
    step, nats, read = history.steps[-1], [], []
    for tag in LANGUAGES:
        lines, total, positions = [document.text for document in texts[Language(tag)]], 0.0, 0
        mass = torch.zeros(9, len(LANGUAGES), dtype=torch.float64)
        for line in lines:
            ids = torch.tensor([tokenizer(line)["input_ids"]])  # pyright: ignore[reportCallIssue]
            output = model(ids, output_hidden_states=True)
            log_p = output.logits[0, :-1].double().log_softmax(-1)
            total -= float(log_p[torch.arange(ids.shape[1] - 1), ids[0, 1:]].sum())
            for token in range(1, ids.shape[1]):
                if positions >= READ:
                    break
                states = torch.stack([state[0, token] for state in output.hidden_states])
                # Transformers' last state is already normed.
                normed = torch.cat([model.model.norm(states[:-1]), states[-1:]])
                p = model.lm_head(normed).double().softmax(-1)
                mass += p @ step.lens.tokens.member.double().T
                positions += 1
        read.append((positions, mass / mass.sum(dim=1, keepdim=True)))
        nats.append(total / math.log(2) / sum(len(line.encode()) for line in lines))
    shares = torch.stack([share for _, share in read])
    ours = torch.tensor([step.bits[Language(tag)].estimate for tag in LANGUAGES], dtype=torch.float64)
    masks = [stage.sets.mask() for stage in history.steps[-2:]]
    moves = [move for move in history.transfers() if move.checkpoint == step.checkpoint]
    tags = step.sets.languages
    by_hand, expected = [], []
    for move in moves:
        old, new = masks[0][tags.index(move.source)], masks[1][tags.index(move.target)]
        by_hand.append(float((old & new).sum() / new.sum()) - move.share)
        # What two sets of a layer share on average: the product of their sizes over the layer's neurons.
        mean = (old.sum(dim=1) * new.sum(dim=1)).double().sum() / old.shape[1]
        expected.append(float(mean / new.sum()) - move.null)
    return [
        Witness(
            what=f"share of listed tokens by transformers' hidden states, 4 languages, 9 depths, {READ} positions each",
            difference=float((shares - step.lens.share).abs().max()),
            bar=1e-5,
        ),
        Witness(
            what="bits per byte by transformers' logits, 4 languages",
            difference=float((ours - torch.tensor(nats, dtype=torch.float64)).abs().max()),
            bar=1e-5,
        ),
        Witness(
            what=f"shares of neurons that changed their language, counted by hand, {len(moves)} pairs",
            difference=float(np.nanmax(np.abs(by_hand))),
            bar=1e-7,  # The shares are float32.
        ),
        Witness(
            what=f"their null by the hypergeometric mean, {len(moves)} pairs, 99 draws",
            difference=float(np.nanmax(np.abs(expected))),
            bar=0.02,
        ),
    ]


def planted() -> Planted:
    """Of six pairs of languages one hands fifteen neurons over; the rule p ≤ .01 names that one."""
    tags = [Language(tag) for tag in ("en", "fi", "ru")]
    rng = np.random.default_rng(0)
    old, new = (torch.zeros(3, 4, 200, dtype=torch.bool) for _ in range(2))
    for k in range(3):
        for masks in (old, new):
            masks[k, 1, torch.from_numpy(rng.choice(range(60 * k, 60 * k + 60), 20, replace=False))] = True
    new[1, 1] = False
    new[1, 1, old[0, 1].nonzero()[:15, 0]] = True
    new[1, 1, 195:200] = True
    chosen = [
        (a, b)
        for a in range(3)
        for b in range(3)
        if a != b and transfer_of("b", tags[a], tags[b], old[a], new[b], 99, rng).p <= 0.01
    ]
    return Planted(
        what="one of six pairs of languages hands 15 of 20 neurons over",
        recall=float((0, 1) in chosen),
        precision=chosen.count((0, 1)) / max(1, len(chosen)),
    )


def working_share(history: WorkingHistory, language: str) -> list[float]:
    """By stage, the share of depths that work in a language, over all texts but English; "" is the text's own."""
    return [
        float(
            np.mean(
                [
                    [leader == (language or tag) for leader in by_depth]
                    for tag, by_depth in zip(step.lens.languages, working, strict=True)
                    if tag != LANGUAGES[0]
                ]
            )
        )
        for step, working in zip(history.steps, history.working(), strict=True)
    ]


def row_of(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def headlines(history: WorkingHistory) -> list[Headline]:
    """Own working languages and bits per byte by stage, and neurons that change their language."""
    own, english = working_share(history, ""), working_share(history, LANGUAGES[0])
    null = [float(step.lens.null.mean()) for step in history.steps]
    bits = [float(np.mean([value.estimate for value in step.bits.values()])) for step in history.steps]
    moves = [move for move in history.transfers() if not math.isnan(move.share)]
    clear = sum(move.p <= 0.05 for move in moves)
    share, chance = (float(np.mean([getattr(move, name) for move in moves] or [0])) for name in ("share", "null"))
    stages = ", ".join(step.checkpoint for step in history.steps)
    model = (
        f"a model of the bundled shape, trained on English up to {history.steps[0].checkpoint}, then on four languages"
    )
    return [
        Headline(
            paper="layers work in the primary language at first and in a language's own later (code models)",
            ours=f"depths of German, Finnish and Russian text that work in their own language {row_of(own)}, in "
            f"English {row_of(english)}, at {stages}; bits per byte {row_of(bits)}",
            control=f"tokens dealt out at random: share {row_of(null)}",
            model=model,
            verdict="in shape" if english[0] > own[0] and own[-1] > english[-1] else "not",
        ),
        Headline(
            paper="neurons of the primary language become a new language's, and fewer of them later (code models)",
            ours=f"{share:.3f} of a language's neurons were another's before, p ≤ .05 in {clear} of {len(moves)} pairs "
            "and stages",
            control=f"{chance:.3f} with neurons permuted within layers",
            model=model,
            verdict="in shape"
            if share > chance and sum(move.p <= 0.05 for move in moves) > 0.5 * len(moves)
            else "not",
        ),
    ]
