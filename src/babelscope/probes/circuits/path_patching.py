"""Path patching: what one head tells another head, or the logits, without what the heads between make of it."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float64, Tensor
from babelscope.errors import SelectionError
from babelscope.models import Edit, layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.circuits.effect_maps import Direction, UnitEffects, givers_of, solved_pairs
from babelscope.probes.circuits.task_prompts import TaskLine, task_pairs
from babelscope.probes.circuits.unit_patching import PromptRuns, Swap, Unit


def path_effects(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    lines: Sequence[TaskLine],
    *,
    senders: Sequence[Unit] | None = None,
    receivers: Sequence[Unit] = (),
    direction: Direction = "denoise",
    seed: int = 0,
) -> UnitEffects:
    """How much of the answer goes from each sending head to some receiving heads, or to the logits if none are given.

    First run: the sender's output comes from the other prompt, and every other head is held at what it gave untouched,
    so that the change reaches the receivers through the residual stream and the MLPs alone. To the logits, that is the
    effect. Second run: the receivers give what they computed in the first, and all that comes after them sees it.
    What a receiver computes has its queries, keys and values together; they are not told apart.
    senders: heads; those of layers before the last receiver where None, or all for the logits. LD, `shift`, the
    directions, and the controls are those of `unit_effects`.
    Raises SelectionError for a receiver in the layer of every sender or before it, or a head that the model lacks.
    Source: Wang et al. 2022, arXiv:2211.00593; Goldowsky-Dill et al. 2023, arXiv:2304.05969.
    """
    runs = PromptRuns.record(layout_of(model), task_pairs(tokenizer, lines))
    end = max((layer for layer, _ in receivers), default=runs.layout.n_layers)
    chosen = tuple(unit for unit in runs.units if unit[0] < end) if senders is None else tuple(senders)
    if not chosen or any(layer >= end for layer, _ in chosen):
        raise SelectionError(
            f"senders {list(chosen)} and receivers {list(receivers)} came; expected receivers in later layers than the "
            "senders; choose others"
        )
    shift, null, opposite = (
        torch.stack([moved_on_path(runs, sender, receivers, direction, sources) for sender in chosen])
        for sources in (
            givers_of(len(lines), direction, source, seed) for source in ("partner", "same class", "other class")
        )
    )
    effects = UnitEffects(
        task=lines[0].task,
        language=lines[0].language,
        at="attn_heads",
        direction=direction,
        units=chosen,
        gap=runs.gap,
        shift=shift,
        null=null,
        opposite=opposite,
        solved=solved_pairs(runs, len(lines)),
        seed=seed,
        receiver=", ".join(f"{layer}.attn_heads[{head}]" for layer, head in receivers) or "the logits",
    )
    effects.check()
    return effects


def moved_on_path(
    runs: PromptRuns, sender: Unit, receivers: Sequence[Unit], direction: Direction, sources: Sequence[tuple[int, int]]
) -> Float64[Tensor, " pair"]:
    """How far one sender moves the difference of every taker on its way to the receivers."""
    swaps = [Swap(taker, giver, (sender,)) for taker, giver in sources]
    runs.check([*swaps, Swap(0, 0, tuple(receivers))])
    takers = [swap.taker for swap in swaps]
    change, computed = runs.edits(swaps), dict[int, Tensor]()

    def hold(layer: int) -> Edit:
        def held_value(value: Tensor) -> Tensor:
            computed[layer] = value.clone()
            new = runs.values[layer][takers][:, : value.shape[1]].to(value)
            return change[layer](new) if layer in change else new  # pyright: ignore[reportReturnType]

        return held_value

    def give(layer: int) -> Edit:
        heads = [head for at, head in receivers if at == layer]

        def received(value: Tensor) -> Tensor:
            new = value.clone()
            new[:, :, heads] = computed[layer][:, :, heads]
            return new

        return received

    patched = runs.run(takers, {layer: hold(layer) for layer in runs.values})
    if receivers:
        patched = runs.run(takers, {layer: give(layer) for layer, _ in receivers})
    return (patched - runs.difference[takers]) * (1 if direction == "denoise" else -1)
