"""The same model stays the same after edits without effect; another is told, by the settings or weights that differ."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from artifact_damage import as_before_hashes, reseal
from conftest import CONFIGS, tiny_model, tiny_tokenizer
from torch.nn.utils import prune
from torch.testing._internal.two_tensor import TwoTensor

from babelscope import (
    Direction,
    Language,
    Origin,
    Site,
    ablation_matrix,
    compare_answers,
    mean_direction,
    observe,
    open_model,
    origin_of,
    select_lape,
    steer,
    train_subnetwork,
)
from babelscope.artifacts.identity import compare_samples, pack_sample
from babelscope.artifacts.model_settings import deciding_settings, whole_config_hash
from babelscope.errors import ArtifactError, MeasurementError
from babelscope.models import check_made_for, weights_hash
from babelscope.models.origin import weights_sample
from babelscope.subnetworks import ElementDelta


def check(origin, model, tokenizer=None):
    check_made_for(origin, model, tokenizer, "artifact")


def refused(origin, model, tokenizer=None):
    with pytest.raises(ArtifactError) as caught:
        check(origin, model, tokenizer)
    text = str(caught.value)
    assert "\n" not in text and "babelscope.origin_of(model, tokenizer)" in text
    return text


HARMLESS = {
    "pad_token_id": 2, "eos_token_id": [2, 3], "bos_token_id": 5, "use_cache": False, "output_hidden_states": True,
    "attention_dropout": 0.1, "id2label": {0: "a"}, "initializer_range": 0.5,
    "max_position_embeddings": 4096, "_name_or_path": "/elsewhere", "architectures": ["X"], "return_dict": False,
    "chunk_size_feed_forward": 7, "transformers_version": "9", "tie_word_embeddings": True,
    "problem_type": "regression",
    "temperature": 0.3, "repetition_penalty": 1.2, "unsloth_version": "1", "note": "mine",
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_a_setting_without_effect_leaves_the_model_the_same(name):
    model = tiny_model("llama")
    origin = origin_of(model, None)
    setattr(model.config, name, HARMLESS[name])
    check(origin, model)
    assert origin_of(model, None).model_hash == origin.model_hash


@pytest.mark.parametrize("family", CONFIGS)
def test_saved_opened_and_converted_it_is_the_same_in_every_family(family, tmp_path):
    model = tiny_model(family)
    origin = origin_of(model, None)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    for dtype in ("float32", "bfloat16", "float16"):
        check(origin, open_model(tmp_path, device="cpu", dtype=dtype)[0])
    check(origin_of(model.to(torch.float16), None), model.to(torch.bfloat16))
    check(origin, copy.deepcopy(model).train())


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda config: setattr(config, "num_hidden_layers", 2), r"num_hidden_layers \(3 against 2\)"),
        (lambda config: config.rope_parameters.update(rope_theta=5e5), r"rope_theta \(10000 against 500000\)"),
        (lambda config: setattr(config, "rms_norm_eps", 1e-3), r"rms_norm_eps \(1e-06 against 0.001\)"),
        (lambda config: setattr(config, "hidden_act", "gelu"), r'hidden_act \("silu" against "gelu"\)'),
        (lambda config: setattr(config, "attention_bias", True), r"attention_bias \(unset against true\)"),
    ],
)  # fmt: skip
def test_a_setting_that_decides_is_named_with_both_values(edit, words):
    model = tiny_model("llama")
    origin = origin_of(model, None)
    edit(model.config)
    with pytest.raises(ArtifactError, match=words):
        check(origin, model)


def test_another_kind_of_model_is_said_by_its_name_alone():
    origin = origin_of(tiny_model("llama"), None)
    with pytest.raises(ArtifactError, match=r"another kind of model: llama against gpt2 \(") as error:
        check(origin, tiny_model("gpt2"))
    assert "settings differ" not in str(error.value) and "on purpose" not in str(error.value)


def test_positions_by_length_make_the_length_decide():
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    plain = {"model_type": "llama", "max_position_embeddings": 128, "rope_parameters": {"rope_type": "default"}}
    dynamic = {**plain, "rope_parameters": rope}
    assert deciding_settings(plain) == deciding_settings({**plain, "max_position_embeddings": 256})
    assert deciding_settings(dynamic) != deciding_settings({**dynamic, "max_position_embeddings": 256})
    learned = {"model_type": "opt", "max_position_embeddings": 128}
    assert deciding_settings(learned) != deciding_settings({**learned, "max_position_embeddings": 256})


def test_what_releases_write_differently_is_one():
    nested = {"full_attention": {"rope_theta": 1e6, "rope_type": "default"}}
    early = {"num_experts": 4, "rope_parameters": {**nested, "rope_theta": None, "rope_type": None}}
    late = {"num_local_experts": 4, "rope_parameters": nested, "novel": None, "other": False, "swiglu_limit": 7.0}
    assert deciding_settings(early) == deciding_settings(late)


@pytest.mark.filterwarnings("ignore")
def test_resized_embeddings_are_another_model():
    model = tiny_model("llama")
    origin = origin_of(model, None)
    model.resize_token_embeddings(320)
    assert "vocab_size (300 against 320)" in refused(origin, model)


def test_other_weights_are_another_model():
    origin = origin_of(tiny_model("llama"), None)
    assert "other weights (" in refused(origin, tiny_model("llama", seed=1))
    one = tiny_model("llama")
    with torch.no_grad():
        one.model.layers[1].mlp.up_proj.weight.mul_(1.05)
    assert "other weights (4 of 120 sampled values differ)" in refused(origin, one)


@pytest.mark.parametrize(
    "hook",
    [
        lambda projection: prune.random_unstructured(projection, "weight", amount=0.5),
        lambda projection: torch.nn.utils.spectral_norm(projection),
    ],
    ids=["pruned", "spectral norm"],
)
def test_weights_that_a_hook_makes_are_another_model(hook):
    origin = origin_of(tiny_model("llama"), None)
    with torch.random.fork_rng():
        one, other = tiny_model("llama"), tiny_model("llama")
        torch.manual_seed(0)
        for model in (one, other):
            hook(model.model.layers[1].mlp.up_proj)
    assert "made_by_hooks" in refused(origin, one)
    assert "made_by_hooks" in refused(origin_of(one, None), other)
    check(origin_of(one, None), one)


def test_what_is_made_of_a_steered_model_is_not_the_plain_ones():
    model, tokenizer, texts = tiny_model("llama"), tiny_tokenizer(), {"en": ["a b c d"] * 4, "fi": ["e f g h"] * 4}
    observation = observe(model, tokenizer, texts, sites=["mlp_gate", "resid_out"])
    sets = select_lape(observation, top_rate=0.5, filter_rate=0.5, bar_rate=0.5, min_count=1)
    push = mean_direction(observation, target="fi", layer=1).add(strength=1.0)
    with steer(model, push):
        with steer(model, push):
            pass
        for make in (
            lambda: compare_answers(model, tokenizer, push, ["a b"]),
            lambda: ablation_matrix(model, tokenizer, sets, {"en": ["b c d a"], "fi": ["h g f e"]}, controls=()),
            lambda: train_subnetwork(
                model, tokenizer, sets.only(["fi"]), texts["fi"], steps=1, max_length=4, tokens_per_step=4
            ),
        ):
            with pytest.raises(MeasurementError, match="this model is steered now"):
                make()
        again = observe(model, tokenizer, texts)
        with steer(model, push):
            twice = observe(model, tokenizer, texts)
    assert "steered" in refused(again.origin, model) and again.origin.hashes != twice.origin.hashes
    assert observe(model, tokenizer, texts).origin == observation.origin
    for nothing in ((), replace(push, strength=0.0)):
        with steer(model, nothing):
            assert observe(model, tokenizer, texts).origin == observation.origin
    with steer(model, push):
        assert observe(model, tokenizer, texts).origin == again.origin


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_beside_or_merged_is_another_model():
    peft = pytest.importorskip("peft")
    model = tiny_model("llama")
    origin = origin_of(model, None)
    with torch.random.fork_rng():
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
        assert "adapters" in refused(origin, adapted.base_model.model)
        assert "other weights" in refused(origin, adapted.merge_and_unload())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("change", ["off", "other", "stronger", "merged"])
def test_what_an_adapter_is_set_to_decides(change):
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    with torch.random.fork_rng():
        outer = peft.get_peft_model(tiny_model("llama"), settings)
        outer.add_adapter("second", settings)
    model = outer.base_model.model
    origin, whole = origin_of(model, None), weights_hash(model)
    check(origin, model)
    assert weights_hash(model) == whole
    if change == "off":
        outer.base_model.disable_adapter_layers()
    elif change == "other":
        outer.set_adapter("second")
    elif change == "stronger":
        model.model.layers[1].self_attn.q_proj.scaling["default"] *= 2
    else:
        outer.merge_adapter()
    named = {"off": "disable_adapters", "other": "active_adapter", "stronger": "scaling", "merged": "merged_adapters"}
    assert f"adapters.{named[change]}" in refused(origin, model)
    assert weights_hash(model) != whole


@pytest.mark.parametrize("part", ["packed", "scales"])
def test_every_byte_of_packed_weights_counts(part):
    def model():
        made = tiny_model("llama")
        layer = made.model.layers[1].mlp
        layer.register_buffer("packed", torch.arange(12, dtype=torch.int32))
        layer.register_buffer("scales", torch.ones(3, dtype=torch.float16))
        layer.register_buffer("passing", torch.ones(3), persistent=False)
        return made

    one, other = model(), model()
    assert weights_hash(one) == weights_hash(other) != weights_hash(tiny_model("llama"))
    other.model.layers[1].mlp.passing += 1
    assert weights_hash(one) == weights_hash(other)
    other.model.layers[1].mlp.get_buffer(part)[1] += 1
    assert weights_hash(one) != weights_hash(other)


def test_every_byte_of_a_tensor_made_of_tensors_counts():
    def model(last):
        made = tiny_model("llama")
        parts = torch.ones(2, 3), torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, last]])
        made.model.layers[1].packed = torch.nn.Parameter(TwoTensor(*parts), requires_grad=False)
        return made

    assert weights_hash(model(6.0)) == weights_hash(model(6.0)) != weights_hash(model(7.0))


def test_a_tied_head_is_the_same_as_its_copy():
    tied, loose = tiny_model("gemma3_text"), tiny_model("gemma3_text")
    loose.config.tie_word_embeddings = False
    loose.lm_head.weight = torch.nn.Parameter(loose.lm_head.weight.detach().clone())
    check(origin_of(tied, None), loose)
    with torch.no_grad():
        loose.lm_head.weight.mul_(2)
    assert "other weights" in refused(origin_of(tied, None), loose)


def test_every_byte_is_compared_where_it_was_asked_for():
    model = tiny_model("llama")
    sampled, whole = origin_of(model, None), origin_of(model, None, every_byte=True)
    check(whole, model)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    check(sampled, model)  # as documented: one value can be missed
    assert "weights_hash" in refused(whole, model)


def test_a_change_that_can_be_taken_out_leaves_the_model_its_own():
    model, other = tiny_model("llama"), tiny_model("llama")
    origin, name = origin_of(model, None), "model.layers.1.mlp.up_proj.weight"
    before = {name: other.get_parameter(name).detach().clone()}
    with torch.no_grad():
        other.get_parameter(name).add_(1)
    mask = {name: torch.ones_like(before[name], dtype=torch.bool)}
    delta = ElementDelta.between(before, other, mask, origin=origin, languages=["fi"])
    with delta.applied(model):
        check(origin, model)
        assert not compare_samples(origin.weights, origin_of(model, None).weights)
    assert "other weights" in refused(origin, other)


def test_samples_compare_within_a_rounding_and_leave_out_what_was_not_read():
    values = torch.tensor([1.0, -2.0, 0.0, 3e-8, torch.nan, 5.0])
    near = values * (1 + 2**-8)
    assert not compare_samples(pack_sample(values), pack_sample(near))
    far = values.clone()
    far[[0, 4, 5]] = torch.tensor([1.02, 7.0, torch.nan])
    assert compare_samples(pack_sample(values), pack_sample(far)) == "other weights (1 of 4 sampled values differ)"
    assert "6 sampled values against 5" in compare_samples(pack_sample(values), pack_sample(values[:5]))


def test_the_sample_has_values_of_every_parameter():
    model = tiny_model("mixtral")
    sample = weights_sample(model).view(-1, 4)
    names = sorted(name for name, _ in model.named_parameters(remove_duplicate=False))
    assert len(sample) == len(names)
    for row, name in zip(sample, names, strict=True):
        flat = model.get_parameter(name).detach().flatten()
        assert all(bool((flat == value).any()) for value in row if not value.isnan())


def test_another_tokenizer_is_told_by_its_parts():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    origin = origin_of(model, tokenizer)
    tokenizer.padding_side, tokenizer.pad_token = "left", tokenizer.eos_token
    tokenizer(["a", "bc"], padding=True)
    check(origin, model, tokenizer)
    assert "another tokenizer in its added_tokens, post_processor" in refused(origin, model, tiny_tokenizer(bos=False))
    tokenizer.add_tokens(["new"])
    assert "another tokenizer in its added_tokens" in refused(origin, model, tokenizer)


def test_artifacts_of_earlier_versions_are_compared_by_the_whole_configuration(tmp_path):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    new = origin_of(model, tokenizer)
    old = Origin(new.model, "", whole_config_hash(model.config.to_dict()), new.tokenizer_hash)
    fi, en = Language.parse("fi"), Language.parse("en")
    direction = Direction(torch.ones(32), Site(1, "resid_out"), fi, (en,), 1.0, new)
    direction.save(tmp_path / "d")
    file = tmp_path / "d" / "config.json"
    written = json.loads(file.read_text())
    written["origin"] = {name: getattr(old, name) for name in ("model", "revision", "model_hash", "tokenizer_hash")}
    file.write_text(json.dumps(written))
    loaded = Direction.load(as_before_hashes(tmp_path / "d"))
    assert loaded.origin == old
    with steer(model, loaded.add(1.0, "raw")):
        pass
    loaded.recipe(1.0, "raw").check(model)
    assert "as earlier versions made it" in refused(old, tiny_model("qwen2"))
    with pytest.raises(ArtifactError, match="as earlier versions made it"):
        old.check_same(new, "merging")


def test_an_origin_is_saved_and_read_whole(tmp_path):
    model, tokenizer = tiny_model("gemma3_text"), tiny_tokenizer()
    observation = observe(model, tokenizer, {"en": ["one text"] * 4, "fi": ["eri teksti"] * 4}, shards=2)
    observation.save(tmp_path / "o")
    loaded = type(observation).load(tmp_path / "o")
    origin = origin_of(model, tokenizer)
    assert loaded.origin == observation.origin == origin
    assert loaded.origin.config == json.loads(json.dumps(dict(origin.config))) and loaded.origin.weights
    with pytest.raises(ArtifactError, match="sampled values differ"):
        _ = loaded + replace(observation, origin=origin_of(tiny_model("gemma3_text", seed=1), tokenizer))


def test_a_damaged_origin_is_one_line(tmp_path):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    observation = observe(model, tokenizer, {"en": ["one text"] * 4, "fi": ["eri teksti"] * 4}, shards=2)
    sets = select_lape(observation, top_rate=0.2)
    file = sets.save(tmp_path / "s") / "config.json"
    whole = json.loads(file.read_text())
    for origin in ("x", {}, {**whole["origin"], "weights": "%"}, {**whole["origin"], "config": 3}, {"model": "m"}):
        file.write_text(json.dumps({**whole, "origin": origin}))
        with pytest.raises(ArtifactError, match="no readable origin"):
            type(sets).load(reseal(tmp_path / "s"))
