"""Every method of the toolkit that has something to find in the constructed model, with what it must find.

Each check gives the truths that were planted and those that the method names; recall and precision are of these sets.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import combinations, permutations
from typing import NamedTuple

import torch

import babelscope as bs
from babelscope.artifacts import Observation
from babelscope.axes import Float64, Tensor
from babelscope.corpus import Corpus
from babelscope.evaluation import HeldOut, document_losses
from babelscope.models import layout_of
from babelscope.neurons.neuron_selection import neuron_rule
from babelscope.neurons.rule_files import rule_names
from babelscope.probes.circuits.answer_patching import patch_effects
from babelscope.probes.circuits.prompt_pairs import PatchPair
from babelscope.probes.concepts.concept_neurons import concept_neurons
from babelscope.probes.geometry.alignment import language_alignment
from babelscope.probes.geometry.embeddings import embedding_geometry
from babelscope.probes.geometry.language_id import language_probe
from babelscope.probes.geometry.sentences import Sentences, record_sentences
from babelscope.probes.lens.logit_lens import logit_lens
from babelscope.probes.lens.word_lists import indicative_tokens
from babelscope.probes.units.head_ablation import ablate_heads
from babelscope.probes.units.heads import head_selectivity, record_heads
from babelscope.probes.units.removal import removal_sets, removal_votes
from babelscope.steering.directions.spaces import language_basis
from babelscope.steering.directions.subspaces import principal_angles, random_subspace
from planted.construct import (
    CLONES,
    CONCEPTS,
    HIDDEN,
    LANGUAGES,
    LAYERS,
    NEURONS,
    Planted,
    construct,
    read_axis,
    sentences,
    word,
)

NEAR = 0.9
"""Least cosine of dimensions of two subspaces, accuracy, or share of an answer, for it to count."""
NEARER_THAN_CHANCE = 0.5
"""Least cosine of a direction with the planted one that it is nearest to; a random one of 64 units reaches .3."""
LEVEL = 0.05
SITES = ("mlp_gate", "attn_heads", "resid_out")


class Check(NamedTuple):
    """What was planted, and what a method names."""

    method: str
    planted: str
    """What was put there, in words."""
    truths: frozenset
    named: frozenset

    def row(self) -> dict:
        """Recall and precision; both 1 where nothing was planted and nothing is named."""
        right = len(self.truths & self.named)
        return {
            "method": self.method,
            "planted": self.planted,
            "truths": len(self.truths),
            "named": len(self.named),
            "recall": right / len(self.truths) if self.truths else 1.0,
            "precision": right / len(self.named) if self.named else float(not self.truths),
        }


@dataclass(frozen=True)
class Laboratory:
    """The constructed model with its text, read once for all checks."""

    seed: int

    @functools.cached_property
    def whole(self) -> Planted:
        return construct(self.seed)

    @functools.cached_property
    def blind(self) -> Planted:
        """The same without a sign of the language."""
        return construct(self.seed, marked=False)

    @functools.cached_property
    def texts(self) -> Corpus:
        return sentences(seed=self.seed)

    @functools.cached_property
    def observation(self) -> Observation:
        sites = [bs.Site(layer, at) for layer in range(LAYERS) for at in SITES]  # pyright: ignore[reportArgumentType]
        return bs.observe(self.whole.model, self.whole.tokenizer, self.texts, sites=sites)

    def sentence_vectors(self, planted: Planted, *, unrelated: tuple[str, ...] = ()) -> Sentences:
        texts = sentences(seed=self.seed, unrelated=unrelated)
        return record_sentences(planted.model, planted.tokenizer, texts, sentences=60)


def pairs_of(places: dict) -> frozenset:
    """(language, place) for every neuron or head of a set."""
    return frozenset((str(tag), place) for tag, row in places.items() for place in row)


def check_rules(lab: Laboratory) -> Iterator[Check]:
    """The rules of neurons, each told how many there are, as its users choose a rate."""
    truths, count = pairs_of(lab.whole.neurons), sum(map(len, lab.whole.neurons.values()))
    for name in rule_names("babelscope.neurons.rules"):
        parameters = {part.name for part in fields(type(neuron_rule(name)))}
        contrasts = hasattr(type(neuron_rule(name)), "score")
        rate = count / (LAYERS * NEURONS) / (1 if contrasts else len(LANGUAGES))
        rule = neuron_rule(name, **({"top_rate": rate} if "top_rate" in parameters else {}))
        sets = rule.choose(lab.observation, None, None, at="mlp_gate")
        yield Check(f"rule {name}", "neurons of four languages", truths, pairs_of(sets.as_dict()))
    votes = removal_votes(lab.whole.model, lab.whole.tokenizer, lab.texts, top_rate=2 / NEURONS)
    specific = removal_sets(votes, draws=1, seed=lab.seed).specific
    writing = frozenset(pair for pair in pairs_of(specific.as_dict()) if pair[1][0] in (1, 2, 3))
    yield Check("removal votes, layers 1 to 3", "neurons of four languages", truths, writing)


def check_concepts(lab: Laboratory) -> Iterator[Check]:
    """Neurons of one concept in the clones; others answer to noise, which can be that of the same concept by chance."""
    result = concept_neurons(lab.whole.model, lab.whole.tokenizer, lab.texts.only(CLONES), seed=lab.seed, draws=39)
    best = enumerate(result.agreement.argmax(dim=1).tolist())
    named = frozenset((layer, neuron) for layer, neuron in best if float(result.q[layer, neuron]) <= LEVEL)
    truths = frozenset(lab.whole.concept_neurons)
    yield Check("concept neurons, the best of each layer", "a neuron of one concept in each layer", truths, named)


def check_directions(lab: Laboratory) -> Iterator[Check]:
    """Directions after the first layer, where languages differ by one axis each."""
    pairs = tuple(permutations(range(len(LANGUAGES)), 2))
    axes, planted = lab.whole.axes.double(), torch.zeros(len(pairs), HIDDEN, dtype=torch.float64)
    for row, (target, source) in enumerate(pairs):
        planted[row] = (axes[read_axis(target)] - axes[read_axis(source)]) * 0.5**0.5
    site = bs.Site(0, "resid_out")
    samples = bs.document_means(lab.whole.model, lab.whole.tokenizer, lab.texts, [site])[site]
    makers: dict[str, Callable[..., bs.Direction]] = {
        "mean_direction": functools.partial(bs.mean_direction, lab.observation, layer=0),
        "pca_direction": functools.partial(bs.pca_direction, samples),
        "probe_direction": functools.partial(bs.probe_direction, samples),
        "lda_direction": functools.partial(bs.lda_direction, samples),
    }
    for name, make in makers.items():
        named = set()
        for target, source in pairs:
            vector = make(target=LANGUAGES[target], source=LANGUAGES[source]).vector.double()
            cosine = planted @ vector / vector.norm()
            if float(cosine.max()) >= NEARER_THAN_CHANCE:
                named.add((target, source, pairs[int(cosine.argmax())]))
        truths = frozenset((*pair, pair) for pair in pairs)
        yield Check(
            name,
            f"the way between each two of four languages, cosine {NEARER_THAN_CHANCE} or more",
            truths,
            frozenset(named),
        )


def check_subspaces(lab: Laboratory) -> Iterator[Check]:
    """Basis of the languages' means against the planted axes; a random subspace of the same rank names none."""
    axes = lab.whole.axes.double()[[read_axis(k) for k in range(len(LANGUAGES))]]
    spanned = torch.linalg.svd(axes - axes.mean(dim=0), full_matrices=False)[2][:-1]
    truths = frozenset(range(len(spanned)))

    def shared(basis: Float64[Tensor, "rank hidden"]) -> frozenset:
        return frozenset((principal_angles(spanned, basis).cos() >= NEAR).nonzero()[:, 0].tolist())

    basis = language_basis(lab.observation, 0).double()
    yield Check("language_basis", "three dimensions in which languages differ", truths, shared(basis))
    random_basis = random_subspace(len(spanned), HIDDEN, seed=lab.seed)
    yield Check("control: a random subspace", "nothing", frozenset(), shared(random_basis))


def check_sentences(lab: Laboratory) -> Iterator[Check]:
    """Which pairs of languages are aligned, and whether the language can be read, with it and without."""
    vectors = lab.sentence_vectors(lab.whole, unrelated=("hi",))
    table = language_alignment(vectors, against=None, draws=39, seed=lab.seed)
    cells = [cell for cell in table.cells if str(cell.site) == "0.resid_in"]
    every_pair = [frozenset(pair) for pair in combinations(LANGUAGES, 2)]
    for measure, truths, what in (
        ("mexa", {frozenset(CLONES)}, "two languages with the same concept vectors"),
        ("cka", {pair for pair in every_pair if "hi" not in pair}, "three languages with the same sentences"),
    ):
        named = {
            frozenset((str(cell.one), str(cell.other)))
            for cell in cells
            if cell.measure.startswith(measure) and cell.p <= LEVEL and cell.estimate > cell.null + 0.25
        }
        yield Check(f"alignment by {measure}", what, frozenset(truths), frozenset(named))
    readable = set()
    for name, planted in (("with", lab.whole), ("without", lab.blind)):
        probe = language_probe(lab.sentence_vectors(planted), draws=39, seed=lab.seed)
        if float(probe.p[0]) <= LEVEL and float(probe.accuracy[0]) > NEAR:
            readable.add(name)
    yield Check(
        "language identification", "one model with languages, and one without", frozenset({"with"}), frozenset(readable)
    )


def check_embeddings(lab: Laboratory) -> Iterator[Check]:
    """Whether classes of entries are apart: scripts and languages in the model with languages, none without."""
    named = set()
    for name, planted in (("with", lab.whole), ("without", lab.blind)):
        tokens = indicative_tokens(planted.tokenizer, lab.texts)
        geometry = embedding_geometry(planted.model, planted.tokenizer, tokens=tokens, fewest=10, seed=lab.seed)
        named |= {
            (name, part.labels)
            for part in geometry.separability
            if part.table == "input" and part.p <= LEVEL and part.accuracy > NEAR
        }
    truths = frozenset({("with", "script"), ("with", "language")})
    yield Check("embedding geometry", "languages and scripts, in one of two models", truths, frozenset(named))


def check_lens(lab: Laboratory) -> Iterator[Check]:
    """The language in which the stream speaks after each layer."""
    planted = construct(lab.seed, pivot="en")
    tokens = indicative_tokens(planted.tokenizer, lab.texts)
    reading = logit_lens(planted.model, planted.tokenizer, lab.texts, tokens=tokens, draws=9, seed=lab.seed)
    truths = {(tag, depth, "en") for tag in LANGUAGES for depth in (1, 2)}
    truths |= {(tag, LAYERS, tag) for tag in LANGUAGES}
    named = {
        (tag, depth, str(tokens.languages[int(reading.share[k, depth].argmax())]))
        for k, tag in enumerate(LANGUAGES)
        for depth in range(LAYERS + 1)
        if float(reading.share[k, depth].max()) > 0.5
    }
    # What the stream says between the two is not planted, for English text least of all.
    named = {cell for cell in named if cell[1] != LAYERS - 1}
    yield Check(
        "logit lens", "English after layers 0 and 1, the text's own after 3", frozenset(truths), frozenset(named)
    )


def check_heads(lab: Laboratory) -> Iterator[Check]:
    """The head of each language by what it writes, and by the harm of its removal."""
    truths = pairs_of({tag: [place] for tag, place in lab.whole.heads.items()})
    chosen = head_selectivity(record_heads(lab.whole.model, lab.whole.tokenizer, lab.texts), draws=39, seed=lab.seed)
    best = chosen.heads(1)
    yield Check("heads by what they write", "a head for each language", truths, pairs_of(dict(best)))
    harm = ablate_heads(lab.whole.model, lab.whole.tokenizer, best, lab.texts, draws=9, seed=lab.seed)
    named = {
        (str(part.language), str(tag)) for part in harm.languages for tag, value in part.harm.items() if value > 1e-5
    }
    own = frozenset((tag, tag) for tag in LANGUAGES)
    yield Check("heads by the harm of their removal", "own text alone is harmed", own, frozenset(named))


def check_ablation(lab: Laboratory) -> Iterator[Check]:
    """Whose text is harmed when a language's neurons are off."""
    table = bs.ablation_matrix(
        lab.whole.model, lab.whole.tokenizer, lab.whole.sets(), lab.texts, draws=3, max_tokens=300, seed=lab.seed
    )
    harmed = (table.relative_harm > 1e-4).nonzero().tolist()
    named = frozenset((LANGUAGES[row], LANGUAGES[column]) for row, column in harmed)
    own = frozenset((tag, tag) for tag in LANGUAGES)
    yield Check("ablation", "own text alone is harmed", own, named)


def check_patching(lab: Laboratory) -> Iterator[Check]:
    """The one layer whose MLP says the language: all other layers' neurons of it are off."""
    planted = construct(lab.seed, pivot="en")
    pairs = [
        PatchPair(word("fi", first), word("ru", second), word("fi", third), word("ru", third))
        for first, second, third in ((0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11))
    ]
    table = patch_effects(planted.model, planted.tokenizer, pairs, at="mlp_out", resamples=20, seed=lab.seed)
    named = frozenset(effect.layer for effect in table.effects if effect.effect > 0.5)
    yield Check("activation patching of MLPs", "the last layer says the language", frozenset({LAYERS - 1}), named)


def check_units(lab: Laboratory) -> Iterator[Check]:
    """Which language's words the neurons of a language write."""
    truths = pairs_of(lab.whole.neurons)
    named = set()
    for tag in LANGUAGES:
        units = bs.describe_units(
            lab.whole.sets(), lab.whole.model, lab.whole.tokenizer, language=tag, effects=False, seed=lab.seed
        ).units
        words = {word(tag, concept) for concept in range(CONCEPTS)}
        named |= {(tag, (unit.layer, unit.index)) for unit in units if {text.strip() for text in unit.writes} <= words}
    yield Check("words that a neuron writes", "words of its language", truths, frozenset(named))


def check_steering(lab: Laboratory) -> Iterator[Check]:
    """Into which language answers turn, from prompts in another; a random direction turns none."""
    sets, observation = lab.whole.sets(), lab.observation
    recipes: dict[str, Callable[[str, str], object]] = {
        "language_arithmetic": lambda target, source: bs.language_arithmetic(
            sets, observation, target=target, source=source, strength=3
        ),
        "mean_direction, steered": lambda target, source: bs.mean_direction(
            observation, target=target, source=source, layer=3
        ).add(1.0),
        "hold_coordinates": lambda target, _: bs.hold_coordinates(observation, target=target, layer=3),
        "shift_and_back": lambda target, source: bs.shift_and_back(
            observation, source=source, pivot=third(target, source), target=target, layers=(0, 3)
        ),
    }
    pairs = tuple(permutations(LANGUAGES, 2))
    for name, make in recipes.items():
        named = {
            (source, spoken) for target, source in pairs if (spoken := answered(lab, make(target, source), source))
        }
        truths = frozenset((source, target) for target, source in pairs)
        turned = frozenset(pair for pair in named if pair[0] != pair[1])
        yield Check(name, "answers turn into each language from each other", truths, turned)
    direction = bs.mean_direction(observation, target="fi", source="en", layer=3)
    noise = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(lab.seed))
    random_direction = type(direction)(**{**vars(direction), "vector": noise * direction.vector.norm() / noise.norm()})
    spoken = answered(lab, random_direction.add(1.0), "en")
    yield Check("control: a random direction", "nothing", frozenset(), frozenset({spoken} - {"en", ""}))


def third(target: str, source: str) -> str:
    """The first language that is neither."""
    return next(tag for tag in LANGUAGES if tag not in (target, source))


def answered(lab: Laboratory, recipe: object, source: str) -> str:
    """The language of nine in ten of the tokens of steered answers; "" where there is none."""
    prompts = [document.text for document in lab.texts[source][:4]]
    ids = lab.whole.tokenizer(prompts, return_tensors="pt")["input_ids"]
    with bs.steer(lab.whole.model, recipe, tokenizer=lab.whole.tokenizer):  # pyright: ignore[reportArgumentType]
        answers = lab.whole.model.generate(ids, max_new_tokens=6, do_sample=False)[:, ids.shape[1] :]
    language = (answers.flatten() - 3) // CONCEPTS
    for k, tag in enumerate(LANGUAGES):
        if float((language == k).double().mean()) >= NEAR:
            return tag
    return ""


def check_training(lab: Laboratory) -> Iterator[Check]:
    """Whose loss falls when a language's neurons are trained on its text, and what the change adds up to."""
    model, tokenizer, sets = lab.whole.model, lab.whole.tokenizer, lab.whole.sets()
    skewed, held = sentences(seed=lab.seed + 1, skewed=True), sentences(40, seed=lab.seed + 2, skewed=True)
    prepared = HeldOut.prepare(tokenizer, held)
    before = {part.language: float(document_losses(layout_of(model), part).nats.sum()) for part in prepared}
    named = set()
    for tag in LANGUAGES:
        documents = list(skewed[tag])
        delta = bs.train_subnetwork(
            model, tokenizer, sets[tag], documents, steps=30, learning_rate=0.02, tokens_per_step=512, seed=lab.seed
        )
        with delta.applied(model):
            after = {part.language: float(document_losses(layout_of(model), part).nats.sum()) for part in prepared}
        named |= {(tag, str(other)) for other, nats in after.items() if abs(nats / before[other] - 1) > 0.01}
    own = frozenset((tag, tag) for tag in LANGUAGES)
    yield Check("subnetwork training", "only the own language's loss changes, by over 1 %", own, frozenset(named))


CHECKS = (
    check_rules,
    check_concepts,
    check_directions,
    check_subspaces,
    check_sentences,
    check_embeddings,
    check_lens,
    check_heads,
    check_ablation,
    check_patching,
    check_units,
    check_steering,
    check_training,
)
