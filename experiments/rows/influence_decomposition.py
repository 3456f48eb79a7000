"""Row of influence, its parts: layers and tokens against autograd, and passages whose words stand in another order."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import babelscope as bs
from babelscope.controls import percentile_interval
from babelscope.corpus import Corpus, Document, numbered
from babelscope.probes.influence import InfluenceReport, TextInfluence, influence_of_text
from babelscope.probes.influence.gradient_walk import GradientWalk
from babelscope.probes.influence.mlp_projections import MlpProjections
from babelscope.probes.influence.text_influence import Ranking, fitted_curvatures, tokens_of
from rows.result import Headline
from rows.training_text import REFERENCE

ASKED, LENGTH = 3, 48


def second_half(document: Document) -> Document:
    """The second half of a passage after the first one as its prompt."""
    middle = len(document.text) // 2
    return document._replace(text=document.text[middle:], prompt=document.text[:middle])


def plain_nats(model: Any, tokenizer: Any, document: Document) -> torch.Tensor:
    """ln P(text | prompt) by transformers' own forward pass, over the tokens that begin in the text."""
    prompt = document.prompt or ""
    encoded = tokenizer(prompt + document.text, return_offsets_mapping=True, return_tensors="pt")
    ids, starts = encoded.input_ids[:, :LENGTH], encoded.offset_mapping[0, :LENGTH]
    logs = torch.log_softmax(model(ids).logits[0, :-1].double(), dim=-1)
    # What begins a text has no letters: both ends of its place are equal.
    counts = (starts[1:, 0] >= len(prompt)) & (starts[1:, 1] > starts[1:, 0])
    return logs.gather(1, ids[0, 1:, None])[:, 0][counts].sum()


def gradients_by_token(
    model: Any, tokenizer: Any, document: Document, layers: Sequence[int]
) -> dict[str, torch.Tensor]:
    """∇ ln P of a text in the MLPs' weights of some layers, each token multiplied by its own copy of them."""
    copies, handles = dict[str, torch.Tensor](), []
    tokens = len(tokenizer((document.prompt or "") + document.text).input_ids[:LENGTH])
    for name, module in model.named_modules():
        short = name.removeprefix("model.layers.")
        if isinstance(module, torch.nn.Linear) and ".mlp." in name and int(short.partition(".")[0]) in layers:
            weight = module.weight.detach().expand(tokens, -1, -1).clone().requires_grad_()
            copies[short] = weight

            def multiply(_: Any, inputs: tuple, __: Any, weight: torch.Tensor = weight) -> torch.Tensor:
                return torch.einsum("toi,bti->bto", weight, inputs[0])

            handles.append(module.register_forward_hook(multiply))
    parts = torch.autograd.grad(plain_nats(model, tokenizer, document), list(copies.values()))
    for handle in handles:
        handle.remove()
    return dict(zip(copies, parts, strict=True))


def plain_parts(model: Any, tokenizer: Any, text: Corpus) -> dict[str, float]:
    """Largest relative differences of the parts of two layers, and of each token, from autograd's own."""
    few, layers = Corpus({tag: documents[:2] for tag, documents in text.items()}, "few"), (2, 5)
    asked = Corpus({tag: tuple(map(second_half, few[tag][:1])) for tag in few}, "asked")
    influence = influence_of_text(
        model, tokenizer, asked, few, layers=layers, max_length=LENGTH, with_tokens=len(few) * 2
    )
    steps = GradientWalk(MlpProjections.of(bs.layout_of(model), layers), 0, tqdm(disable=True))
    curvatures = fitted_curvatures(steps, numbered(tokens_of(tokenizer, few, LENGTH)), seed=0)
    of_query = gradients_by_token(model, tokenizer, influence.queries[0].document, layers)
    solved = {
        name: curvatures[name].solve(part.sum(dim=0)[None], damping=0.1)[0].double() for name, part in of_query.items()
    }
    by_layer, by_token = list[float](), list[float]()
    for place, passage in enumerate(influence.passages[:3]):
        gradients = gradients_by_token(model, tokenizer, passage.document, layers)
        parts = {name: (gradients[name].double() * solved[name]).sum(dim=(1, 2)) for name in solved}
        for number, layer in enumerate(layers):
            expected = sum(float(part.sum()) for name, part in parts.items() if name.startswith(f"{layer}."))
            by_layer.append(abs(influence.by_layer[number, 0, place] / expected - 1))
        tokens = np.array([part.part for part in influence.tokens[0, place]])
        summed = torch.stack([*parts.values()]).sum(dim=0).numpy()
        by_token.append(float(np.abs(tokens - summed).max() / np.abs(summed).max()))
    return {"layers": max(by_layer), "tokens": max(by_token)}


CARRIED = 96
"""Tokens of a passage whose second part is the one that is asked about."""


def in_three_orders(text: Corpus) -> Corpus:
    """Half of another passage before each passage that is asked about, whose words stand in three orders.

    As they are; the completion before its prompt; every word from the last to the first. The other passages follow.
    """
    orders: dict[bs.Language, tuple[Document, ...]] = {}
    for tag, documents in text.items():
        rows = list[Document]()
        for number, source in enumerate(documents[:ASKED]):
            carrier, halves = documents[ASKED + number].text, second_half(source)
            before = f"{carrier[: len(carrier) // 2]} "
            rows += [
                Document(f"{order} {source.id}", before + words)
                for order, words in (
                    ("in order", source.text),
                    ("completion first", f"{halves.text} {halves.prompt}"),
                    ("words flipped", " ".join(source.text.split()[::-1])),
                )
            ]
        orders[tag] = (*rows, *documents[2 * ASKED :])
    return Corpus(orders, "in three orders")


def strongest_inside(tokenizer: Any, influence: TextInfluence) -> list[bool]:
    """Whether the strongest token of each query's first passage reads the completion, or what stands right before it.

    The first passage is that with the words in order, or the answer is no.
    """
    answers = list[bool]()
    for row, (query, (first, *_)) in enumerate(zip(influence.queries, influence.order(), strict=True)):
        passage = influence.passages[first]
        start = len(passage.text) - len(query.document.text)
        ends = [end for _, end in tokenizer(passage.text, return_offsets_mapping=True)["offset_mapping"]]
        strongest = int(np.argmax([part.part for part in influence.tokens[row, int(first)]]))
        answers.append(passage.document.id == f"in order {query.document.id}" and ends[strongest] >= start)
    return answers


def against_order(influence: TextInfluence, order: str, ranking: Ranking) -> float:
    """Median over queries: score of the passage in another order, as a share of that with the words in order."""
    places = {(part.language, part.document.id): place for place, part in enumerate(influence.passages)}
    ratios = [
        influence.scores[ranking][row, places[query.language, f"{order} {query.document.id}"]]
        / influence.scores[ranking][row, places[query.language, f"in order {query.document.id}"]]
        for row, query in enumerate(influence.queries)
    ]
    return float(np.median(ratios))


def order_headline(orders: TextInfluence) -> Headline:
    """What is left of a passage's influence where its completion stands before its prompt."""
    ratio, words = (
        {order: against_order(orders, order, ranking) for order in ("completion first", "words flipped")}
        for ranking in ("influence", "TF-IDF")
    )
    return Headline(
        paper="a passage whose completion stands before its prompt has nearly no influence",
        ours=f"of the influence of the passage in order: completion first {ratio['completion first']:.2f}, words "
        f"flipped {ratio['words flipped']:.2f} (medians of {len(orders.queries)} queries)",
        control=f"by TF-IDF of the same words {words['completion first']:.2f} and {words['words flipped']:.2f}",
        model=REFERENCE,
        verdict="in shape" if ratio["completion first"] < 0.5 < words["completion first"] else "not",
    )


def layer_headline(report: InfluenceReport) -> Headline:
    """In which layers the influence of a query's own language is, and that of others."""
    own, others = report.profiles
    middle = slice(len(own.layers) // 4, -(len(own.layers) // 4))
    shares = [profile.shares[:, middle].sum(axis=1) for profile in report.profiles]
    difference = shares[1] - shares[0]
    rng = np.random.default_rng(0)
    low, high = percentile_interval(
        difference[rng.integers(len(difference), size=(1000, len(difference)))].mean(axis=1)
    )
    random = [profile.random[:, middle].sum(axis=1).mean() for profile in report.profiles]
    every = np.concatenate([own.shares, others.shares]).mean(axis=0)
    *_, depth = report.layer_rows()
    return Headline(
        paper="influence is spread over all layers on average; middle layers hold what is more abstract",
        ours=f"the least and the most of {len(every)} layers have {every.min():.2f} and {every.max():.2f} of it; the "
        f"middle half has {shares[0].mean():.2f} of passages in the query's language and {shares[1].mean():.2f} of "
        f"those in others, {difference.mean():+.3f} ({low:+.3f} to {high:+.3f}); their mean layer is "
        f"{depth.estimate:+.2f} deeper (p {depth.p:.3f})",
        control=f"passages drawn at random {random[0]:.2f} and {random[1]:.2f}",
        model=REFERENCE,
        verdict="in shape" if low > 0 else "not",
    )
