"""What a model's name stands for, which sites a family has, and how a router chooses, each worked out by hand."""

import json

import pytest
import torch
from conftest import tiny_model
from safetensors.torch import save_file

from babelscope import Site
from babelscope.errors import PrerequisiteError, SiteError
from babelscope.models import layout_of, read_site
from babelscope.models.checkpoints import adapter_error, check_weight_files, find_checkpoint, own_code
from babelscope.models.expert_hooks import softmax_choice, softmax_of_chosen, sparsemixer_choice
from babelscope.models.families import FAMILIES
from babelscope.models.finding import find_layout
from babelscope.models.gguf_files import check_gguf, forget_packing
from babelscope.models.model_names import check_model_name, is_path
from babelscope.models.site_check import check_ids, check_site
from babelscope.reference import MODEL as REFERENCE_MODEL
from babelscope.upstream.registries import attention_entry, experts_run_by, read_attention_call, uses_registry


@pytest.mark.parametrize(
    ("name", "path"),
    [("org/name", False), ("name", False), ("a/b/c", True), ("./a", True), ("~/m", True), ("a b", True)],
)
def test_a_name_that_can_be_no_id_is_a_path(name, path):
    assert is_path(name) is path


def test_a_path_where_nothing_is_is_refused_and_an_id_is_looked_up_later(tmp_path):
    for name in ("reference", str(tmp_path), "org/name"):
        check_model_name(name)
    for name in (str(tmp_path / "nothing"), "model.gguf", "org/name/more"):
        with pytest.raises(PrerequisiteError, match="nothing is there"):
            check_model_name(name)


def test_a_name_stands_for_the_bundled_model_a_folder_or_an_id(tmp_path):
    assert find_checkpoint("reference").source == str(REFERENCE_MODEL)
    (tmp_path / "config.json").write_text("{}")
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    assert find_checkpoint(str(tmp_path)).local == tmp_path
    hub = find_checkpoint("org/name")
    assert hub.local is None and hub.source == "org/name"


def test_a_folder_of_something_else_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"format": "babelscope.NeuronSet/2"}))
    with pytest.raises(PrerequisiteError, match="is a babelscope NeuronSet; expected a model"):
        find_checkpoint(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "org/base", "peft_type": "LORA"})
    )
    with pytest.raises(PrerequisiteError, match="org/base"):
        find_checkpoint(str(tmp_path))
    assert "org/base" in adapter_error("mine", {"base_model_name_or_path": "org/base", "peft_type": "LORA"})
    (tmp_path / "weights.bin").touch()
    with pytest.raises(PrerequisiteError, match="is a single .bin; expected a folder"):
        find_checkpoint(str(tmp_path / "weights.bin"))


def test_pickled_weights_alone_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(PrerequisiteError, match="safetensors"):
        check_weight_files(find_checkpoint(str(tmp_path)))


def test_the_code_that_a_tokenizer_asks_for_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    checkpoint = find_checkpoint(str(tmp_path))
    assert own_code(checkpoint) == ""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": "theirs.Tokenizer"}}))
    assert "auto_map" in own_code(checkpoint) and "theirs.Tokenizer" in own_code(checkpoint)


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"not a model at all, but long enough to be read")
    with pytest.raises(PrerequisiteError, match="model.gguf"):
        check_gguf(tmp_path / "model.gguf")


def test_marks_of_packed_weights_are_taken_away_and_packed_weights_are_refused(tmp_path):
    model = tiny_model("llama")
    model.config.quantization_config = {"quant_method": "gguf"}
    forget_packing(model, tmp_path / "model.gguf")
    assert "quantization_config" not in vars(model.config)
    model.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(torch.ones(48, 32, dtype=torch.int8), False)
    with pytest.raises(PrerequisiteError, match="kept weights packed .model.layers.0.mlp.up_proj.weight"):
        forget_packing(model, tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("site", "family", "settings", "message"),
    [
        (Site(3, "mlp_out"), "llama", {}, "has layers 0–2"),
        (Site(1, "router"), "llama", {}, "is dense; expected a model with experts"),
        (Site(1, "resid_mid"), "gptj", {}, "runs attention and MLP side by side"),
        (Site(1, "attn_out"), "qwen3_next", {"lacking": (0, 1)}, "give one of 2"),
    ],
)
def test_a_site_that_a_model_lacks_is_refused_with_the_reason(site, family, settings, message):
    with pytest.raises(SiteError, match=message):
        check_site(site, FAMILIES[family], family, layers=3, routed=False, **settings)


def test_sites_that_are_there_pass():
    check_site(Site(2, "mlp_out"), FAMILIES["llama"], "llama", layers=3, routed=False)
    check_site(Site(2, "attn_out"), FAMILIES["qwen3_next"], "qwen3_next", layers=3, routed=True, lacking=(0, 1))


def test_ids_must_have_a_row_and_a_position():
    ids = torch.tensor([[1, 9]])
    check_ids(ids, "llama", rows=10, positions=2)
    check_ids(torch.zeros(1, 0, dtype=torch.int64), "llama", rows=10, positions=None)
    with pytest.raises(PrerequisiteError, match="token 9 came; this llama has 9 of them"):
        check_ids(ids, "llama", rows=9, positions=None)
    with pytest.raises(PrerequisiteError, match="a text of 2 tokens came; this llama has 1 positions"):
        check_ids(ids, "llama", rows=10, positions=1)


def test_a_layout_says_how_large_a_model_is():
    layout = find_layout(tiny_model("mixtral"))
    assert (layout.n_layers, layout.d_hidden, layout.d_neuron, layout.n_heads, layout.n_experts) == (3, 32, 48, 4, 4)
    model = tiny_model("llama")
    del model.model.layers[1].mlp
    with pytest.raises(SiteError, match="lacks a module .*mlp"):
        find_layout(model)


SCORES = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 3.0, 2.9, 3.1]])


def test_experts_are_chosen_by_a_softmax_over_all_or_over_the_chosen():
    p = SCORES.double().exp() / SCORES.double().exp().sum(dim=1, keepdim=True)
    plain, index = softmax_choice(False)(SCORES, 2)
    assert index.tolist() == [[0, 1], [3, 1]]
    assert torch.allclose(plain.double(), p.gather(1, index), atol=1e-6)
    shares, _ = softmax_choice(True)(SCORES, 2)
    chosen, same = softmax_of_chosen(SCORES, 2)
    assert torch.equal(index, same) and torch.allclose(shares, chosen, atol=1e-6), "renormalised, the two are one rule"
    assert torch.allclose(chosen.sum(dim=1), torch.ones(2))


def test_the_sparse_mixer_weighs_each_choice_by_the_scores_near_it():
    weights, index = sparsemixer_choice(0.01)(SCORES, 2)
    assert index.tolist() == [[0, 1], [3, 1]]
    # First row: nothing is within 2 % of 2.0, and nothing but the first within 2 % of 1.0 at its turn.
    assert weights[0].tolist() == pytest.approx([1.0, 1.0])
    # Second row, first turn: within 2 % of 3.1 lies no other; second turn: 2.9 is 3 % away from 3.0.
    wide, _ = sparsemixer_choice(0.05)(SCORES, 1)
    near = torch.tensor([3.0, 2.9, 3.1]).double().exp()
    assert float(wide[1, 0]) == pytest.approx(float(near[2] / near.sum()), abs=1e-6)


def test_an_attention_of_ones_own_stands_in_the_table_and_is_taken_out():
    model, calls = tiny_model("llama"), []
    assert uses_registry(model)
    before = model.config._attn_implementation
    ids = torch.tensor([[1, 5, 7, 9]])
    expected = read_site(model, ids, Site(0, "attn_heads"))

    def attend(module, query, key, value, mask, **settings):
        call = read_attention_call(module, settings)
        calls.append(call)
        keys, values = (part.repeat_interleave(2, dim=1) for part in (key, value))
        scores = query @ keys.mT * call.scale + torch.full((4, 4), float("-inf")).triu(1)
        return (scores.softmax(dim=-1) @ values).transpose(1, 2), None

    with attention_entry(model, "by_hand", attend):
        found = read_site(model, ids, Site(0, "attn_heads"))
        with pytest.raises(SiteError, match="another probe already stands"), attention_entry(model, "by_hand", attend):
            pass
    assert torch.allclose(found, expected, atol=1e-5) and model.config._attn_implementation == before
    assert {call.layer for call in calls} == {0, 1, 2} and {call.scale for call in calls} == {8**-0.5}


def test_a_setting_of_attention_that_is_not_known_is_refused():
    layer = tiny_model("llama").model.layers[1].self_attn
    assert read_attention_call(layer, {"scaling": 0.5, "sliding_window": 3, "dropout": 0.0})[:3] == (1, 0.5, 3)
    with pytest.raises(SiteError, match="hands 'sinks' to its attention"):
        read_attention_call(layer, {"scaling": 0.5, "sinks": torch.ones(4)})


def test_experts_are_run_in_a_way_that_the_model_names():
    assert experts_run_by(layout_of(tiny_model("mixtral")).model) in (None, "eager", "grouped_mm", "batched_mm")
