"""Information-flow routes: every term and edge against plain transformers and numpy, a route by hand, and controls."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from circuit_cases import EN, FI
from conftest import CONFIGS, tiny_model, tiny_tokenizer

from babelscope.errors import SelectionError, SiteError
from babelscope.models import layout_of
from babelscope.models.attention import AttentionInputs
from babelscope.probes.circuits.information_routes import (
    PROMPTS_A_PASS,
    BlockTerms,
    RouteEdge,
    block_terms,
    importance_of,
    norm_scale,
    trace_routes,
)
from babelscope.probes.circuits.route_overlap import compare_routes, head_routes, scrambled
from babelscope.probes.circuits.task_prompts import RolePrompt

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
from rows.information_routes import (  # noqa: E402
    ANSWER,
    FACT,
    edges_of,
    furthest_edge,
    planted_route,
    route_model,
    route_prompts,
    routes_by_hand,
)

PROMPTS = [[1, *range(20 + at, 20 + 3 * at, 2), 7, 9] for at in (4, 9)]


def with_biases(model):
    """Random biases, which begin at 0."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def narrow(family, monkeypatch):
    """A random model whose windows are of four tokens, where the family has some."""
    config = copy.deepcopy(CONFIGS[family])
    if family == "gemma3_text":
        config.sliding_window = 4
        assert "sliding_attention" in config.layer_types
    monkeypatch.setitem(CONFIGS, family, config)
    return with_biases(tiny_model(family, dtype=torch.float64))


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text"])  # biases; norms, windows and a norm after
def test_terms_and_edges_equal_plain_transformers_and_numpy(family, monkeypatch):
    model = narrow(family, monkeypatch)
    if family == "gemma3_text":
        with torch.no_grad():  # a norm whose weight is 0 is one number for all coordinates
            for layer in model.model.layers:
                layer.post_attention_layernorm.weight.copy_(torch.linspace(-0.5, 0.5, 32))
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("eager")
    for threshold in (0.0, 0.02):
        for route, ids in zip(trace_routes(layout_of(model), PROMPTS, threshold), PROMPTS, strict=True):
            by_hand, apart = routes_by_hand(plain, ids, threshold)
            # Gemma's norms compute in float32, also in a wider model.
            assert apart < 1e-5 and furthest_edge(route, by_hand) < 1e-5
            assert route.tokens == len(ids) and len(by_hand) == len(edges_of(route)) > 20


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gemma2", "mixtral", "opt"])
def test_the_terms_of_a_block_are_what_it_adds_in_every_kind_of_block(family):
    model = with_biases(tiny_model(family))
    layout, ids = layout_of(model), PROMPTS[1]
    with torch.no_grad():
        stream = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    (blocks,) = block_terms(layout, [ids])
    for block, after in zip(blocks[:-1], stream[1:-1], strict=True):  # the last one is normed
        for place in (0, len(ids) - 1):
            into, names, terms = next(iter(block.steps(place)))
            assert into == "resid_out" and isinstance(block, BlockTerms) and len(names) == len(terms)
            total, expected = terms.sum(dim=0), after[0, place].double()
            assert (total - expected).norm() < 1e-5 * expected.norm()
            parts = {part for _, steps, _ in block.steps(place) for part, _, _ in steps}
            assert parts == {"stream", "head", "bias", "mlp"}


def test_a_prompt_has_the_same_route_alone_and_in_a_batch_and_the_model_is_left_alone():
    layout = layout_of(tiny_model("llama"))
    before = layout.model(torch.tensor([PROMPTS[0]])).logits
    prompts = [*PROMPTS * PROMPTS_A_PASS]
    together, single = trace_routes(layout, prompts), [trace_routes(layout, [ids])[0] for ids in PROMPTS]
    for route, expected in zip(together, single * PROMPTS_A_PASS, strict=True):
        assert furthest_edge(route, edges_of(expected)) < 1e-5
    assert torch.equal(layout.model(torch.tensor([PROMPTS[0]])).logits, before)


def test_importance_by_hand():
    # y = (3, -1), ‖y‖₁ = 4: without the first 0 + 1, without the second 3 + 2, without the third 3 + 0.
    terms = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, -2.0]])
    near = [4 - 1, 0, 4 - (3 + 1)]
    assert importance_of(terms).tolist() == pytest.approx([value / sum(near) for value in near])
    assert importance_of(torch.zeros(2, 3)).tolist() == [0.0, 0.0]


def test_a_route_by_hand_is_found_and_nothing_beside_it():
    planted = planted_route()
    assert planted.recall == planted.precision == 1 and planted.holds
    model, prompts = route_model(), route_prompts()
    assert len({tuple(sorted(edges)) for _, edges in prompts}) > 1
    for ids, _ in prompts:  # the route carries the answer
        without = [token if token != FACT else 9 for token in ids]
        with torch.no_grad():
            logits = [float(model(torch.tensor([part])).logits[0, -1, ANSWER]) for part in (ids, without)]
        assert logits[0] > 1 > 1e-3 > abs(logits[1])


def test_shares_of_heads_are_of_the_importance_on_the_route_and_two_languages_are_compared_line_by_line():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    english, finnish = (head_routes(model, tokenizer, lines, threshold=0.02) for lines in (EN, FI))
    (route,) = trace_routes(layout_of(model), [[1, *tokenizer("the cat is", add_special_tokens=False).input_ids]], 0.02)
    by_head = {}
    for edge in route.edges:
        assert isinstance(edge, RouteEdge) and edge.importance >= 0.02
        if edge.part == "head":
            by_head[edge.layer, edge.head] = by_head.get((edge.layer, edge.head), 0) + edge.importance
    expected = [by_head.get(head, 0) / sum(by_head.values()) for head in english.heads]
    assert english.share[0, 0].tolist() == pytest.approx(expected, abs=1e-5)
    assert torch.allclose(english.share.sum(dim=2), torch.ones(6, 2, dtype=torch.float64))
    assert english.frequency.tolist() == (english.share > 0).double().mean(dim=(0, 1)).tolist()
    overlap = compare_routes(english, finnish, draws=99)
    one, two, one_null, two_null = (
        part.mean(dim=1).numpy() for part in (english.share, finnish.share, english.null, finnish.null)
    )
    assert overlap.overlap == pytest.approx(np.mean([sum(map(min, a, b)) for a, b in zip(one, two, strict=True)]))
    null = np.mean([(sum(map(min, one[i], two_null[i])) + sum(map(min, one_null[i], two[i]))) / 2 for i in range(6)])
    assert overlap.scrambled == pytest.approx(null) and overlap.excess == pytest.approx(overlap.overlap - null)
    assert overlap.low < overlap.overlap < overlap.high and overlap.excess_low < overlap.excess < overlap.excess_high
    same = compare_routes(english, english, draws=99)
    assert same.overlap == pytest.approx(1.0) and same.permuted < 1 and same.permuted_p <= 0.05
    rows = [*english.rows(), *overlap.rows()]
    assert len(rows) == 12 + 2 and all(row.low <= row.estimate <= row.high and row.n == 6 for row in rows)
    assert all(0 < row.p <= 1 and np.isfinite(row.null) for row in rows)


def test_scrambled_words_are_the_same_words_between_what_begins_and_the_last_one():
    prompt = RolePrompt((1, 5, 6, 7, 8, 9), ("", "a", "a", "b", "b", "b"))
    tokens = scrambled(prompt, np.random.default_rng(0))
    assert tokens[0] == 1 and tokens[-1] == 9 and sorted(tokens) == sorted(prompt.ids) and tokens != list(prompt.ids)


def test_what_is_no_sum_of_heads_or_no_route_is_one_line(monkeypatch):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    layout = layout_of(model)
    with pytest.raises(SelectionError, match=r"from 0 to 0\.5"):
        trace_routes(layout, PROMPTS, 0.7)
    with pytest.raises(SelectionError, match="the same; trace both alike"):
        compare_routes(head_routes(model, tokenizer, EN), head_routes(model, tokenizer, EN[:4]))
    with pytest.raises(SiteError, match="attention"):
        trace_routes(layout_of(tiny_model("bloom")), PROMPTS)
    blind = AttentionInputs._replace
    monkeypatch.setattr(AttentionInputs, "_replace", lambda self, **parts: blind(self, **parts, scale=9.0))
    with pytest.raises(SiteError, match="add up to something") as raised:
        trace_routes(layout, PROMPTS)
    assert "\n" not in str(raised.value)
    layer_norm = torch.nn.LayerNorm(8)
    vectors = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(norm_scale(layer_norm, vectors) * vectors, layer_norm(vectors), atol=0.1)
    norm = torch.nn.RMSNorm(8, eps=1e-6)
    assert torch.allclose(norm_scale(norm, vectors) * vectors, norm(vectors), atol=1e-5)
