"""Gemma Scope's params.npz by strangers: whole and as it was written, or one line, and no more memory than it says."""

import io
import os
import random
import zipfile

import numpy as np
import pytest

from babelscope.errors import ArtifactError
from babelscope.features import load_sae
from babelscope.features.arrays import read_arrays
from babelscope.files.limits import ARRAYS

RANDOM = np.random.default_rng(0)
SHAPES = {"W_enc": (4, 6), "W_dec": (6, 4), "b_enc": (6,), "b_dec": (4,), "threshold": (6,)}
PLAIN = {name: RANDOM.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def attempt(path, content):
    """The arrays of a file, or None where it is refused in one line; the autoencoder is refused with them."""
    path.write_bytes(content)
    try:
        arrays = read_arrays(path)
    except ArtifactError as err:
        assert "\n" not in str(err) and len(str(err)) < 600 and "expected" in str(err)
        with pytest.raises(ArtifactError):
            load_sae(path, site="1.resid_out")
        return None
    return arrays


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_that_was_cut_or_changed_is_refused_or_the_same(tmp_path, save):
    path = tmp_path / "params.npz"
    save(path, **PLAIN)
    whole, draw = path.read_bytes(), random.Random(1)
    arrays = attempt(path, whole)
    assert arrays.keys() == PLAIN.keys() and all(np.array_equal(arrays[name], PLAIN[name]) for name in PLAIN)
    for place in draw.sample(range(len(whole)), 250):
        assert attempt(path, whole[:place]) is None, place
    refused = 0
    for _ in range(400):
        changed = bytearray(whole)
        changed[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        arrays = attempt(path, bytes(changed))
        refused += arrays is None
        assert arrays is None or all(np.array_equal(arrays[name], PLAIN[name]) for name in PLAIN if name in arrays)
    assert refused > 200


def npy(head, content=b""):
    out = io.BytesIO()
    out.write(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode("latin-1") + content)
    return out.getvalue()


HEADS = {
    "huge": "{'descr': '<f4', 'fortran_order': False, 'shape': (274877906944,)}\n",
    "longer": "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}\n",
    "shorter": "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}\n",
    "negative": "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}\n",
    "overflow": "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}\n",
    "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n",
    "numbers": "{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}\n",
    "records": "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}\n",
    "no dtype": "{'descr': 'what', 'fortran_order': False, 'shape': (2,)}\n",
    "torn": "{'descr': '<f4', 'fortran_order': False, 'shape': (2,\n",
    "quote": "{'descr': '<f4\n",
    "brackets": "(" * 9000,
    "code": "__import__('os').system('touch ran')\n",
    "empty": "",
    "NULs": "\0" * 64,
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_is_none_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(tmp_path / "made.npz", "w") as archive:
        archive.writestr("W_enc.npy", npy(HEADS[name], bytes(8)))
    assert attempt(tmp_path / "params.npz", (tmp_path / "made.npz").read_bytes()) is None
    assert not (tmp_path / "ran").exists()


def test_the_shape_in_a_head_is_compared_before_there_is_room_for_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "params.npz", "w") as archive:
        archive.writestr("W_enc.npy", npy(HEADS["huge"], bytes(8)))
    with pytest.raises(ArtifactError, match=r"W_enc.npy is \[274877906944\], which takes 1099511627776 bytes"):
        read_arrays(tmp_path / "params.npz")


def test_other_archives_are_refused(tmp_path):
    path = tmp_path / "params.npz"
    os.mkfifo(path)
    with pytest.raises(ArtifactError, match="is no file"):
        load_sae(path, site="1.resid_out")
    path.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "words")
    assert attempt(path, path.read_bytes()) is None
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "w") as archive:
        for _ in range(2):
            archive.writestr("b_dec.npy", npy(HEADS["longer"], bytes(12)))
    assert attempt(path, path.read_bytes()) is None
    assert attempt(path, b"") is None and attempt(path, bytes(200)) is None


def test_a_small_file_of_very_large_arrays_is_refused_and_the_setting_named(tmp_path, monkeypatch):
    path = tmp_path / "params.npz"
    np.savez_compressed(path, W_enc=np.zeros((1 << 19,), dtype=np.float32))
    monkeypatch.setenv(ARRAYS.setting, "1")
    assert path.stat().st_size < 1 << 14
    with pytest.raises(ArtifactError, match=f"expected at most 1 MiB.*set {ARRAYS.setting} higher"):
        read_arrays(path)
    monkeypatch.setenv(ARRAYS.setting, "3")
    assert read_arrays(path)["W_enc"].shape == (1 << 19,)
