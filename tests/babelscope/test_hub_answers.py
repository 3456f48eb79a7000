"""A name that is nowhere is told at once where the hub does not answer; what a cache has is still read."""

import logging
import socket

import pytest
from huggingface_hub import constants

from babelscope import load_corpus, open_model
from babelscope.cli import main
from babelscope.errors import CorpusError, PrerequisiteError
from babelscope.evaluation.prompts import load_prompts
from babelscope.upstream.hub_answers import no_answer_of_hub


@pytest.fixture
def silent_hub(monkeypatch):
    """A hub at a port where nothing listens; a library that asks it all the same fails the test."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.file_download.get_hf_file_metadata", lambda **_: pytest.fail("it asked again"))
    return port


def test_a_typo_of_a_model_is_one_line_without_retries(silent_hub, monkeypatch, capsys):
    with pytest.raises(PrerequisiteError, match=f"'refrence': no such folder or file.*:{silent_hub} does not answer"):
        open_model("refrence")
    words = ["evaluate", "perplexity", "refrence", "reference", "--json"]
    assert main(words) == 1 and len(capsys.readouterr().err.splitlines()) == 1


def test_a_typo_of_a_corpus_or_of_prompts_is_one_line_without_retries(silent_hub):
    pytest.importorskip("datasets")
    with pytest.raises(CorpusError, match="corpus 'corpsu': no file or folder here.*does not answer"):
        load_corpus("corpsu", ["fi"])
    with pytest.raises(CorpusError, match="prompts 'promtps': no file or folder here.*does not answer"):
        load_prompts("promtps", kind="language_confusion")


def test_what_is_cached_and_a_machine_said_to_be_offline_are_not_asked(silent_hub, monkeypatch):
    assert no_answer_of_hub(cached=True) == "" and no_answer_of_hub(cached=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert no_answer_of_hub(cached=False) == ""


def test_a_hub_that_answers_with_an_error_has_answered(monkeypatch):
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Refusing(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(403)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # a machine that is said to be offline asks nobody
        server.timeout = 30.0
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert no_answer_of_hub(cached=False) == ""
        thread.join()


def test_a_line_of_the_hubs_library_is_printed_once(capsys):
    main(["merge", "reference", "--out", "x"])
    library = logging.getLogger("huggingface_hub")
    assert library.handlers and not library.propagate
