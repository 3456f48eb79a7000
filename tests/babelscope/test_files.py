"""Files are written whole or not at all, by one writer, and read back only as they were written."""

import errno
import fcntl
import json
import math
import os
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from babelscope.errors import ArtifactError, CorpusError, PrerequisiteError
from babelscope.files.state_folder import RunState, restore, saved_facts, state_folder
from babelscope.files.strict_json import nan_as_null, parse_json, read_json
from babelscope.files.temporary_names import PARTIAL, UNDER_WAY, make_parent, names_open_file, temporary_beside
from babelscope.files.tensor_files import hash_file, read_tensors, write_tensors
from babelscope.files.writing import append_lines, discard, locked, new_folder, whole_file, write_bytes, write_text

DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
)  # fmt: skip


def every_dtype():
    numbers = torch.arange(6).view(2, 3)
    tensors = {
        f"t{i}.{kind}": (numbers % 2 if kind == torch.bool else numbers).to(kind) for i, kind in enumerate(DTYPES)
    }
    return {
        **tensors,
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "turned": torch.rand(3, 5).T,
        'ä"': numbers,
    }


def test_tensor_files_are_the_bytes_that_safetensors_writes(tmp_path):
    tensors = every_dtype()
    digest = write_tensors(tmp_path / "a", tensors, metadata={"format": "pt"})
    expected = save({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, metadata={"format": "pt"})
    theirs = load_file(tmp_path / "a")
    assert all(
        torch.equal(tensors[name], theirs[name]) and tensors[name].dtype == theirs[name].dtype for name in tensors
    )
    assert len(theirs) == len(tensors)
    # safetensors orders dtypes of one width its own way, so bytes are compared where there is one of each width.
    some = {name: tensors[name] for name in ("scalar", "empty", "turned")}
    write_tensors(tmp_path / "b", some)
    assert (tmp_path / "b").read_bytes() == save({name: tensor.contiguous() for name, tensor in some.items()})
    assert len((tmp_path / "a").read_bytes()) == len(expected)
    printed = subprocess.run(["sha256sum", tmp_path / "a"], capture_output=True, text=True, check=True).stdout
    assert printed.split()[0] == digest == hash_file(tmp_path / "a")


def test_one_flipped_bit_anywhere_in_a_tensor_file_is_refused(tmp_path):
    path = tmp_path / "a"
    digest = write_tensors(path, {"x": torch.arange(40.0), "y": torch.arange(3)})
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError):
            read_tensors(path, digest)
    path.write_bytes(whole)
    assert torch.equal(read_tensors(path, digest)["x"], torch.arange(40.0))


def test_a_file_is_replaced_whole_and_an_error_leaves_the_earlier_one(tmp_path):
    path = write_text(tmp_path / "deep" / "file", "earlier")
    with pytest.raises(ZeroDivisionError), whole_file(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "earlier" and os.listdir(path.parent) == ["file"]
    assert write_text(path, "later").read_text() == "later"
    with pytest.raises(ArtifactError, match="already there"):
        write_text(path, "third", new=True)
    assert write_bytes(tmp_path / "fresh", b"x", new=True).read_bytes() == b"x"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_all_files_get_the_permissions_of_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with new_folder(tmp_path / "folder") as partial:
            write_tensors(partial / "t", {"x": torch.zeros(3)})
            write_text(partial / "inner" / "c", "{}")
            (partial / "stranger").touch(0o600)
        write_text(tmp_path / "file", "")
    finally:
        os.umask(before)
    paths = [tmp_path / "file", *(tmp_path / "folder").rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()} == {0o666 & ~umask}
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((tmp_path / "folder" / "inner").stat().st_mode) == 0o777 & ~umask


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
        (errno.EFBIG, "ulimit"),
        (errno.EDQUOT, "quota"),
        (errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize("writer", [write_text, write_bytes, write_tensors, append_lines, "folder"])
def test_a_refused_write_gives_the_true_reason_in_one_line_and_leaves_nothing(
    tmp_path, monkeypatch, number, reason, writer
):
    def refuse(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    content = {write_text: "x", write_bytes: b"x", write_tensors: {"x": torch.zeros(2)}, append_lines: ["x"]}
    with pytest.raises(PrerequisiteError, match=reason) as caught:
        if writer == "folder":
            with new_folder(tmp_path / "out") as partial:
                write_text(partial / "file", "x")
        else:
            writer(tmp_path / "out", content[writer])
    assert "\n" not in str(caught.value) and PARTIAL not in str(caught.value)
    left = [path for path in tmp_path.iterdir() if not (writer is append_lines and path.stat().st_size == 0)]
    assert not left


def test_names_that_the_system_refuses_are_one_line(tmp_path):
    (tmp_path / "file").touch()
    for name, reason in (("n" * 300, "too long"), ("file/x", "is a file"), ("a\0b", "NUL")):
        for write in (lambda path: write_text(path, ""), lambda path: new_folder(path).__enter__()):
            with pytest.raises(PrerequisiteError, match=reason):
                write(f"{tmp_path}/{name}")
    assert write_text(tmp_path / ("n" * 255), "as long as a name can be").is_file()


def test_a_race_for_a_folder_has_one_winner_and_the_other_is_told_that_it_is_there(tmp_path):
    with pytest.raises(ArtifactError, match="already there"), new_folder(tmp_path / "out") as slow:
        write_text(slow / "who", "slow")
        with new_folder(tmp_path / "out") as fast:
            write_text(fast / "who", "fast")
    assert (tmp_path / "out" / "who").read_text() == "fast" and os.listdir(tmp_path) == ["out"]
    with pytest.raises(ArtifactError, match="already there"), whole_file(tmp_path / "file", new=True):
        write_text(tmp_path / "file", "fast")
    assert (tmp_path / "file").read_text() == "fast"


def test_what_a_killed_run_was_writing_goes_with_the_next_write_and_a_living_run_keeps_its_own(tmp_path):
    program = (
        "import os, sys\nfrom babelscope.files.writing import *\n"
        "with new_folder(sys.argv[1] + '/out') as folder, whole_file(sys.argv[1] + '/file'):\n"
        "    write_text(folder / 'x', 'x')\n    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path]).returncode == -9
    assert len(list(tmp_path.glob(f"{PARTIAL}*"))) == 2
    with new_folder(tmp_path / "living") as living:
        write_text(tmp_path / "next", "")
        assert sorted(os.listdir(tmp_path)) == sorted([living.name, "next"])
    assert sorted(os.listdir(tmp_path)) == ["living", "next"]


def test_a_temporary_name_is_locked_while_it_is_written_and_gone_at_the_end(tmp_path):
    for folder in (False, True):
        with pytest.raises(ValueError), temporary_beside(tmp_path / "deep" / "out", folder=folder) as partial:
            assert partial.parent == tmp_path / "deep" and partial.is_dir() == folder and partial in UNDER_WAY
            descriptor = os.open(partial, os.O_RDONLY)
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            assert names_open_file(partial, descriptor)
            raise ValueError
        assert not names_open_file(partial, descriptor) and partial not in UNDER_WAY
        os.close(descriptor)
        assert os.listdir(tmp_path / "deep") == []
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        make_parent(tmp_path / "file" / "out")


def test_many_writers_of_one_folder_lose_nothing(tmp_path):
    def work(number):
        for i in range(10):
            write_text(tmp_path / f"{number}-{i}", str(i))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        f"{number}-{i}": str(i) for number in range(4) for i in range(10)
    }


def test_lines_are_appended_whole_and_half_a_line_is_cut_off(tmp_path):
    path = tmp_path / "rows"
    append_lines(path, ["a", "b"])
    with path.open("ab") as file:
        file.write(b"half" * 40_000)
    append_lines(path, ["c"])
    assert path.read_text() == "a\nb\nc\n"
    path.write_text("half")
    append_lines(path, ["d"])
    assert path.read_text() == "d\n"


def test_a_folder_is_used_by_one_run_at_a_time_and_a_crash_leaves_no_lock(tmp_path):
    program = "import sys, os\nfrom pathlib import Path\nfrom babelscope.files.writing import locked\n"
    held = f"{program}with locked(Path(sys.argv[1])):\n    print('in', flush=True); sys.stdin.read()"
    folder = tmp_path / "out.checkpoint"
    child = subprocess.Popen([sys.executable, "-c", held, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout and child.stdout.readline() == b"in\n"
    with pytest.raises(PrerequisiteError, match="another run is using it"), locked(folder):
        pass
    (folder / "x").touch()
    discard(folder)
    assert folder.is_dir()
    child.kill()
    child.communicate()
    with locked(folder):
        pass
    assert folder.is_dir(), "it is not empty"
    discard(folder)
    assert not folder.exists()
    with locked(folder):
        assert folder.is_dir()
    assert not folder.exists()


def test_a_file_system_without_locks_is_worked_on_without(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / f"{PARTIAL}0").mkdir()
    with locked(tmp_path / "folder"):
        write_text(tmp_path / "file", "x")
    assert "no lock is to be had" in caplog.text
    assert (tmp_path / f"{PARTIAL}0").is_dir(), "its writer may be alive"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 1}', "'a' comes twice"),
        ('{"b": [{"a": 1, "a": 2}]}', "'a' comes twice"),
        ("[NaN]", "NaN"),
        ("[-Infinity]", "-Infinity"),
        ("[1e999]", "too large"),
        (f"[{'9' * 400}]", "400 digits"),
        (f"[{'9' * 5000}]", "5000 digits"),
        ("[" * 60 + "1" + "]" * 70, "no JSON"),
        ("[" * 80 + "]" * 80, "deep"),
        ("[" * 100_000 + "]" * 100_000, "deep"),
        ('{"a":' * 5_000 + "1" + "}" * 5_000, "deep"),
        ('["\\ud800"]', "surrogate"),
        ('{"\\udfff": 1}', "surrogate"),
        (b'["\xff"]', "no UTF-8"),
        ("{} {}", "no JSON"),
        ("", "no JSON"),
        ("[1,]", "no JSON"),
    ],
)
def test_json_that_two_readers_could_read_as_two_things_is_refused_in_one_line(text, reason):
    with pytest.raises(CorpusError, match=reason) as caught:
        parse_json(text, "fi.jsonl, line 3", error=CorpusError, advice="correct it")
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300 and message.startswith("fi.jsonl, line 3: ")
    assert message.endswith("correct it")


def test_sound_json_is_what_the_standard_reader_reads(tmp_path):
    text = '{"a": [1, -2.5e-3, true, null, "ä\\n\\u0000😀\\ud83d\\ude00"], "b": {}, "c": 18446744073709551615}'
    assert parse_json(text, "here") == json.loads(text)
    (tmp_path / "f").write_text(text)
    assert read_json(tmp_path / "f") == json.loads(text)
    for path, limit in ((tmp_path / "gone", 100), (tmp_path, 10**6), (tmp_path / "f", 10)):
        with pytest.raises(ArtifactError):
            read_json(path, most_bytes=limit)


def state(done=2):
    return RunState(done, {"x": torch.arange(5.0), "y": torch.tensor([done])}, {"tokens": 7})


def test_what_is_written_as_json_has_null_for_what_is_no_finite_number_at_any_depth():
    nan, inf = math.nan, math.inf
    values = {
        "numbers": (nan, inf, -inf, 0.5, 3, True, None, "nan"),
        "numpy": [np.float64(nan), np.float32(inf), np.float32(0.5), np.int64(3), np.bool_(True)],
        "array": np.array([[1.0, nan], [-inf, 2.0]]),
        "counts": np.arange(3),
        "mixed": np.array([nan, "x", (inf,)], dtype=object),
        "tensor": torch.tensor([nan, 1.0]),
        "scalar": torch.tensor(inf),
        2: {"deep": [{"deeper": (np.array(nan), 1)}]},
    }
    expected = {
        "numbers": [None, None, None, 0.5, 3, True, None, "nan"],
        "numpy": [None, None, 0.5, 3, True],
        "array": [[1.0, None], [None, 2.0]],
        "counts": [0, 1, 2],
        "mixed": [None, "x", [None]],
        "tensor": [None, 1.0],
        "scalar": None,
        "2": {"deep": [{"deeper": [None, 1]}]},
    }
    assert nan_as_null(values) == expected
    # Python's own writer refuses what is no JSON; what it wrote is what was meant.
    assert json.loads(json.dumps(nan_as_null(values), allow_nan=False)) == expected
    assert np.isnan(values["array"][0, 1]), "the values themselves are not touched"


def test_a_state_comes_back_and_saving_it_twice_leaves_one(tmp_path):
    with state_folder(tmp_path / "s", "print") as folder:
        assert folder.read() is None and saved_facts(tmp_path / "s") == {}
        for done in (1, 2, 2):
            folder.write(state(done))
        assert len(list((tmp_path / "s").iterdir())) == 2
        back = folder.read(most=2)
        assert back and (back.done, back.facts) == (2, {"tokens": 7})
        assert torch.equal(back.tensors["x"], torch.arange(5.0))
        assert saved_facts(tmp_path / "s") == {"tokens": 7}
        with pytest.raises(ArtifactError, match="2 of 1"):
            folder.read(most=1)
        with pytest.raises(PrerequisiteError, match="another run"), state_folder(tmp_path / "s", "print"):
            pass
    with pytest.raises(ArtifactError, match="another run"), state_folder(tmp_path / "s", "other") as folder:
        folder.read()


def test_any_flipped_bit_of_a_state_is_refused(tmp_path):
    with state_folder(tmp_path, "print") as folder:
        folder.write(state())
        for path in sorted(tmp_path.iterdir()):
            whole = path.read_bytes()
            for place in range(0, len(whole), 3):
                damaged = bytearray(whole)
                damaged[place] ^= 1 << (place % 7)
                path.write_bytes(damaged)
                with pytest.raises(ArtifactError) as caught:
                    folder.read()
                assert "\n" not in str(caught.value)
            path.write_bytes(whole)
        back = folder.read()
        assert back and back.done == 2


def test_a_state_never_names_a_file_outside_its_folder(tmp_path):
    from babelscope.files.state_folder import write_sealed

    digest = write_tensors(tmp_path / "outside", {"x": torch.zeros(1)})
    with state_folder(tmp_path / "s", "print") as folder:
        content = {"done": 1, "facts": {}, "tensors": {"file": "../outside", "sha256": digest}}
        write_sealed(tmp_path / "s" / "state.json", content, "print")
        with pytest.raises(ArtifactError, match="s/outside"):
            folder.read()


@pytest.mark.parametrize(
    ("saved", "reason"),
    [
        ({"x": torch.zeros(3)}, "lacks 'y'"),
        ({"x": torch.zeros(3), "y": torch.zeros(2), "z": torch.zeros(1)}, "besides what is expected, 'z'"),
        ({"x": torch.zeros(4), "y": torch.zeros(2)}, r"'x' is torch.float32 \[4\]"),
        ({"x": torch.zeros(1), "y": torch.zeros(2)}, "'x' is"),
        ({"x": torch.zeros(3).double(), "y": torch.zeros(2)}, "'x' is torch.float64"),
    ],
)
def test_a_state_of_other_names_shapes_or_dtypes_is_refused_and_changes_nothing(tmp_path, saved, reason):
    live = {"x": torch.ones(3), "y": torch.ones(2)}
    with pytest.raises(ArtifactError, match=reason):
        restore(live, saved, tmp_path)
    assert all(bool((tensor == 1).all()) for tensor in live.values())
