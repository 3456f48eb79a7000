"""Weights are never read past the module that holds them: honoured, or refused in one line with the way out."""

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from peft import IA3Config, LoraConfig, get_peft_model
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from training_cases import TEXT, some_neurons

import babelscope as bs
from babelscope import layout_of
from babelscope.errors import PrerequisiteError
from babelscope.probes.geometry.entries import embedding_tables
from babelscope.probes.units.head_sums import gram_of

pytestmark = [
    # peft 0.21 asks for a property that transformers deprecates; torch.compile imports torch.jit.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]
TEXTS = {"en": ["hello there", "a house"], "eu": ["etxe bat", "mendi"]}


class Scaled(nn.Module):
    """A user's module around a projection."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return 3 * self.inner(x)


def lora(model):
    get_peft_model(model, LoraConfig(r=2, target_modules=["down_proj"], init_lora_weights=False))
    return model


def dora(model):
    get_peft_model(model, LoraConfig(r=2, target_modules=["down_proj"], use_dora=True, init_lora_weights=False))
    return model


def merged(model):
    get_peft_model(model, LoraConfig(r=2, target_modules=["down_proj"], init_lora_weights=False)).merge_adapter()
    return model


def ia3(model):
    settings = {"target_modules": ["down_proj"], "feedforward_modules": ["down_proj"], "init_ia3_weights": False}
    get_peft_model(model, IA3Config(**settings))
    return model


def weight_norm(model):
    for layer in model.model.layers:
        parametrizations.weight_norm(layer.mlp.down_proj)
        with torch.no_grad():
            layer.mlp.down_proj.parametrizations.weight.original0.mul_(2)
    return model


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def doubled(model):
    for layer in model.model.layers:
        parametrize.register_parametrization(layer.mlp.down_proj, "weight", Doubled())
    return model


def wrapped(model):
    for layer in model.model.layers:
        layer.mlp.down_proj = Scaled(layer.mlp.down_proj)
    return model


def patched(model):
    for layer in model.model.layers:
        plain = layer.mlp.down_proj.forward
        layer.mlp.down_proj.forward = lambda x, plain=plain: 2 * plain(x)
    return model


def plain_tensor(model):
    for layer in model.model.layers:
        weight = layer.mlp.down_proj.weight.detach()
        del layer.mlp.down_proj.weight
        layer.mlp.down_proj.weight = weight * 2
    return model


CASES = {
    "lora": (lora, "an adapter"),
    "dora": (dora, "an adapter"),
    "merged": (merged, "an adapter"),
    "ia3": (ia3, "an adapter"),
    "weight_norm": (weight_norm, "parametrised"),
    "doubled": (doubled, "parametrised"),
    "wrapped": (wrapped, "a Scaled stands in its place"),
    "patched": (patched, "forward of a Linear was replaced"),
    "plain_tensor": (plain_tensor, "is no parameter of it"),
}


@pytest.mark.parametrize("case", CASES)
def test_columns_are_those_that_the_module_gives(case):
    model = CASES[case][0](tiny_model("llama")).eval()
    layout, down = layout_of(model), model.model.layers[1].mlp.down_proj
    with torch.no_grad():
        expected = down(torch.eye(48)).double().norm(dim=1)
    torch.testing.assert_close(layout.down_norm(1), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_rows_to_write_are_refused_with_the_way_out(case):
    neurons = some_neurons(tiny_model("llama"))
    model = CASES[case][0](tiny_model("llama"))
    with pytest.raises(PrerequisiteError, match=CASES[case][1]):
        layout_of(model).neuron_rows(1)
    with pytest.raises(PrerequisiteError, match=CASES[case][1]):
        bs.train_subnetwork(model, tiny_tokenizer(), neurons, TEXT, steps=1, max_length=32)


def test_hooks_of_others_on_a_projection_are_refused():
    model = tiny_model("llama")
    handle = model.model.layers[1].mlp.down_proj.register_forward_hook(lambda module, args, output: 2 * output)
    with pytest.raises(PrerequisiteError, match="hooks that others put .*remove them first"):
        layout_of(model).neuron_rows(1)
    with pytest.raises(PrerequisiteError, match="hooks that others put .*remove them first"):
        layout_of(model).down_norm(1)
    handle.remove()
    assert layout_of(model).down_norm(1).shape == (48,)


def test_a_wrapper_that_is_no_linear_map_is_refused():
    model = tiny_model("llama")
    model.model.layers[1].mlp.down_proj = nn.Sequential(model.model.layers[1].mlp.down_proj, nn.Tanh())
    with pytest.raises(PrerequisiteError, match="no linear map"):
        layout_of(model).down_norm(1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_default_dtype_is_one_line(dtype, tokenizer):
    model, before = tiny_model("llama"), torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        for call in (lambda: layout_of(model), lambda: bs.origin_of(model, None)):
            with pytest.raises(PrerequisiteError, match=f"default dtype is {dtype}; .* call torch.set_default_dtype"):
                call()
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("wrap", ["peft", "parallel", "compiled"])
def test_a_wrapped_model_is_refused_everywhere_in_the_same_line(wrap):
    model, neurons = tiny_model("llama"), some_neurons(tiny_model("llama"))
    if wrap == "peft":
        outer, line = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])), "get_base_model"
    elif wrap == "parallel":
        outer, line = nn.DataParallel(model), "model.module"
    else:
        outer, line = torch.compile(model), "handed|hand over the model that was given to torch.compile"
    for call in (
        lambda: bs.observe(outer, tiny_tokenizer(), TEXTS, shards=0),
        lambda: bs.steer(outer).__enter__(),
        lambda: bs.train_subnetwork(outer, tiny_tokenizer(), neurons, TEXT, steps=1, max_length=32),
        lambda: bs.read_site(outer, torch.ones(1, 3, dtype=torch.int64), bs.Site(1, "resid_out")),
        lambda: layout_of(outer),
    ):
        with pytest.raises(PrerequisiteError, match=line):
            call()


def tables_of(model, targets, **settings):
    get_peft_model(model, LoraConfig(r=2, target_modules=targets, init_lora_weights=False, **settings))


TABLE_CASES = {
    "lora on the input": (lambda model: tables_of(model, ["embed_tokens"]), "the input embedding: .*an adapter"),
    "lora on the head": (lambda model: tables_of(model, ["lm_head"]), "the head: .*an adapter"),
    "a whole copy": (lambda model: tables_of(model, ["q_proj"], modules_to_save=["lm_head"]), "the head: .*an adapter"),
    "parametrised": (
        lambda model: parametrize.register_parametrization(model.model.embed_tokens, "weight", Doubled()),
        "the input embedding: .*parametrised",
    ),
    "wrapped": (lambda model: setattr(model, "lm_head", Scaled(model.lm_head)), "the head: .*a Scaled stands"),
    "hooked": (
        lambda model: model.model.embed_tokens.register_forward_hook(lambda module, args, output: 2 * output),
        "the input embedding: .*hooks that others put",
    ),
}


@pytest.mark.parametrize("case", TABLE_CASES)
def test_embedding_tables_that_are_not_all_are_refused_with_the_way_out(case):
    model = tiny_model("llama")
    with torch.random.fork_rng():
        TABLE_CASES[case][0](model)
    with pytest.raises(PrerequisiteError, match=TABLE_CASES[case][1]):
        embedding_tables(model)


def test_tables_are_the_stored_rows_and_gemmas_input_is_them_times_one_factor():
    model = tiny_model("gemma3_text")
    tables, embedding = embedding_tables(model), model.get_input_embeddings()
    assert list(tables) == ["input"] and torch.equal(tables["input"], embedding.weight.double())
    given = embedding(torch.arange(8)).double()
    torch.testing.assert_close(given, tables["input"][:8] * model.config.hidden_size**0.5)
    apart = embedding_tables(tiny_model("llama"))
    assert list(apart) == ["input", "output"] and not torch.equal(apart["input"], apart["output"])


@torch.no_grad()
@pytest.mark.parametrize("change", ["plain", "lora", "wrapped"])
def test_lengths_of_what_heads_write_are_those_of_the_module(change):
    model = tiny_model("llama").eval()
    if change == "lora":
        with torch.random.fork_rng():
            tables_of(model, ["o_proj"], lora_dropout=0.5)
        model.train()
    attention = model.model.layers[1].self_attn
    if change == "wrapped":
        attention.o_proj = Scaled(attention.o_proj)
    layout = layout_of(model)
    gram = gram_of(layout, 1)
    z = torch.randn(3, layout.width("attn_heads"), generator=torch.Generator().manual_seed(0))
    for head in range(layout.n_heads):
        alone = torch.zeros_like(z).view(3, layout.n_heads, -1)
        alone[:, head] = z.view(3, layout.n_heads, -1)[:, head]
        written = attention.o_proj.eval()(alone.flatten(1)).norm(dim=1)
        part = alone[:, head]
        torch.testing.assert_close((part @ gram[head] * part).sum(dim=1).sqrt(), written, rtol=1e-4, atol=1e-5)


def test_hooks_of_others_on_a_heads_projection_are_refused():
    model = tiny_model("llama")
    model.model.layers[1].self_attn.o_proj.register_forward_hook(lambda module, args, output: 2 * output)
    with pytest.raises(PrerequisiteError, match="o_proj: hooks that others put"):
        gram_of(layout_of(model), 1)


class Int8Params(nn.Parameter):
    """As bitsandbytes' own, without its device."""


def test_weights_whose_counts_follow_the_batch_are_said(caplog):
    model, settings = tiny_model("llama"), {"shards": 0, "tokens_per_language": None}
    with caplog.at_level("WARNING"):
        bs.observe(model, tiny_tokenizer(), TEXTS, **settings)
        assert "8-bit weights" not in caplog.text
        # An 8-bit parameter beside, which no pass reads.
        Int8Params.__module__ = "bitsandbytes.nn.modules"
        model.model.packed = Int8Params(torch.ones(2, dtype=torch.int8), requires_grad=False)
        bs.observe(model, tiny_tokenizer(), TEXTS, **settings)
    assert caplog.text.count("counts vary a little with batch_size") == 1
