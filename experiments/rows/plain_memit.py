"""MEMIT's walk over layers in numpy and plain hooks, for models whose down projection is a module of a block."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch


class PlainFact(NamedTuple):
    """One fact: its prompts as tokens with the place of the subject's last one, and what is added there."""

    prompts: Sequence[tuple[Sequence[int], int]]
    """The first is the prompt by itself."""
    value: torch.Tensor


@torch.no_grad()
def plain_memit(
    model: Any,
    blocks: Sequence[Any],
    down_of: Callable[[Any], Any],
    facts: Sequence[PlainFact],
    moments: Mapping[int, np.ndarray],
    layers: Sequence[int],
    *,
    weight: float,
) -> dict[int, np.ndarray]:
    """Δ of every layer, [hidden, neuron]; the model holds all of them afterwards.

    weight: λ itself. Down projections are torch's Linear, or GPT-2's with the weight laid the other way.
    """

    def stream(fact: PlainFact, added: torch.Tensor | None = None) -> np.ndarray:
        (ids, place), states = fact.prompts[0], []
        hooks = [blocks[layers[-1]].register_forward_hook(lambda _, args, out: states.append(out))]
        if added is not None:

            def add(_: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
                out = out.clone()
                out[0, place] += added
                return out

            hooks.append(down_of(blocks[layers[-1]]).register_forward_hook(add))
        model(torch.tensor([ids]))
        for hook in hooks:
            hook.remove()
        state = states[0][0] if isinstance(states[0], tuple) else states[0]
        return state.reshape(-1, state.shape[-1])[place].double().numpy()

    def key(fact: PlainFact, layer: int) -> np.ndarray:
        rows = []
        for ids, place in fact.prompts:
            hook = down_of(blocks[layer]).register_forward_pre_hook(
                lambda _, args, place=place: rows.append(args[0][0, place].double().numpy())
            )
            model(torch.tensor([ids]))
            hook.remove()
        return np.mean(rows, axis=0)

    targets, changes = [stream(fact, fact.value) for fact in facts], dict[int, np.ndarray]()
    for place, layer in enumerate(layers):
        lacking = [target - stream(fact) for fact, target in zip(facts, targets, strict=True)]
        residuals = np.stack(lacking, axis=1) / (len(layers) - place)
        keys = np.stack([key(fact, layer) for fact in facts], axis=1)
        changes[layer] = residuals @ keys.T @ np.linalg.inv(weight * moments[layer] + keys @ keys.T)
        module = down_of(blocks[layer])
        stored = changes[layer] if isinstance(module, torch.nn.Linear) else changes[layer].T
        module.weight += torch.from_numpy(stored).to(module.weight.dtype)
    return changes
