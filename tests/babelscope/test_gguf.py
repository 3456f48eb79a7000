"""Control vectors go to llama.cpp's format and come back; the gguf package is the witness."""

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from steering_cases import logits, push, vector

from babelscope import Gate, Operation, Schedule, Site, SteeringRecipe, origin_of, steer
from babelscope.adapters.gguf import export_control_vector, import_control_vector
from babelscope.artifacts import Origin
from babelscope.errors import ArtifactError, SteeringError

gguf = pytest.importorskip("gguf", reason="gguf is not installed; pip install 'babelscope[all]'")
ORIGIN = Origin("tiny", "", "model-hash", "tokenizer-hash")


def add(layer, seed=0, **more):
    return Operation(Site(layer, "resid_out"), "add", vector(seed), **more)


def test_the_gguf_package_reads_what_was_written(tmp_path):
    recipe = SteeringRecipe((add(1, strength=2.0, unit="unit"), add(2, 1), add(2, 2, strength=-0.5)), ORIGIN)
    reader = gguf.GGUFReader(export_control_vector(recipe, tmp_path / "fi.gguf", model_hint="llama"))
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "llama"
    assert reader.get_field("controlvector.layer_count").contents() == 2
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert list(tensors) == ["direction.1", "direction.2"]
    assert all(tensor.tensor_type == gguf.GGMLQuantizationType.F32 for tensor in tensors.values())
    assert all(list(tensor.shape) == [32] for tensor in tensors.values())
    expected = {"direction.1": 2 * vector() / vector().norm(), "direction.2": vector(1) - 0.5 * vector(2)}
    for name, tensor in tensors.items():
        np.testing.assert_allclose(tensor.data, expected[name].numpy(), rtol=1e-6, atol=1e-7)


def test_a_control_vector_comes_back_and_steers_alike(tmp_path, ids):
    model = tiny_model("llama")
    origin = origin_of(model, tiny_tokenizer())
    recipe = SteeringRecipe((add(1, strength=3.0), add(2, 1)), origin)
    loaded = import_control_vector(export_control_vector(recipe, tmp_path / "v.gguf", model_hint="llama"))
    assert loaded.origin == origin
    with steer(model, recipe):
        expected = logits(model, ids)
    with steer(model, loaded):
        # 3·v is rounded to float32 in the file.
        torch.testing.assert_close(logits(model, ids), expected, rtol=0, atol=1e-5)
    again = export_control_vector(loaded, tmp_path / "again.gguf", model_hint="llama")
    assert again.read_bytes() == (tmp_path / "v.gguf").read_bytes()
    with pytest.raises(ArtifactError, match="model_hash"), steer(tiny_model("qwen2"), loaded):
        pass


@pytest.mark.parametrize(
    ("operation", "word"),
    [
        (add(0), "layer 0"),
        (Operation(Site(1, "mlp_out"), "add", vector()), "whole resid_out"),
        (Operation(Site(1, "resid_out"), "scale", vector()), "whole resid_out"),
        (Operation(Site(1, "resid_out"), "add", vector()[:2], indices=torch.tensor([3, 4])), "whole resid_out"),
        (push(phase="generated"), "gate"),
        (push(positions=(-1, None)), "gate"),
        (push(skip_special=True), "gate"),
        (add(1, schedule=Schedule.first(2)), "schedule"),
    ],
)
def test_what_the_format_can_not_say_is_refused(tmp_path, operation, word):
    with pytest.raises(SteeringError, match=word) as caught:
        export_control_vector(SteeringRecipe((add(1), operation), ORIGIN), tmp_path / "v.gguf", model_hint="llama")
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def write(path, tensors, architecture="controlvector"):
    writer = gguf.GGUFWriter(path, architecture)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


ROW = np.ones(8, dtype=np.float32)


@pytest.mark.parametrize(
    ("tensors", "architecture", "word"),
    [
        ({"direction.0": ROW}, "controlvector", "N of 1 or more"),
        ({"layer.1": ROW}, "controlvector", "N of 1 or more"),
        ({"direction.1": ROW.astype(np.float16)}, "controlvector", "F32"),
        ({"direction.1": np.ones((2, 8), dtype=np.float32)}, "controlvector", "F32"),
        ({"direction.1": ROW, "direction.2": ROW[:4]}, "controlvector", "different widths"),
        ({"direction.1": ROW}, "llama", "architecture"),
        ({}, "controlvector", "no direction"),
    ],
)
def test_files_that_llama_cpp_would_refuse_are_refused(tmp_path, tensors, architecture, word):
    with pytest.raises(ArtifactError, match=word):
        import_control_vector(write(tmp_path / "v.gguf", tensors, architecture))


def test_a_strangers_control_vector_is_read_and_its_width_checked(tmp_path):
    loaded = import_control_vector(write(tmp_path / "v.gguf", {"direction.2": ROW}))
    assert [str(operation.site) for operation in loaded] == ["2.resid_out"]
    assert loaded.operations[0].gate == Gate(skip_special=False)
    with pytest.raises(SteeringError, match="8 values"), steer(tiny_model("llama"), loaded):
        pass


def test_a_strangers_control_vector_may_be_saved_and_steers_a_model_of_its_width(tmp_path, ids):
    model, wide = tiny_model("llama"), np.full(32, 0.5, dtype=np.float32)
    imported = import_control_vector(write(tmp_path / "v.gguf", {"direction.2": wide}))
    saved = SteeringRecipe.load(imported.save(tmp_path / "recipe"))
    saved.check(model)
    with steer(model, Operation(Site(2, "resid_out"), "add", torch.from_numpy(wide))):
        expected = logits(model, ids)
    for recipe in (imported, saved):
        with steer(model, recipe):
            assert torch.equal(logits(model, ids), expected)


def test_a_damaged_name_of_the_model_is_refused(tmp_path):
    for number, text in enumerate(("{no json", '["a"]', '{"model": "a"}')):
        writer = gguf.GGUFWriter(tmp_path / f"{number}.gguf", "controlvector")
        writer.add_string("controlvector.babelscope_origin", text)
        writer.add_tensor("direction.1", ROW)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(ArtifactError, match="origin is unreadable") as caught:
            import_control_vector(tmp_path / f"{number}.gguf")
        assert "\n" not in str(caught.value)


def test_no_file_or_a_damaged_one_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no file"):
        import_control_vector(tmp_path / "none.gguf")
    (tmp_path / "torn.gguf").write_bytes(b"GGUF1234")
    with pytest.raises(ArtifactError, match="unreadable"):
        import_control_vector(tmp_path / "torn.gguf")
    export_control_vector(SteeringRecipe((add(1),), ORIGIN), tmp_path / "v.gguf", model_hint="llama")
    with pytest.raises(ArtifactError, match="already there"):
        export_control_vector(SteeringRecipe((add(1),), ORIGIN), tmp_path / "v.gguf", model_hint="llama")
