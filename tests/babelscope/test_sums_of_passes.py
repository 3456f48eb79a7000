"""Sums over text by hand: vectors of documents, streams, features, saved counts, and the rows of evidence."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from feature_cases import made_sae, planted

from babelscope import Site, load_corpus, observe
from babelscope.artifacts.hub import strings_of
from babelscope.artifacts.possible_sums import check_range, check_squares
from babelscope.controls import BootstrapSets, Interval, Stability
from babelscope.controls.selection_evidence import check_draws, selection_rows
from babelscope.corpus.batches import make_batch, numbered
from babelscope.corpus.tokens import TokenDocument
from babelscope.errors import ArtifactError, CorpusError, MeasurementError, SelectionError
from babelscope.features.feature_scores import FeatureCounts
from babelscope.features.feature_sums import FeatureSums
from babelscope.features.rules.lape_features import LapeFeatures
from babelscope.features.rules.monolinguality import Monolingual
from babelscope.features.units import Stored, check_tensors, check_types, plain_form, sae_settings
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.recording.pass_plan import PassPlan
from babelscope.recording.pass_settings import PassSettings
from babelscope.recording.stream_sums import StreamTally
from babelscope.recording.tally import Tally
from babelscope.recording.vectors import DocumentVectors, mean_weights
from babelscope.recording.watchers import SiteValue
from babelscope.study.texts import check_shards

SITE = Site(1, "resid_out")


def document(name, tokens, counted, language=0):
    return TokenDocument(language, name, tuple(tokens), tuple(counted), 0, 0)


@pytest.fixture
def batch():
    """Two documents of three and two tokens; the first token of each does not count."""
    return make_batch([document("a", [1, 5, 6], [False, True, True]), document("b", [1, 7], [False, True])], pad=0)


@pytest.fixture
def value(batch):
    x = torch.arange(18, dtype=torch.float32).reshape(2, 3, 3) - 8
    return SiteValue(x, x, None, batch.counted)


def test_rows_of_a_site_are_its_counted_tokens(value):
    assert value.rows().tolist() == value.value[value.counted].tolist()


def test_weights_of_a_mean_are_equal_over_counted_tokens(batch):
    assert mean_weights(batch.counted).tolist() == [[0.0, 0.5, 0.5], [0.0, 1.0, 0.0]]


def test_a_documents_vector_is_the_weighted_sum_of_its_tokens(batch, value):
    last = {"last": lambda counted: (counted.cumsum(1) == counted.sum(1, keepdim=True)).double() * counted}
    vectors = DocumentVectors.empty((SITE,), {"mean": mean_weights, **last}, 3, 3, torch.float64)
    places = make_batch(numbered(batch.documents[::-1]), pad=0)
    vectors.add(places, {SITE: {name: rows.flip(0) for name, rows in vectors.pool(batch, value).items()}})
    pooled = {name: rows[0] for name, rows in vectors.vectors.items()}
    x = value.value.double()
    assert pooled["mean"][:2].tolist() == [x[1, 1].tolist(), ((x[0, 1] + x[0, 2]) / 2).tolist()]
    assert pooled["last"][:2].tolist() == [x[1, 1].tolist(), x[0, 2].tolist()]
    assert bool(pooled["mean"][2].isnan().all()), "NaN until a document is read"


def test_sums_of_a_stream_tell_first_tokens_from_later_ones(batch, value):
    tally = StreamTally(SITE, languages=2, units=3)
    tally.add(batch, {SITE: tally.read(batch, value)})
    layer, x = tally.layer(), value.value.double()
    counted = x[batch.counted]
    firsts = torch.stack([x[0, 1], x[1, 1]])
    assert tally.tokens.tolist() == [3, 0] and tally.firsts.tolist() == [2, 0]
    for total, expected in zip(tally.sums, (counted, counted**2, firsts, firsts**2), strict=True):
        assert total[0].tolist() == expected.sum(0).tolist() and not bool(total[1].any())
    assert int(layer.lengths.sum()) == 1, "one later token"


def test_sums_of_features_are_those_of_a_loop_over_tokens(batch):
    layout, sae = layout_of(tiny_model("llama")), made_sae()
    sums = FeatureSums(layout, sae, languages=1, shards=2)
    x = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    sums.add(batch, {sae.site: sums.addend(batch, SiteValue(x, x, None, batch.counted))})
    fired, total = np.zeros(40), np.zeros(40)
    for row in x[batch.counted].double().numpy():
        pre = row @ sae.w_enc.double().numpy() + sae.b_enc.double().numpy()
        active = pre > np.maximum(sae.threshold.numpy(), 0)
        fired += active
        total += np.where(active, pre, 0)
    record = sums.record()
    assert record.active[0, :, 0].tolist() == fired.tolist()
    assert np.allclose(record.sum[0, :, 0].numpy(), total, atol=1e-4)
    assert sums.state()[f"{SITE}/active"].sum() == fired.sum()
    with pytest.raises(MeasurementError, match="gave NaN or infinity"):
        nan = torch.full_like(x, math.nan)
        sums.add(batch, {sae.site: sums.addend(batch, SiteValue(nan, nan, None, batch.counted))})


def plan(part=(0, 1), tokens=None):
    corpus = load_corpus("reference", ["en", "fi"], split="valid").head(8)
    settings = PassSettings({"mlp_gate": (0,)}, tokens, 4, part, 4096, None, 64)
    return PassPlan(layout_of(tiny_model("llama")), tiny_tokenizer(), corpus, settings)


def test_a_plan_says_what_is_read_and_how_much():
    whole = plan()
    assert whole.languages == ("en", "fi")
    assert (whole.progress().total, whole.progress().unit) == (16, "documents")
    assert (plan(tokens=100).progress().total, plan(tokens=100, part=(1, 2)).progress().total) == (200, 100)
    assert whole.parameters()["sites"] == {"mlp_gate": [0]} and whole.parameters()["part"] == [0, 1]


def test_the_parts_of_a_pass_are_the_whole_of_it():
    def read(part):
        return [(d.language, d.id) for window in plan(part).documents() for d in window]

    first, second, whole = read((0, 2)), read((1, 2)), read((0, 1))
    assert first and second and set(first).isdisjoint(second) and set(first) | set(second) == set(whole)
    assert len(whole) == 16


def test_control_tokens_and_short_text_are_told_in_the_log(caplog):
    part = plan(tokens=1000)
    tally = Tally.zeros(languages=2, shards=4)
    tally.controls[0], tally.tokens[:], tally.truncated[1] = 3, torch.tensor([1000, 7]), 2
    part.report_shortfall(tally)
    lines = "\n".join(record.getMessage() for record in caplog.records)
    assert part.controls(tally) == {"en": 3}
    assert "en 3" in lines and "fewer than 1000 tokens: fi 7" in lines and "2 tokens past max_length 64" in lines


def test_sums_that_no_text_can_give_are_refused():
    corpus = load_corpus("reference", ["en", "fi"], split="valid").head(8)
    counts = observe(tiny_model("llama"), tiny_tokenizer(), corpus, tokens_per_language=None, shards=4)
    counts.check_counts()
    with pytest.raises(ArtifactError, match="shard_tokens do not add up"):
        replace(counts, shard_tokens=counts.shard_tokens + 1).check_counts()
    with pytest.raises(ArtifactError, match="documents holds more than there is text"):
        replace(counts, documents=counts.token_counts + 1).check_counts()
    record = replace(counts["mlp_gate"], sum=counts["mlp_gate"].sum * 1000)
    with pytest.raises(ArtifactError, match="the sums of mlp_gate are larger than their squares allow"):
        replace(counts, records={"mlp_gate": record}).check_counts()


def test_a_sum_is_bounded_by_its_squares():
    one, n = torch.tensor([3.0, -4.0]), torch.tensor([2, 2])
    check_squares("x", one, torch.tensor([4.5, 8.0]), n)
    with pytest.raises(ArtifactError, match="sums of x are larger"):
        check_squares("x", one, torch.tensor([4.5, 7.9]), n)
    check_range("x", torch.tensor([0, 2]), torch.tensor([0, 2]))
    with pytest.raises(ArtifactError, match="x holds a value below 0"):
        check_range("x", torch.tensor([-1]))


def test_every_string_of_an_upload_is_looked_at():
    nested = {"a": ["x", {"b": "y"}], "c": 3}
    assert list(strings_of(nested)) == [("key", "a"), ("a", "x"), ("a.key", "b"), ("a.b", "y"), ("key", "c")]


def test_rows_of_a_selection_carry_size_stability_and_chance():
    tag = Language("fi")
    halves = Stability(0.4, 0.3, 0.5, 0.05, 0.37, 12, 0.2, 0.1, 0.3, ())
    sets = BootstrapSets({tag: 12}, {tag: Interval(9.0, 15.0)}, torch.zeros(1, 1, 1, dtype=torch.float64), 50)
    rows = selection_rows({tag: 12}, sets, {tag: halves}, None, seed=3)
    assert [(row.claim, row.control, row.estimate, row.low, row.high) for row in rows[:2]] == [
        ("set size", "bootstrap over shards", 12, 9.0, 15.0),
        ("stability", "half-splits of shards", 0.4, 0.3, 0.5),
    ]
    assert rows[2].estimate == 0.05 and len(rows) == 3 and {row.n for row in rows} == {12}
    check_draws(2)
    with pytest.raises(SelectionError, match="draws 1 came"):
        check_draws(1)


def test_evidence_at_a_site_begins_without_one():
    row = SiteEvidence(claim="a", language="fi", control="none", n=3, estimate=0.5)
    assert (row.site, row.against) == ("", "") and math.isnan(row.null) and math.isnan(row.p)


def test_text_of_too_few_documents_for_shards_is_refused():
    check_shards(load_corpus("reference", ["en", "fi"], split="train"))
    with pytest.raises(CorpusError, match="too few documents to observe, en 5 in"):
        check_shards(load_corpus("reference", ["en", "fi"], split="train").head(5))


def test_the_planted_features_are_found_by_entropy_and_by_loudness():
    counts = FeatureCounts.read(planted())
    for rule in (LapeFeatures(top_rate=0.05, min_count=20), Monolingual(count=1, of="rate", min_count=20)):
        mask = rule.select(counts).mask
        assert [mask[k].nonzero().flatten().tolist() for k in range(3)] == [[0], [1], [2]], rule.name
        scored = rule.score(counts)
        assert set(torch.argsort(scored.score[0])[:3].tolist()) == {0, 1, 2}, "the lowest scores are theirs"
        assert not bool(scored.eligible[0, 4]), "a feature that never fires is not eligible"
    rate = counts.fired.double() / counts.tokens
    share = rate / rate.sum(dim=1, keepdim=True)
    entropy = -(share * share.log()).nan_to_num().sum(dim=1)
    fires = counts.fired.sum(dim=1) >= 20
    assert torch.allclose(LapeFeatures(min_count=20).score(counts).score[0][fires], entropy[fires])
    with pytest.raises(SelectionError, match="count 0, share 0.5"):
        Monolingual(count=0)


def stored(**settings):
    g = torch.Generator().manual_seed(0)
    tensors = {
        "W_enc": torch.randn(4, 6, generator=g), "b_enc": torch.randn(6, generator=g),
        "W_dec": torch.randn(6, 4, generator=g), "b_dec": torch.randn(4, generator=g),
    }  # fmt: skip
    return Stored("made", tensors, {"apply_b_dec_to_input": True, **settings})


def test_an_autoencoders_plain_form_gives_what_its_makers_formula_gives():
    part = stored(normalize_activations="expected_average_only_in")
    sae, x = plain_form(part, SITE, average_norm=3.0), torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    t, scaled = part.tensors, x * math.sqrt(4) / 3.0
    features = torch.relu((scaled - t["b_dec"]) @ t["W_enc"] + t["b_enc"])
    output = (features @ t["W_dec"] + t["b_dec"]) / (math.sqrt(4) / 3.0)
    ours = torch.relu(x @ sae.w_enc + sae.b_enc)
    assert torch.allclose(ours, features, atol=1e-5)
    assert torch.allclose(ours @ sae.w_dec + sae.b_dec, output, atol=1e-5)
    with pytest.raises(ArtifactError, match="scaled by their average length"):
        plain_form(part, SITE)
    with pytest.raises(ArtifactError, match="not trained on inputs scaled"):
        plain_form(stored(), SITE, average_norm=3.0)


def test_settings_and_tensors_that_this_form_cannot_hold_are_named():
    old = sae_settings(stored(activation_fn_str="topk", activation_fn_kwargs={"k": 5}))
    assert (old["architecture"], old["k"]) == ("topk", 5)
    with pytest.raises(ArtifactError, match="architecture 'gated'.*; activation 'gelu'"):
        sae_settings(stored(architecture="gated", activation_fn="gelu"))
    check_types("made", {"architecture": "topk", "metadata": {"model_name": "a"}})
    with pytest.raises(ArtifactError, match="model_name is '3'; expected str"):
        check_types("made", {"metadata": {"model_name": 3}})
    assert set(check_tensors(stored())) == {"W_enc", "b_enc", "W_dec", "b_dec"}
    with pytest.raises(ArtifactError, match="expected W_dec, W_enc, b_dec, b_enc, threshold"):
        check_tensors(stored(architecture="jumprelu"))
