"""The mask of lottery-ticket tuning: the values that full fine-tuning moved most."""

from collections.abc import Mapping, Sequence

import torch

from babelscope.axes import Bool, Float, Tensor
from babelscope.errors import MeasurementError, SelectionError


@torch.no_grad()
def lottery_ticket_mask(
    before: Mapping[str, Float[Tensor, "..."]],
    after: Mapping[str, Float[Tensor, "..."]],
    share: float,
    names: Sequence[str],
    earlier: Mapping[str, Bool[Tensor, "..."]] | None = None,
) -> dict[str, Bool[Tensor, "..."]]:
    """The values that full fine-tuning moved most: exactly round(share · values) True, over all named parameters.

    Ranked by |after − before| in float32, by the exact k-th value; ties go to the lower index, parameters in the order
    of `names`. round is to even at halves.
    earlier: values of earlier rounds, which are not chosen again and are False here; they count among all values.
    Raises SelectionError where nothing would be chosen, MeasurementError where a difference is not finite.
    Source: Ansell et al. 2022, arXiv:2110.07560; differs: exact for any size, where its code lists Python floats.
    """
    parts = [(after[name].detach().float() - before[name].detach().float()).abs().flatten() for name in names]
    change = torch.cat(parts) if parts else torch.zeros(0)
    count = round(share * len(change))
    if not 0 < share <= 1 or not count:
        raise SelectionError(
            f"share {share} of {len(change)} values is {count} of them; expected at least one; raise the share"
        )
    if not bool(torch.isfinite(change).all()):
        raise MeasurementError("the change of a parameter holds NaN or infinity; expected finite ones; train again")
    if earlier is not None:
        change[torch.cat([earlier[name].flatten() for name in names])] = -1.0
    left = int((change >= 0).sum())
    if count > left:
        raise SelectionError(f"share {share} is {count} values, of which {left} are left; lower the share")
    threshold = torch.kthvalue(change, len(change) - count + 1).values
    chosen = change > threshold
    ties = (change == threshold).nonzero()[:, 0]
    chosen[ties[: count - int(chosen.sum())]] = True
    masks = chosen.split([len(part) for part in parts])
    return {name: mask.view(after[name].shape) for name, mask in zip(names, masks, strict=True)}
