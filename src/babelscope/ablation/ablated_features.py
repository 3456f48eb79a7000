"""What breaks when a language's autoencoder features are taken out of the residual stream."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.ablation.ablation_table import AblationTable, HarmEstimate
from babelscope.artifacts.feature_observation import FeatureObservation
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.artifacts.sae import LoadedSAE
from babelscope.axes import Float, Float32, Int64, Tensor
from babelscope.controls import percentile_interval
from babelscope.corpus import Texts, as_corpus, row_start
from babelscope.errors import ArtifactError, MeasurementError, SelectionError
from babelscope.evaluation import HeldOut, document_losses
from babelscope.features import check_fits, matched_features
from babelscope.languages import Language
from babelscope.models import Layout, check_made_for, layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.progress import progress_bar

About = Literal["zero", "b_dec"]
MATCHED = "feature_matched"


def span_of(sae: LoadedSAE, features: Int64[Tensor, " chosen"]) -> Float32[Tensor, "hidden rank"]:
    """Orthonormal columns that span the features' decoder rows; directions below 1e-6 of the largest are dropped."""
    rows = sae.w_dec[features].double()
    left_vectors, size, _ = torch.linalg.svd((rows / rows.norm(dim=1, keepdim=True)).T, full_matrices=False)
    return left_vectors[:, size > 1e-6 * size.max()].float()


def remove_span(
    value: Float[Tensor, "*rows hidden"], span: Float[Tensor, "hidden rank"], centre: Float[Tensor, " hidden"]
) -> Float[Tensor, "*rows hidden"]:
    """x - (x - c) Q Qᵀ: nothing of x - c is left within the span; idempotent; x comes back where (x - c) Q = 0.

    Computed in float32 and returned in the dtype of x.
    """
    x = value.float() if value.dtype != torch.float64 else value
    along = (x - centre.to(x)) @ span.to(x)
    return (x - along @ span.to(x).T).to(value.dtype)


@contextmanager
def features_removed(
    layout: Layout,
    sae: LoadedSAE,
    features: Int64[Tensor, " chosen"],
    *,
    about: About = "zero",
    spare_first: int = 0,
) -> Iterator[None]:
    """While open, the span of the features' decoder rows is projected out at the autoencoder's site.

    about: the point that counts as zero: the origin, or the decoder's bias, which is where the autoencoder starts from.
    spare_first: leave so many tokens at the start of each row alone: what begins a text, on which autoencoders are not
    trained.
    No feature at all changes nothing.
    """
    if not len(features):
        yield
        return
    device = layout.device_of(sae.site)
    span = span_of(sae, features).to(device)
    centre = (sae.b_dec if about == "b_dec" else torch.zeros_like(sae.b_dec)).to(device)

    def change(value: Tensor) -> Tensor:
        new = remove_span(value, span, centre)
        return torch.cat([value[:, :spare_first], new[:, spare_first:]], dim=1)

    with layout.edit(sae.site, change):
        yield


def feature_ablation(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    sae: LoadedSAE,
    sets: FeatureSet,
    texts: Texts,
    *,
    observed: FeatureObservation | None = None,
    barred: FeatureSet | None = None,
    further: Mapping[str, Mapping[Language, Sequence[Int64[Tensor, " _"]]]] | None = None,
    draws: int = 19,
    about: About = "zero",
    max_tokens: int | None = None,
    max_length: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> AblationTable:
    """Take each language's features out in turn and measure the harm on every language's text.

    Directional ablation: the orthonormalised span of the decoder rows is projected out of every token at the site but
    those that begin a row (`corpus.encoding.row_start`: BOS, or the first token where the tokenizer puts none).
    Several rows are not taken out one after the other, which would depend on their order.
    texts: held-out text; its languages are the columns.
    observed: what matched random features are drawn by (`features.matched_features`), `draws` of them, each measured
    on the own language's text; None measures no control.
    barred: features that are no control besides those of the sets, as in `matched_features`.
    further: controls of the caller's own: by name and language the random sets, measured as the matched ones are.
    about, max_tokens, max_length: as in `features_removed` and `ablation_matrix`.
    The table's control is "feature_matched", its `achieved_ratio` that of the energy.
    Raises SelectionError if every set is empty, ArtifactError for another model or autoencoder.
    """
    layout = layout_of(model)
    corpus = as_corpus(texts)
    check_made_for(sets.origin, model, tokenizer, "ablation of features")
    check_fits(sae, layout)
    if sae.hash != sets.sae_hash:
        raise ArtifactError(
            f"sets of SAE {sets.sae_id!r} ({sets.sae_hash}) came with SAE {sae.id!r} ({sae.hash}); expected one "
            "autoencoder; open the one they were selected from"
        )
    if not len(sets.indices):
        raise SelectionError("every set is empty; expected at least one feature; select with a lower tau or ratio")
    length = text_length(layout, max_length)
    held_out = HeldOut.prepare(tokenizer, corpus, max_length=length, max_tokens=max_tokens)  # pyright: ignore[reportArgumentType]
    base = tuple(document_losses(layout, part) for part in held_out)
    spare = row_start(tokenizer)
    matched = (
        None if observed is None else matched_features(observed, full_only(sets), barred=barred, draws=draws, seed=seed)
    )
    matched_control = {MATCHED: matched.features} if matched is not None else {}
    columns = {part.language: t for t, part in enumerate(held_out)}
    controls = {
        name: {tag: tuple(rows) for tag, rows in rows_of_language.items() if tag in columns}
        for name, rows_of_language in {**matched_control, **(further or {})}.items()
    }
    cells = sum(len(rows) for rows_of_language in controls.values() for rows in rows_of_language.values())
    total = len(sets.languages) * len(held_out) + cells

    with progress_bar(total=total, unit="cell", desc="taking features out", shown=progress) as bar:

        def harm(t: int, features: Tensor) -> Tensor:
            with features_removed(layout, sae, features, about=about, spare_first=spare):
                rows_of_language = document_losses(layout, held_out[t]).nats - base[t].nats
            bar.update()
            return rows_of_language

        delta = tuple(tuple(harm(t, sets.features(tag)) for t in range(len(held_out))) for tag in sets.languages)
        control = {
            name: {
                tag: torch.stack([harm(columns[tag], row) for row in rows]) for tag, rows in rows_of_language.items()
            }
            for name, rows_of_language in controls.items()
        }
    return AblationTable(
        languages=sets.languages,
        texts=tuple(corpus),
        base=base,
        delta=delta,
        draws=control,
        sizes=sets.sizes,
        to=f"directions out, about {about}",
        seed=seed,
        resamples=resamples,
        achieved_ratio={} if matched is None else {tag: row["energy"] for tag, row in matched.achieved.items()},
    )


def full_only(sets: FeatureSet) -> FeatureSet:
    """The languages that have a feature; a random set of none is no control."""
    return sets.only(tag for tag, size in sets.sizes.items() if size)


def ratio_to_others(table: AblationTable) -> dict[Language, HarmEstimate]:
    """Own harm over the mean absolute harm of the other columns, on the same resamples of documents.

    Raises MeasurementError where there is no other text.
    """
    harm, weights, ratios = table.relative_harm, table._weights(), {}
    for row, tag in enumerate(table.languages):
        if tag not in table.texts:
            continue
        own_column = table.column(tag)
        other_columns = [t for t in range(len(table.texts)) if t != own_column]
        if not other_columns:
            raise MeasurementError("one text came; expected two or more, to compare own harm with; add languages")
        samples = table._resampled(row, weights)
        low, high = percentile_interval(samples[:, own_column] / samples[:, other_columns].abs().mean(dim=1))
        mean = float(harm[row, other_columns].abs().mean())
        ratios[tag] = HarmEstimate(float(harm[row, own_column]) / mean if mean else math.nan, low, high)
    return ratios


def specific(
    table: AblationTable,
    *,
    languages: Sequence[str] | None = None,
    times: float | int = 5,
    p: float | int = 0.05,
    control: str = MATCHED,
) -> dict[Language, bool]:
    """Whether each language's own harm is `times` the mean absolute harm of the others and of a control's random sets.

    Asked besides: own harm above 0, and a rank p among the control's draws of at most `p`. A language without text of
    its own has no verdict.
    """
    others, random, rank, own_harm = (
        ratio_to_others(table),
        table.ratio(control),
        table.p_values(control),
        table.own_harm(),
    )
    chosen = [tag for tag in table.languages if tag in own_harm and (languages is None or tag in languages)]
    return {
        tag: own_harm[tag] > 0
        and tag in random
        and others[tag].estimate >= times
        and random[tag].estimate >= times
        and rank[tag] <= p
        for tag in chosen
    }
