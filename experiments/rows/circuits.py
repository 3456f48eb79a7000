"""Row 26: heads and neurons that carry a grammatical answer, and whether two languages use the same ones."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from scipy.stats import spearmanr
from transformers import LlamaConfig, LlamaForCausalLM

from babelscope import layout_of, open_model
from babelscope.probes import choose_circuit, compare_effects, path_effects, read_tasks, score_circuit, unit_effects
from babelscope.probes.circuits.path_patching import HEAD_INPUTS
from babelscope.probes.circuits.task_prompts import TaskLine, TaskPair, aligned_places, task_pairs
from babelscope.probes.circuits.unit_patching import PromptRuns, attributed_units
from rows.information_routes import planted_route, route_headlines, route_witnesses
from rows.past_tense import inputs_by_hand, past_tense_headline
from rows.result import Headline, Inputs, Planted, RowResult, Witness

PAIRS = 3
"""Of each task and language; the next ones score what was chosen on these."""
STRONGEST = 10
RECEIVED = 3
"""Strongest English heads that are put into the Spanish runs."""


def measure(inputs: Inputs) -> RowResult:
    """Heads of number agreement, of indirect objects and of the past tense, in languages that have them and not."""
    return RowResult(
        witnesses=[*witnesses(), *route_witnesses()],
        planted=[*planted(), planted_route()],
        headlines=headlines(inputs),
    )


@contextmanager
def hooked(model: Any, change: Callable[[int, torch.Tensor], torch.Tensor | None], part: str = "self_attn.o_proj"):
    """While open, `change` is called with layer and input of every layer's projection, by plain hooks."""

    def hook(number: int):
        def before(_: Any, arguments: tuple):
            new = change(number, arguments[0].clone())
            return None if new is None else (new, *arguments[1:])

        return before

    handles = [
        layer.get_submodule(part).register_forward_pre_hook(hook(number))
        for number, layer in enumerate(model.model.layers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def difference(model: Any, ids: Sequence[int], pair: TaskPair) -> float:
    logits = model(torch.tensor([ids])).logits[0, -1].double()
    return float(logits[pair.answer] - logits[pair.foil])


def by_hand(model: Any, pairs: Sequence[TaskPair], layer: int, columns: slice, part: str, *, frozen: bool) -> float:
    """The effect of some columns of a projection's input by plain hooks; frozen: every other head held untouched."""
    moved = gaps = 0.0
    for pair in pairs:
        values: dict[str, dict[int, torch.Tensor]] = {"clean": {}, "corrupt": {}}
        sides = {}
        for name, prompt in (("clean", pair.clean), ("corrupt", pair.corrupt)):

            def see(number: int, value: torch.Tensor, into: dict[int, torch.Tensor] = values[name]) -> None:
                into[number] = value

            with hooked(model, see, part):
                sides[name] = difference(model, prompt.ids, pair)

        def patch(number: int, value: torch.Tensor, pair: TaskPair = pair, values: dict = values) -> torch.Tensor:
            new = values["corrupt"][number].clone() if frozen else value
            if number == layer:
                for to, of in aligned_places(pair.corrupt, pair.clean):
                    new[0, to, columns] = values["clean"][layer][0, of, columns]
            return new

        with hooked(model, patch, part):
            patched = difference(model, pair.corrupt.ids, pair)
        sign = 1 if sides["clean"] >= sides["corrupt"] else -1
        moved += sign * (patched - sides["corrupt"])
        gaps += sign * (sides["clean"] - sides["corrupt"])
    return moved / gaps


def furthest(a: torch.Tensor, b: list[float]) -> float:
    """The largest difference."""
    return float((a - torch.tensor(b, dtype=torch.float64)).abs().max())


def witnesses() -> list[Witness]:
    """Single heads, a single neuron and a path to the logits of the bundled model, by hooks of torch alone."""
    model, tokenizer = open_model("reference", device="cpu", dtype="float32")
    lines = read_tasks()["agreement"]["fr"][:PAIRS]
    pairs = task_pairs(tokenizer, lines)
    heads, neurons = [(4, 3), (6, 1), (0, 2)], [(0, 471), (5, 662)]
    of_heads = unit_effects(model, tokenizer, lines, units=heads)
    of_neurons = unit_effects(model, tokenizer, lines, at="mlp_inner", units=neurons)
    of_paths = path_effects(model, tokenizer, lines, senders=heads)
    if not bool(of_heads.used.all()):
        pairs = [pair for pair, used in zip(pairs, of_heads.used.tolist(), strict=True) if used]
    width = layout_of(model).width("attn_heads") // layout_of(model).n_heads
    single = [
        by_hand(model, pairs, layer, slice(head * width, (head + 1) * width), "self_attn.o_proj", frozen=False)
        for layer, head in heads
    ]
    paths = [
        by_hand(model, pairs, layer, slice(head * width, (head + 1) * width), "self_attn.o_proj", frozen=True)
        for layer, head in heads
    ]
    few = [
        by_hand(model, pairs, layer, slice(neuron, neuron + 1), "mlp.down_proj", frozen=False)
        for layer, neuron in neurons
    ]
    sender, receiver = heads[0], heads[1]
    by_input = [
        path_effects(model, tokenizer, lines, senders=[sender], receivers=[receiver], inputs=[name])
        for name in HEAD_INPUTS
    ]
    apart = max(
        furthest(effects.shift[0], inputs_by_hand(model, task_pairs(tokenizer, lines), sender, receiver, letter))
        for effects, letter in zip(by_input, "qkv", strict=True)
    )
    maps = [unit_effects(model, tokenizer, read_tasks()["agreement"][tag][:PAIRS]) for tag in ("es", "fr")]
    rho: Any = spearmanr(maps[0].effect.numpy(), maps[1].effect.numpy())
    ours = compare_effects(*maps, draws=19).correlation

    return [
        Witness(
            what="effects of 3 heads by plain transformers hooks, share of the difference",
            difference=furthest(of_heads.effect, single),
            bar=1e-4,
        ),
        Witness(
            what="effects of 2 neurons by plain transformers hooks, share of the difference",
            difference=furthest(of_neurons.effect, few),
            bar=1e-4,
        ),
        Witness(
            what="3 heads' paths to the logits, all other heads frozen by plain hooks, share of the difference",
            difference=furthest(of_paths.effect, paths),
            bar=1e-4,
        ),
        Witness(
            what="query, key and value of a receiving head each apart, by plain hooks on its projections, logits",
            difference=apart,
            bar=1e-4,
        ),
        Witness(
            what=f"scipy's Spearman correlation of {len(maps[0].units)} heads' effects in two languages",
            difference=abs(float(rho.statistic) - ours),
            bar=1e-9,
        ),
    ]


def planted() -> list[Planted]:
    """A random model in which one head moves anything between tokens, and one in which one neuron acts on it."""
    _, tokenizer = open_model("reference", device="cpu")
    lines = read_tasks()["agreement"]["en"]
    head, neuron = (1, 2), (2, 7)
    model = random_model(head, neuron=None)
    effects = unit_effects(model, tokenizer, lines)
    chosen = [unit for unit, value in zip(effects.units, effects.effect.abs().tolist(), strict=True) if value > 0.05]
    circuit = choose_circuit(model, tokenizer, lines, effects)
    acting = random_model(head, neuron=neuron)
    runs = PromptRuns.record(layout_of(acting), task_pairs(tokenizer, lines), "mlp_inner")
    candidates = [*dict.fromkeys([*attributed_units(runs, 5), *runs.units])]
    of_neurons = unit_effects(acting, tokenizer, lines, at="mlp_inner", units=candidates)
    active = [unit for unit, value in zip(candidates, of_neurons.effect.abs().tolist(), strict=True) if value > 1e-6]
    chained = random_model((0, 1), head, neuron=None)
    told = [
        name
        for name in HEAD_INPUTS
        if float(
            path_effects(chained, tokenizer, lines, senders=[(0, 1)], receivers=[head], inputs=[name]).shift.abs().max()
        )
        > 1e-3
    ]
    return [
        Planted(
            what="of the inputs of a head that looks at all tokens alike the value alone carries what another tells it",
            recall=float("value" in told),
            precision=told.count("value") / max(1, len(told)),
        ),
        scored("one head of 12, by its effect", head, chosen),
        scored("the circuit of one head", head, list(circuit.heads)),
        scored("one neuron of 144, by its effect", neuron, active),
    ]


def scored(what: str, truth: tuple[int, int], chosen: list) -> Planted:
    return Planted(what=what, recall=float(truth in chosen), precision=chosen.count(truth) / max(1, len(chosen)))


def random_model(*heads: tuple[int, int], neuron: tuple[int, int] | None) -> LlamaForCausalLM:
    """Three layers of four heads; all heads but some write nothing, all neurons but one, or all, write nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=10240, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
                num_key_value_heads=4, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            )
        ).eval()  # fmt: skip
    with torch.no_grad():
        model.lm_head.weight.mul_(50)
        for number, layer in enumerate(model.model.layers):
            layer.self_attn.q_proj.weight.zero_()  # it looks at all tokens alike
            columns = layer.self_attn.o_proj.weight.view(32, 4, 8)
            columns.mul_(50)
            columns[:, [at for at in range(4) if (number, at) not in heads]] = 0
            layer.mlp.down_proj.weight.mul_(50)
            layer.mlp.down_proj.weight[:, [at for at in range(48) if (number, at) != neuron]] = 0
    return model


def headlines(inputs: Inputs) -> list[Headline]:
    """Gemma 3 270M: heads shared by two languages of a task, beside heads shared by two tasks."""
    model, tokenizer = open_model(inputs.gemma, device="cpu", dtype="float32")
    tasks = read_tasks()

    def effects(task: str, tag: str):
        return unit_effects(model, tokenizer, tasks[task][tag][:PAIRS], controls=False)

    def later(tag: str) -> list[TaskLine]:
        return tasks["agreement"][tag][PAIRS : 2 * PAIRS]

    en, es = effects("agreement", "en"), effects("agreement", "es")
    ioi_en, ioi_zh = effects("indirect object", "en"), effects("indirect object", "zh")
    alike, ioi = (compare_effects(a, b, strongest=STRONGEST) for a, b in ((en, es), (ioi_en, ioi_zh)))
    tasks_apart = compare_effects(en, ioi_en, strongest=STRONGEST)
    circuit = choose_circuit(model, tokenizer, tasks["agreement"]["en"][:PAIRS], en)
    scores = [score_circuit(model, tokenizer, later(tag), circuit) for tag in ("en", "es")]
    heads = en.strongest(RECEIVED)
    received = unit_effects(model, tokenizer, later("es"), givers=later("en"), units=heads)
    own, null = float(received.effect[0]), float(received.share(received.null)[0])
    name = "Gemma 3 270M"
    first = heads[0]

    def shared(overlap) -> str:
        return (
            f"{overlap.shared} of {overlap.strongest} strongest heads, rank correlation {overlap.correlation:.2f} "
            f"(p {overlap.correlation_p:.3f})"
        )

    def control(overlap) -> str:
        return f"{overlap.expected:.1f} of {overlap.strongest} with heads permuted within layers"

    return [
        Headline(
            paper="circuits of number agreement in English and Spanish are highly consistent (Gemma 2B)",
            ours=shared(alike),
            control=f"{control(alike)}; agreement and indirect object in English {shared(tasks_apart)}",
            model=name,
            verdict="in shape" if alike.correlation_p <= 0.05 and alike.shared > alike.expected else "not",
        ),
        Headline(
            paper="the same head writes the number in both languages (Gemma 2B)",
            ours=f"head {first[0]}.{first[1]} of English put into Spanish runs carries {own:.2f}, in English "
            f"{float(en.effect.max()):.2f}",
            control=f"{null:.2f} from an English prompt of the patched number",
            model=name,
            verdict="in shape" if own > null and own > 0.1 else "not",
        ),
        Headline(
            paper="one circuit for indirect objects in English and Chinese (BLOOM 560M, arXiv:2410.09223)",
            ours=shared(ioi),
            control=control(ioi),
            model=name,
            verdict="in shape" if ioi.correlation_p <= 0.05 and ioi.shared > ioi.expected else "not",
        ),
        Headline(
            paper="26 of 144 heads have 87 % of the difference of indirect objects (GPT-2, arXiv:2211.00593)",
            ours=f"{len(circuit.heads)} of {len(en.units)} heads do agreement: faithfulness "
            f"{scores[0].faithfulness:.2f} [{scores[0].low:.2f}, {scores[0].high:.2f}] on other English pairs, "
            f"{scores[1].faithfulness:.2f} on Spanish; {scores[0].without:.2f} without them, incompleteness "
            f"{scores[0].incompleteness:.2f}",
            control=f"{sum(scores[0].control) / len(scores[0].control):.2f} with as many heads of the same layers, "
            f"p {scores[0].p:.2f}",
            model=name,
            verdict="in shape" if scores[0].faithfulness > 0.5 and scores[0].p <= 0.05 else "not",
        ),
        past_tense_headline(model, tokenizer, name),
        *route_headlines(model, tokenizer, name),
    ]
