"""Influence of training text: the curvature against dense inverses, gradients against autograd, planted duplicates."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from torch import nn
from tqdm import tqdm

from babelscope.cli import main
from babelscope.cli.influencing import influence_lines, run_influence
from babelscope.corpus import Document, TokenDocument, as_corpus, load_corpus
from babelscope.corpus.documents import LineNumber
from babelscope.errors import CorpusError, MeasurementError, PrerequisiteError
from babelscope.figures.influence_map import influence_map
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.probes.influence import (
    InfluenceReport,
    KroneckerCurvature,
    LinearRecord,
    TextInfluence,
    influence_of_text,
    read_queries,
    text_influence,
)
from babelscope.probes.influence.gradient_walk import GradientWalk
from babelscope.probes.influence.influence_parts import products_with
from babelscope.probes.influence.influence_queries import flip_words
from babelscope.probes.influence.influence_report import strongest_tokens
from babelscope.probes.influence.layer_profiles import SIDES, LayerProfile, layer_profiles, layer_rows, profile_lines
from babelscope.probes.influence.mlp_projections import MlpProjections
from babelscope.probes.influence.passage_rankings import bm25, tfidf_cosines
from babelscope.probes.influence.text_influence import LabelledText, TokenPart

LINES = {
    "en": ["the cat sat on the mat", "a dog ran to the park", "rain fell all night long", "we read an old book"],
    "fi": ["kissa istui matolla", "koira juoksi puistoon", "yöllä satoi vettä", "luimme vanhaa kirjaa"],
    "de": ["die Katze sitzt hier", "der Hund lief weg", "nachts fiel Regen", "wir lasen ein Buch"],
}


def corpus(lines=LINES):
    return as_corpus({tag: [Document(str(i), line) for i, line in enumerate(part)] for tag, part in lines.items()})


def query(tag="fi", prompt="koira juoksi", completion=" puistoon", number="1"):
    return as_corpus({tag: [Document(number, completion, prompt=prompt)]})


def two_layers(activation, inputs, seed=0):
    """Records of y = W2 a(W1 x + b) at both layers for every input and every unit residual, and the exact gradients."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), activation, nn.Linear(5, 3, bias=False)).double()
    records, gradients = {0: [], 2: []}, {0: [], 2: []}
    for x in inputs:
        for residual in 3**0.5 * torch.eye(3, dtype=torch.float64):
            hidden = model[0](x)
            inner = activation(hidden)
            total = residual @ model[2](inner)
            of_hidden = torch.autograd.grad(total, hidden, retain_graph=True)[0]
            weights = torch.autograd.grad(total, [model[0].weight, model[0].bias, model[2].weight])
            gradients[0].append(torch.cat([weights[0], weights[1][:, None]], dim=1))
            gradients[2].append(weights[2])
            records[0].append(LinearRecord(torch.cat([x, torch.ones(1).double()])[None, None], of_hidden[None, None]))
            records[2].append(LinearRecord(inner.detach()[None, None], residual[None, None]))
    return records, {name: torch.stack(part) for name, part in gradients.items()}


def curvature_of(records):
    curvature = KroneckerCurvature()
    for record in records:
        curvature.add_moments(record)
    curvature.decompose()
    for record in records:
        curvature.add_squares(record, 1)
    return curvature


@pytest.mark.parametrize("activation, n", [(nn.Identity(), 7), (nn.Tanh(), 1)])
@pytest.mark.parametrize("layer", [0, 2])
def test_on_a_two_layer_mlp_it_is_the_exact_inverse_of_the_gauss_newton_matrix(activation, n, layer):
    inputs = torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    records, gradients = two_layers(activation, inputs)
    flat = gradients[layer].flatten(1).numpy()
    dense = flat.T @ flat / len(flat)
    shift = 0.1 * np.trace(dense) / len(dense)
    expected = np.linalg.solve(dense + shift * np.eye(len(dense)), flat.T).T
    solved = curvature_of(records[layer]).solve(gradients[layer], damping=0.1).flatten(1).numpy()
    np.testing.assert_allclose(solved, expected, atol=1e-10 * np.abs(expected).max())


def test_where_the_curvature_is_no_kronecker_product_its_diagonal_in_the_eigenbasis_is_exact():
    inputs = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    records, gradients = two_layers(nn.Tanh(), inputs)
    curvature = curvature_of(records[0])
    basis = np.kron(curvature.outputs.numpy(), curvature.inputs.numpy())
    flat = gradients[0].flatten(1).numpy()
    dense = flat.T @ flat / len(flat)
    eigenvalues = np.diag(basis.T @ dense @ basis)
    expected = flat @ basis / (eigenvalues + 0.1 * eigenvalues.mean()) @ basis.T
    solved = curvature.solve(gradients[0], damping=0.1).flatten(1).numpy()
    np.testing.assert_allclose(solved, expected, atol=1e-10 * np.abs(expected).max())
    exact = np.linalg.solve(dense + 0.1 * eigenvalues.mean() * np.eye(len(dense)), flat.T).T
    assert np.abs(solved - exact).max() > 1e-3 * np.abs(exact).max()  # the case is not the exact one


def mlp_gradient(model, tokenizer, prompt, text):
    """∇ ln P(text | prompt) over the weights of the MLPs, by autograd on the weights themselves."""
    before = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False).input_ids] if prompt else [1]
    ids = torch.tensor([[1, *tokenizer(prompt + text, add_special_tokens=False).input_ids]])
    logs = model(ids).logits[0, :-1].log_softmax(-1)
    total = logs.gather(1, ids[0, 1:, None])[len(before) - 1 :].sum()
    weights = [value for name, value in model.named_parameters() if is_mlp(name)]
    return torch.cat([part.flatten() for part in torch.autograd.grad(total, weights)]).double().numpy()


def is_mlp(name):
    return any(word in name for word in ("mlp.", "fc1", "fc2")) and "norm" not in name


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "phi3", "gpt_neox", "bloom", "opt"])
def test_products_of_gradients_are_those_of_autograd_and_the_model_stays_as_it_was(family):
    model, tokenizer = tiny_model(family, dtype=torch.float64).requires_grad_(False), tiny_tokenizer()
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    texts = corpus({tag: LINES[tag][:2] for tag in ("en", "fi")})
    scores = influence_of_text(model, tokenizer, query(), texts, max_length=64).scores
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(value.requires_grad or value.grad is not None for value in model.parameters())
    model.requires_grad_(True)
    asked = mlp_gradient(model, tokenizer, "koira juoksi", " puistoon")
    expected = [asked @ mlp_gradient(model, tokenizer, "", line) for tag in ("en", "fi") for line in LINES[tag][:2]]
    np.testing.assert_allclose(scores["gradient"][0], expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())


def test_the_influence_is_that_of_numpy_on_the_gradients_of_autograd_with_the_same_draws():
    model, tokenizer = tiny_model("llama", dtype=torch.float64), tiny_tokenizer()
    lines = ["the cat sat", "a dog ran..", "kissa istui"]
    ids = torch.tensor([[1, *tokenizer(line, add_special_tokens=False).input_ids] for line in lines])
    weights = [model.get_parameter(f"model.layers.1.mlp.{name}_proj.weight") for name in ("gate", "up", "down")]

    def gradients(row, targets, start=0):
        logs = model(row[None]).logits[0, :-1].log_softmax(-1)
        total = logs.gather(1, targets[:, None])[start:].sum()
        return [part.numpy() for part in torch.autograd.grad(total, weights)]

    with torch.no_grad():
        chances = model(ids).logits[:, :-1].softmax(-1).flatten(0, 1)
    drawn = torch.multinomial(chances, 1, generator=torch.Generator().manual_seed(5)).reshape(3, -1)
    texts = as_corpus({"en": [Document(str(i), line) for i, line in enumerate(lines)]})
    asked = query(prompt="koira", completion=" juoksi")
    row = torch.tensor([1, *tokenizer("koira juoksi", add_special_tokens=False).input_ids])
    of_query = gradients(row, row[1:], len(tokenizer("koira", add_special_tokens=False).input_ids))
    of_passages, of_draws = ([gradients(a, b) for a, b in zip(ids, c, strict=True)] for c in (ids[:, 1:], drawn))
    influence = influence_of_text(model, tokenizer, asked, texts, layers=[1], seed=5)
    expected, curvatures = np.zeros(3), fitted(model, tokenizer, texts)
    for k, curvature in enumerate(curvatures.values()):
        left, right = curvature.outputs.numpy(), curvature.inputs.numpy()
        squares = sum((left.T @ part[k] @ right) ** 2 for part in of_draws) / drawn.numel()
        solved = left @ (left.T @ of_query[k] @ right / (squares + 0.1 * squares.mean())) @ right.T
        expected += [(solved * part[k]).sum() for part in of_passages]
    np.testing.assert_allclose(influence.scores["influence"][0], expected, rtol=1e-8)
    assert influence.predicted == drawn.numel()


def fitted(model, tokenizer, texts, layers=(1,)):
    """The eigenbasis, whose definition the tests on two layers hold."""
    layout = layout_of(model)
    steps = GradientWalk(MlpProjections.of(layout, layers), 0, tqdm(disable=True))
    return text_influence.fitted_curvatures(steps, text_influence.tokens_of(tokenizer, texts, 64), seed=5)


def gradients_by_token(model, ids, start=0):
    """∇ ln P of a text in the MLPs' weights, each token with a copy of its own: plain hooks and autograd."""
    copies, handles = {}, []
    for name, module in model.named_modules():
        if name.endswith(("gate_proj", "up_proj", "down_proj")):
            weight = module.weight.detach().expand(len(ids), -1, -1).clone().requires_grad_()
            copies[name.removeprefix("model.layers.")] = weight
            handles.append(
                module.register_forward_hook(
                    lambda _, args, __, weight=weight: torch.einsum("toi,bti->bto", weight, args[0])
                )
            )
    logs = model(ids[None]).logits[0, :-1].log_softmax(-1)
    total = logs.gather(1, ids[1:, None])[start:].sum()
    parts = torch.autograd.grad(total, list(copies.values()))
    for handle in handles:
        handle.remove()
    return dict(zip(copies, (part.numpy() for part in parts), strict=True))


def test_parts_of_layers_and_tokens_are_those_of_autograd_with_weights_of_their_own_for_each_token():
    model, tokenizer = tiny_model("llama", dtype=torch.float64), tiny_tokenizer()
    lines = ["the cat sat", "a dog ran to", "kissa istui matolla"]
    texts = as_corpus({"en": [Document(str(i), line) for i, line in enumerate(lines)]})
    asked = query(prompt="koira", completion=" juoksi")
    influence = influence_of_text(model, tokenizer, asked, texts, layers=[0, 2], seed=5, with_tokens=2)
    curvatures = fitted(model, tokenizer, texts, [0, 2])
    whole = [*lines, "koira juoksi"]
    ids = [torch.tensor([1, *tokenizer(line, add_special_tokens=False).input_ids]) for line in whole]
    before = len(tokenizer("koira", add_special_tokens=False).input_ids)
    of_query = {name: part.sum(axis=0) for name, part in gradients_by_token(model, ids[-1], before).items()}
    solved = {
        name: curvature.solve(torch.from_numpy(of_query[name])[None], damping=0.1)[0].numpy()
        for name, curvature in curvatures.items()
    }
    for place, row in enumerate(ids[:-1]):
        gradients = gradients_by_token(model, row)
        by_token = {name: (gradients[name] * solved[name]).sum(axis=(1, 2)) for name in solved}
        for k, layer in enumerate(influence.layers):
            expected = sum(part.sum() for name, part in by_token.items() if name.startswith(f"{layer}."))
            assert influence.by_layer[k, 0, place] == pytest.approx(expected, rel=1e-8)
        if place in influence.order()[0, :2]:
            parts = influence.tokens[0, place]
            np.testing.assert_allclose([part for _, part in parts], sum(by_token.values()), rtol=1e-7, atol=1e-9)
            assert parts[-1].part == 0  # after the last token nothing is predicted
            assert [text for text, _ in parts] == [tokenizer.decode([token]) for token in row]
    assert influence.layers == (0, 2) and set(influence.tokens) == {(0, at) for at in influence.order()[0, :2]}


def test_parts_of_layers_and_tokens_sum_to_the_influence(monkeypatch):
    model, tokenizer = tiny_model("gpt2", dtype=torch.float64), tiny_tokenizer()  # its maps have biases
    documents = [Document(str(i), line[4:], prompt=line[:4]) for i, line in enumerate(LINES["en"])]
    monkeypatch.setattr(text_influence, "QUERY_BYTES", 1)
    influence = influence_of_text(model, tokenizer, as_corpus({"en": documents}), corpus(), with_tokens=3)
    scores = influence.scores["influence"]
    np.testing.assert_allclose(influence.by_layer.sum(axis=0), scores, rtol=1e-10)
    assert set(influence.tokens) == {(q, m) for q, row in enumerate(influence.order()[:, :3]) for m in row}
    for place, parts in influence.tokens.items():
        assert sum(part for _, part in parts) == pytest.approx(scores[place], rel=1e-9)


def test_products_of_solved_gradients_are_those_of_numpy():
    generator = torch.Generator().manual_seed(0)
    x, delta = torch.randn(2, 3, 4, generator=generator).double(), torch.randn(2, 3, 5, generator=generator).double()
    solved = torch.randn(6, 5, 4, generator=generator).double()
    expected = np.einsum("qoi,bto,bti->qb", solved.numpy(), delta.numpy(), x.numpy())
    np.testing.assert_allclose(products_with(solved, LinearRecord(x, delta)), expected, rtol=1e-12)


def test_the_flipped_ranking_is_the_influence_on_the_query_with_its_words_the_other_way_round():
    model, tokenizer = tiny_model("llama", dtype=torch.float64), tiny_tokenizer()
    asked = query(prompt="koira juoksi", completion=" puistoon eilen")
    by_hand = query(prompt="juoksi koira", completion=" eilen puistoon")
    assert flip_words(asked)["fi"][0] == by_hand["fi"][0]
    chinese = query("zh", prompt="我们 ", completion="去北京")
    assert flip_words(chinese)["zh"][0][1:] == ("京北去", None, "们我 ")
    scores = influence_of_text(model, tokenizer, asked, corpus()).scores
    turned = influence_of_text(model, tokenizer, by_hand, corpus()).scores
    np.testing.assert_allclose(scores["flipped"], turned["influence"], rtol=1e-9)
    np.testing.assert_allclose(scores["influence"], turned["flipped"], rtol=1e-9)


def test_profiles_of_layers_by_hand():
    by_layer = np.zeros((2, 2, 6))
    by_layer[0, :, :3], by_layer[1, :, :3] = -3, 1  # other languages: three quarters in layer 4
    by_layer[1, :, 3:] = [[2, 2, 0], [2, 2, 2]]  # their own: all in layer 5, and one passage without influence
    influence = replace(hand_made(), by_layer=by_layer)
    mine, others = layer_profiles(influence, 2, seed=0)
    assert (mine.side, others.side) == SIDES and mine.shares.tolist() == [[0, 1], [0, 1]]
    assert others.shares.tolist() == [[0.75, 0.25]] * 2 and others.depth.tolist() == [4.25, 4.25]
    assert mine.random[1].tolist() == [0, 1] and 0.5 < mine.random[0, 1] < 0.8  # 2 of 3 passages, one of them empty
    rows = list(layer_rows([mine, others], resamples=99, seed=0))
    assert [(row.site, row.estimate) for row in rows[:4]] == [
        ("4.mlp", 0), ("5.mlp", 1), ("4.mlp", 0.75), ("5.mlp", 0.25)
    ]  # fmt: skip
    assert rows[4].estimate == -0.75 and rows[4].p > 0.4  # of two queries half of all signs reach it
    lines = list(profile_lines([mine, others]))
    assert [line["share"] for line in lines] == [0, 1, 0.75, 0.25] and lines[0]["query"] == "fi"
    figure = InfluenceReport(influence, top=2).layer_figure()
    assert figure.data[0].z.tolist() == [[0, 100], [75, 25]]
    assert "random passages" in figure.data[0].hovertext[0][0]
    first = replace(influence, passages=influence.passages[3:], by_layer=by_layer[:, :, 3:],
                    scores={"influence": influence.scores["influence"][:, 3:]})  # fmt: skip
    assert [profile.side for profile in layer_profiles(first, 2, seed=0)] == [SIDES[0]]


def test_where_layers_are_the_same_on_both_sides_a_difference_is_found_seldom():
    rng, small = np.random.default_rng(0), 0
    shares = rng.dirichlet(np.ones(3), size=(200, 2, 12))
    for own, others in shares:
        profiles = [
            LayerProfile(side, tuple(range(12)), (Language("fi"),) * 12, (0, 1, 2), values, values)
            for side, values in zip(SIDES, (own, others), strict=True)
        ]
        small += list(layer_rows(profiles, 19, 0))[-1].p <= 0.05
    assert small <= 10 + 2 * 3.1


def test_the_strongest_tokens_are_in_percent_of_those_that_raise_it():
    parts = [TokenPart("a", 3.0), TokenPart("b", -9.0), TokenPart("c", 1.0)]
    assert strongest_tokens(parts) == [["a", 0.75], ["c", 0.25]]


def test_a_planted_duplicate_ranks_first_by_influence_and_so_does_the_ranking_by_shared_tokens():
    model, tokenizer = tiny_model("gemma3_text"), tiny_tokenizer()
    asked = as_corpus({tag: [Document("x", f" {line[6:]}", prompt=line[:5])] for tag, (line, *_) in LINES.items()})
    planted = {tag: [*lines[1:], f"{lines[0][:5]} {lines[0][6:]}"] for tag, lines in LINES.items()}
    influence = influence_of_text(model, tokenizer, asked, corpus(planted))
    for ranking in ("influence", "TF-IDF", "BM25"):
        first = [influence.passages[row[0]] for row in influence.order(ranking)]
        assert [(part.language, part.document.id) for part in first] == [(tag, "3") for tag in LINES], ranking
    assert influence.predicted == influence.scores["length"][0].sum()


def test_groups_of_queries_and_their_order_change_nothing(monkeypatch):
    model, tokenizer = tiny_model("qwen2", dtype=torch.float64), tiny_tokenizer()
    documents = [Document(str(i), line[4:], prompt=line[:4]) for i, line in enumerate(LINES["en"])]
    together = influence_of_text(model, tokenizer, as_corpus({"en": documents}), corpus())
    monkeypatch.setattr(text_influence, "QUERY_BYTES", 1)
    alone = influence_of_text(model, tokenizer, as_corpus({"en": documents[::-1]}), corpus())
    for ranking, scores in together.scores.items():
        np.testing.assert_allclose(scores, alone.scores[ranking][::-1], rtol=1e-9, atol=1e-9 * np.abs(scores).max())


def test_bm25_and_tfidf_by_hand():
    passages = [tokens(1, 2, 2), tokens(3), tokens(2, 4)]
    lengths, n, present = np.array([3, 1, 2]), 3, 2
    often = np.array([2, 0, 1])
    idf = np.log(1 + (n - present + 0.5) / (present + 0.5))
    expected = idf * often * 2.5 / (often + 1.5 * (0.25 + 0.75 * lengths / 2))
    np.testing.assert_allclose(bm25([tokens(2)], passages), [expected])
    weights = {token: np.log(4 / (1 + count)) + 1 for token, count in {1: 1, 2: 2, 3: 1, 4: 1}.items()}
    last = np.array([weights[2], weights[4]])
    expected = weights[2] / np.linalg.norm(last)
    np.testing.assert_allclose(tfidf_cosines([tokens(2)], passages)[0, 2], expected)


def tokens(*ids):
    return TokenDocument(language=0, id="", tokens=ids, counted=(True,) * len(ids), truncated=0, n_bytes=1)


@pytest.mark.parametrize(
    "family, change, error, word",
    [
        ("llama", {"damping": 0.0}, MeasurementError, "damping 0.0"),
        ("llama", {"layers": [7]}, PrerequisiteError, "layer 7"),
        ("mixtral", {}, PrerequisiteError, "experts"),
        ("llama", {"max_length": 3}, CorpusError, "fi '1'"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(family, change, error, word):
    with pytest.raises(error, match=word) as raised:
        influence_of_text(tiny_model(family), tiny_tokenizer(), query(), corpus(), **change)
    assert "\n" not in str(raised.value)


def test_queries_are_read_from_lines_with_language_prompt_and_completion(tmp_path):
    rows = [
        {"language": "fi", "prompt": "Suomen pääkaupunki on", "completion": " Helsinki", "id": 4},
        {"language": "en", "completion": "The capital of Finland is Helsinki"},
    ]
    file = tmp_path / "queries.jsonl"
    file.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    queries = read_queries(file)
    assert queries["fi"][0] == Document("4", " Helsinki", prompt="Suomen pääkaupunki on")
    assert queries["en"][0].prompt == "" and queries["en"][0].text == rows[1]["completion"]


@pytest.mark.parametrize(
    "text, word",
    [
        ("", "no query"),
        ('{"language": "fi"}', "line 1: language came"),
        ('{"language": "fi", "completion": " "}', "words in the completion"),
        ('{"language": "not a tag", "completion": "a"}', "line 1"),
        ('{"language": "fi", "completion": "a", "id": [1]}', "id"),
        ('{"language": "fi", "completion": "a", "id": 1}\n{"language": "fi", "completion": "b", "id": "1"}', "line 2"),
        ("[1]", "list came"),
        ("no json", "line 1"),
    ],
)
def test_a_file_that_holds_no_queries_is_refused_in_one_line(tmp_path, text, word):
    file = tmp_path / "queries.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError, match=word) as raised:
        read_queries(file)
    assert "\n" not in str(raised.value)


def hand_made():
    """Two queries and six passages in two languages, with scores that say which passage says the same."""
    passages = [LabelledText(Language(tag), Document(str(i), f"{tag} {i}")) for tag in ("en", "fi") for i in range(3)]
    queries = [LabelledText(Language("fi"), Document(str(i), "asked")) for i in range(2)]
    influence = np.array([[9.0, 1, 2, 8, 7, 0], [3, 2, 1, 9, 10, 8]])
    rankings = ("influence", "gradient", "TF-IDF", "BM25", "vectors", "length")
    scores = {name: influence if name == "influence" else -influence for name in rankings}
    by_layer = np.stack([influence / 4, 3 * influence / 4])
    return TextInfluence(tuple(queries), tuple(passages), scores, 60, (4, 5), by_layer)


def test_shares_and_parallel_hits_of_a_table_made_by_hand():
    report = InfluenceReport(hand_made(), top=2, draws=199)
    english, finnish = report.share_rows()
    assert (english.estimate, finnish.estimate, finnish.against) == (0.25, 0.75, "fi")
    assert finnish.null == pytest.approx(0.5, abs=0.05) and (finnish.low, finnish.high) == (0.5, 1.0)
    assert 0.15 < finnish.p < 0.45  # both of one query's and one or two of the other's, by chance
    by_hand = {"en": [0, 1], "fi": [0, 0]}
    for row in report.parallel_rows():
        ranks = by_hand[row.against]
        assert row.estimate == np.mean([rank == 0 for rank in ranks]) and row.null == pytest.approx(1 / 3)
        assert f"mean rank {1 + np.mean(ranks):.1f} of 3" in row.note
    assert next(iter(report.parallel_rows())).p == pytest.approx(1 - (2 / 3) ** 2)


def test_a_ranking_that_knows_nothing_has_no_hit_and_prefers_no_language():
    influence = hand_made()
    # One token in common with one passage, or cut at the same length: all else is equal.
    influence.scores["TF-IDF"] = np.array([[0.0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]])
    influence.scores["length"] = np.full((2, 6), 127.0)
    report = InfluenceReport(influence, top=2, draws=9)
    english, finnish = (Language(tag) for tag in ("en", "fi"))
    assert report.shares(english, "length").tolist() == report.shares(finnish, "length").tolist() == [0.5, 0.5]
    # Besides the passage that leads, one of five, of which three are English.
    assert report.shares(english, "TF-IDF").tolist() == pytest.approx([3 / 5 / 2, 0.5])
    assert report.parallel_ranks(finnish, english, "TF-IDF")[0] == [2, 2]
    assert report.parallel_ranks(finnish, finnish, "TF-IDF")[0] == [2, 2]
    assert all("length 0.000" in row.note for row in report.parallel_rows())


def test_where_languages_mean_nothing_shares_are_found_seldom():
    rng, small = np.random.default_rng(0), 0
    for seed in range(100):
        influence = replace(hand_made(), scores={"influence": rng.random((2, 6))})
        small += next(InfluenceReport(influence, top=2, draws=99, seed=seed).share_rows()).p <= 0.1
    assert small <= 10 + 2 * 3


def test_line_numbers_say_nothing_about_the_same_content():
    influence = hand_made()
    queries = tuple(part._replace(document=part.document._replace(id=LineNumber(0))) for part in influence.queries)
    assert not list(InfluenceReport(replace(influence, queries=queries), top=2).parallel_rows())


def test_the_most_influential_passages_are_not_all_of_them():
    with pytest.raises(MeasurementError, match="the 6 most influential of 6"):
        InfluenceReport(hand_made(), top=6)


def test_the_map_shows_shares_coloured_by_their_distance_from_the_base():
    figure = influence_map(
        shares=np.array([[0.25, 0.75]]), base=np.array([0.5, 0.5]), queries=["fi"], passages=["en", "fi"], top=2
    )
    np.testing.assert_allclose(figure.data[0].z, [[-25, 25]])
    assert figure.data[0].text.tolist() == [["25", "75"]] and figure.layout.coloraxis.cmax == 25


def test_the_command_writes_rows_scores_and_a_map(tmp_path, capsys):
    queries = tmp_path / "queries.jsonl"
    source = load_corpus("reference", ["fi"], split="train")["fi"][0]
    row = {"language": "fi", "prompt": source.text[:20], "completion": source.text[20:], "id": str(source.id)}
    queries.write_text(json.dumps(row), encoding="utf-8")
    out = tmp_path / "influence"
    words = f"influence reference reference --queries {queries} --out {out} --languages fi en --passages 3 --top 2"
    assert main([*words.split(), "--layers", "3", "--draws", "19", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["top"][0]["passage"] == ["fi", str(source.id)] and result["passages"] == 6
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row.get("against") for row in rows[:4]] == ["fi", "en", "fi", "en"] and rows[2]["estimate"] == 1
    assert [row["site"] for row in rows[4:]] == ["3.mlp", "3.mlp", ""] and rows[4]["estimate"] == 1
    scores = [json.loads(line) for line in (out / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(scores) == 6 and "flipped" in scores[0] and "tokens" not in scores[0]
    first, second = (json.loads(line) for line in (out / "top.jsonl").read_text(encoding="utf-8").splitlines())
    for line in (first, second):
        assert sum(part for _, part in line["tokens"]) == pytest.approx(line["influence"], rel=1e-3)
    assert len((out / "layers.jsonl").read_text().splitlines()) == 2
    assert (out / "influence.html").is_file() and (out / "layers.html").is_file()
    head, names, own, *lines, best, tokens = influence_lines(result, 2, out)
    assert head.startswith("completions: 1; passages: 6, of ") and names.split()[:2] == ["asked", "in"]
    assert own.split()[:4] == ["fi", "fi", f"{100 * result['shares'][0]['share']:.0f}", "%"]
    parallel = (
        "asked in fi, passages in fi: 100 % of the parallel passages come first in their language (33 % by chance)"
    )
    assert parallel in lines
    assert best.startswith(f"most influential for fi {source.id}: fi {source.id}, {source.text[:20]}")
    assert lines[-1].startswith("mean layer of their influence: passages in its own language 3.00")
    assert repr(result["top"][0]["tokens"][0][0]) in tokens and len(result["top"][0]["tokens"]) == 5


def test_too_many_passages_at_the_top_are_refused_before_the_model_is_opened(tmp_path, monkeypatch):
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"language": "fi", "completion": "kissa"}', encoding="utf-8")
    monkeypatch.setattr("babelscope.models.open_model", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(MeasurementError, match="the 3 most influential of 3"):
        run_influence(
            "reference", "reference", queries=queries, out=tmp_path / "o", languages=("fi",), passages=3, top=3
        )
