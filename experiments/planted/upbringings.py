"""What is known of models that were trained on two languages: their exposure, its order, and who they can speak."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

import babelscope as bs
from babelscope.corpus import MixUnit
from babelscope.evaluation import HeldOut, document_losses
from babelscope.models import layout_of
from planted.cloned_facts import ASKED, ELSEWHERE, HELD_OUT, cloned_table, cloned_text, one_language_model
from planted.grammar import PAIR, Upbringing, held_text, raise_model
from planted.methods import NEAR, Check
from planted.mixed_training import train_mixed

CROSSED = 0.625
"""Accuracy of a mixture, half-way from chance among four options to all, from which knowledge is said to cross."""


@dataclass(frozen=True)
class Nursery:
    """Models by how they were raised, each trained once."""

    seed: int

    @functools.cached_property
    def models(self) -> dict[Upbringing, tuple[Any, PreTrainedTokenizerFast]]:
        ways = (
            Upbringing(0.5, seed=self.seed),
            Upbringing(0.9, seed=self.seed),
            Upbringing(0.1, seed=self.seed),
            Upbringing(0.1, similarity=0.0, seed=self.seed),
            Upbringing(0.5, "one after the other", seed=self.seed),
        )
        return {way: raise_model(way) for way in ways}

    def nats(self, way: Upbringing) -> dict[str, float]:
        """Loss a token on text that was not trained on."""
        model, tokenizer = self.models[way]
        losses = {
            str(part.language): document_losses(layout_of(model), part)
            for part in HeldOut.prepare(tokenizer, held_text(way))
        }
        return {tag: float(loss.nats.sum() / loss.tokens.sum()) for tag, loss in losses.items()}


def check_exposure(nursery: Nursery) -> Iterator[Check]:
    """The language of most exposure, and of the last, is the one that the model predicts better."""
    first, second = PAIR
    truths, named = set(), set()
    for share, better in ((0.9, first), (0.1, second)):
        nats = nursery.nats(Upbringing(share, seed=nursery.seed))
        truths.add((share, better))
        named |= {
            (share, tag) for tag in PAIR if nats[tag] < min(n for other, n in nats.items() if other != tag) - 0.05
        }
    yield Check("loss by language", "the clone of which nine tenths were read", frozenset(truths), frozenset(named))
    nats = nursery.nats(Upbringing(0.5, "one after the other", seed=nursery.seed))
    named = {tag for tag in PAIR if nats[tag] < min(n for other, n in nats.items() if other != tag) - 0.05}
    yield Check("loss by language", "the clone that was read last", frozenset({second}), frozenset(named))


def check_transfer(nursery: Nursery) -> Iterator[Check]:
    """A tenth of the exposure buys more in a clone than in a language of another grammar."""
    rare = PAIR[0]
    clone = nursery.nats(Upbringing(0.1, seed=nursery.seed))[rare]
    unlike = nursery.nats(Upbringing(0.1, similarity=0.0, seed=nursery.seed))[rare]
    named = frozenset({"clone"} if clone < unlike - 0.05 else {"unlike"} if unlike < clone - 0.05 else set())
    yield Check("transfer to a rare language", "the grammar is that of the other", frozenset({"clone"}), named)


def check_trained_sets(nursery: Nursery) -> Iterator[Check]:
    """Sets found in a trained model of two clones: whose text do they harm most, and what do they make it speak?"""
    way = Upbringing(0.5, seed=nursery.seed)
    model, tokenizer = nursery.models[way]
    both = held_text(way, sentences=120)
    halves = [{tag: documents[start::2] for tag, documents in both.items()} for start in (0, 1)]
    texts, other_texts = (both.derived(half, f"{both.name}, half") for half in halves)
    sites = [bs.Site(layer, at) for layer in range(2) for at in ("mlp_gate", "resid_out")]
    observation = bs.observe(model, tokenizer, texts, sites=sites)
    sets = bs.select_lape(observation, top_rate=0.1, filter_rate=0.8, bar_rate=0.8)
    table = bs.ablation_matrix(model, tokenizer, sets, other_texts, draws=9, max_tokens=500, seed=nursery.seed)
    named = frozenset((tag, PAIR[int(row.argmax())]) for tag, row in zip(PAIR, table.relative_harm, strict=True))
    truths = frozenset((tag, tag) for tag in PAIR)
    yield Check("LAPE and ablation, trained clones", "own text harmed most", truths, named)
    spoken = set()
    for target, source in (PAIR, PAIR[::-1]):
        direction = bs.mean_direction(observation, target=target, source=source, layer=0)
        prompts = [document.text for document in texts[source][:8]]
        ids = tokenizer(prompts, return_tensors="pt")["input_ids"]
        with bs.steer(model, direction.add(1.0), tokenizer=tokenizer):
            answers = model.generate(ids, max_new_tokens=8, do_sample=False)[:, ids.shape[1] :]
        words = set(" ".join(document.text for document in texts[target]).split())
        right = [entry in words for row in answers for entry in tokenizer.convert_ids_to_tokens(row)]
        if torch.tensor(right).double().mean() >= NEAR:
            spoken.add((source, target))
    turns = frozenset({PAIR, PAIR[::-1]})
    yield Check("mean_direction, trained clones", "answers turn into the other clone", turns, frozenset(spoken))


def check_mixed_training(nursery: Nursery) -> Iterator[Check]:
    """Which parts of a question may be in the second language after text that is mixed word by word, and after the same
    text with each line in one language."""
    model, tokenizer = one_language_model(nursery.seed)
    cases: tuple[tuple[range, tuple[MixUnit, ...], tuple[str, str], str], ...] = (
        (ASKED, ("words", "document"), ("question", "options"), "the facts' own text joins the languages where mixed"),
        (ELSEWHERE, ("words",), ("question", "full"), "mixed text of other facts says nothing of these subjects"),
    )
    settings = {"steps": 100, "evaluate_every": 100, "trail_every": 101, "tokens_per_step": 512, "learning_rate": 5e-3}
    for subjects, units, mixtures, planted in cases:
        texts = {"train": cloned_text(subjects, times=8), "test": cloned_text(HELD_OUT)}
        trained = train_mixed(
            model, tokenizer, cloned_table(), texts, units, words=1, lines=1, max_length=32, method="full", **settings
        )
        named = {
            (unit, mixture) for unit in units for mixture in mixtures if trained.change(unit)[mixture].after > CROSSED
        }
        truths = {("words", mixture) for mixture in mixtures if subjects is ASKED}
        yield Check("mixed-language training", planted, frozenset(truths), frozenset(named))


UPBRINGING_CHECKS = (check_exposure, check_transfer, check_trained_sets, check_mixed_training)
