"""Rows of features of sparse autoencoders: LangFIR and monolinguality."""

from dataclasses import dataclass
from typing import Any

import torch

from babelscope import feature_ablation, load_corpus, load_sae, observe_features, open_model, select_monolingual
from babelscope.ablation.ablation_table import AblationTable
from babelscope.artifacts.feature_observation import FeatureObservation
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.artifacts.sae import LoadedSAE
from babelscope.features import FeatureCounts, LangFIRSets, score_monolinguality
from babelscope.reference import MODEL
from rows.plain import largest, opened, streams
from rows.result import Headline, Inputs, Planted, RowResult, Verdict, Witness

LANGUAGES = ("en", "de", "fr", "ru", "zh", "fi")
READ, SCORED = 3000, 400
"""Tokens a language, observed and scored."""


@dataclass(frozen=True)
class Case:
    """One model with an autoencoder of its stream, observed, and its held-out text."""

    name: str
    folder: str
    sae: LoadedSAE
    model: Any
    tokenizer: Any
    observed: FeatureObservation
    train: dict[str, list[str]]
    test: dict[str, list[str]]


def cases(inputs: Inputs, tokens: int = READ) -> list[Case]:
    """The bundled model with both of its autoencoders, and Gemma with one trained on its stream, where there is one."""
    places = [("reference", "reference"), ("reference", "reference-coarse")]
    places += [(inputs.gemma, inputs.gemma_sae)] if inputs.gemma and inputs.gemma_sae else []
    return [case(model, sae, inputs, tokens) for model, sae in places]


def case(name: str, sae_name: str, inputs: Inputs, tokens: int) -> Case:
    model, tokenizer = open_model(name, device="cpu")
    sae = load_sae(sae_name, model=model)
    own = name == "reference"
    train, test = (
        load_corpus("reference" if own else f"{inputs.corpora}/mono", LANGUAGES, split=split)
        for split in ("train", "test" if own else "valid")
    )
    observed = observe_features(model, tokenizer, train, sae, tokens_per_language=tokens, random_sequences=128)
    lines = [{tag: [d.text for d in corpus[tag]][:400] for tag in LANGUAGES} for corpus in (train, test)]
    title = f"bundled model, {sae_name}" if own else f"Gemma 3 270M, {sae.n_features:,} features"
    return Case(title, str(MODEL) if own else name, sae, model, tokenizer, observed, *lines)


def encoded(sae: LoadedSAE, stream: torch.Tensor) -> torch.Tensor:
    """Features of each token by the formula, in float64; what is kept is decided on float32 scores, as stored."""
    scores = stream.float() @ sae.w_enc + sae.b_enc
    if sae.activation == "topk":
        bar = scores.topk(sae.k, dim=1).values[:, -1:]
        return torch.where((scores >= bar) & (scores > 0), scores, 0.0).double()
    return torch.where(scores > sae.threshold, scores, 0.0).double()


def by_hand(part: Case, lines: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean value and share of documents with it present, (feature, language), from plain transformers."""
    model, tokenizer = opened(part.folder)
    layer = part.sae.site.layer
    assert layer is not None, "an autoencoder of a stream has a layer"
    means, shares = [], []
    for tag in LANGUAGES:
        values = [encoded(part.sae, stream) for stream in streams(model, tokenizer, part.train[tag][:lines], layer)]
        means.append(torch.cat(values).mean(dim=0))
        shares.append(torch.stack([(value > 0).any(dim=0).double() for value in values]).mean(dim=0))
    return torch.stack(means, dim=1), torch.stack(shares, dim=1)


def small(part: Case, lines: int = 20) -> FeatureObservation:
    """The library's pass over the same few lines."""
    texts = {tag: part.train[tag][:lines] for tag in LANGUAGES}
    return observe_features(part.model, part.tokenizer, texts, part.sae, tokens_per_language=None, random_sequences=8)


def harm(part: Case, sets: FeatureSet) -> AblationTable:
    return feature_ablation(
        part.model, part.tokenizer, part.sae, sets, part.test, observed=part.observed, max_tokens=SCORED, draws=5
    )


def headline(part: Case, sets: FeatureSet, paper: str, fewest: int | None) -> Headline:
    """The paper's finding: taking a language's features out harms its own text most, and more than other features do.

    Reproduced where that holds in every language, and sets are smaller than `fewest`; in shape in more than half.
    """
    sizes = {tag: sets.sizes[tag] for tag in sets.languages}
    said = f"features: {', '.join(f'{tag} {size}' for tag, size in sizes.items())}"
    if not any(sizes.values()):
        return Headline(paper=paper, ours=said, control="nothing to take out", model=part.name, verdict="not")
    table = harm(part, sets)
    own, control, most, above = {}, {}, 0, 0
    for row, tag in enumerate(table.languages):
        if sizes[tag]:
            column = table.column(tag)
            own[tag] = float(table.relative_harm[row, column])
            control[tag] = float(
                (table.draws["feature_matched"][tag].sum(dim=1) / table.base[column].nats.sum()).mean()
            )
            most += int(table.relative_harm[row].argmax()) == column
            above += own[tag] > control[tag]
    least = min(most, above)
    small_enough = fewest is None or all(0 < size < fewest for size in sizes.values())
    verdict: Verdict = "not"
    if least * 2 > len(LANGUAGES):
        verdict = "reproduced" if least == len(LANGUAGES) and small_enough else "in shape"
    return Headline(
        paper=paper,
        ours=f"{said}; own text hurt most {most} of {len(own)}, more than by other features {above}; "
        f"own harm {in_percent(own)}",
        control=f"as many other features of like rate and energy {in_percent(control)}",
        model=part.name,
        verdict=verdict,
    )


def in_percent(shares: dict[str, float]) -> str:
    return ", ".join(f"{tag} {100 * share:.1f} %" for tag, share in shares.items())


def measure_langfir(inputs: Inputs) -> RowResult:
    """The published difference of sets on every autoencoder: presence by hand, sizes without a cap, harm."""
    witnesses, headlines = [], []
    paper = (
        "fewer than five features a language (Gemma 3 1B, 4B, Llama 3.1 8B); taking them out harms its language only"
    )
    for part in cases(inputs):
        _, shares = by_hand(part)
        witnesses.append(
            Witness(
                what=f"{part.name}: share of documents in which a feature is present, plain transformers",
                difference=largest(small(part).present / 20, shares),
                bar=1e-6,
            )
        )
        sets = LangFIRSets(tau=0.9, random_tau=0.5).choose(part.observed)
        headlines.append(headline(part, sets, paper, fewest=5))
    absent = [] if inputs.gemma_sae else ["no autoencoder of a real model was handed over"]
    return RowResult(witnesses=witnesses, headlines=headlines, planted=[planted_sets()], absent=absent)


def planted_sets() -> Planted:
    """Features made to be present in 95 % of a language's documents and in 5 % of the random sequences are the sets."""
    generator = torch.Generator().manual_seed(0)
    own, documents, sequences = 4, 200, 200
    n = len(LANGUAGES)
    chance = torch.full((40 * n, n), 0.3)
    for k in range(n):
        chance[own * k : own * (k + 1), k] = 0.97
    chance[own * n : own * n + 20] = 0.97  # Active on any language, and on random tokens.
    noise = torch.where(torch.arange(40 * n) < own * n, 0.05, 0.9)
    present = torch.binomial(torch.full_like(chance, documents), chance, generator=generator).long()
    random = torch.binomial(torch.full_like(noise, sequences), noise, generator=generator).long()[:, None].expand(-1, n)
    whole = torch.full((n,), documents)
    counts = FeatureCounts(
        present * 3,
        whole * 20,
        present,
        whole,
        present.double(),
        random,
        whole * 20,
        random,
        torch.full((n,), sequences),
    )
    mask = LangFIRSets(tau=0.9, random_tau=0.5).select(counts).mask
    truth = torch.zeros_like(mask)
    for k in range(n):
        truth[k, own * k : own * (k + 1)] = True
    hit = int((mask & truth).sum())
    return Planted(
        what=f"{own} features for each of {n} languages among {len(chance)}",
        recall=hit / int(truth.sum()),
        precision=hit / max(1, int(mask.sum())),
    )


def measure_monolinguality(inputs: Inputs) -> RowResult:
    """ν by the published formula from plain transformers; features by it taken out."""
    witnesses, headlines = [], []
    paper = (
        "taking a language's few features of highest ν out raises the loss of that language only (Gemma 2, Llama 3.1)"
    )
    for part in cases(inputs):
        means, _ = by_hand(part)
        others = (means.sum(dim=1, keepdim=True) - means) / (len(LANGUAGES) - 1)
        nu = score_monolinguality(small(part))
        scale = float((means - others).abs().max())
        witnesses.append(
            Witness(
                what=f"{part.name}: ν of every feature, relative to the largest, plain transformers",
                difference=largest(nu, means - others) / scale,
                bar=1e-4,
            )
        )
        headlines.append(headline(part, select_monolingual(part.observed, count=5, min_count=20), paper, fewest=None))
    absent = [] if inputs.gemma_sae else ["no autoencoder of a real model was handed over"]
    return RowResult(witnesses=witnesses, headlines=headlines, absent=absent)
