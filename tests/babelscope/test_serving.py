"""`babelscope serve`: what an OpenAI client is answered under each name is what `generate` gives with that steering."""

import json
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib.util import find_spec

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from delta_cases import random_delta

import babelscope as bs
from babelscope.cli import main
from babelscope.cli.serving import named_artifact
from babelscope.errors import ArtifactError, PrerequisiteError, UsageError
from babelscope.serving import ServedModels
from babelscope.sites import Site
from babelscope.upstream import openai_server

PROMPT = "The children walked"
NEEDED = [name for name in openai_server.NEEDED if find_spec(name) is None]
SERVER = pytest.mark.skipif(bool(NEEDED), reason=f"not installed: {NEEDED}; pip install 'babelscope[serve]'")


def push(model, tokenizer, layer, seed):
    vector = torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(seed))
    return bs.Direction(vector, Site(layer, "resid_out"), "fi", ("en",), 10.0, bs.origin_of(model, tokenizer))


@torch.no_grad()
def greedy(model, tokenizer, steered):
    ids = tokenizer(PROMPT, return_tensors="pt")
    with steered:
        out = model.generate(**ids, do_sample=False, max_new_tokens=12)
    return tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


@SERVER
def test_each_name_is_answered_as_generate_answers_under_its_steering(reference, tmp_path):
    import openai

    model, tokenizer = reference
    direction, other = push(model, tokenizer, 2, 3), push(model, tokenizer, 3, 4)
    recipe, delta = other.recipe(6.0, "raw"), random_delta(model, share=0.2)
    for name, artifact in (("direction", direction), ("recipe", recipe), ("delta", delta)):
        artifact.save(tmp_path / name)
    expected = {
        "reference": greedy(model, tokenizer, nullcontext()),
        "arrow": greedy(model, tokenizer, bs.steer(model, direction.recipe(6.0, "raw"))),
        "recipe": greedy(model, tokenizer, bs.steer(model, recipe)),
        "tuned": greedy(model, tokenizer, delta.applied(model)),
    }
    assert len(set(expected.values())) == 4
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = {"arrow": "direction", "recipe": "recipe", "tuned": "delta"}
    words = ["serve", "reference", *(f"{name}={tmp_path / folder}" for name, folder in names.items())]
    words += ["--port", str(port), "--strength", "6", "--device", "cpu", "--json"]
    heard = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-m", "babelscope", *words], preexec_fn=heard, **pipes) as server:
        try:
            assert server.stderr is not None
            assert f"at http://127.0.0.1:{port}/v1; Ctrl-C ends it" in next(
                line for line in server.stderr if "serving" in line
            )
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=8, timeout=60)
            assert [row.id for row in client.models.list()] == list(expected)

            def answer(name, **more):
                return client.completions.create(model=name, prompt=PROMPT, max_tokens=12, temperature=0, **more)

            # All names at once, several times over: none acts on another's answer.
            with ThreadPoolExecutor(8) as threads:
                asked = [name for _ in range(3) for name in expected]
                for name, result in zip(asked, threads.map(answer, asked), strict=True):
                    assert result.model == name and result.choices[0].text == expected[name]
            for name in expected:
                assert "".join(part.choices[0].text for part in answer(name, stream=True)) == expected[name]
            broken_off = client.completions.create(model="tuned", prompt=PROMPT, max_tokens=900, stream=True)
            next(iter(broken_off))
            broken_off.close()
            assert answer("reference").choices[0].text == expected["reference"]
            with pytest.raises(openai.NotFoundError, match="model 'nobody' came; expected 'reference' or 'arrow'"):
                answer("nobody")
            message = {"role": "user", "content": "Hello"}
            with pytest.raises(openai.BadRequestError, match="chat template") as caught:
                client.chat.completions.create(model="arrow", messages=[message])
            assert "\n" not in str(caught.value)
        finally:
            server.send_signal(signal.SIGINT)
            printed, _ = server.communicate(timeout=60)
    assert server.returncode == 0
    assert json.loads(printed) == {"address": f"http://127.0.0.1:{port}/v1", "models": list(expected)}


@pytest.fixture
def models():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    return ServedModels(model, tokenizer, {"fi": push(model, tokenizer, 1, 1).recipe(1.0, "raw")}, "plain")


@SERVER
def test_a_server_put_together_in_another_way_is_one_line(models, monkeypatch):
    from transformers.cli.serving import model_manager, server

    with monkeypatch.context() as patched:
        patched.delattr(model_manager.ModelManager, "list_models")
        with pytest.raises(PrerequisiteError, match="transformers .*ModelManager has no method 'list_models'"):
            openai_server.build_application(models)
    monkeypatch.setattr(server, "build_server", lambda chat: chat)
    with pytest.raises(PrerequisiteError, match="unexpected keyword argument.*; expected the one of 5.24"):
        openai_server.build_application(models)


def test_a_missing_package_is_one_line_before_the_model_is_opened(models, monkeypatch, tmp_path):
    push(models.model, models.tokenizer, 1, 1).save(tmp_path / "fi")
    monkeypatch.setattr(openai_server, "NEEDED", ("fastapi", "no_such_package"))
    with pytest.raises(PrerequisiteError, match=r"no_such_package, not installed here.*babelscope\[serve\]"):
        openai_server.build_application(models)
    assert named_artifact(f"fi-2={tmp_path / 'fi'}") == ("fi-2", tmp_path / "fi")
    assert main(["serve", "no-model", f"fi={tmp_path / 'fi'}"]) == 1


def test_names_are_checked(models):
    with pytest.raises(UsageError, match="name 'fi' came, which is the model's own"):
        ServedModels(models.model, models.tokenizer, models.steering, "fi")
    other = tiny_model("gpt2")
    with pytest.raises(ArtifactError, match="fi: made for"):
        ServedModels(other, models.tokenizer, models.steering, "plain")


@pytest.mark.parametrize(("words", "says"), [
    ([], "no artifact came"), (["fi"], "'fi' came; expected NAME=ARTIFACT"), (["a b=PLACE"], "expected NAME=ARTIFACT"),
    (["a.gguf=PLACE"], "expected NAME=ARTIFACT"), (["fi=nowhere"], "fi nowhere: is no folder"),
    (["fi=PLACE", "fi=PLACE"], "each name once"), (["fi=PLACE", "--host", "no.such.host.invalid"], "--host no.such"),
])  # fmt: skip
def test_a_wrong_call_is_one_line(words, says, models, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(openai_server, "NEEDED", ())
    push(models.model, models.tokenizer, 1, 1).save(tmp_path / "place")
    assert main(["serve", "reference", *(word.replace("PLACE", str(tmp_path / "place")) for word in words)]) in (1, 2)
    assert says in capsys.readouterr().err
