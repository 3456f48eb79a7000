"""Output that cannot be written, streams that the shell closed, a folder that is gone, and memory that is not there."""

import os
import shlex
import subprocess
import sys

import pytest

import babelscope.cli as cli
from babelscope.cli import main


@pytest.mark.parametrize(
    ("how", "code", "says"),
    [
        ("> /dev/full", 1, "babelscope: the output could not be written (No space left on device); files that were"),
        (">&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
    ],
)
def test_output_that_cannot_be_written_is_one_line_and_one_that_is_closed_none(how, code, says):
    words = f"{shlex.quote(sys.executable)} -m babelscope --version {how}"
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, check=False)
    assert done.returncode == code and done.stderr.startswith(says), done.stderr
    assert done.stderr.count("\n") == bool(says)


def test_a_closed_stream_takes_no_file_that_is_opened_later(tmp_path):
    program = "\n".join([
        "import os, sys",
        "from babelscope.cli.standard_streams import open_closed_streams",
        "open_closed_streams()",
        f"file = open({str(tmp_path / 'file')!r}, 'w')",
        "os.write(1, b'printed'), os.write(2, b'told')",
    ])  # fmt: skip
    words = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} >&- 2>&-"
    assert subprocess.run(["sh", "-c", words], check=False).returncode == 0
    assert (tmp_path / "file").read_bytes() == b""


def test_a_current_folder_that_is_gone_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    code = main(["observe", "reference", "reference", "--out", "out"])
    err = capsys.readouterr().err
    assert code == 2 and err.count("\n") == 1 and "cd to one that is there" in err


@pytest.mark.parametrize(
    "err", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]
)
def test_memory_that_is_not_there_is_one_line_and_another_error_is_shown_as_it_is(err, monkeypatch, capsys):
    def refuse(failure):
        raise failure

    import torch  # noqa: F401 - an error of torch comes from torch

    monkeypatch.setattr("babelscope.cli.calling.call_verb", lambda verb, words: refuse(err))
    assert main(["doctor"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("babelscope doctor: not enough memory (") and said.count("\n") == 1
    monkeypatch.setattr("babelscope.cli.calling.call_verb", lambda verb, words: refuse(RuntimeError("another")))
    with pytest.raises(RuntimeError, match="another"):
        cli.main(["doctor"])
