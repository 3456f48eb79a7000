"""Which way of steering makes the reference model answer in another language, and at what cost in fluency?

Every method answers the same prompts, each in one of the other languages, for twelve targets. Layer, strength and fade
are chosen on the validation split, for all targets together; the chosen form is scored once on the test split, with
other prompts under every seed. Then one method a language is chosen on the validation split and named with its score on
test. Controls: no steering, random directions of the stream's covariance as long as the mean difference, and the
model's own continuations of target-language text, which are the ceiling. Prompting and few-shot stand beside them.

Against a method: success below 0.97 of the ceiling, a perplexity ratio outside 0.67–1.5, or a distinct-4 ratio below
0.8. Content is not scored: this model does not translate. Expert promotion is left out: this model has no experts.

A row of results.jsonl is one method at one setting (dev) or one seed (test); a run goes on where it was stopped.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from functools import cache, partial
from typing import Any, Literal

import numpy as np
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
    lda_direction,
    lift_features,
    load_corpus,
    low_rank_control,
    mean_direction,
    observe,
    open_model,
    pca_direction,
    probe_direction,
    scale_features,
    scale_neurons,
    select_entropy_lambda,
    shift_and_back,
)
from babelscope.features import load_sae, observe_features, select_langfir
from babelscope.figures import FigureCaption, method_map, write_figure
from babelscope.files.writing import write_text
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.probes.lens.word_lists import indicative_tokens
from babelscope.runs import Run, run_experiment
from babelscope.steering.directions import language_basis
from babelscope.steering.sweeps import few_shot, instructed, random_directions
from babelscope.steering.sweeps.comparison import (
    NATIVE,
    ComparedMethod,
    Comparison,
    Setting,
    compare_methods,
    grid,
    summarise,
)

MAIN = ("en", "de", "fr", "es", "ru", "uk", "zh", "ja", "ar", "hi", "fi", "id")
SHARE, BAND, DISTINCT = 0.97, (0.67, 1.5), 0.8
"""Of the ceiling's success; perplexity ratio; distinct-4 ratio."""


@dataclass(frozen=True)
class Config:
    targets: tuple[str, ...] = MAIN
    seeds: tuple[int, ...] = (0, 1, 2)
    dev_prompts: int = 8
    """A target, for every setting."""
    test_prompts: int = 11
    """A target and seed; each seed has its own."""
    tokens: int = 20_000
    """A language, for what is learned from the training split."""
    new_tokens: int = 32
    methods: tuple[str, ...] = ()
    """Names of those to run; none means all."""
    minutes: float = 25.0
    """No new row is begun after so many; run again to go on."""
    threads: int = 2


Steering = SteeringRecipe | Sequence[Operation]
Build = Callable[[Setting, Language, Language], Steering]


class Study:
    """What the methods read: the model, its observation, and documents' means, each made when first needed."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.model, self.tokenizer = open_model("reference", device="cpu")
        splits = ("train", "valid", "test")
        self.texts = {split: load_corpus("reference", config.targets, split=split) for split in splits}
        self.obs = observe(
            self.model,
            self.tokenizer,
            self.texts["train"],
            sites=["resid_out", "mlp_gate", "attn_heads"],
            tokens_per_language=config.tokens,
            shards=8,
        )
        self.targets = self.obs.languages
        self.depth = self.model.config.num_hidden_layers
        self.samples = cache(self._samples)
        self.basis = cache(partial(language_basis, self.obs))

    def _samples(self, layer: int, at: Literal["resid_out", "mlp_out"] = "resid_out"):
        site = Site(layer, at)
        return document_means(self.model, self.tokenizer, self.texts["train"], [site])[site]


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
        return Gate(condition=changed(fit_condition(study.samples(3), language=target).condition, above=False))

    return lambda s, target, source: mean(study, s, target, source).with_(gate=gate(target))


def noise(study: Study) -> Build:
    @cache
    def draws(layer: int):
        site = Site(layer, "resid_out")
        return random_directions(study.model, study.tokenizer, study.texts["valid"], site, draws=10, seed=layer)

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
    recipe = shift_and_back(study.obs, source=source, pivot=pivot, target=target, layers=(s.layer, s.layer + 2))
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
    def read(layers: int):
        sites = [Site(n, "resid_out") for n in range(layers)]
        return document_means(study.model, study.tokenizer, study.texts["train"], sites)

    @cache
    def recipe(layers: int, target: Language, source: Language):
        return low_rank_control(read(layers), target=target, source=source)

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


def methods(study: Study) -> Iterator[ComparedMethod]:
    """Everything that is compared, at the layers where directions do best on this model; features come last."""
    once, low = [Setting(0, 0.0, 1.0)], (1, 2)
    adds = grid(low, (1.3, 1.6), (0.3,))
    examples = study.texts["train"]
    words = [Setting(0, 0.0, 1.0), Setting(1, 0.0, 1.0)]
    shots = [Setting(2, 0.0, 1.0), Setting(4, 0.0, 1.0)]
    yield ComparedMethod(NATIVE, "ceiling: continuations of target-language text", once)
    yield ComparedMethod("no steering", "control", once)
    yield ComparedMethod(
        "random direction", "control: the stream's covariance", grid((1,), (1.3,), (0.3,)), noise(study)
    )
    hold = grid((0, 1), (1.4, 1.6), (0.5,))
    yield ComparedMethod("held coordinates", "ours", hold, partial(held, study))
    yield ComparedMethod("mean direction", "arXiv:2601.08331", adds, partial(mean, study))
    place = ("before", "after")
    yield ComparedMethod(
        "instruction",
        "'answer in …', in the target's words",
        words,
        rewrite=lambda s, r: instructed(r, place=place[s.layer]),
    )
    yield ComparedMethod(
        "few-shot", "examples that change language", shots, rewrite=lambda s, r: few_shot(r, examples, shots=s.layer)
    )
    yield ComparedMethod("principal component", "arXiv:2310.01405", adds, partial(fitted, study, pca_direction))
    probe = grid((1,), (1.3, 2.0, 3.0), (0.3,))
    yield ComparedMethod("linear probe", "arXiv:1610.01644", probe, partial(fitted, study, probe_direction))
    yield ComparedMethod(
        "LDA shift", "ITLC, arXiv:2506.12450", grid((1,), (1.3, 2.0, 3.0), (0.3,)), discriminant(study)
    )
    yield ComparedMethod("subspace out and in", "arXiv:2505.15257", grid((2,), (0.3, 1.0), (1.0,)), ablated(study))
    one = grid((0,), (0.3, 1.0), (1.0,))
    yield ComparedMethod("linear map, clean pass", "INCLINE, arXiv:2410.12462", one, clean_map(study), batch=16)
    live = grid((1,), (0.5, 0.7, 1.0, 1.3), (0.3, 0.5))
    yield ComparedMethod("linear map, live", "INCLINE; ours at all tokens", live, live_map(study), batch=16)
    more = grid((-1,), (2.0, 4.0, 8.0), (0.3,))
    yield ComparedMethod("neurons added", "arXiv:2507.22608", more, neurons(study, "add"), batch=16)
    yield ComparedMethod("neurons, mean difference", "arXiv:2507.22608", more, neurons(study, "difference"), batch=16)
    level = grid((-1,), (1.0,), (1.0,))
    yield ComparedMethod("neurons replaced", "arXiv:2507.22608", level, neurons(study, "replace"), batch=16)
    back = grid((1,), (1.0, 1.3), (0.3,))
    yield ComparedMethod("shift and back", "ShifCon, arXiv:2410.19453", back, partial(there_and_back, study))
    yield ComparedMethod(
        "attention heads",
        "CLAIM, arXiv:2506.11073",
        grid((16,), (0.7, 1.0, 1.4, 2.0, 4.0), (0.5,)),
        partial(heads, study),
        batch=16,
    )
    yield ComparedMethod("conditional", "arXiv:2409.05907", grid((1,), (1.3, 1.6), (0.3,)), conditional(study))
    scaled = grid((-1,), (1.0, 2.0, 4.0), (0.3,))
    yield ComparedMethod("neurons scaled", "arXiv:2507.22608", scaled, neurons_scaled(study), batch=16)
    factors = grid((0,), (1.0, 2.0, 4.0, 8.0), (0.5,))
    fine = (grid((0,), (1.0, 2.0, 4.0, 6.0, 8.0), (0.5,)), factors)
    coarse = (grid((0,), (0.6, 0.8, 1.0, 1.3), (0.3, 0.5)), grid((0,), (0.3, 0.5, 0.7, 1.0), (0.3, 0.5)))
    foxp2 = "after Neural FOXP2, arXiv:2602.00945"
    yield ComparedMethod("low-rank control", foxp2, grid((4,), (1.3, 1.6, 2.0, 3.0), (0.3,)), low_rank(study))
    yield ComparedMethod(
        "features lifted", foxp2, grid((0,), (1.0, 2.0, 4.0, 6.0, 8.0), (0.5,)), lifted(study, "reference")
    )
    for name, prefix, tau, (pushes, levels) in (
        ("reference", "", 0.5, fine),
        ("reference-coarse", "coarse ", 0.9, coarse),
    ):
        edit = partial(features, study, name=name, tau=tau)
        yield ComparedMethod(f"{prefix}features added", "arXiv:2604.03532", pushes, edit("add"))
        yield ComparedMethod(f"{prefix}features clamped", "arXiv:2507.13410", levels, edit("clamp"), batch=16)
        yield ComparedMethod(f"{prefix}features scaled", "arXiv:2507.13410", factors, edit("scale"), batch=16)


def run(config: Config, run: Run) -> None:
    torch.set_num_threads(config.threads)
    study = Study(config)
    counts = {"valid": config.dev_prompts, "test": config.test_prompts}
    comparison = Comparison(study.model, study.tokenizer, study.texts, study.targets, counts, config.new_tokens)
    wanted = [m for m in methods(study) if not config.methods or m.name in (NATIVE, *config.methods)]
    whole = compare_methods(comparison, wanted, run, seeds=config.seeds, minutes=config.minutes)
    write_summary(run)
    if not whole:
        raise SystemExit(f"{config.minutes:g} minutes are over; run again to go on")


def write_summary(run: Run) -> None:
    """summary.json, table.md and figure.html, from the rows alone."""
    summary = summarise(run.results())
    entries, best = summary["methods"], summary["methods"].get(summary["best_on_dev"])
    summary["holds"] = best is not None and bool(
        (best["of_native"] or 0.0) >= SHARE
        and BAND[0] <= best["perplexity_ratio"] <= BAND[1]
        and best["distinct4_ratio"] >= DISTINCT
    )
    write_text(run.folder / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False))
    write_text(run.folder / "table.md", as_table(summary))
    tags = list(entries[NATIVE]["by_language"])
    success = np.array([[entry["by_language"][tag] for tag in tags] for entry in entries.values()])
    figure = method_map(success=success, methods=list(entries), languages=tags)
    caption = FigureCaption(
        "Methods of steering",
        "Share of answers in the target language on test prompts, a row per method, a column per target; with the "
        "native ceiling and the unsteered model.",
    )
    write_figure(figure, run.folder / "figure.html", caption)


def as_table(summary: dict[str, Any]) -> str:
    lines = [
        "| method | source | setting | success on test | of native | perplexity ratio | distinct-4 ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, e in summary["methods"].items():
        setting = f"layer {e['layer']}, {e['strength']:g}, fading to {e['end']:g}" if e["strength"] else "–"
        success = f"{e['success']:.3f} ({e['low']:.3f}–{e['high']:.3f}), n {e['n']}"
        share = "–" if e["of_native"] is None else f"{e['of_native']:.3f}"
        ratios = f"{share} | {e['perplexity_ratio']:.2f} | {e['distinct4_ratio']:.2f}"
        lines.append(f"| {name} | {e['source']} | {setting} | {success} | {ratios} |")
    lines += ["", "| language | best on dev | success on test |", "|---|---|---|"]
    for tag, e in summary["per_language"].items():
        lines.append(f"| {tag} | {e['method']} | {e['success']:.3f} ({e['low']:.3f}–{e['high']:.3f}), n {e['n']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_experiment(Config, run)
