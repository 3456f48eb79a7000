"""Source-shielded updates: what the source text uses stays bit for bit, by the published rule in plain transformers."""

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from training_cases import OTHERS, material

from babelscope import layout_of
from babelscope.adaptation import SourceShield, adapt
from babelscope.corpus import special_ids
from babelscope.errors import ArtifactError, CorpusError, LanguageError, PrerequisiteError, SelectionError, SiteError
from babelscope.evaluation import HeldOut
from babelscope.recording.linear_inputs import linear_maps, mean_squares

SETTINGS = {"steps": 3, "learning_rate": 3e-3, "tokens_per_step": 128}


def by_hand(model, tokenizer, source, share):
    """Columns that stay, one document at a time, by torch's own hooks and numpy."""
    inputs, names = {}, {id(p): name for name, p in model.named_parameters()}
    special = special_ids(tokenizer)
    handles = []
    for module in model.modules():
        if type(module).__name__ in ("Linear", "Conv1D") and module is not model.get_output_embeddings():
            name = names[id(module.weight)]
            handles.append(
                module.register_forward_pre_hook(
                    lambda _, args, name=name: inputs.setdefault(name, []).append(args[0].double().numpy())
                )
            )
    rows = {}
    with torch.no_grad():
        for text in [text for texts in source.values() for text in texts]:
            ids = tokenizer(text)["input_ids"]
            counted = np.array([token not in special for token in ids])
            inputs.clear()
            model.eval()(torch.tensor([ids]))
            for name, (value,) in inputs.items():
                rows.setdefault(name, []).append(value.reshape(len(ids), -1)[counted])
    for handle in handles:
        handle.remove()
    stays = {}
    for module in model.modules():
        if type(module).__name__ in ("Linear", "Conv1D") and module is not model.get_output_embeddings():
            name = names[id(module.weight)]
            weight = module.weight.detach().double().numpy()
            weight = weight if type(module).__name__ == "Linear" else weight.T
            score = np.sqrt((weight**2).sum(axis=0)) * (np.concatenate(rows[name]) ** 2).mean(axis=0)
            order = np.argsort(-score, kind="stable")
            stays[name] = sorted(order[: int(len(score) * share)].tolist())
    return stays


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "opt"])
def test_the_columns_are_those_of_the_published_rule(family):
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    shield = SourceShield.of(model, tokenizer, OTHERS, share=0.4, tokens=10_000)
    expected = by_hand(model, tokenizer, OTHERS, 0.4)
    assert {name: stays.nonzero()[:, 0].tolist() for name, stays in shield.columns.items()} == expected
    assert set(expected) == set(linear_maps(layout_of(model)))
    assert shield.facts()["languages"] == list(OTHERS)


def test_padded_batches_give_what_single_documents_give():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    documents = [document for part in HeldOut.prepare(tokenizer, OTHERS) for document in part.documents]
    together = mean_squares(layout_of(model), documents)
    single = [mean_squares(layout_of(model), [document]) for document in documents]
    weights = np.array([document.n_counted for document in documents], dtype=float)
    for name, value in together.items():
        by_one = np.einsum("d,di->i", weights / weights.sum(), np.stack([one[name].numpy() for one in single]))
        np.testing.assert_allclose(value.numpy(), by_one, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_shielded_stays_bit_for_bit_and_the_rest_moves(family):
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shield = SourceShield.of(model, tokenizer, OTHERS, share=0.5)
    result = adapt(material(model), "ssu", shield=shield, **SETTINGS)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    live, moved = dict(model.named_parameters()), {name: value.clone() for name, value in model.named_parameters()}
    with result.delta.applied(model):
        moved = {name: live[name].detach() != value for name, value in moved.items()}
    for name, stays in shield.columns.items():
        by_column = moved[name] if family == "llama" else moved[name].T
        assert not by_column[:, stays].any() and by_column[:, ~stays].any(dim=0).all(), name
    tables = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    special = sorted(special_ids(tokenizer))
    for name, value in live.items():
        if id(value) in tables:
            assert not moved[name][special].any() and moved[name].any()
        elif value.ndim == 1:
            assert not moved[name].any(), name
    assert result.trained == sum(int(mask.sum()) for mask in shield.masks(layout_of(model)).values())
    assert result.delta.parameters["shield"] == shield.facts()


def test_a_column_that_the_source_alone_uses_stays():
    """Planted: the first input of every up projection is large on the source's text and nothing else is."""
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    maps = linear_maps(layout_of(model))
    with torch.no_grad():
        for name, module in maps.items():
            if "up_proj" in name:
                module.weight[:, 0] *= 1e4
    columns = SourceShield.of(model, tokenizer, OTHERS, share=1 / 32).columns
    width = {name: len(stays) for name, stays in columns.items()}
    found = {name: columns[name].nonzero()[:, 0].tolist() for name in columns if "up_proj" in name}
    assert set(map(tuple, found.values())) == {(0,)} and len(found) == layout_of(model).n_layers
    assert all(int(stays.sum()) == int(width[name] / 32) for name, stays in columns.items())


def test_a_shield_of_nothing_trains_all_but_vectors():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    shield = SourceShield.of(model, tokenizer, OTHERS, share=0.0)
    matrices = {name for name, value in model.named_parameters() if value.ndim > 1}
    masks = shield.masks(layout_of(model))
    assert set(masks) == matrices
    tables = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    live = dict(model.named_parameters())
    assert all(mask.all() for name, mask in masks.items() if id(live[name]) not in tables)


def test_what_does_not_fit_is_refused():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    shield = SourceShield.of(model, tokenizer, OTHERS)
    with pytest.raises(PrerequisiteError, match="method 'ssu' came without a SourceShield"):
        adapt(material(model), "ssu", **SETTINGS)
    with pytest.raises(PrerequisiteError, match="method 'full' came with a SourceShield"):
        adapt(material(model), "full", shield=shield, **SETTINGS)
    with pytest.raises(SelectionError, match="expected a share of 0 to 1"):
        SourceShield.of(model, tokenizer, OTHERS, share=1.5)
    with pytest.raises(CorpusError, match="no"):
        SourceShield.of(model, tokenizer, {"en": []})
    with pytest.raises(LanguageError, match="expected"):
        SourceShield.of(model, tokenizer, {})
    with pytest.raises(ArtifactError, match="made on this model"):
        shield.masks(layout_of(tiny_model("gpt2")))
    with pytest.raises(SiteError, match="mixture of experts"):
        SourceShield.of(tiny_model("mixtral"), tokenizer, OTHERS)
