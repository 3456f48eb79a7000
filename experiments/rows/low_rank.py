"""Row of low-rank control of the language, after Neural FOXP2: singular directions, lifted features, their controls."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from tables.measured import read

from babelscope import (
    Site,
    document_codes,
    document_means,
    lift_features,
    load_sae,
    low_rank_control,
    open_model,
    steer,
)
from babelscope.artifacts import SteeringRecipe
from babelscope.artifacts.sae import LoadedSAE
from babelscope.controls import percentile_interval
from babelscope.models import layout_of
from babelscope.probes.lens.word_lists import LanguageTokens, indicative_tokens
from babelscope.reference import MODEL
from babelscope.steering.directions import DocumentMeans, LiftedFeatures, eigengap_window, logit_lift, shift_spectrum
from rows.features import encoded
from rows.plain import largest, opened, streams
from rows.result import Headline, Inputs, Planted, RowResult, Verdict, Witness
from rows.sentence_models import pud
from rows.steering import compared, texts

SOURCE, TARGETS = "en", ("de", "ru", "fi")
K, SHARE, STRENGTH, SEEDS = 10, 0.5, 2.0, (0, 1, 2)
PROMPTS = 24


class Place(NamedTuple):
    """A model with the streams of its parallel sentences, and what is its languages' own."""

    name: str
    model: Any
    tokenizer: Any
    samples: dict[Site, DocumentMeans]
    tokens: LanguageTokens
    prompts: Sequence[str]
    """The first half of English sentences that nothing was fitted on."""


def place(name: str, model_name: str, train: dict[str, list[str]], test: dict[str, list[str]]) -> Place:
    model, tokenizer = open_model(model_name, device="cpu", dtype="float32")
    layout = layout_of(model)
    sites = [Site(layer, "resid_out") for layer in range(layout.n_layers)]
    tokens = indicative_tokens(tokenizer, train, ratio=3, min_count=3, vocabulary=layout.width("logits"))
    prompts = [" ".join(line.split()[: max(3, len(line.split()) // 2)]) for line in test[SOURCE][:PROMPTS]]
    return Place(name, model, tokenizer, document_means(model, tokenizer, train, sites), tokens, prompts)


def measure_low_rank(inputs: Inputs) -> RowResult:
    """Spectrum, lift and shift by numpy on plain transformers; planted features and layers; the target's mass."""
    lines = texts()
    bundled = place("bundled model", "reference", lines, texts("test"))
    sae = load_sae("reference", model=bundled.model)
    codes = document_codes(bundled.model, bundled.tokenizer, lines, sae)
    scored = {
        tag: lift_features(bundled.model, sae, codes, bundled.tokens, target=tag, source=SOURCE) for tag in TARGETS
    }
    at_sae = {sae.site: bundled.samples[sae.site]}
    by_features = {tag: low_rank_control(at_sae, target=tag, features=[scored[tag]], k=K) for tag in TARGETS}
    places = [bundled]
    if inputs.gemma and inputs.corpora:
        corpus = pud(inputs.corpora, (SOURCE, *TARGETS))
        parts = [{str(tag): [d.text for d in corpus[tag]][start : start + 60] for tag in corpus} for start in (0, 60)]
        places.append(place("Gemma 3 270M", inputs.gemma, *parts))
    return RowResult(
        witnesses=witnesses(bundled, lines, sae, scored["fi"], by_features["fi"]),
        planted=[planted_features(bundled, sae), planted_layers()],
        headlines=[
            *(compared(method, PAPER) for method in METHODS if method in read("steering_methods.json")["methods"]),
            *(mass_headline(at, in_stream(at), "singular directions") for at in places),
            mass_headline(bundled, by_features, f"{K} features of each language", scored),
            *(window_headline(at) for at in places),
        ],
        absent=[
            "autoencoders at every layer: the bundled model has them at one; elsewhere the stream's own singular "
            "directions",
            "lift by raising each feature at the last token: ours is read from the weights",
            "accuracy in translation, questions, inference and summaries: no model here solves them",
        ],
    )


PAPER = "the target becomes the default language (LLaMA-3 8B; Hindi, Spanish)"
METHODS = ("low-rank control", "features lifted")
"""Lines of the comparison of steering methods."""


def in_stream(at: Place, window: Sequence[int] | None = None) -> dict[str, SteeringRecipe]:
    return {tag: low_rank_control(at.samples, target=tag, source=SOURCE, window=window) for tag in TARGETS}


# Witnesses


def witnesses(
    at: Place, lines: dict[str, list[str]], sae: LoadedSAE, scored: LiftedFeatures, recipe: SteeringRecipe
) -> list[Witness]:
    """Everything from plain transformers' streams and weights to the vector and what it does to the logits."""
    layer = sae.site.layer or 0
    model, tokenizer = opened(str(MODEL))
    tokens = {tag: list(streams(model, tokenizer, lines[tag], layer)) for tag in (SOURCE, "fi")}
    means = {tag: np.stack([s.double().mean(dim=0).numpy() for s in part]) for tag, part in tokens.items()}
    singular, right = np.linalg.svd(means["fi"] - means[SOURCE], full_matrices=False)[1:]
    samples = at.samples[sae.site]
    first, second = samples.pairs("fi", SOURCE)
    spectrum = shift_spectrum(first - second, 3)
    energy = singular**2
    gap = (energy[2] - energy[3]) / energy.sum()
    values = {tag: torch.stack([encoded(sae, s).mean(dim=0) for s in part]).numpy() for tag, part in tokens.items()}
    spread = np.sqrt((values["fi"].var(axis=0) + values[SOURCE].var(axis=0)) / 2)
    selectivity = np.divide(
        values["fi"].mean(axis=0) - values[SOURCE].mean(axis=0), spread, out=np.zeros_like(spread), where=spread > 1e-9
    )
    head = model.lm_head.weight.detach().double().numpy()
    member = {tag: at.tokens.member[at.tokens.index(tag)].numpy() for tag in ("fi", SOURCE)}
    row = (head[member["fi"]].mean(axis=0) - head[member[SOURCE]].mean(axis=0)) * (
        model.model.norm.weight.detach().double().numpy()
    )
    lift = sae.w_dec.double().numpy() @ row
    score = np.where((selectivity > 0) == (lift > 0), np.abs(selectivity * lift) * np.sign(lift), 0.0)
    raised, lowered = np.argsort(-score, kind="stable")[:K], np.argsort(score, kind="stable")[:K]
    support = [*raised, *lowered]
    rows = (values["fi"] - values[SOURCE])[:, support]
    rank = recipe.parameters["layers"][str(sae.site)]["rank"]
    basis = np.linalg.svd(rows, full_matrices=False)[2][:rank]
    amounts = rows.mean(axis=0) @ basis.T @ basis
    amounts = np.concatenate([amounts[:K].clip(min=0), SHARE * amounts[K:].clip(max=0)])
    vector = amounts @ sae.w_dec[support].double().numpy()
    (operation,) = recipe
    ids = torch.tensor([tokenizer(lines[SOURCE][0])["input_ids"]])
    with torch.no_grad():
        plain = at.model(input_ids=ids).logits
        with steer(at.model, recipe.with_(strength=0.0)):
            still = at.model(input_ids=ids).logits
        with steer(at.model, recipe, tokenizer=at.tokenizer):
            steered = at.model(input_ids=ids).logits
    return [
        Witness(
            what=f"projection on three singular directions by numpy's SVD of plain streams' means, {len(rows)} pairs",
            difference=largest(spectrum.basis.T @ spectrum.basis, right[:3].T @ right[:3]),
            bar=1e-3,
        ),
        Witness(what="eigengap behind them by numpy", difference=abs(spectrum.gap - float(gap)), bar=1e-5),
        Witness(
            what=f"logit lift of {len(lift):,} decoder rows by numpy, relative",
            difference=largest(scored.lift, lift) / float(np.abs(lift).max()),
            bar=1e-4,
        ),
        Witness(
            what=f"selectivity of {len(lift):,} features by numpy on plain streams, relative",
            difference=largest(scored.selectivity, selectivity) / float(np.abs(selectivity).max()),
            bar=1e-3,
        ),
        Witness(
            what=f"the shift by {2 * K} features, from selection to decoded vector in numpy, relative",
            difference=largest(operation.vector, vector) / float(np.abs(vector).max()),
            bar=1e-3,
        ),
        Witness(
            what="logits under it against a hook in plain transformers",
            difference=largest(steered, hooked(ids, layer, torch.from_numpy(vector).float())),
            bar=2e-3,
        ),
        Witness(what="change of logits at strength 0", difference=largest(plain, still), bar=0.0),
    ]


@torch.no_grad()
def hooked(ids: torch.Tensor, layer: int, vector: torch.Tensor) -> torch.Tensor:
    """x + v at every token but the first, which is special, by a hook."""
    model, _ = opened(str(MODEL))

    def moved(module, inputs, output):
        stream = (output[0] if isinstance(output, tuple) else output).clone()
        stream[:, 1:] += vector
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    with model.model.layers[layer].register_forward_hook(moved):
        return model(input_ids=ids).logits


# Planted


def planted_features(at: Place, sae: LoadedSAE) -> Planted:
    """Features that fire on Finnish and lift its tokens, among such as do one of both, or both for English."""
    n, per_kind, hidden = 60, 5, sae.d_hidden
    member = [at.tokens.member[at.tokens.index(tag)] for tag in ("fi", SOURCE)]
    axis = logit_lift(at.model, torch.eye(hidden), *member)
    axis = axis / axis.norm()
    named, truths = set(), set()
    for seed in SEEDS:
        generator = torch.Generator().manual_seed(seed)
        across = torch.randn(5 * per_kind, hidden, generator=generator, dtype=torch.float64)
        across -= (across @ axis)[:, None] * axis
        # By fives: fire and lift; fire and lift for the source; fire only; lift only; fire on one and lift the other.
        side = torch.tensor([1.0, -1.0, 0.0, 1.0, -1.0], dtype=torch.float64).repeat_interleave(per_kind)
        rows = (2 * side[:, None] * axis + across).float()
        values = 0.2 * torch.rand(3, n, len(rows), generator=generator)
        fires = torch.tensor([[1, 0, 1, 0, 1], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]).repeat_interleave(per_kind, dim=1)
        values = values + 2 * fires[:, None]
        small = replace(
            sae,
            w_enc=torch.randn(hidden, len(rows), generator=generator),
            b_enc=torch.zeros(len(rows)),
            threshold=torch.zeros(len(rows)),
            w_dec=rows,
        )
        first = at.samples[sae.site]
        codes = replace(
            first,
            languages=tuple(first.languages[first.index(tag)] for tag in ("fi", SOURCE, "ru")),
            value=values.flatten(0, 1),
            language=torch.arange(3).repeat_interleave(n),
            ids=tuple(str(i) for _ in range(3) for i in range(n)),
            norm=torch.ones(3, dtype=torch.float64),
            later=None,
            stream=None,
        )
        raised, lowered = lift_features(at.model, small, codes, at.tokens, target="fi", source=SOURCE).best(per_kind)
        named |= {(seed, index) for index in (*raised, *lowered)}
        truths |= {(seed, index) for index in range(2 * per_kind)}
    found = len(named & truths)
    return Planted(
        what=f"{len(truths)} features that fire on a language and lift its tokens, among {25 * len(SEEDS)} in "
        f"{len(SEEDS)} autoencoders",
        recall=found / len(truths),
        precision=found / max(1, len(named)),
    )


def planted_layers() -> Planted:
    """Two of six layers hold the shift in two directions; the others bury it in noise: rank and window by the gap."""
    named, truths, hidden, n = set(), set(), 64, 80
    for seed in SEEDS:
        generator = torch.Generator().manual_seed(seed)
        directions = torch.linalg.qr(torch.randn(hidden, 2, generator=generator, dtype=torch.float64))[0].T
        spectra = []
        for noise in (3.0, 3.0, 0.05, 0.05, 3.0, 3.0):
            amounts = 4 * torch.randn(n, 2, generator=generator, dtype=torch.float64)
            rows = amounts @ directions + noise * torch.randn(n, hidden, generator=generator, dtype=torch.float64)
            spectra.append(shift_spectrum(rows))
        window = eigengap_window(torch.tensor([part.gap for part in spectra], dtype=torch.float64))
        same = [float((spectra[k].basis @ directions.T).square().sum()) > 1.99 for k in window]
        named |= {(seed, k, spectra[k].rank, whole) for k, whole in zip(window, same, strict=True)}
        truths |= {(seed, k, 2, True) for k in (2, 3)}
    found = len(named & truths)
    return Planted(
        what=f"layers, rank and plane of a shift in two directions at two of six layers, {len(SEEDS)} draws",
        recall=found / len(truths),
        precision=found / max(1, len(named)),
    )


# What it does


@torch.no_grad()
def target_share(at: Place, recipe: SteeringRecipe | None, target: str) -> np.ndarray:
    """P(target's tokens) / P(target's and English ones) after each English prompt."""
    member = [at.tokens.member[at.tokens.index(tag)] for tag in (target, SOURCE)]
    shares = []
    for prompt in at.prompts:
        ids = torch.tensor([at.tokenizer(prompt)["input_ids"]])
        if recipe is None:
            logits = at.model(input_ids=ids).logits[0, -1]
        else:
            with steer(at.model, recipe, tokenizer=at.tokenizer):
                logits = at.model(input_ids=ids).logits[0, -1]
        probability = logits.double().softmax(dim=0)
        masses = [float(probability[tokens].sum()) for tokens in member]
        shares.append(masses[0] / sum(masses))
    return np.array(shares)


def mass_headline(
    at: Place, recipes: dict[str, SteeringRecipe], what: str, scored: dict[str, LiftedFeatures] | None = None
) -> Headline:
    """The target's share of mass under its recipe, under one of another target, and under random ones as long."""
    plain, steered, wrong, random = ([] for _ in range(4))
    for number, tag in enumerate(TARGETS):
        another = TARGETS[(number + 1) % len(TARGETS)]
        plain.append(target_share(at, None, tag))
        steered.append(target_share(at, recipes[tag].with_(strength=STRENGTH), tag))
        wrong.append(target_share(at, recipes[another].with_(strength=STRENGTH), tag))
        for seed in SEEDS:
            control = random_of(at, tag, seed, None if scored is None else scored[tag])
            random.append(target_share(at, control.with_(strength=STRENGTH), tag))
    means = [np.mean(part, axis=0) for part in (plain, steered, wrong, random)]
    low, high = interval(means[1] - means[3])
    verdict: Verdict = "in shape" if low > 0 and means[1].mean() > max(means[0].mean(), means[2].mean()) else "not"
    return Headline(
        paper="the share of early mass on the target's tokens rises under weak prompts",
        ours=f"{what}, strength {STRENGTH:g}: the target's share of both languages' mass after English prompts "
        f"{means[0].mean():.3f} → {means[1].mean():.3f}, mean of {', '.join(TARGETS)}",
        control=f"random, as large and long, {len(SEEDS)} seeds: {means[3].mean():.3f} (ours above by {low:.3f} to "
        f"{high:.3f}, 95 % over {len(at.prompts)} prompts); another target's: {means[2].mean():.3f}",
        model=at.name,
        verdict=verdict,
    )


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % of the mean, over resamples of prompts."""
    rng = np.random.default_rng(0)
    means = [float(values[rng.integers(len(values), size=len(values))].mean()) for _ in range(1000)]
    return percentile_interval(means)


def random_of(at: Place, tag: str, seed: int, scored: LiftedFeatures | None) -> SteeringRecipe:
    if scored is None:
        return low_rank_control(at.samples, target=tag, source=SOURCE, control="random", seed=100 * seed)
    samples = {scored.sae.site: at.samples[scored.sae.site]}
    return low_rank_control(samples, target=tag, source=SOURCE, features=[scored], k=K, control="random", seed=seed)


def window_headline(at: Place) -> Headline:
    """Where the eigengap's window lies, and how it grows with the layer."""
    windows, gaps = [], []
    for recipe in in_stream(at).values():
        windows.append([operation.site.layer or 0 for operation in recipe])
        gaps.append(list(recipe.parameters["gaps"].values()))
    by_layer, n_layers = np.mean(gaps, axis=0), len(at.samples)
    halves = [np.mean(window) < n_layers / 2 for window in windows]
    verdict: Verdict = "in shape" if all(halves) else "not"
    listed = "; ".join(f"{tag} {window[0]}–{window[-1]}" for tag, window in zip(TARGETS, windows, strict=True))
    return Headline(
        paper="the window lies in low to middle layers",
        ours=f"layers of the window by the eigengap, of {n_layers}: {listed}",
        control=f"gap of the first, middle and last layer: {by_layer[0]:.2f}, {by_layer[n_layers // 2]:.2f}, "
        f"{by_layer[-1]:.2f}",
        model=at.name,
        verdict=verdict,
    )
