"""Settings of generation that ride with a checkpoint change no answer, and are named."""

import json
from itertools import product

import pytest
import torch
from chat_cases import chat_tokenizer
from conftest import tiny_model, tiny_tokenizer
from steering_cases import vector
from transformers import GenerationConfig

from babelscope import Direction, Language, Site, origin_of
from babelscope.cli import main
from babelscope.steering.sweeps import Decoding, Prompt, generate_answers, overridden_settings
from babelscope.upstream.generation import NEUTRAL, TOKEN_IDS, pin_generation

EN, FI = Language("en"), Language("fi")
EVERY_LETTER = list(range(3, 259))
SETTINGS = {
    "temperature": 0.1,
    "top_k": 3,
    "top_p": 0.2,
    "min_p": 0.5,
    "typical_p": 0.1,
    "epsilon_cutoff": 0.2,
    "eta_cutoff": 0.2,
    "repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "num_beams": 2,
    "length_penalty": 3.0,
    "max_length": 9,
    "min_length": 40,
    "max_time": 0.0,
    "suppress_tokens": EVERY_LETTER[:200],
    "begin_suppress_tokens": EVERY_LETTER[:200],
    "forced_bos_token_id": 7,
    "forced_eos_token_id": 2,
    "bad_words_ids": [[token] for token in EVERY_LETTER[:200]],
    "sequence_bias": [[[9], 50.0]],
    "exponential_decay_length_penalty": [1, 9.0],
    "guidance_scale": 7.0,
    "renormalize_logits": True,
    "stop_strings": ["a"],
    "return_dict_in_generate": True,
    "prompt_lookup_num_tokens": 2,
    "watermarking_config": {"bias": 50.0},
    "cache_implementation": "static",
}
REQUESTS = [(Prompt("0", EN, "once upon"), FI), (Prompt("1", EN, "a"), FI)]
CHATS = [(Prompt.chat("0", EN, "once upon"), FI), (Prompt.chat("1", EN, "a"), FI)]


def words(model, chat, temperature):
    tokenizer, requests = (chat_tokenizer(), CHATS) if chat else (tiny_tokenizer(), REQUESTS)
    return generate_answers(model, tokenizer, requests, decoding=Decoding(new_tokens=8, temperature=temperature))


def with_settings(settings):
    model = tiny_model("llama")
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    return model


@pytest.fixture(scope="module")
def expected():
    model = tiny_model("llama")
    return {(chat, heat): words(model, chat, heat) for chat, heat in product((False, True), (0.0, 0.8))}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_the_checkpoint_changes_no_answer_and_is_named(name, expected):
    model = with_settings({name: SETTINGS[name]})
    for (chat, heat), answers in expected.items():
        assert words(model, chat, heat) == answers
        assert overridden_settings(model, Decoding(temperature=heat)) == {name: SETTINGS[name]}


def test_all_of_them_together(expected):
    # transformers refuses a checkpoint that forces a token which it suppresses, whatever is asked.
    whole = {**SETTINGS, "forced_bos_token_id": 258, "forced_eos_token_id": 258, "do_sample": True}
    whole["num_return_sequences"] = 2
    model = with_settings(whole)
    for (chat, heat), answers in expected.items():
        assert words(model, chat, heat) == answers
        named = {name: value for name, value in whole.items() if name != "do_sample" or heat == 0}
        assert overridden_settings(model, Decoding(temperature=heat)) == named


@pytest.mark.parametrize(
    ("name", "value"), [("repetition_penalty", 5.0), ("num_beams", 4), ("suppress_tokens", EVERY_LETTER[:200])]
)
def test_the_settings_change_answers_where_nothing_is_pinned(name, value):
    """Or their absence above would say nothing."""
    ids = torch.tensor([[1, 60, 61, 62]])
    asked = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 8, "do_sample": False}
    plain, changed = (model.generate(ids, **asked) for model in (tiny_model("llama"), with_settings({name: value})))
    assert not torch.equal(plain, changed)


def test_a_later_releases_setting_is_pinned_by_its_own_default(monkeypatch):
    made = GenerationConfig.__init__

    def newer(self, **kwargs):
        made(self, **kwargs)
        self.future_penalty = kwargs.get("future_penalty")

    monkeypatch.setattr(GenerationConfig, "__init__", newer)
    pinned = pin_generation(with_settings({"future_penalty": 3}), {"max_new_tokens": 4})
    assert pinned.keywords == {"max_new_tokens": 4, "future_penalty": None}
    assert pinned.set_aside == {"future_penalty": 3}


def test_every_name_in_the_tables_is_one_of_this_release():
    fresh = vars(GenerationConfig())
    assert fresh.keys() >= NEUTRAL.keys() | TOKEN_IDS


def test_ids_of_special_tokens_stay_the_checkpoints():
    model = with_settings({"eos_token_id": [2, 9], "pad_token_id": 5, "bos_token_id": 6})
    assert not pin_generation(model, {}).keywords


def test_a_plain_checkpoint_has_nothing_to_name():
    assert not overridden_settings(tiny_model("llama"), Decoding(temperature=0.0))


def test_steer_names_them_in_its_lines_and_fields(tmp_path, capsys):
    chosen = {"do_sample": True, "num_beams": 2, "repetition_penalty": 5.0, "top_k": 3}
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({**chosen, "eos_token_id": 2}))

    Direction(vector(), Site(1, "resid_out"), FI, (EN,), 1.0, origin_of(model, tokenizer)).save(tmp_path / "direction")
    command = ["steer", str(tmp_path / "model"), str(tmp_path / "direction"), "once", "--new-tokens", "4"]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["overridden_settings"] == chosen
    assert main(command) == 0
    line = "the checkpoint's own settings are left aside: do_sample True, num_beams 2, repetition_penalty 5.0, top_k 3"
    assert line in capsys.readouterr().out
