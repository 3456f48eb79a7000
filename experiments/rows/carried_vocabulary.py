"""Row 31, carried rows: a planted map and shift, numpy's least squares, and a tuning of the bundled model."""

import copy
import math
from typing import Any

import numpy as np
import torch

from babelscope import VocabularyPack, carry_vocabulary, extend_vocabulary, load_corpus, open_model, train_vocabulary
from babelscope.controls.intervals import ratio_interval
from babelscope.corpus import Corpus
from babelscope.evaluation import Losses, held_out_losses
from babelscope.languages import Language
from babelscope.vocabulary.carried_rows import CARRIES
from rows.result import Headline, Inputs, Planted, Witness

TARGET, TUNED_ON = "eu", "en"
ENTRIES = 100
STEPS, TOKENS, LENGTH = 40, 256, 64
"""Of each training; tuning takes whole parameters, the others new rows alone."""
RATE = 1e-3
"""Of tuning, by AdamW."""
TRAIN, HELD = 4000, 100
"""Documents."""


def carried_rows(inputs: Inputs) -> tuple[list[Witness], list[Planted], list[Headline]]:
    """Rows trained on the bundled model, carried to one that was tuned from it on English text."""
    base, tokenizer = open_model("reference", device="cpu")
    name = f"{inputs.corpora}/mono" if inputs.corpora else "reference"
    train = load_corpus(name, [TARGET], split="train").head(TRAIN)
    held = load_corpus(name, [TARGET], split="valid").head(HELD)
    untrained = extend_vocabulary(base, tokenizer, train, size=ENTRIES)
    pack = with_trained_rows(base, untrained, train)
    tuned = tuned_on(base, tokenizer, [d.text for d in load_corpus(name, [TUNED_ON], split="train").head(TRAIN)["en"]])
    sub_words = extend_vocabulary(tuned, tokenizer, train, size=ENTRIES)
    packs = {"sub-words": sub_words, "trained there": with_trained_rows(tuned, sub_words, train)}
    for way in CARRIES:
        packs[way] = carry_vocabulary(pack, base, tokenizer, tuned, tokenizer, way=way)
    for way in ("overlap", "conversion", "shift"):
        packs[f"{way}, shuffled"] = carry_vocabulary(pack, base, tokenizer, tuned, tokenizer, way=way, shuffled=True)
    losses = {way: losses_with(tuned, made, held) for way, made in packs.items()}
    witness = Witness(
        what=f"{ENTRIES} rows by overlap and conversion against numpy's least squares, relative to the largest value",
        difference=numpy_difference(base, tuned, tokenizer, pack, packs),
        bar=1e-5,
    )
    return [witness], list(planted(base, tokenizer, pack)), [headline(losses, packs)]


def with_trained_rows(model: Any, pack: VocabularyPack, train: Corpus) -> VocabularyPack:
    """The pack after some steps on the target's text."""
    words: dict[str, Any] = {"steps": STEPS, "tokens_per_step": TOKENS, "max_length": LENGTH, "evaluate_every": STEPS}
    return train_vocabulary(model, pack, train[Language(TARGET)], language=TARGET, **words).pack


def tuned_on(base: Any, tokenizer: Any, texts: list[str]) -> Any:
    """A copy of the base, all of whose parameters were trained for some steps by plain torch."""
    tuned = copy.deepcopy(base).train()
    flat = torch.tensor([index for text in texts for index in tokenizer(text)["input_ids"]])
    rows = flat[: STEPS * TOKENS].view(STEPS, -1, LENGTH)
    step = torch.optim.AdamW(tuned.parameters(), lr=RATE, weight_decay=0.0)
    for batch in rows:
        tuned(input_ids=batch, labels=batch).loss.backward()
        step.step()
        step.zero_grad()
    return tuned.eval()


def losses_with(model: Any, pack: VocabularyPack, held: Corpus) -> Losses:
    with pack.applied(model):
        return held_out_losses(model, pack.tokenizer, held)[0]


def numpy_difference(base: Any, tuned: Any, tokenizer: Any, pack: VocabularyPack, packs: dict[str, Any]) -> float:
    before, after = (m.get_input_embeddings().weight.detach().double().numpy() for m in (base, tuned))
    written = {index: entry for entry, index in pack.tokenizer.get_vocab().items()}
    new = (pack.source < 0).nonzero()[:, 0].tolist()
    cuts = [[token.id for token in tokenizer.backend_tokenizer.model.tokenize(written[index])] for index in new]
    shared = sorted(tokenizer.get_vocab().values())
    means = [np.stack([table[cut].mean(axis=0) for cut in cuts]) for table in (before, after)]
    pairs = {"overlap": (before[shared], after[shared])}
    pairs["conversion"] = (np.vstack([before[shared], means[0]]), np.vstack([after[shared], means[1]]))
    apart = []
    for way, (x, y) in pairs.items():
        truth = pack.rows.double().numpy() @ np.linalg.lstsq(x, y, rcond=None)[0]
        apart.append(np.abs(packs[way].rows.numpy() - truth).max() / np.abs(truth).max())
    return float(max(apart))


def planted(base: Any, tokenizer: Any, pack: VocabularyPack):
    """A tuned model whose table is the base's by a known rotation, and one by a known addition."""
    width, table = pack.rows.shape[1], base.get_input_embeddings().weight.detach()
    turn = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0)).double())[0]
    step = float(table.std()) * torch.randn(width, generator=torch.Generator().manual_seed(1))
    cases = {
        "rotation": (("overlap", "conversion"), (table.double() @ turn).float(), pack.rows.double() @ turn),
        "addition": (("shift",), table + step, pack.rows.double() + step),
    }
    for name, (ways, changed, truth) in cases.items():
        tuned = copy.deepcopy(base)
        with torch.no_grad():
            tuned.get_input_embeddings().weight.copy_(changed)

        def found(way: str, shuffled: bool = False, tuned: Any = tuned, truth: Any = truth) -> float:
            made = carry_vocabulary(pack, base, tokenizer, tuned, tokenizer, way=way, shuffled=shuffled)
            near = ((made.rows - truth).abs() <= 1e-4 * truth.abs().max()).all(dim=1)
            return float(near.double().mean())

        controls = [found("swap"), *(found(way, True) for way in ways if name == "rotation")]
        yield Planted(
            what=f"rows of a model made from the base by a known {name} of its table, by {' and '.join(ways)}; of the "
            f"controls (as they are{', shuffled pairs' if name == 'rotation' else ''}) {max(controls):.0%} are right",
            recall=min(found(way) for way in ways),
            precision=1 - max(controls),
        )


def difference(first: Losses, second: Losses) -> str:
    """Bits per byte of the first less those of the second, on the same documents."""
    parts = (first.nats - second.nats) / math.log(2)
    low, high = ratio_interval(parts, first.n_bytes)[:2]
    return f"{float(parts.sum() / first.n_bytes.sum()):+.4f} ({low:+.4f} to {high:+.4f})"


def headline(losses: dict[str, Losses], packs: dict[str, Any]) -> Headline:
    swap, ceiling = losses["swap"], losses["trained there"]
    facts = packs["overlap"].parameters["carried"]["tables"]["embedding"]
    bits = {way: losses[way].bits_per_byte for way in losses}
    rest = ", ".join(f"{way} {difference(losses[way], swap)}" for way in ("overlap", "conversion", "shift"))
    shuffled = ", ".join(f"{way} {difference(losses[way], swap)}" for way in losses if "shuffled" in way)
    ordered = bits["conversion"] <= bits["swap"] < bits["sub-words"] and bits["swap"] < bits["conversion, shuffled"]
    return Headline(
        paper="extended vocabularies: swap .608 and .592, overlap .607 and .597, conversion .609 and .597 of Darumeru "
        "(OpenChat 3.5, LLaMa-3-8B instruct)",
        ours=f"Basque in a model tuned by {STEPS} steps on English, bits per byte over {len(swap.nats)} documents: "
        f"swap {bits['swap']:.4f}; against it {rest}, mean of sub-words {difference(losses['sub-words'], swap)}, rows "
        f"trained in the tuned model itself {difference(ceiling, swap)}; tuning moved rows by {facts['moved']:.0%}, of "
        f"which a map explains {facts['explained']:.0%} in unseen rows",
        control=f"pairs shuffled: {shuffled}",
        model="bundled model",
        verdict="in shape" if ordered else "not",
    )
