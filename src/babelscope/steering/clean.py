"""What a model does with the prompt when nothing steers it: values at some sites, and conditions decided on them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from babelscope.artifacts import Condition
from babelscope.artifacts.stream import without_units
from babelscope.axes import Bool, Float, Tensor
from babelscope.errors import SteeringError
from babelscope.recording.site_sums import first_tokens
from babelscope.sites import Site
from babelscope.upstream.forward import ForwardInputs, forward_names, run_body


class CleanPass:
    """One pass over the whole prompt without steering.

    It is needed for two things: conditions on the prompt, which steering at an earlier layer would change, and
    operations that start from unsteered values. It runs before the first token is steered, so that what follows does
    not depend on the cache or on how the prompt is cut into chunks.
    """

    def __init__(self, ids: Tensor | None, mask: Tensor | None) -> None:
        self.values: dict[Site, Tensor] = {}
        """[row, token, unit], rows before beams."""
        self._ids, self._mask = ids, mask
        self._answers: dict[Any, Tensor] = {}

    def record(self, site: Site, value: Tensor) -> None:
        """Keep a site's value."""
        self.values[site] = value.detach().flatten(2)

    def meets(self, condition: Condition, ordinary: Bool[Tensor, " vocab"] | None) -> Bool[Tensor, " row"]:
        """Whether each row's prompt meets a condition."""
        key = (condition, id(ordinary))
        if key not in self._answers:
            value = self.values[condition.site]
            cosine = cosine_scores(value, self._counted(value, ordinary), condition)
            self._answers[key] = (cosine >= condition.threshold) == condition.above
        return self._answers[key]

    def _counted(self, value: Tensor, ordinary: Tensor | None) -> Bool[Tensor, "row token"]:
        """True at tokens that are neither pads nor special; at all but pads in a row that has only special tokens.

        ordinary: False at the ids of special tokens; None where they are not known, and then they count.
        """
        real = torch.ones(value.shape[:2], dtype=torch.bool, device=value.device)
        if self._mask is not None:
            real = self._mask.to(value.device, torch.bool)
        if ordinary is None or self._ids is None:
            return real
        plain = real & ordinary.to(self._ids.device)[self._ids].to(value.device)
        return torch.where(plain.any(dim=1, keepdim=True), plain, real)

    def onto(self, site: Site, value: Tensor, start: int, repeats: int) -> Tensor:
        """A copy of `value` in which the prompt's columns are those of this clean pass.

        start: the place in its row of the first column of `value`; repeats: beams and return sequences of each row.
        """
        clean = self.values[site][:, start : start + value.shape[1]].repeat_interleave(repeats, dim=0)
        flat = value.flatten(2)
        return torch.cat([clean.to(flat.dtype), flat[:, clean.shape[1] :]], dim=1).reshape(value.shape)


def cosine_scores(
    value: Float[Tensor, "row token unit"], counted: Bool[Tensor, "row token"], condition: Condition
) -> Float[Tensor, " row"]:
    """Cosine of each row's pooled value with the condition's vector, both in the condition's form."""
    exact = without_units(value.double(), condition.left_out)
    if condition.pool == "last":
        place = counted.shape[1] - 1 - counted.flip(1).long().argmax(dim=1)
        pooled = exact[torch.arange(len(exact), device=value.device), place]
    else:
        if condition.form == "ordinary":
            later = counted & ~first_tokens(counted)
            counted = torch.where(later.any(dim=1, keepdim=True), later, counted)
        share = counted.double() / counted.sum(dim=1, keepdim=True)
        pooled = torch.einsum("rtu,rt->ru", exact, share)
    vector = condition.vector.to(value.device, torch.float64)
    return torch.nn.functional.cosine_similarity(pooled, vector[None], dim=1)


def clean_inputs(inputs: ForwardInputs, body: nn.Module, length: int | None) -> ForwardInputs:
    """What the model's body is given in a pass over the whole prompt, from a call of `generate` or of the model.

    length: columns of the prompt where `generate` was called; None for a plain pass.
    Raises SteeringError where the prompt is not there whole: without ids, or going on from a cache.
    """
    ids_or_vectors, mask, positions = inputs.given, inputs.mask, inputs.positions
    going_on = length is None and inputs.cached > 0
    if (
        ids_or_vectors is None
        or going_on
        or ids_or_vectors.shape[1] != (ids_or_vectors.shape[1] if length is None else length)
    ):
        raise SteeringError(
            "conditions and clean values read the whole prompt first; it came without ids, or going on from a cache; "
            "hand all of it to generate"
        )
    if positions is None and length is not None and mask is not None and forward_names(body).positions is not None:
        positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
    return ForwardInputs(inputs.ids if inputs.embeds is None else None, inputs.embeds, mask, positions, None)


@torch.no_grad()
def run_clean(body: nn.Module, inputs: ForwardInputs, hold: Callable[[CleanPass | None], None]) -> CleanPass:
    """Run the body once without steering; `hold` is called with the pass before it, and with None after it."""
    clean = CleanPass(inputs.ids, inputs.mask)
    hold(clean)
    try:
        run_body(body, inputs.ids, embeds=inputs.embeds, mask=inputs.mask, positions=inputs.positions)
    finally:
        hold(None)
    return clean
