"""One AdamW step of whole tensors, for the baselines that train more than rows."""

from collections.abc import Mapping, Sequence

import torch
from torch.optim.adamw import adamw

from babelscope.axes import Tensor


@torch.no_grad()
def adamw_step(
    parameters: Mapping[str, Tensor],
    grads: Sequence[Tensor],
    moments: Mapping[str, Tensor],
    *,
    learning_rate: float,
    grad_scale: float,
    betas: tuple[float, float],
    epsilon: float,
) -> None:
    """Change parameters and moments in place by torch's fused AdamW, without decay; the gradients are scaled in place.

    grads: one per parameter, in their order. moments: `first/NAME`, `second/NAME` and `steps/NAME` of each.
    """
    for grad in grads if grad_scale != 1.0 else []:
        grad.mul_(grad_scale)
    adamw(
        list(parameters.values()),
        list(grads),
        exp_avgs=[moments[f"first/{name}"] for name in parameters],
        exp_avg_sqs=[moments[f"second/{name}"] for name in parameters],
        max_exp_avg_sqs=[],
        state_steps=[moments[f"steps/{name}"] for name in parameters],
        fused=True,
        amsgrad=False,
        beta1=betas[0],
        beta2=betas[1],
        lr=learning_rate,
        weight_decay=0.0,
        eps=epsilon,
        maximize=False,
    )
