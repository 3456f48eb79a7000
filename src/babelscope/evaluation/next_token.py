"""Negative log-likelihood of the next token, from the body's output: through the whole head, or through parts of it."""

import torch
import torch.nn.functional as F

from babelscope.axes import Float, Int64, Tensor
from babelscope.models import Layout
from babelscope.models.plain import objection

PART = 4096
"""Entries of the vocabulary at a time: the scores of 512 rows then stay in a processor's cache."""
LARGE = 32_768
"""Entries from which a head is read in parts (docs/measured/head.jsonl); the losses of smaller ones stay bit for bit as
earlier releases gave them."""


def at_least_float32(logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """16 bits made float32; float64 stays."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def next_token_nll(
    layout: Layout, states: Float[Tensor, "row hidden"], targets: Int64[Tensor, " row"]
) -> Float[Tensor, " row"]:
    """Negative log-likelihood in nats of some rows' next tokens, on the head's device, in float32 or float64.

    On a processor, a large head that is a plain projection is read in parts: rows × vocabulary numbers, written and
    read again several times, take longer than the product itself. Both ways differ in the order of one sum.
    """
    if reads_in_parts(layout.head):
        return nll_in_parts(layout, states, targets.to("cpu"))
    logits = at_least_float32(layout.logits(states))
    return F.cross_entropy(logits, targets.to(logits.device), reduction="none")


def reads_in_parts(head: torch.nn.Module) -> bool:
    """Whether a head is large, on the processor, and its weight all that it does; no gradient passes through parts."""
    weight = head._parameters.get("weight")
    return (
        weight is not None
        and weight.device.type == "cpu"
        and weight.shape[0] >= LARGE
        and not torch.is_grad_enabled()
        and not head._forward_hooks
        and not head._forward_pre_hooks
        and type(head) is torch.nn.Linear
        and objection(head) is None
    )


def nll_in_parts(
    layout: Layout, states: Float[Tensor, "row hidden"], targets: Int64[Tensor, " row"]
) -> Float[Tensor, " row"]:
    """The same by a running log-sum-exp over parts of the vocabulary, in buffers that are used again."""
    head, n = layout.head, len(states)
    total = at_least_float32(states.new_full((n,), -torch.inf))
    right = torch.empty_like(total)
    # Memory that is taken anew for every part would be cleared by the system page by page each time.
    product, wide = states.new_empty(n * PART), total.new_empty(n * PART)
    for start in range(0, len(head.weight), PART):
        rows = head.weight[start : start + PART]
        scores = torch.mm(states, rows.T, out=product[: n * len(rows)].view(n, len(rows)))
        if head.bias is not None:
            scores += head.bias[start : start + PART]
        logits = layout.logits_of(scores)
        if logits.dtype != total.dtype:
            logits = wide[: n * len(rows)].view(n, len(rows)).copy_(logits)
        in_part = (targets >= start) & (targets < start + len(rows))
        right[in_part] = logits[in_part, targets[in_part] - start]
        largest = logits.amax(dim=1, keepdim=True)
        part = logits.sub_(largest).exp_().sum(dim=1).log_().add_(largest.squeeze(1))
        torch.logaddexp(total, part, out=total)
    return total.sub_(right)
