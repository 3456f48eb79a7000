"""Trimmed vocabularies: the same tokens and the same numbers where tokens stay, and the way back."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from artifact_damage import reseal
from conftest import tiny_model, tiny_tokenizer
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from training_cases import some_neurons
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast
from vocabulary_cases import KINDS, every_line, ids_of, lines, model_for, tokenizer_of

from babelscope import Delta, VocabularyPack, open_model, origin_of, set_neurons, steer, trim_vocabulary
from babelscope.errors import ArtifactError, CorpusError, MeasurementError, PrerequisiteError
from babelscope.models import check_made_for
from babelscope.subnetworks import ElementDelta
from babelscope.vocabulary.entry_closure import EntryClosure, with_entries_only
from babelscope.vocabulary.tokenizer_form import TokenizerForm

KEPT = ("en", "eu")


@pytest.fixture(scope="module", params=KINDS)
def case(request):
    tokenizer = tokenizer_of(request.param)
    model = model_for(tokenizer, "gemma3_text")
    return model, tokenizer, trim_vocabulary(model, tokenizer, lines(*KEPT, count=20))


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 700
    return text


def test_tokens_of_the_text_are_the_same_and_their_logits_have_the_same_bits(case):
    model, tokenizer, pack = case
    assert len(pack.source) < 0.9 * len(tokenizer)
    before = after = torch.zeros(0, dtype=torch.int64)
    for line in [line for found in lines(*KEPT, count=20).values() for line in found]:
        before, after = ids_of(tokenizer, line), ids_of(pack.tokenizer, line)
        assert torch.equal(pack.moved(before), after)
        assert pack.tokenizer.decode(after[0]) == tokenizer.decode(before[0])
    logits = model(before).logits
    states = model.model(before).last_hidden_state
    with pack.applied(model):
        assert torch.equal(model.model(after).last_hidden_state, states)
        assert torch.equal(model(after).logits, logits[..., pack.source])


def test_entries_of_which_nothing_is_formed_are_gone(case):
    _, tokenizer, pack = case
    form, closure = TokenizerForm.of(tokenizer), EntryClosure(TokenizerForm.of(tokenizer))
    text = [line for found in lines(*KEPT, count=20).values() for line in found]
    used = {index for line in text for index in tokenizer(line).input_ids}
    stay = form.indispensable(tokenizer).union(*(closure.of(index) for index in used))
    assert pack.source.tolist() == sorted(stay)
    assert len(stay - used - form.indispensable(tokenizer)) > 0 or form.model["type"] == "Unigram"


def test_every_text_is_read_and_written_back(case):
    _, tokenizer, pack = case
    for found in every_line().values():
        for line in [*found, "a\tb\n\n c  d", "🙂 Ω"]:
            before, after = (one(line, add_special_tokens=False).input_ids for one in (tokenizer, pack.tokenizer))
            assert pack.tokenizer.decode(after) == tokenizer.decode(before)


def test_without_the_entries_that_they_are_formed_from_tokens_would_be_lost():
    tokenizer = tokenizer_of("byte-level")
    form, text = TokenizerForm.of(tokenizer), lines("en", count=20)["en"]
    used = form.indispensable(tokenizer) | {index for line in text for index in tokenizer(line).input_ids}
    torn = with_entries_only(form, sorted(used)).open("test")
    assert any(len(torn(line).input_ids) > len(tokenizer(line).input_ids) for line in text)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "phi", "bloom", "mixtral"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_revert_brings_back_every_bit_and_every_setting(family, dtype):
    tokenizer = tokenizer_of("byte-level")
    model = model_for(tokenizer, family, dtype=dtype)
    pack = trim_vocabulary(model, tokenizer, lines("en", count=5))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = dict(model.named_parameters())
    settings = [model.config.to_dict(), model.generation_config.to_dict(), [str(m) for m in model.modules()]]
    ids = ids_of(tokenizer, lines("en", count=5)["en"][0])
    logits = model(ids).logits
    with pack.applied(model):
        assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size == len(pack.source)
        assert torch.equal(model(pack.moved(ids)).logits, logits[..., pack.source])
        assert model.config.eos_token_id == pack.moved(torch.tensor(2))
        turn = pack.tokenizer.get_vocab()["<|turn|>"]
        assert model.generation_config.eos_token_id == [2, turn] and turn < len(pack.source)
        loss = model(pack.moved(ids), labels=pack.moved(ids)).loss
        assert torch.isfinite(loss)
    after = model.state_dict()
    assert weights.keys() == after.keys() and all(torch.equal(after[name], value) for name, value in weights.items())
    assert {name: id(p) for name, p in model.named_parameters()} == {name: id(p) for name, p in parameters.items()}
    assert settings == [model.config.to_dict(), model.generation_config.to_dict(), [str(m) for m in model.modules()]]


def test_tokens_and_template_that_are_not_of_the_text_stay():
    tokenizer = tokenizer_of("byte fallback")
    pack = trim_vocabulary(model_for(tokenizer), tokenizer, {"en": ["a"]})
    for token in ("<pad>", "<s>", "</s>", "<unk>", "<|turn|>"):
        assert pack.tokenizer.decode([pack.tokenizer.get_vocab()[token]]) == token
    chat = [{"role": "user", "content": "Hi"}]
    assert pack.tokenizer.apply_chat_template(chat, tokenize=False) == "<|turn|>Hi</s>"
    assert pack.tokenizer.chat_template == tokenizer.chat_template
    assert pack.tokenizer.all_special_tokens == tokenizer.all_special_tokens


def test_greedy_answers_are_the_same_where_their_tokens_stay():
    model, tokenizer = open_model("reference")
    text = lines("fi", "en", count=12)
    prompts = [line[: len(line) // 2] for line in text["fi"][:3]]

    def answer(opened, reader, prompt):
        ids = ids_of(reader, prompt)
        out = opened.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
        return str(reader.decode(out[0], skip_special_tokens=True))

    before = [answer(model, tokenizer, prompt) for prompt in prompts]
    pack = trim_vocabulary(model, tokenizer, text, also=before)
    with pack.applied(model):
        assert [answer(model, pack.tokenizer, prompt) for prompt in prompts] == before
    assert len(pack.source) < len(tokenizer) / 4


def test_a_size_takes_the_most_frequent_tokens():
    tokenizer = tokenizer_of("byte-level")
    model, text = model_for(tokenizer), lines("en", "fi", count=40)
    sizes = [len(trim_vocabulary(model, tokenizer, text, size=size).source) for size in (400, 500)]
    assert 380 <= sizes[0] <= 400 < 480 <= sizes[1] <= 500
    twice = trim_vocabulary(model, tokenizer, text, min_count=2)
    counts = torch.bincount(
        torch.tensor([i for found in text.values() for line in found for i in tokenizer(line).input_ids]),
        minlength=len(tokenizer),
    )
    assert set(torch.where(counts >= 2)[0].tolist()) <= set(twice.source.tolist())
    assert len(twice.source) < len(trim_vocabulary(model, tokenizer, text).source)


def test_a_saved_pack_is_the_same_pack(case, tmp_path):
    model, _, pack = case
    again = VocabularyPack.load(pack.save(tmp_path / "pack"))
    assert again.digest == pack.digest and again.origin == pack.origin and again.languages == pack.languages
    assert again.tokenizer.get_vocab() == pack.tokenizer.get_vocab()
    assert again.tokenizer.chat_template == pack.tokenizer.chat_template
    assert again.parameters == pack.parameters and torch.equal(again.source, pack.source)
    with again.applied(model):
        pass


@pytest.mark.parametrize(
    "damage", ["flip", "cut", "config", "source", "twice", "files", "tokenizer", "other tokenizer", "name", "short"]
)
def test_a_damaged_or_foreign_pack_is_refused_in_one_line(tmp_path, damage):
    tokenizer = tokenizer_of("byte-level")
    pack = trim_vocabulary(model_for(tokenizer), tokenizer, {"en": ["a house"]})
    path = pack.save(tmp_path / "pack")
    file, config = path / "tensors.safetensors", json.loads((path / "config.json").read_text())
    tensors = load_file(file)
    if damage == "flip":
        data = bytearray(file.read_bytes())
        data[-3] ^= 1
        file.write_bytes(bytes(data))
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    elif damage == "config":
        (path / "config.json").write_text(json.dumps({**config, "base_rows": 7}))
    else:
        if damage == "source":
            tensors["source"][3] = 10**6
        elif damage == "twice":
            tensors["source"][3] = tensors["source"][4]
        elif damage == "short":
            tensors["source"] = tensors["source"][:9].clone()
        elif damage == "files":
            tensors["tokenizer/evil.py"] = tensors["tokenizer/tokenizer.json"].clone()
            config["files"] = [*config["files"], "evil.py"]
        elif damage == "tokenizer":
            tensors["tokenizer/tokenizer.json"] = tensors["tokenizer/tokenizer.json"][:500].clone()
        elif damage == "other tokenizer":
            text = bytes(tensors["tokenizer/tokenizer.json"].numpy()).replace(b"<|turn|>", b"<|tern|>")
            tensors["tokenizer/tokenizer.json"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        elif damage == "name":
            tensors["more"] = torch.zeros(1)
        save_file(tensors, file)
        (path / "config.json").write_text(json.dumps(config))
        reseal(path)
    with pytest.raises(ArtifactError, match=str(path)) as error:
        VocabularyPack.load(path)
    one_line(error)


def test_a_pack_for_another_body_is_refused():
    tokenizer = tokenizer_of("byte-level")
    model, other, wider = (model_for(tokenizer, seed=seed, padding=p) for seed, p in ((0, 5), (1, 5), (0, 8)))
    pack = trim_vocabulary(model, tokenizer, {"en": ["a house"]})
    for foreign, word in (
        (other, "other weights"),
        (wider, "vocab_size"),
        (tiny_model("gpt2"), "another kind of model"),
    ):
        state = {name: value.clone() for name, value in foreign.state_dict().items()}
        with pytest.raises(ArtifactError, match=word) as error:
            pack.apply(foreign)
        one_line(error)
        assert all(torch.equal(foreign.state_dict()[name], value) for name, value in state.items())


def test_one_vocabulary_at_a_time_and_each_the_way_back():
    tokenizer = tokenizer_of("byte-level")
    model = model_for(tokenizer)
    first, second = (trim_vocabulary(model, tokenizer, lines(tag, count=5)) for tag in ("en", "fi"))
    with first.applied(model):
        for act in (first.apply, second.apply):
            with pytest.raises(ArtifactError, match="revert that first"):
                act(model)
        with pytest.raises(ArtifactError, match="not applied"):
            second.revert(model)
        with pytest.raises(ArtifactError, match="revert that first"):
            trim_vocabulary(model, first.tokenizer, lines("en", count=5))
    with pytest.raises(ArtifactError, match="not applied"):
        first.revert(model)
    sizes = []
    for pack in (first, second, first):
        with pack.applied(model):
            sizes.append(model.config.vocab_size)
    assert sizes[0] == sizes[2] != sizes[1]


def test_what_was_made_for_the_body_stays_of_use():
    tokenizer = tokenizer_of("byte-level")
    model = model_for(tokenizer)
    neurons = some_neurons(model)
    size, width = len(neurons.indices), 32
    made = {role: torch.randn(size, width) for role in ("gate", "up", "down")}
    delta = Delta.of(neurons, made)
    recipe = set_neurons(neurons, "eu", 0.5)
    pack = trim_vocabulary(model, tokenizer, lines("en", count=5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = ids_of(tokenizer, lines("en", count=5)["en"][1])
    with delta.applied(model):
        expected = model(ids).logits[..., pack.source]
        with pack.applied(model):
            assert torch.equal(model(pack.moved(ids)).logits, expected)
    with pack.applied(model):
        with delta.applied(model):
            assert torch.equal(model(pack.moved(ids)).logits, expected)
        origin = origin_of(model_for(tokenizer), tokenizer)
        check_made_for(origin, model, pack.tokenizer, "neurons")
        check_made_for(origin, model, tokenizer, "neurons")
        with steer(model, recipe):
            model(pack.moved(ids))
        with pytest.raises(ArtifactError, match="another tokenizer"):
            check_made_for(origin, model, tiny_tokenizer(), "neurons")
        with pytest.raises(ArtifactError, match="other weights"):
            check_made_for(origin_of(model_for(tokenizer, seed=3), tokenizer), model, pack.tokenizer, "neurons")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_a_vocabulary_is_not_put_under_a_change_of_the_embeddings():
    tokenizer = tokenizer_of("byte-level")
    model = model_for(tokenizer)
    pack = trim_vocabulary(model, tokenizer, {"en": ["a house"]})
    name = "model.embed_tokens.weight"
    live = dict(model.named_parameters())
    mask = torch.zeros_like(live[name], dtype=torch.bool)
    mask[5, 3] = True
    base = {name: live[name].detach().clone()}
    with torch.no_grad():
        live[name][5, 3] += 1
    origin = origin_of(model, None)
    change = ElementDelta.between(base, model, {name: mask}, languages=("en",), origin=origin)
    with torch.no_grad():
        live[name].copy_(base[name])
    change = replace(change, origin=origin_of(model, None))
    with change.applied(model), pytest.raises(ArtifactError, match="embeddings or head; expected"):
        pack.apply(model)
    with pack.applied(model), pytest.raises(ArtifactError):
        change.apply(model)


def word_piece():
    backend = Tokenizer(models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


def few_bytes():
    backend = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    backend["model"]["vocab"] = {entry: index for entry, index in backend["model"]["vocab"].items() if index < 200}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(backend)), pad_token="<pad>")


@pytest.mark.parametrize(
    ("tokenizer", "word"),
    [
        (ByT5Tokenizer, "no fast backend"),
        (word_piece, "WordPiece"),
        (few_bytes, "smaller than its bytes: 59 of the 256"),
    ],
)
def test_a_tokenizer_that_surgery_does_not_know_is_refused(tokenizer, word):
    with pytest.raises(PrerequisiteError, match=word) as error:
        trim_vocabulary(tiny_model("llama"), tokenizer(), {"en": ["a"]})
    one_line(error)


def test_bad_requests_are_refused_in_one_line():
    tokenizer = tokenizer_of("byte-level")
    model = model_for(tokenizer)
    with pytest.raises(MeasurementError, match="26. entries stay in any case") as error:
        trim_vocabulary(model, tokenizer, {"en": ["a"]}, size=100)
    one_line(error)
    with pytest.raises(MeasurementError, match="min_count 0"):
        trim_vocabulary(model, tokenizer, {"en": ["a"]}, min_count=0)
    with pytest.raises(CorpusError, match="no token|text"):
        trim_vocabulary(model, tokenizer, {"en": [""]})


def test_a_copy_of_the_model_with_the_vocabulary_stands_alone(tmp_path):
    tokenizer = tokenizer_of("byte-level")
    model = model_for(tokenizer, "gemma3_text")
    pack = trim_vocabulary(model, tokenizer, lines("en", count=5))
    origin = origin_of(model, tokenizer)
    ids = ids_of(pack.tokenizer, lines("en", count=5)["en"][2])
    with pack.applied(model):
        model.save_pretrained(tmp_path)
        pack.tokenizer.save_pretrained(tmp_path)
        expected = model(ids).logits
    opened, reader = open_model(tmp_path)
    assert torch.equal(opened(ids).logits, expected)
    assert reader.get_vocab() == pack.tokenizer.get_vocab()
    check_made_for(origin, opened, reader, "neurons")
    mark = json.loads((tmp_path / "config.json").read_text())["babelscope_vocabulary"]
    assert mark["settings"] == {"vocab_size": len(tokenizer) + 5}
    opened.config.babelscope_vocabulary = ["no mark"]
    with pytest.raises(ArtifactError, match="babelscope_vocabulary"):
        check_made_for(origin, opened, reader, "neurons")
    shutil.rmtree(tmp_path)
