"""Taking features out of the residual stream: the projection, and the table of harm."""

import dataclasses

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from feature_cases import TEXTS, made_sae, observe

from babelscope import layout_of, origin_of, read_site
from babelscope.ablation import ablated_features
from babelscope.ablation.ablated_features import (
    MATCHED,
    feature_ablation,
    features_removed,
    ratio_to_others,
    remove_span,
    span_of,
    specific,
)
from babelscope.errors import ArtifactError, SelectionError
from babelscope.features import select_langfir
from babelscope.languages import Language
from babelscope.report.dashboards import describing


def test_removing_a_span_leaves_nothing_of_any_row_and_is_idempotent():
    sae, rows = made_sae(), torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    features, zero = torch.tensor([3, 11, 30]), torch.zeros(32)
    span = span_of(sae, features)
    new = remove_span(rows, span, zero)
    assert (new @ sae.w_dec[features].T).abs().max() < 1e-4
    torch.testing.assert_close(remove_span(new, span, zero), new, rtol=0, atol=1e-5)
    # numpy's least squares finds the same part, whatever the order of the rows.
    weights = torch.linalg.lstsq(sae.w_dec[features].T.double(), rows.T.double()).solution
    expected = rows.double() - (sae.w_dec[features].T.double() @ weights).T
    torch.testing.assert_close(new.double(), expected, rtol=0, atol=1e-5)


def test_removing_about_a_centre_takes_the_span_to_the_centre():
    sae, rows = made_sae(), torch.randn(9, 32, generator=torch.Generator().manual_seed(0))
    span = span_of(sae, torch.tensor([1, 2]))
    new = remove_span(rows, span, sae.b_dec)
    torch.testing.assert_close(new @ span, (sae.b_dec @ span).expand(9, 2), rtol=0, atol=1e-5)
    within = rows - (rows @ span) @ span.T
    torch.testing.assert_close(remove_span(within, span, torch.zeros(32)), within, rtol=0, atol=1e-5)


def test_ablation_and_single_units_spare_the_first_token_of_a_tokenizer_without_bos(monkeypatch):
    """Both leave alone what `row_start` says; with BOS in front that is BOS, as before."""
    for module in (ablated_features, describing):
        assert module.row_start(tiny_tokenizer(bos=False)) == module.row_start(tiny_tokenizer()) == 1
    model, sae = tiny_model("llama"), made_sae(features=120)
    sets = select_langfir(observe(model, sae), tau=0.01, ratio=0.5, min_count=1, cap=3)
    spared = []
    removed = ablated_features.features_removed

    def watched(*args, **settings):
        spared.append(settings["spare_first"])
        return removed(*args, **settings)

    monkeypatch.setattr(ablated_features, "features_removed", watched)
    monkeypatch.setattr(ablated_features, "check_made_for", lambda *_: None)
    feature_ablation(model, tiny_tokenizer(bos=False), sae, sets, TEXTS)
    assert set(spared) == {1}


def test_parallel_features_count_once():
    sae = made_sae()
    sae.w_dec[7] = -2 * sae.w_dec[4]
    assert span_of(sae, torch.tensor([4, 7])).shape == (32, 1)


@pytest.mark.parametrize("spared", [1, 2])
def test_what_begins_a_text_is_spared_and_the_hook_is_gone_afterwards(ids, spared):
    model, sae = tiny_model("llama"), made_sae()
    layout, features = layout_of(model), torch.tensor([0, 5])
    before = read_site(model, ids, sae.site)
    with features_removed(layout, sae, features, spare_first=spared):
        during = read_site(model, ids, sae.site)
    assert torch.equal(during[:, :spared], before[:, :spared])
    left, along = ((value[:, spared:] @ sae.w_dec[features].T).abs() for value in (during, before))
    assert left.max() < 1e-3 < along.max()
    assert torch.equal(read_site(model, ids, sae.site), before)
    with features_removed(layout, sae, features[:0]):
        assert torch.equal(read_site(model, ids, sae.site), before)


@pytest.fixture(scope="module")
def study():
    model, sae = tiny_model("llama"), made_sae(features=120)
    observed = observe(model, sae)
    sets = select_langfir(observed, tau=0.01, ratio=0.5, min_count=1, cap=3)
    return model, sae, observed, sets


def test_the_table_holds_every_cell_and_matched_draws(study):
    model, sae, observed, sets = study
    tokenizer = tiny_tokenizer()
    table = feature_ablation(model, tokenizer, sae, sets, TEXTS, observed=observed, draws=4, resamples=50)
    assert table.relative_harm.shape == (2, 2) and sets.sizes == {"en": 3, "fi": 3}
    assert {tag: rows.shape for tag, rows in table.draws[MATCHED].items()} == {"en": (4, 5), "fi": (4, 4)}
    from babelscope.evaluation import HeldOut, document_losses

    held = HeldOut.prepare(tokenizer, TEXTS)[1]
    with features_removed(layout_of(model), sae, sets.features("en"), spare_first=1):
        nats = document_losses(model, held).nats
    expected = float((nats - table.base[1].nats).sum() / table.base[1].nats.sum())
    assert float(table.relative_harm[0, 1]) == pytest.approx(expected, abs=1e-12) and expected != 0
    harm, found = table.relative_harm, ratio_to_others(table)
    assert found["fi"].estimate == pytest.approx(float(harm[1, 1] / harm[1, 0].abs()), rel=1e-9)
    assert found["fi"].low <= found["fi"].high
    further = {"drawn by hand": {Language("en"): [torch.tensor([7]), torch.tensor([8, 9, 70])]}}
    again = feature_ablation(
        model, tokenizer, sae, sets, TEXTS, observed=observed, further=further, draws=4, resamples=50
    )
    with features_removed(layout_of(model), sae, torch.tensor([8, 9, 70]), spare_first=1):
        nats = document_losses(model, HeldOut.prepare(tokenizer, TEXTS)[0]).nats
    assert torch.equal(again.draws["drawn by hand"]["en"][1], nats - again.base[0].nats)
    assert torch.equal(again.draws[MATCHED]["fi"], table.draws[MATCHED]["fi"])
    assert set(specific(again, control="drawn by hand")) == {"en", "fi"}
    assert not specific(again, control="drawn by hand", times=0, p=1)["fi"], "no draw, nothing to say"
    assert set(specific(table)) == {"en", "fi"} and specific(table, languages=["fi"], times=0, p=1) == {
        "fi": float(harm[1, 1]) > 0
    }
    drawn = {MATCHED: {Language("en"): table.draws[MATCHED]["en"]}}
    without = dataclasses.replace(table, languages=(Language("en"), Language("de")), draws=drawn)
    assert set(specific(without)) == {"en"}, "no text of its own, no verdict"


def test_a_set_for_another_autoencoder_or_model_or_of_nothing_is_refused(study):
    model, sae, observed, sets = study
    tokenizer = tiny_tokenizer()
    with pytest.raises(ArtifactError, match="expected one autoencoder"):
        feature_ablation(model, tokenizer, made_sae(features=120, seed=1), sets, TEXTS)
    other = dataclasses.replace(sets, origin=origin_of(tiny_model("gpt2"), tokenizer))
    with pytest.raises(ArtifactError, match="made for"):
        feature_ablation(model, tokenizer, sae, other, TEXTS)
    with pytest.raises(SelectionError, match="every set is empty"):
        feature_ablation(model, tokenizer, sae, select_langfir(observed, min_count=10**6), TEXTS)
    table = feature_ablation(model, tokenizer, sae, sets["en"], TEXTS)
    assert table.draws == {} and table.languages == ("en",)
