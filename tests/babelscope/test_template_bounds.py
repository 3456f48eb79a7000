"""Chat templates that never end, take all memory or break: one line, and the process goes on as before."""

import threading
import time

import pytest
from chat_cases import chat_tokenizer

from babelscope import render_chat
from babelscope.corpus import template_bounds
from babelscope.corpus.template_bounds import within_bounds
from babelscope.errors import ChatError

INNER = "{% for j in range(99999) %}{{ messages[0].content if i + j < 0 }}{% endfor %}"
LOOP = f"{{% for i in range(99999) %}}{INNER}{{% endfor %}}"
GROWING = "{% for i in range(99999) %}{{ 'x' * 300000 ~ i }}{% endfor %}"
EVIL = {
    "huge range": ("{% for i in range(10 ** 9) %}x{% endfor %}", "is broken"),
    "deep": ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "is broken"),
    "power": ("{{ (10.0 ** 400) }}", "is broken"),
    "missing": ("{{ messages[7].content.x.y }}", "is broken"),
    "repetition": ("{{ 'x' * (10 ** 15) }}", "is broken"),
    "no template": ("{% for %}", "is broken"),
    "calls itself": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "is broken"),
}


def with_template(template):
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("name", EVIL)
def test_a_template_that_breaks_is_one_line(name):
    template, reason = EVIL[name]
    with pytest.raises(ChatError, match=reason) as caught:
        render_chat(with_template(template), "hello")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1_500


def test_a_template_that_never_ends_is_ended_and_what_comes_after_is_not(monkeypatch):
    monkeypatch.setattr(template_bounds, "SECONDS", 0.5)
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(ChatError, match=r"ran for 0.5 seconds and had not ended; expected milliseconds; set"):
            render_chat(with_template(LOOP), "hello")
    assert time.monotonic() - began < 20
    plain = render_chat(chat_tokenizer(), "hello")
    for _ in range(200):  # nothing that was meant for a template is raised later
        assert render_chat(chat_tokenizer(), "hello") == plain
    time.sleep(10 * template_bounds.POLL)
    assert not [thread for thread in threading.enumerate() if thread.name == "template watch"]


def test_a_template_that_takes_all_memory_is_ended(monkeypatch):
    monkeypatch.setenv("BABELSCOPE_MAX_TEMPLATE_MIB", "200")
    with pytest.raises(ChatError, match="took more memory than it may; expected at most 200 MiB"):
        render_chat(with_template(GROWING), "hello")


def test_another_thread_is_not_stopped_with_a_template(monkeypatch):
    monkeypatch.setattr(template_bounds, "SECONDS", 0.3)
    other, plain = [], render_chat(chat_tokenizer(), "hello")
    thread = threading.Thread(target=lambda: other.extend(render_chat(chat_tokenizer(), "hello") for _ in range(300)))
    thread.start()
    with pytest.raises(ChatError, match="had not ended"):
        render_chat(with_template(LOOP), "hello")
    thread.join()
    assert other == [plain] * 300


def test_what_runs_in_bounds_gives_its_value_or_its_own_error():
    assert within_bounds(lambda: "given") == "given"
    with pytest.raises(ZeroDivisionError):
        within_bounds(lambda: 1 // 0)


def test_what_catches_its_end_is_ended_again(monkeypatch):
    monkeypatch.setattr(template_bounds, "SECONDS", 0.2)
    ends = []

    def stubborn():
        while True:
            try:
                while True:
                    len(ends)
            except Exception as end:
                ends.append(end)
                if len(ends) == 3:
                    raise

    with pytest.raises(ChatError, match=r"ran for 0.2 seconds"):
        within_bounds(stubborn)
    assert len(ends) == 3
