"""Dense models whose last layers become experts of language families: the same at first, trained beside controls."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from family_configs import make
from transformers import AutoModelForCausalLM
from transformers.models.qwen2_moe.modeling_qwen2_moe import load_balancing_loss_func

from babelscope.adaptation.expert_controls import (
    DENSE,
    FAMILIES,
    RANDOM,
    ExpertStudy,
    expert_study,
    losses_of,
)
from babelscope.adaptation.expert_conversion import (
    LateExperts,
    check_expert_counts,
    copy_weights,
    is_shared,
    largest_logit_difference,
    late_experts,
    mixture_parameters,
    router_weight,
)
from babelscope.adaptation.family_experts import (
    FamilyText,
    check_families,
    family_text,
    language_families,
    random_families,
    router_loss,
    routers_taught,
    train_families,
    train_layers,
)
from babelscope.adapters.merged import export_mixture
from babelscope.cli import main
from babelscope.cli.giving_experts import run_experts
from babelscope.cli.telling_scores import expert_lines
from babelscope.corpus import as_corpus
from babelscope.errors import LanguageError, PrerequisiteError, SelectionError, SiteError
from babelscope.evaluation import HeldOut
from babelscope.languages import Language
from babelscope.models import check_family, layout_of
from babelscope.probes import routing_divergence, routing_use
from babelscope.probes.units.sentence_routes import record_routing
from babelscope.sites import Site
from babelscope.subnetworks import LearningRate, rows_loss
from babelscope.upstream.mixtures import MIXTURES, mixture_config

LINES = {"en": "the cat sat on", "de": "die katze sitzt", "fi": "kissa istui", "et": "kass istus maas"}
GROUPS = {"Germanic": ("en", "de"), "Finnic": ("fi", "et")}
FAMILIES_OF = {name: tuple(map(Language, tags)) for name, tags in GROUPS.items()}
RATE = LearningRate(3e-3, 4)


def texts(count=24):
    return {
        split: as_corpus(
            {tag: [f"{line} {'abcdefgh'[(i + shift) % 8] * (1 + i % 5)} {i + shift}" for i in range(count)]
             for tag, line in LINES.items()}
        )
        for shift, split in enumerate(("train", "test"))
    }  # fmt: skip


@pytest.mark.parametrize("family", MIXTURES)
def test_a_mixture_of_copies_gives_what_the_dense_model_gave(family, tmp_path):
    """By plain transformers, from its own checkpoint; the first layers stay dense, the model as it was."""
    model = tiny_model(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for top_k in (1, 2, 3):
        mixture = late_experts(model, layers=2, experts=4, top_k=top_k)
        assert mixture.layers == (1, 2) and mixture.difference < 1e-5 and not mixture.model.training
    export_mixture(mixture.model, tiny_tokenizer(), tmp_path / "out", source="a model", lines=["- experts"])
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        expected, given = model(ids).logits, opened(ids).logits
    assert float((given - expected).abs().max() / expected.abs().max()) < 1e-5
    assert opened.config.model_type == MIXTURES[family] and opened.config.mlp_only_layers == [0]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert "base_model" in (tmp_path / "out" / "README.md").read_text()


def test_experts_are_copies_and_routers_are_drawn_by_the_seed():
    model = tiny_model("llama")
    dense, mixture = layout_of(model), layout_of(late_experts(model, layers=1, experts=3).model)
    for role, rows in mixture.neuron_rows(2).items():
        assert torch.equal(rows, dense.neuron_rows(2)[role].expand_as(rows))
    others = [late_experts(model, layers=1, experts=3, seed=seed).model for seed in (0, 1)]
    routers = [router_weight(layout_of(other), 2) for other in others]
    assert torch.equal(routers[0], router_weight(mixture, 2)) and not torch.equal(*routers)
    names = [name for name, _ in mixture_parameters(mixture, 2)]
    assert all(name.startswith("model.layers.2.mlp.") for name in names) and len(names) == 7
    assert [name for name in names if is_shared(mixture, name)] == [name for name in names if "shared" in name]
    with torch.no_grad():
        copy_weights(dense, mixture, torch.Generator().manual_seed(5))
    assert largest_logit_difference(model, mixture.model) < 1e-5


def test_what_no_mixture_computes_is_refused():
    for family in ("gemma2", "mixtral", "gpt2"):
        with pytest.raises(PrerequisiteError, match="no mixture of transformers"):
            late_experts(tiny_model(family), layers=1, experts=2)
    with pytest.raises(PrerequisiteError, match="float64"):
        late_experts(tiny_model("llama", dtype=torch.float64), layers=1, experts=2)
    assert mixture_config(make("llama with biases").config, dense=(), experts=2, top_k=1) is None
    windowed = tiny_model("mistral").config
    windowed.sliding_window = 8
    assert mixture_config(windowed, dense=(), experts=2, top_k=1) is None
    for numbers in ((0, 2, 1), (4, 2, 1), (1, 1, 1), (1, 2, 3), (1, 2, 0)):
        with pytest.raises(SelectionError, match="expected 1 to 3 layers"):
            check_expert_counts(3, *numbers)


def test_dense_layers_of_a_mixture_have_no_neuron_sites_and_all_others_hold():
    model = late_experts(tiny_model("qwen3"), layers=1, experts=4).model
    layout = layout_of(model)
    assert layout.without_experts == (0, 1) and layout.routed_layers == (2,) and layout.n_experts == 4
    assert {identity.layer for identity in check_family(model)} == {None, 0, 1, 2}
    for act in (lambda: layout.check(Site(0, "router")), lambda: layout.neuron_rows(1), lambda: layout.experts(0)):
        with pytest.raises(SiteError, match=r"has a dense MLP.*give one of 2"):
            act()
    for at in ("resid_mid", "mlp_out", "attn_out"):
        layout.check(Site(0, at))
    corpus = texts(80)["test"]
    use = routing_use(model, tiny_tokenizer(), corpus, tokens_per_language=None)
    assert use.layers == (2,) and use.share.shape == (4, 1, 4)
    rows = routing_divergence(use, draws=9, resamples=9).rows()
    assert {row.claim for row in rows} == {"expert use differs from en in layer 2"}
    with pytest.raises(SiteError, match="dense MLP"):
        record_routing(model, tiny_tokenizer(), {"en": ["a b"], "fi": ["c d"]})


def test_families_are_those_of_linguistics_and_random_ones_are_others():
    by_family = language_families(["en", "de", "ru", "fi"])
    assert by_family == {"Indo-European": ("en", "de", "ru"), "Uralic": ("fi",)}
    by_branch = language_families(["en", "de", "ru", "uk"], by="branch")
    assert by_branch == {"Germanic": ("en", "de"), "Slavic": ("ru", "uk")}
    for seed in range(6):
        groups = random_families(by_branch, seed)
        assert {frozenset(members) for members in groups.values()} != {frozenset(m) for m in by_branch.values()}
        assert sorted(map(len, groups.values())) == [2, 2] and groups == random_families(by_branch, seed)
    for families in ({}, {"a": (Language("en"),)}, {"a": (Language("en"),), "b": (Language("en"),)}):
        with pytest.raises(LanguageError, match="two or more"):
            check_families(families)
    with pytest.raises(LanguageError, match="one language"):
        random_families({"a": (Language("en"),), "b": (Language("fi"),)}, 0)


def test_families_take_turns_and_groups_change_the_experts_alone():
    text = family_text(tiny_tokenizer(), texts()["train"], FAMILIES_OF, length=32, seed=0)
    assert [text.row(number)[0] for number in range(6)] == ["en", "fi", "de", "et", "en", "fi"]
    rows = text.rows(2, 4)
    assert text.experts.tolist() == [0, 1, 0, 1]
    grouped = text.grouped({"x": (Language("en"), Language("fi")), "y": (Language("de"), Language("et"))})
    assert all(torch.equal(one, two) for one, two in zip(grouped.rows(2, 4), rows, strict=True))
    assert isinstance(grouped, FamilyText) and grouped.experts.tolist() == [1, 1, 0, 0]
    assert torch.equal(rows.input_ids[0], text.packed[Language("de")].epoch(0).input_ids[0])
    with pytest.raises(LanguageError, match="no text of sv"):
        family_text(tiny_tokenizer(), texts()["train"], {"a": (Language("sv"),)}, length=32, seed=0)


def test_the_routers_loss_equals_transformers_balance_and_scipys_entropy():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(50, 4, generator=generator)
    chosen, targets = scores.topk(2, dim=1).indices, torch.randint(4, (50,), generator=generator)
    even = router_loss(scores, chosen, targets, guide=0.0, balance=1.0)
    assert float(even) == pytest.approx(float(load_balancing_loss_func((scores,), 4, 2)), rel=1e-6)
    logs = np.log(np.exp(scores.numpy()) / np.exp(scores.numpy()).sum(axis=1, keepdims=True))
    by_hand = -logs[np.arange(50), targets.numpy()].mean()
    assert float(router_loss(scores, chosen, targets, guide=0.5, balance=0.0)) == pytest.approx(0.5 * by_hand, rel=1e-5)


def test_the_gradient_of_a_taught_router_is_that_of_both_losses_together():
    """Against one backward pass through the sum, with scores read by a plain hook."""
    model = late_experts(tiny_model("llama"), layers=2, experts=2).model
    layout = layout_of(model)
    text = family_text(tiny_tokenizer(), texts()["train"], FAMILIES_OF, length=32, seed=0)
    rows, routers = text.rows(0, 4), [router_weight(layout, layer) for layer in (1, 2)]
    with routers_taught(layout, text, guide=0.3, balance=0.2):
        ours = torch.autograd.grad(rows_loss(layout, rows, 0.01), routers)
    outputs = []
    handles = [
        layout.layer(layer).mlp.gate.register_forward_hook(lambda module, args, output: outputs.append(output))
        for layer in (1, 2)
    ]
    total = rows_loss(layout, rows, 0.01)
    targets = torch.tensor([0, 1, 0, 1]).repeat_interleave(32)
    for scores, *_ in outputs:
        guide = torch.nn.functional.cross_entropy(scores, targets)
        total = total + (0.3 * guide + 0.2 * load_balancing_loss_func((scores,), 2, 2)) / 2
    expected = torch.autograd.grad(total, routers)
    for handle in handles:
        handle.remove()
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(ours, expected, strict=True))


def test_only_late_mlps_move_and_a_dense_model_is_put_back():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    text = family_text(tokenizer, texts()["train"], FAMILIES_OF, length=32, seed=0)
    mixture = late_experts(model, layers=1, experts=2)
    assert isinstance(mixture, LateExperts)
    before = {name: value.clone() for name, value in mixture.model.state_dict().items()}
    run = train_families(layout_of(mixture.model), text, rate=RATE, rows_per_step=4, guide=0.1, balance=0.01)
    moved = {name for name, value in mixture.model.state_dict().items() if not torch.equal(value, before[name])}
    parts = ("gate.weight", "experts.gate_up_proj", "experts.down_proj")
    assert moved == {f"model.layers.2.mlp.{name}" for name in parts}
    assert len(run.history) == 4 and not any(part.requires_grad is False for part in mixture.model.parameters())
    dense, scores = {name: value.clone() for name, value in model.state_dict().items()}, []
    prepared = HeldOut.prepare(tokenizer, texts()["test"], max_length=32)
    train_layers(layout_of(model), (2,), text, rate=RATE, rows_per_step=4,
                 at_end=lambda: scores.append(losses_of(model, prepared)))  # fmt: skip
    untouched = losses_of(model, prepared)
    assert scores[0][Language("fi")].bits_per_byte < untouched[Language("fi")].bits_per_byte
    assert all(torch.equal(dense[name], value) for name, value in model.state_dict().items())


def test_a_strong_guide_sends_each_family_to_its_expert_and_the_study_says_so():
    model = tiny_model("llama")
    study = expert_study(model, tiny_tokenizer(), texts(), FAMILIES_OF, layers=2, top_k=1, steps=24, guide=1.0,
                         learning_rate=1e-2, tokens_per_step=256, max_length=32, test_documents=12)  # fmt: skip
    assert isinstance(study, ExpertStudy) and set(study.after) == {FAMILIES, RANDOM, DENSE}
    for name in (FAMILIES, RANDOM):
        assert min(study.own_share(name, family) for family in study.families[name]) > 0.65
        assert torch.allclose(study.share[name].sum(dim=1), torch.ones(4, dtype=torch.float64))
    assert study.tokens == 24 * 8 * 32
    every = tuple(study.before)
    value, ends, n = study.gain(DENSE, every)
    bits = {name: sum(float(part.nats.sum()) for part in losses.values()) / math.log(2) for name, losses in
            (("before", study.before), *study.after.items())}  # fmt: skip
    size = sum(int(part.n_bytes.sum()) for part in study.before.values())
    assert value == pytest.approx((bits["before"] - bits[DENSE]) / size) and ends.low < value < ends.high and n == 48
    assert study.gain(FAMILIES, every, over=RANDOM)[0] == pytest.approx((bits[RANDOM] - bits[FAMILIES]) / size)
    rows = list(study.rows())
    assert len(rows) == 3 * 3 + 2 + 2 * 2 and all(row.estimate is not None for row in rows)
    lines = expert_lines(study.summary(), Path("out"))
    assert any("Finnic" in line for line in lines) and str(Path("out") / "model") in lines[0]
    assert [name for _, (name, _) in study.numbered()] == list(GROUPS)
    flat = replace(study, seed=3)
    assert next(flat.rows()).seed == 3


def test_the_command_writes_a_mixture_that_transformers_opens(tmp_path, capsys, tokenizer):
    tiny_model("llama").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    for split, corpus in texts(12).items():
        (tmp_path / "corpus" / split).mkdir(parents=True)
        for tag, documents in corpus.items():
            (tmp_path / "corpus" / split / f"{tag}.txt").write_text("".join(f"{d.text}\n" for d in documents))
    words = ["experts", tmp_path / "model", tmp_path / "corpus", "--layers", 2, "--steps", 3, "--tokens-per-step", 64,
             "--max-length", 32, "--out", tmp_path / "out", "--json"]  # fmt: skip
    assert main([*map(str, words)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["families"]) == {"Indo-European", "Uralic"} and result["layers"] == [1, 2]
    assert set(result["more_than"]) == {RANDOM, DENSE} and result["logits_differ"] < 1e-5
    weights = [
        value.detach().double().flatten()
        for name, value in tiny_model("llama").named_parameters()
        if ".mlp." in name and ".layers.0." not in name
    ]
    assert result["learning_rate"] == pytest.approx(0.03 * float(torch.cat(weights).square().mean().sqrt()))
    rows = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert len(rows) == 3 * 3 + 2 + 2 * 2
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    assert (
        opened.config.num_experts == 2 and "Uralic (et, fi)" in (tmp_path / "out" / "model" / "README.md").read_text()
    )
    assert main([*map(str, words)]) == 1  # the folder is taken
    assert "experts" in (run_experts.__doc__ or "")
