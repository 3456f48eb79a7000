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
from babelscope.probes.influence.mlp_projections import MlpProjections
from babelscope.probes.influence.passage_rankings import bm25, tfidf_cosines
from babelscope.probes.influence.text_influence import LabelledText

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


def fitted(model, tokenizer, texts):
    """The eigenbasis, whose definition the tests on two layers hold."""
    layout = layout_of(model)
    steps = text_influence.GradientWalk(MlpProjections.of(layout, [1]), 0, tqdm(disable=True))
    return text_influence.fitted_curvatures(steps, text_influence.tokens_of(tokenizer, texts, 64), seed=5)


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
    return TextInfluence(tuple(queries), tuple(passages), scores, 60)


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
    first = load_corpus("reference", ["fi"], split="train")["fi"][0]
    row = {"language": "fi", "prompt": first.text[:20], "completion": first.text[20:], "id": str(first.id)}
    queries.write_text(json.dumps(row), encoding="utf-8")
    out = tmp_path / "influence"
    words = f"influence reference reference --queries {queries} --out {out} --languages fi en --passages 3 --top 2"
    assert main([*words.split(), "--layers", "3", "--draws", "19", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["top"][0]["passage"] == ["fi", str(first.id)] and result["passages"] == 6
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["against"] for row in rows] == ["fi", "en", "fi", "en"] and rows[2]["estimate"] == 1
    assert len((out / "scores.jsonl").read_text().splitlines()) == 6
    assert len((out / "top.jsonl").read_text().splitlines()) == 2 and (out / "influence.html").is_file()
    head, names, own, *lines, best = influence_lines(result, 2, out)
    assert head.startswith("completions: 1; passages: 6, of ") and names.split()[:2] == ["asked", "in"]
    assert own.split()[:4] == ["fi", "fi", f"{100 * result['shares'][0]['share']:.0f}", "%"]
    parallel = (
        "asked in fi, passages in fi: 100 % of the parallel passages come first in their language (33 % by chance)"
    )
    assert parallel in lines
    assert best.startswith(f"most influential for fi {first.id}: fi {first.id}, {first.text[:20]}")


def test_too_many_passages_at_the_top_are_refused_before_the_model_is_opened(tmp_path, monkeypatch):
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"language": "fi", "completion": "kissa"}', encoding="utf-8")
    monkeypatch.setattr("babelscope.models.open_model", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(MeasurementError, match="the 3 most influential of 3"):
        run_influence(
            "reference", "reference", queries=queries, out=tmp_path / "o", languages=("fi",), passages=3, top=3
        )
