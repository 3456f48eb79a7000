"""Progress in a terminal is a bar; in a log file it is a line now and then, and nothing for what is soon done."""

import ast
import io
import sys
from pathlib import Path

import pytest

from babelscope import progress
from babelscope.progress import progress_bar


class Stream(io.StringIO):
    """An error stream that is a terminal, or is not."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def written(monkeypatch):
    """A function that shows a bar of three cells, and gives what stands in the error stream after it."""

    def run(terminal, **options):
        monkeypatch.setattr(sys, "stderr", Stream(terminal))
        monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
        with progress_bar(**{"total": 3, "unit": "cell", "desc": "ablating"} | options) as bar:
            for _ in range(3):
                bar.update()
        return sys.stderr.getvalue()

    return run


def test_a_log_file_gets_whole_lines_with_what_is_done_and_what_is_left(written, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    text = written(False)
    lines = text.splitlines()
    assert "\r" not in text and "\x1b" not in text and text.endswith("\n")
    assert all(line.startswith("ablating: cell ") and line.endswith(" left") for line in lines)
    assert lines[-1] == "ablating: cell 3 of 3, 00:00 so far, 00:00 left"


def test_what_is_soon_done_writes_no_line_into_a_log_file(written):
    assert written(False) == ""


def test_what_a_bar_says_beside_its_count_stands_in_the_next_line_and_writes_none_itself(written, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Stream(False))
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    with progress_bar(total=3, unit="step", desc="training") as bar:
        lines = sys.stderr.getvalue().count("\n")
        bar.set_description_str("fi", refresh=False)
        bar.set_postfix({"loss": "2.5"}, refresh=False)
        assert sys.stderr.getvalue().count("\n") == lines
        bar.update()
    assert sys.stderr.getvalue().splitlines()[-1].startswith("fi: step 1 of 3, ")
    assert sys.stderr.getvalue().splitlines()[-1].endswith(" left, loss=2.5")


@pytest.mark.parametrize("call", ["set_description", "set_description_str", "set_postfix"])
def test_no_loop_writes_a_line_at_each_turn(call):
    for path in Path(progress.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == call:
                assert {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}["refresh"] == "False", (
                    path
                )


def test_a_bar_without_a_name_begins_with_its_unit(written, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    assert written(False, desc="").splitlines()[-1].startswith("cell 3 of 3")


def test_a_terminal_gets_a_bar_that_is_drawn_in_place(written):
    text = written(True)
    assert "\r" in text and "3/3" in text and "100%" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_is_shown_where_none_is_asked_for(written, monkeypatch, terminal):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    assert written(terminal, shown=False) == ""


def test_a_bar_below_another_writes_no_move_of_the_cursor(written, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    monkeypatch.setattr(sys, "stderr", Stream(False))
    with progress_bar(total=1, unit="run") as outer:
        with progress_bar(total=1, unit="cell") as inner:
            inner.update()
        outer.update()
        text = sys.stderr.getvalue()
    assert "\x1b" not in text and "cell 1 of 1" in text
