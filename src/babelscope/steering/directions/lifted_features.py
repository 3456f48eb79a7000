"""Features of an autoencoder that a language's text fires and whose decoder rows raise that language's tokens."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from babelscope.artifacts import LoadedSAE
from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float, Float64, Tensor
from babelscope.errors import MeasurementError, SelectionError, SteeringError
from babelscope.languages import Language
from babelscope.models import eval_mode, layout_of
from babelscope.models.modes import gradients_on
from babelscope.models.plain import CausalModel
from babelscope.sites import Site
from babelscope.steering.directions.document_samples import DocumentMeans
from babelscope.steering.directions.means import compared_languages
from babelscope.steering.directions.saes import check_sae_model

LARGE = 256.0
"""Entry of the rows by which the last norm is read: its epsilon is nothing beside them, in float16 too."""


@runtime_checkable
class TokensByLanguage(Protocol):
    """Disjoint sets of tokens by language, as `probes.lens.word_lists.LanguageTokens` are."""

    @property
    def member(self) -> Tensor:
        """Bool, one row per language, one column per entry of the vocabulary."""
        ...

    def index(self, language: str) -> int:
        """Row of a language; raises LanguageError if absent."""
        ...


@dataclass(frozen=True, eq=False)
class LiftedFeatures:
    """Every feature of an autoencoder, scored between two languages."""

    __repr__ = shown_by()

    sae: LoadedSAE
    codes: DocumentMeans
    """Means of all features by document, as of `document_codes`."""
    target: Language
    source: Language
    selectivity: Float64[Tensor, " feature"]
    lift: Float64[Tensor, " feature"]

    @property
    def score(self) -> Float64[Tensor, " feature"]:
        """Selectivity × lift with their sign, above 0 for the target, below for the source; 0 where they disagree."""
        product = self.selectivity * self.lift
        return torch.where(product > 0, product * self.lift.sign(), 0.0)

    def best(self, k: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The target's best k features and the source's, the best first; fewer where fewer have a score.

        Of equal scores the earlier feature. Raises SelectionError where the target has none, or for a k below 1.
        """
        if k < 1:
            raise SelectionError(f"k {k} came; expected 1 or more features; correct it")
        sides = []
        for signed in (self.score, -self.score):
            order = signed.sort(descending=True, stable=True).indices[:k]
            sides.append(tuple(order[signed[order] > 0].tolist()))
        if not sides[0]:
            raise SelectionError(
                f"no feature of SAE {self.sae.id!r} fires more on {self.target} than on {self.source} and raises its "
                "tokens; expected one or more; take another layer's autoencoder, or more text"
            )
        return sides[0], sides[1]


def lift_features(
    model: CausalModel,
    sae: LoadedSAE,
    codes: DocumentMeans,
    tokens: TokensByLanguage,
    *,
    target: str,
    source: str = "en",
) -> LiftedFeatures:
    """Score an autoencoder's features by selectivity × logit lift between two languages.

    selectivity_j = (mean_target f_j - mean_source f_j) / √((var_target + var_source)/2), f_j being a document's mean,
    variances without correction; 0 for a feature that does not vary. lift_j = `logit_lift` of its decoder row.
    Published as a product of both parts above 0, of which the lift is the change of the tokens' probability when the
    feature is raised at the last token; ours is read from the weights, which needs no pass, and sees the direct path
    to the logits alone. The same product with both signs turned scores the source's features.
    codes: of `document_codes`, from the same autoencoder. tokens: which tokens are whose, such as `indicative_tokens`.
    Raises SteeringError for codes or a model of another autoencoder, LanguageError for a language that is not there,
    MeasurementError for fewer than two documents of a language or a language without tokens.
    Source: after Neural FOXP2, arXiv:2602.00945.
    """
    (away,) = compared_languages(codes, target, source)
    tag = codes.languages[codes.index(target)]
    check_sae_model(sae, codes.origin)
    if codes.site != sae.site or codes.value.shape[1] != sae.n_features:
        raise SteeringError(
            f"means of {codes.value.shape[1]} units at '{codes.site}' came; SAE {sae.id!r} has {sae.n_features} "
            f"features at '{sae.site}'; take them with document_codes and this autoencoder"
        )
    rows = [codes.of(name) for name in (tag, away)]
    if min(map(len, rows)) < 2:
        raise MeasurementError(
            f"{len(rows[0])} documents of {tag} and {len(rows[1])} of {away} came; expected two or more; add text"
        )
    spread = torch.stack([part.var(dim=0, correction=0) for part in rows]).mean(dim=0).sqrt()
    gap = rows[0].mean(dim=0) - rows[1].mean(dim=0)
    # A feature that never varies would divide rounding by rounding.
    selectivity = torch.where(spread > 1e-9, gap / spread.clamp(min=1e-9), 0.0)
    member = tokens.member
    raised, lowered = (member[tokens.index(name)] for name in (tag, away))
    return LiftedFeatures(sae, codes, tag, away, selectivity, logit_lift(model, sae.w_dec, raised, lowered))


def logit_lift(
    model: CausalModel,
    rows: Float[Tensor, "row hidden"],
    raised: Bool[Tensor, " vocab"],
    lowered: Bool[Tensor, " vocab"],
) -> Float64[Tensor, " row"]:
    """How far vectors of the stream raise some tokens' logits above those of others, through the folded last norm.

    lift = (mean over `raised` - mean over `lowered`) of W_U (γ ⊙ d): logits per unit of the vector, by the direct path,
    in a stream of root mean square 1; a LayerNorm's centring is folded in as well (its scale to within 1/(2 hidden)).
    Biases and what the soft cap does far from 0 are left out.
    Raises MeasurementError where a set is empty or of another vocabulary.
    """
    layout = layout_of(model)
    n_vocab = layout.width("logits")
    for name, member in (("raised", raised), ("lowered", lowered)):
        if len(member) != n_vocab or not bool(member.any()):
            raise MeasurementError(
                f"{int(member.sum())} of {len(member)} tokens came as {name}; expected one or more of {n_vocab}; make "
                "the sets with vocabulary= the model's number of rows"
            )
    read = _folded_norm(model)
    device = layout.device_of(Site(None, "logits"))
    with gradients_on(), eval_mode(model):
        start = torch.zeros(1, read.shape[1], dtype=layout.head.weight.dtype, device=device, requires_grad=True)
        logits = layout.logits(start)[0]
        means = [logits[member.to(logits.device)].mean() for member in (raised, lowered)]
        # The head is linear: its gradient is the mean row, whatever holds the weights.
        (along,) = torch.autograd.grad(means[0] - means[1], start)
    return rows.double().cpu() @ (read @ along[0].double().cpu())


@torch.no_grad()
def _folded_norm(model: CausalModel) -> Float64[Tensor, "hidden out"]:
    """The last norm (and projection) as a linear map of rows, in a stream of root mean square 1.

    Unit rows have one length, so that the norm divides all of them by the same; half of what ± differ in has no bias.
    """
    layout = layout_of(model)
    device = layout.device_of(Site(None, "logits"))
    unit_rows = LARGE * torch.eye(layout.d_hidden, dtype=layout.head.weight.dtype, device=device)
    with eval_mode(model):
        both = (layout.final(unit_rows) - layout.final(-unit_rows)) / 2
    return both.double().cpu() / (layout.d_hidden**0.5 if layout.family.norm else LARGE)
