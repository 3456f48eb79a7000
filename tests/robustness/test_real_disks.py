"""A disk that is really full and one that is really read-only: one line, nothing lost; as root, for mounts need it."""

import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from robustness.forked_runs import run
from robustness.kill_cases import make_inputs, verbs
from robustness.kills import contents

NAMES = ("observe", "adapt", "features", "study", "identify", "sweep", "probe")


@contextmanager
def mounted(place, *options):
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no mount is allowed here ({done.stderr.strip()}); run as root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    return folder


def remount(place: Path, *options: str) -> None:
    subprocess.run(["mount", "-o", ",".join(("remount", *options)), str(place)], check=True)


@pytest.mark.parametrize("name", ["observe", "adapt"])
def test_a_full_disk_is_one_line_and_with_room_the_run_goes_on_to_the_same_bits(name, inputs, tmp_path):
    verb = verbs(inputs)[name]
    assert run((*verb.words, "--out", str(tmp_path / "whole")), tmp_path / "whole").code == 0
    with mounted(tmp_path / "disk", "size=48k") as disk:
        words = (*verb.words, "--out", str(disk / "out"))
        first = run(words, disk / "out")
        assert first.code == 1 and not first.torn and "the disk is full" in first.message, first
        remount(disk, "size=100m")
        end = run((*words, "--resume"), disk / "out")
        assert end.code == 0 and contents(disk / "out") == contents(tmp_path / "whole"), end
        assert [path.name for path in disk.iterdir()] == ["out"]


@pytest.mark.parametrize("name", NAMES)
def test_a_read_only_disk_is_told_before_the_model_is_opened(name, inputs, tmp_path):
    with mounted(tmp_path / "disk", "size=1m") as disk:
        remount(disk, "ro")
        # Without a model: what is told first is the disk.
        words = [*verbs(inputs)[name].words, "--out", str(disk / "out")]
        end = run([str(inputs / "corpus") if word == str(inputs / "model") else word for word in words], disk / "out")
        assert end.code in (1, 2) and not end.torn and "disk" in end.message and "nothing can be" in end.message, end


def test_a_disk_that_becomes_read_only_loses_nothing(inputs, tmp_path):
    observe = verbs(inputs)["observe"].words
    with mounted(tmp_path / "disk", "size=50m") as disk:
        words = (*observe, "--out", str(disk / "out"))
        assert run(words, disk / "out").code == 0
        before = contents(disk)
        remount(disk, "ro")
        for again in ((*words, "--resume"), words, (*observe, "--out", str(disk / "other"))):
            end = run(again, disk / "out")
            assert not end.torn and contents(disk) == before, end
