"""Path patching: what one head tells another head, or the logits, without what the heads between make of it."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float64, Tensor
from babelscope.errors import SelectionError
from babelscope.models import Edit, layout_of
from babelscope.models.attention import AttentionInputs, attention_by
from babelscope.models.plain import CausalModel
from babelscope.probes.circuits.effect_maps import PatchDirection, UnitEffects, givers_of, solved_pairs
from babelscope.probes.circuits.task_prompts import TaskLine, task_pairs
from babelscope.probes.circuits.unit_patching import PromptRuns, Swap, UnitPlace
from babelscope.probes.units.attention_removal import attend_plainly

HeadInput = Literal["query", "key", "value"]
"""What a head is given: its query, and the key and value that it reads, which other heads may share."""
HEAD_INPUTS: tuple[HeadInput, ...] = get_args(HeadInput)


def path_effects(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    lines: Sequence[TaskLine],
    *,
    senders: Sequence[UnitPlace] | None = None,
    receivers: Sequence[UnitPlace] = (),
    inputs: Sequence[HeadInput] = HEAD_INPUTS,
    direction: PatchDirection = "denoise",
    seed: int = 0,
) -> UnitEffects:
    """How much of the answer goes from each sending head to some receiving heads, or to the logits if none are given.

    First run: the sender's output comes from the other prompt, and every other head is held at what it gave untouched,
    so that the change reaches the receivers through the residual stream and the MLPs alone. To the logits, that is the
    effect. Second run: the receivers give what they computed in the first, and all that comes after them sees it.
    inputs: of the receivers that see the change, such as the queries alone: what the others of them read is untouched.
    A key or value that several heads share is changed for the receivers alone.
    senders: heads; those of layers before the last receiver where None, or all for the logits. LD, `shift`, the
    directions, and the controls are those of `unit_effects`.
    Raises SelectionError for a receiver in the layer of every sender or before it, a head that the model lacks, inputs
    that are none or without a receiver, SiteError for inputs of a family whose attention is not transformers' own.
    Source: Wang et al. 2022, arXiv:2211.00593; Goldowsky-Dill et al. 2023, arXiv:2304.05969.
    """
    check_inputs(inputs, receivers)
    runs = PromptRuns.record(layout_of(model), task_pairs(tokenizer, lines))
    end = max((layer for layer, _ in receivers), default=runs.layout.n_layers)
    chosen = tuple(unit for unit in runs.units if unit[0] < end) if senders is None else tuple(senders)
    if not chosen or any(layer >= end for layer, _ in chosen):
        raise SelectionError(
            f"senders {list(chosen)} and receivers {list(receivers)} came; expected receivers in later layers than the "
            "senders; choose others"
        )
    shift, null, opposite = (
        torch.stack([moved_on_path(runs, sender, receivers, direction, sources, inputs) for sender in chosen])
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
        receiver=receiver_name(receivers, inputs),
    )
    effects.check()
    return effects


def check_inputs(inputs: Sequence[HeadInput], receivers: Sequence[UnitPlace]) -> None:
    """Raise SelectionError unless these are inputs of heads, each once, all of them where the logits receive."""
    if not inputs or len(set(inputs)) < len(inputs) or not set(inputs) <= set(HEAD_INPUTS):
        raise SelectionError(f"inputs {list(inputs)} came; expected some of {', '.join(HEAD_INPUTS)}, each once")
    if not receivers and len(inputs) < len(HEAD_INPUTS):
        raise SelectionError(
            f"inputs {list(inputs)} came without receivers; expected heads that have them; name receivers"
        )


def receiver_name(receivers: Sequence[UnitPlace], inputs: Sequence[HeadInput]) -> str:
    """What sees the change, in words."""
    heads = ", ".join(f"{layer}.attn_heads[{head}]" for layer, head in receivers) or "the logits"
    return heads if len(inputs) == len(HEAD_INPUTS) else f"the {' and '.join(inputs)} of {heads}"


def moved_on_path(
    runs: PromptRuns,
    sender: UnitPlace,
    receivers: Sequence[UnitPlace],
    direction: PatchDirection,
    sources: Sequence[tuple[int, int]],
    inputs: Sequence[HeadInput] = HEAD_INPUTS,
) -> Float64[Tensor, " pair"]:
    """How far one sender moves the difference of every taker on its way to the receivers."""
    swaps = [Swap(taker, giver, (sender,)) for taker, giver in sources]
    runs.check([*swaps, Swap(0, 0, tuple(receivers))])
    takers = [swap.taker for swap in swaps]
    change, computed = runs.edits(swaps), dict[int, Tensor]()

    def untouched(layer: int, value: Tensor) -> Tensor:
        return runs.values[layer][takers][:, : value.shape[1]].to(value)

    def hold(layer: int) -> Edit:
        def held_value(value: Tensor) -> Tensor:
            computed[layer] = value.clone()
            new = untouched(layer, value)
            return change[layer](new) if layer in change else new  # pyright: ignore[reportReturnType]

        return held_value

    def give(layer: int) -> Edit:
        heads = [head for at, head in receivers if at == layer]

        def received(value: Tensor) -> Tensor:
            new = value.clone()
            new[:, :, heads] = computed[layer][:, :, heads]
            return new

        return received

    holds = {layer: hold(layer) for layer in runs.values}
    layers = {layer for layer, _ in receivers}
    if len(inputs) == len(HEAD_INPUTS):
        patched = runs.run(takers, holds)
    else:
        changes = input_changes(runs, takers, holds, layers, inputs)
        computed |= {layer: untouched(layer, part) + part for layer, part in changes.items()}
        patched = runs.difference[takers]
    if receivers:
        patched = runs.run(takers, {layer: give(layer) for layer in layers})
    return (patched - runs.difference[takers]) * (1 if direction == "denoise" else -1)


def input_changes(
    runs: PromptRuns,
    takers: Sequence[int],
    holds: Mapping[int, Edit],
    layers: set[int],
    inputs: Sequence[HeadInput],
) -> dict[int, Tensor]:
    """How much what the heads of some layers give changes by some of their inputs: [row, token, head, d_head].

    holds: the edits that keep every head as it was but the sender. The change is 0, bit for bit, where the inputs are.
    """
    sent, changes = dict[int, AttentionInputs](), dict[int, Tensor]()

    def store(given: AttentionInputs) -> Tensor:
        if given.layer in layers:
            sent[given.layer] = given
        return attend_plainly(given)

    def compare(given: AttentionInputs) -> Tensor:
        before = attend_plainly(given)
        if given.layer in layers:
            after = attend_plainly(given._replace(**{name: getattr(sent[given.layer], name) for name in inputs}))
            changes[given.layer] = (after - before).transpose(1, 2)
        return before

    with attention_by(runs.layout.model, store):
        runs.run(takers, holds)
    with attention_by(runs.layout.model, compare):
        runs.run(takers, {})
    return changes
