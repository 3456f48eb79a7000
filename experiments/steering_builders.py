"""How each way of steering is made for a target and a source, for experiments/compare_steering_methods.py."""

from collections.abc import Callable, Sequence
from dataclasses import replace as changed
from functools import cache, partial
from typing import Any, Literal, Protocol

import torch

from babelscope import (
    Direction,
    Gate,
    Operation,
    Site,
    SteeringRecipe,
    ablate_languages,
    clamp_features,
    document_codes,
    document_means,
    feature_difference,
    fit_condition,
    head_shift,
    hold_coordinates,
    incline,
    language_arithmetic,
    layout_of,
    lda_direction,
    lift_features,
    load_corpus,
    low_rank_control,
    mean_direction,
    observe,
    open_model,
    scale_features,
    scale_neurons,
    select_entropy_lambda,
    shift_and_back,
)
from babelscope.features import load_sae, observe_features, select_langfir
from babelscope.languages import Language
from babelscope.probes.lens.word_lists import indicative_tokens
from babelscope.steering.directions import language_basis
from babelscope.steering.sweeps import random_directions
from babelscope.steering.sweeps.comparison import Setting

Steering = SteeringRecipe | Sequence[Operation]
Build = Callable[[Setting, Language, Language], Steering]


class Learned(Protocol):
    """What of a configuration says what the methods learn from."""

    @property
    def model(self) -> str: ...
    @property
    def corpus(self) -> str: ...
    @property
    def targets(self) -> tuple[str, ...]: ...
    @property
    def tokens(self) -> int: ...
    @property
    def documents(self) -> int: ...


class Study:
    """What the methods read: the model, its observation, and documents' means, each made when first needed."""

    def __init__(self, config: Learned) -> None:
        self.config = config
        self.model, self.tokenizer = open_model(config.model, device="cpu")
        splits = ("train", "valid", "test")
        self.texts = {split: load_corpus(config.corpus, config.targets, split=split) for split in splits}
        if config.documents:
            self.texts["train"] = self.texts["train"].head(config.documents)
        self.obs = observe(
            self.model,
            self.tokenizer,
            self.texts["train"],
            sites=["resid_out", "mlp_gate", "attn_heads"],
            tokens_per_language=config.tokens,
            shards=8,
        )
        self.targets = self.obs.languages
        self.depth = layout_of(self.model).n_layers
        self.means = cache(self._means)
        self.basis = cache(partial(language_basis, self.obs))

    def _means(self, at: Literal["resid_out", "mlp_out"]):
        """Of every layer, in one pass."""
        sites = [Site(layer, at) for layer in range(self.depth)]
        return document_means(self.model, self.tokenizer, self.texts["train"], sites)

    def samples(self, layer: int, at: Literal["resid_out", "mlp_out"] = "resid_out"):
        return self.means(at)[Site(layer, at)]


def mean(study: Study, s: Setting, target: Language, source: Language) -> SteeringRecipe:
    direction = mean_direction(study.obs, target=target, source=source, layer=s.layer)
    return direction.recipe(s.strength, "raw").with_(schedule=s.fade)


def fitted(study: Study, fit: Callable[..., Direction], s: Setting, target: Language, source: Language):
    direction = fit(study.samples(s.layer), target=target, source=source)
    return direction.recipe(s.strength, "raw").with_(schedule=s.fade)


def discriminant(study: Study) -> Build:
    @cache
    def shift(layer: int, tag: Language) -> torch.Tensor:
        """From the first language to this one: shifts of one analysis add up."""
        samples, first = study.samples(layer), study.targets[0]
        same = tag == first
        return torch.zeros(samples.value.shape[1]) if same else lda_direction(samples, target=tag, source=first).vector

    def build(s: Setting, target: Language, source: Language) -> Steering:
        vector = shift(s.layer, target) - shift(s.layer, source)
        site = Site(s.layer, "resid_out")
        return [Operation(site, "add", vector, s.strength, schedule=s.fade, origin=study.obs.origin)]

    return build


def clean_map(study: Study) -> Build:
    @cache
    def recipe(target: Language, source: Language):
        samples = {Site(n, "mlp_out"): study.samples(n, "mlp_out") for n in range(study.depth)}
        return incline(samples, target=target, source=source)

    return lambda s, target, source: recipe(target, source).with_(strength=s.strength)


def live_map(study: Study) -> Build:
    @cache
    def recipe(layer: int, target: Language, source: Language):
        form = {"ridge": 0.01, "form": "blend", "intercept": True, "clean": False}
        samples = {Site(layer, "resid_out"): study.samples(layer)}
        return incline(samples, target=target, source=source, **form).with_(gate=Gate())

    def build(s: Setting, target: Language, source: Language) -> Steering:
        return recipe(s.layer, target, source).with_(strength=s.strength, schedule=s.fade)

    return build


def neurons(study: Study, by: Any) -> Build:
    sets = cache(lambda: select_entropy_lambda(study.obs, top_rate=0.02).sets)

    def build(s: Setting, target: Language, source: Language) -> Steering:
        found = sets()
        if not found.sizes[target]:
            return []
        off = source if found.sizes[source] else None
        recipe = language_arithmetic(found, study.obs, target=target, source=off, by=by, strength=s.strength)
        return recipe.with_(schedule=s.fade)

    return build


def neurons_scaled(study: Study) -> Build:
    """The prompt language's neurons to nothing, the target's to twice what they are, at strength 1."""
    sets = cache(lambda: select_entropy_lambda(study.obs, top_rate=0.02).sets)

    def build(s: Setting, target: Language, source: Language) -> Steering:
        return [
            operation
            for tag, factor in ((source, 0.0), (target, 2.0))
            if sets().sizes[tag]
            for operation in scale_neurons(sets(), tag, factor).with_(strength=s.strength, schedule=s.fade)
        ]

    return build


def conditional(study: Study) -> Build:
    """Only prompts that are not in the target's language already."""

    @cache
    def gate(target: Language) -> Gate:
        samples = study.samples(3 * study.depth // 8)
        return Gate(condition=changed(fit_condition(samples, language=target).condition, above=False))

    return lambda s, target, source: mean(study, s, target, source).with_(gate=gate(target))


def noise(study: Study) -> Build:
    @cache
    def draws(layer: int):
        site = Site(layer, "resid_out")
        like = mean_direction(study.obs, target=study.targets[0], layer=layer)
        return random_directions(
            study.model, study.tokenizer, study.texts["valid"], site, draws=10, seed=layer, like=like
        )

    def build(s: Setting, target: Language, source: Language) -> Steering:
        (true,) = mean(study, s, target, source)
        row = (study.targets.index(target) + 5 * study.targets.index(source)) % 10
        return [changed(true, vector=draws(s.layer)[row] * true.vector.norm())]

    return build


def held(study: Study, s: Setting, target: Language, source: Language) -> SteeringRecipe:
    recipe = hold_coordinates(study.obs, target=target, layer=s.layer, basis=study.basis(s.layer))
    return recipe.with_(strength=s.strength, schedule=s.fade)


def ablated(study: Study) -> Build:
    @cache
    def recipe(s: Setting):
        upper = range(s.layer + 3, study.depth)
        return ablate_languages(
            study.obs, middle=[s.layer], upper=upper, strength=s.strength, upper_strength=-s.strength / 3
        )

    return lambda s, target, source: recipe(s)


def there_and_back(study: Study, s: Setting, target: Language, source: Language) -> SteeringRecipe:
    pivot = next(tag for tag in study.targets if tag not in (source, target))
    recipe = shift_and_back(
        study.obs, source=source, pivot=pivot, target=target, layers=(s.layer, min(s.layer + 2, study.depth - 1))
    )
    return recipe.with_(strength=s.strength, schedule=s.fade)


def heads(study: Study, s: Setting, target: Language, source: Language) -> SteeringRecipe:
    n = study.model.config.num_attention_heads
    recipe = head_shift(study.obs, n, target=target, source=source, heads=s.layer)
    return recipe.with_(strength=s.strength, schedule=s.fade)


def features(study: Study, how: Literal["add", "clamp", "scale"], name: str = "reference", tau: float = 0.5) -> Build:
    """LangFIR features of both languages: their means' difference added, held at twice the target's, or scaled."""

    @cache
    def read():
        sae = load_sae(name, model=study.model)
        seen = observe_features(
            study.model, study.tokenizer, study.texts["train"], sae, tokens_per_language=study.config.tokens
        )
        return sae, select_langfir(seen, tau=tau), seen.sum / seen.tokens

    def build(s: Setting, target: Language, source: Language) -> Steering:
        sae, sets, means = read()
        k, j = study.targets.index(target), study.targets.index(source)
        to, away = (set(sets.features(tag).tolist()) for tag in (target, source))
        chosen = sorted(to | away)
        if not chosen:
            return []
        if how == "scale":
            factors = {index: 2.0 if index in to else 0.0 for index in chosen}
            return scale_features(sae, factors).with_(strength=s.strength, schedule=s.fade)
        if how == "clamp":
            levels = {index: float(means[index, k]) * 2 for index in chosen}
            return clamp_features(sae, levels).with_(strength=s.strength, schedule=s.fade)
        direction = feature_difference(study.obs, sae, chosen, means[:, k], means[:, j], target=target, source=source)
        return direction.recipe(s.strength, "raw").with_(schedule=s.fade)

    return build


def low_rank(study: Study) -> Build:
    """Singular directions of the way between two languages; the setting's layers are the first ones to choose from."""

    @cache
    def recipe(layers: int, target: Language, source: Language):
        samples = {Site(n, "resid_out"): study.samples(n) for n in range(layers)}
        return low_rank_control(samples, target=target, source=source)

    return lambda s, target, source: recipe(s.layer, target, source).with_(strength=s.strength, schedule=s.fade)


def lifted(study: Study, name: str) -> Build:
    """Features that one of two languages fires and whose rows lift its tokens: the target's up, the other's down."""

    @cache
    def read():
        sae, texts = load_sae(name, model=study.model), study.texts["train"]
        vocabulary = layout_of(study.model).width("logits")
        tokens = indicative_tokens(study.tokenizer, texts, vocabulary=vocabulary)
        return sae, document_codes(study.model, study.tokenizer, texts, sae), tokens

    @cache
    def recipe(target: Language, source: Language):
        sae, codes, tokens = read()
        scored = lift_features(study.model, sae, codes, tokens, target=target, source=source)
        samples = {sae.site: study.samples(sae.site.layer)}
        return low_rank_control(samples, target=target, source=source, features=[scored])

    return lambda s, target, source: recipe(target, source).with_(strength=s.strength, schedule=s.fade)
