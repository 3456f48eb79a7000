"""Upload of an artifact's folder to the Hugging Face hub: only when asked, and never with text of a corpus."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from babelscope.errors import ArtifactError, PrerequisiteError, first_line

LONGEST_WORD = 120
"""Characters of a string in an uploaded config; settings are names and codes, longer strings may be sample text."""


@runtime_checkable
class Hub(Protocol):
    """What is used of `huggingface_hub.HfApi`."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any:
        """Make a model repository, or find it."""
        ...

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any:
        """Upload every file of a folder."""
        ...


def push_folder(
    save: Callable[[Path], Path],
    parameters: Mapping[str, Any],
    repository: str,
    *,
    private: bool = True,
    api: Hub | None = None,
) -> str:
    """Save an artifact to a temporary folder and upload it; returns the repository's address.

    api: none uses huggingface_hub with the login of this machine's user.
    Raises ArtifactError where a parameter could be text, PrerequisiteError if the hub refuses.
    """
    for place, text in strings_of(parameters):
        if len(text) > LONGEST_WORD or len(text.splitlines()) > 1:
            raise ArtifactError(
                f"parameter {place!r} holds {len(text)} characters of text; expected names and codes of at most "
                f"{LONGEST_WORD} in one line; take it out before uploading"
            )
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    hub = HfApi() if api is None else api
    with tempfile.TemporaryDirectory() as folder:
        path = save(Path(folder) / "artifact")
        try:
            hub.create_repo(repository, private=private, exist_ok=True)
            hub.upload_folder(repo_id=repository, folder_path=str(path), commit_message="Add a babelscope artifact")
        except (HfHubHTTPError, HFValidationError, OSError) as err:
            raise PrerequisiteError(
                f"{repository}: could not be uploaded ({first_line(err)}); expected a name like user/name and a "
                "login with write access; log in with `hf auth login`"
            ) from err
    return f"https://huggingface.co/{repository}"


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
