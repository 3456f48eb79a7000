"""When to steer: a question about the prompt, fitted to documents."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from babelscope.artifacts import Condition
from babelscope.artifacts.gate import Pool
from babelscope.artifacts.stream import form_used
from babelscope.artifacts.stream_forms import StreamForm
from babelscope.steering.directions.document_samples import DocumentMeans
from babelscope.steering.directions.means import compared_languages


class FittedCondition(NamedTuple):
    """A condition and how well it tells the documents it was fitted to."""

    condition: Condition
    accuracy: float
    """Mean of the shares of both sides told right."""


def fit_condition(
    samples: DocumentMeans,
    *,
    language: str,
    others: str | Sequence[str] | None = None,
    pool: Pool = "mean",
    form: StreamForm = "auto",
) -> FittedCondition:
    """The question whether a prompt is in a language: cos(x, v) ≥ θ, v = mean of its documents - mean of the others'.

    θ lies midway between the two neighbouring cosines where the mean of both sides' accuracies is highest; of several
    such places the lowest. Judge it on documents that it was not fitted to.
    form: of v and of x alike, as of `mean_direction`.
    Source: conditional activation steering, arXiv:2409.05907, which searches layer and threshold on a grid.
    """
    other_tags, samples = compared_languages(samples, language, others), samples.in_form(form)
    shape = form_used(samples.stream, form, samples.site)
    vector = samples.mean(language) - torch.stack([samples.mean(tag) for tag in other_tags]).mean(dim=0)
    groups = [samples.of(language), torch.cat([samples.of(tag) for tag in other_tags])]
    yes, no = (torch.nn.functional.cosine_similarity(group, vector[None], dim=1) for group in groups)
    ordered = torch.cat([yes, no]).unique()
    places = torch.cat([ordered[:1], (ordered[1:] + ordered[:-1]) / 2])
    right = (yes[None] >= places[:, None]).double().mean(dim=1) + (no[None] < places[:, None]).double().mean(dim=1)
    best = int(right.argmax())
    condition = Condition(
        samples.site,
        vector.float(),
        float(places[best]),
        pool=pool,
        form=shape,
        left_out=samples.left_out if shape == "ordinary" else (),
    )
    return FittedCondition(condition, float(right[best]) / 2)
