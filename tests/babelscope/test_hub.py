"""Every artifact goes to the hub and comes back: here to a stand-in that gives links, as the hub's cache does."""

import ast
import importlib
from pathlib import Path

import pytest
from conftest import tiny_model
from delta_cases import random_delta
from robustness.kinds import KINDS, same

import babelscope
from babelscope import Direction
from babelscope.artifacts.hub import HubArtifact
from babelscope.errors import ArtifactError, PrerequisiteError

SOURCE = Path(babelscope.__file__).parent
NAMES = [name for name in KINDS if name[0].isupper() and name.isidentifier()]


class LocalHub:
    """Repositories in a folder: each file a blob, each snapshot a folder of links to blobs, as in the hub's cache."""

    def __init__(self, folder):
        self.folder, self.private = folder, {}

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok
        self.private[repo_id] = private

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        blobs, snapshot = self.folder / repo_id / "blobs", self.folder / repo_id / "snapshots" / "main"
        for place in (blobs, snapshot):
            place.mkdir(parents=True)
        for number, file in enumerate(sorted(Path(folder_path).iterdir())):
            (blobs / str(number)).write_bytes(file.read_bytes())
            (snapshot / file.name).symlink_to(blobs / str(number))
        (blobs / "more").write_text("a file that nobody asked for")
        (snapshot / "pytorch_model.bin").symlink_to(blobs / "more")

    def snapshot_download(self, repo_id, *, revision, allow_patterns):
        assert "pytorch_model.bin" not in allow_patterns
        snapshot = self.folder / repo_id / "snapshots" / (revision or "main")
        if not snapshot.is_dir():
            raise FileNotFoundError(f"404: {repo_id}\nat {revision}")
        return str(snapshot)


@pytest.mark.parametrize("name", NAMES)
def test_an_artifact_comes_back_from_a_folder_and_from_the_hub(name, tmp_path):
    kind, hub = KINDS[name], LocalHub(tmp_path / "hub")
    kind.save(tmp_path / "saved", 1)
    artifact = kind.load(tmp_path / "saved")
    assert isinstance(artifact, HubArtifact)
    again = artifact.save_pretrained(tmp_path / "again")
    assert same(type(artifact).from_pretrained(again), artifact)
    address = artifact.push_to_hub("lab/thing", license="apache-2.0", api=hub)
    assert address == "https://huggingface.co/lab/thing" and hub.private == {"lab/thing": True}
    assert same(type(artifact).from_pretrained("lab/thing", api=hub), artifact)
    assert same(type(artifact).from_pretrained("lab/thing", revision="main", api=hub), artifact)
    card = (tmp_path / "hub" / "lab" / "thing" / "snapshots" / "main" / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n") and "library_name: babelscope" in card
    code = card.partition("```python\n")[2].partition("\n```")[0].splitlines()
    home = code[0].split()[1]
    assert getattr(importlib.import_module(home), name) is type(artifact)
    assert code[-1] == f'artifact = {name}.from_pretrained("lab/thing")'


def test_every_artifact_is_one_of_the_hub():
    """What writes an artifact's folder in a method is a class with the hub's three methods."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and "save_folder(" in ast.unparse(node):
                assert [ast.unparse(base) for base in node.bases] == ["HubArtifact"], f"{path}: {node.name}"


def test_the_hub_refuses_in_one_line_and_damage_is_seen(tmp_path):
    hub = LocalHub(tmp_path)
    with pytest.raises(PrerequisiteError, match="nobody/nothing: no folder here.*gave none .404: nobody/") as err:
        Direction.from_pretrained("nobody/nothing", api=hub)
    assert "\n" not in str(err.value)
    with pytest.raises(ArtifactError, match="is no folder"):
        Direction.from_pretrained(tmp_path / "nothing", api=hub)
    delta = random_delta(tiny_model("llama"))
    delta.push_to_hub("lab/delta", api=hub)
    with pytest.raises(ArtifactError, match="expected 'babelscope.Direction/2'"):
        Direction.from_pretrained("lab/delta", api=hub)
    tensors = tmp_path / "lab" / "delta" / "snapshots" / "main" / "tensors.safetensors"
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="hash|damaged|changed"):
        type(delta).from_pretrained("lab/delta", api=hub)


def test_no_path_of_this_machine_is_handed_on(tmp_path, tokenizer):
    tiny_model("llama").save_pretrained(tmp_path / "finnish-model")
    tokenizer.save_pretrained(tmp_path / "finnish-model")
    model, opened = babelscope.open_model(tmp_path / "finnish-model", device="cpu")
    observation = babelscope.observe(model, opened, {"en": ["the cat sat"], "fi": ["kissa istui"]}, shards=0)
    assert observation.origin.model == "finnish-model"
    folder = observation.save(tmp_path / "observation")
    written = [file.read_bytes() for file in folder.iterdir()]
    assert len(written) >= 3 and not any(str(tmp_path).encode() in content for content in written)
