"""A study on a processor computes in bfloat16 only where that is faster and was seen to say the same."""

import logging
from pathlib import Path

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from babelscope import load_corpus, open_model
from babelscope.corpus import Corpus
from babelscope.study import number_format
from babelscope.study.number_format import largest_change, open_for_study, planned_dtype, short_read


@pytest.fixture
def text(tmp_path: Path) -> Corpus:
    for tag, words in (("de", "der hund schlief auf dem alten {} sofa"), ("fi", "koira nukkui {} sohvalla")):
        lines = [words.format("abcdefgh"[i % 8] * (1 + i // 8)) for i in range(40)]
        (tmp_path / f"{tag}.txt").write_text("\n".join(lines))
    return load_corpus(str(tmp_path), split="all")


def stored(folder: Path, family: str = "llama", dtype: torch.dtype = torch.bfloat16) -> str:
    tiny_model(family).to(dtype).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def dtype_of(name: str, text: Corpus, dtype: str = "auto", planned: str | None = None) -> torch.dtype:
    return open_for_study(name, text, device="cpu", dtype=dtype, planned=planned)[0].dtype


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_format, "matrix_gain", lambda: 4.0)


def test_what_agrees_is_taken_and_what_does_not_is_not(tmp_path, text, fast, caplog, monkeypatch) -> None:
    caplog.set_level(logging.INFO)
    name = stored(tmp_path / "model")
    monkeypatch.setattr(number_format, "MOST_SIGNS", 1.0)
    monkeypatch.setattr(number_format, "MOST_LOSS", 1.0)
    assert dtype_of(name, text) == torch.bfloat16
    assert "% of neurons' signs" in caplog.text and "taken; --dtype float32 for the other" in caplog.text
    for limit in ("MOST_SIGNS", "MOST_LOSS"):
        with monkeypatch.context() as patched:
            patched.setattr(number_format, limit, 0.0)
            caplog.clear()
            assert dtype_of(name, text) == torch.float32
            assert "float32 is taken" in caplog.text


def test_where_nothing_is_to_be_gained_nothing_is_compared(tmp_path, text, fast, monkeypatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(number_format, "short_read", refused)
    assert dtype_of(stored(tmp_path / "wide", dtype=torch.float32), text) == torch.float32
    assert dtype_of(stored(tmp_path / "experts", family="olmoe"), text) == torch.float32
    narrow = stored(tmp_path / "narrow")
    assert dtype_of(narrow, text, dtype="bfloat16") == torch.bfloat16
    assert dtype_of(narrow, text, dtype="float32") == torch.float32
    assert dtype_of(narrow, text, planned="bfloat16") == torch.bfloat16
    assert dtype_of(narrow, text, planned="float32") == torch.float32
    monkeypatch.setattr(number_format, "matrix_gain", lambda: 1.2)
    assert dtype_of(narrow, text) == torch.float32


def test_signs_are_those_of_the_gate_of_each_document_alone(tmp_path, text) -> None:
    model, tokenizer = open_model(stored(tmp_path / "model"), device="cpu", dtype="bfloat16")
    read = short_read(model, tokenizer, text)
    seen, active = [], 0
    for layer in model.model.layers:
        layer.mlp.gate_proj.register_forward_hook(lambda module, args, output: seen.append(output[0]))
    for documents in text.values():
        used = 0
        for document in documents:
            ids = [tokenizer.bos_token_id, *tokenizer(document.text, add_special_tokens=False)["input_ids"]]
            used += len(ids) - 1
            if used > number_format.COMPARED_TOKENS:
                break
            with torch.no_grad():
                model(torch.tensor([ids]))
            active += sum(int((gate[1:] > 0).sum()) for gate in seen)
            seen.clear()
    assert abs(int(read.signs.sum()) - active) <= 0.001 * len(read.signs)
    assert 0 < active < len(read.signs)


def test_the_change_of_loss_is_the_largest_of_any_language() -> None:
    assert largest_change((2.0, 4.0), (2.1, 3.6)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "plan, dtype", [(None, None), ({}, None), ({"dtype": 3}, None), ({"dtype": "torch.bfloat16"}, "bfloat16")]
)
def test_the_dtype_of_an_interrupted_run(plan, dtype) -> None:
    assert planned_dtype(plan) == dtype
