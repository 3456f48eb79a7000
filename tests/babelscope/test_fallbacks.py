"""Ways to switch neurons off, against hooks on the weights' own activations; and which language comes out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from babelscope import NeuronSet, Origin, steer
from babelscope.cli import main
from babelscope.cli.telling_fallbacks import fallback_lines
from babelscope.errors import LanguageError, MeasurementError, SelectionError
from babelscope.figures.fallback_map import fallback_map
from babelscope.languages import Language
from babelscope.models import origin_of
from babelscope.report.wording import p_value
from babelscope.steering.directions import deactivate_neurons, set_neurons
from babelscope.steering.directions.neurons import LITTLE, MUCH
from babelscope.steering.sweeps import Decoding, FallbackStep, Prompt, answer_shares, fallback_languages
from babelscope.steering.sweeps.fallbacks import Fallbacks, recognised, union_of

LANGUAGES = ("en", "de", "fi")


def sets_of(places, origin=None):
    """A NeuronSet of three layers of 48 neurons."""
    mask = torch.zeros(3, 3, 48, dtype=torch.bool)
    for k, tag in enumerate(LANGUAGES):
        for layer, neuron in places[tag]:
            mask[k, layer, neuron] = True
    return NeuronSet.from_mask(
        mask,
        torch.zeros(mask.shape),
        origin=origin or Origin("", "", "", ""),
        languages=tuple(map(Language.parse, LANGUAGES)),
        at="mlp_gate",
        method="lape",
        parameters={},
    )


PLACES = {"en": [(0, 3), (1, 4), (1, 5)], "de": [(1, 5), (1, 9)], "fi": [(2, 40)]}


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama"), tiny_tokenizer()


def logits_by_hooks(model, ids, change):
    """The logits with the activated gate of some neurons changed by hand: plain hooks of torch, none of our code."""
    handles = []
    for number, layer in enumerate(model.model.layers):
        neurons = sorted({neuron for tag in ("en", "de") for place, neuron in PLACES[tag] if place == number})

        def hook(module, inputs, output, neurons=neurons):
            changed = output.clone()
            if neurons:
                changed[..., neurons] = change(output, neurons)
            return changed

        handles.append(layer.mlp.act_fn.register_forward_hook(hook))
    try:
        return model(ids).logits
    finally:
        for handle in handles:
            handle.remove()


def drawn(spread, counts=(1, 3)):
    """What is drawn for the neurons of layers 0 and 1, in order."""
    generator = torch.Generator().manual_seed(0)
    rows = [spread * torch.randn(count, generator=generator) for count in counts]
    return lambda neurons: rows[len(neurons) > 1]


WAYS = {
    "zero": lambda output, neurons: 0.0,
    "negative": lambda output, neurons: -1.0,
    "mean": lambda output, neurons: output.mean(dim=-1, keepdim=True),
    "random": lambda output, neurons: drawn(LITTLE)(neurons),
    "shrink": lambda output, neurons: -0.1 * output[..., neurons],
    "noise": lambda output, neurons: output[..., neurons] + drawn(MUCH)(neurons),
    "invert": lambda output, neurons: -output[..., neurons],
}


@pytest.mark.parametrize("by", WAYS)
def test_each_way_of_switching_off_equals_plain_hooks(by, model):
    network, tokenizer = model
    ids = torch.tensor([tokenizer("abc def")["input_ids"]])
    sets = sets_of(PLACES, origin_of(network, tokenizer))
    with torch.no_grad():
        by_hand = logits_by_hooks(network, ids, WAYS[by])
        plain = network(ids).logits
        with steer(network, deactivate_neurons(sets, ("en", "de"), by)):
            steered = network(ids).logits
    assert torch.allclose(steered, by_hand, atol=1e-6) and not torch.allclose(steered, plain, atol=1e-4)


def test_several_sources_are_switched_off_together():
    sets = sets_of(PLACES)
    operations = set_neurons(sets, ["en", "de"]).operations
    assert [(op.site.layer, op.indices.tolist()) for op in operations] == [(0, [3]), (1, [4, 5, 9])]
    with pytest.raises(SelectionError, match="deactivation 'off' came; expected one of zero, negative"):
        deactivate_neurons(sets, "en", "off")
    with pytest.raises(LanguageError, match="en came twice"):
        set_neurons(sets, ["en", "en"])
    with pytest.raises(LanguageError, match="no language came"):
        set_neurons(sets, [])


def test_answers_of_every_step_and_of_as_many_random_neurons(model, monkeypatch):
    network, tokenizer = model
    sets = sets_of(PLACES, origin_of(network, tokenizer))
    prompts = [Prompt(str(n), Language("en"), text) for n, text in enumerate(("abc", "some words"))]
    found = fallback_languages(
        network, tokenizer, sets, prompts, order=["en", "de"], draws=2, decoding=Decoding(new_tokens=3, temperature=0.0)
    )
    assert [step.off for step in found.steps] == [(), ("en",), ("en", "de")]
    assert [step.neurons for step in found.steps] == [0, 3, 4]
    assert [len(step.controls) for step in found.steps] == [0, 2, 2]
    assert all(len(step.outputs) == len(texts) == 2 for step, texts in zip(found.steps, found.texts, strict=True))
    assert union_of(sets, ["en", "de"]).mask()[0].sum() == 4
    with pytest.raises(LanguageError, match="not in this set"):
        fallback_languages(network, tokenizer, sets, prompts, order=["ru"])
    with pytest.raises(LanguageError, match="no neuron is selected for fi"):
        fallback_languages(network, tokenizer, sets_of({**PLACES, "fi": []}), prompts, order=["en", "fi"])
    with pytest.raises(MeasurementError, match="'abc' came twice"):
        fallback_languages(network, tokenizer, sets, [prompts[0], *prompts], order=["en"])
    with pytest.raises(MeasurementError, match="no prompt came"):
        fallback_languages(network, tokenizer, sets, [], order=["en"])
    with monkeypatch.context() as patch:  # what is wrong with a call is said before the first answer
        patch.setattr("babelscope.steering.sweeps.fallbacks.generate_answers", None)
        with pytest.raises(SelectionError, match="'off' came"):
            fallback_languages(network, tokenizer, sets, prompts, order=["en"], by="off")
        with pytest.raises(LanguageError, match="'12' is unknown"):
            fallback_languages(network, tokenizer, sets, prompts, order=["en"], first="12")
        crowded = sets_of({**PLACES, "fi": [(2, neuron) for neuron in range(40)]}, sets.origin)
        with pytest.raises(SelectionError, match="layer 2: 8 of 48"):
            fallback_languages(network, tokenizer, crowded, prompts, order=["en", "fi"])


def test_leaving_a_language_counts_against_the_random_sets():
    en, de = Language("en"), Language("de")
    control = (("en", "en", "en", "de"), ("en",) * 4, ("en",) * 4)
    steps = (FallbackStep((), 0, ("en",) * 4, ()), FallbackStep((en,), 7, ("de", "de", "de", ""), control))
    found = Fallbacks(steps, en, "zero", ((), ()), 0)
    plain, off = found.rows()
    assert (plain.estimate, off.estimate, off.draws, off.n) == (0.0, 1.0, 3, 4)
    # Against the set that leaves once, three of three prompts that differ; against the two others four of four.
    assert off.p == 2**-3 and np.isnan(plain.p) and "most of one set 0.250" in off.note
    languages, share, random_share = found.shares()
    assert languages == ["en", "de", ""] and share.tolist() == [[1, 0, 0], [0, 0.75, 0.25]]
    assert random_share[1].tolist() == pytest.approx([11 / 12, 1 / 12, 0]) and np.isnan(random_share[0]).all()
    summary = found.summary()
    again = answer_shares(*([step[name] for step in summary["steps"]] for name in ("answers", "random_sets")))
    assert again[0] == languages and np.array_equal(again[1], share)
    figure = fallback_map(share=share, control=random_share, off=["none", "en"], languages=languages)
    assert figure.data[0].text.tolist() == [["100", "0", "0"], ["0 (92)", "75 (8)", "25 (0)"]]
    head, names, untouched, english, rule, after = fallback_lines(found, Path("a set"), "model", Path("out"))
    assert head.startswith("languages of 4 answers to prompts in en")
    assert names.split()[:4] == ["off", "neurons", "not", "in"]
    assert untouched.split() == ["none", "0", "0", "of", "4", "–", "–", "en", "4", "–"]
    assert (
        " ".join(english.split()) == f"en 7 4 of 4 1 of 12 {p_value(off.p)} de 3, none 1 en 11, de 1"
        and "3 a step" in rule
    )
    assert "next: babelscope show 'a set' model --language en," in after
    assert recognised(["Das ist ein kurzer deutscher Satz über das Wetter.", "123"]) == (de, "")


def test_the_verb_writes_rows_answers_and_a_picture(tmp_path, model, capsys):
    network, tokenizer = model
    network.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    sets_of(PLACES, origin_of(network, tokenizer)).save(tmp_path / "set")
    words = ["fallback", tmp_path / "model", tmp_path / "set", "abc", "--order", "en", "de", "--out", tmp_path / "out"]
    assert main([*map(str, words), "--draws", "1", "--new-tokens", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [step["off"] for step in result["steps"]] == ["none", "en", "en, de"]
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"results.jsonl", "answers.json", "fallback.html"}
    written = json.loads((tmp_path / "out" / "fallback.json").read_text(encoding="utf-8"))
    assert written["languages"] == ["en", "de"] and written["steps"][2]["neurons"] == 4
    assert [sum(step["answers"].values()) for step in written["steps"]] == [1, 1, 1]
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 3
    words[-1] = tmp_path / "again"
    assert main([*map(str, words), "--draws", "1", "--new-tokens", "2"]) == 0
    printed = capsys.readouterr().out
    assert "random sets" in printed and "{" not in printed
