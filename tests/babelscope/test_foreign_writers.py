"""What other libraries raise where the disk refuses is told as our own writers tell it."""

import errno
import tempfile

import pytest
from conftest import tiny_model, tiny_tokenizer
from robustness.forked_runs import start

from babelscope.errors import PrerequisiteError
from babelscope.files.foreign_writers import known_disk_errors, scratch_folder

FULL = f"disk full (os error {errno.ENOSPC})"


def test_the_number_in_a_text_becomes_the_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, known_disk_errors(tmp_path):
        raise Exception(FULL)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path)
    for other in (Exception("the vocabulary is damaged"), PrerequisiteError(FULL), FileNotFoundError(2, "none")):
        with pytest.raises(type(other)) as kept, known_disk_errors(tmp_path):
            raise other
        assert kept.value is other


def test_a_full_disk_of_temporary_files_is_named_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder() as folder:
        (folder / "file").write_text("text")
        assert folder.parent == tmp_path
    assert not folder.exists()
    line = f"{tmp_path}: could not be written, the disk is full.*TMPDIR"
    with pytest.raises(PrerequisiteError, match=line), scratch_folder():
        raise Exception(FULL)
    with pytest.raises(FileNotFoundError), scratch_folder():
        raise FileNotFoundError(2, "none")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("verb", ("trim", "extend"))
def test_no_room_for_a_tokenizer_is_one_line(tmp_path, verb):
    tiny_model("llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "text").mkdir()
    lines = (f"the cat {'ab' * number} sat on a mat\n" for number in range(30))
    (tmp_path / "text" / "eu.txt").write_text("".join(lines))
    words = ["vocabulary", verb, str(tmp_path / "model"), str(tmp_path / "text"), "--out", str(tmp_path / "out")]
    words += ["--languages", "eu", "--size", "1"] if verb == "extend" else ["--min-count", "1"]
    end = start(tuple(words), tmp_path / "out", file_size=3000).end()
    assert end.code == 1 and not end.torn and "would be larger than the system allows" in end.message
    assert not (tmp_path / "out").exists()
