"""Row of circuits: information-flow routes by plain transformers and numpy, a planted route, and Gemma's languages."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from babelscope import layout_of, open_model
from babelscope.controls.intervals import ratio_interval
from babelscope.probes import compare_routes, head_routes, read_tasks, trace_routes
from babelscope.probes.circuits.information_routes import THRESHOLD, Route
from babelscope.probes.circuits.route_overlap import HeadRoutes
from babelscope.probes.circuits.task_prompts import task_pairs
from babelscope.reference import MODEL
from rows.past_tense import INFLECTED, chinese_lines
from rows.result import Headline, Planted, Witness

Edge = tuple[int, str, str, int | None, int, int]
"""Layer, sum, part, head, source, destination."""
CHOSEN_ON, CHOSEN = 5, 5
"""Lines that heads of the past tense are chosen on, and how many; the other lines measure them."""
BOS, FACT, ASKS, END, ELSEWHERE, ANSWER = 1, 3, 4, 5, 6, 7
FILLERS = range(8, 16)


def edges_of(route: Route) -> dict[Edge, float]:
    """Importance by edge."""
    return {edge[:6]: edge.importance for edge in route.edges}


@torch.no_grad()
def routes_by_hand(model: Any, ids: Sequence[int], threshold: float) -> tuple[dict[Edge, float], float]:
    """Edges of a route, and how far terms are off their sums, by plain hooks and numpy; Llama, Qwen 2 and Gemma 3.

    model: opened with eager attention, which alone gives its weights.
    """
    values, layers = dict[tuple[int, str], np.ndarray](), model.model.layers
    watched = ["self_attn.v_proj", "self_attn", "mlp"]
    after = {"self_attn": "post_attention_layernorm", "mlp": "post_feedforward_layernorm"}
    normed = hasattr(layers[0], after["mlp"])
    watched += list(after.values()) if normed else []

    def watch(key: tuple[int, str]) -> Any:
        def hook(_: Any, __: Any, output: Any) -> None:
            values[key] = (output[0] if isinstance(output, tuple) else output)[0].double().numpy()

        return hook

    handles = [
        layer.get_submodule(name).register_forward_hook(watch((number, name)))
        for number, layer in enumerate(layers)
        for name in watched
    ]
    handles += [
        layer.register_forward_pre_hook(lambda _, x, n=n: watch((n, "in"))(None, None, x[0]), with_kwargs=False)
        for n, layer in enumerate(layers)
    ]
    attentions = model(torch.tensor([list(ids)]), output_attentions=True).attentions
    for handle in handles:
        handle.remove()

    apart, tokens, heads = 0.0, len(ids), model.config.num_attention_heads
    added = {name: after[name] if normed else name for name in after}
    terms = dict[int, np.ndarray]()
    for number, layer in enumerate(layers):
        part, pattern = layer.self_attn, attentions[number][0].double().numpy()
        value = values[number, "self_attn.v_proj"].reshape(tokens, -1, part.head_dim)
        weight = part.o_proj.weight.double().numpy().reshape(-1, heads, part.head_dim)
        groups, scale = heads // value.shape[1], np.ones((tokens, 1))
        out = values[number, "self_attn"]
        if normed:
            norm = layer.get_submodule(after["self_attn"])
            root = np.sqrt((out**2).mean(axis=1, keepdims=True) + norm.eps)
            scale = (1 + norm.weight.double().numpy()) / root
        by_head = [
            pattern[head][:, :, None] * (value[:, head // groups] @ weight[:, head].T)[None] for head in range(heads)
        ]
        terms[number] = np.stack(by_head, axis=1) * scale[:, None, None]  # [to, head, from, hidden]
        total = terms[number].sum(axis=(1, 2))
        apart = max(apart, float(np.abs(total - values[number, added["self_attn"]]).max()))

    def importances(parts: list[np.ndarray]) -> list[float]:
        y = np.sum(parts, axis=0)
        near = [max(0.0, float(np.abs(y).sum() - np.abs(y - z).sum())) for z in parts]
        return [value / sum(near) for value in near]

    edges, seen = dict[Edge, float](), set[tuple[int, int]]()

    def go_back(number: int, place: int) -> None:
        if number < 0 or (number, place) in seen:
            return
        seen.add((number, place))
        before, middle = (
            values[number, "in"][place],
            values[number, "in"][place] + terms[number][place].sum(axis=(0, 1)),
        )
        for name, value in zip(
            ("stream", "mlp"), importances([middle, values[number, added["mlp"]][place]]), strict=True
        ):
            if value >= threshold and value > 0:
                edges[number, "resid_out", name, None, place, place] = value
        spots = [(head, source) for head in range(heads) for source in range(place + 1)]
        stream, *shares = importances([before, *(terms[number][place, head, source] for head, source in spots)])
        if stream >= threshold and stream > 0:
            edges[number, "resid_mid", "stream", None, place, place] = stream
            go_back(number - 1, place)
        for (head, source), value in zip(spots, shares, strict=True):
            if value >= threshold and value > 0:
                edges[number, "resid_mid", "head", head, source, place] = value
                go_back(number - 1, source)

    go_back(len(layers) - 1, tokens - 1)
    return edges, apart


def furthest_edge(route: Route, by_hand: dict[Edge, float]) -> float:
    """The largest difference of importance; an edge that one has not counts with its importance."""
    ours = edges_of(route)
    return max(abs(ours.get(edge, 0.0) - by_hand.get(edge, 0.0)) for edge in {*ours, *by_hand})


def route_witnesses() -> list[Witness]:
    """Routes of the bundled model on three prompts."""
    model, tokenizer = open_model("reference", device="cpu", dtype="float32")
    plain: Any = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="eager")
    prompts = [pair.clean.ids for pair in task_pairs(tokenizer, read_tasks()["past tense"]["de"][:3])]
    edges, apart, count = 0.0, 0.0, 0
    for threshold in (0.0, THRESHOLD):
        for route, prompt in zip(trace_routes(layout_of(model), prompts, threshold), prompts, strict=True):
            by_hand, off = routes_by_hand(plain.eval(), prompt, threshold)
            edges, apart, count = max(edges, furthest_edge(route, by_hand)), max(apart, off), count + len(by_hand)
    return [
        Witness(
            what="heads × source tokens added up in numpy beside plain transformers' attention output",
            difference=apart,
            bar=1e-4,
        ),
        Witness(
            what=f"importance of {count} edges of routes by plain transformers' hooks and numpy, recursively",
            difference=edges,
            bar=1e-4,
        ),
    ]


def route_model() -> LlamaForCausalLM:
    """Two layers by hand: where ASKS stands, head 0.1 brings the FACT; where END stands, head 1.2 brings it from there.

    Beside the route: head 0.3 brings the FACT to ELSEWHERE, from where no head reads; head 1.0 looks from END at the
    FACT, and writes nothing. All other queries find BOS, whose value is 0. Dimensions: one per token, then what is
    brought; of a head: 0 what it carries, 2 and 3 what queries and keys meet in, which rotary positions hardly turn.
    """
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16, hidden_size=32, intermediate_size=8, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, max_position_embeddings=64, tie_word_embeddings=False,
            rope_parameters={"rope_type": "default", "rope_theta": 1e8},
            pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )
    ).eval()  # fmt: skip
    sharp, brought, answered, lost = 3.0, 16, 17, 18

    def head_reads(layer: int, head: int, asks: int, at: int, carries: int, into: int | None) -> None:
        """From `asks` to the token `at`, whose dimension `carries` is written to `into`."""
        part, shared = model.model.layers[layer].self_attn, head // 2
        query, key, value = (part.get_submodule(f"{name}_proj").weight for name in "qkv")
        query[head * 8 + 3, asks] = sharp
        query[head * 8 + 2, asks] = 0.0
        key[shared * 8 + 3, at] = sharp
        value[shared * 8, carries] = 1.0
        if into is not None:
            part.o_proj.weight[into, head * 8] = 1.0

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        model.model.embed_tokens.weight[range(16), range(16)] = 1.0
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight[[2, 10, 18, 26], :16] = sharp
            layer.self_attn.k_proj.weight[[2, 10], BOS] = sharp
        head_reads(0, 1, ASKS, FACT, FACT, brought)
        head_reads(0, 3, ELSEWHERE, FACT, FACT, lost)
        head_reads(1, 2, END, ASKS, brought, answered)
        head_reads(1, 0, END, FACT, FACT, None)
        model.lm_head.weight[ANSWER, answered] = 1.0
    return model


def route_prompts(count: int = 5, seed: int = 0) -> list[tuple[list[int], set[tuple[int, int, int, int]]]]:
    """Prompts in which the tokens stand elsewhere each time, and the edges of the heads: layer, head, from, to."""
    rng, prompts = np.random.default_rng(seed), []
    for _ in range(count):
        middle = [int(token) for token in rng.choice(list(FILLERS), size=4)]
        places = sorted(rng.choice(len(middle) + 1, size=3, replace=False).tolist(), reverse=True)
        for place, token in zip(places, (ELSEWHERE, ASKS, FACT), strict=True):
            middle.insert(place, token)
        ids = [BOS, *middle, END]
        fact, asks = ids.index(FACT), ids.index(ASKS)
        prompts.append((ids, {(0, 1, fact, asks), (1, 2, asks, len(ids) - 1)}))
    return prompts


def planted_route() -> Planted:
    """The heads' edges of two steps, each prompt's own."""
    prompts = route_prompts()
    routes = trace_routes(layout_of(route_model()), [ids for ids, _ in prompts])
    truths = {(number, *edge) for number, (_, edges) in enumerate(prompts) for edge in edges}
    named = {
        (number, edge.layer, edge.head, edge.source, edge.destination)
        for number, route in enumerate(routes)
        for edge in route.edges
        if edge.part == "head"
    }
    return Planted(
        what=f"a route of two heads through {len(prompts)} prompts, by edges of importance {THRESHOLD} or more, beside "
        "a head that writes where nothing reads and one that looks and writes nothing",
        recall=len(truths & named) / len(truths),
        precision=len(truths & named) / max(1, len(named)),
    )


def route_headlines(model: Any, tokenizer: Any, name: str) -> list[Headline]:
    """Routes of languages that form the answer alike, and of the past tense in one that does not inflect."""
    tasks = read_tasks()

    def routes(lines: Any) -> HeadRoutes:
        return head_routes(model, tokenizer, lines)

    past = {tag: routes(lines) for tag, lines in {**tasks["past tense"], "zh": chinese_lines()}.items()}
    pairs = [
        [routes(tasks[task][tag]) for tag in tags]
        for task, tags in (("agreement", ("en", "es")), ("indirect object", ("en", "zh")))
    ]
    alike = [compare_routes(first, second) for first, second in pairs]
    across = compare_routes(pairs[0][0], pairs[1][0])
    return [
        Headline(
            paper="one circuit for a syntactic process in several languages (BLOOM 560M, arXiv:2410.09223; by path "
            "patching), here by information-flow routes",
            ours="; ".join(
                f"{part.task}, {' and '.join(part.languages)}: heads share {part.overlap:.2f} [{part.low:.2f}, "
                f"{part.high:.2f}] of the importance, {part.excess:+.3f} [{part.excess_low:+.3f}, "
                f"{part.excess_high:+.3f}] more than with words in random order (p {part.excess_p:.3f})"
                for part in alike
            ),
            control="; ".join(
                f"{part.scrambled:.2f} with words in random order, {part.permuted:.2f} with heads "
                f"permuted within layers (p {part.permuted_p:.3f})"
                for part in alike
            )
            + f"; agreement and indirect object in English {across.overlap:.2f}",
            model=name,
            verdict="in shape" if all(part.excess_low > 0 and part.permuted_p <= 0.05 for part in alike) else "not",
        ),
        past_tense_routes(past, name),
    ]


def past_tense_routes(past: dict[str, HeadRoutes], name: str) -> Headline:
    """Heads that have most more of the English routes than of the Chinese ones, measured on other lines.

    Of each line the prompt that the past continues.
    """
    early, later = (
        {tag: routes.share[part, 0].numpy() for tag, routes in past.items()}
        for part in (slice(CHOSEN_ON), slice(CHOSEN_ON, None))
    )
    chosen = np.argsort((early["zh"] - early["en"]).mean(axis=0), kind="stable")[:CHOSEN]
    sums = {tag: values[:, chosen].sum(axis=1) for tag, values in later.items()}
    random_order = float(past["en"].null[CHOSEN_ON:, 0].numpy()[:, chosen].sum(axis=1).mean())
    difference = sums["en"] - sums["zh"]
    low, high = ratio_interval(difference, np.ones(len(difference)))
    inflected = float(np.mean([sums[tag].mean() for tag in INFLECTED if tag != "en"]))
    frequency = {tag: (past[tag].share[:, 0] > 0).double().mean(dim=0).numpy() for tag in ("en", "zh")}
    in_two = int(((frequency["en"] >= 0.9) & (frequency["zh"] >= 0.9)).sum())
    english_only = int(((frequency["en"] >= 0.9) & (frequency["zh"] <= 0.1)).sum())
    chinese = compare_routes(past["en"], past["zh"])
    others = [compare_routes(past["en"], past[tag]).overlap for tag in INFLECTED if tag != "en"]
    heads = ", ".join(f"{layer}.{head}" for layer, head in (past["en"].heads[place] for place in chosen))
    middle = float(sums["en"].mean() + sums["zh"].mean()) / 2
    return Headline(
        paper="on routes of the past tense a copy head is as often in English as in Chinese, a past-tense head in "
        "English alone (Qwen2 0.5B, arXiv:2410.09223)",
        ours=f"{in_two} of {len(past['en'].heads)} heads are on nine of ten routes in both languages, "
        f"{english_only} in English and on at most one of ten in Chinese; {CHOSEN} heads chosen by English less "
        f"Chinese ({heads}) have on other lines {sums['en'].mean():.3f} of the importance in English and "
        f"{sums['zh'].mean():.3f} in Chinese (difference {difference.mean():+.3f} [{low:+.3f}, {high:+.3f}]), "
        f"{inflected:.3f} in de, es and fr; overlap with English: Chinese {chinese.overlap:.2f}, de, es and fr "
        f"{np.mean(others):.2f}",
        control=f"the same heads {random_order:.3f} in English words in random order; overlap of Chinese with those "
        f"{chinese.scrambled:.2f}, with heads permuted within layers {chinese.permuted:.2f}",
        model=name,
        # The heads must be of the tense: more in English than in Chinese and in its words at random, as in de, es, fr.
        verdict="in shape"
        if in_two and english_only and low > 0 and sums["en"].mean() > random_order and inflected > middle
        else "not",
    )
