"""Every name of transformers, accelerate and torch internals stands in one place; a renamed one is never a result."""

import ast
import importlib
import inspect
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from encoder_models import encoder_model
from family_configs import family_model
from steering_cases import answer, cache_name, push
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, Cache, PretrainedConfig
from wrapper_configs import wrapper

import babelscope
from babelscope import layout_of, observe, open_model, read_site, steer
from babelscope.errors import PrerequisiteError, SiteError
from babelscope.evaluation.continuations import Continuations, continuation_log_probabilities
from babelscope.models import hooks
from babelscope.models.attention import attention_by
from babelscope.models.model_kind import quantisation_options
from babelscope.models.positions import batch_positions
from babelscope.probes import record_sentences
from babelscope.serving import ServedModels, served_application
from babelscope.sites import Site
from babelscope.upstream import compiled_modules, devices
from babelscope.upstream import forward as forward_module
from babelscope.upstream.config import config_field, with_mlp_biases
from babelscope.upstream.forward import forward_names, read_inputs
from babelscope.upstream.generation import chosen_by, copy_generation, is_paged
from babelscope.upstream.mixtures import mixture_config
from babelscope.upstream.names import NAMES, imported
from babelscope.upstream.openai_server import NEEDED
from babelscope.upstream.tokenizers import hide_progress

SOURCE = Path(babelscope.__file__).parent
FILES = [path for path in sorted(SOURCE.rglob("*.py")) if "upstream" not in path.relative_to(SOURCE).parts]
IDS = torch.arange(10, 22).view(2, 6)
MXFP4, FP8 = {"quant_method": "mxfp4"}, {"quant_method": "fp8"}
ORDINARY = {"counters", "cache", "scaling", "softcap", "logits", "model_type", "position_ids", "layer_idx", "dtype"}
"""Words of the seam's names that are also words of this library."""
MIXTURE_FIELDS = (
    *("qwen2_moe", "experts", "chosen_experts", "expert_width", "shared_width", "shares", "dense_layers"),
    *("sparse_step", "query_biases", "width", "head_width"),
)
"""What a dense model's mixture of experts is configured by."""


def attend(inputs):
    return torch.zeros_like(inputs.query)


def run_attention():
    with attention_by(model := tiny_model("llama"), attend):
        model(input_ids=IDS)


def run_experts(at, before="grouped_mm"):
    model = tiny_model("mixtral")
    model.set_experts_implementation(before)
    read_site(model, IDS, Site(1, at))


def read_bloom():
    model = tiny_model("bloom")
    model.config.slow_but_exact = True
    layout_of(model)


def read_positions():
    config = AutoConfig.for_model("llama", num_hidden_layers=1, hidden_size=32, num_attention_heads=4, vocab_size=9)
    config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert batch_positions(AutoModelForCausalLM.from_config(config))


def steer_and_answer(kind="llama"):
    model = tiny_model(kind)
    with steer(model, push()):
        answer(model, IDS)


def open_an_encoder():
    with TemporaryDirectory() as folder:
        AutoConfig.for_model("bert").save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        with pytest.raises(SiteError, match="an encoder"):
            open_model(folder)


def open_a_clip():
    with TemporaryDirectory() as folder:
        AutoConfig.for_model("clip").save_pretrained(folder)
        with pytest.raises(SiteError, match="writes none"):
            open_model(folder)


def look_for_accelerate():
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    devices._mark.cache_clear()
    devices.execution_device(add_hook_to_module(nn.Linear(2, 2), AlignDevicesHook("cpu")))


def load_the_tuner():
    """Load its modules anew, and put back those that were there and what PEFT knows of them: other tests hold them."""
    import peft

    names = [f"babelscope.adapters.{name}" for name in ("peft_linear", "peft_neurons")]
    earlier = {name: importlib.import_module(name) for name in names}
    tables = [table for name, table in vars(peft.mapping).items() if name.startswith("PEFT_TYPE_TO_")]
    copies = [dict(table) for table in tables]
    for name in names:
        sys.modules.pop(name, None)
    try:
        importlib.import_module(names[1])
    finally:
        sys.modules.update(earlier)
        for name, module in earlier.items():
            setattr(babelscope.adapters, name.rpartition(".")[2], module)
        for table, copy_of_table in zip(tables, copies, strict=True):
            table.clear()
            table.update(copy_of_table)


def build_a_server():
    for name in NEEDED:
        pytest.importorskip(name)
    models = ServedModels(tiny_model("llama"), tiny_tokenizer(), {}, "plain")
    served_application(models)
    models.get_model_modality(models.model)


def look_for_graphs():
    import torch._dynamo.utils

    module = nn.Linear(2, 2)
    module.forward = torch.compiler.disable(module.forward)
    compiled_modules.is_compiled(module)
    compiled_modules.compiled_frames()


def observe_tiny():
    observe(tiny_model("llama"), tiny_tokenizer(), {"en": ["the cat"], "fi": ["kissa"]}, shards=2)


def read_weights():
    layout_of(tiny_model("llama")).down_norm(0)


SCENES = {
    "forward": steer_and_answer,
    "experts.gated_product": lambda: run_experts("mlp_inner"),
    "attention": run_attention,
    "output.hidden": observe_tiny,
    "output.logits": lambda: read_site(tiny_model("llama"), IDS, Site(None, "logits")),
    "cache": steer_and_answer,
    "generate": steer_and_answer,
    "generate.processors": lambda: chosen_by(tiny_model("llama"), lambda ids, scores: scores),
    "config.tensor_parallel": read_bloom,
    "config.slow_but_exact": read_bloom,
    "tokenizer": lambda: babelscope.origin_of(tiny_model("llama"), tiny_tokenizer()),
    "transformers.utils": hide_progress,
    "transformers.rope": read_positions,
    "rope": read_positions,
    "config.parallel": lambda: layout_of(tiny_model("gpt_neox")),
    "config.norm_first": lambda: layout_of(tiny_model("opt")),
    "config.positions": lambda: layout_of(tiny_model("gpt2")).check_tokens(IDS),
    "config.attention": run_attention,
    "config.grouping": lambda: run_experts("mlp_gate"),
    "model.group_experts": lambda: run_experts("mlp_gate", "eager"),
    "model.attention_backend": run_attention,
    "transformers": run_attention,
    "loading": lambda: open_model("reference"),
    "model.embedding": lambda: open_model("reference"),
    "model.generation": lambda: copy_generation(tiny_model("llama"), tiny_model("llama")),
    "config.architectures": lambda: open_model("reference"),
    "config.encoder_decoder": open_an_encoder,
    "transformers.encoders": open_an_encoder,
    "transformers.writers": open_a_clip,
    "transformers.writing_wrappers": open_a_clip,
    "transformers.mxfp4": lambda: quantisation_options("a", PretrainedConfig(quantization_config=MXFP4), False),
    "transformers.fp8": lambda: quantisation_options("a", PretrainedConfig(quantization_config=FP8), False),
    "transformers.conv1d": lambda: layout_of(tiny_model("gpt2")),
    "transformers.files": lambda: imported("transformers.utils.hub", "transformers.files"),
    "accelerate.utils": read_weights,
    "accelerate": look_for_accelerate,
    "mark": look_for_accelerate,
    "torch": look_for_graphs,
    "peft": load_the_tuner,
    "server": build_a_server,
    "config.mlp_biases": lambda: with_mlp_biases(tiny_model("llama").config),
    "config.attention_biases": lambda: with_mlp_biases(tiny_model("mistral").config),
    "config.llama": lambda: with_mlp_biases(tiny_model("mistral").config),
    **dict.fromkeys(
        (f"config.{name}" for name in MIXTURE_FIELDS),
        lambda: mixture_config(tiny_model("llama").config, dense=[0], experts=2, top_k=1),
    ),
    "config.qwen3_moe": lambda: mixture_config(tiny_model("qwen3").config, dense=[0], experts=2, top_k=1),
}
"""By the beginning of a key: what a person does that reads the name."""


def first_of_named_arguments():
    hooks.first_argument((), {"hidden_states": torch.zeros(1, 1, 2)})


def experts_of_named_arguments():
    hooks.chosen_experts((), {"top_k_index": IDS})


def weights_of_named_arguments():
    hooks.expert_weights((), {"top_k_weights": torch.ones(2, 6)})


def write_a_router():
    layout = layout_of(family_model("phimoe"))
    with layout.edit(Site(1, "router"), torch.clone):
        layout.model(input_ids=IDS, use_cache=False)


def take_the_text_out():
    babelscope.text_part(wrapper("qwen2_vl"))


def open_a_wrapper():
    with TemporaryDirectory() as folder:
        wrapper("gemma3").save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        open_model(folder, device="cpu")


def score_continuations():
    continuation_log_probabilities(layout_of(tiny_model("llama")), [Continuations((1, 5), ((6, 7), (8, 9)))])


def read_with_an_encoder(kind="bert"):
    record_sentences(encoder_model(kind), tiny_tokenizer(), {"en": ["a b", "c d"], "fi": ["e f", "g h"]})


SCENES |= {
    "encoder": read_with_an_encoder,
    "output.states": read_with_an_encoder,
    "model.body": read_with_an_encoder,
    "model.encoder": lambda: read_with_an_encoder("mt5"),
    "transformers.text_encoders": lambda: read_with_an_encoder("mt5 encoder"),
    "output.cache": score_continuations,
    "cache.select": score_continuations,
    "cache.paged": lambda: is_paged(object()),
    "block": first_of_named_arguments,
    "experts.chosen": experts_of_named_arguments,
    "experts.weights": weights_of_named_arguments,
    "experts.limit": lambda: babelscope.check_family(family_model("gpt_oss")),
    "experts.slope": lambda: babelscope.check_family(family_model("gpt_oss")),
    "router.slack": write_a_router,
    "model.decoder": take_the_text_out,
    "accelerate.empty": take_the_text_out,
    "model.renamings": open_a_wrapper,
    "config.text": take_the_text_out,
    "config.tied": take_the_text_out,
    "config.dtype": take_the_text_out,
}


def scene_of(key):
    """The scene with the longest beginning of a key."""
    return SCENES[max((begin for begin in SCENES if key.startswith(begin)), key=len)] if key in KEYS else None


KEYS = [key for key in NAMES if key not in ("config.commit", "attention.window", "attention.softcap")]
SCENES |= {
    "config": lambda: config_and_origin(tiny_model("llama")),
    "model.head": lambda: read_site(tiny_model("llama"), IDS, Site(None, "logits")),
}


def config_and_origin(model):
    layout = layout_of(model)
    layout.width("logits")
    babelscope.origin_of(model, None)


@pytest.mark.parametrize("key", KEYS)
def test_a_renamed_name_is_one_line_and_never_a_result(key, monkeypatch):
    scene = scene_of(key)
    scene()
    monkeypatch.setitem(NAMES, key, ("renamed_upstream",))
    with pytest.raises(
        PrerequisiteError, match=r"(transformers|accelerate|torch|peft) \d+.*'renamed_upstream'"
    ) as caught:
        scene()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("family", "key"), [("gemma3_text", "attention.window"), ("gemma2", "attention.softcap")])
def test_an_attention_setting_under_an_unknown_name_is_refused(family, key, monkeypatch):
    model = tiny_model(family)
    with attention_by(model, attend):
        model(input_ids=IDS)
    monkeypatch.setitem(NAMES, key, ("renamed_upstream",))
    with pytest.raises(SiteError, match="does not know") as caught, attention_by(model, attend):
        model(input_ids=IDS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["ids", "embeds", "mask", "positions", "cache", "use_cache"])
def test_a_forward_with_another_argument_is_refused_when_the_model_is_opened(part, monkeypatch):
    model = tiny_model("llama")
    old = forward_names(model.model)._asdict()[part]
    kind = type(model.model)
    signature = inspect.signature(kind.forward)
    renamed = [p.replace(name="renamed") if name == old else p for name, p in signature.parameters.items()]
    plain = kind.forward

    def forward(self, *args, **kwargs):
        return plain(self, *args, **kwargs)

    forward.__signature__ = signature.replace(parameters=renamed)  # pyright: ignore[reportFunctionMemberAccess]
    monkeypatch.setattr(kind, "forward", forward)
    forward_module._names_of.cache_clear()
    with pytest.raises(PrerequisiteError, match=f"LlamaModel.forward has no '?.*{old}"):
        layout_of(model)
    forward_module._names_of.cache_clear()


def test_a_field_that_a_family_names_and_the_configuration_lacks_is_refused():
    model = tiny_model("llama")
    layout = replace(layout_of(model), family=replace(layout_of(model).family, softcap="renamed_upstream"))
    with pytest.raises(PrerequisiteError, match=r"transformers \d+.*'renamed_upstream'"):
        layout.logits(torch.zeros(1, layout.d_hidden))
    assert config_field(tiny_model("gemma2").config, "final_logit_softcapping")


def test_a_cache_without_its_length_stops_the_answer(monkeypatch):
    model = tiny_model("llama")
    monkeypatch.delattr(Cache, "get_seq_length")
    with pytest.raises(PrerequisiteError, match="get_seq_length"), steer(model, push()):
        model(input_ids=IDS, **{cache_name(model): Cache(layers=[])})


def test_a_cache_is_read_by_its_old_name_too():
    names, cache = forward_names(tiny_model("llama").model), object()
    for name in NAMES["forward.cache"]:
        assert read_inputs(names, (), {name: cache}).cache is cache


def test_arguments_are_read_with_and_without_names():
    names = forward_names(tiny_model("llama").model)
    mask = torch.ones_like(IDS)
    assert read_inputs(names, (IDS, mask), {}).mask is read_inputs(names, (IDS,), {names.mask: mask}).mask


def tree(path):
    return ast.walk(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_soft_default_and_no_upstream_name_outside_the_seam(path):
    """`getattr(x, "name", default)`, `hasattr(x, "name")`, `.get("name")` and `x["name"]` read softly or by hand."""
    upstream = {name for names in NAMES.values() for name in names} - ORDINARY
    for node in tree(path):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            text = ast.unparse(node)
            soft = node.func.id == "getattr" and len(node.args) == 3 or node.func.id == "hasattr"
            literal = soft and isinstance(node.args[1], ast.Constant) and not str(node.args[1].value).startswith("__")
            assert not literal or text in OURS, f"line {node.lineno}: {text}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "pop"):
            first = node.args[0] if node.args else None
            assert not (isinstance(first, ast.Constant) and first.value in upstream), f"line {node.lineno}"
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            assert node.slice.value not in upstream - HARNESS, f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Attribute):
            assert node.attr not in upstream - HARNESS, f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("transformers", "accelerate"):
            assert node.module == "transformers", f"line {node.lineno}: {node.module} is no public module"


HARNESS = {"input_ids", "attention_mask"}
"""Keys of what a tokenizer returns, and attributes of this library's own batches."""
OURS = {
    "getattr(err, 'errno', None)",
    "getattr(err, 'strerror', None)",
    "hasattr(part, 'check')",
    "getattr(sets, 'sets', sets)",
    "hasattr(value, '_asdict')",
    "hasattr(member, '_fields')",
    "hasattr(value, 'tolist')",
    "hasattr(projection, 'in_features')",
}
"""Attributes of this library's own objects, absent until they are set, and of Python's and numpy's."""
