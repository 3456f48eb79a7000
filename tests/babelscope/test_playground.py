"""The playground: what it shows of two answers, computed without a page; and the page, where gradio is installed."""

import html
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import pytest
import torch

import babelscope as bs
from babelscope.cli import main
from babelscope.errors import ArtifactError, ToolkitError
from babelscope.languages import Language
from babelscope.serving.playground import (
    Playground,
    PlaygroundQuestion,
    answers_markup,
    neuron_switches,
    steering_choices,
)
from babelscope.serving.playground.gradio_page import answered
from babelscope.serving.playground.offered_steering import NO_STEERING
from babelscope.serving.playground.side_by_side import whole_text
from babelscope.steering.sweeps import Decoding, compare_answers

PROMPT = "The children walked"
GRADIO = pytest.mark.skipif(find_spec("gradio") is None, reason="not installed: gradio; pip install 'babelscope[play]'")


@pytest.fixture(scope="module")
def artifacts(reference):
    model, tokenizer = reference
    texts = bs.load_corpus("reference", ["en", "fi", "ru"])
    obs = bs.observe(
        model, tokenizer, texts, sites=["mlp_gate", "mlp_inner", "resid_out"], tokens_per_language=3000, shards=4
    )
    sets = bs.select_lape(obs, top_rate=0.05)
    direction = bs.mean_direction(obs, target="fi", source="en", layer=1)
    delta = bs.train_subnetwork(model, tokenizer, sets["fi"], texts["fi"], steps=1, tokens_per_step=128)
    saved = {"arrow": direction, "recipe": direction.recipe(2.0, "raw"), "delta": delta, "sets": sets, "obs": obs}
    return saved


@pytest.fixture(scope="module")
def playground(reference, artifacts):
    model, tokenizer = reference
    return Playground(model=model, tokenizer=tokenizer, artifacts=artifacts)


def asked(playground, **fields):
    return playground.answer(PlaygroundQuestion(**{"text": PROMPT, "new_tokens": 12, **fields}))


MEAN = "mean direction from obs"
ACTIVATED = "neurons of sets activated, means of obs"


def test_every_artifact_gives_its_choices(playground, artifacts):
    assert list(playground.choices) == ["arrow", "recipe", "delta", MEAN, ACTIVATED]
    assert [choice.target for choice in playground.choices.values()] == ["fi", "fi", "fi", None, None]
    assert playground.choices[MEAN].layers == tuple(range(8)) and playground.choices[ACTIVATED].layers == ()
    assert playground.targets == ("en", "fi", "ru")
    sizes = artifacts["sets"].sizes
    assert list(playground.switches) == [
        f"{name} ({tag}), {sizes[Language(tag)]} neurons"
        for tag, name in (("en", "English"), ("fi", "Finnish"), ("ru", "Russian"))
    ]


@pytest.mark.parametrize("choice", ["arrow", "recipe", "delta", MEAN, ACTIVATED])
def test_strength_zero_is_the_plain_answer_bit_for_bit_and_strength_one_is_not(playground, choice):
    zero = asked(playground, choice=choice, target="fi", strength=0.0)
    assert zero.steered.answer.ids == zero.plain.answer.ids
    assert zero.steered.next_tokens == zero.plain.next_tokens
    assert zero.steered.next_scripts == zero.plain.next_scripts
    moved = asked(playground, choice=choice, target="fi", strength=1.0)
    assert moved.plain.answer.ids == zero.plain.answer.ids
    assert moved.steered.next_tokens != moved.plain.next_tokens


def test_answers_are_those_of_compare_answers(playground, artifacts, reference):
    model, tokenizer = reference
    greedy = Decoding(new_tokens=12, temperature=0.0)
    for name, strength, by_hand in (
        ("arrow", 1.3, artifacts["arrow"].recipe(1.3, "raw")),
        ("recipe", 0.65, artifacts["arrow"].recipe(1.3, "raw")),
        (MEAN, 1.3, bs.mean_direction(artifacts["obs"], target="fi", layer=1).recipe(1.3, "raw")),
    ):
        both = asked(playground, choice=name, target="fi", strength=strength, layer=1)
        (pair,) = compare_answers(model, tokenizer, by_hand, [PROMPT], target="fi", decoding=greedy)
        assert (both.plain.answer.ids, both.steered.answer.ids) == (pair.plain.ids, pair.steered.ids), name
        assert (both.plain.language, both.steered.language) == (pair.plain_language, pair.steered_language)
        assert both.steered.verdict == pair.verdict
    both = asked(playground, choice="delta", strength=2.0)
    (pair,) = compare_answers(model, tokenizer, artifacts["delta"], [PROMPT], strength=2.0, decoding=greedy)
    assert both.steered.answer.ids == pair.steered.ids and both.target == "fi"


def test_neurons_that_are_switched_off_are_zero_in_the_steered_answer_alone(playground, artifacts, reference):
    model, tokenizer = reference
    name = next(iter(playground.switches))
    both = asked(playground, choice=NO_STEERING, switched_off=[name])
    plain = asked(playground, choice=NO_STEERING)
    assert plain.steered.answer.ids == plain.plain.answer.ids == both.plain.answer.ids
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    sets = artifacts["sets"]
    with ExitStack() as stack, torch.no_grad():
        for layer in range(sets.n_layers):
            off = sets.layer_of(sets.index("en"), layer).long()

            def zero(module, inputs, output, off=off):
                return output.index_fill(-1, off, 0.0)

            stack.callback(model.model.layers[layer].mlp.act_fn.register_forward_hook(zero).remove)
        logits = model(ids).logits[0, -1].double()
    values, tokens = logits.softmax(dim=0).topk(5)
    assert [token for token, _ in both.steered.next_tokens] == [tokenizer.decode([token]) for token in tokens.tolist()]
    assert [share for _, share in both.steered.next_tokens] == pytest.approx(values.tolist(), rel=1e-5)
    assert both.steered.next_tokens != both.plain.next_tokens


def test_off_and_steering_act_together(playground):
    off = list(playground.switches)[:1]
    alone = asked(playground, choice="delta", strength=4.0)
    together = asked(playground, choice="delta", strength=4.0, switched_off=off)
    assert together.steered.next_tokens != alone.steered.next_tokens
    assert together.plain.next_tokens == alone.plain.next_tokens


def test_probability_by_script_is_all_of_it_and_right_for_each(playground, reference):
    model, tokenizer = reference
    shown = asked(playground, text="Дети пошли", choice=NO_STEERING).plain
    assert sum(shown.next_scripts.values()) == pytest.approx(1, abs=1e-9)
    with torch.no_grad():
        ids = tokenizer("Дети пошли", return_tensors="pt").input_ids
        shares = model(ids).logits[0, -1].double().softmax(dim=0)
    cyrillic = [i for i in range(len(tokenizer)) if re.fullmatch(r"\s*[\u0400-\u04ff]+", tokenizer.decode([i]))]
    assert shown.next_scripts["cyrillic"] == pytest.approx(float(shares[cyrillic].sum()), abs=0.02)
    assert next(iter(shown.next_scripts)) in ("cyrillic", "no letter")


@pytest.mark.parametrize(
    ("text", "segments", "whole"),
    [
        ("", (), ()),
        ("... 12", (), ("... 12",)),
        ("“Hei sinä, my friend!", (("Hei sinä,", "fi"), ("my friend!", "en")), ("“", "Hei sinä, ", "my friend!")),
        ("  no no\n\nyes \n", (("no no", "en"), ("yes", "en")), ("  ", "no no\n\n", "yes \n")),
    ],
    ids=["empty", "no words", "quoted", "lines"],
)
def test_segments_with_what_is_between_them_are_the_text(text, segments, whole):
    pieces = whole_text(text, [(part, Language(tag)) for part, tag in segments])
    assert tuple(piece for piece, _ in pieces) == whole and "".join(whole) == text
    assert [tag for _, tag in pieces if tag] == [tag for _, tag in segments]


def test_each_segment_has_its_badge_and_the_text_is_whole(playground):
    both = asked(playground, choice="arrow", strength=1.3, new_tokens=24)
    page = str(answers_markup(both))
    plain, steered = page.split("<h3>Steered</h3>")
    for shown, part in ((both.plain, plain), (both.steered, steered)):
        badges = re.findall(r'<span class="badge( wanted| other|)" title="([^"]+)">(\S+?)</span>', part)
        assert [tag for _, _, tag in badges] == [str(tag or "?") for text, tag in shown.segments if text.strip()]
        assert all((kind == " wanted") == (tag == "fi") for kind, _, tag in badges)
        words = re.search(r'<p class="text">(.*?)</p>', part, flags=re.S)[1]
        bare = re.sub(r'<span class="badge.*?</span>', "", words)
        assert html.unescape(re.sub("<.*?>", "", bare)) == shown.answer.text
    assert "seed 0" in page and "Finnish (fi)" in page and any(tag == "fi" for _, tag in both.steered.segments)


def test_markup_in_an_answer_is_text(playground):
    both = asked(playground)
    attack = "<script>alert(1)</script>"
    shown = replace(both.plain, segments=((attack, Language("en")),), next_tokens=((attack, 0.5),))
    page = answers_markup(replace(both, steered=shown))
    assert "<script>" not in page and html.escape(attack, quote=False) in page


BAD = [
    ({"text": " \n"}, "no prompt came"),
    ({"text": "a\ud800b"}, "the prompt"),
    ({"strength": None}, "strength None came; expected a number from -4 to 4"),
    ({"strength": float("nan")}, "strength nan came"),
    ({"strength": 40}, "strength 40 came"),
    ({"new_tokens": 0}, "new tokens 0 came; expected a whole number from 1 to 512"),
    ({"new_tokens": 2.5}, "new tokens 2.5 came"),
    ({"choice": "nothing"}, "steering 'nothing' came; expected one of 'no steering', 'arrow'"),
    ({"choice": None}, "steering None came"),
    ({"switched_off": ["Klingon"]}, "switched off 'Klingon' came"),
    ({"choice": MEAN}, "target none came; expected one of en, fi, ru"),
    ({"choice": MEAN, "target": "de"}, "target de came; expected one of en, fi, ru"),
    ({"choice": MEAN, "target": "fi", "layer": 99}, "layer 99 came; expected one of 0, 1, 2"),
    ({"target": "klingonese"}, "klingonese"),
    ({"target": "arz"}, "arz cannot be recognised"),
    ({"chat": True}, "no chat template"),
    ({"system": "Be kind."}, "a system prompt came without chat"),
]


@pytest.mark.parametrize(("fields", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_a_bad_question_is_one_line_before_anything_is_generated(playground, monkeypatch, fields, message):
    def never(*_, **__):
        raise AssertionError("generated")

    monkeypatch.setattr("babelscope.serving.playground.side_by_side.generate_answers", never)
    with pytest.raises(ToolkitError, match=re.escape(message)) as problem:
        asked(playground, **fields)
    assert "\n" not in str(problem.value)
    page = answered(playground, **{"text": PROMPT, **fields})
    assert page.startswith('<p class="problem" role="alert">') and html.escape(message)[:20] in page


def test_two_questions_at_once_wait_for_each_other(playground):
    pages, fields = {}, {"text": PROMPT, "new_tokens": 4}
    threads = [
        threading.Thread(target=lambda n=n: pages.update({n: answered(playground, choice="arrow", **fields)}))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(pages.values())) == 1 and "problem" not in pages[0]


def test_the_model_is_as_before(playground, reference):
    before = {name: tensor.clone() for name, tensor in reference[0].named_parameters()}
    asked(playground, choice="delta", strength=2.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in reference[0].named_parameters())
    assert not any(module._forward_hooks for module in reference[0].modules())


def test_artifacts_of_another_model_and_useless_ones_are_refused(reference, artifacts):
    model, tokenizer = reference
    other = replace(artifacts["arrow"], origin=replace(artifacts["arrow"].origin, model_hash="sha256:0"))
    with pytest.raises(ArtifactError, match="arrow: made for"):
        Playground(model=model, tokenizer=tokenizer, artifacts={"arrow": other})
    counts = replace(artifacts["obs"], records={"mlp_gate": artifacts["obs"]["mlp_gate"]})
    with pytest.raises(ArtifactError, match="counts: nothing in it steers"):
        steering_choices({"counts": counts})
    assert len(neuron_switches({"a": artifacts["sets"], "b": artifacts["sets"]})) == 6


def test_without_gradio_the_verb_is_one_line(tmp_path, artifacts, monkeypatch, capsys):
    artifacts["arrow"].save(tmp_path / "arrow")
    monkeypatch.setattr("babelscope.serving.playground.gradio_page.find_spec", lambda name: None)
    assert main(["play", "reference", str(tmp_path / "arrow")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("gradio is not installed; expected it for the page; pip install 'babelscope[play]'")


def test_without_an_artifact_nothing_is_opened(capsys):
    assert main(["play", "reference"]) == 2
    assert capsys.readouterr().err.startswith("babelscope play: no ARTIFACT came; expected one or more folders")


def fetched(address, body=None):
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"} if body else {})
    with urllib.request.urlopen(request, timeout=120) as response:
        return response.read().decode()


@GRADIO
def test_the_verb_serves_a_page_on_this_machine_alone_until_interrupted(playground, artifacts, tmp_path, capsys):
    for name in ("arrow", "sets", "obs"):
        artifacts[name].save(tmp_path / name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [
        "play",
        "reference",
        *(str(tmp_path / name) for name in ("arrow", "sets", "obs")),
        "--port",
        port,
        "--json",
    ]
    run = [sys.executable, "-m", "babelscope", *words]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # ignored where a job is in the background
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(run, preexec_fn=heard, **pipes) as server:
        try:
            assert server.stderr is not None
            said = next((line for line in server.stderr if "the page is at" in line), "")
            address = f"http://127.0.0.1:{port}/"
            assert address in said
            page = fetched(address)
            assert re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="https?://(?!127\.0\.0\.1)', page) == []
            assert "fonts.g" not in page and '"analytics_enabled":false' in page.replace(" ", "")
            fields = [PROMPT, "arrow", "", 1.0, 1, [], 8]
            body = json.dumps({"data": fields}).encode()
            event = json.loads(fetched(f"{address}gradio_api/call/answer", body))["event_id"]
            stream = fetched(f"{address}gradio_api/call/answer/{event}")
            (answer,) = json.loads(re.findall(r"^data: (\[.*\])$", stream, flags=re.M)[-1])
            assert answer == answered(playground, text=PROMPT, choice="arrow", layer=1, new_tokens=8)
            assert main(words) == 1
            assert f"--port {port}: Address already in use" in json.loads(capsys.readouterr().out)["error"]
        finally:
            server.send_signal(signal.SIGINT)
            printed, _ = server.communicate(timeout=60)
    assert server.returncode == 0
    assert json.loads(printed) == {"page": address, "artifacts": ["arrow", "sets", "obs"], "seed": 0}
