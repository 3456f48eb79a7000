"""What people hand to open_model: opened as what it is, or one line that says the way on."""

import json
import logging
import shutil
import struct

import pytest
import torch
from conftest import VOCABULARY, tiny_model, tiny_tokenizer
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from babelscope import observe, open_model
from babelscope.errors import PrerequisiteError, SiteError, ToolkitError


@pytest.fixture
def folder(tmp_path):
    return saved(tiny_model("llama"), tmp_path / "plain")


def saved(model, path, tokenizer=True):
    model.save_pretrained(path)
    if tokenizer:
        tiny_tokenizer().save_pretrained(path)
    return path


def edited(path, name="config.json", **values):
    file = path / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return path


def refusal(path):
    with pytest.raises(ToolkitError) as caught:
        open_model(str(path), device="cpu")
    text = str(caught.value)
    assert "\n" not in text and "expected" in text
    return text


def test_a_folder_is_opened_by_path_and_by_path_object(folder):
    for name in (folder, str(folder)):
        model, tokenizer = open_model(name, device="cpu")
        assert not model.training and tokenizer("a")["input_ids"][0] == 1


def test_what_is_opened_is_said_before_its_weights_are_read(folder, caplog, monkeypatch):
    """Once the settings are known to be good, and before the wait."""
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: 1 / 0)
    size = (folder / "model.safetensors").stat().st_size / 1e9
    with caplog.at_level(logging.INFO, "babelscope"), pytest.raises(ZeroDivisionError):
        open_model(folder, device="cpu")
    assert caplog.messages == [f"opening model {str(folder)!r}, {size:.2f} GB, on cpu, dtype auto"]
    caplog.clear()
    edited(folder, model_type="bert")
    with caplog.at_level(logging.INFO, "babelscope"):
        refusal(folder)
    assert not caplog.messages


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "~nobody/x", "model-Q4_K_M.gguf", "a/b/c", "C:\\x"])
def test_a_path_where_nothing_is_never_asks_the_network(name, monkeypatch):
    monkeypatch.setattr("transformers.PretrainedConfig.get_config_dict", lambda *_, **__: pytest.fail("it asked"))
    assert "nothing is there" in refusal(name)


def test_pickled_weights_alone_are_refused_with_the_way_to_convert(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    text = refusal(folder)
    assert "pytorch_model.bin only" in text and "use_safetensors=False" in text


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    assert "no safetensors" in refusal(folder)


def test_a_single_weight_file_names_its_folder(folder):
    assert f"give the folder '{folder}'" in refusal(folder / "model.safetensors")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("with_base", ["nothing", "config", "all"])
def test_an_adapter_is_never_opened_without_its_weights(folder, tmp_path, with_base):
    peft = pytest.importorskip("peft")
    adapter = tmp_path / "adapter"
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(tiny_model("llama"), settings).save_pretrained(adapter)
    edited(adapter, "adapter_config.json", base_model_name_or_path=str(folder))
    if with_base != "nothing":
        for file in folder.iterdir():
            if with_base == "all" or file.suffix == ".json":
                shutil.copy(file, adapter)
    text = refusal(adapter)
    assert "PEFT adapter" in text and str(folder) in text and "merge_and_unload" in text


def test_weights_inside_the_layers_that_have_no_place_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    for extra in ("model.layers.7.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias"):
        save_file({**weights, extra: torch.zeros(48, 32)}, folder / "model.safetensors", {"format": "pt"})
        assert extra in refusal(folder)


def test_weights_beside_the_layers_that_are_not_used_are_said(folder, caplog):
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "value_head.weight": torch.zeros(1, 32)}, folder / "model.safetensors", {"format": "pt"})
    with caplog.at_level(logging.WARNING, "babelscope"):
        open_model(folder, device="cpu")
    assert "1 weights of the checkpoint are not used (value_head.weight)" in caplog.text


def test_a_classification_head_is_named(tmp_path):
    model = AutoModelForSequenceClassification.from_config(tiny_model("llama").config)
    assert "LlamaForSequenceClassification, which has no head" in refusal(saved(model, tmp_path))


def test_no_tokenizer_says_how_to_save_one(tmp_path):
    text = refusal(saved(tiny_model("llama"), tmp_path, tokenizer=False))
    assert "its tokenizer could not be read" in text and "save_pretrained(<this folder>)" in text


@pytest.mark.parametrize("family", ["gemma3_text", "qwen2"])
def test_no_tokenizer_is_refused_where_transformers_makes_an_empty_one(family, tmp_path):
    saved(tiny_model(family), tmp_path, tokenizer=False)
    assert len(AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=False)) < 6
    text = refusal(tmp_path)
    assert "special tokens and no other ones" in text and "save_pretrained(<this folder>)" in text


def test_a_torn_tokenizer_is_one_line(folder):
    file = folder / "tokenizer.json"
    whole = file.read_text()
    for text in (whole[:500], whole.replace('"type": "BPE"', '"type": "Other"'), "{}"):
        file.write_text(text)
        assert "its tokenizer could not be read" in refusal(folder)


def test_tokens_without_a_row_are_said_and_refused_before_a_pass(folder, caplog, monkeypatch):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<n{number}>" for number in range(60)])
    tokenizer.save_pretrained(folder)
    with caplog.at_level(logging.WARNING, "babelscope"):
        model, tokenizer = open_model(folder, device="cpu")
    assert f"have no row in its {VOCABULARY} embeddings" in caplog.text
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: pytest.fail("a pass was made"))
    texts = {"en": ["plain words"] * 4, "fi": ["hello <n50> there"] * 4}
    with pytest.raises(PrerequisiteError, match=f"this llama has {VOCABULARY} of them"):
        observe(model, tokenizer, texts)


def test_code_of_its_own_is_refused_and_nothing_is_asked(folder, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked on the terminal"))
    edited(folder, auto_map={"AutoConfig": "x.C", "AutoModelForCausalLM": "x.M"}, model_type="my_model")
    assert "code of its own" in refusal(folder) and "add_family" in refusal(folder)
    # A family that transformers has is opened by transformers' code.
    edited(folder, model_type="llama")
    assert type(open_model(folder, device="cpu")[0]).__module__.startswith("transformers.models.llama")


def test_a_tokenizer_with_code_of_its_own_is_refused_and_nothing_is_asked(folder, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked on the terminal"))
    (folder / "tokenizer.json").unlink()
    edited(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "t.T"]}, tokenizer_class="MyTokenizer")
    assert "its tokenizer could not be read" in refusal(folder)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("mt5", "encoder–decoder"),
        ("m2m_100", "encoder–decoder"),
        ("bert", "an encoder"),
        ("xlm-roberta", "an encoder"),
        ("mamba2", "add_family"),
        ("clip", "reads text and writes none"),
        ("siglip", "reads text and writes none"),
        ("clap", "reads text and writes none"),
        ("wav2vec2", "no causal language model"),
        ("whisper", "encoder–decoder"),
        ("musicgen", "encoder–decoder"),
        ("vision-encoder-decoder", "encoder–decoder"),
        ("blip-2", "bs.text_part"),
        ("qwen2_audio", "bs.text_part"),
    ],
)
def test_another_kind_of_model_is_one_line_before_its_weights(tmp_path, kind, words):
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(SiteError, match=words):
        open_model(tmp_path)


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
def test_packed_checkpoints_say_what_to_open(folder, method):
    edited(folder, quantization_config={"quant_method": method, "bits": 4})
    assert f"quantised by '{method}'" in refusal(folder) and "unquantised" in refusal(folder)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"hidden_act": "swish9"}, "no model can be made of its configuration"),
        ({"rms_norm_eps": "1e-5"}, "'rms_norm_eps' expected float, got str"),
        ({"num_attention_heads": 7}, "not a multiple of the number of attention heads"),
    ],
)
def test_damaged_settings_are_named_and_no_fault_of_the_weights(folder, setting, words):
    text = refusal(edited(folder, **setting))
    assert words in text and "config.json" in text and "fetch" not in text


def test_odd_folders_say_what_they_are(tmp_path, folder):
    assert "it is empty" in refusal(_made(tmp_path / "empty"))
    outer = _made(tmp_path / "run")
    shutil.copytree(folder, outer / "checkpoint-500")
    assert "checkpoint-500" in refusal(outer)
    assert "publisher's own form" in refusal(_made(tmp_path / "own", "params.json", "{}"))
    assert "is a babelscope Delta" in refusal(_made(tmp_path / "d", "config.json", '{"format": "babelscope.Delta/1"}'))
    assert "is no JSON" in refusal(_made(tmp_path / "torn", "config.json", '{"model_type":'))
    assert "no model_type" in refusal(_made(tmp_path / "bare", "config.json", "{}"))
    _made(tmp_path / "two", "a.gguf", "x"), _made(tmp_path / "two", "b.gguf", "x")
    assert "holds 2 GGUF files" in refusal(tmp_path / "two")


def _made(path, name=None, text=""):
    path.mkdir(exist_ok=True)
    if name:
        (path / name).write_text(text)
    return path


def test_an_empty_shard_is_one_line(folder):
    model = tiny_model("llama")
    shutil.rmtree(folder)
    model.save_pretrained(folder, max_shard_size="40KB")
    tiny_tokenizer().save_pretrained(folder)
    open_model(folder, device="cpu")
    min(folder.glob("model-*.safetensors")).unlink()
    assert "weights could not be read" in refusal(folder)


@pytest.fixture
def gguf_file(tmp_path):
    """A tiny Llama with a byte tokenizer as one GGUF file, in float32, and the model it was written from."""
    gguf = pytest.importorskip("gguf")
    model, path = tiny_model("qwen2"), tmp_path / "one" / "tiny.gguf"
    path.parent.mkdir()
    writer = gguf.GGUFWriter(path, "qwen2")
    config = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<pad>", "<s>", "</s>", *letters, letters[70] + letters[71]]
    tokens += [f"<spare{number}>" for number in range(VOCABULARY - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (VOCABULARY - 3))
    writer.add_token_merges([f"{letters[70]} {letters[71]}"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template("{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}")
    for name, weights in model.state_dict().items():
        writer.add_tensor(_gguf_name(name), weights.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, model


def _gguf_name(name):
    parts = {
        "model.layers.": "blk.", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm", "model.embed_tokens": "token_embd", "model.norm": "output_norm",
        "lm_head": "output",
    }  # fmt: skip
    for theirs, ours in parts.items():
        name = name.replace(theirs, ours)
    return name


@pytest.mark.filterwarnings("ignore:The `dtype` is set to:UserWarning")
def test_a_gguf_file_is_the_model_it_was_written_from(gguf_file, tmp_path):
    path, model = gguf_file
    for name in (path, path.parent):
        opened, tokenizer = open_model(name, device="cpu")
        assert opened.dtype == torch.float32 and "quantization_config" not in opened.config.to_dict()
        ours, theirs = dict(opened.named_parameters()), dict(model.named_parameters())
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
        ids = torch.tensor([tokenizer("Hyvää yötä")["input_ids"]])
        torch.testing.assert_close(opened(input_ids=ids).logits, model(input_ids=ids).logits)
        talk = tokenizer.apply_chat_template([{"role": "user", "content": "Moi"}], tokenize=False)
        assert talk == "<user>Moi"
    opened.save_pretrained(tmp_path / "again")  # as any model: nothing says of it that it is packed
    tokenizer.save_pretrained(tmp_path / "again")
    again, _ = open_model(tmp_path / "again", device="cpu")
    assert torch.equal(again(input_ids=ids).logits, opened(input_ids=ids).logits)


def test_damaged_gguf_files_are_one_line(gguf_file, tmp_path):
    whole = gguf_file[0].read_bytes()
    end = whole.index(b"blk.0")
    shape = whole.index(b"blk.1.attn_q.weight") + len("blk.1.attn_q.weight") + 4
    for name, data, words in [
        ("cut", whole[:-1000], "cut off"),
        ("table", whole[: end + 3], "damaged in its head"),
        ("head", whole[:30], "damaged in its head"),
        ("version", b"GGUF" + b"\0" * 100, "version 0"),
        ("other", b"PK\3\4" + b"\0" * 100, "is no GGUF file"),
        ("empty", b"", "is no GGUF file"),
        ("long", b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 1 << 60), "damaged in its head"),
        ("vector", b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "without architecture"),
        ("shape", whole[:shape] + b"\x08" + whole[shape + 1 :], "expected"),
        ("more", whole + bytes(64), "64 bytes follow the last tensor"),
    ]:
        file = tmp_path / f"{name}.gguf"
        file.write_bytes(data)
        assert words in refusal(file)


def test_a_gguf_file_of_an_unknown_architecture_is_one_line(gguf_file, tmp_path):
    file = tmp_path / "novel.gguf"
    file.write_bytes(gguf_file[0].read_bytes().replace(b"\x05\0\0\0\0\0\0\0qwen2", b"\x05\0\0\0\0\0\0\0novel", 1))
    assert "its configuration could not be read" in refusal(file)


def test_fewer_bits_of_a_gguf_file_are_refused(gguf_file, monkeypatch):
    monkeypatch.setattr("babelscope.models.opening._bits", lambda *_: object())
    with pytest.raises(PrerequisiteError, match="a GGUF file came with int8 or int4"):
        open_model(gguf_file[0], device="cpu", dtype="int8")
