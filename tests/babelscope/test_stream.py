"""What massive units and first tokens hold, beside plain transformers and numpy; and the form of what is made of it."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from artifact_damage import as_before_hashes
from conftest import tiny_model, tiny_tokenizer
from safetensors.torch import load_file, save_file

from babelscope import Direction, Observation, Site, mean_direction, observe
from babelscope.artifacts import SteeringRecipe
from babelscope.artifacts.stream import (
    BINS,
    LayerStream,
    bin_edges,
    length_bins,
    median_length,
    ordinary_lengths,
    without_units,
)
from babelscope.cli import main
from babelscope.errors import ArtifactError, MeasurementError, SiteError
from babelscope.recording.observe_pass import large_shares
from babelscope.steering.directions import (
    ablate_languages,
    document_means,
    hold_coordinates,
    language_basis,
    language_mean,
    lda_direction,
    pca_direction,
    probe_direction,
)
from babelscope.steering.sweeps import random_directions
from babelscope.steering.sweeps.sweep_grid import sweep_layers, usual_layer

TEXTS = {
    "en": ["the cat sat on a mat", "rain again today", "a small boat", "who is there"],
    "fi": ["kissa istui matolla", "sataa taas tänään", "pieni vene", "kuka siellä"],
    "de": ["die Katze sitzt", "heute Regen", "ein kleines Boot", "wer ist da"],
}
UNIT = 5
"""Made massive."""


def massive_model():
    """A tiny Llama whose stream has one unit far larger than all others, as Gemma 3's has."""
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[:, UNIT] = 400 + torch.arange(model.config.vocab_size) % 7 * 10.0
    return model


def seen(model, **more):
    return observe(model, tiny_tokenizer(), TEXTS, sites=["resid_out"], shards=4, **more)


@pytest.fixture(scope="module")
def plain():
    return seen(tiny_model("llama"))


@pytest.fixture(scope="module")
def massive():
    return seen(massive_model())


# The histogram


def test_a_length_is_counted_in_the_bin_that_holds_it():
    edges = bin_edges()
    generator = torch.Generator().manual_seed(0)
    lengths = torch.cat([2 ** (torch.rand(500, generator=generator) * 38 - 15), torch.tensor([0.5, 1.0, 2.0, 3.0])])
    for value in lengths.tolist():
        (place,) = length_bins(torch.tensor([value])).nonzero()[:, 0].tolist()
        assert edges[place] <= torch.tensor(value).float() < edges[place + 1]
    assert float(((edges[1:] - edges[:-1]) / edges[:-1]).max()) <= 1 / 32 + 1e-12


def test_what_lies_outside_the_bins_is_counted_at_their_ends():
    counts = length_bins(torch.tensor([0.0, 1e-30, 1e30, float("inf")]))
    assert (int(counts[0]), int(counts[-1]), int(counts.sum()), len(counts)) == (2, 2, 4, BINS)


@pytest.mark.parametrize("count", [1, 2, 7, 5000])
def test_the_median_is_numpys_within_a_bin(count):
    lengths = np.random.default_rng(count).lognormal(3, 1, count)
    counts = length_bins(torch.from_numpy(lengths))
    found, exact = median_length(counts), float(np.median(lengths))
    if count % 2:
        assert found == pytest.approx(exact, rel=1 / 32)
    else:
        lower, upper = np.sort(lengths)[count // 2 - 1 : count // 2 + 1]
        assert lower * (1 - 1 / 32) <= found <= upper * (1 + 1 / 32)
    halves = length_bins(torch.from_numpy(lengths[::2])) + length_bins(torch.from_numpy(lengths[1::2]))
    assert torch.equal(halves, counts)
    with pytest.raises(MeasurementError, match="no ordinary token"):
        median_length(torch.zeros(BINS, dtype=torch.int64))


def test_a_length_leaves_out_units_that_alone_hold_more_than_a_tenth_and_those_they_hid():
    value = torch.ones(3, 200, dtype=torch.float64)
    value[1, 4] = 1e4
    value[2, [4, 9]] = torch.tensor([1e6, 1e3], dtype=torch.float64)
    expected = [200**0.5, 199**0.5, 198**0.5]
    assert ordinary_lengths(value.square()).tolist() == pytest.approx(expected, rel=1e-12)
    # In a stream of two units a large one is no exception.
    assert ordinary_lengths(torch.tensor([[9.0, 16.0]], dtype=torch.float64)).tolist() == [5.0]


# What is kept in a pass


def states(model, tokenizer, layer):
    """Values of counted tokens by language and document, by plain transformers."""
    found = {}
    for tag, lines in TEXTS.items():
        for line in lines:
            ids = torch.tensor([[1, *tokenizer(line, add_special_tokens=False)["input_ids"]]])
            with torch.no_grad():
                hidden = model(ids, output_hidden_states=True).hidden_states[layer + 1]
            found.setdefault(tag, []).append(hidden[0, 1:].double())
    return found


@pytest.mark.parametrize("make", [lambda: tiny_model("llama"), massive_model])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_first_tokens_and_lengths_are_those_of_plain_transformers(make, batch_size):
    model, tokenizer = make(), tiny_tokenizer()
    observation = seen(model, batch_size=batch_size)
    record = observation["resid_out"]
    for k, documents in enumerate(states(model, tokenizer, 1).values()):
        first = torch.stack([rows[0] for rows in documents])
        other = torch.cat([rows[1:] for rows in documents])
        torch.testing.assert_close(record.stream.first_sum[1, :, k], first.sum(dim=0), rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(record.stream.first_sumsq[1, :, k], first.square().sum(dim=0), rtol=1e-4, atol=1e-3)
        square = other.square()
        for _ in range(4):
            square = square * (square <= max(0.1, 10 / 32) * square.sum(dim=1, keepdim=True))
        lengths = square.sum(dim=1).sqrt()
        assert int(record.stream.lengths[1, :, k].sum()) == len(lengths)
        assert observation.stream("resid_out", 1).median_length([k]) == pytest.approx(
            float(np.quantile(lengths.numpy(), 0.5)), rel=0.06
        )
        share = observation.stream("resid_out", 1).shares
        assert 0 < share.unit_share <= share.largest_share <= 1


def test_the_shares_of_a_layer_are_by_hand():
    # Language 0: first token (3, 0), others (1, 2) and (1, 2); language 1: first (0, 1), other (2, 0).
    stream = LayerStream(
        tokens=torch.tensor([3, 2]),
        firsts=torch.tensor([1, 1]),
        sum=torch.tensor([[5.0, 4.0], [2.0, 1.0]]).double(),
        sumsq=torch.tensor([[11.0, 8.0], [4.0, 1.0]]).double(),
        first_sum=torch.tensor([[3.0, 0.0], [0.0, 1.0]]).double(),
        first_sumsq=torch.tensor([[9.0, 0.0], [0.0, 1.0]]).double(),
        lengths=torch.stack([length_bins(torch.tensor([5**0.5] * 2)), length_bins(torch.tensor([2.0]))]),
    )
    shares = stream.shares
    # Squared length of others: language 0 (2, 8), language 1 (4, 0).
    assert shares.unit == 0 and shares.unit_share == pytest.approx((0.2 + 1.0) / 2) and shares.largest_share == 1
    assert shares.first_share == pytest.approx(9 / 19) and shares.first_ratio == pytest.approx(9 / 5)
    assert stream.mean(0).tolist() == [1.0, 2.0] and stream.mean(1).tolist() == [2.0, 0.0]
    assert stream.ordinary_tokens == 3 and stream.massive == ()
    assert stream.form("auto") == "whole"  # two units: neither can be massive


def test_a_language_of_first_tokens_only_has_no_ordinary_mean():
    one = seen(tiny_model("llama"), max_length=2)
    assert one.stream("resid_out", 1).ordinary_tokens == 0
    direction = mean_direction(one, target="fi", layer=1)
    assert direction.form == "whole" and direction.median_norm is None
    with pytest.raises(MeasurementError, match="first tokens only"):
        mean_direction(one, target="fi", layer=1, form="ordinary")
    assert "| 1.resid_out | – |" in "\n".join(one.stream("resid_out", 1).row("1.resid_out").splitlines())


def test_parts_resumed_and_whole_passes_keep_the_same(tmp_path, massive):
    model, tokenizer = massive_model(), tiny_tokenizer()
    parts = [seen(model, part=(i, 2)) for i in range(2)]
    merged = parts[0] + parts[1]
    asked = iter(range(100))
    with pytest.raises(KeyboardInterrupt):
        seen(model, batch_size=2, checkpoint=tmp_path, stop=lambda: next(asked) == 3)
    resumed, straight = seen(model, batch_size=2, checkpoint=tmp_path), seen(model, batch_size=2)
    for name in ("first_sum", "first_sumsq", "lengths"):
        one, other = (getattr(found["resid_out"].stream, name) for found in (merged, massive))
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-4)
        assert torch.equal(getattr(resumed["resid_out"].stream, name), getattr(straight["resid_out"].stream, name))
    assert int(merged["resid_out"].stream.lengths.sum()) == int(massive["resid_out"].stream.lengths.sum())
    assert torch.equal(
        merged["resid_out"].stream.lengths, parts[0]["resid_out"].stream.lengths + parts[1]["resid_out"].stream.lengths
    )
    del tokenizer


def test_other_sites_keep_none(plain):
    observation = observe(tiny_model("llama"), tiny_tokenizer(), TEXTS, sites=["mlp_gate", "embed", "attn_heads"])
    assert [at for at, record in observation.records.items() if record.stream is not None] == ["embed"]
    with pytest.raises(SiteError, match="not kept there"):
        mean_direction(observation, target="fi", layer=0, at="attn_heads", form="ordinary")
    assert mean_direction(observation, target="fi", layer=0, at="attn_heads").form == "whole"
    assert large_shares(plain) == []


def test_an_observation_keeps_them_on_disk_and_says_them_in_its_card(tmp_path, massive):
    loaded = Observation.load(massive.save(tmp_path / "obs"))
    for name in ("first_sum", "first_sumsq", "lengths"):
        assert torch.equal(getattr(loaded["resid_out"].stream, name), getattr(massive["resid_out"].stream, name))
    card = (tmp_path / "obs" / "README.md").read_text()
    share = massive.stream("resid_out", 1).shares
    assert share.unit == UNIT and f"| 1.resid_out | {UNIT} | {share.unit_share:.3f} |" in card


def earlier(path, names=("first_sum", "first_sumsq", "lengths")):
    """Take out of a saved Observation what earlier versions did not keep."""
    file = path / "tensors.safetensors"
    left = {name: part for name, part in load_file(file).items() if name.split(".")[-1] not in names}
    save_file(left, file)
    return as_before_hashes(path)


def test_an_observation_of_an_earlier_version_stays_what_it_was(tmp_path, massive, caplog):
    path = earlier(massive.save(tmp_path / "old"))
    with caplog.at_level(logging.WARNING):
        old = Observation.load(path)
    assert "earlier version, without first tokens and lengths at resid_out" in caplog.text
    direction = mean_direction(old, target="fi", layer=1)
    whole = mean_direction(massive, target="fi", layer=1, form="whole")
    assert torch.equal(direction.vector, whole.vector) and direction.form == "whole" and direction.median_norm is None
    with pytest.raises(SiteError, match="observe it again"):
        mean_direction(old, target="fi", layer=1, form="ordinary")
    other = replace(seen(massive_model(), part=(0, 2)))
    with pytest.raises(ArtifactError, match="observe the older one again"):
        replace(old, parts=("x:0/1",)) + other
    # Old ones still add up.
    assert (old + replace(old, parts=("x:0/1",)))["resid_out"].stream is None


@pytest.mark.parametrize("name", ["first_sum", "first_sumsq", "lengths"])
def test_an_observation_that_lost_one_of_them_is_refused(tmp_path, massive, name):
    path = earlier(massive.save(tmp_path / "torn"), names=(name,))
    with pytest.raises(ArtifactError, match=f"resid_out.{name}"):
        Observation.load(path)


def test_a_checkpoint_of_an_earlier_version_is_refused(tmp_path):
    model = tiny_model("llama")
    with pytest.raises(KeyboardInterrupt):
        seen(model, batch_size=2, checkpoint=tmp_path, stop=lambda: True)
    (tmp_path / "state.json").write_text('{"fingerprint": "", "done": 1, "file": "totals-1.safetensors"}')
    with pytest.raises(ArtifactError, match="is of another version.*remove .* to start anew"):
        seen(model, batch_size=2, checkpoint=tmp_path)


# Directions


def test_without_massive_units_a_direction_is_what_it_was(plain):
    auto, whole = (mean_direction(plain, target="fi", source="en", layer=1, form=form) for form in ("auto", "whole"))
    assert auto.form == "whole" and torch.equal(auto.vector, whole.vector) and auto.scale == auto.mean_norm
    assert auto.add(0.5).mean_norm == plain.mean_norm("resid_out", 1, ("fi", "en"))
    assert auto.median_norm == pytest.approx(plain.stream("resid_out", 1).median_length([0, 1]))


def test_with_a_massive_unit_a_direction_leaves_it_out_and_a_share_is_of_the_median(massive):
    auto = mean_direction(massive, target="fi", source="en", layer=1)
    whole = mean_direction(massive, target="fi", source="en", layer=1, form="whole")
    assert auto.form == "ordinary" and auto.left_out == (UNIT,) and float(auto.vector[UNIT]) == 0
    assert whole.left_out == () and float(whole.vector[UNIT]) != 0
    assert whole.largest_share > auto.largest_share
    record, k, j = massive["resid_out"], massive.index("fi"), massive.index("en")
    means = [
        (record.sum[1, :, i] - record.stream.first_sum[1, :, i]) / (massive.token_counts[i] - massive.documents[i])
        for i in (k, j)
    ]
    expected = without_units(means[0] - means[1], (UNIT,)).float()
    torch.testing.assert_close(auto.vector, expected)
    assert auto.scale == auto.median_norm < auto.mean_norm == whole.scale
    assert auto.parameters["stream"]["unit"] == UNIT and auto.parameters["stream"]["unit_share"] > 0.2
    assert torch.equal(language_mean(massive, "fi", Site(1, "resid_out"), "ordinary"), without_units(means[0], (UNIT,)))


def test_a_unit_that_is_large_in_one_language_is_that_languages(massive):
    record = massive["resid_out"]
    few = record.sumsq.clone()
    few[1, UNIT] = record.stream.first_sumsq[1, UNIT]  # nothing left of it but in first tokens
    few[1, 7, 0] += (few - record.stream.first_sumsq)[
        1, :, 0
    ].sum()  # half of the squared length of one language of three: a sixth of the mean
    stream = massive.stream("resid_out", 1)
    assert replace(stream, sumsq=few[1].T).massive == ()
    assert stream.massive == (UNIT,)


def test_far_longer_first_tokens_are_left_out_of_the_mean(plain):
    record = plain["resid_out"]
    extra = torch.zeros_like(record.sum)
    extra[1, 3] = 500.0
    stream = replace(
        record.stream,
        first_sum=record.stream.first_sum + extra * plain.documents,
        first_sumsq=record.stream.first_sumsq + extra**2 * plain.documents,
    )
    sinks = replace(
        plain,
        records={
            "resid_out": replace(
                record,
                sum=record.sum + extra * plain.documents,
                sumsq=record.sumsq + extra**2 * plain.documents,
                stream=stream,
            )
        },
    )
    auto = mean_direction(sinks, target="fi", source="en", layer=1)
    assert auto.form == "ordinary" and auto.left_out == ()
    untouched = mean_direction(plain, target="fi", source="en", layer=1, form="ordinary")
    torch.testing.assert_close(auto.vector, untouched.vector)
    assert sinks.stream("resid_out", 1).shares.first_ratio > 100
    assert mean_direction(sinks, target="fi", source="en", layer=0).form == "whole"


def test_a_direction_keeps_its_form_on_disk(tmp_path, massive):
    direction = mean_direction(massive, target="fi", source="en", layer=1)
    loaded = Direction.load(direction.save(tmp_path / "direction"))
    for name in ("form", "median_norm", "mean_norm", "left_out", "scale"):
        assert getattr(loaded, name) == getattr(direction, name)
    card = (tmp_path / "direction" / "README.md").read_text()
    assert "Form: ordinary" in card and f"Massive units, zero in the vector: {UNIT}." in card
    recipe = SteeringRecipe.load(direction.recipe(0.25).save(tmp_path / "recipe"))
    assert recipe.operations[0].mean_norm == direction.median_norm


def test_a_direction_of_an_earlier_version_is_whole(tmp_path, plain):
    path = mean_direction(plain, target="fi", layer=1).save(tmp_path / "direction")
    config = json.loads((path / "config.json").read_text())
    for name in ("form", "median_norm", "left_out"):
        del config[name]
    (path / "config.json").write_text(json.dumps(config))
    loaded = Direction.load(as_before_hashes(path))
    assert (loaded.form, loaded.median_norm, loaded.left_out) == ("whole", None, ())
    assert loaded.add().mean_norm == loaded.mean_norm


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"form": "ordinary", "median_norm": None}, "median_norm above 0"),
        ({"median_norm": float("nan")}, "median_norm nan"),
        ({"median_norm": -1.0}, "median_norm -1"),
        ({"left_out": (0,)}, "the vector is zero"),
        ({"left_out": (99,)}, "units of 0–31"),
    ],
)
def test_a_form_that_contradicts_itself_is_refused(plain, changes, match):
    direction = mean_direction(plain, target="fi", layer=1)
    with pytest.raises(ArtifactError, match=match):
        replace(direction, **changes)


# Documents' means


@pytest.fixture(scope="module")
def documents():
    site = Site(1, "resid_out")
    return document_means(massive_model(), tiny_tokenizer(), TEXTS, [site])[site]


def test_documents_means_know_the_same_stream(documents, massive):
    stream, same = documents.stream, massive.stream("resid_out", 1)
    assert torch.equal(stream.tokens, same.tokens) and torch.equal(stream.firsts, same.firsts)
    for name in ("sum", "sumsq", "first_sum", "first_sumsq"):
        torch.testing.assert_close(getattr(stream, name), getattr(same, name), rtol=1e-6, atol=1e-4)
    assert int((stream.lengths - same.lengths).abs().sum()) <= 4  # a length on the edge of a bin may be in either
    rows = states(massive_model(), tiny_tokenizer(), 1)["fi"][2]
    place = [i for i, k in enumerate(documents.language.tolist()) if k == 1 and documents.ids[i] == documents.ids[2]]
    torch.testing.assert_close(
        documents.in_form("ordinary").value[place[0]],
        without_units(rows[1:].mean(dim=0).float(), (UNIT,)),
        rtol=1e-4,
        atol=1e-3,
    )


@pytest.mark.parametrize("fit", [pca_direction, probe_direction, lda_direction])
def test_fitted_directions_leave_a_massive_unit_out(documents, fit):
    auto, whole = (fit(documents, target="fi", source="en", form=form) for form in ("auto", "whole"))
    assert auto.form == "ordinary" and auto.left_out == (UNIT,) and float(auto.vector[UNIT]) == 0
    assert whole.form == "whole" and whole.left_out == ()
    # Beside it, the same fit where the unit was never there.
    keep = [unit for unit in range(32) if unit != UNIT]
    assert documents.later is not None and documents.stream is not None
    narrow = replace(documents, value=documents.later[:, keep], later=None, stream=None)
    torch.testing.assert_close(auto.vector[keep], fit(narrow, target="fi", source="en").vector, rtol=1e-3, atol=1e-3)
    assert auto.scale == documents.median_norm(["fi", "en"])


def test_documents_of_one_token_are_left_out_or_refused():
    site = Site(1, "resid_out")
    found = document_means(tiny_model("llama"), tiny_tokenizer(), {"en": ["a", "rain"], "fi": ["vene", "b"]}, [site])
    ordinary = found[site].in_form("ordinary")
    assert len(ordinary.value) == 2 and bool(ordinary.value.isfinite().all())
    short = document_means(tiny_model("llama"), tiny_tokenizer(), {"en": ["a"], "fi": ["vene"]}, [site])[site]
    with pytest.raises(MeasurementError, match="en: documents of one token only"):
        short.in_form("ordinary")


# Subspaces and controls


def test_the_language_subspace_leaves_a_massive_unit_alone(massive):
    basis = language_basis(massive, 1)
    assert not bool(basis[:, UNIT].any()) and len(basis) == 2
    assert bool(language_basis(massive, 1, form="whole")[:, UNIT].any())
    held = hold_coordinates(massive, target="fi", layer=1).operations[0]
    assert not bool(held.matrix[:, UNIT].any()) and float(held.vector[UNIT]) == 0
    assert not bool(ablate_languages(massive, middle=[1]).operations[0].matrix[:, UNIT].any())


def test_random_directions_lie_in_the_subspace_of_what_they_stand_beside(massive):
    model, tokenizer, site = massive_model(), tiny_tokenizer(), Site(1, "resid_out")
    ordinary, whole = (mean_direction(massive, target="fi", layer=1, form=form) for form in ("ordinary", "whole"))
    inside = random_directions(model, tokenizer, TEXTS, site, draws=4000, like=ordinary)
    assert not bool(inside[:, UNIT].any())
    torch.testing.assert_close(inside.norm(dim=1), torch.ones(4000))
    every = random_directions(model, tokenizer, TEXTS, site, draws=4, like=whole)
    assert torch.equal(every, random_directions(model, tokenizer, TEXTS, site, draws=4))
    assert float(every[:, UNIT].square().mean()) > 0.1
    rows = torch.cat([rows[1:] for group in states(model, tokenizer, 1).values() for rows in group])
    spread = without_units(rows.var(dim=0), (UNIT,))
    assert torch.corrcoef(torch.stack([spread, inside.double().var(dim=0)]))[0, 1] > 0.95


# The command line


def test_observe_says_it_in_the_log(caplog):
    with caplog.at_level(logging.INFO, logger="babelscope.recording.observe_pass"):
        seen(massive_model())
    assert "resid_out: in 3 of 3 layers" in caplog.text and f"in unit {UNIT} " in caplog.text


def test_direct_prints_both_forms_and_the_streams_shares(tmp_path, massive, capsys):
    massive.save(tmp_path / "obs")
    arguments = ["direct", str(tmp_path / "obs"), "--target", "fi", "--layer", "1"]
    assert main([*arguments, "--out", str(tmp_path / "a"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    shares = found["largest_unit_of_vector"]
    assert found["form"] == "ordinary" and found["left_out"] == [UNIT] and shares["whole"] > shares["ordinary"]
    assert found["stream"]["unit"] == UNIT and found["relative_to"] == found["median_norm"] < found["mean_norm"]
    assert main([*arguments, "--out", str(tmp_path / "b"), "--form", "whole", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["relative_to"] == found["mean_norm"]


@pytest.mark.parametrize(
    ("observed", "layer"), [((0, 1, 2), 0), (range(18), 4), (range(24), 6), ((5, 17), 5), ((3,), 3), ((3, 5, 19), 5)]
)
def test_the_layer_that_is_taken_where_none_is_named(observed, layer):
    """At a quarter of the depth, or the nearest that was observed; one that a sweep tries where all were."""
    assert usual_layer(observed) == layer
    if len(observed) > 8:
        assert layer in sweep_layers(len(observed))


def test_direct_says_the_layer_that_it_took(tmp_path, massive, capsys):
    massive.save(tmp_path / "obs")
    arguments = ["direct", str(tmp_path / "obs"), "--target", "fi", "--out"]
    assert main([*arguments, str(tmp_path / "a")]) == 0
    assert "layer 0 was taken, at a quarter of the depth" in capsys.readouterr().out
    assert main([*arguments, str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layer"] == 0
    assert Direction.load(tmp_path / "a").site == Direction.load(tmp_path / "b").site == Site(0, "resid_out")
    assert main([*arguments, str(tmp_path / "c"), "--layer", "1"]) == 0
    assert "was taken" not in capsys.readouterr().out
