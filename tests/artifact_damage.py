"""Artifacts as a stranger would write them: what is wrong in them, under hashes that are right."""

import json

from babelscope.files.state_folder import hash_json
from babelscope.files.tensor_files import hash_file


def reseal(path):
    """Give a changed artifact the hashes that belong to it; what is no artifact any more is left as it is."""
    file, tensors = path / "config.json", path / "tensors.safetensors"
    if file.is_symlink() or not file.is_file() or tensors.is_symlink() or not tensors.is_file():
        return path
    try:
        config = json.loads(file.read_text())
        described = {name: value for name, value in config.items() if name != "sha256"}
        hashes = {"tensors": hash_file(tensors), "description": hash_json(described)}
        if isinstance(config.get("sha256"), dict):
            file.write_text(json.dumps({**described, "sha256": hashes}))
    except (ValueError, RecursionError, AttributeError):
        pass
    return path


def as_before_hashes(path):
    """Make an artifact one of the releases that wrote no hashes."""
    config = json.loads((path / "config.json").read_text())
    config.pop("sha256")
    config["format"] = config["format"].replace("/2", "/1")
    (path / "config.json").write_text(json.dumps(config))
    return path
