"""A merged checkpoint loads in plain transformers with the same weights, dtype and tokenizer."""

import json

import pytest
import torch
from conftest import CONFIGS, tiny_model, tiny_tokenizer
from delta_cases import bits, random_delta, same_bits
from torch.nn.utils import parametrize
from transformers import AutoModelForCausalLM, AutoTokenizer

from babelscope import origin_of
from babelscope.adapters.merged import export_merged
from babelscope.errors import ArtifactError, PrerequisiteError
from babelscope.subnetworks.applied import active_changes


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "dtype"),
    [*((family, torch.float32) for family in CONFIGS), ("llama", torch.bfloat16), ("gpt2", torch.float16)],
)
def test_a_merged_checkpoint_speaks_as_the_model_with_the_delta(family, dtype, tmp_path, ids):
    tiny_model(family, dtype=dtype).save_pretrained(tmp_path / "base")
    # Opened, not converted: model.to(dtype) would cast the rotary frequencies too.
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype="auto")
    before, delta, origin = bits(model), random_delta(model), origin_of(model, None)
    path = export_merged(model, tiny_tokenizer(), tmp_path / "merged", changes=[delta])
    assert same_bits(before, model) and origin_of(model, None) == origin and not active_changes(model)
    loaded = AutoModelForCausalLM.from_pretrained(path, dtype="auto")
    assert loaded.dtype == dtype
    with delta.applied(model):
        assert same_bits(bits(model), loaded)
        assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert AutoTokenizer.from_pretrained(path)("Kaixo").input_ids == tiny_tokenizer()("Kaixo").input_ids


def test_several_changes_are_merged_beside_those_already_there(tmp_path):
    model = tiny_model("llama")
    before = bits(model)
    a, b, c = (random_delta(model, share=0.5, seed=seed) for seed in range(3))
    a.apply(model, 0.5)
    path = export_merged(model, tiny_tokenizer(), tmp_path / "merged", changes=[b, c], scale=-1)
    assert [change for change, _ in active_changes(model)] == [a]
    other = tiny_model("llama")
    for delta, scale in ((c, -1), (a, 0.5), (b, -1)):
        delta.apply(other, scale)
    assert same_bits(bits(other), AutoModelForCausalLM.from_pretrained(path))
    named = json.loads((path / "config.json").read_text())["babelscope_changes"]
    assert {(digest, scale) for _, digest, scale in named} == {(a.digest, 0.5), (b.digest, -1), (c.digest, -1)}
    a.revert(model)
    assert same_bits(before, model)


def test_exporting_leaves_the_config_as_it_was(tmp_path):
    model = tiny_model("llama")
    before = dict(vars(model.config))
    export_merged(model, tiny_tokenizer(), tmp_path / "merged", changes=[random_delta(model)])
    assert vars(model.config) == before and before["architectures"] is None


def test_a_merged_model_is_another_model(tmp_path):
    model = tiny_model("llama")
    delta = random_delta(model)
    loaded = AutoModelForCausalLM.from_pretrained(
        export_merged(model, tiny_tokenizer(), tmp_path / "merged", changes=[delta])
    )
    with pytest.raises(ArtifactError, match="made for"):
        delta.apply(loaded)


def test_what_can_not_be_merged_leaves_nothing(tmp_path, monkeypatch):
    model = tiny_model("llama")
    before, delta = bits(model), random_delta(model)
    with pytest.raises(ArtifactError, match="no change came"):
        export_merged(model, tiny_tokenizer(), tmp_path / "merged")
    delta.apply(model)
    with pytest.raises(ArtifactError, match="applied already"):
        export_merged(model, tiny_tokenizer(), tmp_path / "merged", changes=[delta])
    delta.revert(model)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(PrerequisiteError, match="the disk is full"):
        export_merged(model, tiny_tokenizer(), tmp_path / "merged", changes=[delta])
    assert not list(tmp_path.iterdir()) and same_bits(before, model)


def adapt(model, targets, **settings):
    peft = pytest.importorskip("peft")
    peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False, **settings))


class Twice(torch.nn.Module):
    def forward(self, weight):
        return 2 * weight


class Around(torch.nn.Module):
    """A user's module around another."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return 2 * self.inner(x)


BESIDE = {
    "attention adapter": (lambda model: adapt(model, ["q_proj"]), "q_proj: .*an adapter"),
    "embedding adapter": (lambda model: adapt(model, ["embed_tokens"]), "embed_tokens: .*an adapter"),
    "head copy": (lambda model: adapt(model, ["q_proj"], modules_to_save=["lm_head"]), "an adapter"),
    "norm parametrised": (
        lambda model: parametrize.register_parametrization(model.model.norm, "weight", Twice()),
        "model.norm: .*parametrised",
    ),
    "head parametrised": (
        lambda model: parametrize.register_parametrization(model.lm_head, "weight", Twice()),
        "lm_head: .*parametrised",
    ),
    "wrapped": (
        lambda model: setattr(
            model.model.layers[0].self_attn, "o_proj", Around(model.model.layers[0].self_attn.o_proj)
        ),
        "o_proj: .*a Around stands there",
    ),
    "replaced": (
        lambda model: setattr(model.model.norm, "forward", lambda x: 2 * x),
        "model.norm: .*was replaced",
    ),
    "hooked": (
        lambda model: model.model.layers[1].self_attn.register_forward_pre_hook(lambda module, args: None),
        "self_attn: .*hooks that others put",
    ),
}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("case", BESIDE)
def test_what_a_plain_checkpoint_would_not_compute_is_refused(case, tmp_path):
    model = tiny_model("llama")
    with torch.random.fork_rng():
        BESIDE[case][0](model)
    delta = random_delta(tiny_model("llama"))
    with pytest.raises(PrerequisiteError, match=BESIDE[case][1]):
        export_merged(model, tiny_tokenizer(), tmp_path / "merged", changes=[delta])
    assert not list(tmp_path.iterdir()) and not active_changes(model)
