"""Fitting a tuned lens: by least squares in one walk, or by descent on the divergence of the outputs."""

from transformers import PreTrainedTokenizerBase

from babelscope.corpus import Texts, as_corpus, limit_tokens, pad_of
from babelscope.corpus import tokenize_documents as tokenize
from babelscope.errors import MeasurementError
from babelscope.models import layout_of, origin_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.probes.lens.lens_descent import Descent
from babelscope.probes.lens.lens_squares import least_squares
from babelscope.probes.lens.translators import Fitted, Translators


def fit_translators(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    fit: Fitted = "ridge",
    tokens_per_language: int | None = 5000,
    penalty: float | int = 1e-3,
    max_length: int | None = None,
    epochs: int = 4,
    rate: float | int = 1e-3,
    seed: int = 0,
) -> Translators:
    """Fit a tuned lens: what the last stream, or what the output, will be, given the stream here.

    "ridge": min over A, b of Σ ‖A h + b - h_last‖² + λ ‖A - I‖², λ = `penalty` times the mean over dimensions of Σ h²;
    one streamed pass, a depth that tells nothing keeps the identity. Sums are float64: 16 · layers · hidden² bytes.
    "kl": min over A, b of the mean of KL(the model's output ‖ the lens's), by Adam from the better of that and the
    identity, on four fifths of the documents; the divergence on the others is read after every epoch, each depth keeps
    its best maps, so it never ends above its start there. Slower: three passes of the head per depth, token and epoch.
    epochs, rate, seed: for "kl" only; the rate falls along a line to a tenth over the epochs, the seed draws the
    held-out documents and the order.
    Raises MeasurementError for fewer tokens than dimensions. Take other text than the one that is measured.
    Source: Belrose et al. 2023, arXiv:2303.08112, who train as "kl" from the identity with more steps.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    max_length = text_length(layout, max_length)
    documents = [
        document
        for k, texts_of_language in enumerate(corpus.values())
        for document in limit_tokens(
            tokenize(tokenizer, texts_of_language, k, max_length=max_length), tokens_per_language
        )
    ]
    pad = pad_of(tokenizer)
    origin = origin_of(model, tokenizer)
    if fit == "ridge":
        return least_squares(layout, documents, pad, penalty, origin)[0]
    if epochs < 1 or not rate > 0:
        raise MeasurementError(f"{epochs} epochs at rate {rate} came; expected at least one and a rate above 0")
    return Descent.split(layout, documents, pad, seed).fit(penalty, epochs, rate, origin)
