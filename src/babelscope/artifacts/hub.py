"""Artifacts on the Hugging Face hub: sent only when asked, never with text of a corpus, and read by their ids."""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from babelscope.artifacts.storage import CARD, CONFIG, TENSORS
from babelscope.errors import ArtifactError, PrerequisiteError, first_line
from babelscope.files.strict_json import read_json
from babelscope.files.writing import write_bytes, write_text

LONGEST_WORD = 120
"""Characters of a string in an uploaded config; settings are names and codes, longer strings may be sample text."""
Saved = TypeVar("Saved", bound="HubArtifact")
FILES = (CONFIG, TENSORS, CARD)


@runtime_checkable
class Hub(Protocol):
    """What sending uses of `huggingface_hub.HfApi`."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any:
        """Make a model repository, or find it."""
        ...

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any:
        """Upload every file of a folder."""
        ...


@runtime_checkable
class HubFiles(Protocol):
    """What reading uses of `huggingface_hub.HfApi`."""

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        """Fetch files of a repository into the cache; returns their folder."""
        ...


class HubArtifact(ABC):
    """What is saved as a folder, and so can be sent to the hub and read from there, with the words of transformers."""

    @abstractmethod
    def save(self, path: str | Path) -> Path:
        """Write the folder."""

    @classmethod
    @abstractmethod
    def load(cls: type[Saved], path: str | Path, *, verify: bool = True) -> Saved:
        """Read the folder."""

    def save_pretrained(self, path: str | Path) -> Path:
        """`save`, by the name it has in transformers; raises ArtifactError if the path is taken."""
        return self.save(path)

    @classmethod
    def from_pretrained(
        cls: type[Saved],
        source: str | Path,
        *,
        revision: str | None = None,
        verify: bool = True,
        api: HubFiles | None = None,
    ) -> Saved:
        """Read a folder, or the artifact of a hub id such as "user/name", checked as `load` checks it.

        revision: branch, tag or commit on the hub. api: none uses huggingface_hub with the login of this machine's
        user. Raises ArtifactError for what is damaged or of another kind, PrerequisiteError if the hub has nothing.
        """
        if Path(source).exists() or str(source).count("/") != 1:
            return cls.load(source, verify=verify)
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        hub = HfApi() if api is None else api
        try:
            cached = Path(hub.snapshot_download(str(source), revision=revision, allow_patterns=list(FILES)))
        except (HfHubHTTPError, HFValidationError, OSError) as err:
            raise PrerequisiteError(
                f"{source}: no folder here, and the hub gave none ({first_line(err)}); expected a folder or a hub id; "
                "correct it, or log in with `hf auth login` where the repository is private"
            ) from err
        with tempfile.TemporaryDirectory() as folder:
            # The cache holds links, and an artifact's files are read only where they are files of its folder.
            plain = Path(folder) / str(source).rpartition("/")[2]
            plain.mkdir()
            for name in FILES:
                if (cached / name).is_file():
                    write_bytes(plain / name, (cached / name).read_bytes())
            return cls.load(plain, verify=verify)

    def push_to_hub(self, repository: str, *, private: bool = True, license: str = "", api: Hub | None = None) -> str:
        """Upload the saved folder, which holds no text of a corpus; returns its address. Nothing else ever uploads.

        license: of the card, such as "apache-2.0"; none leaves the card without one.
        api: none uses huggingface_hub with the login of this machine's user.
        Raises ArtifactError where a setting could be text, PrerequisiteError if the hub refuses.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        hub = HfApi() if api is None else api
        with tempfile.TemporaryDirectory() as folder:
            path = self.save(Path(folder) / "artifact")
            check_no_text(read_json(path / CONFIG))
            card = (path / CARD).read_text(encoding="utf-8").replace("USER/NAME", repository)
            write_text(path / CARD, card.replace("---\n", f"---\nlicense: {license}\n", 1) if license else card)
            try:
                hub.create_repo(repository, private=private, exist_ok=True)
                hub.upload_folder(repo_id=repository, folder_path=str(path), commit_message="Add a babelscope artifact")
            except (HfHubHTTPError, HFValidationError, OSError) as err:
                raise PrerequisiteError(
                    f"{repository}: could not be uploaded ({first_line(err)}); expected a name like user/name and a "
                    "login with write access; log in with `hf auth login`"
                ) from err
        return f"https://huggingface.co/{repository}"


def check_no_text(config: Mapping[str, Any]) -> None:
    """Raise ArtifactError where a saved config, but for what it says of the model, has strings that could be text."""
    for place, text in strings_of({name: value for name, value in config.items() if name != "origin"}):
        if len(text) > LONGEST_WORD or len(text.splitlines()) > 1:
            raise ArtifactError(
                f"{place!r} holds {len(text)} characters of text; expected names and codes of at most "
                f"{LONGEST_WORD} in one line; take it out before uploading"
            )


def strings_of(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every string in nested mappings and sequences, keys too, with its place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield f"{place}.key".strip("."), str(key)
            yield from strings_of(inner, f"{place}.{key}"[:60].strip("."))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings_of(inner, place)
