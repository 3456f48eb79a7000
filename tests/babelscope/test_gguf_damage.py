"""GGUF files by strangers: read without trust, refused in one line, and nothing in them costs more than their size."""

import random
import struct
import time

import numpy as np
import pytest
import torch
from steering_cases import vector

from babelscope import Operation, Site, SteeringRecipe
from babelscope.adapters.gguf import export_control_vector, import_control_vector
from babelscope.artifacts import Origin
from babelscope.errors import ArtifactError, PrerequisiteError, ToolkitError
from babelscope.models.gguf_head import read_gguf_head

gguf = pytest.importorskip("gguf", reason="gguf is not installed; pip install 'babelscope[all]'")
RECIPE = SteeringRecipe(
    tuple(Operation(Site(layer, "resid_out"), "add", vector(layer)) for layer in (1, 2, 5)),
    Origin("tiny", "", "model-hash", "tokenizer-hash"),
)


@pytest.fixture
def whole(tmp_path):
    return export_control_vector(RECIPE, tmp_path / "whole.gguf", model_hint="llama").read_bytes()


def imported(path, content):
    """What a file gives: layers and vectors, or None where it is refused in one line."""
    path.write_bytes(content)
    try:
        recipe = import_control_vector(path)
    except ToolkitError as err:
        assert isinstance(err, ArtifactError) and "\n" not in str(err) and "expected" in str(err)
        return None
    return {operation.site.layer: operation.vector for operation in recipe}


def is_same(found):
    plain = {operation.site.layer: operation.vector for operation in RECIPE}
    return found.keys() == plain.keys() and all(torch.equal(found[layer], plain[layer]) for layer in plain)


def test_no_cut_is_taken_for_a_whole_file(tmp_path, whole):
    assert is_same(imported(tmp_path / "v.gguf", whole))
    for place in random.Random(0).sample(range(len(whole)), 300):
        assert imported(tmp_path / "v.gguf", whole[:place]) is None, place


def test_bytes_put_in_left_out_or_added_are_refused(tmp_path, whole):
    draw = random.Random(1)
    for _ in range(200):
        place, length = draw.randrange(len(whole)), draw.choice([1, 4, 8, 32])
        assert imported(tmp_path / "v.gguf", whole[:place] + bytes(length) + whole[place:]) is None
        assert imported(tmp_path / "v.gguf", whole[:place] + whole[place + length :]) is None
    assert imported(tmp_path / "v.gguf", whole + b"\0") is None


def test_a_flipped_bit_is_refused_in_a_file_written_here(tmp_path, whole):
    draw, refused = random.Random(2), 0
    for _ in range(400):
        changed = bytearray(whole)
        changed[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        found = imported(tmp_path / "v.gguf", bytes(changed))
        refused += found is None
        assert found is None or is_same(found)
    assert refused > 350


def head(*values, n_values=1, n_tensors=0):
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_values) + b"".join(values)


def text(value):
    return struct.pack("<Q", len(value)) + value


HUGE = 1 << 50
LISTS = b"".join(struct.pack("<IQ", 9, 1) for _ in range(5000))
SMALL = {
    "list of numbers": head(text(b"x"), struct.pack("<IIQ", 9, 4, HUGE), bytes(40)),
    "list of texts": head(text(b"x"), struct.pack("<IIQ", 9, 8, HUGE), bytes(40)),
    "list of lists": head(text(b"x"), struct.pack("<IIQ", 9, 9, HUGE), bytes(40)),
    "list of no type": head(text(b"x"), struct.pack("<IIQ", 9, 99, HUGE), bytes(40)),
    "lists in lists": head(text(b"x"), struct.pack("<I", 9), LISTS),
    "many settings": head(n_values=HUGE),
    "many tensors": head(n_values=0, n_tensors=HUGE),
    "long name": head(struct.pack("<Q", HUGE)),
    "overflow": head(text(b"x"), struct.pack("<IIQ", 9, 12, (1 << 64) - 1)),
    "twice": head(*[text(b"x") + struct.pack("<II", 4, 1)] * 2, n_values=2),
    "alignment": head(text(b"general.alignment"), struct.pack("<II", 4, 33)),
    "no alignment": head(text(b"general.alignment"), struct.pack("<II", 4, 0)),
    "alignment in words": head(text(b"general.alignment"), struct.pack("<I", 8), text(b"32")),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_head_that_names_more_than_the_file_holds_is_refused_at_once(tmp_path, name):
    file = tmp_path / "small.gguf"
    began = time.process_time()
    assert imported(file, SMALL[name]) is None
    with pytest.raises(PrerequisiteError, match="damaged in its head") as caught:
        read_gguf_head(file)
    assert "\n" not in str(caught.value)
    assert time.process_time() - began < 5  # no measure of speed: it hung, and took all memory


def test_tensors_that_overlap_or_leave_gaps_are_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "controlvector")
    for layer in (1, 2):
        writer.add_tensor(f"direction.{layer}", np.full(8, layer, dtype=np.float32))
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file()
    writer.close()
    content = (tmp_path / "v.gguf").read_bytes()
    assert set(imported(tmp_path / "v.gguf", content)) == {1, 2}
    second = content.index(b"direction.2") + len("direction.2") + 4 + 8 + 4
    assert content[second : second + 8] == struct.pack("<Q", 32)
    for offset in (0, 16, 64, 1 << 63):
        moved = content[:second] + struct.pack("<Q", offset) + content[second + 8 :]
        (tmp_path / "v.gguf").write_bytes(moved)
        with pytest.raises(ArtifactError, match=f"begins at byte {offset} of the data; expected 32"):
            import_control_vector(tmp_path / "v.gguf")


def test_names_in_a_file_are_escaped_where_they_are_printed(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "controlvector")
    writer.add_tensor("a\n\x1b[2J\u202e", np.ones(8, dtype=np.float32))
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ArtifactError, match=r"tensor 'a\\n\\x1b\[2J\\u202e'; expected direction.N") as caught:
        import_control_vector(tmp_path / "v.gguf")
    assert str(caught.value).isprintable()
