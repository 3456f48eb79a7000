"""Row of circuits: heads of the past tense in languages that inflect for it, and in one that does not."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from babelscope.controls import benjamini_hochberg
from babelscope.languages import Language
from babelscope.probes import compare_effects, read_tasks, unit_effects
from babelscope.probes.circuits.effect_maps import UnitEffects
from babelscope.probes.circuits.task_prompts import TaskLine, TaskPair, aligned_places
from rows.result import Headline

INFLECTED = ("en", "de", "es", "fr")
CHOSEN_ON, STRONGEST = 3, 10
"""Pairs that heads are chosen on, and how many heads of each language; the other pairs measure them."""
CHINESE = (
    *("爸爸|在城里买", "妈妈|在家里做", "老师|在学校写", "弟弟|在公园看", "姐姐|在店里买"),
    *("朋友|在车站等", "医生|在医院看", "学生|在图书馆读", "奶奶|在厨房煮", "工人|在工厂修"),
)
"""Who does what: yesterday the particle 了 comes next, where tomorrow it does not; the verb is the same."""


def chinese_lines() -> list[TaskLine]:
    """Pairs of the same form in a language without a past tense."""
    task, roles = "past tense", ("subject", "time", "place")
    parts = [line.split("|") for line in CHINESE]
    return [
        TaskLine(task, Language("zh"), roles, (who, "昨天", what), (who, "明天", what), "了", "的")
        for who, what in parts
    ]


def past_tense_headline(model: Any, tokenizer: Any, name: str) -> Headline:
    """Heads that are strong in all inflected languages, measured on other pairs, also in Chinese and by chance."""
    lines = {**{tag: read_tasks()["past tense"][tag] for tag in INFLECTED}, "zh": chinese_lines()}
    maps = {tag: unit_effects(model, tokenizer, pairs[:CHOSEN_ON], controls=False) for tag, pairs in lines.items()}
    shared = set.intersection(*(set(maps[tag].strongest(STRONGEST)) for tag in INFLECTED))
    heads = sorted(shared)
    rng = np.random.default_rng(0)
    others = [unit for unit in maps["en"].units if unit not in shared]
    # As many heads of the same layers, where the layer has another one.
    alike = [
        candidates[rng.integers(len(candidates))]
        for layer, _ in heads
        if (candidates := [unit for unit in others if unit[0] == layer])
    ]
    later = {tag: unit_effects(model, tokenizer, pairs[CHOSEN_ON:], units=heads) for tag, pairs in lines.items()}
    carrying = {tag: (benjamini_hochberg(effects.p) <= 0.05) for tag, effects in later.items()}
    everywhere = np.stack([np.asarray(carrying[tag]) for tag in INFLECTED]).all(axis=0)
    alone = everywhere & ~np.asarray(carrying["zh"])
    means = {tag: float(effects.effect.mean()) for tag, effects in later.items()}
    inflected = float(np.mean([means[tag] for tag in INFLECTED]))
    random = unit_effects(model, tokenizer, lines["zh"][CHOSEN_ON:], units=alike, controls=False)
    overlaps = pairwise_overlaps(maps)
    among = float(np.mean([shared for pair, (shared, _) in overlaps.items() if "zh" not in pair]))
    with_zh = [value for pair, value in overlaps.items() if "zh" in pair]
    only = ", ".join(f"{layer}.{head}" for (layer, head), is_alone in zip(heads, alone, strict=True) if is_alone)
    return Headline(
        paper="heads and MLPs that form the English past tense are not used in Chinese, which does not inflect "
        "(Qwen2 0.5B, arXiv:2410.09223)",
        ours=f"{len(heads)} heads are among the {STRONGEST} strongest of all of {', '.join(INFLECTED)}; on other pairs "
        f"{int(everywhere.sum())} carry the past tense in all of them, and of these {int(alone.sum())} carry nothing "
        f"of 了 in Chinese{f' ({only})' if only else ''}; mean effect {inflected:.2f}, in Chinese {means['zh']:.2f}; "
        f"Chinese shares {np.mean([value for value, _ in with_zh]):.1f} of {STRONGEST} strongest heads with each, they "
        f"share {among:.1f} with each other",
        control=f"{np.mean([chance for _, chance in with_zh]):.1f} of {STRONGEST} with heads permuted within layers; "
        f"other heads of the same layers in Chinese {float(random.effect.mean()):.2f}; from a prompt of the patched "
        f"time {float(np.mean([float(later[tag].share(later[tag].null).mean()) for tag in INFLECTED])):.2f}",
        model=name,
        verdict="in shape" if alone.sum() > everywhere.sum() / 2 and means["zh"] < inflected / 2 else "not",
    )


def pairwise_overlaps(maps: Mapping[str, UnitEffects]) -> dict[tuple[str, str], tuple[int, float]]:
    """Strongest heads that two languages share, and with heads permuted within layers."""
    tags, overlaps = list(maps), dict[tuple[str, str], tuple[int, float]]()
    for place, first in enumerate(tags):
        for second in tags[place + 1 :]:
            overlap = compare_effects(maps[first], maps[second], strongest=STRONGEST)
            overlaps[first, second] = overlap.shared, overlap.expected
    return overlaps


def inputs_by_hand(
    model: Any, pairs: list[TaskPair], sender: tuple[int, int], receiver: tuple[int, int], name: str
) -> list[float]:
    """How far a sender moves each pair's difference by one projection of a receiving head, by plain hooks alone."""
    attention = [layer.self_attn for layer in model.model.layers]
    width = attention[0].head_dim
    shared = 1 if name == "q" else attention[0].num_key_value_groups

    def columns(head: int) -> slice:
        return slice(head * width, (head + 1) * width)

    def run(pair: TaskPair, ids: Any, before: Any, after: Any = None) -> float:
        def handed(number: int) -> Any:
            return lambda _, inputs: (before(number, inputs[0].clone()), *inputs[1:])

        handles = [part.o_proj.register_forward_pre_hook(handed(number)) for number, part in enumerate(attention)]
        if after:
            projection = attention[receiver[0]].get_submodule(f"{name}_proj")
            handles.append(projection.register_forward_hook(lambda _, __, output: after(output.clone())))
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1].double()
        for handle in handles:
            handle.remove()
        return float(logits[pair.answer] - logits[pair.foil])

    def moved(pair: TaskPair) -> float:
        clean, corrupt, changed = dict[int, Any](), dict[int, Any](), dict[int, Any]()
        sent = dict[str, Any]()
        run(pair, pair.clean.ids, clean.setdefault)
        base = run(pair, pair.corrupt.ids, corrupt.setdefault)

        def freeze(number: int, value: Any) -> Any:
            new = corrupt[number].clone()
            if number == sender[0]:
                for to, of in aligned_places(pair.corrupt, pair.clean):
                    new[0, to, columns(sender[1])] = clean[number][0, of, columns(sender[1])]
            return new

        def look(number: int, value: Any) -> Any:
            changed[number] = value
            return corrupt[number].clone()

        def replace(value: Any) -> Any:
            read = columns(receiver[1] // shared)
            value[..., read] = sent[name][..., read]
            return value

        def receive(number: int, value: Any) -> Any:
            if number == receiver[0]:
                value[..., columns(receiver[1])] = changed[number][..., columns(receiver[1])]
            return value

        run(pair, pair.corrupt.ids, freeze, lambda value: sent.setdefault(name, value))
        run(pair, pair.corrupt.ids, look, replace)
        return run(pair, pair.corrupt.ids, receive) - base

    return [moved(pair) for pair in pairs]
